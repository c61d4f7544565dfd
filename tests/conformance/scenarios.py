"""Runs the scenarios of the client conformance suite one by one: `scenarios.py NODE RESULTS SUITE...`, each SUITE a folder.

The scenarios and their revisions are those that a suite lists itself, so a new one is run, and fails, until it is dealt with.
Those that cannot apply stand in NOT_APPLICABLE with the reason; a reason that no scenario needs any more is an error.
"""

import fnmatch
import json
import pathlib
import re
import subprocess
import sys
import time

SCENARIO_SECONDS = 60
CLIENT = pathlib.Path(__file__).with_name("client.py")
NOT_APPLICABLE = {
    "auth/*": "OAuth: a run has nobody who could log in; tokens come from the environment",
    "elicitation-sep1034-client-defaults": "wants an elicitation accepted; a run has nobody to ask, so it is not declared",
    "sep-2640-*": "the skills extension: its files are resources, and only tools are used",
}


def lines_of(node, suite, *arguments):
    command = [node, str(suite / "dist" / "index.js"), *arguments]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SCENARIO_SECONDS)
    return ended.returncode, ended.stdout + ended.stderr


def scenarios(node, suite):
    """Name and revisions of each client scenario of a suite."""
    _, listing = lines_of(node, suite, "list")
    section = listing.split("Client scenarios", 1)[1].split("\n\n", 1)[0]
    found = re.findall(r"^ +- (\S+) \[(\S*)\]$", section, re.MULTILINE)
    if not found:
        raise SystemExit(f"{suite.name} lists no client scenarios")
    return [(name, revisions.split(",")) for name, revisions in found]


def verdict(node, suite, scenario, revision, results):
    """Whether it passed, what its checks say, and all that was printed."""
    arguments = ["--command", f"python3 {CLIENT.relative_to(pathlib.Path.cwd())}", "--scenario", scenario]
    if revision:
        arguments += ["--spec-version", revision]
    place = results / f"{suite.name}-{scenario.replace('/', '-')}-{revision or 'any'}"
    code, output = lines_of(node, suite, "client", *arguments, "--output-dir", str(place))
    checks = [check for file in place.glob("*/checks.json") for check in json.loads(file.read_text())]
    count = {status: sum(check["status"] == status for check in checks) for status in ("SUCCESS", "SKIPPED")}
    told = f"{count['SUCCESS']} checks" + (f", {count['SKIPPED']} not exercised" if count["SKIPPED"] else "")
    # A suite that checked nothing has passed nothing.
    return code == 0 and count["SUCCESS"] > 0, told, output, place


def main():
    node, results = sys.argv[1], pathlib.Path(sys.argv[2])
    failed, excused, used = [], [], set()
    print(f"{'suite':<16} {'scenario':<34} {'revision':<11} {'verdict':<7} what", flush=True)
    for suite in map(pathlib.Path, sys.argv[3:]):
        version = json.loads((suite / "package.json").read_text())["version"]
        for scenario, revisions in scenarios(node, suite):
            pattern = next((pattern for pattern in NOT_APPLICABLE if fnmatch.fnmatch(scenario, pattern)), None)
            if pattern:
                used.add(pattern)
                excused.append((pattern, version, scenario))
                continue
            # Before 0.2 a scenario has one server for all of its revisions.
            for revision in [None] if version.startswith("0.1.") else revisions:
                started = time.monotonic()
                is_passed, told, output, place = verdict(node, suite, scenario, revision, results)
                word = "pass" if is_passed else "FAIL"
                seconds = time.monotonic() - started
                print(f"{version:<16} {scenario:<34} {revision or '':<11} {word:<7} {told}, {seconds:.1f} s", flush=True)
                if not is_passed:
                    failed.append(f"{version} {scenario} {revision or ''}")
                    print("\n".join(f"    {line}" for line in output.splitlines()[-60:]), flush=True)
                    for file in sorted(place.glob("*/std*.txt")):
                        print(f"    {file.name}:\n" + file.read_text()[-6000:], flush=True)
    print("\nnot applicable:")
    for pattern, reason in NOT_APPLICABLE.items():
        count = sum(1 for found in excused if found[0] == pattern)
        print(f"  {pattern} ({count} scenarios): {reason}")
    unused = set(NOT_APPLICABLE) - used
    if failed or unused:
        raise SystemExit(f"conformance: FAILED: {', '.join(failed)}; reasons without a scenario: {', '.join(unused) or 'none'}")


main()

"""Runs the executable with MCP servers that no one here wrote: `mcp_servers.py EXECUTABLE INSTALLED [--without-npm]`.

INSTALLED is the folder that `packages` fills. In each run the scripted model calls tools of a server, and what those returned
must be what the model is told next: the sum, the commit, the file's text. No child may be left when a run has ended. All is on
loopback, and whatever was started is ended. Python's standard library only.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time

import scripted

START_SECONDS = 180
TOKEN = "tkn-" + secrets.token_hex(12)
PR_SET_CHILD_SUBREAPER = 36
HERE = pathlib.Path(__file__).resolve().parent


class Servers:
    """The servers that listen, and the log of each."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.processes, self.ports = {}, {}

    def start(self, name, command, variables):
        """Starts one without waiting for it. {port} in the command and the variables is a free port."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = self.ports[name] = listener.getsockname()[1]
        command = [str(word).replace("{port}", str(port)) for word in command]
        variables = {key: value.replace("{port}", str(port)) for key, value in variables.items()}
        environment = {"PATH": os.environ["PATH"], **variables}
        with (self.folder / name.replace(" ", "-")).open("w") as log:
            self.processes[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def log(self, name):
        return (self.folder / name.replace(" ", "-")).read_text()

    def url(self, name, path):
        """Where it is, as soon as it is there."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.processes[name].poll() is None:
            with contextlib.suppress(ConnectionError):
                socket.create_connection(("127.0.0.1", self.ports[name]), 5).close()
                return f"http://127.0.0.1:{self.ports[name]}{path}"
            time.sleep(0.1)
        raise SystemExit(f"the server {name} did not come up within {START_SECONDS} s:\n{self.log(name)[-4000:]}")

    def wait(self):
        """All of them at once take their time, and those that a run starts would take it too."""
        for name in self.processes:
            self.url(name, "")

    def end(self):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()


def orphans(known):
    """Commands of living children of ours besides those known. What a run leaves behind becomes a child of ours."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (place / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) != os.getpid() or int(place.name) in known:
                continue
            if state == "Z":
                os.waitpid(int(place.name), 0)
            else:
                found.append((place / "cmdline").read_text().replace("\0", " "))
                os.kill(int(place.name), signal.SIGKILL)
    return found


class Interop:
    def __init__(self, executable, servers):
        self.executable, self.servers, self.failures = executable, servers, 0

    def run(self, name, entry, plan, workspace, variables=None):
        """Runs a plan of (tool, arguments, what the result must hold and must not hold)."""
        calls = [(tool, arguments) for tool, arguments, *_ in plan]
        ended = scripted.run(self.executable, [entry], calls, workspace, {"PATH": os.environ["PATH"], **(variables or {})})
        problems = []
        for text in orphans({process.pid for process in self.servers.processes.values()}):
            problems.append(f"left behind: {text}")
        for offered in ended.offered:
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", offered):
                problems.append(f"a name that no provider takes: {offered}")
        return ended, problems

    def works(self, name, entry, plan, workspace, variables=None):
        """The plan is carried out, each call with its true result."""
        ended, problems = self.run(name, {"type": "mcp", **entry}, plan, workspace, variables)
        if (ended.code, ended.outcome.get("status")) != (0, "achieved"):
            problems.append(f"ended with {ended.code} {ended.outcome.get('reason')}")
        if len(ended.results) != len(plan):
            problems.append(f"{len(ended.results)} results of {len(plan)}")
        for (tool, _, wanted, *unwanted), result in zip(plan, ended.results):
            problems += [f"{tool} does not tell {text!r}" for text in wanted if text not in result]
            problems += [f"{tool} tells {text!r}" for text in unwanted if text in result]
        self.tell(name, ended, problems)
        return ended

    def refuses(self, name, entry, workspace, words, variables=None):
        """It ends before the model is asked, with a message that has these words, and without the token."""
        ended, problems = self.run(name, {"type": "mcp", **entry}, [], workspace, variables)
        if ended.code != 1 or ended.was_asked:
            problems.append(f"ended with {ended.code}, and the model was {'' if ended.was_asked else 'not '}asked")
        everything = json.dumps(ended.outcome) + ended.log
        problems += [f"does not tell {word!r}" for word in words if word not in everything]
        problems += ["tells the token"] if TOKEN in everything else []
        self.tell(name, ended, problems)

    def fail(self, what):
        self.failures += 1
        print(f"servers: {what}", flush=True)

    def tell(self, name, ended, problems):
        calls = f"{len(ended.results)} calls" if ended.results else ended.outcome.get("reason")
        print(f"servers: {name}: {'; '.join(problems) or 'ok'} ({ended.seconds:.1f} s, {calls})", flush=True)
        if problems:
            self.failures += 1
            print(ended.told(), flush=True)


def framework_plan(sees_variables):
    one, other, limit = secrets.randbelow(10**6), secrets.randbelow(10**6), 2 + secrets.randbelow(5)
    # A child gets none of ours; a server that was there before has no variable of the runtime anyway.
    variables = ["PATH", "MARK_OF_THE_TEST"] if sees_variables else ["PATH"]
    return [
        ("add", {"a": one, "b": other}, [str(one + other)]),
        ("count", {"to": limit}, [f"counted to {limit}"]),
        ("fail", {}, ["the reactor is offline"]),
        ("variables", {}, variables, "THOUGHTMESH", "SOMEBODYS_API_KEY"),
        ("greet.in/all: languages", {"name": "Ægir"}, ["Grüße, Ægir 👋"]),
    ]


def start_framework(servers, installed):
    for version in ("mcp-1", "mcp"):
        python = installed / version / "bin" / "python"
        for transport in ("streamable-http", "sse"):
            servers.start(f"{version} {transport}", [python, HERE / "mcp_framework.py", transport, "{port}"], {})
    python = installed / "mcp" / "bin" / "python"
    servers.start("mcp modern", [python, HERE / "mcp_framework.py", "streamable-http", "{port}", "--modern"], {})
    servers.start("guarded", [python, HERE / "mcp_framework.py", "streamable-http", "{port}", TOKEN], {})


def check_framework(interop, installed, workspace):
    hidden = {"SOMEBODYS_API_KEY": "sk-nobody-else"}
    for version in ("mcp-1", "mcp"):
        command = [str(installed / version / "bin" / "python"), str(HERE / "mcp_framework.py"), "stdio", "0"]
        entry = {"name": "frame", "config": {"command": command, "env": {"MARK_OF_THE_TEST": "1"}}}
        interop.works(f"{version} stdio", entry, framework_plan(True), workspace, hidden)
        for transport, path in (("streamable-http", "/mcp"), ("sse", "/sse")):
            name = f"{version} {transport}"
            entry = {"name": "frame", "url": interop.servers.url(name, path)}
            interop.works(name, entry, framework_plan(False), workspace, hidden)
    # Over HTTP alone: a child of this framework keeps to the protocol of the first message, even one that it refuses.
    entry = {"name": "frame", "url": interop.servers.url("mcp modern", "/mcp")}
    interop.works("mcp streamable-http, 2026-07-28 only", entry, framework_plan(False), workspace, hidden)
    if "DELETE /mcp" not in interop.servers.log("mcp-1 streamable-http"):
        interop.fail("mcp-1 streamable-http: the session was not ended")


def check_guarded(interop, workspace):
    entry = {"name": "guarded-one", "url": interop.servers.url("guarded", "/mcp")}
    interop.refuses("guarded, without token", entry, workspace, ["guarded-one", "401", "GUARDED_ONE_TOKEN"])
    wrong = {"GUARDED_ONE_TOKEN": "tkn-wrong-8842"}
    interop.refuses("guarded, with a wrong token", entry, workspace, ["guarded-one", "401", "GUARDED_ONE_TOKEN"], wrong)
    plan = [("add", {"a": 20, "b": 22}, ["42"])]
    given = {"GUARDED_ONE_TOKEN": TOKEN}
    ended = interop.works("guarded, with the variable named after it", entry, plan, workspace, given)
    if TOKEN in ended.log:
        interop.fail("guarded: the log tells the token")
    entry = {**entry, "config": {"headers": {"Authorization": "Bearer ${SOME_TOKEN}"}}}
    interop.works("guarded, with a header", entry, plan, workspace, {"SOME_TOKEN": TOKEN})


def check_git(interop, installed, workspace):
    repository = pathlib.Path(workspace, "repository")
    repository.mkdir()
    subject = f"harbor: crane {secrets.token_hex(8)} is repaired"
    (repository / "log.txt").write_text("repaired\n")
    git = ["git", "-C", str(repository), "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    for arguments in (["init", "--quiet"], ["add", "log.txt"], ["commit", "--quiet", "--message", subject]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (repository / "new.txt").write_text("new\n")
    plan = [
        ("git_log", {"repo_path": str(repository), "max_count": 1}, [subject, commit]),
        ("git_status", {"repo_path": str(repository)}, ["new.txt"]),
    ]
    program = str(installed / "mcp" / "bin" / "mcp-server-git")
    interop.works("mcp-server-git", {"name": "history", "config": {"command": [program]}}, plan, workspace)
    entry = {"name": "history", "config": {"command": [program, "--no-such-option"]}}
    interop.refuses("mcp-server-git, dead at start", entry, workspace, ["history", "no-such-option"])


def check_time(interop, installed, workspace):
    arguments = {"source_timezone": "Asia/Tokyo", "time": "14:30", "target_timezone": "Asia/Kolkata"}
    plan = [("convert_time", arguments, ["T14:30:00+09:00", "T11:00:00+05:30", "-3.5h"])]
    command = [str(installed / "mcp" / "bin" / "mcp-server-time"), "--local-timezone", "UTC"]
    interop.works("mcp-server-time", {"name": "clock", "config": {"command": command}}, plan, workspace)


def node_program(installed, package):
    folder = installed / "npm" / "node_modules" / "@modelcontextprotocol" / package
    return [str(installed / "node" / "bin" / "node"), str(folder / "dist" / "index.js")]


def start_everything(servers, installed):
    preload = f"""--require="{HERE / 'loopback.cjs'}\""""
    for transport in ("streamableHttp", "sse"):
        command = [*node_program(installed, "server-everything"), transport]
        servers.start(f"everything {transport}", command, {"PORT": "{port}", "NODE_OPTIONS": preload})


def check_everything(interop, installed, workspace):
    word = secrets.token_hex(8)
    one, other = secrets.randbelow(10**6), secrets.randbelow(10**6)
    plan = [
        ("echo", {"message": word}, [word]),
        ("get-sum", {"a": one, "b": other}, [str(one + other)]),
        ("get-structured-content", {"location": "Chicago"}, ["36", "Light rain / drizzle"]),
        # The image is described; these are the first bytes of it.
        ("get-tiny-image", {}, ["image/png"], "iVBORw0KGgo"),
        ("get-resource-reference", {"resourceType": "Text", "resourceId": 3}, ["demo://resource/dynamic/text/3"]),
        ("get-resource-links", {"count": 2}, ["demo://resource/dynamic"]),
        ("trigger-long-running-operation", {"duration": 1, "steps": 4}, ["completed"]),
        ("get-env", {}, ["PATH"], "THOUGHTMESH", scripted.KEY),
    ]
    # Offered only where there are roots, which the server asks for, and known to it only after the beginning.
    roots = ("get-roots-list", {}, [pathlib.Path(workspace).as_uri()])
    transports = (("stdio", None), ("streamableHttp", "/mcp"), ("sse", "/sse"))
    for transport, path in transports:
        name = f"everything {transport}"
        if path:
            entry = {"name": "everything", "url": interop.servers.url(name, path)}
        else:
            command = [*node_program(installed, "server-everything"), "stdio"]
            entry = {"name": "everything", "config": {"command": command}}
        ended = interop.works(name, entry, plan if path else [*plan, roots], workspace)
        # It can only be called as a task, which is not done here.
        if scripted.offered_name(ended.offered, "simulate-research-query"):
            interop.fail(f"{name}: offers a tool that cannot be called")


def check_filesystem(interop, installed, workspace):
    text = f"the harbor master's note {secrets.token_hex(8)}\n"
    pathlib.Path(workspace, "note.txt").write_text(text)
    written = str(pathlib.Path(workspace, "written.txt"))
    plan = [
        ("read_text_file", {"path": str(pathlib.Path(workspace, "note.txt"))}, [text.strip()]),
        ("write_file", {"path": written, "content": text}, [written]),
        ("list_directory", {"path": str(workspace)}, ["[FILE] note.txt", "[FILE] written.txt"]),
        ("read_text_file", {"path": "/proc/self/environ"}, ["denied"], "PATH="),
    ]
    entry = {"name": "files", "config": {"command": [*node_program(installed, "server-filesystem"), str(workspace)]}}
    interop.works("filesystem", entry, plan, workspace)
    if not os.path.exists(written) or pathlib.Path(written).read_text() != text:
        interop.fail("filesystem: nothing was written")


def main():
    executable, installed = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    has_npm = "--without-npm" not in sys.argv
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as workspace:
        workspace = os.path.realpath(workspace)
        servers = Servers(folder)
        interop = Interop(executable, servers)
        try:
            start_framework(servers, installed)
            if has_npm:
                start_everything(servers, installed)
            servers.wait()
            check_git(interop, installed, workspace)
            check_time(interop, installed, workspace)
            check_framework(interop, installed, workspace)
            check_guarded(interop, workspace)
            if has_npm:
                check_everything(interop, installed, workspace)
                check_filesystem(interop, installed, workspace)
        finally:
            servers.end()
    if interop.failures:
        raise SystemExit(f"servers: {interop.failures} runs did not end as they must")


main()

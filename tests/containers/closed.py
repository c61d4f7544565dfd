"""A closed cluster: whatever the runtime connects to is written down by strace, and nobody is there who was not named.

`closed.py EXECUTABLE`, in a namespace whose only network is loopback. The example runs whole: its committed transcript is
played by a model over HTTP, and once by `replay`.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import readme
from peers import Authority, Model, Registry, Resolver, finish

EXECUTABLE = sys.argv.pop()
WAIT_SECONDS = 60
SEARCH = "nameserver 127.0.0.1\nsearch agents.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"


def transcript():
    """The example's turns, as entries of a model's script."""
    lines = (readme.ROOT / "tests/example/transcript.jsonl").read_text().splitlines()
    turns = [json.loads(line)["parts"] for line in lines]
    return [[(part["name"], part["arguments"]) for part in parts if part["type"] == "tool_call"] for parts in turns]


def example():
    """Objective, key results and tools of `just run-example`."""
    found = dict(re.findall(r"^export example_(\w+) := '(.*)'$", (readme.ROOT / "justfile").read_text(), re.MULTILINE))
    return {f"THOUGHTMESH_{name.upper()}": value for name, value in found.items()}


class Traced:
    """A run with its system calls of the network: `peers` are the addresses that anything was sent to."""

    def __init__(self, config, arguments=(), **environment):
        with tempfile.TemporaryDirectory() as folder:
            workspace = pathlib.Path(folder, "workspace")
            shutil.copytree(readme.ROOT / "src", workspace / "src")
            shutil.copytree(readme.ROOT / "tests/example", workspace / "tests/example")
            (workspace / "target").mkdir()
            trace = pathlib.Path(folder, "trace")
            command = [
                "strace",
                "--follow-forks",
                "--trace=%network",
                "--string-limit=0",
                f"--output={trace}",
                EXECUTABLE,
                *arguments,
            ]
            variables = {"PATH": os.environ["PATH"], "THOUGHTMESH_MODEL_CONFIG": json.dumps(config), **example(), **environment}
            self.ended = subprocess.run(
                command, cwd=workspace, env=variables, capture_output=True, text=True, timeout=WAIT_SECONDS
            )
            self.trace = trace.read_text()
            self.has_report = (workspace / "target/performance-report.md").exists()
        self.peers = set()
        for line in self.trace.splitlines():
            # The name server's answers say who sent them, as requests say where they go.
            if found := re.search(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"\)', line):
                if not re.search(r"\b(bind|getsockname)\(", line):
                    self.peers.add((found[2], int(found[1])))
            elif re.search(r"\b(connect|sendto|sendmsg)\(.*sa_family=", line):
                self.peers.add(line)


class Closed(unittest.TestCase):
    def achieved(self, run):
        self.assertEqual(run.ended.returncode, 0, run.ended.stderr + run.ended.stdout)

    def test_there_is_no_way_out_of_here(self):
        routes = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True)
        self.assertEqual([link["ifname"] for link in json.loads(routes.stdout)], ["lo"])

    def test_the_example_connects_to_its_model_alone(self):
        with Model(transcript()) as model:
            config = {"provider": "openai-compatible", "name": "m", "endpoint": f"http://127.0.0.1:{model.port}/v1"}
            run = Traced(config)
            self.achieved(run)
            self.assertTrue(run.has_report)
            self.assertEqual(run.peers, {("127.0.0.1", model.port)}, run.trace)

    def test_a_model_with_a_name_takes_the_name_server_too(self):
        subprocess.run(["mount", "--bind", resolv_conf(self), "/etc/resolv.conf"], check=True)
        self.addCleanup(subprocess.run, ["umount", "/etc/resolv.conf"], check=True)
        with Model(transcript()) as model, Resolver({"vllm.models.svc.cluster.local": "127.0.0.1"}):
            config = {"provider": "openai-compatible", "name": "m", "endpoint": f"http://vllm.models.svc:{model.port}/v1"}
            run = Traced(config)
            self.achieved(run)
            self.assertEqual(run.peers, {("127.0.0.1", model.port), ("127.0.0.1", 53)}, run.trace)

    def test_a_tool_connects_to_what_it_was_told(self):
        with Model([finish(), finish()]) as other, Model([]) as model:
            request = {
                "method": "POST",
                "url": f"http://127.0.0.1:{other.port}/v1/chat/completions",
                "body": '{"model": "m", "messages": []}',
            }
            model.script += [[("http_request", request)], finish()]
            config = {"provider": "openai-compatible", "name": "m", "endpoint": f"http://127.0.0.1:{model.port}/v1"}
            tools = json.dumps([{"name": "http_request", "config": {"allow": ["127.0.0.1"]}}])
            run = Traced(config, THOUGHTMESH_TOOLS=tools, THOUGHTMESH_KEY_RESULTS="[]")
            self.achieved(run)
            self.assertEqual(run.peers, {("127.0.0.1", model.port), ("127.0.0.1", other.port)}, run.trace)

    def test_the_example_without_a_model_opens_no_socket(self):
        run = Traced({"provider": "replay", "name": "tests/example/transcript.jsonl"})
        self.achieved(run)
        calls = [line for line in run.trace.splitlines() if re.search(r"\b(socket|connect|sendto|sendmsg)\(", line)]
        self.assertEqual(calls, [])

    def test_the_image_is_carried_in_a_file_and_pushed(self):
        lines = [line.strip() for line in readme.lines_with("podman ") if " build " not in line]
        self.assertEqual([line.split()[1] for line in lines], ["save", "load", "push"])
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("w") as hosts:
            hosts.write("127.0.0.1 registry.internal\n")
            hosts.flush()
            subprocess.run(["mount", "--bind", hosts.name, "/etc/hosts"], check=True)
            self.addCleanup(subprocess.run, ["umount", "/etc/hosts"], check=True)
            authority = Authority(folder)
            pulled = "podman pull --quiet registry.internal/thoughtmesh-runtime:0.1.0"
            with Registry(authority.certificate("registry.internal")):
                environment = {**os.environ, "SSL_CERT_FILE": str(authority.root)}
                for line in [*lines, pulled]:
                    ended = subprocess.run(
                        line, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS
                    )
                    self.assertEqual(ended.returncode, 0, f"{line}: {ended.stderr}")
            image = subprocess.run(
                ["podman", "image", "inspect", "--format={{.Id}}", "thoughtmesh-runtime:0.1.0"], capture_output=True, text=True
            )
            self.assertEqual(ended.stdout, image.stdout)

    def test_a_check_asks_nobody(self):
        config = {"provider": "openai-compatible", "name": "m", "endpoint": "http://vllm.models.svc:8000/v1"}
        run = Traced(config, arguments=["--check"])
        self.achieved(run)
        self.assertEqual(run.peers, set(), run.trace)


def resolv_conf(case):
    file = tempfile.NamedTemporaryFile("w")
    case.addCleanup(file.close)
    file.write(SEARCH)
    file.flush()
    return file.name


if __name__ == "__main__":
    unittest.main()

"""README's Containerfile with git, a shell and a linter: tools that need programs, in pods as strict as the others."""

import json
import os
import unittest

import readme
from peers import Model, finish
from pods import RESTRICTED, Case, Pod, environment

IMAGE = os.environ["THOUGHTMESH_TEST_DERIVED"]
# An `emptyDir` as the kubelet makes it.
WORKSPACE = "--tmpfs=/workspace:mode=1777"


class Derived(Case):
    def results(self, tools, calls):
        """What the calls returned to the model."""
        script = [[call] for call in calls]
        with Model([*script, finish()]) as model:
            with Pod(environment(model, THOUGHTMESH_TOOLS=json.dumps(tools)), *RESTRICTED[:-1], WORKSPACE, image=IMAGE) as pod:
                self.ends(pod.run(), 0, "finished")
            messages = model.requests[-1]["body"]["messages"]
            return [message["content"] for message in messages if message["role"] == "tool"]

    def test_the_shell_runs_as_a_user_without_an_entry(self):
        (result,) = self.results(
            [{"name": "shell"}], [("shell", {"command": "id -u; echo a >a.txt; cat a.txt; touch /b 2>&1 || true"})]
        )
        self.assertRegex(result, r"(?s)1000\d{6}\na\n.*Read-only file system")

    def test_git_records_in_a_repository_of_the_workspace(self):
        tools = [{"name": "shell"}, {"name": "write_file"}, {"name": "git", "config": {"allow_write": True}}]
        calls = [
            ("shell", {"command": "git init --quiet --initial-branch=main ."}),
            ("write_file", {"path": "a.txt", "content": "a\n"}),
            ("git", {"subcommand": "add", "arguments": ["a.txt"]}),
            ("git", {"subcommand": "commit", "arguments": ["-m", "one"]}),
            ("git", {"subcommand": "log", "arguments": ["--format=%an %s"]}),
        ]
        self.assertIn("thoughtmesh agent one", self.results(tools, calls)[-1])

    def test_the_command_of_readme_finds_a_mistake(self):
        text = next(block for block in readme.blocks() if block.startswith('{"name": "check_script"'))
        tools = [{"name": "write_file"}, json.loads(text)]
        calls = [("write_file", {"path": "a.sh", "content": "#!/bin/sh\necho $1\n"}), ("check_script", {"path": "a.sh"})]
        script = [[call] for call in calls]
        with Model([*script, [("write_file", {"path": "a.sh", "content": "#!/bin/sh\n"})], finish()]) as model:
            with Pod(environment(model, THOUGHTMESH_TOOLS=json.dumps(tools)), *RESTRICTED[:-1], WORKSPACE, image=IMAGE) as pod:
                self.ends(pod.run(), 0, "finished")
            self.assertIn("SC2086", model.text())


if __name__ == "__main__":
    unittest.main()

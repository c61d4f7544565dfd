"""What the conformance suite takes for a client: `client.py URL`, with the executable's path in CONFORMANCE_EXECUTABLE.

It starts the executable with a scripted model that calls the scenario's tools. Everything that the suite's server sees comes
from the executable; nothing here speaks MCP. Python's standard library only.
"""

import json
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import scripted  # noqa: E402


def echoed_schema(offered):
    """The schema that the model was shown for the tool with the difficult one."""
    return {"schema": offered[scripted.offered_name(offered, "json_schema_2020_12_tool")]}


def calls_of_context(context):
    return [(call["name"], call["arguments"]) for call in context["toolCalls"]]


# What the model calls in a scenario. Of those that are not here it only sees the list.
PLANS = {
    "tools_call": [("add_numbers", {"a": 2, "b": 3})],
    "sse-retry": [("test_reconnection", {})],
    "json-schema-2020-12-preservation": [("json_schema_echo", echoed_schema)],
    "http-standard-headers": [("test_headers", {}), ("my-hyphenated-tool", {})],
    "http-invalid-tool-headers": [("valid_tool", {"region": "eu-1"})],
    "sep-2322-client-request-state": [
        ("test_mrtr_echo_state", {}),
        ("test_mrtr_unrelated", {}),
        ("test_mrtr_no_state", {}),
        ("test_mrtr_no_result_type", {}),
    ],
}
# Their servers have no tool, which ends a run before the model is asked, unless the entry says that it can do without.
WITHOUT_TOOLS = ("initialize", "request-metadata")


def main():
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    plan = calls_of_context(context) if "toolCalls" in context else PLANS.get(scenario, [])
    tools = [{"name": "suite", "type": "mcp", "url": sys.argv[1], "required": scenario not in WITHOUT_TOOLS}]
    with tempfile.TemporaryDirectory() as workspace:
        ended = scripted.run(os.environ["CONFORMANCE_EXECUTABLE"], tools, plan, workspace, {})
    print(ended.told())
    # An invalid tool that is offered would only be noticed if it were called.
    invalid = [name for name in ended.offered if "invalid" in name]
    raise SystemExit(1 if invalid else ended.code)


main()

"""A scripted model, and one run of the executable with it. Python's standard library only; nothing here speaks MCP.

The model speaks Chat Completions on loopback. It calls the tools of a plan one by one, under the names that it is offered them
by, then finishes; when a tool of the plan is not offered it gives up. What the executable tells it is kept: tools and results.
"""

import json
import pathlib
import re
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RUN_SECONDS = 60
KEY = "sk-scripted-41f0b9e2"
USAGE = {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}


class Model:
    """The server of one run. A plan is a list of (tool, arguments), the tool as its own server calls it; arguments may be a
    function of the tools offered, which are a dict of name and JSON Schema."""

    def __init__(self, plan):
        self.plan = plan
        self.offered = {}
        self.first_request = None
        self.results = []

    def serve(self):
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                content = json.dumps(model.answer(body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def answer(self, body):
        self.first_request = self.first_request or time.monotonic()
        self.offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}
        self.results = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        name, arguments = self.next_call()
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": f"call_{len(self.results)}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}

    def next_call(self):
        if len(self.results) >= len(self.plan):
            return "finish", {"status": "achieved", "summary": "The plan was carried out.", "key_results": []}
        tool, arguments = self.plan[len(self.results)]
        name = offered_name(self.offered, tool)
        if name is None:
            summary = f"{tool} is not offered, only {', '.join(self.offered)}"
            return "finish", {"status": "failed", "summary": summary, "key_results": []}
        return name, arguments(self.offered) if callable(arguments) else arguments


def offered_name(offered, tool):
    """The name that a server's tool has here, with its server's name before it; None when it is not offered."""
    ending = "_" + re.sub(r"[^A-Za-z0-9_-]", "_", tool)
    return next((name for name in offered if name.endswith(ending)), None)


class Ended:
    """What a run left behind."""

    def __init__(self, code, outcome, log, model, seconds):
        self.code, self.outcome, self.log, self.seconds = code, outcome, log, seconds
        self.offered, self.results = model.offered, model.results
        self.was_asked = model.first_request is not None

    def told(self):
        """All that a person needs to see when it is not as it must be."""
        results = "\n".join(f"result: {text}" for text in self.results)
        return f"exit code {self.code}, {json.dumps(self.outcome)}\noffered: {', '.join(self.offered)}\n{results}\n{self.log}"


def run(executable, tools, plan, workspace, variables):
    """Runs the executable to its end, with these tools and nothing of this process's environment but `variables`."""
    model = Model(plan)
    server = model.serve()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    config = {"provider": "openai-compatible", "name": "scripted", "endpoint": url, "api_key": KEY, "stream": False}
    environment = {
        "THOUGHTMESH_MODEL_CONFIG": json.dumps(config),
        "THOUGHTMESH_OBJECTIVE": "Carry out the plan.",
        "THOUGHTMESH_TOOLS": json.dumps(tools),
        "THOUGHTMESH_WORKSPACE": str(workspace),
        "RUST_LOG": "debug",
        **variables,
    }
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = time.monotonic()
    process = subprocess.Popen([str(pathlib.Path(executable).resolve())], env=environment, text=True, **pipes)
    try:
        output, log = process.communicate(timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, log = process.communicate()
        log += f"\nstopped, because it took more than {RUN_SECONDS} s"
    seconds = time.monotonic() - started
    server.shutdown()
    server.server_close()
    outcome = json.loads(output) if output.strip() else {}
    return Ended(process.returncode, outcome, log, model, seconds)

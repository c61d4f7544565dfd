"""Runs the executable through a real LiteLLM proxy: `gateway.py EXECUTABLE`, with the Python that has LiteLLM.

The proxy stands between the executable and `upstream.py`, all on loopback. Ends with a failure when any run does not end as it
must. Whatever was started is ended with it.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import upstream

KEY = "sk-gateway-5d0c7a19"
START_SECONDS = 180
RUN_SECONDS = 60
# Route, the fields of the model's configuration, and the way that the gateway takes from there.
ROUTES = [
    ("chat", {"provider": "openai-compatible"}, "openai/"),
    ("chat before Anthropic", {"provider": "openai-compatible"}, "anthropic/"),
    ("responses", {"provider": "openai", "api": "responses"}, "openai/"),
    ("messages", {"provider": "anthropic"}, "anthropic/"),
    ("messages before OpenAI", {"provider": "anthropic"}, "openai/"),
]


def configuration(url):
    """The gateway's own: each model once for each way, with and without success."""
    models = []
    for way, base in (("openai/", f"{url}/v1"), ("anthropic/", url)):
        for name in ("met", "unmet"):
            litellm = {"model": f"{way}{name}", "api_base": base, "api_key": "sk-upstream"}
            models.append({"model_name": way.rstrip("/") + "-" + name, "litellm_params": litellm})
    # JSON is YAML.
    return json.dumps({"model_list": models, "general_settings": {"master_key": KEY}})


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_up(process, port):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise SystemExit(f"the gateway did not come up within {START_SECONDS} s")


def run(executable, url, fields, model, key, stream):
    """Exit code, outcome, log and duration of one run."""
    base = url if fields["provider"] == "anthropic" else f"{url}/v1"
    config = {**fields, "name": model, "endpoint": base, "api_key": key, "stream": stream, "temperature": "0.2"}
    with tempfile.TemporaryDirectory() as workspace:
        pathlib.Path(workspace, "a.txt").write_text("the content of a\n")
        environment = {
            "PATH": os.environ["PATH"],
            "THOUGHTMESH_MODEL_CONFIG": json.dumps(config),
            "THOUGHTMESH_OBJECTIVE": "Read a.txt.",
            "THOUGHTMESH_KEY_RESULTS": '["a.txt was read"]',
            "THOUGHTMESH_TOOLS": '[{"name": "read_file"}]',
            "THOUGHTMESH_WORKSPACE": workspace,
        }
        started = time.monotonic()
        ended = subprocess.run([executable], env=environment, capture_output=True, text=True, timeout=RUN_SECONDS)
        seconds = time.monotonic() - started
    outcome = json.loads(ended.stdout) if ended.stdout.strip() else {}
    return ended.returncode, outcome, ended.stderr, seconds


def cases():
    """What is run, and how it must end: name, fields, model, key, stream, exit code, reason."""
    for name, fields, way in ROUTES:
        prefix = way.rstrip("/")
        for stream in (True, False):
            how = f"{name}, {'streamed' if stream else 'whole'}"
            yield how, fields, f"{prefix}-met", KEY, stream, 0, "finished"
        yield f"{name}, unmet", fields, f"{prefix}-unmet", KEY, True, 1, "key_results_unmet"
        yield f"{name}, wrong key", fields, f"{prefix}-met", "sk-wrong", True, 1, "credentials_refused"
        yield f"{name}, unknown model", fields, "no-such-model", KEY, True, 1, "model_unavailable"


def check(executable, url):
    failures = 0
    for name, fields, model, key, stream, code, reason in cases():
        found_code, outcome, log, seconds = run(executable, url, fields, model, key, stream)
        problems = []
        if (found_code, outcome.get("reason")) != (code, reason):
            problems.append(f"ended with {found_code} {outcome.get('reason')}, not {code} {reason}")
        if code == 0 and not outcome.get("usage", {}).get("inputTokens"):
            problems.append("no usage")
        if reason == "credentials_refused" and (seconds > 10 or "try 1" in log):
            problems.append(f"a wrong key was tried for {seconds:.0f} s")
        print(f"gateway: {name}: {'; '.join(problems) or 'ok'} ({seconds:.1f} s, {outcome.get('usage')})", flush=True)
        if problems:
            failures += 1
            print(log)
    return failures


def main():
    executable = str(pathlib.Path(sys.argv[1]).resolve())
    server = upstream.serve()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "gateway.yaml")
        config.write_text(configuration(f"http://127.0.0.1:{server.server_port}"))
        log = pathlib.Path(folder, "gateway.log")
        # Nothing is fetched and nothing is told to anybody; proxies would stand before the upstream.
        dropped = ("PROXY", "LITELLM", "DATABASE_URL")
        environment = {name: value for name, value in os.environ.items() if not name.upper().endswith(dropped)}
        environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "NO_PROXY": "*"}
        command = [str(pathlib.Path(sys.executable).with_name("litellm")), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        with log.open("w") as output:
            gateway = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
            try:
                wait_until_up(gateway, port)
                failures = check(executable, f"http://127.0.0.1:{port}")
            except BaseException:
                print(log.read_text()[-4000:])
                raise
            finally:
                gateway.terminate()
                try:
                    gateway.wait(20)
                except subprocess.TimeoutExpired:
                    gateway.kill()
                    gateway.wait()
        if failures:
            print(log.read_text()[-8000:])
            raise SystemExit(f"gateway: {failures} runs did not end as they must")


main()

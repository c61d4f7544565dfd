"""The image under a real runtime: what the kubelet does with a pod, done by podman and runc.

Runs in the network namespace that `run` has made: loopback is all there is, so models, name servers and proxies of these
tests are all that can be reached. What may surprise: flags stand for what the kubelet does (the termination log is a bind
mount, nothing is mounted on /tmp), and README's Job is played by `podman kube play`, where claims are folders.
"""

import base64
import copy
import json
import os
import pathlib
import random
import subprocess
import tempfile
import unittest

import readme
import yaml
from peers import ApiServer, Authority, Model, Proxy, Resolver, finish

IMAGE = os.environ["THOUGHTMESH_TEST_IMAGE"]
WAIT_SECONDS = 60
RESTRICTED = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--memory=32m"]
KEY = "sk-4f9c2e7b81d05a36"
# What the platform adds, which the model is not told.
PLATFORM = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "SHOP_SERVICE_HOST": "10.96.7.7",
    "SHOP_SERVICE_PORT": "80",
    "SHOP_PORT": "tcp://10.96.7.7:80",
    "SHOP_PORT_80_TCP_ADDR": "10.96.7.7",
    "HOSTNAME": "agent-x7k2p",
}


def podman(*arguments, given=None, check=True):
    ended = subprocess.run(["podman", *map(str, arguments)], input=given, capture_output=True, text=True, timeout=WAIT_SECONDS)
    if check and ended.returncode:
        raise AssertionError(f"podman {arguments} ended with {ended.returncode}: {ended.stderr}")
    return ended


class Pod:
    """One container, and what it left behind."""

    def __init__(self, environment, *options, command=("/thoughtmesh/runtime",), image=IMAGE, user=None):
        self.folder = tempfile.TemporaryDirectory()
        self.log = pathlib.Path(self.folder.name, "termination-log")
        self.log.touch()
        self.log.chmod(0o666)
        user = user or f"{random.randrange(1_000_000_000, 1_001_000_000)}:0"
        variables = {**environment, "HOSTNAME": "agent-x7k2p"}
        settings = [f"--env={name}={value}" for name, value in variables.items()]
        self.name = podman(
            "create", "--network=host", "--read-only-tmpfs=false", "--unsetenv=container", "--unsetenv=TERM", f"--user={user}",
            f"--volume={self.log}:/dev/termination-log", *settings, *options, f"--entrypoint={command[0]}", image, *command[1:],
        ).stdout.strip()  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        podman("rm", "--force", "--time=0", self.name)
        self.folder.cleanup()

    def start(self):
        podman("start", self.name)
        return self

    def wait(self):
        self.code = int(podman("wait", self.name).stdout)
        logs = podman("logs", self.name)
        self.stdout, self.stderr = logs.stdout, logs.stderr
        self.text = self.log.read_text()
        self.message = json.loads(self.text) if self.text else None
        return self

    def run(self):
        return self.start().wait()


def model_config(model, **fields):
    whole = {
        "provider": "openai-compatible",
        "name": "gpt-4",
        "endpoint": f"http://127.0.0.1:{model.port}/v1",
        "api_key": KEY,
        **fields,
    }
    return json.dumps(whole)


def environment(model, **more):
    return {"THOUGHTMESH_MODEL_CONFIG": model_config(model), "THOUGHTMESH_OBJECTIVE": "Say something.", **more}


class Case(unittest.TestCase):
    def ends(self, pod, code, reason):
        where = f"\nstdout: {pod.stdout}\nstderr: {pod.stderr}\nmessage: {pod.text}"
        self.assertEqual((pod.code, (pod.message or {}).get("reason")), (code, reason), where)
        self.assertLessEqual(len(pod.text.encode()), 4096)
        self.assertEqual(json.loads(pod.stdout.splitlines()[-1])["reason"], reason)


class Image(Case):
    def test_the_image_holds_the_executable_an_empty_workspace_and_labels(self):
        with tempfile.TemporaryDirectory() as folder:
            podman("save", "--quiet", "--format=oci-dir", f"--output={folder}/image", IMAGE)
            blobs = pathlib.Path(folder, "image/blobs/sha256")
            index = json.loads(pathlib.Path(folder, "image/index.json").read_text())
            manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
            names = set()
            for layer in manifest["layers"]:
                listing = subprocess.run(
                    ["tar", "--list", "--file", blobs / layer["digest"].removeprefix("sha256:")],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                names |= {name.strip("/") for name in listing.stdout.splitlines()} - {""}
        self.assertEqual(names, {"thoughtmesh", "thoughtmesh/runtime", "workspace"})

    def test_the_image_says_what_it_is(self):
        image = json.loads(podman("image", "inspect", IMAGE).stdout)[0]
        self.assertEqual(image["Architecture"], {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine])
        config = image["Config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(config["WorkingDir"], "/workspace")
        self.assertEqual(config["Entrypoint"], ["/thoughtmesh/runtime"])
        labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
        self.assertEqual(labels["licenses"], "Apache-2.0")
        self.assertRegex(labels["version"], r"^\d+\.\d+\.\d+$")
        self.assertRegex(labels["revision"], r"^([0-9a-f]{40}(-dirty)?|unknown)$")


class Controller(Case):
    """A pod as the controller makes it: four variables, `envFrom`, one command, nothing else."""

    def test_an_agent_of_the_controller_reaches_its_objective(self):
        with Model([finish(2)]) as model:
            # Its map of roles, as its types are written by Go's encoder.
            worker = {
                "provider": "openai-compatible",
                "modelName": "gpt-4",
                "apiKey": KEY,
                "temperature": "0.2",
                "params": {"top_p": "0.9"},
            }
            roles = {"worker": {**worker, "endpoint": f"http://127.0.0.1:{model.port}/v1", "systemPrompt": ""}}
            variables = {
                "REGION": "eu-west-3", "GREETING": "Grüße, 世界", "PAGER_TOKEN": "tok-93jf02mf8s",  # envFrom: ConfigMap, Secret
                **PLATFORM,
                "THOUGHTMESH_MODEL_CONFIG": json.dumps(roles),
                "THOUGHTMESH_OBJECTIVE": "Analyze $(REGION).",
                "THOUGHTMESH_KEY_RESULTS": json.dumps(["One", "Two"]),
                "THOUGHTMESH_TOOLS": json.dumps([{"name": "filesystem", "config": {}}]),
            }  # fmt: skip
            with Pod(variables) as pod:
                self.ends(pod.run(), 0, "finished")
                self.assertEqual(pod.message["result"], "It was done.")
                self.assertEqual([entry["met"] for entry in pod.message["keyResults"]], [True, True])
                self.assertEqual(pod.stdout.strip(), pod.text.strip())
            self.assertEqual(model.requests[0]["body"]["temperature"], 0.2)
            self.assertEqual(model.requests[0]["headers"]["authorization"], f"Bearer {KEY}")
            asked = model.text()
            for told in ("Analyze $(REGION).", "eu-west-3", "Grüße, 世界", "PAGER_TOKEN"):
                self.assertIn(told, asked)
            for kept in ("tok-93jf02mf8s", "KUBERNETES", "10.96.", "agent-x7k2p", KEY):
                self.assertNotIn(kept, asked)
                self.assertNotIn(kept, pod.stdout + pod.stderr + pod.text)

    def test_root_is_no_trouble_either(self):
        with Model([finish()]) as model, Pod(environment(model), user="0:0") as pod:
            self.ends(pod.run(), 0, "finished")


class ExitCodes(Case):
    def both(self, simple, detailed, reason, script, options=(), **more):
        for form, code in (("simple", simple), ("detailed", detailed)):
            with self.subTest(form=form), Model(script) as model:
                variables = environment(model, THOUGHTMESH_EXIT_CODES=form, **more)
                with Pod(variables, *RESTRICTED, *options) as pod:
                    self.ends(pod.run(), code, reason)

    def test_0_achieved(self):
        self.both(0, 0, "finished", [finish()])

    def test_1_given_up(self):
        self.both(1, 1, "gave_up", [finish(status="failed")])

    def test_1_no_verdict(self):
        self.both(1, 1, "no_verdict", ["Hm."] * 3)

    def test_69_a_model_that_does_not_exist(self):
        self.both(1, 69, "model_unavailable", [(404, {"error": {"message": "no such model"}})])

    def test_69_a_tool_that_the_image_does_not_have(self):
        self.both(1, 69, "tool_unavailable", [], THOUGHTMESH_TOOLS='[{"name": "git"}]')

    def test_70_a_disk_that_is_full(self):
        options = ["--tmpfs=/journal:size=4k,mode=1777"]
        long = [[("list_directory", {"path": ".", "note": "x" * 9000})]]
        tools = '[{"name": "list_directory"}]'
        self.both(1, 70, "internal_error", long, options, THOUGHTMESH_JOURNAL="/journal/run.jsonl", THOUGHTMESH_TOOLS=tools)

    def test_75_a_budget_that_is_spent(self):
        self.both(1, 75, "budget_exhausted", ["Hm."], THOUGHTMESH_LIMITS='{"max_turns": 1}')

    def test_77_a_key_that_is_refused(self):
        self.both(1, 77, "credentials_refused", [(401, {"error": {"message": "wrong key"}})])

    def test_78_a_configuration_that_is_wrong(self):
        self.both(1, 78, "config_invalid", [], THOUGHTMESH_KEY_RESULTS="{")

    def stopped(self, code, stop, form):
        with Model([Model.STALL]) as model:
            with Pod(environment(model, THOUGHTMESH_EXIT_CODES=form), *RESTRICTED) as pod:
                pod.start()
                self.assertTrue(model.stalled.wait(WAIT_SECONDS))
                podman(*stop, pod.name)
                self.ends(pod.wait(), code, "terminated")
                self.assertEqual(pod.message["status"], "interrupted")
                self.assertIn("asking the model", pod.message["result"])

    def test_143_and_130_stopped_while_the_model_is_silent(self):
        for form in ("simple", "detailed"):
            # The kubelet's 30 seconds: after them podman kills, and the code were 137.
            self.stopped(143, ["stop", "--time=30"], form)
            self.stopped(130, ["kill", "--signal=INT"], form)

    def test_143_stopped_while_a_tool_is_silent(self):
        with Model([Model.STALL]) as slow, Model([]) as model:
            arguments = {"method": "POST", "url": f"http://127.0.0.1:{slow.port}/", "body": "{}"}
            model.script.append([("http_request", arguments)])
            tools = json.dumps([{"name": "http_request", "config": {"allow": ["127.0.0.1"]}}])
            with Pod(environment(model, THOUGHTMESH_TOOLS=tools), *RESTRICTED) as pod:
                pod.start()
                self.assertTrue(slow.stalled.wait(WAIT_SECONDS))
                podman("stop", "--time=30", pod.name)
                self.ends(pod.wait(), 143, "terminated")
                self.assertIn("http_request", pod.message["result"])


class Names(Case):
    SEARCH = ["agents.svc.cluster.local", "svc.cluster.local", "cluster.local"]

    def pod(self, host, model, *options, scheme="http", ndots=5, **more):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        file = pathlib.Path(self.folder.name, "resolv.conf")
        file.write_text(f"nameserver 127.0.0.1\nsearch {' '.join(self.SEARCH)}\noptions ndots:{ndots}\n")
        variables = environment(model, **more)
        variables["THOUGHTMESH_MODEL_CONFIG"] = model_config(model, endpoint=f"{scheme}://{host}:{model.port}/v1")
        return Pod(variables, *RESTRICTED, f"--volume={file}:/etc/resolv.conf:ro", *options)

    def test_a_service_is_found_by_the_search_domains(self):
        with Model([finish()]) as model, Resolver({"vllm.models.svc.cluster.local": "127.0.0.1"}) as resolver:
            with self.pod("vllm.models.svc", model) as pod:
                self.ends(pod.run(), 0, "finished")
            names = [
                "vllm.models.svc.agents.svc.cluster.local",
                "vllm.models.svc.svc.cluster.local",
                "vllm.models.svc.cluster.local",
            ]
            self.assertEqual(resolver.in_order(), names)

    def test_a_name_of_the_world_is_found_after_all_search_domains(self):
        with Model([finish()]) as model, Resolver({"api.example.com": "127.0.0.1"}) as resolver:
            with self.pod("api.example.com", model) as pod:
                self.ends(pod.run(), 0, "finished")
            suffixed = [f"api.example.com.{domain}" for domain in self.SEARCH]
            self.assertEqual(resolver.in_order(), [*suffixed, "api.example.com"])

    def test_with_one_dot_a_name_is_asked_for_as_it_is(self):
        for host in ("gateway.internal", "vllm.models.svc.cluster.local"):
            with Model([finish()]) as model, Resolver({host: "127.0.0.1"}) as resolver:
                with self.pod(host, model, ndots=1) as pod:
                    self.ends(pod.run(), 0, "finished")
                self.assertEqual(resolver.in_order(), [host])

    def test_a_name_server_that_is_not_ready_is_asked_again(self):
        # More often than the resolver of the C library asks within one lookup.
        failing = {"vllm.models.svc.agents.svc.cluster.local": 16}
        with Model([finish()]) as model, Resolver({"vllm.models.svc.cluster.local": "127.0.0.1"}, failing) as resolver:
            with self.pod("vllm.models.svc", model) as pod:
                self.ends(pod.run(), 0, "finished")
                self.assertIn("try 1 of 10", pod.stderr)
            self.assertEqual(resolver.failing, {"vllm.models.svc.agents.svc.cluster.local": 0})

    def test_a_private_ca_is_trusted_from_a_mount(self):
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(folder)
            leaf = authority.certificate("gateway.internal")
            with Model([finish()], certificate=leaf) as model, Resolver({"gateway.internal": "127.0.0.1"}):
                mount = f"--volume={authority.root}:/etc/ca/ca.crt:ro"
                with self.pod("gateway.internal", model, mount, scheme="https", SSL_CERT_FILE="/etc/ca/ca.crt") as pod:
                    self.ends(pod.run(), 0, "finished")
                with self.pod("gateway.internal", model, scheme="https", THOUGHTMESH_EXIT_CODES="detailed") as pod:
                    self.ends(pod.run(), 69, "model_unavailable")
                    self.assertIn("SSL_CERT_FILE", pod.stderr)

    def test_an_http_proxy_is_asked_in_place_of_the_name_server(self):
        with Model([finish()]) as model, Proxy(model.port) as proxy, Resolver({}) as resolver:
            with self.pod("vllm.models.svc", model, HTTP_PROXY=proxy.url) as pod:
                self.ends(pod.run(), 0, "finished")
            self.assertEqual(len(proxy.wanted), 1)
            self.assertIn("vllm.models.svc", proxy.wanted[0])
            self.assertEqual(resolver.asked, [])

    def test_an_https_proxy_leads_to_a_private_ca(self):
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(folder)
            leaf = authority.certificate("gateway.internal")
            with Model([finish()], certificate=leaf) as model, Proxy(model.port) as proxy, Resolver({}) as resolver:
                mount = f"--volume={authority.root}:/etc/ca/ca.crt:ro"
                more = {"SSL_CERT_FILE": "/etc/ca/ca.crt", "HTTPS_PROXY": proxy.url, "NO_PROXY": "localhost,127.0.0.1,.svc"}
                with self.pod("gateway.internal", model, mount, scheme="https", **more) as pod:
                    self.ends(pod.run(), 0, "finished")
                # Once with the built-in roots, then with the private ones.
                self.assertEqual(set(proxy.wanted), {f"CONNECT gateway.internal:{model.port}"})
                self.assertEqual(resolver.asked, [])

    def test_no_proxy_is_obeyed(self):
        names = {"vllm.models.svc.cluster.local": "127.0.0.1"}
        with Model([finish()]) as model, Proxy(model.port) as proxy, Resolver(names):
            with self.pod(
                "vllm.models.svc", model, HTTP_PROXY=proxy.url, http_proxy=proxy.url, NO_PROXY=".svc,10.0.0.0/8"
            ) as pod:
                self.ends(pod.run(), 0, "finished")
            self.assertEqual(proxy.wanted, [])


class Played:
    """A pod template of README, played by `podman kube play`: claims are folders, and the termination log is mounted."""

    def __init__(self, template, model, **variables):
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        self.log = self.path / "termination-log"
        self.log.touch()
        self.log.chmod(0o666)
        spec = copy.deepcopy(template["spec"])
        for volume in spec["volumes"]:
            if claim := volume.pop("persistentVolumeClaim", None):
                (self.path / claim["claimName"]).mkdir()
                (self.path / claim["claimName"]).chmod(0o2777)  # what `fsGroup` does
                volume["hostPath"] = {"path": str(self.path / claim["claimName"])}
        spec["volumes"].append({"name": "log", "hostPath": {"path": str(self.log), "type": "File"}})
        for container in {id(c): c for kind in ("initContainers", "containers") for c in spec.get(kind, [])}.values():
            container["volumeMounts"] = [*container["volumeMounts"], {"name": "log", "mountPath": "/dev/termination-log"}]
            container["image"] = IMAGE
            kept = [variable for variable in container["env"] if variable["name"] not in variables]
            container["env"] = [*kept, *({"name": name, "value": value} for name, value in variables.items())]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent-pod"}, "spec": spec}
        maps = [manifest for manifest in readme.manifests() if manifest["kind"] == "ConfigMap"]
        maps.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "agent-context"}, "data": {"REGION": "eu-west-3"}}
        )
        self.file = self.path / "pod.yaml"
        self.file.write_text(yaml.safe_dump_all([*maps, pod]))
        # podman 4.3 wants the data of a Secret alone.
        data = {"config": base64.b64encode(model_config(model).encode()).decode()}
        podman("secret", "rm", "model-config", check=False)
        podman("secret", "create", "model-config", "-", given=json.dumps(data))
        self.start()

    def start(self):
        self.played = podman("kube", "play", "--network=host", self.file, check=False)

    def again(self):
        """Another pod, with what is left in the volumes."""
        podman("kube", "down", self.file)
        self.log.write_text("")
        self.start()
        return self

    def wait(self, container="agent-pod-agent"):
        self.code = int(podman("wait", container).stdout)
        logs = podman("logs", container)
        self.stdout, self.stderr = logs.stdout, logs.stderr
        self.text = self.log.read_text()
        self.message = json.loads(self.text) if self.text else None
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        podman("kube", "down", self.file, check=False)
        podman("secret", "rm", "model-config", check=False)
        self.folder.cleanup()


class Readme(Case):
    job = readme.pod_template(readme.manifest("Job", completionMode=None))
    shards = readme.pod_template(readme.manifest("Job", completionMode="Indexed"))
    cron = readme.pod_template(readme.manifest("CronJob"))

    def test_the_job_is_checked_runs_and_keeps_its_journal(self):
        write = [("write_file", {"path": "a.txt", "content": "a"})]
        with Model([write, finish(2)]) as model, Played(self.job, model) as pod:
            self.ends(pod.wait(), 0, "finished")
            self.assertFalse(pod.message["resumed"])
            self.assertIn("eu-west-3", model.text())
            self.assertEqual((pod.path / "agent-workspace/a.txt").read_text(), "a")
            inspected = json.loads(podman("inspect", "agent-pod-agent").stdout)[0]
            self.assertEqual(inspected["HostConfig"]["Memory"], 32 << 20)
            self.assertTrue(inspected["HostConfig"]["ReadonlyRootfs"])
            self.assertEqual(inspected["EffectiveCaps"] or [], [])
            self.assertEqual(inspected["HostConfig"]["SecurityOpt"], ["no-new-privileges"])
            # The next pod of the Job asks nobody again.
            self.ends(pod.again().wait(), 0, "finished")
            self.assertEqual(len(model.requests), 2)

    def test_a_job_that_is_stopped_goes_on_in_the_next_pod(self):
        write = [("write_file", {"path": "a.txt", "content": "a"})]
        with Model([write, Model.STALL]) as model, Played(self.job, model) as pod:
            self.assertTrue(model.stalled.wait(WAIT_SECONDS))
            podman("stop", "--time=30", "agent-pod-agent")
            self.ends(pod.wait(), 143, "terminated")
            model.script.append(finish(2))
            self.ends(pod.again().wait(), 0, "finished")
            self.assertTrue(pod.message["resumed"])

    def test_the_check_of_the_init_container_tells_what_is_wrong_before_the_model_is_asked(self):
        for variable, value, word, code in (
            ("THOUGHTMESH_TOOLS", '[{"name": "git"}]', "git", 69),
            ("THOUGHTMESH_KEY_RESULTS", '["one', "THOUGHTMESH_KEY_RESULTS", 78),
        ):
            with Model([]) as model, Played(self.job, model, **{variable: value}) as pod:
                ended = podman("ps", "--all", "--format={{.Names}} {{.ExitCode}}").stdout
                self.assertIn(f"agent-pod-check {code}", ended, pod.played.stderr)
                # What podman leaves of it where it was never started.
                self.assertEqual(podman("inspect", "--format={{.State.Status}}", "agent-pod-agent").stdout.strip(), "created")
                message = json.loads(pod.log.read_text())
                self.assertIn(word, message["result"])
                self.assertEqual(model.requests, [])

    def test_a_shard_finds_its_line_of_the_list(self):
        read = [("read_file", {"path": "shards/1"})]
        with Model([read, finish()]) as model, Played(self.shards, model, JOB_COMPLETION_INDEX="1") as pod:
            self.ends(pod.wait(), 0, "finished")
            self.assertIn("JOB_COMPLETION_INDEX", json.dumps(model.requests[0]["body"]))
            self.assertNotIn("search.shop.svc", json.dumps(model.requests[0]["body"]["messages"]))
            self.assertIn("http://search.shop.svc/health", json.dumps(model.requests[1]["body"]["messages"]))

    def test_the_cron_job_writes_into_its_empty_folder(self):
        write = [("write_file", {"path": "digest.md", "content": "All is well.\n"})]
        with Model([write, finish(1)]) as model, Played(self.cron, model) as pod:
            self.ends(pod.wait(), 0, "finished")

    def test_the_line_of_kubectl_reads_the_result(self):
        with Model([finish()]) as model, Pod(environment(model)) as pod:
            text = pod.run().text

        def ended(name, at, message):
            status = {"name": "agent", "state": {"terminated": {"exitCode": 0, "message": message}}}
            check = {"name": "check", "state": {"terminated": {"exitCode": 0}}}
            metadata = {"name": name, "namespace": "default", "creationTimestamp": at}
            statuses = {"containerStatuses": [status], "initContainerStatuses": [check]}
            return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": statuses}

        pods = [ended("b", "2026-11-22T10:00:00Z", text), ended("a", "2026-11-22T09:00:00Z", "an earlier try")]
        (line,) = readme.lines_with("kubectl get pods")
        with ApiServer(pods) as api, tempfile.TemporaryDirectory() as home:
            command = line.replace("kubectl", f"kubectl --server={api.url}", 1)
            read = subprocess.run(
                ["sh", "-c", command],
                env={"PATH": os.environ["PATH"], "HOME": home},
                capture_output=True,
                text=True,
                timeout=WAIT_SECONDS,
            )
            self.assertEqual(read.stdout, text, read.stderr)
            self.assertTrue(any("job-name=thoughtmesh-agent-task" in path for path in api.asked), api.asked)

    def test_kubectl_reads_every_manifest_as_we_do(self):
        with ApiServer([]) as api, tempfile.TemporaryDirectory() as home:
            for block in readme.blocks():
                if "apiVersion:" not in block:
                    continue
                command = [
                    "kubectl",
                    f"--server={api.url}",
                    "create",
                    "--dry-run=client",
                    "--validate=false",
                    "-o",
                    "json",
                    "-f",
                    "-",
                ]
                read = subprocess.run(
                    command,
                    input=block,
                    env={"PATH": os.environ["PATH"], "HOME": home},
                    capture_output=True,
                    text=True,
                    timeout=WAIT_SECONDS,
                )
                self.assertEqual(read.returncode, 0, read.stderr)
                decoder, objects, rest = json.JSONDecoder(), [], read.stdout.strip()
                while rest:
                    found, end = decoder.raw_decode(rest)
                    objects += found["items"] if found["kind"] == "List" else [found]
                    rest = rest[end:].strip()
                for ours, theirs in zip(
                    readme.manifests("\n" + "".join(f"    {line}\n" for line in block.splitlines())), objects, strict=True
                ):
                    theirs["metadata"].pop("namespace", None)
                    self.assertEqual(ours, theirs)


class Closed(Case):
    def test_the_models_of_readme_are_reached_by_their_names(self):
        configs = readme.lines_with('"endpoint":')
        hosts = {"ollama.models.svc": 11434, "vllm.models.svc": 8000, "gateway.internal": 443}
        tried = []
        with tempfile.TemporaryDirectory() as folder:
            authority = Authority(folder)
            file = pathlib.Path(folder, "resolv.conf")
            file.write_text(
                "nameserver 127.0.0.1\nsearch agents.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
            )
            names = {
                "ollama.models.svc.cluster.local": "127.0.0.1",
                "vllm.models.svc.cluster.local": "127.0.0.1",
                "gateway.internal": "127.0.0.1",
            }
            for line in configs:
                config = json.loads(line.strip()) if line.strip().startswith("{") else None
                host = next((host for host in hosts if config and f"//{host}" in config["endpoint"]), None)
                if not host:
                    continue
                certificate = authority.certificate(host) if config["endpoint"].startswith("https") else None
                with Model([finish()], hosts[host], certificate), Resolver(names):
                    variables = {
                        "THOUGHTMESH_MODEL_CONFIG": line.strip().replace("sk-…", KEY),
                        "THOUGHTMESH_OBJECTIVE": "Say something.",
                    }
                    mounts = [f"--volume={file}:/etc/resolv.conf:ro", f"--volume={authority.root}:/etc/ca/ca.crt:ro"]
                    with Pod({**variables, "SSL_CERT_FILE": "/etc/ca/ca.crt"}, *RESTRICTED, *mounts) as pod:
                        self.ends(pod.run(), 0, "finished")
                tried.append(host)
        self.assertEqual(set(tried), set(hosts))


if __name__ == "__main__":
    unittest.main()

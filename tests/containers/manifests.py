"""Holds every manifest of README to the schemas of Kubernetes and to the Pod Security Standard `restricted`.

The schemas are those of PyPI's kubernetes-validate, the oldest and the newest that it carries, unknown fields refused. The
standard is written out below, one rule for each of its fields. What may surprise: each rule is also shown a pod that breaks
it, because a rule that finds nothing would pass for a manifest that keeps it.
"""

import copy
import unittest

import kubernetes_validate
import readme

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip
SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
KINDS = ("initContainers", "containers", "ephemeralContainers")


def violations(template):
    """What of a pod template the standard `restricted` does not allow, one word each."""
    found = set()
    spec = template["spec"]
    pod = spec.get("securityContext", {})

    def rule(name, holds):
        if not holds:
            found.add(name)

    for field in ("hostNetwork", "hostPID", "hostIPC"):
        rule(field, not spec.get(field))
    for volume in spec.get("volumes", []):
        rule("volumes", set(volume) - {"name"} <= VOLUMES)
    rule("sysctls", {item["name"] for item in pod.get("sysctls", [])} <= SYSCTLS)
    for name, value in template.get("metadata", {}).get("annotations", {}).items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/"):
            rule("appArmor", value == "runtime/default" or value.startswith("localhost/"))
    for container in [container for kind in KINDS for container in spec.get(kind, [])]:
        own = container.get("securityContext", {})

        def of_either(field, own=own):
            return own.get(field, pod.get(field))

        rule("privileged", not own.get("privileged"))
        rule("allowPrivilegeEscalation", own.get("allowPrivilegeEscalation") is False)
        rule("runAsNonRoot", of_either("runAsNonRoot") is True)
        rule("runAsUser", of_either("runAsUser") != 0)
        rule("seccompProfile", (of_either("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost"))
        rule("appArmor", (of_either("appArmorProfile") or {}).get("type", "RuntimeDefault") in ("RuntimeDefault", "Localhost"))
        capabilities = own.get("capabilities", {})
        rule("capabilities.drop", "ALL" in capabilities.get("drop", []))
        rule("capabilities.add", set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"})
        rule("procMount", own.get("procMount", "Default") == "Default")
        rule("hostPorts", not any(port.get("hostPort") for port in container.get("ports", [])))
        options = of_either("seLinuxOptions") or {}
        rule("seLinuxOptions", options.get("type") in SELINUX_TYPES and not options.get("user") and not options.get("role"))
        rule("hostProcess", not (of_either("windowsOptions") or {}).get("hostProcess"))
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            handler = container.get(probe, {})
            rule("probe hosts", not any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")))
        for hook in container.get("lifecycle", {}).values():
            if isinstance(hook, dict):
                rule("probe hosts", not any(hook.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")))
    return found


def templates():
    return [template for template in map(readme.pod_template, readme.manifests()) if template]


class Schemas(unittest.TestCase):
    versions = kubernetes_validate.utils.all_versions()

    def test_every_manifest_is_valid_for_the_oldest_and_the_newest_version(self):
        manifests = readme.manifests()
        kinds = {manifest["kind"] for manifest in manifests}
        self.assertLessEqual({"Job", "CronJob", "Secret", "ConfigMap", "PersistentVolumeClaim"}, kinds)
        for version in (self.versions[0], self.versions[-1]):
            for manifest in manifests:
                with self.subTest(version=version, kind=manifest["kind"], name=manifest["metadata"]["name"]):
                    kubernetes_validate.validate(manifest, version, strict=True)
        print(f"manifests: {len(manifests)} for Kubernetes {self.versions[0]} and {self.versions[-1]}")

    def test_a_misspelled_field_and_a_wrong_type_are_found(self):
        for field, value in (("activeDeadlineSecond", 1), ("activeDeadlineSeconds", "1")):
            job = copy.deepcopy(readme.manifest("Job", completionMode=None))
            job["spec"][field] = value
            for version in (self.versions[0], self.versions[-1]):
                with self.assertRaises(kubernetes_validate.ValidationError):
                    kubernetes_validate.validate(job, version, strict=True)

    def test_no_manifest_is_overlooked(self):
        text = (readme.ROOT / "README.md").read_text()
        self.assertEqual(text.count("\n    apiVersion:"), len(readme.manifests()))
        self.assertEqual(text.count("apiVersion:"), len(readme.manifests()))


class Restricted(unittest.TestCase):
    def test_every_pod_keeps_the_standard(self):
        self.assertGreaterEqual(len(templates()), 3)
        for template in templates():
            self.assertEqual(violations(template), set())

    def test_every_pod_has_what_the_standard_does_not_ask_for(self):
        for template in templates():
            self.assertIs(template["spec"]["automountServiceAccountToken"], False)
            self.assertIs(template["spec"]["enableServiceLinks"], False)
            for container in template["spec"]["containers"]:
                self.assertIs(container["securityContext"]["readOnlyRootFilesystem"], True)
                self.assertEqual(container["resources"]["limits"]["memory"], "32Mi")

    def test_what_breaks_the_standard_is_found(self):
        def pod(**fields):
            return lambda spec: spec.update(fields)

        def context(**fields):
            return lambda spec: spec["securityContext"].update(fields)

        def container(**fields):
            return lambda spec: spec["containers"][0].update(fields)

        def own(**fields):
            return lambda spec: spec["containers"][0]["securityContext"].update(fields)

        without = "securityContext"
        plants = [
            ("hostNetwork", pod(hostNetwork=True)),
            ("hostPID", pod(hostPID=True)),
            ("hostIPC", pod(hostIPC=True)),
            ("volumes", lambda spec: spec["volumes"].append({"name": "a", "hostPath": {"path": "/"}})),
            ("sysctls", context(sysctls=[{"name": "kernel.msgmax", "value": "1"}])),
            ("privileged", own(privileged=True)),
            ("allowPrivilegeEscalation", own(allowPrivilegeEscalation=True)),
            ("allowPrivilegeEscalation", lambda spec: spec["containers"][0].pop(without)),
            ("runAsNonRoot", context(runAsNonRoot=False)),
            ("runAsNonRoot", lambda spec: spec.pop(without)),
            ("runAsUser", own(runAsUser=0)),
            ("seccompProfile", context(seccompProfile={"type": "Unconfined"})),
            ("seccompProfile", own(seccompProfile={"type": "Unconfined"})),
            ("appArmor", own(appArmorProfile={"type": "Unconfined"})),
            ("capabilities.drop", own(capabilities={"drop": ["NET_RAW"]})),
            ("capabilities.add", own(capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]})),
            ("procMount", own(procMount="Unmasked")),
            ("hostPorts", container(ports=[{"containerPort": 1, "hostPort": 1}])),
            ("seLinuxOptions", own(seLinuxOptions={"type": "spc_t"})),
            ("hostProcess", context(windowsOptions={"hostProcess": True})),
            ("probe hosts", container(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 1}})),
            ("probe hosts", container(lifecycle={"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 1}}})),
        ]
        for name, change in plants:
            template = copy.deepcopy(readme.pod_template(readme.manifest("Job", completionMode=None)))
            change(template["spec"])
            self.assertIn(name, violations(template))
        broken = copy.deepcopy(readme.pod_template(readme.manifest("Job", completionMode=None)))
        broken["spec"]["initContainers"][0]["securityContext"] = {}
        self.assertIn("capabilities.drop", violations(broken))

    def test_the_policy_knows_the_exit_codes_of_the_runtime(self):
        rules = readme.manifest("Job", completionMode=None)["spec"]["podFailurePolicy"]["rules"]
        stopping = [rule for rule in rules if rule["action"] == "FailJob"]
        self.assertEqual(stopping[0]["onExitCodes"]["values"], [1, 75, 77, 78])


if __name__ == "__main__":
    unittest.main()

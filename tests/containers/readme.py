"""What README shows: its blocks of commands, manifests, Containerfiles and models, for tests to take at their word.

A block is a run of lines that are indented by four spaces; blank lines within belong to it.
"""

import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
INDENT = "    "


def blocks(text=None):
    """All blocks, without their indentation."""
    text = (ROOT / "README.md").read_text() if text is None else text
    found = re.findall(r"(?:^    .*\n(?:[ \t]*\n(?=    ))*)+", text, re.MULTILINE)
    return ["\n".join(line.removeprefix(INDENT) for line in block.splitlines()) + "\n" for block in found]


def manifests(text=None):
    """Every Kubernetes object, in order."""
    documents = []
    for block in blocks(text):
        if re.search(r"^apiVersion:", block, re.MULTILINE):
            documents += [document for document in yaml.safe_load_all(block) if document]
    return documents


def manifest(kind, **labels):
    """The one object of this kind, or the one of them whose `spec` has these fields."""
    found = [m for m in manifests() if m["kind"] == kind and all(m["spec"].get(k) == v for k, v in labels.items())]
    assert len(found) == 1, f"README has {len(found)} objects of kind {kind} with {labels}"
    return found[0]


def containerfiles():
    return [block for block in blocks() if block.startswith("FROM ")]


def lines_with(word):
    """The lines of commands and values that hold this word."""
    return [line for block in blocks() for line in block.splitlines() if word in line]


def pod_template(manifest):
    """The pod that a manifest describes, or None where it describes none."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return {"Job": spec.get("template"), "CronJob": spec.get("template"), "Pod": manifest}.get(manifest["kind"])


if __name__ == "__main__":
    print(containerfiles()[0])

"""The chart as the real helm renders it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.tools import require_tool

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "lenspipe"
FILES = CHART / "files"
VALUES = tuple(sorted(path.name for path in CHART.glob("values-*.yaml")))
KUBERNETES = "1.27.0"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as a manifest describes it. owner: kind and role, as `RayJob head`."""

    owner: str
    metadata: dict[str, Any]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def labels(self) -> dict[str, str]:
        """Labels that policies and budgets find it by."""
        return dict(self.metadata.get("labels", {}))


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """One command of helm, which has no cluster and no settings of whoever runs the tests."""
    nowhere = {"HOME": "/nonexistent", "KUBECONFIG": "/nonexistent", "PATH": "/usr/bin:/bin"}
    command = [require_tool("helm"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=nowhere)


def template(values: str | None, *options: str) -> subprocess.CompletedProcess[str]:
    """`helm template` of a values file and options over it."""
    files = () if values is None else ("--values", CHART / values)
    return helm("template", "lens", CHART, "--kube-version", KUBERNETES, *files, *options)


@cache
def text(values: str, options: tuple[str, ...] = ()) -> str:
    """What helm renders; each combination once a session."""
    done = template(values, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def render(values: str, *options: str) -> tuple[Manifest, ...]:
    """The manifests of a values file, with options over it."""
    return tuple(m for m in yaml.safe_load_all(text(values, options)) if m)


def refusal(values: str | None, *options: str) -> str:
    """What helm says where it renders nothing."""
    done = template(values, *options)
    assert done.returncode != 0, "was taken"
    assert done.stdout == ""
    return done.stderr


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    """All manifests of a kind."""
    return [m for m in manifests if m["kind"] == kind]


def one(manifests: Sequence[Manifest], kind: str, ending: str = "") -> Manifest:
    """The one of its kind whose name ends so."""
    [found] = [m for m in of_kind(manifests, kind) if m["metadata"]["name"].endswith(ending)]
    return found


def pods(manifests: Sequence[Manifest]) -> Iterator[Pod]:
    """Every pod that anything of the release makes."""
    for manifest in manifests:
        for role, found in _templates(manifest):
            owner = f"{manifest['kind']} {role}".strip()
            yield Pod(owner, found.get("metadata", {}), found["spec"])


def _templates(manifest: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = manifest.get("spec", {})
    if manifest["kind"] == "RayJob":
        if "submitterPodTemplate" in spec:
            yield "submitter", spec["submitterPodTemplate"]
        cluster = spec.get("rayClusterSpec")
        if cluster:
            yield "head", cluster["headGroupSpec"]["template"]
            for group in cluster["workerGroupSpecs"]:
                yield group["groupName"], group["template"]
    elif manifest["kind"] == "CronJob":
        yield "", spec["jobTemplate"]["spec"]["template"]
    elif manifest["kind"] == "Deployment":
        yield "", spec["template"]


def pod(manifests: Sequence[Manifest], owner: str) -> Pod:
    """The pod of that owner."""
    [found] = [p for p in pods(manifests) if p.owner == owner]
    return found


def environment(container: dict[str, Any]) -> dict[str, Any]:
    """Variables of a container: text, or where it comes from."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env", [])}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector finds a pod."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return wanted and all(labels.get(rule["key"]) in rule["values"] for rule in rules)

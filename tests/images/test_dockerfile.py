"""What the Dockerfile says, against the package, the chart and the pins; nothing is built here."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.images.container import ROOT

TEXT = (ROOT / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HELM = ROOT / "helm" / "lenspipe"
TARGETS = ("cpu", "gpu", "training")


def stage(name: str) -> str:
    """The lines of one stage."""
    [body] = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", TEXT, re.M | re.S)
    return str(body)


def values() -> dict[str, Any]:
    return dict(yaml.safe_load((HELM / "values.yaml").read_text("utf-8")))


def test_version_user_and_paths_are_those_of_package_and_chart() -> None:
    chart = yaml.safe_load((HELM / "Chart.yaml").read_text("utf-8"))
    assert re.findall(r"^ARG VERSION=(\S+)", TEXT, re.M) == [PROJECT["version"]]
    assert chart["appVersion"] == PROJECT["version"]
    security = values()["podSecurity"]
    user = f"{security['runAsUser']}:{security['runAsGroup']}"
    assert re.findall(r"^USER (\S+)", TEXT, re.M) == [user]
    assert f"useradd --uid {security['runAsUser']} " in TEXT
    helpers = (HELM / "templates" / "_helpers.tpl").read_text("utf-8")
    assert "/var/lib/lenspipe/%s" in helpers
    assert "install --directory --owner lenspipe --group lenspipe /var/lib/lenspipe " in TEXT
    pods = (HELM / "templates" / "_pods.tpl").read_text("utf-8")
    assert "- name: HOME\n  value: /tmp\n" in pods
    assert "HOME=/tmp " in TEXT


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_installs_extras_that_are_there(target: str) -> None:
    [extras] = re.findall(r"^RUN \./dependencies\.sh (\S+)$", stage(f"{target}-dependencies"), re.M)
    known = PROJECT["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
    runtimes = {"cpu", "gpu", "openvino"} & set(extras.split(","))
    assert len(runtimes) == 1, "two builds of ONNX Runtime overwrite each other"
    assert f"COPY --from={target}-dependencies /opt/lenspipe /opt/lenspipe" in stage(target)


def test_images_of_the_chart_can_do_what_it_asks_of_them() -> None:
    """Object stores, the service, grades in PostgreSQL."""
    for target in ("cpu", "gpu"):
        [extras] = re.findall(r"dependencies\.sh (\S+)", stage(f"{target}-dependencies"))
        assert {target, "s3", "serve", "postgres"} == set(extras.split(","))


def test_dependencies_lie_below_the_code() -> None:
    """A change of the code leaves their layer, the largest, as it is."""
    before = TEXT[: TEXT.index("AS package\n")]
    assert "COPY lenspipe" not in before
    for target in TARGETS:
        lines = [line for line in stage(target).splitlines() if line.startswith("COPY")]
        code = lines.index("COPY --from=package /package /")
        assert f"--from={target}-dependencies /opt/lenspipe /opt" in lines[0]
        assert code > 0


def test_all_of_a_gpus_packages_are_pinned_as_torch_wants_them() -> None:
    """One pin serves the images `gpu` and `training`: torch's wheels name theirs exactly."""
    assert PROJECT["optional-dependencies"]["gpu"] == ["onnxruntime-gpu[cuda,cudnn]"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    pins = dict(line.split("==") for line in lines)
    assert pins["onnxruntime-gpu"] == pins["onnxruntime"]
    wanted = {"cublas", "cuda-nvrtc", "cuda-runtime", "cudnn-cu13", "cufft", "curand", "nvjitlink"}
    assert {f"nvidia-{name}" for name in wanted} <= set(pins)


def test_only_what_an_image_is_made_of_comes_into_a_build() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.M)
    sources = {source for line in copied for source in line.split()}
    assert {"deploy/image" if s.startswith("deploy/image/") else s for s in sources} == let_in
    assert "**/__pycache__" in rules

from __future__ import annotations

import re
import subprocess
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.chart import (
    CHART,
    ROOT,
    VALUES,
    Manifest,
    helm,
    of_kind,
    one,
    pods,
    refusal,
    render,
    template,
    text,
)

pytestmark = pytest.mark.tool

SCHEMAS = ROOT.parent / "shared" / "schemas"
OF_OPERATORS = {"RayJob", "PodMonitor", "PrometheusRule"}
NEWEST = kubernetes_validate.latest_version()


@pytest.mark.parametrize("values", VALUES)
def test_a_values_file_lints(values: str) -> None:
    done = helm("lint", CHART, "--strict", "--values", CHART / values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES)
def test_a_values_file_renders_a_job(values: str) -> None:
    assert of_kind(render(values), "RayJob")


@pytest.mark.parametrize("version", ["1.27.0", NEWEST])
@pytest.mark.parametrize("values", VALUES)
def test_manifests_are_what_kubernetes_takes(values: str, version: str) -> None:
    checked = [m for m in render(values) if m["kind"] not in OF_OPERATORS]
    assert checked
    for manifest in checked:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", VALUES)
def test_pods_of_ray_are_what_kubernetes_takes(values: str) -> None:
    for found in pods(render(values)):
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": found.metadata,
            "spec": found.spec,
        }
        kubernetes_validate.validate(manifest, "1.27.0", strict=True)


def closed(schema: Any) -> Any:
    """A structural schema as the API server holds it with strict validation: keys that it does not
    name are refused. Where it says int-or-string, either goes."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: closed(value) for key, value in schema.items()}
    if kept.get("x-kubernetes-int-or-string") is True:
        kept = {key: value for key, value in kept.items() if key != "pattern"}
    if isinstance(kept.get("properties"), dict) and kept.get("type") == "object":
        kept.setdefault("additionalProperties", False)
    return kept


@cache
def ray_job_schema() -> Any:
    """That of KubeRay's own CRD."""
    file = SCHEMAS / "ray.io_rayjobs.crd.yaml"
    if not file.exists():
        pytest.skip("KubeRay's CRDs (../shared/schemas) are not here")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(file.read_text("utf-8"), loader)  # noqa: S506  # a safe loader
    [version] = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


EXISTING = (
    "--set",
    "ray.existingCluster=shared,ray.auth.existingSecret=shared-token,output.url=s3://survey/run",
)


@pytest.mark.data
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("options", [(), EXISTING], ids=["own cluster", "existing cluster"])
def test_a_ray_job_is_what_kuberay_takes(values: str, options: tuple[str, ...]) -> None:
    job = one(render(values, *options), "RayJob")
    jsonschema.Draft7Validator(ray_job_schema()).validate(job)


@pytest.mark.data
def test_what_kuberay_does_not_know_would_be_noticed() -> None:
    job: Manifest = yaml.safe_load(yaml.safe_dump(one(render(VALUES[0]), "RayJob")))
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["envs"] = []
    with pytest.raises(jsonschema.ValidationError, match="'envs' was unexpected"):
        jsonschema.Draft7Validator(ray_job_schema()).validate(job)


@pytest.mark.parametrize("values", VALUES)
def test_every_object_is_named_for_its_release(values: str) -> None:
    for manifest in render(values):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "lens"
        assert manifest["metadata"]["name"].startswith("lens")


@pytest.mark.parametrize("values", VALUES)
def test_no_two_objects_have_one_name(values: str) -> None:
    named = [(m["kind"], m["metadata"]["name"]) for m in render(values)]
    assert len(named) == len(set(named))


def released(release: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The largest values under the name of a release."""
    values = ("--values", CHART / "values-survey.yaml", "--kube-version", "1.27.0")
    return helm("template", release, CHART, *values, *options)


@pytest.mark.parametrize("release", ["2mass", "sky.south"])
def test_a_release_whose_services_could_not_be_named_is_refused(release: str) -> None:
    """A Service's name is as in RFC 1035, and so are those that KubeRay makes of a RayJob's."""
    expected = "nameOverride: expected a name of a-z, 0-9 and hyphens that begins with a letter"
    assert expected in released(release).stderr
    assert released(release, "--set", "nameOverride=sky").returncode == 0


@pytest.mark.parametrize("release", ["m2", 40 * "x" + "-y", 38 * "x" + "---y"])
def test_every_name_is_one(release: str) -> None:
    done = released(release, "--set", "serviceAccount.name=,job.attempt=999999")
    manifests = [m for m in yaml.safe_load_all(done.stdout) if m]
    assert len(manifests) > 12, done.stderr
    most = {"RayJob": 47, "CronJob": 52}  # of KubeRay and of Kubernetes, which put more behind it
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= most.get(manifest["kind"], 63)


def test_what_is_rendered_twice_is_the_same() -> None:
    assert template("values-survey.yaml").stdout == text("values-survey.yaml")


def test_only_a_token_that_is_made_differs() -> None:
    again = template("values-minikube.yaml").stdout
    assert again != text("values-minikube.yaml")
    token = re.compile(r"auth_token: \S{64}\n")
    assert token.sub("", again) == token.sub("", text("values-minikube.yaml"))


def test_nothing_of_it_is_rendered_where_all_is_off() -> None:
    options = "job.enabled=false,serve.enabled=false,nightly.enabled=false"
    kinds = {m["kind"] for m in render("values-minikube.yaml", "--set", options)}
    assert kinds == {"ServiceAccount", "NetworkPolicy"}


def test_an_old_kubernetes_is_refused() -> None:
    done = helm("template", CHART, "--kube-version", "1.26.9", "--values", CHART / VALUES[0])
    assert "requires kubeVersion: >=1.27.0-0" in done.stderr


def test_a_chart_without_a_survey_says_what_it_wants() -> None:
    assert (
        "survey: expected the text of a survey file (--set-file survey=survey.yaml), found none"
        in refusal(None)
    )


def test_the_version_of_ray_is_the_one_that_is_installed() -> None:
    [pinned] = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    cluster = one(render(VALUES[0]), "RayJob")["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == values["ray"]["version"] == pinned


def test_the_version_of_the_chart_is_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    [version] = re.findall(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M
    )
    assert chart["appVersion"] == chart["version"] == version

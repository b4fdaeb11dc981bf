"""Values: what is refused, and that each of them is described."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.deploy.chart import CHART, ROOT, VALUES, refusal, template

PAGE = ROOT / "docs" / "kubernetes.md"
SURVEY = "values-survey.yaml"


def schema() -> dict[str, Any]:
    return dict(json.loads((CHART / "values.schema.json").read_text("utf-8")))


def values() -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "values.yaml").read_text("utf-8")))


def described(block: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every value of the schema that is no block of others, by its path."""
    for name, part in block["properties"].items():
        if name == "global":  # Helm's own, handed to every chart that is part of another
            continue
        here = f"{path}{name}"
        if "description" in part:
            yield here, part
        else:
            yield from described(part, f"{here}.")


DESCRIBED = dict(described(schema()))


def given(block: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        here = f"{path}{name}"
        if isinstance(value, dict) and here not in DESCRIBED:
            yield from given(value, f"{here}.")
        else:
            yield here, value


def test_the_schema_is_one() -> None:
    assert schema()["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema())


def test_every_value_is_in_the_schema_and_every_key_of_it_a_value() -> None:
    assert [path for path, _ in given(values())] == list(DESCRIBED)


def test_every_value_has_a_type_and_a_description() -> None:
    for path, part in DESCRIBED.items():
        assert part["type"] in ("string", "integer", "number", "boolean", "array", "object"), path
        assert len(part["description"]) > 5, path


def blocks(part: dict[str, Any], path: str = "values") -> Iterator[tuple[str, dict[str, Any]]]:
    if "properties" in part:
        yield path, part
        for name, inner in part["properties"].items():
            yield from blocks(inner, f"{path}.{name}")
    if isinstance(part.get("items"), dict):
        yield from blocks(part["items"], f"{path}[]")


def test_no_block_takes_what_it_does_not_name() -> None:
    for path, block in blocks(schema()):
        assert block["additionalProperties"] is False, path


def test_the_page_describes_every_value_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.+) \|$", PAGE.read_text("utf-8"), re.M)
    told = {path: yaml.safe_load(default) for path, default, _ in rows}
    assert list(told) == list(DESCRIBED)
    assert told == dict(given(values()))


def test_page_and_schema_say_the_same() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `.*?` \| (.+) \|$", PAGE.read_text("utf-8"), re.M)
    plain = {
        path: re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text).replace("`", "") for path, text in rows
    }
    assert plain == {path: part["description"] for path, part in DESCRIBED.items()}


@pytest.mark.parametrize("file", VALUES)
def test_a_values_file_changes_something(file: str) -> None:
    """A default that is repeated would stay behind where the default moves."""
    defaults = dict(given(values()))
    for path, value in given(yaml.safe_load((CHART / file).read_text("utf-8"))):
        if path.split(".")[-1] not in ("minReplicas", "gpus", "cpus", "idleTimeoutSeconds"):
            assert value != defaults[path], path


BAD = {
    "jobb.enabled=true": ("Additional property jobb is not allowed",),
    "ray.head.cpu=4": ("ray.head", "Additional property cpu is not allowed"),
    "ray.version=latest": ("ray.version", "Does not match pattern"),
    "ray.version=null": ("ray", "version is required"),
    "ray.auth.mode=none": ("ray.auth.mode", 'one of the following: "token", "disabled"'),
    "ray.auth.mode=disabled": ("ray.auth.allowOpenCluster", "does not match: true"),
    "ray.cpu.maxReplicas=0": ("ray.cpu.maxReplicas", "greater than or equal to 1"),
    "ray.cpu.minReplicas=99": (
        "ray.cpu.minReplicas: expected at most ray.cpu.maxReplicas, 32, found 99",
    ),
    "ray.gpu.resource=gpu": ("ray.gpu.resource", "Does not match pattern"),
    "ray.gpu.enabled=maybe": ("ray.gpu.enabled", "Expected: boolean, given: string"),
    "ray.head.memory=16": ("ray.head.memory", "Expected: string, given: integer"),
    "ray.head.memory=16GB": ("ray.head.memory", "Does not match pattern"),
    "ray.existingCluster=a,ray.auth.existingSecret=": (
        "ray.auth.existingSecret: expected the Secret of the cluster that ray.existingCluster"
        " names, found none",
    ),
    "output.url=s3://user:password@bucket/run": ("output.url", "Does not match pattern"),
    "output.url=s3://bucket/run; true": ("output.url", "Does not match pattern"),
    "output.folder=../run": ("output.folder", "Does not match pattern"),
    "env.AWS_SECRET_ACCESS_KEY=hunter2": ("env", "AWS_SECRET_ACCESS_KEY"),
    "podSecurity.runAsUser=0": ("podSecurity.runAsUser", "greater than or equal to 1"),
    "image.pullPolicy=Sometimes": ("image.pullPolicy", 'one of the following: "Always"'),
    "job.backoffLimit=-1": ("job.backoffLimit", "greater than or equal to 0"),
    "job.attempt=0": ("job.attempt", "greater than or equal to 1"),
    "survey=": ("survey: expected the text of a survey file",),
    "survey=hello": ("survey: expected the text of a survey file, found",),
    "survey=name: x": ("survey: expected the text of a survey file, found no key sources",),
    "nightly.schedule=tonight": ("nightly.schedule", "Does not match pattern"),
    "nightly.outputUrl=s3://survey/nights": (
        "nightly.outputUrl: expected a URL with @NIGHT@ in it, found s3://survey/nights",
    ),
    "serve.tokensSecret=": (
        "serve.tokensSecret: expected the name of a Secret with tokens.yaml, found none",
    ),
    "serve.grades.url=": ("serve.replicas: expected 1 where serve.grades.url names no database",),
    "serve.grades.url=postgresql://u:p@host/db": ("serve.grades.url", "Does not match pattern"),
    "serve.ingress.tlsSecret=": ("serve.ingress.tlsSecret: expected a name",),
    "serve.ingress.host=https://a.b": ("serve.ingress.host", "Does not match pattern"),
    "monitoring.port=9200": (
        "survey: expected runtime.metrics_port: 9200, as monitoring.port says, found 9100",
    ),
    "data[0].claim=sky": ("data.0", "mountPath is required"),
    "serve.memory=4Gi": (
        "serve.memory: expected more than 4096Mi, twice serve.query.memoryMb for each of"
        " serve.query.concurrent, found 4Gi",
    ),
    "serve.query.concurrent=8": ("serve.memory: expected more than 16384Mi",),
    "job.attempt=1000000": ("job.attempt", "less than or equal to 999999"),
    "nameOverride=Lens": ("nameOverride", "Does not match pattern"),
}


@pytest.mark.tool
@pytest.mark.parametrize("setting", BAD)
def test_a_bad_value_is_refused_by_name(setting: str) -> None:
    told = refusal(SURVEY, "--set", setting)
    for part in BAD[setting]:
        assert part in told


@pytest.mark.tool
def test_metrics_of_the_loopback_alone_are_refused_where_they_are_scraped() -> None:
    told = refusal("values-minikube.yaml", "--set", "monitoring.podMonitor.enabled=true")
    assert "survey: expected runtime.metrics_port: 9100" in told


@pytest.mark.tool
@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("metrics_host: 0.0.0.0", "expected runtime.metrics_port: 9100, as monitoring.port says,"),
        ("metrics_port: 9100", "expected runtime.metrics_host: 0.0.0.0, which Prometheus reaches,"),
    ],
)
def test_a_night_that_nobody_can_scrape_is_refused(found: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "night.yaml").write_text(f"sources: {{path: s3://a/}}\nruntime: {{{found}}}\n")
    night = ("--set-file", f"nightly.survey={tmp_path}/night.yaml")
    assert f"nightly.survey: {told}" in refusal(SURVEY, *night)
    assert template(SURVEY, *night, "--set", "monitoring.podMonitor.enabled=false").returncode == 0


@pytest.mark.tool
@pytest.mark.parametrize("memory", ["5Gi", "4097Mi", "1Ti"])
def test_memory_that_holds_all_queries_is_taken(memory: str) -> None:
    assert template(SURVEY, "--set", f"serve.memory={memory}").returncode == 0


@pytest.mark.tool
def test_helms_own_values_of_a_chart_in_another_are_taken() -> None:
    assert template(SURVEY, "--set", "global.region=eu").returncode == 0

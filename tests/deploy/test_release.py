"""Installations and upgrades by the real helm, of which something stays."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.api_server import Objects, api_server
from tests.deploy.chart import CHART
from tests.tools import require_tool

pytestmark = pytest.mark.tool


@dataclass(frozen=True)
class Release:
    """upgrade: `helm upgrade --install` with options; what it prints. objects: what is there."""

    upgrade: Callable[..., str]
    objects: Objects

    def of(self, resource: str) -> list[dict[str, Any]]:
        """Objects by the resource's name in paths, those that helm keeps for itself left out."""
        return [
            found
            for path, found in self.objects.items()
            if f"/{resource}/" in path
            and found["metadata"].get("labels", {}).get("owner") != "helm"
        ]

    @property
    def token(self) -> str:
        """Ray's token."""
        [secret] = self.of("secrets")
        return str(secret["data"]["auth_token"])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    home = tmp_path_factory.mktemp("helm")
    with api_server() as (address, objects):
        config = home / "kubeconfig"
        named = {"cluster": {"server": address}, "context": {"cluster": "c", "namespace": "sky"}}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": named["cluster"]}],
            "contexts": [{"name": "c", "context": named["context"]}],
        }
        config.touch(mode=0o600)
        config.write_text(yaml.safe_dump(content), "utf-8")

        def upgrade(*options: str | Path) -> str:
            command = [require_tool("helm"), "upgrade", "--install", "lens", str(CHART)]
            done = subprocess.run(
                [*command, "--disable-openapi-validation", *map(str, options)],
                capture_output=True,
                text=True,
                check=False,
                env={"HOME": str(home), "KUBECONFIG": str(config), "PATH": "/usr/bin:/bin"},
            )
            assert done.returncode == 0, done.stderr
            return str(done.stdout)

        yield Release(upgrade, objects)


SURVEY = ("--values", str(CHART / "values-survey.yaml"), "--set", "ray.auth.existingSecret=")


@pytest.fixture(scope="module")
def told(release: Release) -> str:
    """What is printed at the first installation."""
    return release.upgrade(*SURVEY)


def test_notes_say_where_to_look(told: str) -> None:
    assert "kubectl --namespace sky get rayjob lens-1" in told
    assert "s3://survey/run" in told
    assert "https://lenses.example.org" in told


@pytest.mark.usefixtures("told")
def test_an_upgrade_keeps_the_token_that_was_made(release: Release) -> None:
    before = release.token
    release.upgrade("--reuse-values", "--set", "serve.replicas=3")
    [serve] = release.of("deployments")
    assert serve["spec"]["replicas"] == 3
    assert release.token == before


@pytest.mark.usefixtures("told")
def test_another_attempt_takes_the_place_of_the_one_before(release: Release) -> None:
    release.upgrade("--reuse-values", "--set", "job.attempt=2")
    assert [job["metadata"]["name"] for job in release.of("rayjobs")] == ["lens-2"]

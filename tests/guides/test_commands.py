"""Every block of commands on the pages does what stands there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.api_server import Objects, api_server
from tests.guides.elsewhere import named
from tests.guides.pages import Block, blocks
from tests.guides.scene import OWN, Scene
from tests.guides.shell import free_port, run
from tests.tools import require_tool

HERE = [b for b in blocks() if not named(b) and not b.trains]
TOOLS = ("helm", "prometheus")


def tools(block: Block) -> list[str]:
    """Programs other than lenspipe that a block calls."""
    return [tool for tool in TOOLS if any(c.split()[0] == tool for c in block.commands)]


def case(block: Block) -> Any:
    marks = [pytest.mark.service] * block.runs_a_job + [pytest.mark.tool] * bool(tools(block))
    return pytest.param(block, id=str(block), marks=marks)


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[tuple[Path, Objects]]:
    """The file that names a stand-in for a cluster, and what the cluster holds."""
    with api_server() as (address, objects):
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
        }
        path = tmp_path / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(content), "utf-8")
        yield path, objects


@pytest.mark.parametrize(
    "block", [case(b) for b in HERE if "helm" not in tools(b) and b.page != OWN]
)
def test_a_block_runs(block: Block, scene: Scene, tmp_path: Path) -> None:
    mine = scene.copy(tmp_path / "scene")
    if "lenspipe run SURVEY.yaml" in block.text:
        mine.erase_run()
    run_in(mine, block)


def run_in(scene: Scene, block: Block) -> None:
    port = free_port()
    found = {f"GUIDES_{tool.upper()}": require_tool(tool) for tool in tools(block)}
    run(block, scene.folder, scene.environment(port, **found), port)


@pytest.mark.service
@pytest.mark.timeout(600)
def test_the_blocks_on_a_survey_of_ones_own_go_on_from_one_another(
    scene: Scene, tmp_path: Path
) -> None:
    mine = scene.copy(tmp_path / "scene")
    steps = [b for b in HERE if b.page == OWN]
    assert len(steps) > 4
    for block in steps:
        run_in(mine, block)


@pytest.mark.parametrize("block", [case(b) for b in HERE if "helm" in tools(b)])
def test_a_block_installs_the_chart(
    block: Block, scene: Scene, tmp_path: Path, kubernetes: tuple[Path, Objects]
) -> None:
    config, objects = kubernetes
    mine = scene.copy(tmp_path / "scene")
    found = {"GUIDES_HELM": require_tool("helm"), "KUBECONFIG": os.fspath(config)}
    run(block, mine.folder, mine.environment(0, **found), 0)
    assert [path for path in objects if "/rayjobs/" in path]


def test_blocks_of_every_kind_were_found() -> None:
    assert {tool for b in HERE for tool in tools(b)} == set(TOOLS)
    assert len(HERE) > 20
    assert sum(b.waits for b in HERE) > 3

"""The commands that make and judge models, on recipes that take seconds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import ray as _typed_ray

from lenspipe.processes.slots import Machine
from tests.guides.elsewhere import named
from tests.guides.pages import ROOT, Block, blocks
from tests.guides.recipes import write_recipes
from tests.guides.shell import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STEPS = [b for b in blocks() if not named(b) and b.trains]
FIRST = "docs/models.md"  # step by step: what the other pages judge
ray: Any = _typed_ray  # its annotations leave out what its documentation names


@pytest.fixture(scope="module")
def place(ray_cluster: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_recipes(folder / "training" / "recipes")
    return folder


def environment() -> dict[str, str]:
    """A shell's, whose Ray is that of the tests."""
    address = ray.get_runtime_context().gcs_address
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_ADDRESS": address,
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def made(place: Path) -> Path:
    """The folder, in which the step-by-step block has been run."""
    [block] = [b for b in STEPS if b.page == FIRST and "training train " in b.text]
    run(block, place, environment(), 0)
    return place


@pytest.mark.parametrize("block", STEPS, ids=str)
def test_a_block_runs(block: Block, made: Path) -> None:
    if not (block.page == FIRST and "training train " in block.text):
        run(block, made, environment(), 0)
    assert (made / "zoo" / "ps1-gri.yaml").is_file()


def test_blocks_of_training_were_found() -> None:
    assert {b.page for b in STEPS} == {FIRST, "docs/evaluation.md", "docs/simulation-sets.md"}

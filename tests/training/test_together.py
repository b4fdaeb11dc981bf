"""Two processes on the loopback train what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lenspipe.errors import InputError
from training import fit
from training.data import load_images
from training.logs import read_log
from training.recipe import load_member
from training.together import Group

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def launched(folder: Path, stop_after: int) -> None:
    """Run two processes by torch's own launcher, which finds a free port for them."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    driver = ["-m", "tests.training.group_of_two", str(folder), str(stop_after)]
    threads = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, *launcher, *driver],
        cwd=ROOT,
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, make_set: Callable[[Path, int, int], Path]
) -> Path:
    """Trained by two processes for two epochs, and by two others for the third."""
    folder = tmp_path_factory.mktemp("group")
    make_set(folder / "train.h5", 1, 128)
    make_set(folder / "validation.h5", 2, 64)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    launched(folder, 2)
    launched(folder, 3)
    return folder


def recipe() -> dict[str, Any]:
    """Without draws per process and without batch normalisation, which on CPUs takes the means of
    a process's own share of the batch: then one process and two do the same arithmetic."""
    return {
        "name": "toy",
        "task": "lens_finding",
        "description": "finds rings",
        "simulate": {"instrument": "toy"},
        "splits": {
            name: {"seed": k}
            for k, name in enumerate(("train", "validation", "calibration", "test"))
        },
        "architecture": {"name": "lensfinder"},
        "normalisation": {"name": "asinh", "parameters": {"softening": [1.0]}},
        "augmentation": [],
        "sampling": {"lens_fraction": 0.5},
        "optimiser": {"learning_rate": 1.0e-3},
        "epochs": 3,
        "batch_size": 32,
        "ema_decay": 0.9,
        "seed": 5,
    }


def test_two_processes_give_what_one_gives(folder: Path) -> None:
    """Losses of every epoch within 1e-5 and weights within 1e-4 of one process that never halted:
    the same sums of float32 in another order, and Adam divides by the root of small gradients."""
    train, validation = (load_images(folder / f"{k}.h5") for k in ("train", "validation"))
    member = load_member(folder / "recipe.yaml")
    alone = fit.fit(member, train, validation, folder / "alone", device="cpu")
    rows = [read_log(folder / name / "log.csv") for name in ("alone", "group")]
    assert [row["epoch"] for row in rows[1]] == ["1", "2", "3"]
    for one, two in zip(*rows, strict=True):
        for key in ("train_loss", "validation_loss"):
            assert float(one[key]) == pytest.approx(float(two[key]), abs=1e-5)
    group = fit.load_best(member, train.shapes, folder / "group")
    assert group.epoch == alone.epoch
    for key, weight in alone.model.state_dict().items():
        torch.testing.assert_close(group.model.state_dict()[key], weight, rtol=0, atol=1e-4)


def test_shares_are_the_whole_batch_once() -> None:
    rows = torch.arange(12)
    shares = [Group(CPU, rank, 3).share(rows) for rank in range(3)]
    assert sorted(torch.cat(shares).tolist()) == list(range(12))
    assert {len(share) for share in shares} == {4}


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size: expected a multiple of 3 processes"):
        Group(CPU, 0, 3).check_batch(32)

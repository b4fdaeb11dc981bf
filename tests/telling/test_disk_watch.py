from __future__ import annotations

import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from lenspipe.metrics import RunMetrics
from lenspipe.telling.disk_watch import watching_disks

Told = list[tuple[str, int, int]]
_Usage = namedtuple("_Usage", "total used free")


def test_disks_are_told_at_once_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twentieth that only root may fill is neither free nor used."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(100, 60, 35))
    told: Told = []
    again = threading.Event()

    def tell(place: str, free: int, size: int) -> None:
        told.append((place, free, size))
        if len(told) == 4:
            again.set()

    with watching_disks({"output": tmp_path, "scratch": tmp_path}, tell, 0.01):
        assert again.wait(10)
    assert told[:4] == [("output", 35, 95), ("scratch", 35, 95)] * 2


def test_figures_are_those_of_the_disk(tmp_path: Path) -> None:
    metrics, seen = RunMetrics("toy"), threading.Event()

    def tell(place: str, free: int, size: int) -> None:
        metrics.disk(place, free, size)
        seen.set()

    with watching_disks({"output": tmp_path}, tell):
        assert seen.wait(10)
    found = os.statvfs(tmp_path)
    size = metrics.registry.get_sample_value("lenspipe_disk_size_bytes", {"place": "output"})
    free = metrics.registry.get_sample_value("lenspipe_disk_free_bytes", {"place": "output"})
    assert size is not None
    assert free is not None
    assert 0 < free <= size <= found.f_blocks * found.f_frsize


def test_a_disk_that_cannot_be_looked_at_hides_no_other(tmp_path: Path) -> None:
    told: Told = []
    seen = threading.Event()

    def tell(place: str, free: int, size: int) -> None:
        told.append((place, free, size))
        seen.set()

    with watching_disks({"output": tmp_path / "gone", "scratch": tmp_path}, tell):
        assert seen.wait(10)
    assert {place for place, *_ in told} == {"scratch"}


def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, over = threading.Event(), threading.Event()

    def hang(_: Path) -> None:
        hangs.set()
        over.wait(30)
        raise OSError

    monkeypatch.setattr(shutil, "disk_usage", hang)
    with watching_disks({"output": tmp_path}, lambda *_: None):
        assert hangs.wait(10)
    assert not over.is_set()  # the block ended while the look still hung
    over.set()

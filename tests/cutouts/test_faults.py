"""Storage that is away fails no row; a place that a disk cannot read fails the rows there."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from lenspipe import cutouts
from lenspipe.cutouts import faults
from lenspipe.cutouts.base import Reader
from lenspipe.cutouts.planned import open_planned
from lenspipe.storage.outage import OF_THE_STORAGE
from lenspipe.storage.refusals import is_refusal
from tests.chaos.test_damaged_pixels import BANDS, KINDS, SPEC, N, files_of, open_kind

KIND_NAMES = ["coadd", "stamps", "hdf5", "zarr_checked"]


@pytest.fixture(autouse=True)
def no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_RESTS_S", (0.0, 0.0))


def _refuse(monkeypatch: pytest.MonkeyPatch, code: int, which: Callable[[str], bool]) -> None:
    """Opening such files meets an error of the operating system, by whatever library."""
    original, original_h5 = os.open, h5py.File

    def refused(name: Any, *args: Any, **more: Any) -> int:
        if which(str(name)):
            raise OSError(code, os.strerror(code), str(name))
        return original(name, *args, **more)

    def refused_h5(name: Any, *args: Any, **more: Any) -> Any:
        if which(str(name)):
            raise OSError(code, os.strerror(code))
        return original_h5(name, *args, **more)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(h5py, "File", refused_h5)


@pytest.mark.parametrize("kind", KIND_NAMES)
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN])
def test_no_row_fails_for_storage_that_is_away(
    tmp_path: Path, kind: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, table = KINDS[kind].write(tmp_path)
    reader = open_kind(tmp_path, options)
    reader.read(table, [SPEC])
    _refuse(monkeypatch, code, lambda name: name.startswith(str(tmp_path)))
    for opened in (reader, open_kind(tmp_path, options)):
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            opened.read(table, [SPEC])
        assert caught.value.errno == code


@pytest.mark.parametrize("kind", KIND_NAMES)
@pytest.mark.parametrize("mounted", [True, False])
def test_no_row_fails_for_a_folder_that_is_away(tmp_path: Path, kind: str, mounted: bool) -> None:
    folder, elsewhere = tmp_path / "pixels", tmp_path / "elsewhere"
    folder.mkdir()
    options, table = KINDS[kind].write(folder)
    begun, fresh = open_kind(folder, options), open_kind(folder, options)
    expected = begun.read(table, [SPEC])
    assert len(expected) == N
    folder.rename(elsewhere)
    if mounted:
        folder.mkdir()
    for reader in (begun, fresh):
        with pytest.raises(FileNotFoundError):
            reader.read(table, [SPEC])
    with pytest.raises(FileNotFoundError):
        _opened_in_a_worker(folder, options)
    if mounted:
        folder.rmdir()
    elsewhere.rename(folder)
    for reader in (begun, fresh, _opened_in_a_worker(folder, options)):
        assert reader.read(table, [SPEC]).failures == ()


def _opened_in_a_worker(folder: Path, options: dict[str, Any]) -> Reader:
    model = cutouts.options_model(options["reader"])
    return open_planned(model.model_validate(options), str(folder))


def test_a_place_that_its_disk_cannot_read_costs_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, table = KINDS["stamps"].write(tmp_path)
    victim = files_of(tmp_path)[0]
    assert victim.name == f"0_{sorted(BANDS)[0]}.fits"
    _refuse(monkeypatch, errno.EIO, lambda name: name == str(victim))
    batch = open_kind(tmp_path, options).read(table, [SPEC])
    assert {(f.row, f.reason) for f in batch.failures} == {(0, "unreadable")}
    assert "Input/output error" in batch.failures[0].detail


def test_a_place_that_reads_after_a_rest_is_a_passing_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, table = KINDS["stamps"].write(tmp_path)
    victim, tries = str(files_of(tmp_path)[0]), []

    def first(name: str) -> bool:
        if name == victim:
            tries.append(name)
        return name == victim and len(tries) == 1

    _refuse(monkeypatch, errno.EIO, first)
    reader = open_kind(tmp_path, options)
    with pytest.raises(OSError, match="Input/output error"):
        reader.read(table, [SPEC])
    assert reader.read(table, [SPEC]).failures == ()


def test_a_command_says_such_faults_in_one_line() -> None:
    assert all(is_refusal(OSError(code, os.strerror(code))) for code in OF_THE_STORAGE)

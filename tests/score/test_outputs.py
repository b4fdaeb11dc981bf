"""`lenspipe score` writes over nothing that it reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from lenspipe.errors import InputError
from lenspipe.score.outputs import Outputs, refuse_inputs
from lenspipe.score.score_cutouts import score_cutouts
from tests import toy_models

ROWS, SIZE = 5, 8
BANDS = ("g", "r", "i")


def _pixels() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(ROWS, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """A call whose every input could be an output by its name."""
    with h5py.File(tmp_path / "cutouts.h5", "w") as file:
        data = file.create_dataset("images", data=_pixels())
        data.attrs.update({"bands": "gri", "pixel_scale_arcsec": 0.25})
    for name in ("cat.parquet", "s.failures.parquet"):
        pq.write_table(pa.table({"object_id": range(ROWS)}), tmp_path / name)
    return {
        "ensemble": str(toy_models.make_ensemble(tmp_path / "models", bands=BANDS, size=SIZE)),
        "cutouts_path": tmp_path / "cutouts.h5",
        "catalogue": tmp_path / "cat.parquet",
        "out": tmp_path / "scores.parquet",
        "provider": "cpu",
    }


def _bytes(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _assert_refused(folder: Path, call: dict[str, Any]) -> str:
    before = _bytes(folder)
    with pytest.raises(InputError) as refused:
        score_cutouts(**call)
    assert refused.value.field == "--out"
    assert "\n" not in str(refused.value)
    assert _bytes(folder) == before
    return str(refused.value)


def test_the_catalogue_itself(given: dict[str, Any], tmp_path: Path) -> None:
    told = _assert_refused(tmp_path, {**given, "out": given["catalogue"]})
    assert f"found {tmp_path}/cat.parquet" in told


def test_the_catalogue_by_another_name(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.parquet").symlink_to("cat.parquet")
    os.link(tmp_path / "cat.parquet", tmp_path / "hard.parquet")
    (tmp_path / "here").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for out in ("link.parquet", "hard.parquet", "here/cat.parquet", "models/../cat.parquet"):
        _assert_refused(tmp_path, {**given, "out": out})


def test_the_failures_and_the_page_count_too(given: dict[str, Any], tmp_path: Path) -> None:
    call = {**given, "catalogue": tmp_path / "s.failures.parquet", "out": tmp_path / "s.parquet"}
    assert "s.failures.parquet" in _assert_refused(tmp_path, call)
    (tmp_path / "t.report.html").hardlink_to(tmp_path / "cutouts.h5")
    call = {**given, "out": tmp_path / "t.parquet"}
    _assert_refused(tmp_path, {**call, "report": True})
    assert score_cutouts(**call).scored == ROWS  # no page is written


def test_layout_pixels_and_models(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "layout.parquet").write_text("cutouts: {crop: true}\n")
    call = {**given, "layout": tmp_path / "layout.parquet"}
    _assert_refused(tmp_path, {**call, "out": tmp_path / "layout.parquet"})
    (tmp_path / "pixels.parquet").symlink_to("cutouts.h5")
    _assert_refused(tmp_path, {**given, "out": tmp_path / "pixels.parquet"})
    for number, model in enumerate((tmp_path / "models").iterdir()):
        link = tmp_path / f"model{number}.parquet"
        link.symlink_to(model)
        _assert_refused(tmp_path, {**given, "out": link})


def test_nothing_new_comes_into_a_store(given: dict[str, Any], tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.create_array("images", data=_pixels()).attrs["bands"] = list(BANDS)
    call = {**given, "cutouts_path": tmp_path / "a.zarr", "options": {"pixel_scale_arcsec": 0.25}}
    for out in ("a.zarr/s.parquet", "a.zarr/images/c/s.parquet"):
        assert "outside of the cutouts' store" in _assert_refused(
            tmp_path, {**call, "out": tmp_path / out}
        )
    many = tmp_path / "many.parquet"
    many.mkdir()
    pq.write_table(pa.table({"object_id": range(ROWS)}), many / "a.parquet")
    _assert_refused(tmp_path, {**given, "catalogue": many, "out": many / "b.parquet"})


def test_a_new_file_beside_the_cutouts_and_a_second_call_are_fine(given: dict[str, Any]) -> None:
    for _ in range(2):
        assert score_cutouts(**given, report=True).scored == ROWS


def test_urls_are_compared_as_they_are() -> None:
    outputs = Outputs("s3://bucket/a", "s.parquet")
    refuse_inputs(outputs, ["s3://bucket/b/s.parquet"], ["s3://bucket/a.zarr"])
    with pytest.raises(InputError, match="no file that is read"):
        refuse_inputs(outputs, ["s3://bucket/a/s.parquet"], [])
    with pytest.raises(InputError, match="outside of"):
        refuse_inputs(outputs, [], ["s3://bucket/a/"])

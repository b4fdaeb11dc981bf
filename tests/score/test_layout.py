from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from lenspipe.errors import InputError
from lenspipe.score.layout import find_layout, parse_settings, see_options


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("deep/stack", data=np.zeros((2, 3, 4, 4), np.float32))
        data.attrs["bands"] = "gri"
        file["name"] = ["a", "b"]
    return path


def test_hdf5_says_array_and_bands(hdf5: Path) -> None:
    assert see_options(hdf5) == {
        "reader": "hdf5",
        "path": "a.h5",
        "dataset": "deep/stack",
        "row": "catalogue_row",
        "bands": ["g", "r", "i"],
    }


def test_zarr_says_array_and_perhaps_bands(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.create_array("stamps", data=np.zeros((2, 3, 4, 4), np.float32))
    group.create_array("ids", data=np.zeros(2, np.int64))
    found = see_options(tmp_path / "a.zarr")
    assert (found["reader"], found["array"]) == ("zarr", "stamps")
    assert "bands" not in found


def test_stamps_say_template_and_bands(tmp_path: Path) -> None:
    for name in ("J1_02_g.fits.gz", "J1_02_r.fits.gz", "x_r.fits.gz", "readme.txt"):
        (tmp_path / name).touch()
    found = see_options(tmp_path)
    assert found["path"] == "{object_id}_{band}.fits.gz"
    assert found["bands"] == {"g": "g", "r": "r"}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "none of them"),
        (["a.h5", "b.h5"], "a.h5, b.h5"),
        (["a.h5", "x_g.fits"], "a.h5, FITS stamps"),
        (["x_g.fits", "x_r.fits.gz"], ".fits, .fits.gz"),
        (["x.fits"], "none of them"),
    ],
)
def test_folders_that_say_too_little(tmp_path: Path, files: list[str], found: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(InputError) as refused:
        find_layout(tmp_path)
    assert refused.value.found == found


def test_an_hdf5_file_with_two_arrays_needs_a_name(hdf5: Path) -> None:
    with h5py.File(hdf5, "r+") as file:
        file["other"] = np.zeros((2, 3, 4, 4), np.float32)
    with pytest.raises(InputError, match="--set dataset=NAME"):
        find_layout(hdf5)
    said = {"dataset": "other", "bands": ["g", "r", "i"]}
    assert find_layout(hdf5, options=said).options.model_dump()["dataset"] == "other"


def test_a_layout_may_leave_the_reader_to_the_files(hdf5: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text("cutouts: {crop: true}\n")
    found = find_layout(hdf5, layout)
    assert found.options.reader == "hdf5"
    assert found.options.crop
    assert found.base == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("catalog: a.csv", "catalog"),
        ("cutouts: {reader: hdf5, bands: [g]}", "cutouts"),
        ("cutouts: {reader: hdf5, path: a.h5, bands: [g], row: n, chop: 1}", "cutouts.chop"),
        ("- a", "layout"),
        ("{", "layout"),
    ],
)
def test_refused_layouts(hdf5: Path, tmp_path: Path, text: str, field: str) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text(text)
    with pytest.raises(InputError) as refused:
        find_layout(tmp_path, layout)
    assert field in refused.value.field
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ([], {}),
        (["crop=true", "pixel_scale_arcsec=0.25"], {"crop": True, "pixel_scale_arcsec": 0.25}),
        (["bands=[g, r]"], {"bands": ["g", "r"]}),
        (["mask.values=[100]", "mask.hdu=MASK"], {"mask": {"values": [100], "hdu": "MASK"}}),
    ],
)
def test_settings(settings: list[str], wanted: dict[str, Any]) -> None:
    assert parse_settings(settings) == wanted


@pytest.mark.parametrize("setting", ["crop", "=1", "bands=[g"])
def test_refused_settings(setting: str) -> None:
    with pytest.raises(InputError, match="--set"):
        parse_settings([setting])

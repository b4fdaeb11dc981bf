"""Every cutout reader gives the same pixels, flags and failures for the same sky.

A new reader is found by its file; it needs a builder here, which writes the sky in its format.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lenspipe import cutouts
from lenspipe.check import check_survey
from lenspipe.config import parse_survey
from lenspipe.contracts import CutoutBatch, Flag, InputSpec, Reason
from lenspipe.cutouts.base import Reader
from lenspipe.cutouts.columns import Kind
from lenspipe.errors import HopelessError, InputError
from tests import toy_models

BANDS = ("g", "r", "i")
SIDE = 16
SOURCES = 12
PER_FILE = 4  # sources of one tile or one HDF5 file: a broken file must leave the others alone
SCALE = 0.25
ZERO_POINT = 25.0
SPEC = InputSpec("image", BANDS, SIDE, SCALE, ZERO_POINT + 2.5)  # flux must come out 10 times


@dataclass(frozen=True)
class Sky:
    """Stamps of all sources, and how they are to be written.

    absent: (source, band) without a file. broken: a source whose file is cut short.
    """

    stamps: np.ndarray[Any, np.dtype[np.float32]]
    absent: tuple[int, str] | None = None
    broken: int | None = None
    scale: float = SCALE
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """A sky on disk. touched: sources that share the absent band's or the broken file."""

    options: dict[str, Any]
    table: pa.Table
    base: Path
    touched: tuple[int, ...] = ()

    def open(self) -> Reader:
        model = cutouts.options_model(self.options["reader"])
        return cutouts.open_reader(model.model_validate(self.options), str(self.base))


def plain_stamps() -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(7)
    return rng.normal(5.0, 1.0, (SOURCES, len(BANDS), SIDE, SIDE)).astype(np.float32)


def _table(**columns: Any) -> pa.Table:
    numbers = np.arange(SOURCES)
    base = {"object_id": numbers, "ra": 10.0 + numbers * 0.01, "dec": numbers * 0.0}
    return pa.table({**base, **columns})


def _options(reader: str, sky: Sky, **more: Any) -> dict[str, Any]:
    return {"reader": reader, "zero_point": {"constant": ZERO_POINT}, **more, **sky.options}


def _cut_short(path: Path, part: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def _header(scale: float, ra: float, dec: float, x: float, y: float) -> fits.Header:
    """TAN: zero-based pixel (x, y) is at (ra, dec)."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = ra, dec
    header["CRPIX1"], header["CRPIX2"] = x + 1, y + 1
    header["CDELT1"], header["CDELT2"] = -scale / 3600, scale / 3600
    return header


def build_coadd(folder: Path, sky: Sky) -> Written:
    """Tiles of PER_FILE stamps side by side; a source stands on pixel SIDE // 2 of its own."""
    ra, dec = np.zeros(SOURCES), np.zeros(SOURCES)
    touched: tuple[int, ...] = ()
    for tile, start in enumerate(range(0, SOURCES, PER_FILE)):
        members = tuple(range(start, start + PER_FILE))
        ra0 = 10.0 + tile
        header = _header(sky.scale, ra0, 0.0, SIDE // 2, SIDE // 2)
        for number in members:
            # On the equator the gnomonic projection is x = tan(ra - ra0).
            shift = np.arctan(np.radians((number - start) * SIDE * sky.scale / 3600))
            ra[number], dec[number] = ra0 - np.degrees(shift), 0.0
        for index, band in enumerate(BANDS):
            path = folder / f"t{tile}_{band}.fits"
            pixels = np.hstack(list(sky.stamps[list(members), index]))
            fits.PrimaryHDU(pixels, header).writeto(path)
            if sky.absent and sky.absent[0] in members and sky.absent[1] == band:
                path.unlink()
                touched = members
            if sky.broken in members and band == "r":
                _cut_short(path)
                touched = members
    options = _options(
        "coadd", sky, tiles="*.fits*", bands={b: f"{{tile}}_{b}.fits" for b in BANDS}
    )
    return Written(options, _table(ra=ra, dec=dec), folder, touched)


def build_stamps(folder: Path, sky: Sky) -> Written:
    for number in range(SOURCES):
        for index, band in enumerate(BANDS):
            path = folder / f"{number}_{band}.fits"
            header = _header(sky.scale, 10.0, 0.0, SIDE // 2, SIDE // 2)
            fits.PrimaryHDU(sky.stamps[number, index], header).writeto(path)
            if sky.absent == (number, band):
                path.unlink()
            if sky.broken == number and band == "r":
                _cut_short(path)
    touched = tuple(n for n in (sky.absent and sky.absent[0], sky.broken) if n is not None)
    options = _options(
        "stamps", sky, path="{object_id}_{band}.fits", bands=dict(zip(BANDS, BANDS, strict=True))
    )
    return Written(options, _table(), folder, touched)


def _blank_absent(sky: Sky) -> np.ndarray[Any, np.dtype[np.float32]]:
    """In an array a band that was not observed is NaN."""
    stamps = sky.stamps.copy()
    if sky.absent:
        stamps[sky.absent[0], BANDS.index(sky.absent[1])] = np.nan
    return stamps


def build_hdf5(folder: Path, sky: Sky) -> Written:
    stamps = _blank_absent(sky)
    touched: tuple[int, ...] = () if sky.absent is None else (sky.absent[0],)
    for part, start in enumerate(range(0, SOURCES, PER_FILE)):
        path = folder / f"part{part}.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset(
                "images",
                data=stamps[start : start + PER_FILE],
                chunks=(2, *stamps.shape[1:]),
                compression="gzip",
            )
            data.attrs["pixel_scale_arcsec"] = sky.scale
            file["ids"] = np.arange(start, start + PER_FILE)
        if sky.broken is not None and start <= sky.broken < start + PER_FILE:
            _cut_short(path)
            touched = tuple(range(start, start + PER_FILE))
    options = _options("hdf5", sky, path="part*.h5", bands=list(BANDS), ids="ids")
    return Written(options, _table(), folder, touched)


def build_zarr(folder: Path, sky: Sky) -> Written:
    stamps = _blank_absent(sky)
    touched: tuple[int, ...] = () if sky.absent is None else (sky.absent[0],)
    root = zarr.open_group(str(folder / "stamps.zarr"), mode="w")
    data = root.create_array(
        "images", shape=stamps.shape, dtype="f4", chunks=(2, *stamps.shape[1:])
    )
    data[...] = stamps
    data.attrs["pixel_scale_arcsec"] = sky.scale
    if sky.broken is not None:
        chunk = sky.broken // 2
        _cut_short(folder / "stamps.zarr" / "images" / "c" / str(chunk) / "0" / "0" / "0")
        touched = (2 * chunk, 2 * chunk + 1)
    options = _options("zarr", sky, path="stamps.zarr", bands=list(BANDS), row="object_id")
    return Written(options, _table(), folder, touched)


BUILDERS: dict[str, Callable[[Path, Sky], Written]] = {
    "coadd": build_coadd,
    "hdf5": build_hdf5,
    "stamps": build_stamps,
    "zarr": build_zarr,
}
READERS = cutouts.names()


def test_every_reader_has_a_builder() -> None:
    assert sorted(BUILDERS) == READERS


Build = Callable[[Sky], Written]


@pytest.fixture(params=READERS)
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Build:
    if request.param not in BUILDERS:
        pytest.fail(f"reader {request.param} has no builder in {__name__}")
    return lambda sky: BUILDERS[request.param](tmp_path, sky)


def _failures(batch: CutoutBatch) -> dict[int, Reason]:
    return {failure.row: failure.reason for failure in batch.failures}


def _read(written: Written, spec: InputSpec = SPEC) -> CutoutBatch:
    return written.open().read(written.table, [spec])


def _expect_rest_intact(batch: CutoutBatch, stamps: Any, but: tuple[int, ...]) -> None:
    rest = [n for n in range(SOURCES) if n not in but]
    assert [row for row in batch.rows.tolist() if row not in but] == rest
    kept = np.isin(batch.rows, rest)
    expected = stamps[rest] * np.float32(10.0)
    np.testing.assert_array_equal(batch.images["image"][kept], expected)
    assert not batch.flags[kept].any()


def test_pixels_of_all_sources_at_the_models_zero_point(build: Build) -> None:
    stamps = plain_stamps()
    written = build(Sky(stamps))
    written.open().check([SPEC])
    batch = _read(written)
    _expect_rest_intact(batch, stamps, ())
    assert not batch.failures
    assert batch.bytes_read > 0


def test_the_surveys_own_folder_is_no_pattern(
    request: pytest.FixtureRequest, build: Build, tmp_path: Path
) -> None:
    """`a[1]` is a folder of that name, also where `a1` holds files of the same names."""
    builder = BUILDERS[request.node.callspec.params["build"]]
    stamps = plain_stamps()
    written = {}
    for name, values in (("a[1] {x}", stamps), ("a1 {x}", -stamps), ("a1 x", 2 * stamps)):
        (tmp_path / name).mkdir()
        written[name] = builder(tmp_path / name, Sky(values))
    own = written["a[1] {x}"]
    own.open().check([SPEC])
    assert (own.open().locality(own.table) >= 0).all()
    for info in own.open().describe().values():
        assert all(Path(file.path).is_relative_to(own.base) for file in info.listing.files)
    batch = _read(own)
    assert not batch.failures
    _expect_rest_intact(batch, stamps, ())


def test_bands_come_in_the_models_order(build: Build) -> None:
    stamps = plain_stamps()
    batch = _read(build(Sky(stamps)), replace(SPEC, bands=("i", "g")))
    np.testing.assert_array_equal(batch.images["image"], stamps[:, [2, 0]] * np.float32(10.0))


def test_each_file_that_changes_is_told_by_the_listing(build: Build) -> None:
    written = build(Sky(plain_stamps()))
    told = {band: info.listing for band, info in written.open().describe().items()}
    assert written.open().listing() == told
    assert set(told) == set(BANDS)
    there = {file.path for listing in told.values() for file in listing.files}
    # A store's metadata above its arrays is not looked at.
    files = [p for p in written.base.rglob("*") if p.is_file() and p.parent.suffix != ".zarr"]
    assert there == {str(path) for path in files}
    for path in files:
        os.utime(path, ns=(0, 1))  # written in place, the same size
        now = written.open().listing()
        lines = {line for band in BANDS for line in told[band].differences(now[band])}
        assert [line.split()[0] for line in lines] == [str(path)]
        told = dict(now)


def test_two_inputs_of_different_bands_and_sizes(build: Build) -> None:
    stamps = plain_stamps()
    written = build(Sky(stamps, options={"crop": True}))
    small = InputSpec("small", ("r",), SIDE // 2, SCALE, None)
    batch = written.open().read(written.table, [SPEC, small])
    np.testing.assert_array_equal(batch.images["image"], stamps * np.float32(10.0))
    inner = slice(SIDE // 4, SIDE // 4 + SIDE // 2)
    np.testing.assert_array_equal(batch.images["small"][:, 0], stamps[:, 1, inner, inner])


def test_nan_pixels_become_the_median_and_are_flagged(build: Build) -> None:
    stamps = plain_stamps()
    stamps[3, 1, 2, 2:6] = np.nan
    stamps[3, 1, 3, 3] = np.inf
    batch = _read(build(Sky(stamps)))
    _expect_rest_intact(batch, stamps, (3,))
    assert batch.flags[3] == Flag.NAN_FILLED
    filled = batch.images["image"][3, 1]
    good = np.isfinite(stamps[3, 1])
    scaled = stamps[3, 1] * np.float32(10.0)
    np.testing.assert_array_equal(filled[good], scaled[good])
    np.testing.assert_allclose(filled[~good], np.median(scaled[good]), rtol=1e-6)


def test_a_stamp_of_nan_is_a_failure(build: Build) -> None:
    stamps = plain_stamps()
    stamps[5] = np.nan
    batch = _read(build(Sky(stamps)))
    assert _failures(batch) == {5: Reason.BAD_PIXELS}
    _expect_rest_intact(batch, stamps, (5,))


def test_too_many_bad_pixels_are_a_failure(build: Build) -> None:
    stamps = plain_stamps()
    stamps[5, 2, : SIDE // 2] = np.nan
    batch = _read(build(Sky(stamps)))
    assert _failures(batch) == {5: Reason.BAD_PIXELS}
    assert "band i" in batch.failures[0].detail
    _expect_rest_intact(batch, stamps, (5,))


def test_a_constant_band_is_a_failure(build: Build) -> None:
    stamps = plain_stamps()
    stamps[0, 2] = 3.0
    stamps[7, 0] = 0.0
    stamps[7, 0, 0, 0] = np.nan
    batch = _read(build(Sky(stamps)))
    assert _failures(batch) == {0: Reason.CONSTANT_IMAGE, 7: Reason.CONSTANT_IMAGE}
    _expect_rest_intact(batch, stamps, (0, 7))


def test_masked_values_are_filled_and_flagged(build: Build) -> None:
    stamps = plain_stamps()
    stamps[2, 0, 5:7, 5:7] = 100.0
    batch = _read(build(Sky(stamps, options={"mask": {"values": [100]}})))
    _expect_rest_intact(batch, stamps, (2,))
    assert batch.flags[2] == Flag.MASKED
    assert batch.images["image"][2].max() < 200.0


def test_a_missing_band_is_a_failure(build: Build) -> None:
    stamps = plain_stamps()
    written = build(Sky(stamps, absent=(6, "r")))
    batch = _read(written)
    assert _failures(batch) == dict.fromkeys(written.touched, Reason.MISSING_BAND)
    assert 6 in written.touched
    _expect_rest_intact(batch, stamps, written.touched)


def test_a_missing_band_is_filled_with_zeros_where_allowed(build: Build) -> None:
    stamps = plain_stamps()
    written = build(Sky(stamps, absent=(6, "r"), options={"missing_band": "fill"}))
    batch = _read(written)
    assert not batch.failures
    touched = list(written.touched)
    assert (batch.flags[touched] == Flag.MISSING_BAND).all()
    assert not batch.images["image"][touched, 1].any()
    np.testing.assert_array_equal(
        batch.images["image"][touched][:, [0, 2]], stamps[touched][:, [0, 2]] * np.float32(10.0)
    )
    _expect_rest_intact(batch, stamps, written.touched)


def test_a_file_cut_short_fails_its_rows_and_no_others(build: Build) -> None:
    stamps = plain_stamps()
    written = build(Sky(stamps, broken=9))
    batch = _read(written)
    assert 9 in written.touched
    assert _failures(batch) == dict.fromkeys(written.touched, Reason.UNREADABLE)
    assert all(failure.detail for failure in batch.failures)
    _expect_rest_intact(batch, stamps, written.touched)


def test_another_pixel_scale_is_refused(build: Build) -> None:
    written = build(Sky(plain_stamps(), scale=SCALE * 1.2))
    with pytest.raises(InputError, match=r"pixel scale of band g: expected 0\.25"):
        written.open().check([SPEC])


def test_a_pixel_scale_within_a_percent_is_taken(build: Build) -> None:
    build(Sky(plain_stamps(), scale=SCALE * 1.005)).open().check([SPEC])


def test_a_stated_pixel_scale_that_differs_from_the_files_is_refused(build: Build) -> None:
    written = build(Sky(plain_stamps(), options={"pixel_scale_arcsec": 0.4}))
    with pytest.raises(InputError, match=r"cutouts\.pixel_scale_arcsec"):
        written.open().check([SPEC])


def test_resampling_keeps_the_flux_and_is_flagged(build: Build) -> None:
    stamps = np.full((SOURCES, len(BANDS), SIDE, SIDE), 1.0, np.float32)
    stamps[:, :, SIDE // 2, SIDE // 2] = 50.0
    written = build(Sky(stamps, options={"resample": True, "crop": True}))
    coarse = InputSpec("image", BANDS, 5, 2 * SCALE, ZERO_POINT)
    written.open().check([coarse])
    batch = _read(written, coarse)
    assert (batch.flags & Flag.RESAMPLED).all()
    np.testing.assert_allclose(batch.images["image"].sum(axis=(2, 3)), 4 * 25 + 49, rtol=1e-5)
    assert (batch.images["image"][:, :, 2, 2] > 40).all()


def test_a_band_that_is_not_there_is_refused(build: Build) -> None:
    written = build(Sky(plain_stamps()))
    wrong = replace(SPEC, bands=("g", "z"))
    with pytest.raises(InputError, match=r"cutouts\.bands: expected band z"):
        written.open().check([wrong])
    with pytest.raises(InputError, match=r"cutouts\.bands: expected band z"):
        written.open().read(written.table, [wrong])


def test_a_missing_zero_point_is_refused(build: Build) -> None:
    written = build(Sky(plain_stamps(), options={"zero_point": None}))
    with pytest.raises(InputError, match=r"cutouts\.zero_point: expected where zero points"):
        written.open().check([SPEC])
    written.open().check([replace(SPEC, zero_point_mag=None)])


def test_zero_points_of_the_catalogue_reach_their_rows(build: Build) -> None:
    stamps = plain_stamps()
    column = {"exptime_column": "exptime_{band}", "base_mag": ZERO_POINT}
    written = build(Sky(stamps, options={"zero_point": column}))
    seconds = np.linspace(1.0, 100.0, SOURCES)
    seconds[4], seconds[8] = 0.0, np.nan
    table = written.table
    for band in BANDS:
        table = table.append_column(f"exptime_{band}", pa.array(seconds))
    reader = written.open()
    assert {f"exptime_{band}" for band in BANDS} <= reader.columns
    batch = reader.read(table, [replace(SPEC, zero_point_mag=ZERO_POINT)])
    assert _failures(batch) == {4: Reason.BAD_METADATA, 8: Reason.BAD_METADATA}
    good = np.isfinite(seconds) & (seconds > 0)
    expected = stamps[good] / seconds[good, None, None, None]
    np.testing.assert_allclose(batch.images["image"], expected, rtol=1e-5)


UNFIT = {
    Kind.WHOLE: [f"{n}" for n in range(SOURCES)],
    Kind.NUMBER: [f"{n}" for n in range(SOURCES)],
    Kind.NAME: [[n] for n in range(SOURCES)],
}


@pytest.mark.parametrize("key", ["column", "exptime_column"])
def test_columns_of_another_kind_are_refused_before_anything_starts(
    build: Build, tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    written = build(Sky(plain_stamps(), options={"zero_point": {key: "zp_{band}"}}))
    folder = tmp_path_factory.mktemp("survey")
    reader = written.open()
    table = written.table
    for band in BANDS:
        table = table.append_column(f"zp_{band}", pa.array(np.full(SOURCES, 25)))

    def check(table: pa.Table) -> None:
        pq.write_table(table, folder / "catalogue.parquet")
        survey = {
            "name": "s",
            "sources": {"path": str(folder / "catalogue.parquet")},
            "cutouts": written.options,
            "ensemble": str(toy_models.make_ensemble(folder, bands=BANDS, size=SIDE)),
            "candidates": {"top": 1},
            "output": str(folder / "run"),
        }
        check_survey(parse_survey(survey, str(written.base)))

    check(table)
    assert {need.field for need in reader.needs} >= {f"cutouts.zero_point.{key}"}
    spec = replace(SPEC, zero_point_mag=ZERO_POINT)
    for need in reader.needs:
        if need.name == "object_id" and need.kind is Kind.NAME:
            continue  # what an identifier may be, the catalogue's own keys say
        place = table.column_names.index(need.name)
        unfit = table.set_column(place, need.name, pa.array(UNFIT[need.kind]))
        told = rf"{need.field}: expected {need.kind} in column {need.name}, found "
        with pytest.raises(InputError, match=told):
            check(unfit)
        with pytest.raises(HopelessError):
            reader.read(unfit, [spec])


def test_flux_beyond_any_sky_is_a_bad_pixel(build: Build) -> None:
    stamps = plain_stamps()
    stamps[3] *= np.float32(1e30)
    stamps[4, 0, 2, 2] = -1e30
    stamps[8, 1, 5, 5] = 2e8  # ten times more at the model's zero point
    stamps[9, 1, 5, 5] = 0.9e8
    written = build(Sky(stamps))
    batch = _read(written)
    assert _failures(batch) == {3: Reason.BAD_PIXELS}
    _expect_rest_intact(batch, stamps, (3, 4, 8))
    flags = dict(zip(batch.rows.tolist(), batch.flags.tolist(), strict=True))
    assert (flags[4], flags[8]) == (Flag.NAN_FILLED, Flag.NAN_FILLED)
    assert np.abs(np.delete(batch.images["image"], 8, axis=0)).max() < 200.0
    counts = _read(written, replace(SPEC, zero_point_mag=None))
    assert _failures(counts) == {3: Reason.BAD_PIXELS}
    assert counts.images["image"][7, 1, 5, 5] == np.float32(2e8)


def test_a_zero_point_that_makes_absurd_fluxes_is_told_by_its_pixels(build: Build) -> None:
    stamps = plain_stamps()
    stamps[:, :, 0, 0] = 0.0
    far = {"zero_point": {"constant": -55.0}}
    batch = _read(build(Sky(stamps, options=far)), replace(SPEC, zero_point_mag=55.0))
    assert _failures(batch) == dict.fromkeys(range(SOURCES), Reason.BAD_PIXELS)


def test_sizes_are_checked(build: Build) -> None:
    written = build(Sky(plain_stamps()))
    reader = written.open()
    if next(iter(reader.describe().values())).size_pixels is None:
        reader.check([replace(SPEC, size_pixels=SIDE - 2)])
        return
    with pytest.raises(InputError, match=r"crop: true"):
        reader.check([replace(SPEC, size_pixels=SIDE - 2)])
    with pytest.raises(InputError, match="at least"):
        reader.check([replace(SPEC, size_pixels=SIDE + 2)])


def test_an_unknown_option_is_refused(build: Build) -> None:
    options = {**build(Sky(plain_stamps())).options, "colour": "red"}
    model = cutouts.options_model(options["reader"])
    with pytest.raises(ValidationError):
        model.model_validate(options)
    survey = {
        "name": "s",
        "sources": {"path": "x"},
        "cutouts": options,
        "ensemble": "e",
        "candidates": {"top": 1},
    }
    with pytest.raises(InputError, match=r"cutouts\.colour: expected a known key"):
        parse_survey(survey, ".")


def test_an_empty_table_gives_an_empty_batch(build: Build) -> None:
    written = build(Sky(plain_stamps()))
    reader = written.open()
    batch = reader.read(written.table.slice(0, 0), [SPEC])
    assert (batch.requested, len(batch), len(batch.failures)) == (0, 0, 0)
    assert batch.images["image"].shape == (0, *SPEC.shape)
    assert len(reader.locality(written.table.slice(0, 0))) == 0


def test_localities_say_which_sources_have_pixels(build: Build) -> None:
    written = build(Sky(plain_stamps()))
    locality = written.open().locality(written.table)
    assert locality.dtype == np.int64
    assert (locality >= 0).all()
    assert np.array_equal(locality, written.open().locality(written.table))


def test_sources_without_pixels_are_not_found(build: Build) -> None:
    written = build(Sky(plain_stamps()))
    strange = written.table.set_column(
        0, "object_id", pa.array(np.arange(SOURCES) + np.where(np.arange(SOURCES) == 3, 10**6, 0))
    )
    dec = np.where(np.arange(SOURCES) == 3, 45.0, written.table["dec"].to_numpy())
    strange = strange.set_column(strange.column_names.index("dec"), "dec", pa.array(dec))
    batch = written.open().read(strange, [SPEC])
    assert _failures(batch) == {3: Reason.NOT_FOUND}


@pytest.mark.parametrize("name", READERS)
def test_any_rows_in_any_order_come_exactly_once(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stamps = plain_stamps()
    stamps[5] = np.nan
    written = BUILDERS[name](tmp_path_factory.mktemp(name), Sky(stamps))
    reader = written.open()

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, SOURCES - 1), max_size=30))
    def check(rows: list[int]) -> None:
        batch = reader.read(written.table.take(pa.array(rows, pa.int64())), [SPEC])
        asked = np.array(rows, np.int64)
        assert batch.requested == len(rows)
        assert [f.row for f in batch.failures] == np.flatnonzero(asked == 5).tolist()
        np.testing.assert_array_equal(
            batch.images["image"], stamps[asked[batch.rows]] * np.float32(10.0)
        )

    check()


def test_threads_share_a_reader(build: Build) -> None:
    stamps = plain_stamps()
    stamps[5] = np.nan
    written = build(Sky(stamps))
    reader = written.open()
    rng = np.random.default_rng(3)
    orders = [rng.permutation(SOURCES) for _ in range(24)]

    def read(order: Any) -> CutoutBatch:
        return reader.read(written.table.take(pa.array(order)), [SPEC])

    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(read, orders))
    for order, batch in zip(orders, batches, strict=True):
        assert len(batch) == SOURCES - 1
        np.testing.assert_array_equal(
            batch.images["image"], stamps[order[batch.rows]] * np.float32(10.0)
        )

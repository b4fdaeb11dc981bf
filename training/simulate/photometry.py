"""The training set of the photometry network: magnitudes with their errors, lens or not.

The same population and the same noise as the simulated sky, without pixels; and real luminous red
galaxies as they are (label 0) and with the light of lensed sources added (label 1). Only rows that
a survey's cuts would let through are kept, since the network sees no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float64, Int64
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from lenspipe.errors import InputError
from lenspipe.healpix import healpix_29
from lenspipe.problems import first_problem
from training.simulate import colours
from training.simulate.catalogue import JITTER_COLOUR, JITTER_MAG
from training.simulate.instrument import Instrument, load_grids
from training.simulate.measurement import (
    Depth,
    depth,
    flux,
    flux_error,
    kron,
    magnitude_error,
    psf_minus_kron,
)
from training.simulate.observe import draw_conditions
from training.simulate.population import assign_kinds, draw
from training.simulate.real import data_folder

LRG_TABLE = "catalogues/sdss_lrg_ps1_gri_150k.parquet"
# Whose g, r, i the table has.
_MEASURED_WITH = "ps1"
# Positions are put on one side by cells of this order: 0.86 arcmin.
CELL_ORDER = 12
# Which real galaxies a set may hold. Eighths of the sky's cells: half train.
Side = Literal["training", "validation", "calibration", "held_out"]
SIDES: tuple[Side, ...] = get_args(Side)
_SIDE_OF_EIGHTH = np.array([0, 0, 0, 0, 1, 2, 3, 3])
# Share of a lensed source's light that a PSF-like magnitude of its host takes in.
ARC_SHARE = (0.3, 1.0)
# PS1 magnitudes beyond this are fits to nothing.
FAINTEST_REAL_MAG = 25.0
IMAGES = 64

Columns = dict[str, Any]


class PhotometryBlock(BaseModel):
    """What a recipe says of the set.

    sources: simulated non-lenses before cuts; lenses: simulated lenses before cuts, jittered
    copies of `drawn_lenses` distinct ones. data: folder of the real data; none: simulation only.
    lrg_rows: real galaxies taken at most (each also once as a lens); side: which of them.
    i_mag_below, colour: the survey's cuts, with a little room, in the red one of cut_bands and in
    the blue one less the red one; extendedness is measured in the red one. bands: of the
    instrument, None for its default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    seed: int = Field(ge=0)
    instrument: str = "ps1"
    bands: tuple[str, ...] | None = None
    cut_bands: tuple[str, str] = ("g", "i")
    sources: PositiveInt = 120_000
    lenses: PositiveInt = 20_000
    drawn_lenses: PositiveInt = 600
    data: str | None = "../shared/data"
    lrg_rows: int = Field(default=20_000, ge=0)
    side: Side = "training"
    i_mag_below: float = 21.7
    colour: tuple[float, float] = (1.1, 3.7)
    psf_minus_kron_above: float = 0.03

    @model_validator(mode="after")
    def _cuts(self) -> PhotometryBlock:
        if self.colour[0] >= self.colour[1]:
            raise ValueError(f"expected colour with the smaller end first, found {self.colour}")
        if self.cut_bands[0] == self.cut_bands[1]:
            raise ValueError(f"expected cut_bands of two bands, found {self.cut_bands}")
        return self


def make_photometry(recipe_block: Mapping[str, Any], out: Path) -> Path:
    """Write the set as Parquet: `{band}_mag`, `{band}_mag_err` (NaN: not measured), `label`,
    `kind`, `origin` (simulated or sdss_lrg). InputError names a key that is wrong.

    The file's metadata says what the rows rest on: `drawn_lenses`, `real_galaxies` (distinct rows
    of the table of real galaxies), `table` and `side`.
    """
    block = parse_block(recipe_block)
    survey, path = Survey.of(block), _table_of_galaxies(block)
    tables = [simulated(block, survey)]
    if path is not None:
        tables.append(real(block, survey, pq.read_table(path)))
    table = pa.concat_tables(tables)
    order = np.random.default_rng([block.seed, 9]).permutation(len(table))
    behind = {
        "drawn_lenses": str(block.drawn_lenses),
        "real_galaxies": str(table["kind"].to_pylist().count("lrg")),
        "side": block.side,
        "table": Path(LRG_TABLE).stem,
    }
    pq.write_table(table.take(order).replace_schema_metadata(behind), out, compression="zstd")
    return out


def parse_block(content: Mapping[str, Any]) -> PhotometryBlock:
    """The block `simulate` of a recipe file. InputError names the key that is wrong."""
    try:
        return PhotometryBlock.model_validate(dict(content))
    except ValidationError as error:
        raise first_problem(error, "simulate") from error


def _table_of_galaxies(block: PhotometryBlock) -> Path | None:
    """Where the real galaxies are, None where none is asked for; InputError: they are not there."""
    folder = data_folder(block.data) if block.lrg_rows else None
    if folder is None:
        return None
    if not (folder / LRG_TABLE).is_file():
        expected = f"0, or {LRG_TABLE} in {folder}"
        raise InputError("simulate.lrg_rows", expected, f"{block.lrg_rows} and no such file")
    return folder / LRG_TABLE


@dataclass(frozen=True)
class Survey:
    """The grids of an instrument, whose bands a catalogue has side by side."""

    grids: tuple[Instrument, ...]

    @classmethod
    def of(cls, block: PhotometryBlock) -> Survey:
        """The survey of a block. InputError: a band that is to be cut on is not there."""
        survey = cls(tuple(load_grids(block.instrument, block.bands).values()))
        if not set(block.cut_bands) <= set(survey.bands):
            found = ", ".join(block.cut_bands)
            raise InputError("simulate.cut_bands", f"two of {', '.join(survey.bands)}", found)
        return survey

    @property
    def bands(self) -> tuple[str, ...]:
        """All bands."""
        return tuple(self.grids[0].filters)


def simulated(block: PhotometryBlock, survey: Survey) -> pa.Table:
    """Rows of simulated sources that pass the cuts."""
    rng = np.random.default_rng([block.seed, 1])
    others = _true_values(block, survey, assign_kinds(rng, block.sources, 0), stream=2)
    lenses = _true_values(block, survey, ["lens"] * block.drawn_lenses, stream=3)
    copies = jittered(rng, lenses, block.lenses, survey.bands)
    true = {name: np.concatenate([others[name], copies[name]]) for name in others}
    measured = measure(rng, survey, true, block.cut_bands[1])
    kind = np.asarray(true["kind"], dtype=str)
    kept = within_cuts(block, measured) & (measured["extendedness"] > block.psf_minus_kron_above)
    return _table(measured, survey.bands, kind, "simulated", kept)


def _true_values(block: PhotometryBlock, survey: Survey, kinds: list[str], stream: int) -> Columns:
    scenes = [
        draw(np.random.default_rng([block.seed, stream, number]), kind, survey.grids[0])
        for number, kind in enumerate(kinds)
    ]
    values: Columns = {
        band: np.array([scene.magnitudes[band] for scene in scenes]) for band in survey.bands
    }
    values["radius"] = np.array([scene.half_light_radius_arcsec for scene in scenes])
    for band in survey.bands:
        values[f"arc_{band}"] = np.array(
            [scene.truth.get(f"arc_mag_{band}", np.inf) for scene in scenes]
        )
    values["kind"] = np.array(kinds, dtype=object)
    return values


def jittered(
    rng: np.random.Generator, values: Columns, count: int, bands: tuple[str, ...]
) -> Columns:
    """`count` rows like those of `values`, brightness and colours shifted a little."""
    pick = rng.integers(0, len(values["kind"]), size=count)
    copies = {name: column[pick] for name, column in values.items()}
    grey = JITTER_MAG * rng.standard_normal(count)
    for band in bands:
        copies[band] = copies[band] + grey + JITTER_COLOUR * rng.standard_normal(count)
    return copies


def _depths(rng: np.random.Generator, survey: Survey, count: int) -> dict[str, Depth]:
    found: dict[str, Depth] = {}
    for grid in survey.grids:
        conditions = [draw_conditions(rng, grid) for _ in range(IMAGES)]
        image = rng.integers(0, IMAGES, size=count)
        found |= {band: depth(grid, conditions, k, image) for k, band in enumerate(grid.bands)}
    return found


def measure(rng: np.random.Generator, survey: Survey, true: Columns, red: str) -> Columns:
    """Kron-like magnitudes, errors, and PSF minus Kron magnitude in `red` (`extendedness`)."""
    depths = _depths(rng, survey, len(true["radius"]))
    measured: Columns = {}
    for band in survey.bands:
        magnitude, error = kron(rng, true[band], true["radius"], depths[band])
        measured[f"{band}_mag"], measured[f"{band}_mag_err"] = magnitude, error
    measured["extendedness"] = psf_minus_kron(
        rng, true["radius"], measured[f"{red}_mag_err"], depths[red]
    )
    return measured


def within_cuts(block: PhotometryBlock, measured: Columns) -> Bool[np.ndarray, " n"]:
    """Rows bright and red enough; False where a magnitude is missing."""
    blue, red = (measured[f"{band}_mag"] for band in block.cut_bands)
    low, high = block.colour
    colour = blue - red
    return np.asarray((red < block.i_mag_below) & (colour > low) & (colour < high))


def sides(
    ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Index in `SIDES` of real galaxies by position: a half trains, an eighth each is kept for
    stopping the training and for thresholds, a quarter for judging. Whole cells of `CELL_ORDER`,
    so that rows that repeat a position stay together."""
    cells = (healpix_29(ra_deg, dec_deg) >> (2 * (29 - CELL_ORDER))).astype(np.uint64)
    # Multiplicative hash: neighbouring cells fall on any side.
    mixed = cells * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(_SIDE_OF_EIGHTH[(mixed >> np.uint64(61)).astype(np.int64)])


def real(block: PhotometryBlock, survey: Survey, lrgs: pa.Table) -> pa.Table:
    """Real luminous red galaxies as they are, and the same with lensed light added."""
    rng = np.random.default_rng([block.seed, 4])
    side = sides(lrgs["ra"].to_numpy(), lrgs["dec"].to_numpy())
    rows = np.flatnonzero(side == SIDES.index(block.side))
    rows = np.sort(rng.permutation(rows)[: block.lrg_rows])
    magnitudes = _in_bands(block, survey, lrgs.take(rows))
    arcs = _true_values(block, survey, ["lens"] * block.drawn_lenses, stream=3)
    depths = _depths(rng, survey, len(rows))
    if block.instrument != _MEASURED_WITH:
        magnitudes = _noisy(block, magnitudes, depths)
    as_they_are = _real_columns(magnitudes, depths)
    lensed = _real_columns(_with_arcs(rng, magnitudes, arcs), depths)
    return pa.concat_tables(
        _table(
            measured,
            survey.bands,
            np.full(len(rows), kind),
            "sdss_lrg",
            within_cuts(block, measured),
        )
        for measured, kind in ((as_they_are, "lrg"), (lensed, "lens"))
    )


def _in_bands(block: PhotometryBlock, survey: Survey, lrgs: pa.Table) -> Columns:
    """Magnitudes of real galaxies in the survey's bands: the table's where it has them, else those
    of the spectrum that has the table's g, r, i at its redshift."""
    g, r, i = (lrgs[f"ps1_{band}_mag"].to_numpy().astype(np.float64) for band in "gri")
    measured = {"g": g, "r": r, "i": i} if block.instrument == _MEASURED_WITH else {}
    missing = {b: f for b, f in survey.grids[0].filters.items() if b not in measured}
    if not missing:
        return {band: measured[band] for band in survey.bands}
    rng = np.random.default_rng([block.seed, 5])
    redshift = lrgs["redshift"].to_numpy()
    drawn = [
        colours.of_measured(rng, "passive", z, (g_r, r_i), missing)
        for z, g_r, r_i in zip(redshift, g - r, r - i, strict=True)
    ]
    found = {band: i + np.array([colour[band] for colour in drawn]) for band in missing}
    return {band: (measured | found)[band] for band in survey.bands}


def _noisy(block: PhotometryBlock, magnitudes: Columns, depths: Mapping[str, Depth]) -> Columns:
    """What a survey measures of point sources that Pan-STARRS measured: its own noise on top."""
    rng = np.random.default_rng([block.seed, 6])
    return {
        band: kron(rng, values, np.zeros(len(values)), depths[band])[0]
        for band, values in magnitudes.items()
    }


def _with_arcs(rng: np.random.Generator, magnitudes: Columns, arcs: Columns) -> Columns:
    count = len(next(iter(magnitudes.values())))
    pick = rng.integers(0, len(arcs["kind"]), size=count)
    share = rng.uniform(*ARC_SHARE, size=count)
    return {
        band: -2.5 * np.log10(flux(magnitudes[band]) + share * flux(arcs[f"arc_{band}"][pick]))
        for band in magnitudes
    }


def _real_columns(magnitudes: Columns, depths: Mapping[str, Depth]) -> Columns:
    """Magnitudes whose noise is in them, with errors of the survey's depth."""
    measured: Columns = {}
    for band, values in magnitudes.items():
        seen = np.where(values < FAINTEST_REAL_MAG, values, np.nan)
        measured[f"{band}_mag"] = seen
        measured[f"{band}_mag_err"] = error_of(seen, depths[band])
    return measured


def error_of(magnitude: Float64[np.ndarray, " n"], depths: Depth) -> Float64[np.ndarray, " n"]:
    """Error that a point source of this magnitude is measured with."""
    true_flux = flux(magnitude)
    return magnitude_error(true_flux, flux_error(true_flux, np.zeros(len(magnitude)), depths))


def _table(
    measured: Columns,
    bands: tuple[str, ...],
    kind: np.ndarray,
    origin: str,
    kept: Bool[np.ndarray, " n"],
) -> pa.Table:
    columns = {
        name: measured[name][kept].astype(np.float32)
        for band in bands
        for name in (f"{band}_mag", f"{band}_mag_err")
    }
    label = (kind[kept] == "lens").astype(np.uint8)
    source = pa.array([origin] * int(kept.sum()), pa.string())
    return pa.table({**columns, "label": label, "kind": kind[kept].tolist(), "origin": source})

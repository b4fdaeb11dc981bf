"""The simulated sky's two tables: what is true, and what the survey's catalogue says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from training.simulate import catalogue, field
from training.simulate.catalogue import Sources
from training.simulate.instrument import Instrument
from training.simulate.measurement import depth
from training.simulate.paint_field import CATALOGUE, Painted, Part, generator, observation_of
from training.simulate.tile_pixels import Observation
from training.simulate.tiles import Mosaic

FRAME_S = 45.0
# Brighter than this in any band, the PSF's core is past full well.
SATURATED_MAG = 13.6


def truth_table(mosaic: Mosaic, parts: Sequence[Part], painted: Sequence[Painted]) -> pa.Table:
    """One row per imaged source in the order of the parts; NaN where a number has no meaning."""
    rows = [row for part in painted for row in part.truth]
    names = sorted({name for row in rows for name in row} - {"kind"})
    ra, dec = mosaic.sky(
        np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])
    )
    columns = {
        name: np.array([row.get(name, np.nan) for row in rows], np.float64) for name in names
    }
    tile = np.repeat([part.tile_number for part in parts], [len(part.kinds) for part in parts])
    kind = [str(row["kind"]) for row in rows]
    return pa.table({"ra": ra, "dec": dec, "kind": kind, "tile": tile, **columns})


def write_catalogue(
    out: Path, truth: pa.Table, *, seed: int, rows: int, mosaic: Mosaic, instrument: Instrument
) -> None:
    """`catalogue/` with `rows` rows, those of `truth` among them, and `truth.parquet`."""
    rng = generator(seed, CATALOGUE)
    home = truth["tile"].to_numpy()
    observations = [
        observation_of(seed, number, instrument) for number in range(int(home.max()) + 1)
    ]
    imaged = _imaged(truth, instrument, observations, home)
    count = rows - len(imaged)
    density = len(imaged) / (mosaic.shape[0] * mosaic.shape[1])
    rest = catalogue.elsewhere(rng, imaged, field.around(rng, mosaic, count, density))
    sources = catalogue.joined([imaged, rest])
    tile = np.append(home, rng.integers(0, len(observations), size=count))
    conditions = [observation.conditions for observation in observations]
    depths = {
        band: depth(instrument, conditions, k, tile) for k, band in enumerate(instrument.bands)
    }
    ids = catalogue.number(sources)
    table = catalogue.table(sources, catalogue.photometry(rng, sources, depths), ids)
    catalogue.write_partitions(table, out / "catalogue")
    truth = truth.add_column(0, "object_id", pa.array(ids[: len(imaged)]))
    pq.write_table(truth.sort_by("object_id"), out / "truth.parquet", compression="zstd")


def _imaged(
    truth: pa.Table,
    instrument: Instrument,
    observations: Sequence[Observation],
    home: Int64[np.ndarray, " n"],
) -> Sources:
    frames = np.array([round(o.exposures[-1].exptime_s / FRAME_S) for o in observations])
    magnitudes = {band: truth[f"{band}_true_mag"].to_numpy() for band in instrument.bands}
    return Sources(
        ra=truth["ra"].to_numpy(),
        dec=truth["dec"].to_numpy(),
        magnitudes=magnitudes,
        half_light_radius_arcsec=truth["half_light_radius_arcsec"].to_numpy(),
        frames=frames[home],
        saturated=np.min(list(magnitudes.values()), axis=0) < SATURATED_MAG,
    )

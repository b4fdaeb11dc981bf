"""The survey's catalogue as rows: photometry of every source, in HEALPix-partitioned Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.pixel_math.spatial_index import compute_spatial_index
from jaxtyping import Bool, Float64, Int64

from training.simulate.measurement import Depth, kron, psf_minus_kron

NOT_MEASURED = -999.0
PARTITION_ORDER = 7
ROW_GROUP_ROWS = 4096
FIRST_ID = 100_000_000_001
# One band of so many rows was not measured at all, as at chip gaps.
UNMEASURED_FRACTION = 0.004
# Rows of the wider catalogue are these of the tiles, with magnitude and colour jittered (mag).
JITTER_MAG = 0.15
JITTER_COLOUR = 0.04

Magnitudes = Mapping[str, Float64[np.ndarray, " n"]]


@dataclass(frozen=True)
class Sources:
    """What is true of sources: position, total AB magnitude per band, size.

    frames: exposures of the coadd at the source's place, 0 where no pixels are there.
    saturated: too bright for a PSF magnitude.
    """

    ra: Float64[np.ndarray, " n"]
    dec: Float64[np.ndarray, " n"]
    magnitudes: Magnitudes
    half_light_radius_arcsec: Float64[np.ndarray, " n"]
    frames: Int64[np.ndarray, " n"]
    saturated: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.ra)


def elsewhere(
    rng: np.random.Generator,
    like: Sources,
    sky: tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]],
) -> Sources:
    """Sources of the same population at other places, where there are no pixels."""
    count = len(sky[0])
    pick = rng.integers(0, len(like), size=count)
    grey = JITTER_MAG * rng.standard_normal(count)
    magnitudes = {
        band: values[pick] + grey + JITTER_COLOUR * rng.standard_normal(count)
        for band, values in like.magnitudes.items()
    }
    return Sources(
        *sky,
        magnitudes,
        like.half_light_radius_arcsec[pick],
        np.zeros(count, dtype=np.int64),
        like.saturated[pick],
    )


def photometry(
    rng: np.random.Generator, sources: Sources, depths: Mapping[str, Depth]
) -> dict[str, Float64[np.ndarray, " n"]]:
    """Columns `{band}_mag`, `{band}_mag_err`, `i_kron_mag`, `i_psf_mag`; -999: not measured."""
    columns: dict[str, Float64[np.ndarray, " n"]] = {}
    radius = sources.half_light_radius_arcsec
    for band, truth in sources.magnitudes.items():
        magnitude, error = kron(rng, truth, radius, depths[band])
        lost = rng.random(len(sources)) < UNMEASURED_FRACTION
        columns[f"{band}_mag"] = np.where(lost, np.nan, magnitude)
        columns[f"{band}_mag_err"] = np.where(lost, np.nan, error)
    difference = psf_minus_kron(rng, radius, columns["i_mag_err"], depths["i"])
    columns["i_kron_mag"] = columns["i_mag"]
    columns["i_psf_mag"] = np.where(sources.saturated, np.nan, columns["i_kron_mag"] + difference)
    return {name: np.nan_to_num(values, nan=NOT_MEASURED) for name, values in columns.items()}


def joined(parts: Sequence[Sources]) -> Sources:
    """Several lists of sources as one."""
    return Sources(
        ra=np.concatenate([p.ra for p in parts]),
        dec=np.concatenate([p.dec for p in parts]),
        magnitudes={
            band: np.concatenate([p.magnitudes[band] for p in parts])
            for band in parts[0].magnitudes
        },
        half_light_radius_arcsec=np.concatenate([p.half_light_radius_arcsec for p in parts]),
        frames=np.concatenate([p.frames for p in parts]),
        saturated=np.concatenate([p.saturated for p in parts]),
    )


def table(
    sources: Sources, columns: Mapping[str, Float64[np.ndarray, " n"]], ids: Int64[np.ndarray, " n"]
) -> pa.Table:
    """The catalogue as Arrow, in the order of `sources`."""
    return pa.table(
        {
            "object_id": ids,
            "ra": sources.ra,
            "dec": sources.dec,
            **{name: values.astype(np.float32) for name, values in columns.items()},
            "n_frames": sources.frames.astype(np.int16),
        }
    )


def number(sources: Sources) -> Int64[np.ndarray, " n"]:
    """Ids in the order of the HEALPix index, so that they say nothing of how rows were made."""
    order = np.argsort(compute_spatial_index(sources.ra, sources.dec), kind="stable")
    ids = np.empty(len(sources), dtype=np.int64)
    ids[order] = FIRST_ID + np.arange(len(sources))
    return ids


def write_partitions(catalogue: pa.Table, folder: Path) -> list[Path]:
    """One file per HEALPix pixel of order 7 with row groups of 4,096 rows; sorted by the index."""
    folder.mkdir(parents=True, exist_ok=True)
    catalogue = catalogue.sort_by("object_id")
    index = compute_spatial_index(catalogue["ra"].to_numpy(), catalogue["dec"].to_numpy())
    pixels = index >> (2 * (29 - PARTITION_ORDER))
    paths = []
    for pixel in np.unique(pixels):
        path = folder / f"npix-{pixel}.parquet"
        pq.write_table(
            catalogue.filter(pa.array(pixels == pixel)),
            path,
            compression="zstd",
            row_group_size=ROW_GROUP_ROWS,
        )
        paths.append(path)
    return paths

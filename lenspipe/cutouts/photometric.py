"""One photometric zero point for all pixels: flux_out = flux_in * 10^(0.4 (zp_out - zp_in)).

A zero point is the AB magnitude of one flux unit. What brings in a zero point is the survey
file's `zero_point` block; a value that is missing or absurd makes the row a failure.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64

from lenspipe.cutouts.base import ZeroPoint
from lenspipe.cutouts.columns import Kind, NeededColumn
from lenspipe.errors import HopelessError, InputError

# Flux in erg/s/cm2/Hz has -48.6, maggies 0, PS1 stacks about 33: -999 and the like are refused.
_LARGEST_ZERO_POINT_MAG = 60.0


def header_card(zero_point: ZeroPoint | None) -> str | None:
    """The FITS card that holds the zero point or the exposure time, if one does."""
    if zero_point is None:
        return None
    return zero_point.header or zero_point.exptime_header


def needed_columns(
    zero_point: ZeroPoint | None, bands: tuple[str, ...]
) -> tuple[NeededColumn, ...]:
    """Catalogue columns that the zero points of `bands` come from."""
    template = _column(zero_point)
    if zero_point is None or template is None:
        return ()
    key = "column" if zero_point.column else "exptime_column"
    names = dict.fromkeys(template.replace("{band}", band) for band in bands)
    return tuple(NeededColumn(f"cutouts.zero_point.{key}", name, Kind.NUMBER) for name in names)


def _column(zero_point: ZeroPoint | None) -> str | None:
    if zero_point is None:
        return None
    return zero_point.column or zero_point.exptime_column


def column_values(sources: pa.Table, name: str) -> Float64[np.ndarray, " n"]:
    """A catalogue column as float64, NaN where null. HopelessError where it is none of numbers."""
    if name not in sources.column_names:
        raise HopelessError(f"catalogue column {name}", "a column of numbers", "no such column")
    if not Kind.NUMBER.holds(kind := sources[name].type):
        raise HopelessError(f"catalogue column {name}", "a column of numbers", kind)
    return np.asarray(pc.cast(sources[name], pa.float64()).to_numpy(), dtype=np.float64)


def zero_points(
    zero_point: ZeroPoint, band: str, sources: pa.Table, cards: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Zero point (mag) of one band of every source, NaN where it is missing or absurd.

    cards: values of `header_card` where that is where it comes from, NaN elsewhere.
    """
    template = _column(zero_point)
    if template is not None:
        values = column_values(sources, template.replace("{band}", band))
    elif zero_point.constant is not None:
        values = np.full(sources.num_rows, constant_of(zero_point, band))
    else:
        values = cards
    if zero_point.exptime_header or zero_point.exptime_column:
        with np.errstate(divide="ignore", invalid="ignore"):
            values = zero_point.base_mag + 2.5 * np.log10(values)
    good = np.isfinite(values) & (np.abs(values) <= _LARGEST_ZERO_POINT_MAG)
    return np.where(good, values, np.nan)


def constant_of(zero_point: ZeroPoint, band: str) -> float:
    """The constant of a band. InputError where the mapping lacks it."""
    constant = zero_point.constant
    if isinstance(constant, dict):
        if band not in constant:
            raise InputError(f"cutouts.zero_point.constant.{band}", "a zero point (mag)", "none")
        return constant[band]
    if constant is None:
        raise InputError("cutouts.zero_point.constant", "a zero point (mag)", "none")
    return constant


def factors(
    zero_points_mag: Float64[np.ndarray, " n"], target_mag: float
) -> Float64[np.ndarray, " n"]:
    """What flux must be multiplied by to stand at `target_mag`."""
    return np.asarray(10.0 ** (0.4 * (target_mag - zero_points_mag)))

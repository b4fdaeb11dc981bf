"""What stage `select` did with the catalogue's sources near some positions, asked afterwards.

Positions of the catalogue are read, and only in row groups that may hold one that is asked for; the
cuts are applied again to the few rows that are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from lenspipe.errors import InputError
from lenspipe.select.measured import RESERVED
from lenspipe.select.parquet_file import footer
from lenspipe.select.plan import SelectPlan
from lenspipe.select.sources import FileSlice, SourcePart, read_part
from lenspipe.sky import pairs_within

# `failed`: neither cut nor rejected; its failure tells no position.
Left = Literal["cut", "rejected", "failed", "not_selected"]


@dataclass(frozen=True)
class Removed:
    """Where a source left the line. object_id, separation_arcsec: None where the catalogue could
    not be read, `left` being `not_selected`. reason: the cut's name, or what could not be read."""

    object_id: Any
    separation_arcsec: float | None
    left: Left
    reason: str | None


@dataclass(frozen=True)
class Lookup:
    """Asks a catalogue, planned as `parts`, by the plan of stage `select`."""

    parts: Sequence[SourcePart]
    plan: SelectPlan

    def __call__(
        self,
        ra_deg: Float64[np.ndarray, " n"],
        dec_deg: Float64[np.ndarray, " n"],
        radius_arcsec: float,
    ) -> list[Removed | None]:
        """For each position (ICRS) the nearest source of the catalogue within a radius and where
        it left; None where the catalogue has none. For sources that are neither scored nor failed.

        Storage that fails raises its own error; a file that is damaged or changed is passed over,
        and told of the positions without a source.
        """
        found: list[Removed | None] = [None] * len(ra_deg)
        nearest = np.full(len(ra_deg), np.inf)
        unread: str | None = None
        for part in self.parts:
            try:
                near = self._near(part, ra_deg, dec_deg, radius_arcsec)
                for position, row, far in near:
                    if far < nearest[position]:
                        nearest[position] = far
                        found[position] = self._left(row, far)
            except InputError as error:
                unread = str(error)
        if unread is None:
            return found
        lost = Removed(None, None, "not_selected", unread)
        return [lost if removed is None else removed for removed in found]

    def _near(
        self,
        part: SourcePart,
        ra: Float64[np.ndarray, " n"],
        dec: Float64[np.ndarray, " n"],
        radius_arcsec: float,
    ) -> Iterator[tuple[int, pa.Table, float]]:
        """(position, the source's row, separation) of the nearest source of a part, where there is
        one."""
        held = SourcePart(0, tuple(self._slices(part, ra, dec, radius_arcsec)))
        if not held.slices:
            return
        table = read_part(held, self.plan.view, ["ra", "dec"])
        at_ra, at_dec = (_degrees(table[name]) for name in ("ra", "dec"))
        rows, positions, far = pairs_within(at_ra, at_dec, ra, dec, radius_arcsec)
        order = np.lexsort((far, positions))
        _, first = np.unique(positions[order], return_index=True)
        best = order[first]
        if not len(best):
            return
        wanted = np.unique(rows[best])
        columns = list(dict.fromkeys([RESERVED[0], *self.plan.cuts.columns]))
        sources = read_part(held, self.plan.view, columns, rows=wanted, as_stored=True)
        at = np.searchsorted(wanted, rows[best])
        for position, row, separation in zip(positions[best], at, far[best], strict=True):
            yield int(position), sources.slice(int(row), 1), float(separation)

    def _slices(
        self,
        part: SourcePart,
        ra: Float64[np.ndarray, " n"],
        dec: Float64[np.ndarray, " n"],
        radius_arcsec: float,
    ) -> Iterator[FileSlice]:
        """Row groups, by themselves, whose ranges of position meet one that is asked for."""
        ra_name, dec_name = (self.plan.view.stored_name(name) for name in ("ra", "dec"))
        for piece in part.slices:
            metadata, _ = footer(piece.file)
            for k, rows in enumerate(piece.group_rows):
                group = metadata.row_group(piece.first_group + k)
                box = _range(group, ra_name), _range(group, dec_name)
                if rows and _meets(box, ra, dec, radius_arcsec / 3600.0).any():
                    share = round(piece.size_bytes * rows / piece.rows)
                    yield FileSlice(piece.file, piece.first_group + k, (rows,), share)

    def _left(self, row: pa.Table, separation_arcsec: float) -> Removed:
        object_id = row[RESERVED[0]][0].as_py()
        cuts = self.plan.cuts
        if cuts.names:
            removed = cuts.apply(row.select(cuts.columns), self.plan.view.missing_values).removed
            for name, count in removed.items():
                if count.false or count.unknown:
                    told = f"{name} (a value is missing)" if count.unknown else name
                    return Removed(object_id, separation_arcsec, "cut", told)
        left: Left = "failed" if self.plan.network is None else "rejected"
        return Removed(object_id, separation_arcsec, left, None)


def _degrees(column: pa.ChunkedArray) -> Float64[np.ndarray, " n"]:
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)


def _range(group: Any, name: str) -> tuple[float, float]:
    """Smallest and largest value of a column in a row group; all where they are not told."""
    for k in range(group.num_columns):
        column = group.column(k)
        if column.path_in_schema == name:
            told = column.statistics
            if told is not None and told.has_min_max and told.min is not None:
                return float(told.min), float(told.max)
    return -np.inf, np.inf


def _meets(
    box: tuple[tuple[float, float], tuple[float, float]],
    ra: Float64[np.ndarray, " n"],
    dec: Float64[np.ndarray, " n"],
    radius_deg: float,
) -> Bool[np.ndarray, " n"]:
    """Whether a cap around each position may meet a box of ra and dec (deg); ra of the box is in
    -180..360."""
    (west, east), (south, north) = box
    # Half the width in ra of a cap: sin(width) = sin(radius) / cos(dec), all around at a pole.
    across = np.cos(np.radians(dec))
    ratio = np.sin(np.radians(radius_deg)) / np.maximum(across, 1e-12)
    width = np.where(ratio < 1.0, np.degrees(np.arcsin(np.minimum(ratio, 1.0))), 360.0) + 1e-6
    in_dec = (dec + radius_deg >= south - 1e-6) & (dec - radius_deg <= north + 1e-6)
    turns: Int64[np.ndarray, " 3 1"] = np.array([[-360], [0], [360]])
    in_ra = ((ra + turns + width >= west) & (ra + turns - width <= east)).any(axis=0)
    return np.asarray(in_dec & in_ra)

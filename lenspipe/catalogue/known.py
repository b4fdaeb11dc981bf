"""Known lenses: a list that others made, and what a run made of each of them.

A run's own measure of quality is how many of the lenses that are known in its footprint it found
again, and where it lost the others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64

from lenspipe.catalogue.cells import Cells
from lenspipe.catalogue.outside import Fields, Outside, open_outside
from lenspipe.config import KnownLenses
from lenspipe.contracts import id_field
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.healpix import healpix_29
from lenspipe.run_directory import KNOWN, RunDirectory
from lenspipe.sky import separation_deg

_POLE_DEG = 90.0
MOST_ROWS = 1_000_000  # of a list, which is in memory
FIELDS = Fields("known_lenses.path", "known_lenses.ra", "known_lenses.dec")
# Where a list says what a lens is: our column, names without capitals and what is in brackets.
_TOLD = {
    "name": ("name", "system", "lens", "lens_name", "object", "id", "object_id"),
    "type": ("type", "lens_type", "class"),
    "grade": ("grade", "grading", "quality"),
    "reference": ("ref", "reference", "references", "bibcode"),
}


def _field(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "description": description})


LISTED: tuple[pa.Field, ...] = (
    _field("name", pa.string(), "", "name of the known lens in its list"),
    _field("ra", pa.float64(), "deg", "right ascension of the known lens, ICRS"),
    _field("dec", pa.float64(), "deg", "declination of the known lens, ICRS"),
    _field("type", pa.string(), "", "kind of lens, as the list says"),
    _field("grade", pa.string(), "", "how sure it is, as the list says"),
    _field("reference", pa.string(), "", "who published it, as the list says"),
)
KNOWN_LENS = _field("known_lens", pa.string(), "", "known lenses at this position, nearest first")
FATES = {
    "candidate": "a source within the radius is a candidate",
    "below_threshold": "scored, below the threshold of candidates",
    "failed": "selected, but it has no score; `reason` as in the failures",
    "rejected": "the photometry network let it go",
    "cut": "a cut took it out; `reason` names the cut",
    "not_in_catalogue": "the survey's catalogue has no source within the radius",
    "not_selected": "neither scored nor failed; the survey's catalogue could not be asked why",
}


def known_schema(id_type: pa.DataType) -> pa.Schema:
    """Schema of `known_lenses.parquet`: one row for each known lens in the footprint."""
    return pa.schema(
        [
            *LISTED,
            _field("fate", pa.string(), "", "how far the run brought it, see docs/catalogue.md"),
            _field("reason", pa.string(), "", "why it got no farther"),
            id_field(id_type),
            _field(
                "separation_arcsec", pa.float64(), "arcsec", "from the known lens to the source"
            ),
            _field("score", pa.float32(), "", "logit of the ensemble"),
            _field("probability", pa.float32(), "", "calibrated score"),
            _field("rank", pa.int64(), "", "1 + scored sources that have a higher score"),
        ]
    )


@dataclass(frozen=True)
class KnownList:
    """A list of known lenses that was read. table: columns of `LISTED`, every row with a position.

    sha256: of its rows, so that the same list in another place is the same.
    """

    table: pa.Table
    radius_arcsec: float
    sha256: str


def read_list(options: KnownLenses, base: str) -> KnownList:
    """Read what the survey file names; InputError with the key that is wrong, StoppedError or
    OutageError where the storage fails. Rows without a position are left out."""
    outside = open_outside(options.path, options.ra, options.dec, base, FIELDS)
    columns = _columns(outside, options.name)
    tables, rows = [], 0
    for slab in outside.slabs():
        rows += slab.num_rows
        if rows > MOST_ROWS:
            raise InputError(FIELDS.path, f"a list of at most {MOST_ROWS:,} lenses", "more")
        tables.append(_listed(slab, outside, columns))
    table = pa.concat_tables([pa.schema(LISTED).empty_table(), *tables]).combine_chunks()
    digest = hashlib.sha256(json.dumps(table.to_pydict(), sort_keys=True).encode())
    return KnownList(table, options.radius_arcsec, digest.hexdigest())


def _columns(outside: Outside, name: str | None) -> dict[str, str | None]:
    """Our column -> the list's, None where it has none."""
    plain = {n.lower().partition("[")[0].strip(): n for n in reversed(outside.schema.names)}
    found = {
        ours: next((plain[usual] for usual in names if usual in plain), None)
        for ours, names in _TOLD.items()
    }
    if name is not None:
        if name not in outside.schema.names:
            expected = f"one of {', '.join(outside.schema.names)}"
            raise InputError("known_lenses.name", expected, repr(name))
        found["name"] = name
    return found


def _listed(slab: pa.Table, outside: Outside, columns: dict[str, str | None]) -> pa.Table:
    ra, dec = outside.position(slab)
    values: dict[str, Any] = {"ra": pa.array(ra), "dec": pa.array(dec)}
    for ours, theirs in columns.items():
        values[ours] = (
            pa.nulls(slab.num_rows, pa.string()) if theirs is None else _as_text(slab[theirs])
        )
    values["name"] = pc.coalesce(values["name"], pa.array(_position_names(ra, dec), pa.string()))
    table = pa.table([values[field.name] for field in LISTED], schema=pa.schema(LISTED))
    return table.filter(pa.array(np.isfinite(ra) & np.isfinite(dec)))


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text without what a table or a page could stumble over."""
    texts = [None if v is None else " ".join(str(v).split()) or None for v in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _position_names(
    ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"]
) -> list[str | None]:
    pairs = zip(ra.tolist(), dec.tolist(), strict=True)
    there = np.isfinite(ra) & np.isfinite(dec)
    return [f"{a:.5f} {d:+.5f}" if ok else None for (a, d), ok in zip(pairs, there, strict=True)]


@dataclass(frozen=True)
class Known:
    """What a run made of the known lenses in its footprint.

    table: `known_schema`. radius_arcsec: within which a source is a lens's. listed: lenses of the
    whole list. order: HEALPix order of the cells whose sum is the footprint. identity: of what it
    was made from.
    """

    table: pa.Table
    radius_arcsec: float
    listed: int
    order: int
    list_sha256: str
    identity: str

    @property
    def in_footprint(self) -> int:
        """Known lenses in the footprint."""
        return int(self.table.num_rows)

    @property
    def scored(self) -> int:
        """Known lenses that have a score."""
        return self.in_footprint - int(self.table["score"].null_count)

    @property
    def recovered(self) -> int:
        """Known lenses that are candidates."""
        return int(pc.sum(pc.equal(self.table["fate"], "candidate")).as_py() or 0)


def write_known(run: RunDirectory, known: Known) -> None:
    """Write `known_lenses.parquet`, whole."""
    told = {
        "radius_arcsec": known.radius_arcsec,
        "listed": known.listed,
        "footprint_order": known.order,
        "list_sha256": known.list_sha256,
        "identity": known.identity,
    }
    sink = BytesIO()
    table = known.table.replace_schema_metadata({"lenspipe": json.dumps(told)})
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    run.store.write(KNOWN, sink.getvalue())


def read_known(run: RunDirectory) -> Known | None:
    """What `write_known` wrote; None where there is none. CorruptRunError where it is damaged."""
    try:
        data = run.store.read(KNOWN)
    except FileNotFoundError:
        return None
    try:
        table = pq.read_table(BytesIO(data), page_checksum_verification=True)
        told = json.loads(table.schema.metadata[b"lenspipe"])
        known = Known(
            table.replace_schema_metadata(),
            float(told["radius_arcsec"]),
            int(told["listed"]),
            int(told["footprint_order"]),
            str(told["list_sha256"]),
            str(told["identity"]),
        )
        expected = known_schema(table.schema.field("object_id").type)
        if not known.table.schema.equals(expected):
            raise ValueError(f"columns {', '.join(table.schema.names)}")
    except Exception as error:  # Arrow, JSON and what is missing in it: bytes are at hand by now
        what = f"{KNOWN}: damaged: {type(error).__name__}: {error}"
        raise CorruptRunError(f"{what}: lenspipe run makes it anew") from error
    return known


class KnownAt:
    """The known lenses at positions, for many tables of them.

    known: a table with `ra`, `dec` and a column of text. What is in memory grows with the lenses,
    and with the rows that are asked for, not with their product.
    """

    def __init__(self, known: pa.Table, radius_arcsec: float, column: str = "name") -> None:
        ra_deg, dec_deg = (known[name].to_numpy() for name in ("ra", "dec"))
        there = np.flatnonzero(np.isfinite(ra_deg) & (np.abs(dec_deg) <= _POLE_DEG))
        self._ra_deg, self._dec_deg = ra_deg[there], dec_deg[there]
        self._texts = known[column].take(pa.array(there))
        self._radius_arcsec = radius_arcsec
        self._cells = Cells(self._ra_deg, self._dec_deg, radius_arcsec)

    def names(
        self, ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"]
    ) -> list[str | None]:
        """For each position the texts of the known lenses within the radius, the nearest first;
        `; ` between them, None where there is none."""
        there = np.flatnonzero(np.isfinite(ra_deg) & (np.abs(dec_deg) <= _POLE_DEG))
        healpix = healpix_29(ra_deg[there], dec_deg[there])
        rising = np.argsort(healpix, kind="stable")
        there, healpix = there[rising], healpix[rising]
        near: list[tuple[float, int, int]] = []
        for lenses, sources in self._cells.pairs(healpix):
            rows = there[sources]
            far = 3600.0 * separation_deg(
                self._ra_deg[lenses], self._dec_deg[lenses], ra_deg[rows], dec_deg[rows]
            )
            within = far <= self._radius_arcsec
            columns = (each[within].tolist() for each in (far, rows, lenses))
            near += zip(*columns, strict=True)
        names: dict[int, dict[str, None]] = {}
        for _, row, lens in sorted(near):
            if text := self._texts[lens].as_py():
                names.setdefault(row, {})[text] = None
        found: list[str | None] = [None] * len(ra_deg)  # nearly all sources are no lens's
        for row, told in names.items():
            found[row] = "; ".join(told)
        return found

"""Catalogues that others made, as tables of a few million rows at a time: VOTable, FITS, CSV,
Parquet and HATS."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from jaxtyping import Float64

from lenspipe.config import is_url, resolve
from lenspipe.errors import InputError
from lenspipe.storage.store import Store
from lenspipe.storage.takeable import takeable_schema

FIELD = "CATALOGUE"
SLAB_ROWS = 2_000_000
# Names of positions in degrees, without capitals and what is in brackets, in the order in which
# they are looked for.
_RA = ("ra", "raj2000", "ra_icrs", "ra_deg", "radeg", "_raj2000", "ramean", "right_ascension")
_DEC = ("dec", "decl", "dej2000", "decj2000", "de_icrs", "dec_deg", "dedeg", "decdeg", "_dej2000",
        "decmean", "declination")  # fmt: skip
_VOTABLE = (".vot", ".votable", ".xml")
_FITS = (".fits", ".fit", ".fits.gz")
_TEXT = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".parq", ".pq")


@dataclass(frozen=True)
class Outside:
    """A catalogue that was opened. ra, dec: names of its columns of degrees."""

    schema: pa.Schema
    ra: str
    dec: str
    _batches: Any

    def slabs(self, rows: int = SLAB_ROWS) -> Iterator[pa.Table]:
        """Its rows, so many at a time."""
        held: list[pa.RecordBatch] = []
        n = 0
        for batch in self._batches():
            held.append(batch)
            n += batch.num_rows
            if n >= rows:
                yield pa.Table.from_batches(held, self.schema)
                held, n = [], 0
        if held:
            yield pa.Table.from_batches(held, self.schema)

    def position(
        self, table: pa.Table
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """(ra, dec) in degrees of some rows; NaN where there is none."""
        ra, dec = (_degrees(table[name], name) for name in (self.ra, self.dec))
        return np.mod(ra, 360.0), np.where(np.abs(dec) <= 90.0, dec, np.nan)


def open_outside(path: str, ra: str | None = None, dec: str | None = None) -> Outside:
    """Open a catalogue by its suffix; a folder is Parquet, HATS or not. ra, dec: names of columns
    in degrees, found by themselves where they have a usual name.

    InputError where it cannot be read or has no positions.
    """
    schema, batches = _open(resolve(path, ".", FIELD))
    names = schema.names
    return Outside(
        schema, _column(ra, _RA, names, "--ra"), _column(dec, _DEC, names, "--dec"), batches
    )


def _open(path: str) -> tuple[pa.Schema, Any]:
    low = path.lower()
    kind = PurePosixPath(low).suffix
    try:
        if kind in _VOTABLE or low.endswith(_FITS):
            table = _by_astropy(path, "votable" if kind in _VOTABLE else "fits")
            return table.schema, table.to_batches
        if kind in _TEXT:
            return _text(path, _TEXT[kind])
        return _parquet(path, folder=kind not in _PARQUET)
    except InputError:
        raise
    except Exception as error:  # each format's library has exceptions of its own
        raise InputError(
            FIELD,
            "a VOTable, FITS, CSV, TSV or Parquet file, or a folder of Parquet",
            f"{path}: {type(error).__name__}: {error}",
        ) from error


def _by_astropy(path: str, form: str) -> pa.Table:
    from astropy.table import Table

    folder, _, name = path.rpartition("/")
    with Store(folder or "/").open(name) as file:
        table = Table.read(file, format=form)
    if form == "fits":
        table.convert_bytestring_to_unicode()
    flat = [name for name in table.colnames if table[name].ndim == 1]
    return pa.table({name: _arrow(table[name]) for name in flat})


def _arrow(column: Any) -> pa.Array:
    mask = np.ma.getmaskarray(column) if hasattr(column, "mask") else None
    values = np.asarray(column.filled() if mask is not None else column)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind in "UO":
        texts = [None if value is None else str(value) for value in values.tolist()]
        return pa.array(texts, pa.string(), mask=mask)
    return pa.array(values, mask=mask)


def _text(path: str, delimiter: str) -> tuple[pa.Schema, Any]:
    """Text is text in every row but for numbers in every row: a type is not guessed from the
    first block."""
    folder, _, name = path.rpartition("/")
    with Store(folder or "/").open(name) as file:
        lines = (line.decode("utf-8-sig") for line in file)
        rows = list(csv.reader(lines, delimiter=delimiter))
    if not rows:
        raise InputError(FIELD, "a line of names", f"{path}, which is empty")
    heading, *body = rows
    if len(set(heading)) != len(heading):
        raise InputError(FIELD, "names that differ", f"{path}: {', '.join(heading)}")
    for number, row in enumerate(body, 2):
        if len(row) != len(heading):
            found = f"{len(row)} in row {number} of {path}"
            raise InputError(FIELD, f"{len(heading)} values in each row", found)
    columns = zip(*body, strict=True) if body else ((),) * len(heading)
    table = pa.table({k: _typed(list(v)) for k, v in zip(heading, columns, strict=True)})
    return table.schema, table.to_batches


def _typed(texts: list[str]) -> pa.Array:
    known = [text if text.strip() else None for text in texts]
    for kind in (pa.int64(), pa.float64()):
        try:
            return pa.array(known, pa.string()).cast(kind)
        except pa.ArrowInvalid:
            continue
    return pa.array(known, pa.string())


def _parquet(path: str, folder: bool) -> tuple[pa.Schema, Any]:
    store = Store(path if folder else path.rpartition("/")[0] or "/")
    if folder:
        names = [n for n in store.names() if n.lower().endswith(_PARQUET)]
        if not names:
            raise InputError(
                FIELD,
                "a catalogue",
                f"no Parquet file in {path}"
                if store.exists("") or is_url(path) or Path(path).exists()
                else f"nothing at {path}",
            )
    else:
        names = [path.rpartition("/")[2]]
    paths = [store.path(name) for name in names]
    dataset = pads.dataset(paths, format="parquet", filesystem=store.arrow_filesystem())
    schema = takeable_schema(dataset.schema)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in dataset.to_batches(batch_size=65_536):
            yield batch.cast(schema)

    return schema, batches


def _column(asked: str | None, usual: tuple[str, ...], names: list[str], field: str) -> str:
    if asked is not None:
        if asked not in names:
            raise InputError(field, f"one of {', '.join(names)}", repr(asked))
        return asked
    plain = {name.lower().partition("[")[0].strip(): name for name in reversed(names)}
    found = next((plain[name] for name in usual if name in plain), None)
    if found is None:
        raise InputError(field, "the name of a column of degrees", f"columns {', '.join(names)}")
    return found


def _degrees(column: pa.ChunkedArray, name: str) -> Float64[np.ndarray, " n"]:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InputError(FIELD, f"degrees in column {name}", f"{column.type}")
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)

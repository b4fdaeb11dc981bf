"""Catalogues that others made, as tables of a few million rows at a time: VOTable, FITS, CSV,
Parquet and HATS."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from jaxtyping import Float64

from lenspipe.catalogue.columns import told as about
from lenspipe.catalogue.headings import find_column, read_heading
from lenspipe.config import is_url, resolve
from lenspipe.errors import InputError, LenspipeError, StoppedError
from lenspipe.storage.refusals import describe_refusal, is_refusal
from lenspipe.storage.remote import CredentialsError, OutageError
from lenspipe.storage.store import Store, is_damage, is_storage_fault
from lenspipe.storage.takeable import takeable_schema

# Name that stands for the list in the PyPI package of that name.
LENSCAT = "lenscat"
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
class Fields:
    """Where the user says what is opened, for errors."""

    path: str = "CATALOGUE"
    ra: str = "--ra"
    dec: str = "--dec"


@dataclass(frozen=True)
class Outside:
    """A catalogue that was opened. ra, dec: names of its columns of positions; in_degrees: what a
    value of each becomes degrees by."""

    schema: pa.Schema
    ra: str
    dec: str
    in_degrees: tuple[float, float]
    _batches: Any
    _path: str
    _fields: Fields

    def slabs(self, rows: int = SLAB_ROWS) -> Iterator[pa.Table]:
        """Its rows, so many at a time; InputError and StoppedError as in `open_outside`."""
        held: list[pa.RecordBatch] = []
        n = 0
        for batch in self._read():
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
        ra, dec = (
            factor * _numbers(table[name], name, self._fields)
            for name, factor in zip((self.ra, self.dec), self.in_degrees, strict=True)
        )
        return np.mod(ra, 360.0), np.where(np.abs(dec) <= 90.0, dec, np.nan)

    def _read(self) -> Iterator[pa.RecordBatch]:
        batches = iter(self._batches())
        while True:
            with _told(self._path, self._fields):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def open_outside(
    path: str,
    ra: str | None = None,
    dec: str | None = None,
    base: str = ".",
    fields: Fields | None = None,
) -> Outside:
    """Open a catalogue by its suffix; a folder is Parquet, HATS or not; `lenscat`, where nothing
    there has that name, is the list in the package. ra, dec: names of columns, found by themselves
    where they have a usual name; degrees, where the file tells no other unit. base: the folder that
    a relative path starts from.

    InputError where it cannot be read or has no positions; StoppedError or OutageError where it
    is the storage that fails.
    """
    fields = fields or Fields()
    place = _place(path, base, fields)
    with _told(place, fields):
        opened = _open(place, fields)
    names = opened.schema.names
    ra, dec = _column(ra, _RA, names, fields.ra), _column(dec, _DEC, names, fields.dec)
    told = ((opened.units.get(name) or read_heading(name).unit, name) for name in (ra, dec))
    across, up = (_degrees_per(unit, name, fields) for unit, name in told)
    return Outside(opened.schema, ra, dec, (across, up), opened.batches, place, fields)


def _place(path: str, base: str, fields: Fields) -> str:
    place = resolve(path, base, fields.path)
    if path != LENSCAT or is_url(place) or os.path.lexists(place):
        return place
    package = find_spec(LENSCAT)
    if package is None or not package.submodule_search_locations:
        expected = f"the package {LENSCAT} (pip install {LENSCAT}), or a path"
        raise InputError(fields.path, expected, f"neither it nor {place}")
    return str(Path(next(iter(package.submodule_search_locations)), "data", "catalog.csv"))


@contextmanager
def _told(path: str, fields: Fields) -> Iterator[None]:
    """One line for what cannot be read, whoever is at fault."""
    try:
        yield
    except LenspipeError:
        raise
    except Exception as error:  # each format's library has exceptions of its own
        if isinstance(error, OutageError) and not isinstance(error, CredentialsError):
            raise
        if _is_outage(error):
            told = f"{fields.path} {path}: {describe_refusal(error)}"
            raise StoppedError(f"{told}; once it is back, the same command works") from error
        raise InputError(
            fields.path,
            "a VOTable, FITS, CSV, TSV or Parquet file, or a folder of Parquet",
            f"{path}: {type(error).__name__}: {error}",
        ) from error


def _is_outage(error: Exception) -> bool:
    """Whether a store or a disk fails, rather than the file being gone, forbidden or damaged."""
    named = FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    status = getattr(error, "status", None)  # of a web server's refusal
    if isinstance(error, named | OutageError) or is_damage(error):
        return False
    if isinstance(status, int) and 400 <= status < 500:
        return False
    # A bare OSError may as well be about the name (too long, a loop of links).
    return is_refusal(error) if type(error) is OSError else is_storage_fault(error)


class _Opened(NamedTuple):
    """batches: makes an iterator over the rows. units: of the columns of which the file tells."""

    schema: pa.Schema
    batches: Any
    units: Mapping[str, str]


def _open(path: str, fields: Fields) -> _Opened:
    low = path.lower()
    kind = PurePosixPath(low).suffix
    if kind in _VOTABLE or low.endswith(_FITS):
        return _by_astropy(path, "votable" if kind in _VOTABLE else "fits")
    if kind in _TEXT:
        return _text(path, _TEXT[kind], fields.path)
    return _parquet(path, kind not in _PARQUET, fields.path)


def _by_astropy(path: str, form: str) -> _Opened:
    """Columns of more than one axis and of complex numbers are left out."""
    from astropy.io.votable.exceptions import VOWarning
    from astropy.table import Table
    from astropy.units import UnitsWarning

    folder, _, name = path.rpartition("/")
    with Store(folder or "/").open(name) as file, catch_warnings():
        # A unit that is none matters where it is that of a position, and is refused there.
        simplefilter("ignore", UnitsWarning)
        simplefilter("ignore", VOWarning)
        table = Table.read(file, format=form)
    if form == "fits":
        table.convert_bytestring_to_unicode()
    held = [n for n in table.colnames if table[n].ndim == 1 and table[n].dtype.kind != "c"]
    rows = pa.table({name: _arrow(table[name]) for name in held})
    units = {name: str(table[name].unit) for name in held if table[name].unit is not None}
    return _Opened(rows.schema, rows.to_batches, units)


def _arrow(column: Any) -> pa.Array:
    mask = np.ma.getmaskarray(column) if hasattr(column, "mask") else None
    values = np.asarray(column.filled() if mask is not None else column)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind in "UO":
        texts = [None if value is None else str(value) for value in values.tolist()]
        return pa.array(texts, pa.string(), mask=mask)
    return pa.array(values, mask=mask)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text(path: str, delimiter: str, field: str) -> _Opened:
    """Text is text in every row but for numbers in every row: a type is not guessed from the
    first block. Blank lines, and comments (`#`) before the heading, are no rows; the last comment
    is the heading where numbers follow it, as numpy and TOPCAT write it."""
    folder, _, name = path.rpartition("/")
    with Store(folder or "/").open(name) as file:
        lines: Iterator[str] = (line.decode("utf-8-sig") for line in file)
        comment = ""
        for line in lines:
            if not line.startswith("#"):
                lines = chain([line], lines)
                break
            comment = line
        read = csv.reader(lines, delimiter=delimiter)
        rows = [row for row in read if len(row) > 1 or "".join(row).strip()]
    named = next(csv.reader([comment.lstrip("# ")], delimiter=delimiter), [])
    numbers = [any(map(_is_number, row)) for row in (named, *rows[:1])]
    if numbers == [False, True] and len(named) == len(rows[0]):
        rows.insert(0, named)
    if not rows:
        raise InputError(field, "a line of names", f"{path}, which is empty")
    heading, *body = rows
    if len(set(heading)) != len(heading):
        raise InputError(field, "names that differ", f"{path}: {', '.join(heading)}")
    for number, row in enumerate(body, 2):
        if len(row) != len(heading):
            found = f"{len(row)} in row {number} of {path}"
            raise InputError(field, f"{len(heading)} values in each row", found)
    columns = zip(*body, strict=True) if body else ((),) * len(heading)
    table = pa.table({k: _typed(list(v)) for k, v in zip(heading, columns, strict=True)})
    return _Opened(table.schema, table.to_batches, {})


def _typed(texts: list[str]) -> pa.Array:
    known = [text if text.strip() else None for text in texts]
    for kind in (pa.int64(), pa.float64()):
        try:
            return pa.array(known, pa.string()).cast(kind)
        except pa.ArrowInvalid:
            continue
    return pa.array(known, pa.string())


def _parquet(path: str, folder: bool, field: str) -> _Opened:
    store = Store(path if folder else path.rpartition("/")[0] or "/")
    if folder:
        names = [n for n in store.names() if n.lower().endswith(_PARQUET)]
        if not names:
            raise InputError(
                field,
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

    return _Opened(schema, batches, {column.name: about(column, "unit") for column in schema})


def _column(asked: str | None, usual: tuple[str, ...], names: list[str], field: str) -> str:
    if asked is not None:
        if asked not in names:
            raise InputError(field, f"one of {', '.join(names)}", repr(asked))
        return asked
    found = find_column(usual, names)
    if found is None:
        raise InputError(field, "the name of a column of degrees", f"columns {', '.join(names)}")
    return found


def _degrees_per(unit: str, name: str, fields: Fields) -> float:
    """Degrees of one unit; without one it is degrees. InputError where it is no angle.

    Hours are of right ascension; capitals and plurals (`DEG`, `degrees`), which no standard knows,
    are what files have.
    """
    from astropy import units

    if not unit.strip():
        return 1.0
    found = _read_unit(unit)
    if found == units.hour:
        found = units.hourangle
    if found is None or not found.is_equivalent(units.deg):
        expected = f"an angle (deg, rad, hourangle …) in column {name}"
        raise InputError(fields.path, expected, repr(unit))
    return float(found.to(units.deg))


def _read_unit(text: str) -> Any:
    """The unit that a text is, angles before others; None where it is none."""
    from astropy import units

    texts = (text, text.lower(), text.lower().removesuffix("s"))
    known = [units.Unit(each, parse_strict="silent") for each in texts]
    known = [unit for unit in known if not isinstance(unit, units.UnrecognizedUnit)]
    angles = (u for u in known if u == units.hour or u.is_equivalent(units.deg))
    return next(angles, next(iter(known), None))


def _numbers(column: pa.ChunkedArray, name: str, fields: Fields) -> Float64[np.ndarray, " n"]:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InputError(fields.path, f"degrees in column {name}", f"{column.type}")
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)

"""The catalogue of `lenspipe score`: a CSV or Parquet file as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.files.storedfile import require_regular
from lenspipe.errors import InputError


def read_catalogue(path: str | Path, names: Collection[str] = ()) -> pa.Table:
    """A CSV (comma-separated, with a header) or Parquet file as a table.

    names: columns that name something (an identifier, a part of a file's name). Of a CSV they stay
    text where a number would not be written as it stands there: `007` is not 7.
    """
    try:
        table = _read(str(path), names)
    except (OSError, pa.ArrowException, UnreadableError) as error:
        raise InputError(f"catalogue {path}", "a readable CSV or Parquet file", error) from error
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise InputError(f"catalogue {path}", "each column once", f"{twice[0]} twice")
    return table


def _read(path: str, names: Collection[str]) -> pa.Table:
    if path.endswith((".parquet", ".parq", ".pq")):
        if not Path(path).is_dir():
            require_regular(path)
        return pq.read_table(path)
    if path.endswith((".csv", ".csv.gz")):
        require_regular(path)
        return _read_csv(path, names)
    raise InputError(f"catalogue {path}", "a name that ends in .csv or .parquet", path)


def _read_csv(path: str, names: Collection[str]) -> pa.Table:
    table = pacsv.read_csv(path)
    guessed = [name for name, kind in _types(table) if name in names and not _is_text(kind)]
    if not guessed:
        return table
    as_text = pacsv.ConvertOptions(
        include_columns=guessed,
        column_types=dict.fromkeys(guessed, pa.string()),
        strings_can_be_null=True,
    )
    written = pacsv.read_csv(path, convert_options=as_text)
    for name in guessed:
        if not _says_the_same(table[name], written[name]):
            table = table.set_column(table.column_names.index(name), name, written[name])
    return table


def _types(table: pa.Table) -> list[tuple[str, pa.DataType]]:
    """Columns that stand once, with their types."""
    once = [name for name, count in Counter(table.column_names).items() if count == 1]
    return [(name, table[name].type) for name in once]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_null(kind))


def _says_the_same(guessed: pa.ChunkedArray, written: pa.ChunkedArray) -> bool:
    """Whether the values, written out, are the text that stands in the file. A number with a point
    in it is a measurement, and stays one."""
    if pa.types.is_floating(guessed.type):
        return not _all(pc.match_substring_regex(written, "^[+-]?[0-9]+$"))
    return pa.types.is_integer(guessed.type) and _all(
        pc.equal(pc.cast(guessed, pa.string()), written)
    )


def _all(found: pa.ChunkedArray) -> bool:
    """Whether all that are known are true."""
    return bool(pc.all(found, min_count=0).as_py())

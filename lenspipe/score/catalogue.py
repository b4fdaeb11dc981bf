"""The catalogue of `lenspipe score`: a CSV or Parquet file as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from lenspipe.config import is_url
from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.files.storedfile import read_whole, require_regular
from lenspipe.errors import InputError
from lenspipe.select.files import CatalogueFile, filesystem, find_files
from lenspipe.select.parquet_file import opened
from lenspipe.select.sources import folder_column, hive_types
from lenspipe.storage.takeable import takeable


def read_catalogue(
    path: str | Path, names: Collection[str] = (), identifier: str | None = None
) -> pa.Table:
    """A CSV (comma-separated, with a header) or Parquet as a table; a file, a folder of Parquet
    files, or a URL of either.

    names: columns that name something (an identifier, a part of a file's name). Of a CSV they stay
    text where a number would not be written as it stands there: `007` is not 7, `1234.060` is not
    1234.06. identifier: the one of `names` that tells rows apart; a number with a point is none.
    """
    try:
        table = _read(str(path), names, identifier)
    except InputError as error:
        raise InputError(_field(error.field, path), error.expected, error.found) from error
    except (OSError, pa.ArrowException, UnreadableError) as error:
        raise InputError(f"catalogue {path}", "a readable CSV or Parquet file", error) from error
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise InputError(f"catalogue {path}", "each column once", f"{twice[0]} twice")
    return table


def _field(field: str, path: str | Path) -> str:
    """Where a mistake is: the word `sources` is one of survey files."""
    whole = f"catalogue {path}"
    return whole if field in ("path", "sources.path") else field.replace("sources", "catalogue", 1)


def _read(path: str, names: Collection[str], identifier: str | None) -> pa.Table:
    if path.endswith((".parquet", ".parq", ".pq")):
        return _read_parquet(path, names)
    if path.endswith((".csv", ".csv.gz")):
        return _read_csv(path, names, identifier)
    raise InputError(f"catalogue {path}", "a name that ends in .csv or .parquet", path)


def _read_parquet(path: str, names: Collection[str]) -> pa.Table:
    """A file, or all files of a folder: none that cannot be read is passed over."""
    if not is_url(path) and not Path(path).is_dir():
        require_regular(path)
    files = find_files(path, str(Path.cwd()))
    types = _folder_types(files, names)
    tables = []
    for file in files:
        with opened(file) as parquet:
            tables.append(_with_folders(takeable(parquet.read()), file, types))
    return pa.concat_tables(tables, promote_options="permissive")


def _folder_types(files: Sequence[CatalogueFile], names: Collection[str]) -> dict[str, pa.DataType]:
    """Columns that folders (`field=7`) spell out, with their types: in a name `007` is not 7."""
    types = hive_types(files)
    for name, value in (pair for file in files for pair in file.partition):
        if name in names and value is not None and _is_whole(types[name]):
            types[name] = types[name] if str(int(value)) == value else pa.string()
    return types


def _with_folders(
    table: pa.Table, file: CatalogueFile, types: Mapping[str, pa.DataType]
) -> pa.Table:
    for name, value in file.partition:
        if name not in table.column_names:
            column = folder_column(value, types[name], table.num_rows)
            table = table.append_column(name, column)
    return table


def _read_csv(path: str, names: Collection[str], identifier: str | None) -> pa.Table:
    table = _parse(path)
    stands = dict(zip(_stripped(table).column_names, table.column_names, strict=True))
    table = _stripped(table)
    guessed = [name for name, kind in _types(table) if name in names and not _is_text(kind)]
    if not guessed:
        return table
    in_file = [stands[name] for name in guessed]
    as_text = pacsv.ConvertOptions(
        include_columns=in_file,
        column_types=dict.fromkeys(in_file, pa.string()),
        strings_can_be_null=True,
    )
    written = _stripped(_parse(path, as_text))
    for name in guessed:
        number = name != identifier or _is_whole(table[name].type)
        if not (number and _says_the_same(table[name], written[name])):
            table = table.set_column(table.column_names.index(name), name, written[name])
    return table


def _stripped(table: pa.Table) -> pa.Table:
    """The columns' names without the blanks that people write after commas."""
    return table.rename_columns([name.strip() for name in table.column_names])


def _parse(path: str, convert: pacsv.ConvertOptions | None = None) -> pa.Table:
    if not is_url(path):
        require_regular(path)
        return pacsv.read_csv(path, convert_options=convert)
    filesystem(path)  # refuses a URL that nothing opens
    packed = "gzip" if path.endswith(".gz") else None
    with pa.input_stream(pa.BufferReader(read_whole(path)), compression=packed) as stream:
        return pacsv.read_csv(stream, convert_options=convert)


def _types(table: pa.Table) -> list[tuple[str, pa.DataType]]:
    """Columns that stand once, with their types."""
    once = [name for name, count in Counter(table.column_names).items() if count == 1]
    return [(name, table[name].type) for name in once]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_null(kind))


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))


def _says_the_same(guessed: pa.ChunkedArray, written: pa.ChunkedArray) -> bool:
    """Whether the numbers, written as a file's name has them, are the text that stands there."""
    if pa.types.is_floating(guessed.type):
        texts = (None if value is None else str(value) for value in guessed.to_pylist())
        return all(text == stands for text, stands in zip(texts, written.to_pylist(), strict=True))
    return _is_whole(guessed.type) and _all(pc.equal(pc.cast(guessed, pa.string()), written))


def _all(found: pa.ChunkedArray) -> bool:
    """Whether all that are known are true."""
    return bool(pc.all(found, min_count=0).as_py())

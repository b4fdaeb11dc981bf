"""VOTable 1.4 of the IVOA (https://www.ivoa.net/documents/VOTable/): rows as a file has them and as
a service answers with them, or what was wrong (DALI 1.1, section 4)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lenspipe.catalogue.columns import to_astropy
from lenspipe.catalogue.plain_types import plain
from lenspipe.errors import InputError, printable

MEDIA_TYPE = "application/x-votable+xml"
_FRAME = "ICRS"


def document(
    rows: pa.Table,
    name: str,
    *,
    answer: bool = False,
    overflow: bool = False,
    ucds: Mapping[str, str] | None = None,
    positions: Sequence[str] = ("ra", "dec"),
) -> bytes:
    """Rows as one VOTable with their units, descriptions and UCDs.

    answer: of a service, which says that all went well. overflow: there are more rows than these;
    told after the table, as the standard asks. ucds: of columns, over their own. positions: columns
    in the frame, ICRS.
    """
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import CooSys

    file = from_table(to_astropy(_tellable(rows), name))
    file.version = "1.4"
    [resource] = file.resources
    resource.type = "results"
    [body] = resource.tables
    body.ID, body.name = None, name
    resource.coordinate_systems.append(CooSys(ID=_FRAME, system=_FRAME))
    for field in body.fields:
        field.ID = None
        if field.name in positions:
            field.ref = _FRAME
        if field.datatype == "bit":
            field.datatype = "boolean"
        if field.datatype == "unicodeChar":
            field.arraysize = "*"  # not the longest that happens to be there
            if _is_ascii(rows[field.name]):
                field.datatype = "char"  # what clients know, and Simple Cone Search wants of ids
        if ucds and field.name in ucds:
            field.ucd = ucds[field.name]
    if answer:
        resource.infos.append(_info(name="QUERY_STATUS", value="OK"))
    sink = io.BytesIO()
    file.to_xml(sink)
    return _with_overflow(sink.getvalue()) if overflow else sink.getvalue()


def _with_overflow(content: bytes) -> bytes:
    """Said after the table (DALI 1.1, 4.4.1), where astropy writes nothing."""
    before, end, after = content.rpartition(b"</TABLE>")
    return before + end + b'\n  <INFO name="QUERY_STATUS" value="OVERFLOW"/>' + after


def _info(name: str, value: str) -> Any:
    """Without the id that astropy makes of the name: that would be there twice."""
    from astropy.io.votable.tree import Info

    made = Info(name=name, value=value)
    made.ID = None
    return made


def error_document(message: str, *, cone_search: bool = False) -> bytes:
    """A VOTable that says what was wrong: as DALI has it, or as Simple Cone Search 1.03 has it."""
    from astropy.io.votable.tree import Resource, VOTableFile

    file = VOTableFile(version="1.4")
    resource = Resource(type="results")
    file.resources.append(resource)
    told = printable(message)
    if cone_search:  # section 2.3: an INFO of name Error at the top
        file.infos.append(_info(name="Error", value=told))
    info = _info(name="QUERY_STATUS", value="ERROR")
    info.content = told
    resource.infos.append(info)
    sink = io.BytesIO()
    file.to_xml(sink)
    return sink.getvalue()


def _is_ascii(column: pa.ChunkedArray) -> bool:
    return all(value is None or str(value).isascii() for value in column.to_pylist())


def _tellable(rows: pa.Table) -> pa.Table:
    """Rows whose values a VOTable can hold: characters that XML has not as escapes, times as ISO
    8601 has them, other types as text."""
    arrays, fields = [], []
    for field, told in zip(rows.schema, rows.columns, strict=True):
        column = _plain_or_itself(field, told)
        values, kind = column, column.type
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            values = _plain_number(column)
        else:  # a text of nothing is what the standard has for no text
            texts = [None if v in (None, "") else _text(v) for v in column.to_pylist()]
            values = pa.chunked_array([pa.array(texts, pa.string())])
        arrays.append(values)
        fields.append(field.with_type(values.type))
    return pa.table(arrays, schema=pa.schema(fields))


def _plain_or_itself(field: pa.Field, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return plain(pa.table([column], schema=pa.schema([field])))[0]
    except InputError:  # of a service, which answers with what it has
        return column


def _plain_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """VOTable has no unsigned integers but of one byte, and no half floats."""
    kind = column.type
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if kind in (pa.int8(), pa.uint16()):
        return column.cast(pa.int32())
    if kind == pa.uint32():
        return column.cast(pa.int64())
    return column.cast(pa.float64()) if kind == pa.uint64() else column


def _text(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return "".join(c if c in "\t\n\r" or ord(c) >= 32 else f"\\u{ord(c):04x}" for c in text)

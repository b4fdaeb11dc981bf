"""TAP_SCHEMA and VOSI's tables of a run (TAP 1.1, section 4): what there is to ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import pyarrow as pa

from lenspipe.catalogue.columns import told, ucd_of
from lenspipe.serve.adql import RUN_SCHEMA, TAP_SCHEMA

_DESCRIPTIONS = {
    "scores": "every scored source",
    "candidates": "the candidates whose stamps are kept, by rank",
    "failures": "sources without a score, and why",
    "sources": "rows of the survey's own catalogue",
    "known_lenses": "known lenses in the footprint, and what became of them",
    f"{TAP_SCHEMA}.schemas": "schemas of this service",
    f"{TAP_SCHEMA}.tables": "tables of this service",
    f"{TAP_SCHEMA}.columns": "columns of the tables of this service",
    f"{TAP_SCHEMA}.keys": "foreign keys",
    f"{TAP_SCHEMA}.key_columns": "columns of foreign keys",
}
_LINKED = ("candidates",)  # whose object_id is one of table `scores`
_RESERVED = frozenset({"size"})  # of ADQL: to be written in quotes
_VODML = "http://www.ivoa.net/xml/VODataService/v1.1"
_TABLES = "http://www.ivoa.net/xml/VOSITables/v1.0"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"


@dataclass(frozen=True)
class _Column:
    table: str
    name: str
    kind: str
    size: str | None
    unit: str
    ucd: str | None
    description: str
    indexed: bool


def tap_schema(tables: Mapping[str, pa.Schema]) -> dict[str, pa.Table]:
    """The five tables of TAP_SCHEMA as `tap_schema_<name>`, themselves among what they list.

    tables: of the run, name -> columns.
    """
    own = {f"{TAP_SCHEMA}.{name}": schema for name, schema in _SCHEMAS.items()}
    every = {**tables, **own}
    links = _links(tables)
    rows: dict[str, list[dict[str, object]]] = {
        "schemas": [
            {"schema_name": RUN_SCHEMA, "description": "what the run left"},
            {"schema_name": TAP_SCHEMA, "description": "what this service has"},
        ],
        "tables": [
            {
                "schema_name": _schema_of(name),
                "table_name": name,
                "table_type": "table",
                "description": _DESCRIPTIONS.get(name),
                "table_index": index,
            }
            for index, name in enumerate(every)
        ],
        "columns": [
            {
                "table_name": column.table,
                "column_name": f'"{column.name}"' if column.name in _RESERVED else column.name,
                "datatype": column.kind,
                "arraysize": column.size,
                "size": None,
                "unit": column.unit or None,
                "ucd": column.ucd,
                "description": column.description or None,
                "indexed": int(column.indexed),
                "principal": int(column.name in ("object_id", "ra", "dec", "score")),
                "std": int(_schema_of(name) == TAP_SCHEMA),
                "column_index": index,
            }
            for name, schema in every.items()
            for index, column in enumerate(_columns(name, schema))
        ],
        "keys": [
            {"key_id": link.key, "from_table": link.table, "target_table": link.target}
            for link in links
        ],
        "key_columns": [
            {
                "key_id": link.key,
                "from_column": link.column,
                "target_column": link.target_column,
            }
            for link in links
        ],
    }
    return {
        f"{TAP_SCHEMA}_{name}": pa.Table.from_pylist(content, schema=_SCHEMAS[name])
        for name, content in rows.items()
    }


def tables_document(tables: Mapping[str, pa.Schema]) -> bytes:
    """VOSI's `/tables` (https://www.ivoa.net/documents/VOSI/)."""
    ET.register_namespace("vosi", _TABLES)
    ET.register_namespace("xsi", _XSI)
    # `vs` stands in values alone, where ElementTree does not see that it is used.
    root = ET.Element(f"{{{_TABLES}}}tableset", {"xmlns:vs": _VODML})
    own = {f"{TAP_SCHEMA}.{name}": schema for name, schema in _SCHEMAS.items()}
    for schema_name, members in ((RUN_SCHEMA, dict(tables)), (TAP_SCHEMA, own)):
        schema = ET.SubElement(root, "schema")
        ET.SubElement(schema, "name").text = schema_name
        for name, fields in members.items():
            table = ET.SubElement(schema, "table", {"type": "table"})
            ET.SubElement(table, "name").text = name
            ET.SubElement(table, "description").text = _DESCRIPTIONS.get(name, "")
            for column in _columns(name, fields):
                _column_element(table, column)
            for link in _links(tables):
                if link.table == name:
                    _key_element(table, link)
    return _as_xml(root)


@dataclass(frozen=True)
class _Link:
    """A column whose values are of another table's column."""

    table: str
    column: str
    target: str
    target_column: str

    @property
    def key(self) -> str:
        return f"{self.table}.{self.column}"


_OWN_LINKS = tuple(
    _Link(f"{TAP_SCHEMA}.{table}", column, f"{TAP_SCHEMA}.{target}", target_column)
    for table, column, target, target_column in (
        ("tables", "schema_name", "schemas", "schema_name"),
        ("columns", "table_name", "tables", "table_name"),
        ("keys", "from_table", "tables", "table_name"),
        ("keys", "target_table", "tables", "table_name"),
        ("key_columns", "key_id", "keys", "key_id"),
    )
)


def _links(tables: Mapping[str, pa.Schema]) -> list[_Link]:
    own = [
        _Link(name, "object_id", "scores", "object_id")
        for name in _LINKED
        if name in tables and "scores" in tables
    ]
    return [*own, *_OWN_LINKS]


def _key_element(table: ET.Element, link: _Link) -> None:
    key = ET.SubElement(table, "foreignKey")
    ET.SubElement(key, "targetTable").text = link.target
    columns = ET.SubElement(key, "fkColumn")
    ET.SubElement(columns, "fromColumn").text = link.column
    ET.SubElement(columns, "targetColumn").text = link.target_column


def _column_element(table: ET.Element, column: _Column) -> None:
    element = ET.SubElement(table, "column")
    reserved = column.name in _RESERVED
    ET.SubElement(element, "name").text = f'"{column.name}"' if reserved else column.name
    if column.description:
        ET.SubElement(element, "description").text = column.description
    if column.unit:
        ET.SubElement(element, "unit").text = column.unit
    if column.ucd:
        ET.SubElement(element, "ucd").text = column.ucd
    size = {"arraysize": column.size} if column.size else {}
    kind = {f"{{{_XSI}}}type": "vs:VOTableType", **size}
    ET.SubElement(element, "dataType", kind).text = column.kind
    if column.indexed:
        ET.SubElement(element, "flag").text = "indexed"


def _as_xml(root: ET.Element) -> bytes:
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def _schema_of(table: str) -> str:
    return TAP_SCHEMA if table.startswith(f"{TAP_SCHEMA}.") else RUN_SCHEMA


def _columns(table: str, schema: pa.Schema) -> list[_Column]:
    found = []
    for field in schema:
        kind, size = _kind(field.type)
        found.append(
            _Column(
                table,
                field.name,
                kind,
                size,
                told(field, "unit"),
                ucd_of(field.name),
                told(field, "description"),
                table == "scores" and field.name == "healpix_29",
            )
        )
    return found


def _kind(kind: pa.DataType) -> tuple[str, str | None]:
    """VOTable's type of a column, as `votable.document` writes it."""
    if pa.types.is_decimal(kind):
        return "double", None
    return _KINDS.get(kind, ("char", "*"))


_KINDS: dict[pa.DataType, tuple[str, str | None]] = {
    pa.bool_(): ("boolean", None),
    pa.uint8(): ("unsignedByte", None),
    pa.int16(): ("short", None),
    pa.int8(): ("int", None),
    pa.int32(): ("int", None),
    pa.uint16(): ("int", None),
    pa.int64(): ("long", None),
    pa.uint32(): ("long", None),
    pa.float16(): ("float", None),
    pa.float32(): ("float", None),
    pa.float64(): ("double", None),
    pa.uint64(): ("double", None),
}


def _schema(**kinds: pa.DataType) -> pa.Schema:
    return pa.schema(list(kinds.items()))


_TEXT, _WHOLE = pa.string(), pa.int32()
_SCHEMAS = {
    "schemas": _schema(schema_name=_TEXT, utype=_TEXT, description=_TEXT, schema_index=_WHOLE),
    "tables": _schema(
        schema_name=_TEXT,
        table_name=_TEXT,
        table_type=_TEXT,
        utype=_TEXT,
        description=_TEXT,
        table_index=_WHOLE,
    ),
    "columns": _schema(
        table_name=_TEXT,
        column_name=_TEXT,
        datatype=_TEXT,
        arraysize=_TEXT,
        xtype=_TEXT,
        size=_WHOLE,
        description=_TEXT,
        utype=_TEXT,
        unit=_TEXT,
        ucd=_TEXT,
        indexed=_WHOLE,
        principal=_WHOLE,
        std=_WHOLE,
        column_index=_WHOLE,
    ),
    "keys": _schema(
        key_id=_TEXT, from_table=_TEXT, target_table=_TEXT, description=_TEXT, utype=_TEXT
    ),
    "key_columns": _schema(key_id=_TEXT, from_column=_TEXT, target_column=_TEXT),
}

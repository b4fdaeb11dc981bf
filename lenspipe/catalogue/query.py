"""SQL over the tables of a run: one SELECT, which reads nothing but them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa

from lenspipe.catalogue import sky_functions
from lenspipe.catalogue.survey_sources import SOURCES, open_sources
from lenspipe.catalogue.tables import TABLES, Relation, lacking, open_tables
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.run_directory import RunDirectory
from lenspipe.select.database import Limits, closed_database, limited

FIELD = "query"
MAX_LENGTH = 100_000
_FLOATS = ("FLOAT", "DOUBLE")
TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})


def query_limits(seconds: float = 60.0, memory_mb: int = 2048) -> Limits:
    """What one query may take, by the names of the command's options."""
    threads = len(os.sched_getaffinity(0))
    return Limits(seconds, memory_mb, threads, "--timeout-s", "--memory-mb", scope="")


def query(
    run: RunDirectory, text: str, limits: Limits | None = None, grades: str | None = None
) -> pa.Table:
    """Rows of one SELECT over the tables of the run (`tables.TABLES`) and the survey's `sources`.

    Columns that come straight out of a table keep their unit and description. The functions of
    `sky_functions` are there; files, network and extensions are not. InputError where the text is
    no such query, or names what is not there; HopelessError where it goes past its limits. grades:
    a SQLite file or postgresql:// URL in place of RUN/grades.sqlite.
    """
    return ask(run, text, limits or query_limits(), grades=grades)


def ask(
    run: RunDirectory,
    text: str,
    limits: Limits,
    rows: int | None = None,
    extra: Mapping[str, pa.Table] | None = None,
    without: Collection[str] = (),
    grades: str | None = None,
) -> pa.Table:
    """As `query`, the first `rows` rows alone. extra: tables beside the run's, by name. without:
    tables of the run that may not be asked."""
    tree = _check(text)
    relations = {**open_tables(run, text, grades), **(extra or {})}
    relations = {name: table for name, table in relations.items() if name not in without}
    # Outsiders are not told whether or where there is what they may not ask.
    lacks = {
        name: f"{name} cannot be asked here" if name in without else lacking(run, name)
        for name in TABLES
        if name not in relations
    }
    unreachable = None
    if SOURCES in _tables(tree):
        try:
            relations[SOURCES] = open_sources(run, f"{FIELD}: table {SOURCES}")
        except InputError as error:  # a name of the query's own may hide it
            unreachable = error
    with closing(closed_database(limits.threads, limits.memory_mb)) as connection:
        sky_functions.create(connection)
        for name, relation in relations.items():
            _register(connection, name, relation)
        with limited(FIELD, connection, limits):
            found = _execute(connection, text, relations, rows, unreachable, lacks)
    return _with_meanings(found, relations)


def _register(connection: duckdb.DuckDBPyConnection, name: str, relation: Relation) -> None:
    """The relation under its name, where a float that is NaN is NULL: a member that a cascade did
    not ask, a magnitude that was not measured. DuckDB orders NaN above every number."""
    stored = f"{name} as stored"
    connection.register(stored, relation)
    told = connection.table(_quoted(stored))  # names that differ in capitals alone are made others
    floats = [n for n, t in zip(told.columns, told.dtypes, strict=True) if str(t) in _FLOATS]
    nulls = ", ".join(f"nullif({_quoted(n)}, 'nan') AS {_quoted(n)}" for n in floats)
    told.project(f"* REPLACE ({nulls})" if nulls else "*").create_view(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check(text: str) -> Any:
    """A text as DuckDB parses it. InputError where it is not one SELECT, or calls a function that
    makes tables of anything else than numbers: those read files, and memory by its address."""
    if len(text) > MAX_LENGTH:
        raise InputError(FIELD, f"at most {MAX_LENGTH} characters", len(text))
    try:
        with closing(duckdb.connect()) as parser:
            kinds = [statement.type.name for statement in parser.extract_statements(text)]
            if kinds != ["SELECT"]:
                raise InputError(FIELD, "one SELECT", " and ".join(kinds) or "nothing")
            told = parser.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0]
    except duckdb.Error as error:
        raise InputError(FIELD, "one SELECT", _said(error)) from error
    try:
        tree = json.loads(told)
    except RecursionError as error:
        raise InputError(FIELD, "a query less deeply nested", "one of many levels") from error
    if tree["error"]:  # PIVOT makes a type of its values first, which is a statement more
        raise InputError(FIELD, "one plain SELECT", tree.get("error_message", "another"))
    for name in _table_functions(tree):
        if name not in TABLE_FUNCTIONS:
            expected = f"tables, or {', '.join(sorted(TABLE_FUNCTIONS))}, after FROM"
            raise InputError(FIELD, expected, f"{name}(…)")
    return tree


def _tables(tree: Any) -> set[str]:
    """Names of the tables that a parsed query reads, in small letters."""
    found = _nodes(tree, "BASE_TABLE")
    return {str(node.get("table_name", "")).lower() for node in found}


def _table_functions(tree: Any) -> Iterator[str]:
    for node in _nodes(tree, "TABLE_FUNCTION"):
        yield str(node.get("function", {}).get("function_name", "")).lower()


def _nodes(node: Any, kind: str) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == kind:
            yield node
        for value in node.values():
            yield from _nodes(value, kind)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value, kind)


def _execute(
    connection: duckdb.DuckDBPyConnection,
    text: str,
    relations: dict[str, Relation],
    rows: int | None,
    unreachable: InputError | None,
    lacks: Mapping[str, str],
) -> pa.Table:
    try:
        found = connection.sql(text)
        return (found if rows is None else found.limit(rows)).to_arrow_table()
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise  # its limits are told by who set them
    except duckdb.CatalogException as error:
        if unreachable is not None and SOURCES in str(error).lower():
            raise unreachable from error
        missing = [told for name, told in lacks.items() if name in str(error)]
        there = ", ".join([name for name in TABLES if name in relations] + [SOURCES])
        there = f"tables {there}" + (f" ({missing[0]})" if missing else "")
        raise InputError(FIELD, there, _said(error)) from error
    except duckdb.IOException as error:
        raise CorruptRunError(f"tables of the run: {_said(error)}") from error
    except duckdb.Error as error:
        raise InputError(FIELD, "a SELECT that DuckDB understands", _said(error)) from error


def _with_meanings(table: pa.Table, relations: dict[str, Relation]) -> pa.Table:
    """Fields of results that have name and type of a table's column get what is told of it."""
    known = {
        (field.name, field.type): field
        for relation in reversed(relations.values())
        for field in relation.schema
    }
    schema = pa.schema([known.get((f.name, f.type), f) for f in table.schema])
    return pa.table(table.columns, schema=schema)


def _said(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]

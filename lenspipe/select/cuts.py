"""Stage 1 of the pre-filter: named boolean expressions over the catalogue's columns.

The rule for what is not known: a number that is NULL, not finite, or one of `missing_values` is
NULL in a cut; so is the computed side of a comparison that is not finite (0/0, log10 of a negative
flux). A cut must be TRUE for a row to stay: FALSE and NULL remove it and are counted apart. A row
is counted at the first cut that removes it, in the order of the survey file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from lenspipe.errors import InputError
from lenspipe.select import expressions
from lenspipe.select.expressions import Node

_VIEW = "part"
_KEPT = 65_535  # code of a row that every cut keeps; codes below are 2 * cut + (1 if unknown)
_MAX_CUTS = 200  # they nest in one expression, of which DuckDB bounds the depth


@dataclass(frozen=True)
class CutCount:
    """Rows that one cut removed. false: it does not hold; unknown: a value it needs is missing."""

    false: int = 0
    unknown: int = 0

    def __add__(self, other: CutCount) -> CutCount:
        return CutCount(self.false + other.false, self.unknown + other.unknown)


@dataclass(frozen=True)
class CutResult:
    """kept: rows that satisfy every cut, increasing. removed: count per cut, in their order."""

    kept: Int64[np.ndarray, " k"]
    removed: Mapping[str, CutCount]


@dataclass(frozen=True)
class CompiledCuts:
    """Cuts that were checked against a catalogue. Small and picklable.

    columns: what they need of the catalogue; aliases: the same columns in `query`.
    """

    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    query: str = ""
    threads: int = 1

    def apply(self, table: pa.Table) -> CutResult:
        """Evaluate all cuts on a table in one pass. Floats of the table are finite or NULL."""
        if not self.names or table.num_rows == 0:
            empty = {name: CutCount() for name in self.names}
            return CutResult(np.arange(table.num_rows, dtype=np.int64), empty)
        needed = table.select(self.columns).rename_columns(list(self.aliases))
        with _view(needed, self.threads) as connection:
            codes = connection.execute(self.query).fetchnumpy()["code"]
        counts = np.bincount(codes, minlength=2 * len(self.names))
        removed = {
            name: CutCount(int(counts[2 * k]), int(counts[2 * k + 1]))
            for k, name in enumerate(self.names)
        }
        return CutResult(np.flatnonzero(codes == _KEPT).astype(np.int64), removed)


def compile_cuts(cuts: Mapping[str, str], schema: pa.Schema, threads: int = 1) -> CompiledCuts:
    """Check every cut against the catalogue's columns and write the one query that runs them all.

    InputError(`cuts.NAME`) where a cut is no single boolean expression over columns of one row.
    """
    if not cuts:
        return CompiledCuts()
    if len(cuts) > _MAX_CUTS:
        raise InputError("cuts", f"at most {_MAX_CUTS}", len(cuts))
    with closing(_database(threads).cursor()) as connection:
        trees = {name: _parse(name, text, connection) for name, text in cuts.items()}
    columns = _resolve(trees, schema.names)
    aliases = _aliases(columns)
    unknown = _row_of_nulls([schema.field(c).with_name(aliases[c]) for c in columns])
    for tree in trees.values():
        for node in expressions.column_nodes(tree):
            node["column_names"] = [aliases[node["column_names"][0]]]
    with _view(unknown, threads) as connection:
        checked = [_check(name, tree, connection) for name, tree in trees.items()]
    return CompiledCuts(
        tuple(cuts), tuple(columns), tuple(aliases[c] for c in columns), _query(checked), threads
    )


def _parse(name: str, text: str, connection: duckdb.DuckDBPyConnection) -> Node:
    field = f"cuts.{name}"
    try:
        return expressions.parse(field, text, connection)
    except RecursionError:
        raise InputError(field, "an expression that is not nested so deeply", "more") from None
    except duckdb.Error as error:
        raise InputError(field, "one SQL expression", _first_line(error)) from error


def _resolve(trees: Mapping[str, Node], known: list[str]) -> list[str]:
    """Catalogue columns that the trees name; their references are set to those names."""
    used: dict[str, None] = {}
    for name, tree in trees.items():
        nodes = list(expressions.column_nodes(tree))
        if not nodes:
            raise InputError(f"cuts.{name}", "an expression over columns", "no column in it")
        for node in nodes:
            column = expressions.match_column(f"cuts.{name}", node["column_names"][0], known)
            node["column_names"] = [column]
            used[column] = None
    return list(used)


def _aliases(columns: list[str]) -> dict[str, str]:
    """Names that differ in more than case, which DuckDB does not tell apart (DES has Y and y)."""
    taken: set[str] = set()
    aliases: dict[str, str] = {}
    for column in columns:
        alias, k = column, 1
        while alias.lower() in taken:
            alias, k = f"{column}_{k}", k + 1
        taken.add(alias.lower())
        aliases[column] = alias
    return aliases


def _row_of_nulls(fields: list[pa.Field]) -> pa.Table:
    """What cuts are tried on: one row, so that DuckDB also evaluates their constants."""
    return pa.table({field.name: pa.nulls(1, field.type) for field in fields})


def _check(name: str, tree: Node, connection: duckdb.DuckDBPyConnection) -> str:
    """SQL of one cut after its types were checked."""
    field = f"cuts.{name}"
    types: dict[str, str] = {}

    def type_of(node: Node) -> str:
        key = json.dumps(node)
        if key not in types:
            types[key] = _type(expressions.write(node, connection), connection)
        return types[key]

    def show(node: Node) -> str:
        return f"{expressions.write(node, connection)} ({type_of(node)})"

    try:
        expressions.check_comparisons(field, tree, type_of, show)
        found = type_of(tree)
        if found != "BOOLEAN":
            raise InputError(field, "a boolean expression", f"one of type {found}")
        guarded = expressions.guard_comparisons(field, tree, type_of, connection)
        sql = f"TRY({expressions.write(guarded, connection)})"
        connection.execute(_query([sql])).fetchall()
    except duckdb.Error as error:
        raise InputError(field, "an expression that fits its columns", _first_line(error)) from None
    return sql


def _type(sql: str, connection: duckdb.DuckDBPyConnection) -> str:
    # The text comes from a vetted tree, see `expressions.parse`.
    result = connection.execute(f"SELECT {sql} FROM {_VIEW} LIMIT 0")  # noqa: S608
    return str(result.description[0][1])


def _query(checked: list[str]) -> str:
    """One expression that gives the code of the first cut that removes a row, innermost last.

    Nested, so that only rows which a cut keeps are asked for the next one.
    """
    code = f"{_KEPT}"
    for k, sql in reversed(list(enumerate(checked))):
        code = f"CASE WHEN {sql} THEN {code} WHEN {sql} IS NULL THEN {2 * k + 1} ELSE {2 * k} END"
    # The text comes from vetted trees, see `expressions.parse`.
    return f"SELECT CAST({code} AS USMALLINT) AS code FROM {_VIEW}"  # noqa: S608


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]


@lru_cache(maxsize=4)
def _database(threads: int) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB that reads no file, loads no extension and keeps to its bounds.

    With one thread, rows come out in the order they went in; with more, DuckDB keeps that order by
    `preserve_insertion_order`.
    """
    connection = duckdb.connect(config={"threads": threads, "memory_limit": "2GB"})
    for setting in (
        "temp_directory = ''",
        "autoload_known_extensions = false",
        "autoinstall_known_extensions = false",
        "python_enable_replacements = false",
        "preserve_insertion_order = true",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET GLOBAL {setting}")
    return connection


@contextmanager
def _view(table: pa.Table, threads: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own (so threads do not meet) that sees `table` as view `part`."""
    with closing(_database(threads).cursor()) as connection:
        connection.register(_VIEW, table)
        yield connection
        connection.unregister(_VIEW)

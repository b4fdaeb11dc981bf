"""Stage 1 of the pre-filter: named boolean expressions over the catalogue's columns.

The rule for what is not known: a number that is NULL, not finite, or one of `missing_values` is
NULL in a cut; so is the computed side of a comparison that is not finite (0/0, log10 of a negative
flux). A cut must be TRUE for a row to stay: FALSE and NULL remove it and are counted apart. A row
is counted at the first cut that removes it, in the order of the survey file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from lenspipe.errors import HopelessError, InputError
from lenspipe.select import arithmetic, expressions
from lenspipe.select.database import VIEW, Limits, ask, cursor, limited, view
from lenspipe.select.expressions import Node
from lenspipe.select.measured import with_nulls

_MAX_CUTS = 200
_BATCH_ROWS = 65_536  # arrays of so many rows stay in the processor's cache


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
class Cut:
    """One cut that was checked against a catalogue.

    columns: what it needs of the catalogue; aliases: the same columns in `sql`; condition: the
    same cut for arrays, where they can say it.
    """

    name: str
    columns: tuple[str, ...]
    aliases: tuple[str, ...]
    sql: str
    condition: arithmetic.Condition | None


@dataclass(frozen=True)
class CompiledCuts:
    """Cuts that were checked against a catalogue. Small and picklable.

    columns: what they need of the catalogue.
    """

    cuts: tuple[Cut, ...] = ()
    columns: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def names(self) -> tuple[str, ...]:
        """The cuts' names, in the order of the survey file."""
        return tuple(cut.name for cut in self.cuts)

    @property
    def sql(self) -> tuple[str, ...]:
        """What the cuts say, as the database is asked it."""
        return tuple(cut.sql for cut in self.cuts)

    def apply(self, table: pa.Table, missing_values: Sequence[float] = ()) -> CutResult:
        """Evaluate all cuts on a table as it is stored: see the module's docstring for what is
        unknown. missing_values: numbers that mean "not measured".

        HopelessError(`cuts.NAME`) where a cut takes more time or memory than it may, or says what
        DuckDB cannot evaluate on any row; duckdb.Error where it cannot read the rows.
        """
        removed = {name: CutCount() for name in self.names}
        rows = np.arange(table.num_rows, dtype=np.int64)
        for plain, cuts in groupby(self.cuts, lambda cut: cut.condition is not None):
            apply = _apply_arrays if plain else _apply_sql
            left = table if len(rows) == table.num_rows else table.take(pa.array(rows))
            result = apply(list(cuts), left, missing_values, self.limits)
            rows = rows[result.kept]
            removed |= result.removed
        return CutResult(rows, removed)


def _apply_arrays(
    cuts: Sequence[Cut], table: pa.Table, missing_values: Sequence[float], _: Limits
) -> CutResult:
    """Plain cuts in order, batch by batch."""
    needed = table.select(list(dict.fromkeys(name for cut in cuts for name in cut.columns)))
    counts = {cut.name: CutCount() for cut in cuts}
    kept, start = [np.zeros(0, np.int64)], 0
    for rows in needed.to_batches(max_chunksize=_BATCH_ROWS):
        batch = arithmetic.Batch(rows, missing_values)
        alive = np.ones(rows.num_rows, bool)
        for cut in cuts:
            alive, count = _remove(cut, batch, alive)
            counts[cut.name] += count
        kept.append(start + np.flatnonzero(alive))
        start += rows.num_rows
    return CutResult(np.concatenate(kept), counts)


def _remove(
    cut: Cut, batch: arithmetic.Batch, alive: Bool[np.ndarray, " n"]
) -> tuple[Bool[np.ndarray, " n"], CutCount]:
    """Which rows are alive after a cut too, and how many it removed."""
    if cut.condition is None:
        raise ValueError(f"cuts.{cut.name} is not for arrays")
    # Where a number is unknown, what is computed from it is without meaning and not looked at.
    with np.errstate(all="ignore"):
        truth = cut.condition.truth(batch)
    left = alive & truth.true
    gone = int(np.count_nonzero(alive)) - int(np.count_nonzero(left))
    unknown = 0 if truth.known is None else int(np.count_nonzero(alive & ~truth.known))
    return left, CutCount(false=gone - unknown, unknown=unknown)


def _apply_sql(
    cuts: Sequence[Cut], table: pa.Table, missing_values: Sequence[float], limits: Limits
) -> CutResult:
    """Cuts in order through DuckDB, each on the rows that those before it keep."""
    rows = np.arange(table.num_rows, dtype=np.int64)
    counts = {}
    for cut in cuts:
        needed = table.select(list(cut.columns))
        left = needed if len(rows) == len(needed) else needed.take(pa.array(rows))
        true, unknown = _ask(cut, with_nulls(left, missing_values), limits)
        lost = int(np.count_nonzero(unknown))
        counts[cut.name] = CutCount(len(rows) - int(np.count_nonzero(true)) - lost, lost)
        rows = rows[true]
    return CutResult(rows, counts)


def _ask(
    cut: Cut, table: pa.Table, limits: Limits
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Where a cut holds, and where it is unknown."""
    if table.num_rows == 0:
        return np.zeros(0, bool), np.zeros(0, bool)
    seen = table.rename_columns(list(cut.aliases))
    field = f"cuts.{cut.name}"
    try:
        found = ask(field, _query(cut.sql), seen, limits)["truth"]
    except (duckdb.ProgrammingError, duckdb.NotSupportedError) as error:  # of no value in the rows
        raise HopelessError(field, "an expression that works", _first_line(error)) from error
    return np.ma.filled(found, False), np.ma.getmaskarray(found)


def compile_cuts(
    cuts: Mapping[str, str], schema: pa.Schema, limits: Limits | None = None
) -> CompiledCuts:
    """Check every cut against the catalogue's columns and prepare its evaluation.

    InputError(`cuts.NAME`) where a cut is no single boolean expression over columns of one row.
    """
    limits = limits or Limits()
    if not cuts:
        return CompiledCuts(limits=limits)
    if len(cuts) > _MAX_CUTS:
        raise InputError("cuts", f"at most {_MAX_CUTS}", len(cuts))
    with cursor(limits) as connection:
        trees = {name: _parse(name, text, connection) for name, text in cuts.items()}
    columns = _resolve(trees, schema.names)
    fields = {alias: schema.field(column) for column, alias in _aliases(columns).items()}
    for tree in trees.values():
        _rename(tree, {field.name: alias for alias, field in fields.items()})
    for name, tree in trees.items():
        _check_columns(name, tree, fields, limits)
    row = _row_of_nulls([field.with_name(alias) for alias, field in fields.items()])
    with view(row, limits) as connection:
        types = _Types(connection)
        compiled = []
        for name, tree in trees.items():
            with limited(f"cuts.{name}", connection, limits):
                compiled.append(_compile(name, tree, fields, types))
    return CompiledCuts(tuple(compiled), tuple(columns), limits)


def _rename(tree: Node, aliases: Mapping[str, str]) -> None:
    for node in expressions.column_nodes(tree):
        node["column_names"] = [aliases[node["column_names"][0]]]


def _check_columns(name: str, tree: Node, fields: Mapping[str, pa.Field], limits: Limits) -> None:
    """InputError where DuckDB has no type for a column of a cut. fields: alias -> the column."""
    for alias in {node["column_names"][0] for node in expressions.column_nodes(tree)}:
        column = fields[alias]
        try:
            with view(_row_of_nulls([column.with_name(alias)]), limits):
                pass
        except duckdb.NotImplementedException as error:
            raise InputError(
                f"cuts.{name}",
                "columns of types that cuts can take (at most 38 digits of a decimal)",
                f"{column.name} of type {column.type}",
            ) from error


def _compile(name: str, tree: Node, fields: Mapping[str, pa.Field], types: _Types) -> Cut:
    """One cut of known columns after its types were checked. fields: alias -> the column."""
    used = list(dict.fromkeys(n["column_names"][0] for n in expressions.column_nodes(tree)))
    sql = _check(name, tree, types)
    condition = arithmetic.translate(tree, fields, types.of, types.constant)
    return Cut(name, tuple(fields[a].name for a in used), tuple(used), sql, condition)


def _parse(name: str, text: str, connection: duckdb.DuckDBPyConnection) -> Node:
    field = f"cuts.{name}"
    try:
        tree = expressions.parse(field, text, connection)
    except RecursionError:
        raise InputError(field, "an expression that is not nested so deeply", "more") from None
    except duckdb.Error as error:
        raise InputError(field, "one SQL expression", _first_line(error)) from error
    expressions.check_depth(field, tree)
    return tree


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


class _Types:
    """What DuckDB says of nodes: their types, and constants after a cast."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._known: dict[str, str] = {}

    def of(self, node: Node) -> str:
        """Type of a node."""
        key = json.dumps(expressions.canonical(node))
        if key not in self._known:
            # The text comes from a vetted tree, see `expressions.parse`.
            query = f"SELECT {self.sql(node)} FROM {VIEW} LIMIT 0"  # noqa: S608
            self._known[key] = str(self.connection.execute(query).description[0][1])
        return self._known[key]

    def sql(self, node: Node) -> str:
        """Text of a node."""
        return expressions.write(node, self.connection)

    def show(self, node: Node) -> str:
        """Text and type, for a person."""
        return f"{self.sql(node)} ({self.of(node)})"

    def constant(self, node: Node, kind: str) -> float | None:
        """A constant as DuckDB casts it to a type; None of NULL."""
        query = f"SELECT CAST({self.sql(node)} AS {kind})"
        [[value]] = self.connection.execute(query).fetchall()
        return value  # type: ignore[no-any-return]  # DuckDB's results are untyped


def _check(name: str, tree: Node, types: _Types) -> str:
    """SQL of one cut after its types were checked."""
    field, connection = f"cuts.{name}", types.connection
    try:
        expressions.check_comparisons(field, tree, types.of, types.show)
        found = types.of(tree)
        if found != "BOOLEAN":
            raise InputError(field, "a boolean expression", f"one of type {found}")
        guarded = expressions.guard_comparisons(field, tree, types.of, connection)
        plain = expressions.write(guarded, connection)
        connection.execute(f"{_query(plain)} LIMIT 0")
        _try_constants(tree, types)
        sql = f"TRY({plain})"
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise  # its limits are told by who set them
    except duckdb.Error as error:
        raise InputError(field, "an expression that fits its columns", _first_line(error)) from None
    return sql


def _try_constants(tree: Node, types: _Types) -> None:
    """duckdb.Error where a cut's own text holds what cannot be read: a date that is none, a number
    of no type.

    All else that a cut may fail on is of some rows, of which it says nothing: `TRY` makes NULL of
    it. So what stands for columns is NULL here, not the whole row: `coalesce(x, 'none')` is fine
    where `CAST(coalesce(x, 'none') AS INTEGER)` fails on rows without x.
    """
    kinds: list[str] = []

    def unknown(node: Node) -> Node:
        kinds.append(types.of(node))
        return {**next(expressions.column_nodes(node)), "column_names": [f"c{len(kinds) - 1}"]}

    tried = [types.sql(part) for part in expressions.constant_parts(tree, unknown)]
    for case, constants in expressions.constant_results(tree):
        kind = types.of(case)
        # Whatever is plain can be text, and is not asked for: a CASE may have hundreds.
        asked = [c for c in constants if kind != "VARCHAR" or c["class"] != "CONSTANT"]
        tried += [f"CAST({types.sql(constant)} AS {kind})" for constant in asked]
    if tried:
        nulls = ", ".join(f"CAST(NULL AS {kind})" for kind in kinds) or "NULL"
        names = ", ".join(f"c{index}" for index in range(len(kinds) or 1))
        # Two rows: of one, DuckDB would put the NULLs into the text and look at nothing else.
        rows = f"(VALUES ({nulls}), ({nulls})) AS unknown({names})"
        # The text comes from a vetted tree, see `expressions.parse`.
        types.connection.execute(f"SELECT {', '.join(tried)} FROM {rows}").fetchnumpy()  # noqa: S608


def _query(sql: str) -> str:
    # The text comes from a vetted tree, see `expressions.parse`.
    return f"SELECT {sql} AS truth FROM {VIEW}"  # noqa: S608


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]

"""Which rows the files of a run hold: compared by SQL, with bounded memory, on the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow.dataset as pads

from lenspipe.catalogue import scores
from lenspipe.planning import Plan
from lenspipe.run_directory import RunDirectory

_TABLES = ("selected", "planned", "scored", "failed")
_SHOWN = 20  # a run that is wrong throughout is told by its first ids


def check_ids(run: RunDirectory, plan: Plan) -> Iterator[str]:
    """Every selected row is in the plan, and its id among scores and failures, as often as it was
    selected, and scored at most once."""
    tables = {
        "selected": run.part_names("select", run.commits("select")),
        "planned": [file.name for file in plan.files],
        "scored": run.part_names("scores", run.commits("score")),
        "failed": run.part_names("failures", run.commits("score")),
    }
    if not tables["planned"]:
        return  # then nothing was selected or scored: the records say so
    with scores.connect(run, tables["planned"], "planned") as connection:
        for table, names in tables.items():
            if table != "planned":
                _register(connection, run, table, names)
        wrong = connection.execute(_wrong_ids()).fetchall()
    for object_id, *counts in wrong:
        told = ", ".join(f"{table} {n}" for table, n in zip(_TABLES, counts, strict=True))
        yield f"object_id {object_id}: times {told}"
    if not wrong and not same_rows(run, tables["selected"], tables["planned"]):
        yield "plan: its rows are not those of select/"


def same_rows(run: RunDirectory, first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two sets of Parquet files hold the same rows as often, in whatever order.

    Of the second the columns of the first are looked at.
    Rows are compared by the sum of their 64-bit hashes, which needs no memory: proof against
    accidents, not against intent.
    """
    columns = scores.schema(run, first).names
    if not set(columns) <= set(scores.schema(run, second).names):
        return False
    row = ", ".join(_quoted(name) for name in columns)
    query = f"SELECT count(*), sum(hash({row})::HUGEINT) FROM"
    with scores.connect(run, first, "first") as connection:
        _register(connection, run, "second", second)
        totals = [
            connection.execute(f"{query} {table}").fetchall() for table in ("first", "second")
        ]
    return totals[0] == totals[1]


def _wrong_ids() -> str:
    counted = " UNION ALL ".join(
        f"SELECT object_id, {', '.join(f'{int(table == other)} AS {other}' for other in _TABLES)} "  # noqa: S608  # constants
        f"FROM {table}"
        for table in _TABLES
    )
    sums = ", ".join(f"sum({table})" for table in _TABLES)
    return (
        f"SELECT object_id, {sums} FROM ({counted}) GROUP BY object_id "  # noqa: S608  # constants
        "HAVING sum(selected) <> sum(planned) OR sum(planned) <> sum(scored) + sum(failed) "
        f"OR sum(scored) > 1 ORDER BY object_id LIMIT {_SHOWN}"
    )


def _register(
    connection: duckdb.DuckDBPyConnection, run: RunDirectory, table: str, names: Sequence[str]
) -> None:
    if not names:
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM planned LIMIT 0")  # noqa: S608
        return
    paths = [run.store.path(name) for name in names]
    connection.register(
        table, pads.dataset(paths, filesystem=run.store.arrow_filesystem(), format="parquet")
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

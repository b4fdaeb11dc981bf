"""Which rows the files of a run hold: compared by hashes, with bounded memory, on the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import duckdb
import numpy as np
import pyarrow as pa
from jaxtyping import UInt64

from lenspipe.catalogue import scores
from lenspipe.run_directory import RunDirectory
from lenspipe.stages.planning import Plan
from lenspipe.storage.external_sort import Scatter, pieces_of, stream

_TABLES = ("selected", "planned", "scored", "failed")
_SHOWN = 20  # a run that is wrong throughout is told by some ids
_LOOKED_AT = 1000
_ID = ["object_id"]


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
    with closing(_connect()) as connection:
        suspects = _suspects(run, connection, tables, plan.rows)
        wrong = _wrong_ids(run, connection, tables, suspects) if len(suspects) else []
    yield from wrong
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
    return _digest(run, first, columns) == _digest(run, second, columns)


def _digest(run: RunDirectory, parts: Sequence[str], columns: Sequence[str]) -> tuple[int, int]:
    """Rows, and the sum of their hashes."""
    row = ", ".join(_quoted(name) for name in columns)
    count = total = 0
    with closing(_connect()) as connection:
        for table in stream(run, parts, columns):
            connection.register("chunk", table)
            query = f"SELECT sum(hash({row})::HUGEINT) FROM chunk"  # noqa: S608  # quoted names
            [[summed]] = connection.execute(query).fetchall()
            count += table.num_rows
            total += int(summed)
    return count, total


def _connect() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def _suspects(
    run: RunDirectory,
    connection: duckdb.DuckDBPyConnection,
    tables: Mapping[str, Sequence[str]],
    rows: int,
) -> UInt64[np.ndarray, " k"]:
    """Hashes of ids that the tables hold in other numbers than they should; not all, if many."""
    pieces = np.uint64(pieces_of(3 * rows))
    found: list[int] = []
    with Scatter() as ids:
        for code, parts in enumerate(tables.values()):
            for table in stream(run, parts, _ID):
                hashed = scores.hash_column(connection, table["object_id"])
                columns = {"hash": hashed, "table": np.full(len(hashed), code, np.uint8)}
                ids.add(pa.table(columns), (hashed % pieces).astype(np.int64))
        for piece in ids.pieces():
            table = ids.read(piece)
            found += _uneven(table["hash"].to_numpy(), table["table"].to_numpy())
            if len(found) >= _LOOKED_AT:
                break
    return np.array(found[:_LOOKED_AT], np.uint64)


def _uneven(hashed: UInt64[np.ndarray, " n"], table: np.ndarray) -> list[int]:
    unique, inverse = np.unique(hashed, return_inverse=True)
    flat = np.bincount(inverse * len(_TABLES) + table, minlength=len(unique) * len(_TABLES))
    counts = flat.reshape(-1, len(_TABLES)).T
    return [int(value) for value in unique[_is_wrong(*counts)]]


def _is_wrong(
    selected: np.ndarray, planned: np.ndarray, scored: np.ndarray, failed: np.ndarray
) -> np.ndarray:
    wrong = (selected != planned) | (planned != scored + failed) | (scored > 1)
    return np.asarray(wrong)


def _wrong_ids(
    run: RunDirectory,
    connection: duckdb.DuckDBPyConnection,
    tables: Mapping[str, Sequence[str]],
    suspects: UInt64[np.ndarray, " k"],
) -> list[str]:
    """The ids behind the hashes, counted exactly: two ids may share a hash."""
    counts: dict[str, Counter[object]] = {}
    for name, parts in tables.items():
        counts[name] = Counter()
        for table in stream(run, parts, _ID):
            hashed = scores.hash_column(connection, table["object_id"])
            meant = table["object_id"].take(pa.array(np.flatnonzero(np.isin(hashed, suspects))))
            counts[name].update(meant.to_pylist())
    ids = sorted({key for counter in counts.values() for key in counter}, key=_order)
    lines = []
    for object_id in ids:
        times = [np.asarray(counts[name][object_id]) for name in _TABLES]
        if _is_wrong(*times):
            told = ", ".join(f"{name} {n}" for name, n in zip(_TABLES, times, strict=True))
            lines.append(f"object_id {object_id}: times {told}")
    return lines[:_SHOWN]


def _order(object_id: object) -> tuple[str, int | str]:
    """Numbers as numbers, all else as text; a damaged file may hold other types."""
    return ("", object_id) if isinstance(object_id, int) else ("x", str(object_id))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

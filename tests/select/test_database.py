"""Limits of time and memory of a cut, and what hostile cuts may not do."""

from __future__ import annotations

import pickle
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.errors import HopelessError, InputError
from lenspipe.select import database
from lenspipe.select.cuts import CutCount, compile_cuts
from lenspipe.select.database import Limits

SCHEMA = pa.schema([("g", pa.float32()), ("i", pa.float64()), ("name", pa.string())])


def _names(rows: int, length: int) -> pa.Table:
    return pa.table({"name": [f"{k}" + "a" * length for k in range(rows)]})


def test_a_cut_that_does_not_end_is_stopped_and_named() -> None:
    limits = Limits(seconds=0.5)
    cuts = compile_cuts(
        {"fine": "length(name) > 3", "slow": "regexp_matches(name, name)"}, SCHEMA, limits
    )
    began = time.monotonic()
    with pytest.raises(HopelessError) as caught:
        cuts.apply(_names(20_000, 2_000))
    assert time.monotonic() - began < 20  # the limit, one batch, a busy machine
    assert str(caught.value) == (
        "cuts.slow: expected no more than runtime.cut_timeout_s = 0.5 s for a part, "
        "found an evaluation that takes longer"
    )


def test_after_a_stopped_cut_the_database_serves_the_next() -> None:
    limits = Limits(seconds=0.2)
    slow = compile_cuts({"slow": "regexp_matches(name, name)"}, SCHEMA, limits)
    with pytest.raises(HopelessError):
        slow.apply(_names(20_000, 2_000))
    quick = compile_cuts({"quick": "length(name) > 3"}, SCHEMA, limits)
    assert len(quick.apply(_names(10, 3)).kept) == 10


def test_a_cut_that_needs_more_memory_is_stopped_and_named() -> None:
    cut = "upper(lower(upper(lower(name)))) > lower(upper(lower(upper(name))))"
    cuts = compile_cuts({"large": cut}, SCHEMA, Limits(memory_mb=8))
    # Each row is larger than those before it: the second attempt outgrows what the first took.
    names = pa.table({"name": ["a" * (megabytes << 20) for megabytes in (1, 4, 8, 8, 32, 48, 64)]})
    with pytest.raises(HopelessError, match=r"cuts\.large: .*runtime\.cut_memory_mb = 8,"):
        cuts.apply(names)


class _Growing:
    """A process that another thread makes larger once, and for good, while a cut runs."""

    def __init__(self) -> None:
        self.looks = 0

    def memory_info(self) -> SimpleNamespace:
        self.looks += 1
        return SimpleNamespace(rss=0 if self.looks == 1 else 1 << 40)


def test_a_cut_is_not_blamed_for_what_another_thread_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuts = compile_cuts({"fine": "upper(lower(upper(lower(name)))) > '5'"}, SCHEMA)
    table = _names(100_000, 100)
    wanted = [row for row in range(100_000) if str(row)[0] >= "5"]
    process, asked, once = _Growing(), [], database._ask_once
    monkeypatch.setattr("lenspipe.select.database.psutil.Process", lambda: process)

    def ask(*of: Any) -> Any:
        asked.append(database._gate._claimed)
        return once(*of)

    monkeypatch.setattr(database, "_ask_once", ask)
    assert cuts.apply(table).kept.tolist() == wanted
    assert asked == [False, True]  # the growth was seen; then it was asked alone


def test_a_cut_that_is_too_large_alone_is_asked_no_third_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuts = compile_cuts({"large": "lower(name) > 'A'"}, SCHEMA)
    asked = []

    def ask(field: str, *_: Any) -> None:
        asked.append(field)
        raise database.TooMuchMemoryError(field, "less", "more")

    monkeypatch.setattr(database, "_ask_once", ask)
    with pytest.raises(HopelessError, match=r"cuts\.large"):
        cuts.apply(_names(3, 3))
    assert asked == ["cuts.large"] * 2
    with database._gate.shared():
        pass  # nobody holds it


def test_who_is_alone_waits_for_the_others_and_they_for_him() -> None:
    gate, order = database._Gate(), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def shares(name: str) -> None:
        with gate.shared():
            inside.set()
            order.append(name)
            assert leave.wait(20)

    def alone() -> None:
        with gate.alone():
            order.append("alone")

    first = threading.Thread(target=shares, args=("first",))
    first.start()
    assert inside.wait(20)
    second = threading.Thread(target=alone)
    second.start()
    while not gate._claimed:
        time.sleep(0.001)
    third = threading.Thread(target=shares, args=("third",))
    third.start()
    time.sleep(0.05)
    assert order == ["first"]
    leave.set()
    for thread in (first, second, third):
        thread.join(20)
    assert order == ["first", "alone", "third"]


def test_the_error_of_a_limit_goes_through_a_pickle() -> None:
    error = database.TooMuchMemoryError("cuts.a", "less", "more")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # as Ray brings it to the driver
    assert isinstance(again, HopelessError)
    assert str(again) == str(error)


@pytest.mark.parametrize(
    "cut",
    [
        "name IN (SELECT content FROM read_text('/etc/passwd'))",
        "g > (WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) SELECT max(n) FROM t)",
        "EXISTS (SELECT * FROM range(1000000000000))",
        "len(range(1000000000000)) > g",
        "repeat(name, 2000000000) = 'a'",
        "lpad(name, 2000000000, 'x') = 'a'",
        "list_sum(generate_series(1, 1000000000)) > g",
        "array_length([1, 2, 3]) > g",
        "name = getenv('HOME')",
        "read_csv('/etc/passwd') IS NULL",
        "nextval('s') > g",
        "pg_sleep(1000) IS NULL",
        "g > 1; COPY part TO '/tmp/x'",
        "g > 1; INSTALL httpfs",
        "g > 1; SET memory_limit = '1TB'",
        "printf('%1000000000d', 1) = name",
        "format('{:>1000000000}', name) = name",
        "name SIMILAR TO (SELECT 'a')",
        "error('x') = name",
        "query('SELECT 1') > g",
        "'/etc/passwd'.content = name",
        "regexp_replace(name, '', repeat('x', 10000), 'g') = 'a'",
        "concat(name, name) > 'a'",
        "name || name > 'a'",
    ],
)
def test_hostile_cuts_are_refused_before_they_run(cut: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError) as caught:
        compile_cuts({"fine": "g > 1", "hostile": cut}, SCHEMA)
    assert caught.value.field == "cuts.hostile"
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "cut",
    [
        "name LIKE '" + "%a_" * 300 + "b'",
        "name ILIKE '" + "%_a" * 300 + "%b'",
        "regexp_matches(name, '(a*)*(a*)*b$')",
        "regexp_matches(name, '((a?){30}){30}b$')",
        "(" * 150 + "length(name) > 1" + ")" * 150,
        " AND ".join(["length(name) > 1"] * 300),
    ],
)
def test_cuts_that_look_costly_end_or_are_refused_in_one_line(cut: str) -> None:
    try:
        compiled = compile_cuts({"odd": cut}, SCHEMA, Limits(seconds=2.0))
        found = compiled.apply(_names(3_000, 200)).removed["odd"]
        assert found.false + found.unknown <= 3_000
    except InputError as error:
        assert error.field == "cuts.odd"
        assert "\n" not in str(error)


def test_text_that_is_no_utf8_is_unknown_to_a_cut_and_harms_no_other_row() -> None:
    raw = pa.array([b"good", b"\xff\xfe", None, b"also good"], pa.binary())
    names = pa.Array.from_buffers(pa.string(), 4, raw.buffers(), null_count=1)
    table = pa.table({"name": names, "g": np.ones(4, np.float32)})
    cuts = compile_cuts({"text": "lower(name) LIKE '%good'"}, SCHEMA)
    result = cuts.apply(table)
    assert result.kept.tolist() == [0, 3]
    assert result.removed["text"] == CutCount(unknown=2)

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import CorruptRunError, InputError, LenspipeError, StoppedError
from lenspipe.serve.grades.databases.sqlite import SqliteDatabase
from lenspipe.serve.grades.event import NewEvent
from lenspipe.serve.grades.scheme import DEFAULT, Grade, Scheme
from lenspipe.serve.grades.store import GradeStore, Hidden, open_store

WRITER = Path(__file__).parent / "writer.py"
ROOT = Path(__file__).parents[3]


def given_grade(key: str, object_id: int | str = 7, grade: str = "A", who: str = "ana") -> NewEvent:
    return NewEvent(key, who, "grade", object_id, grade, view="single", seconds_looked=1.25)


def test_what_was_stored_is_read(where: str) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
    new = [
        given_grade("1", 2**64 - 1),
        NewEvent("2", "ana", "comment", "J1 – ring?", comment='é "x"\n% ? \'', time_utc=at),
        NewEvent("3", "ana", "flag", "7", view="mosaic"),
        NewEvent("4", "ana", "undo"),
        NewEvent("4", "bo", "unflag", 7),
        NewEvent("5", "bo", "seen", -7),
    ]
    with open_store(where) as store:
        before = datetime.now(UTC)
        stored = store.append_all(new)
        assert [each.event.content() for each in stored] == [each.content() for each in new]
        assert [each.event.id for each in stored] == [1, 2, 3, 4, 5, 6]
        assert stored[1].event.time_utc == at
        assert abs(stored[0].event.time_utc - before) < timedelta(seconds=30)
        assert store.append_all([]) == []
    with open_store(where) as store:
        assert store.events() == [each.event for each in stored]
        assert [event.id for event in store.events(after=2, grader="ana")] == [3, 4]
        assert store.count() == 6


def test_a_resend_is_stored_once(where: str) -> None:
    with open_store(where) as store:
        first = store.append(given_grade("k"))
        again = store.append(given_grade("k"))
        assert (first.repeated, again.repeated) == (False, True)
        assert again.event == first.event
        other = store.append(given_grade("k", who="bo"))
        assert (other.repeated, other.event.id) == (False, 2)
        with pytest.raises(InputError, match=r"^key: expected one that the grader did not use"):
            store.append_all([given_grade("new"), given_grade("k", grade="B")])
        assert store.count() == 2, "of events that belong together all or none are kept"
        twice = store.append_all([given_grade("m"), given_grade("m"), given_grade("n")])
        assert [each.event.id for each in twice] == [3, 3, 4]


def test_nothing_is_changed_or_deleted(where: str) -> None:
    with open_store(where) as store:
        store.append(given_grade("1"))
        store.add_hidden([Hidden(1, True)])
        for table in ("events", "hidden"):
            for statement in (
                "DELETE FROM lenspipe_grade_{}",
                "UPDATE lenspipe_grade_{} SET kind = ''",
            ):
                with pytest.raises(LenspipeError, match="nothing is ever"):
                    store._database.read(statement.format(table))
        assert store.count() == 1


def test_the_scheme_is_kept_and_may_only_grow(where: str) -> None:
    other = Scheme(
        grades=(
            Grade(name="lens", key="l", value=1.0),
            Grade(name="A", key="a", value=0.5),
            Grade(name="no", key="n", value=0.0),
        )
    )
    with open_store(where) as store:
        assert store.scheme() == DEFAULT
        with pytest.raises(InputError, match=r"^grade: expected one of A, B, C, X, found 'lens'"):
            store.append(given_grade("0", grade="lens"))
        store.append(given_grade("1", grade="A"))
        store.set_scheme(other)
        store.set_scheme(other)
        store.append(given_grade("2", grade="lens"))
        with pytest.raises(InputError, match=r"^scheme: expected grade 'lens', which was given"):
            store.set_scheme(DEFAULT)
    with open_store(where, writable=False) as store:
        assert store.scheme() == other


def test_hidden_objects_keep_their_truth(where: str) -> None:
    objects = [Hidden(3, False, "spiral"), Hidden("3", True, "simulated_lens")]
    with open_store(where) as store:
        assert store.add_hidden([*objects, objects[0]]) == 2
        assert store.add_hidden(objects) == 0
        assert set(store.hidden()) == set(objects)
        with pytest.raises(InputError, match=r"^hidden object 3: expected the truth as before"):
            store.add_hidden([Hidden(3, True)])


def test_threads_write_at_once(where: str) -> None:
    with open_store(where) as store, open_store(where) as other, ThreadPoolExecutor(4) as pool:

        def write(k: int) -> int:
            mine = store if k % 2 else other
            return mine.append(given_grade(str(k), k, who=f"g{k % 3}")).event.id

        ids = list(pool.map(write, range(60)))
        assert sorted(ids) == list(range(1, 61))
        assert [event.id for event in store.events()] == sorted(ids)


def test_nothing_acknowledged_is_lost_by_a_kill(where: str, tmp_path: Path) -> None:
    """Two processes write to one store, and both are killed at a random moment, again and again."""
    draw = random.Random(5)
    acknowledged = dict[str, int]()
    with _starter(where) as start:
        for turn in range(4):
            outs = [tmp_path / f"{turn}-{k}" for k in range(2)]
            pids = [start(out) for out in outs]
            _wait_until(partial(_all, _is_begun, outs))
            time.sleep(draw.uniform(0.0, 0.2))
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            _wait_until(partial(_all, _is_gone, pids))
            # A line that was cut short was not told to anybody.
            acknowledged |= {out.name: out.read_text().count("\n") for out in outs}
    with open_store(where) as store:
        events = store.events()
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    for name, n in acknowledged.items():
        kept = [event.key for event in events if event.grader == name]
        assert kept == [f"{name}-{k}" for k in range(len(kept))], "none twice, and no gap"
        assert n <= len(kept) <= n + 1, "the last one may have been stored and not yet told"


@contextmanager
def _starter(where: str) -> Iterator[Callable[[Path], int]]:
    """Starts a process that writes; its id."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    with subprocess.Popen(
        [sys.executable, WRITER, where],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as launcher:
        sent, told = launcher.stdin, launcher.stdout
        assert sent is not None
        assert told is not None

        def start(out: Path) -> int:
            sent.write(f"{out.name} {out}\n")
            sent.flush()
            return int(told.readline())

        yield start


def _is_begun(out: Path) -> bool:
    return out.exists() and out.stat().st_size > 0


def _is_running(pid: int) -> bool:
    """Whether a process still does anything; one that its parent has not buried does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_gone(pid: int) -> bool:
    return not _is_running(pid)


def _all(holds: Callable[[Any], bool], each: Sequence[object]) -> bool:
    return all(map(holds, each))


def _wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def _open_and_write(where: str, k: int) -> None:
    with open_store(where) as store:
        store.append(given_grade(str(k), k))


def test_processes_may_make_one_store_at_once(tmp_path: Path) -> None:
    where = str(tmp_path / "grades.sqlite")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_open_and_write, args=(where, k)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with open_store(where) as store:
        assert sorted(event.key for event in store.events()) == [str(k) for k in range(8)]


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "grades.sqlite")
    assert database.read("PRAGMA journal_mode") == [("wal",)]
    assert database.read("PRAGMA synchronous") == [(2,)]  # FULL
    database.close()


def test_a_full_disk_keeps_what_was_stored(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "grades.sqlite")
    store = GradeStore(database)
    store.append(given_grade("1"))
    [[pages]] = database.read("PRAGMA page_count")
    database.read(f"PRAGMA max_page_count = {pages}")
    long = [NewEvent(f"c{k}", "ana", "comment", 1, comment="x" * 9000) for k in range(3)]
    with pytest.raises(StoppedError, match="full"):
        store.append_all(long)
    assert store.count() == 1
    database.read("PRAGMA max_page_count = 100000")
    store.append_all(long)
    assert store.count() == 4
    store.close()


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "grades.sqlite"
    with pytest.raises(InputError, match="expected a file with grades, found none"):
        open_store(path, writable=False)
    assert not path.exists()
    with open_store(path) as store:
        store.append(given_grade("1"))
        with open_store(path, writable=False) as reader:
            assert reader.count() == 1
            with pytest.raises(StoppedError, match="readonly"):
                reader.append(given_grade("2"))
            store.append(given_grade("3"))
            assert reader.count() == 2, "a reader beside a writer sees what was stored since"
    with open_store(path, writable=False) as reader:
        assert reader.count() == 2


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file on a local disk, or a postgresql"):
        open_store("s3://bucket/run/grades.sqlite")
    with pytest.raises(InputError, match="expected a folder that is there"):
        open_store(tmp_path / "none" / "grades.sqlite")
    (tmp_path / "text").write_text("not a database, and longer than the header of one " * 10)
    with pytest.raises(CorruptRunError, match="not a database"):
        open_store(tmp_path / "text")
    connection = sqlite3.connect(tmp_path / "other.sqlite")
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="found a database of something else"):
        open_store(tmp_path / "other.sqlite")
    store = open_store(tmp_path / "grades.sqlite")
    store.close()
    with pytest.raises(StoppedError, match="closed"):
        store.count()


def test_a_password_is_not_told() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoppedError) as raised:
        open_store("postgresql://me:planted@127.0.0.1:1/db")
    assert "planted" not in str(raised.value)


def test_a_lost_connection_is_made_anew(postgres: str) -> None:
    with open_store(postgres) as store, open_store(postgres) as other:
        n = store.count()
        other._database.read(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
        )
        store.append(given_grade(f"after {n}"))
        assert store.count() == n + 1


KEYS = st.sampled_from(["a", "b", "c", "d"])


@settings(max_examples=25, deadline=None)
@given(
    sent=st.lists(st.tuples(st.sampled_from(["ana", "bo"]), KEYS, st.integers(1, 3)), max_size=12)
)
def test_however_often_it_is_sent_each_is_counted_once(
    sent: list[tuple[str, str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A key is always of the same thing here: its place among the letters."""
    with open_store(tmp_path_factory.mktemp("resend") / "grades.sqlite") as store:
        for who, key, times in sent:
            for _ in range(times):
                store.append(given_grade(key, "abcd".index(key), who=who))
        found = [(event.grader, event.key) for event in store.events()]
        assert found == list(dict.fromkeys((who, key) for who, key, _ in sent))

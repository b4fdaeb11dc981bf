"""A folder that is put whole on an object store: many files at once, the one that counts last."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lenspipe.catalogue import whole_folder
from lenspipe.catalogue.whole_folder import replacing
from lenspipe.storage.store import Store

LAST = "zarr.json"
FILES = [LAST, *(f"images/c/{index}" for index in range(60)), "images/large"]


class SlowPuts:
    """Puts of an object store as they come: names in the order in which they ended, the most that
    were under way at once. fails: the put of this name is refused."""

    def __init__(self, store: Store, fails: str | None = None) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most = 0
        self._fails = fails
        self._under_way = 0
        self._lock = threading.Lock()
        self._put: Callable[[str, str], None] = store.fs.put_file

    def __call__(self, local: str, remote: str) -> None:
        name = remote.partition("/run/candidates/")[2]
        with self._lock:
            self.begun.append(name)
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        time.sleep(0.01)
        with self._lock:
            self._under_way -= 1
        if name == self._fails:
            raise OSError("refused")
        self._put(local, remote)
        self.ended.append(name)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An object store with an older folder in it."""
    monkeypatch.setattr(whole_folder, "_SMALL_BYTES", 10)
    made = Store(f"memory://{tmp_path.name}/run")
    for name in (LAST, "images/older"):
        made.write(f"candidates/{name}", b"old")
    return made


def put_all(store: Store) -> None:
    with replacing(store, "candidates", LAST) as folder:
        for name in FILES:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode() * (4 if name.endswith("large") else 1))


def test_files_go_up_at_once_and_the_one_that_readers_look_for_goes_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_folder, "_SMALL_BYTES", 20)
    puts = SlowPuts(store)
    monkeypatch.setattr(store.fs, "put_file", puts)
    put_all(store)
    assert store.names("candidates") == sorted(f"candidates/{name}" for name in FILES)
    assert store.read("candidates/images/c/7") == b"images/c/7"
    assert 1 < puts.most <= 16
    assert puts.begun[-1] == LAST
    assert set(puts.ended[:-1]) == {*FILES} - {LAST}


def test_large_files_are_not_held_in_memory_together(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_folder, "_SMALL_BYTES", 1)
    puts = SlowPuts(store)
    monkeypatch.setattr(store.fs, "put_file", puts)
    put_all(store)
    assert puts.most == 1


def test_a_run_that_lost_its_lock_puts_no_further_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LostError(Exception):
        pass

    puts = SlowPuts(store)
    monkeypatch.setattr(store.fs, "put_file", puts)
    asked = []

    def check() -> None:
        if len(puts.begun) >= 20:
            asked.append(len(puts.begun))
            raise LostError

    store.before_change = check
    with pytest.raises(LostError):
        put_all(store)
    assert len(asked) == 1
    assert len(puts.begun) <= 20 + 16  # those that had asked before
    assert LAST not in puts.begun
    assert not store.exists(f"candidates/{LAST}")


def test_the_first_error_is_raised_and_none_begins_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = SlowPuts(store, fails="images/c/0")
    monkeypatch.setattr(store.fs, "put_file", puts)
    with pytest.raises(OSError, match="refused"):
        put_all(store)
    assert len(puts.begun) < len(FILES) - 10
    assert not store.exists(f"candidates/{LAST}")

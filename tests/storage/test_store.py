from __future__ import annotations

import errno
import os
import pickle
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from lenspipe.errors import InputError
from lenspipe.storage.remote import OutageError
from lenspipe.storage.store import Store, is_damage, is_storage_fault


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same code on a disk and on an object store."""
    if request.param == "local":
        return Store(str(tmp_path / "run"))
    fsspec.filesystem("memory").store.clear()
    return Store(f"memory://{tmp_path.name}/run")


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    assert store.read("a/b.bin") == b"two"
    assert store.size("a/b.bin") == 3
    assert store.names() == ["a/b.bin"]
    assert pickle.loads(pickle.dumps(store)).read("a/b.bin") == b"two"  # noqa: S301  # our own


def test_a_large_file_becomes_visible_when_it_is_whole(store: Store) -> None:
    with store.writing("big") as path:
        path.write_bytes(b"half")
        assert not store.exists("big")
        path.write_bytes(b"whole")
    assert store.read("big") == b"whole"


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing("big") as path:
        path.write_bytes(b"half")
        raise RuntimeError
    assert not store.exists("big")
    assert store.names() == []


def test_create_takes_a_name_once(store: Store) -> None:
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"yours")
    assert store.read("lock") == b"mine"


def test_swap_replaces_what_was_seen_and_nothing_newer(store: Store) -> None:
    store.write("lock", b"theirs")
    content, tag = store.tagged("lock")
    assert content == b"theirs"
    assert store.swap("lock", b"mine", tag)
    assert not store.swap("lock", b"late", tag)
    assert store.read("lock") == b"mine"
    assert not store.swap("none", b"mine", tag)
    with pytest.raises(FileNotFoundError):
        store.tagged("none")


def test_a_create_whose_reply_was_lost_is_known_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"memory://{tmp_path.name}/lost")
    put = store.fs.pipe_file

    def reply_lost(path: str, data: bytes, mode: str) -> None:
        if not store.fs.exists(path):
            put(path, data)
        raise FileExistsError(path)  # what the second try of the same request meets

    monkeypatch.setattr(store.fs, "pipe_file", reply_lost)
    assert store.create("lock", b"mine")
    assert not store.create("lock", b"another's")


@pytest.mark.parametrize("write", ["write", "writing", "create"])
def test_a_file_is_on_the_disk_before_it_is_visible_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    synced: list[tuple[str, bool]] = []
    target = tmp_path / "a" / "b"

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((kind, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    store = Store(str(tmp_path))
    if write == "writing":
        with store.writing("a/b") as path:
            path.write_bytes(b"x")
    else:
        getattr(store, write)("a/b", b"x")
    assert synced == [("file", False), ("folder", True)]


def test_a_create_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Store(str(tmp_path)).create("lock", b"mine")
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # hidden files too


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.delete("nothing")
    store.delete_folder("nothing")
    assert store.names("nothing") == []


def test_files_of_a_killed_writer_are_not_seen_and_are_removed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("select/whole", b"1")
    (tmp_path / "select" / ".tmp-0123456789ab-part").write_bytes(b"half")
    assert store.names() == ["select/whole"]
    assert store.delete_unfinished(["select"]) == 1
    assert os.listdir(tmp_path / "select") == ["whole"]  # noqa: PTH208  # hidden files too


def test_a_folder_of_a_killed_writer_is_not_seen_and_is_removed(store: Store) -> None:
    store.write("catalogue/whole", b"1")
    store.write("mine.tmp-notes/whole", b"1")
    for name in ("dataset/part", "dataset/_metadata"):
        store.write(f"catalogue.tmp-0123456789ab/{name}", b"half")
    kept = ["catalogue/whole", "mine.tmp-notes/whole"]
    assert store.names() == kept
    assert store.delete_unfinished(["catalogue"]) == 1
    assert sorted(path[len(store.root) + 1 :] for path in store.fs.find(store.root)) == kept
    assert not store.fs.exists(store.path("catalogue.tmp-0123456789ab"))


def test_what_an_object_store_refuses_is_a_fault_of_storage() -> None:
    class EndpointConnectionError(Exception):
        """As botocore has it: no OSError."""

    EndpointConnectionError.__module__ = "botocore.exceptions"
    assert is_storage_fault(EndpointConnectionError())
    assert is_storage_fault(PermissionError())
    assert not is_storage_fault(ValueError())


def test_a_store_asks_before_each_change_and_changes_nothing_where_it_is_refused(
    tmp_path: Path,
) -> None:
    """As a run's driver does, whose lock another process took."""

    class LostError(Exception):
        pass

    def refuse() -> None:
        raise LostError

    store = Store(str(tmp_path))
    store.write("a", b"1")
    store.before_change = refuse
    for change in (
        lambda: store.write("a", b"2"),
        lambda: store.create("b", b"2"),
        lambda: store.delete("a"),
        lambda: store.delete_folder(""),
        lambda: store.delete_unfinished([]),
    ):
        with suppress(LostError):
            change()
    with pytest.raises(LostError), store.writing("c") as path:
        path.write_bytes(b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"1"}
    assert store.read("a") == b"1"
    pickle.loads(pickle.dumps(store)).write("a", b"2")  # noqa: S301  # our own bytes
    assert store.read("a") == b"2"  # workers write parts, which count by the driver's word alone


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (FileNotFoundError("x"), True),
        (OSError("Corrupt snappy compressed data."), True),
        (pa.ArrowInvalid("no magic bytes"), True),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "x"), True),
        (RuntimeError("Zstd decompression error"), True),
        (OSError(errno.EIO, "x"), False),
        (PermissionError(errno.EACCES, "x"), False),
        (OutageError("x"), False),
    ],
    ids=repr,
)
def test_what_is_lost_is_told_from_storage_that_refuses(
    tmp_path: Path, error: Exception, loss: bool
) -> None:
    store = Store(str(tmp_path / "run"))
    store.write("a", b"")
    assert store.is_loss(error) is loss


@pytest.mark.parametrize(
    ("error", "damage"),
    [
        (pa.ArrowInvalid("no magic bytes"), True),
        (OSError("Corrupt snappy compressed data."), True),
        (OSError(errno.EIO, "x"), False),
        (pa.ArrowNotImplementedError("no kernel"), False),
        (pa.ArrowTypeError("not of this type"), False),
        (pa.ArrowMemoryError("malloc failed"), False),
    ],
    ids=repr,
)
def test_what_arrow_cannot_do_is_no_damage(error: Exception, damage: bool) -> None:
    assert is_damage(error) is damage


def test_no_file_is_lost_where_the_folder_is_away(tmp_path: Path) -> None:
    assert not Store(str(tmp_path / "unmounted")).is_loss(FileNotFoundError("x"))


def test_a_fifo_keeps_no_reader_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(InputError, match="a: expected a regular file, found a FIFO"):
        Store(str(tmp_path)).read("a")


def test_a_folder_is_deleted_by_its_name_and_no_pattern(tmp_path: Path) -> None:
    """`run[1]`, taken for a pattern, is `run1`."""
    odd, other = (Store(f"memory://{tmp_path.name}/{name}") for name in ("run[1]", "run1"))
    for store in (odd, other):
        for name in ("report/a", "report/deep/b", "kept"):
            store.write(name, b"x")
    odd.delete_folder("report")
    assert odd.names() == ["kept"]
    assert other.names() == ["kept", "report/a", "report/deep/b"]


def test_names_are_taken_as_there_is_room_for_them(tmp_path: Path) -> None:
    """100,000 files do not wait in memory, and none is taken after an error."""
    taken = 0

    def names() -> Iterator[str]:
        nonlocal taken
        for k in range(100_000):
            taken += 1
            yield str(k)

    def refused(name: str) -> None:
        raise PermissionError(name)

    with pytest.raises(PermissionError):
        Store(str(tmp_path)).side_by_side(refused, names())
    assert taken <= 32
    done: list[str] = []
    Store(str(tmp_path)).side_by_side(done.append, map(str, range(100)))
    assert sorted(done, key=int) == list(map(str, range(100)))

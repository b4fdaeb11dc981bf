"""Faults of one catalogue file: damage fails its rows, an outage of the storage passes through."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe.config import Sources
from lenspipe.errors import InputError, StoppedError
from lenspipe.select import parquet_file
from lenspipe.select.sources import SourcePart, View, list_parts, open_view, read_part
from lenspipe.storage.store import is_storage_fault

COLUMNS = ("object_id", "ra", "dec", "mag", "kind")
OUTAGES = [
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ETIMEDOUT, "Connection timed out"),
    OSError(errno.EMFILE, "Too many open files"),
    PermissionError(errno.EACCES, "Permission denied"),
    ConnectionResetError("reset by peer"),
    TimeoutError("no answer"),
]


def _write(path: Path, **options: Any) -> Path:
    ids = np.arange(2000)
    table = pa.table(
        {
            "object_id": [f"id {k}" for k in ids],
            "ra": ids % 360 * 1.0,
            "dec": ids % 90 * 1.0,
            "mag": pa.array(ids * 0.1, mask=ids % 7 == 0),
            "kind": pa.array([("a", "b", "c")[k % 3] for k in ids]).dictionary_encode(),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=500, **options)
    return path


def _planned(path: Path) -> tuple[View, SourcePart]:
    sources = Sources(path=str(path))
    view, (part,) = open_view(sources, "."), list_parts(sources, ".")
    return view, part


@pytest.fixture(autouse=True)
def _no_footer_is_remembered() -> Iterator[None]:
    parquet_file.footer.cache_clear()
    yield
    parquet_file.footer.cache_clear()


def _replace(path: Path, content: bytes) -> None:
    """Other bytes of the same length, behind the same time: damage that no fingerprint tells."""
    status = path.stat()
    assert len(content) == status.st_size
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


class _Failing:
    """A file that can be opened and not read."""

    def __init__(self, error: Exception, size: int) -> None:
        self.error, self.size, self.closed, self.position = error, size, False, 0

    def read(self, _count: int = -1) -> bytes:
        raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + (self.size if whence == os.SEEK_END else 0)
        return self.position

    def tell(self) -> int:
        return self.position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("error", OUTAGES, ids=lambda e: type(e).__name__ + str(e.errno))
@pytest.mark.parametrize("when", ["open", "read", "compare"])
def test_an_outage_while_reading_stays_a_fault_of_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, when: str
) -> None:
    view, part = _planned(_write(tmp_path / "a.parquet"))

    @contextmanager
    def stream(_path: str) -> Iterator[Any]:
        if when == "open":
            raise error
        yield _Failing(error, part.slices[0].file.size_bytes)

    def compare(_path: str) -> tuple[int, str]:
        raise error

    undisturbed = read_part(part, view, COLUMNS)
    with monkeypatch.context() as patch:
        if when == "compare":
            patch.setattr(parquet_file, "fingerprint", compare)
        else:
            patch.setattr(parquet_file, "_stream", stream)
        with pytest.raises(type(error)) as caught:
            read_part(part, view, COLUMNS)
    assert is_storage_fault(caught.value)
    assert not isinstance(caught.value, InputError)
    assert read_part(part, view, COLUMNS).equals(undisturbed)


@pytest.mark.parametrize("error", OUTAGES[:4], ids=lambda e: errno.errorcode[e.errno])
def test_an_outage_while_planning_stops_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    _write(tmp_path / "a.parquet")

    def stream(_path: str) -> None:
        raise error

    monkeypatch.setattr(parquet_file, "_stream", stream)
    with pytest.raises(StoppedError, match="the same command resumes") as caught:
        open_view(Sources(path=str(tmp_path)), ".")
    assert "a.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named_while_planning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "a.parquet")

    def stream(_path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(parquet_file, "_stream", stream)
    with pytest.raises(InputError, match=r"a\.parquet: .*Permission denied"):
        list_parts(Sources(path=str(tmp_path)), ".")


def test_too_many_open_files_are_an_outage_that_passes(tmp_path: Path) -> None:
    view, part = _planned(_write(tmp_path / "a.parquet"))
    undisturbed = read_part(part, view, COLUMNS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files") as caught:
            read_part(part, view, COLUMNS)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE
    assert is_storage_fault(caught.value)
    assert read_part(part, view, COLUMNS).equals(undisturbed)


def test_a_file_gone_from_among_others_is_bad_and_a_folder_gone_empty_is_an_outage(
    tmp_path: Path,
) -> None:
    path = _write(tmp_path / "cat" / "a.parquet")
    view, part = _planned(path)
    beside = _write(tmp_path / "cat" / "b.parquet")
    path.unlink()
    with pytest.raises(InputError, match=r"a\.parquet: expected the file as planned"):
        read_part(part, view, COLUMNS)
    beside.unlink()
    with pytest.raises(FileNotFoundError):
        read_part(part, view, COLUMNS)
    path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        read_part(part, view, COLUMNS)


def test_a_file_that_changes_under_the_reader_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.parquet")
    view, part = _planned(path)
    honest = parquet_file._stream

    @contextmanager
    def rewritten_after_opening(name: str) -> Iterator[Any]:
        with honest(name) as stream:
            _write(path, compression="zstd")
            yield stream

    monkeypatch.setattr(parquet_file, "_stream", rewritten_after_opening)
    with pytest.raises(InputError, match="expected the file as planned"):
        read_part(part, view, COLUMNS)


def _flip_pages(rng: np.random.Generator, content: bytes, footer: int) -> bytes:
    return _flip(rng, content, 4, len(content) - 8 - footer)


def _flip_footer(rng: np.random.Generator, content: bytes, footer: int) -> bytes:
    return _flip(rng, content, len(content) - 8 - footer, len(content))


def _flip(rng: np.random.Generator, content: bytes, start: int, stop: int) -> bytes:
    bent = bytearray(content)
    bent[rng.integers(start, stop)] ^= 1 << int(rng.integers(8))
    return bytes(bent)


def _outcome(view: View, part: SourcePart) -> pa.Table | None:
    """What is read; None where the file is named in one line."""
    parquet_file.footer.cache_clear()
    try:
        return read_part(part, view, COLUMNS)
    except InputError as error:
        assert "a.parquet" in str(error)
        assert "\n" not in str(error)
        return None


@pytest.mark.parametrize("seed", [7])
@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_flipped_bit_in_a_page_with_a_checksum_is_found(
    tmp_path: Path, compression: str, seed: int
) -> None:
    path = _write(tmp_path / "a.parquet", compression=compression, write_page_checksum=True)
    view, part = _planned(path)
    undisturbed, good = read_part(part, view, COLUMNS), path.read_bytes()
    rng, found = np.random.default_rng(seed), 0
    for _ in range(25):
        _replace(path, _flip_pages(rng, good, int.from_bytes(good[-8:-4], "little")))
        table = _outcome(view, part)
        assert table is None or table.equals(undisturbed)  # a bit of a page's statistics is no data
        found += table is None
    assert found > 15


@pytest.mark.parametrize("seed", [8])
@pytest.mark.parametrize("flip", [_flip_pages, _flip_footer])
@pytest.mark.parametrize("compression", ["snappy", "none"])
def test_a_flipped_bit_without_a_checksum_gives_the_rows_or_one_line(
    tmp_path: Path,
    compression: str,
    flip: Callable[[np.random.Generator, bytes, int], bytes],
    seed: int,
) -> None:
    path = _write(tmp_path / "a.parquet", compression=compression)
    view, part = _planned(path)
    good = path.read_bytes()
    rng = np.random.default_rng(seed)
    named = 0
    for _ in range(25):
        _replace(path, flip(rng, good, int.from_bytes(good[-8:-4], "little")))
        table = _outcome(view, part)
        assert table is None or table.num_rows == part.rows
        named += table is None
    assert named > 0


@pytest.mark.parametrize("kept", [0, 3, 8, 0.2, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, kept: float) -> None:
    path = _write(tmp_path / "a.parquet")
    view, part = _planned(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(InputError, match="expected the file as planned"):
        read_part(part, view, COLUMNS)
    with pytest.raises(InputError, match=r"a\.parquet: expected readable Parquet"):
        list_parts(Sources(path=str(path)), ".")


def test_a_footer_that_tells_of_other_rows_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet")
    view, part = _planned(path)
    ids = pa.array([f"id {k}" for k in range(300)])
    other = tmp_path / "other.parquet"
    pq.write_table(
        pa.table({"object_id": ids, "ra": np.zeros(300), "dec": np.zeros(300)}),
        other,
        row_group_size=100,
    )
    shorter = other.read_bytes()
    _replace(path, b"PAR1" + bytes(path.stat().st_size - len(shorter) - 4) + shorter)
    with pytest.raises(InputError, match=r"a\.parquet: expected"):
        read_part(part, view, ["object_id"])

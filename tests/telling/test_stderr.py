"""Standard error breaks; the work and its exit status do not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

import pytest

from lenspipe.run_directory import ShardRecord
from lenspipe.telling.progress import make_progress
from lenspipe.telling.stderr import forgiving

RECORD = ShardRecord(stage="score", start=0, stop=5, rows_in=5, rows_out=5, rows_failed=0)


@contextmanager
def _full() -> Iterator[TextIO]:
    stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", encoding="utf-8")
    yield stream
    with pytest.raises(OSError, match="No space"):
        stream.close()  # what was dropped stays with the stream


@contextmanager
def _reader_gone() -> Iterator[TextIO]:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w", encoding="utf-8")
    yield stream
    with pytest.raises(BrokenPipeError):
        stream.close()


@contextmanager
def _closed() -> Iterator[TextIO]:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w", encoding="utf-8")
    stream.close()
    os.close(reader)
    yield stream


@pytest.mark.parametrize("broken", [_full, _reader_gone])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_goes_on_where_it_cannot_be_written(
    broken: Callable[[], AbstractContextManager[TextIO]],
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with broken() as stream:
        monkeypatch.setattr(stream, "isatty", lambda: terminal)
        with make_progress(stream) as progress:
            progress.run_started("toy", "run")
            progress.stage_started("score", 10, 0)
            progress.committed(RECORD)
            progress.retried("score", "why")
            progress.message("look here")
            progress.stage_finished("score")
            progress.run_finished("done", {"scored": 5})


def test_a_closed_stream_is_a_stream_that_drops_all() -> None:
    with _closed() as stream:
        out = forgiving(stream)
        assert out.write("text") == 4
        out.flush()


def _status(stderr: int) -> int:
    """Of a command that there is not: one line on standard error, status 2."""
    command = [sys.executable, "-m", "lenspipe", "nonsense"]
    return subprocess.run(command, stderr=stderr, stdout=subprocess.DEVNULL, check=False).returncode


def test_an_exit_status_does_not_depend_on_standard_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    assert [_status(descriptor) for descriptor in (writer, full)] == [2, 2]
    os.close(writer)
    os.close(full)

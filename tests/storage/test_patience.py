from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lenspipe.errors import CorruptRunError, StoppedError
from lenspipe.storage.patience import patiently


def test_a_commit_waits_for_storage_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr("lenspipe.storage.patience.sleep", rests.append)

    def call() -> str:
        if len(rests) < 3:
            raise OSError(28, "no space left")
        return "done"

    assert patiently(call) == "done"
    assert rests == [1.0, 2.0, 4.0]


def test_a_commit_that_storage_never_takes_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenspipe.storage.patience.sleep", lambda _seconds: None)

    def full() -> None:
        raise OSError(28, "no space left")

    def ours() -> None:
        raise ValueError("a fault of our own")

    with pytest.raises(StoppedError, match="storage failed 6 times"):
        patiently(full)
    with pytest.raises(ValueError, match="our own"):
        patiently(ours)


def test_a_rest_is_told_with_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenspipe.storage.patience.sleep", lambda _seconds: None)
    told: list[str] = []

    def full() -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(StoppedError, match=r"quota.*bytes free.*; the same command resumes$"):
        patiently(full, attempts=3, near=str(tmp_path / "run"), told=told.append)
    assert [line.partition(":")[0] for line in told] == [
        "storage refused, the run rests 1 s",
        "storage refused, the run rests 2 s",
    ]


def test_an_error_that_lenspipe_raised_on_purpose_is_not_waited_for() -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise CorruptRunError("shards/x.json: not JSON")

    with pytest.raises(CorruptRunError):
        patiently(broken)
    assert calls == [1]

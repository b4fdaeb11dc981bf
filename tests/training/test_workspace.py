"""Hashes of large files are read once, and again where a file was touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lenspipe.models.card import file_sha256
from training import workspace
from training.workspace import known_sha256


def test_a_hash_is_kept_until_the_file_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "set.h5", list[Path]()

    def counting(file: Path) -> str:
        read.append(file)
        return file_sha256(file)

    monkeypatch.setattr(workspace, "file_sha256", counting)
    path.write_bytes(b"one")
    assert known_sha256(path) == known_sha256(path) == file_sha256(path)
    assert len(read) == 1
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 0))
    assert known_sha256(path) == file_sha256(path)
    assert len(read) == 2


def test_a_note_that_is_no_note_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    path.write_bytes(b"one")
    for text in ("", "[]", "{", '{"state": 1}'):
        (tmp_path / "set.h5.sha256.json").write_text(text)
        assert known_sha256(path) == file_sha256(path)

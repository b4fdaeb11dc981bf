"""What is away as a whole, and what is at fault alone."""

from __future__ import annotations

from pathlib import Path

from lenspipe.storage.outage import folder_of, is_away, reads_elsewhere


def test_a_folder_that_is_gone_or_empty_is_away(tmp_path: Path) -> None:
    assert is_away(str(tmp_path))
    assert is_away(str(tmp_path / "gone"))
    (tmp_path / "file").touch()
    assert not is_away(str(tmp_path))
    assert not is_away(str(tmp_path / "file"))
    assert not is_away("s3://bucket/folder")


def test_a_store_that_is_a_folder_is_looked_at_itself(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.zarr").mkdir()
    assert folder_of(str(tmp_path / "file")) == str(tmp_path)
    assert folder_of(str(tmp_path / "a.zarr")) == str(tmp_path / "a.zarr")


def test_a_disk_reads_elsewhere_where_a_neighbour_can_be_read(tmp_path: Path) -> None:
    lost = str(tmp_path / "lost")
    assert not reads_elsewhere(lost)
    (tmp_path / "empty").touch()
    assert not reads_elsewhere(lost)
    (tmp_path / "sound").write_bytes(b"pixels")
    assert reads_elsewhere(lost)

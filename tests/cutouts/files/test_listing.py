from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import fsspec
import pytest

from lenspipe.cutouts.files.list_files import listed, listed_below, merged
from lenspipe.cutouts.files.listing import Listing, PixelFile


def _paths(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*.fits"))]


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Three files in two folders."""
    folder = tmp_path / "tiles"
    for name in ("a/1.fits", "a/2.fits", "b/1.fits"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"pixels")
        os.utime(folder / name, (1e9, 1e9))
    return folder


def test_missing_files_are_left_out_and_bytes_are_summed(tiles: Path) -> None:
    found = listed([*_paths(tiles), str(tiles / "none.fits"), str(tiles / "a/1.fits/none")])
    assert [file.path for file in found.files] == _paths(tiles)
    assert found.bytes == 18
    assert listed_below(str(tiles)) == found
    assert listed([]).sha256 == Listing().sha256


def test_a_file_written_in_place_with_the_same_size_has_another_digest(tiles: Path) -> None:
    before = listed(_paths(tiles))
    (tiles / "a/2.fits").write_bytes(b"PIXELS")
    after = listed(_paths(tiles))
    assert (after.bytes, after.count) == (before.bytes, before.count)
    assert after.sha256 != before.sha256
    assert after.newest.startswith("2.fits of 20")
    [line] = before.differences(after)
    assert line.startswith(f"{tiles}/a/2.fits changed at 20")
    assert list(before.differences(before)) == []


def test_the_order_of_files_is_that_of_their_first_names(tiles: Path) -> None:
    before = listed(_paths(tiles))
    (tiles / "a/2.fits").write_bytes(b"other pixels")
    (tiles / "c.fits").touch()
    after = listed(_paths(tiles))
    assert after.names_sha256(3) == before.names_sha256(3)
    assert after.names_sha256(4) != before.names_sha256(3)
    (tiles / "0").mkdir()
    (tiles / "a/1.fits").rename(tiles / "0/1.fits")
    assert listed(_paths(tiles)).names_sha256(1) != before.names_sha256(1)


def test_a_listing_of_many_files_takes_little_memory() -> None:
    """Names that bytes alone can spell, and more files than a block of them, come back."""
    files = [
        PixelFile(f"/sky/field_{k % 97:04d}/{k:012d}_\udcff\n.fits", 20160 + k, 17 * 10**17 + k, "")
        for k in range(20_000)
    ]
    files.sort()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    found = Listing(files)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert held < 40 * len(files)
    assert list(found.files) == files
    assert (found.count, found.bytes) == (len(files), sum(file.size_bytes for file in files))
    assert found != Listing(files[1:])
    assert found.sha256 == Listing(files).sha256 != Listing(files[1:]).sha256


def test_a_touched_file_is_taken_for_changed(tiles: Path) -> None:
    before = listed(_paths(tiles))
    os.utime(tiles / "b/1.fits", ns=(0, 1))
    [line] = before.differences(listed(_paths(tiles)))
    assert line.startswith(f"{tiles}/b/1.fits changed at 1970-01-01")


def test_files_that_came_and_went_are_told(tiles: Path) -> None:
    before = listed(_paths(tiles))
    (tiles / "a/1.fits").rename(tiles / "a/3.fits")
    after = listed(_paths(tiles))
    told = [f"{tiles}/a/1.fits gone", f"{tiles}/a/3.fits new"]
    assert list(before.differences(after)) == told
    assert after.sha256 != before.sha256  # the same sizes and times under another name


def test_a_folder_that_was_moved_with_its_times_has_the_same_digest(tiles: Path) -> None:
    moved = shutil.copytree(tiles, tiles.parent / "elsewhere" / "moved")
    assert listed(_paths(moved)).sha256 == listed(_paths(tiles)).sha256
    one = [_paths(folder)[:1] for folder in (tiles, moved)]
    assert listed(one[0]).sha256 == listed(one[1]).sha256


def test_an_etag_counts_and_the_time_beside_it_does_not() -> None:
    first, again, other = (
        Listing((PixelFile("s3://b/a.fits", 5, time, tag),))
        for time, tag in ((1, "x"), (2, "x"), (2, "y"))
    )
    assert first.sha256 == again.sha256 != other.sha256
    assert list(first.differences(again)) == []
    assert list(again.differences(other)) == [
        "s3://b/a.fits changed at 1970-01-01T00:00:00.000+00:00"
    ]


def test_a_url_signed_anew_has_the_same_digest() -> None:
    signed, anew, other = (
        Listing((PixelFile(f"https://h/{name}.fits?X-Amz-Signature={text}", 5, 0, "tag"),))
        for name, text in (("a", "1234"), ("a", "5678"), ("b", "1234"))
    )
    assert signed.sha256 == anew.sha256 != other.sha256


def test_many_remote_files_are_listed_and_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fsspec.filesystem("memory")
    root = f"memory://{tmp_path.name}/stamps"
    for number in range(40):
        store.pipe_file(f"/{tmp_path.name}/stamps/{number}.fits", bytes(number))
    (tmp_path / "local.fits").write_bytes(bytes(7))
    asked: list[str] = []
    info = store.info

    def counted(path: str) -> dict[str, object]:
        asked.append(path)
        return dict(info(path))

    names = [f"{root}/{number}.fits" for number in range(41)]  # the last is not there
    with monkeypatch.context() as patched:
        patched.setattr(store, "info", counted)
        found = listed([*names, str(tmp_path / "local.fits"), str(tmp_path / "none")])
        assert found.bytes == 780 + 7
        assert asked == []
        assert listed([*names[:3], names[40]]).bytes == 3
        assert len(asked) == 4
    below = listed_below(f"{root}/")
    assert below == listed(names)
    assert merged([below, below]) == below
    assert below.newest.startswith("39.fits of 20")
    store.pipe_file(f"/{tmp_path.name}/stamps/7.fits", bytes(7))
    [line] = below.differences(listed_below(root))
    assert line.startswith(f"{root}/7.fits changed at 20")

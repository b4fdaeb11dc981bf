"""Nothing of a local folder is passed over in silence."""

from __future__ import annotations

import errno
import os
from glob import glob
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lenspipe.storage.remote import OutageError
from lenspipe.storage.walk import files_below, matches


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/1.fits", "a/b/2.fits", "a/b/.hidden.fits", "c/3_g.fits", "c/[x].fits", "4.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def fail(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> None:
    """Listing `folder` fails from now on."""
    real = os.scandir

    def scandir(path: str) -> Any:
        if Path(path) == folder:
            raise OSError(number, os.strerror(number), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


PATTERNS = ("*", "*/*", "**", "**/*", "a/**/*.fits", "*/?.fits", "c/[3]_g.fits", "c/[[]x].fits",
            "a/b", "a/b/*", "none/*", "4.txt", "4.txt/*", "**/b/*.fits")  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_glob_finds_what_the_standard_library_finds(tree: Path, pattern: str) -> None:
    found = glob(  # noqa: PTH207 - what is compared with
        f"{tree}/{pattern}", recursive=True, include_hidden=True
    )
    assert matches(f"{tree}/{pattern}") == sorted({path.rstrip("/") for path in found})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "*", "**", "?", "[abc]", "*.fits"]), max_size=4))
def test_any_glob_does(tree: Path, parts: list[str]) -> None:
    pattern = "/".join([str(tree), *parts])
    found = glob(  # noqa: PTH207 - what is compared with
        pattern, recursive=True, include_hidden=True
    )
    # The standard library gives `a/**` where there is no `a`.
    there = {path.rstrip("/") for path in found if os.path.lexists(path)}
    assert matches(pattern) == sorted(there)


def test_links_to_folders_are_followed_and_each_folder_entered_once(tree: Path) -> None:
    (tree / "a/away").symlink_to(tree / "c")
    (tree / "c/up").symlink_to(tree)
    (tree / "self").symlink_to(tree / "self")
    found = [str(Path(path).relative_to(tree)) for path in files_below(str(tree / "a"))]
    expected = ["1.fits", "away/3_g.fits", "away/[x].fits", "away/up/4.txt", "away/up/self",
                "b/.hidden.fits", "b/2.fits"]  # fmt: skip
    assert found == [f"a/{name}" for name in expected]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_storage_that_is_away_is_an_outage(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fail(monkeypatch, tree / "a/b", number)
    with pytest.raises(OutageError, match=r"a/b: cannot be listed"):
        list(files_below(str(tree)))
    with pytest.raises(OutageError, match=r"a/b: cannot be listed"):
        matches(f"{tree}/**/*.fits")


def test_a_folder_that_may_not_be_listed_is_an_error(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, tree / "a/b", errno.EACCES)
    with pytest.raises(PermissionError):
        list(files_below(str(tree)))
    with pytest.raises(PermissionError):
        matches(f"{tree}/*/*/*")
    assert matches(f"{tree}/c/3*") == [str(tree / "c/3_g.fits")]

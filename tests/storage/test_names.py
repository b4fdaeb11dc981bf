from __future__ import annotations

import pytest

from lenspipe.config import resolve
from lenspipe.errors import InputError
from lenspipe.storage.names import require_sound


@pytest.mark.parametrize(
    "path",
    [
        "a/b",
        "/a:/b",
        "./s3:/b",
        "C:/b",
        "s3://b/c",
        "simplecache::s3://b",
        "é",
        "a b",
        "{x}:/b",
        "",
    ],
)
def test_what_can_be_a_name(path: str) -> None:
    require_sound(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3:/b", "SCHEME://"),
        ("s3a:/b/c", "SCHEME://"),
        ("file:/b", "SCHEME://"),
        ("\udcff", "UTF-8"),
    ],
)
def test_what_cannot(path: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as refused:
        require_sound(path, "--out")
    assert refused.value.field == "--out"
    with pytest.raises(InputError, match=expected):
        resolve(path, "/base")


def test_a_relative_path_is_no_better_than_its_base() -> None:
    with pytest.raises(InputError, match=r"UTF-8, found /d\\udcff"):
        resolve("a", "/d\udcff")
    assert resolve("/a", "/d\udcff") == "/a"

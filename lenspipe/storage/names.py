"""Names of files and folders that can be taken as they were given."""

from __future__ import annotations

import re

from lenspipe.errors import InputError

# `s3:/bucket`: what is left of a URL that was taken for a path. A drive of one letter is none.
_LOST_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")


def require_sound(path: str, field: str = "path") -> None:
    """InputError where a path or URL would be taken for another one, or by some libraries for none:
    a URL that lost a slash, and a name that is no UTF-8, which Arrow, JSON and Parquet cannot hold.
    """
    if _LOST_SLASH.match(path):
        raise InputError(field, "SCHEME://… for a URL, ./… for a folder of such a name", path)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(field, "a name in UTF-8", path) from None

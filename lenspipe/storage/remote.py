"""URLs: what opens them. `s3://` goes through lenspipe's own patient filesystem everywhere.

Whatever opens a URL through fsspec in a process that has imported this module, zarr and pyarrow
too, gets it. Credentials and options are the environment's: every node brings its own (`AWS_*`,
`~/.aws`, an instance's role, or fsspec's `FSSPEC_S3_*` and configuration files); nothing of them
travels in a URL, a survey file or between processes.
"""

from __future__ import annotations

from typing import Any

import fsspec

from lenspipe.errors import InputError
from lenspipe.redaction import has_user, redact

S3 = ("s3", "s3a")


class OutageError(Exception):
    """A store does not answer for now, or no longer takes the credentials: nothing is wrong with
    the file that was asked for. No OSError, so that nobody takes it for a damaged file."""


class CredentialsError(OutageError):
    """A store does not take the credentials, or there are none."""


def raise_if_passing(error: BaseException) -> None:
    """Raise an outage again where a check would tell it as the user's mistake; credentials that a
    store refuses are one."""
    if isinstance(error, OutageError) and not isinstance(error, CredentialsError):
        raise error


def refuse_credentials(url: str) -> None:
    """InputError where a URL holds a user name or a password: it would be told and written."""
    if has_user(url):
        raise InputError(
            "URL", "no user or password in it; credentials are the environment's", redact(url)
        )


def url_to_fs(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of a path or URL, and the path inside it."""
    refuse_credentials(url)
    fs, path = fsspec.core.url_to_fs(url)
    return fs, str(path)


def _register() -> None:
    for protocol in S3:
        fsspec.register_implementation(
            protocol,
            "lenspipe.storage.s3.PatientS3",
            clobber=True,
            errtxt='install lenspipe with "lenspipe[s3]" to read s3:// URLs',
        )


_register()

"""One Parquet file of the catalogue: opened as it was planned, its faults told apart.

A file that was changed or is damaged fails its own rows: `InputError` with its name. Storage that
fails says so with its own error, so that the work is tried again once the storage is back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe import config
from lenspipe.errors import InputError, LenspipeError, StoppedError
from lenspipe.select.files import CatalogueFile, filesystem, fingerprint
from lenspipe.storage.outage import is_away
from lenspipe.storage.store import is_damage, is_storage_fault


@contextmanager
def opened(file: CatalogueFile) -> Iterator[pq.ParquetFile]:
    """The file for reading, fingerprint compared before and after."""
    check_unchanged(file)
    try:
        metadata, _ = footer(file)
        with (
            _stream(file.path) as stream,
            pq.ParquetFile(
                stream,
                metadata=metadata,
                pre_buffer=config.is_url(file.path),  # locally it only costs a copy
                page_checksum_verification=True,
            ) as parquet,
        ):
            yield parquet
    except Exception as error:
        check_unchanged(file)
        if not is_damage(error):
            raise
        raise _unreadable(file, error) from error
    check_unchanged(file)


def check_unchanged(file: CatalogueFile) -> None:
    """InputError where the file is gone or another than was planned."""
    expected = f"the file as planned ({file.size_bytes} bytes, {file.fingerprint})"
    try:
        size, stamp = fingerprint(file.path)
    except FileNotFoundError as error:
        if is_away(file.path.rpartition("/")[0]):
            raise
        raise InputError(f"sources {file.path}", expected, error) from error
    if (size, stamp) != (file.size_bytes, file.fingerprint):
        raise InputError(f"sources {file.path}", expected, f"{size} bytes, {stamp}")


@lru_cache(maxsize=4)
def footer(file: CatalogueFile) -> tuple[pq.FileMetaData, pa.Schema]:
    """Footer of a file. A part is read twice, and a huge file has a huge footer: keep a few."""
    return read_footer(file)


def read_footer(file: CatalogueFile) -> tuple[pq.FileMetaData, pa.Schema]:
    """Row groups and columns of a file; InputError where it is no whole Parquet."""
    try:
        with _stream(file.path) as stream, pq.ParquetFile(stream) as parquet:
            return parquet.metadata, parquet.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # Types that Arrow has no words for are the file's here: nothing but its footer was asked.
        if is_damage(error) or isinstance(error, UnicodeDecodeError | pa.ArrowNotImplementedError):
            raise _unreadable(file, error) from error
        raise


@contextmanager
def while_planning(file: CatalogueFile) -> Iterator[None]:
    """One line for what keeps the catalogue from being planned, whoever is at fault."""
    try:
        yield
    except LenspipeError:
        raise
    except (FileNotFoundError, PermissionError) as error:
        raise _unreadable(file, error) from error
    except Exception as error:
        if not is_storage_fault(error):
            raise
        raise StoppedError(f"sources {file.path}: {error}; the same command resumes") from error


def _unreadable(file: CatalogueFile, error: Exception) -> InputError:
    return InputError(f"sources {file.path}", "readable Parquet", error)


@contextmanager
def _stream(path: str) -> Iterator[Any]:
    if config.is_url(path):
        fs, inner = filesystem(path)
        with fs.open(inner, "rb", cache_type="none") as stream:
            yield stream
    else:
        with pa.OSFile(path) as stream:
            yield stream

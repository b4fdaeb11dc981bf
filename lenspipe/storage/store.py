"""Files of a run, on a local disk or an object store, through one small interface.

A file becomes visible whole or not at all: locally it is written aside, synced and renamed; on an
object store it is one put.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

import duckdb
import pyarrow as pa
import pyarrow.fs as pafs

from lenspipe.errors import InputError
from lenspipe.processes import stopping
from lenspipe.storage.outage import is_away
from lenspipe.storage.remote import OutageError, url_to_fs

_ASIDE = ".tmp-"
_AT_ONCE = 16
# Files by their prefix; folders that are replaced as a whole (`whole_folder`) by their suffix.
_IS_ASIDE = re.compile(r"^\.tmp-[0-9a-f]{12}-.|.\.tmp-[0-9a-f]{12}$")
_NOT_OF_THE_BYTES = (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowMemoryError)
_READ_AHEAD = 1 << 20  # bytes that one request for a part of a remote file brings beyond it


# Libraries of object stores, whose exceptions are no OSError.
_STORE_LIBRARIES = frozenset(
    {"botocore", "aiobotocore", "aiohttp", "azure", "gcsfs", "google", "requests"}
)


def is_storage_fault(error: BaseException) -> bool:
    """Whether the operating system or an object store refused, rather than our own code."""
    return (
        isinstance(error, OSError | OutageError)
        or any(
            kind.__module__.partition(".")[0] in _STORE_LIBRARIES for kind in type(error).__mro__
        )
        or is_spill_fault(error)
    )


def is_damage(error: BaseException) -> bool:
    """Whether the bytes are at fault, not the storage: of what Arrow says, an error without a
    number of the operating system. What Arrow cannot do, or has no memory for, is no damage."""
    if isinstance(error, _NOT_OF_THE_BYTES):
        return False
    return isinstance(error, pa.ArrowException) or (type(error) is OSError and error.errno is None)


def is_spill_fault(error: BaseException) -> bool:
    """Whether DuckDB found no room for what a sort spills."""
    return isinstance(error, duckdb.IOException) or (
        isinstance(error, duckdb.OutOfMemoryException) and "failed to offload" in str(error)
    )


class Store:
    """A folder on any fsspec filesystem. Names are relative, with `/` between the parts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, root = url_to_fs(url)
        self.root: str = root.rstrip("/")
        protocol = self.fs.protocol
        protocols = (protocol,) if isinstance(protocol, str) else tuple(protocol)
        self.is_local = "file" in protocols
        self._has_conditions = "s3" in protocols
        # Called before anything here changes; a run's driver puts the check of its lock here.
        self.before_change: Callable[[], None] = lambda: None

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.url,))

    def path(self, name: str) -> str:
        """Path of `name` inside the filesystem `fs`."""
        return f"{self.root}/{name}" if name else self.root

    def local_path(self, name: str) -> Path:
        """Path of `name` on the local disk; ValueError on an object store."""
        if not self.is_local:
            raise ValueError(f"{self.url} is not a local folder")
        return Path(self.path(name))

    def arrow_filesystem(self) -> pafs.FileSystem:
        """The same filesystem for pyarrow; paths are those of `path`."""
        return (
            pafs.LocalFileSystem()
            if self.is_local
            else pafs.PyFileSystem(pafs.FSSpecHandler(self.fs))
        )

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, durable before it is visible."""
        self.before_change()
        if not self.is_local:
            self.fs.pipe_file(self.path(name), data)
            return
        target = self.local_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(target)
        try:
            with _naming(target):
                _write_synced(aside, data)
                aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write a large file to; it becomes `name` when the block ends well."""
        if self.is_local:
            target = self.local_path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = _aside(target)
            try:
                with _naming(target):
                    yield aside
                    with aside.open("rb+") as file:
                        os.fsync(file.fileno())
                    self.before_change()
                    aside.replace(target)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)
            return
        with TemporaryDirectory(prefix="lenspipe-") as folder:
            local = Path(folder, "file")
            yield local
            self.before_change()
            self.fs.put_file(str(local), self.path(name))

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of that name, durable before it is visible.

        False: there was one.
        """
        self.before_change()
        if self.is_local:
            target = self.local_path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = _aside(target)
            try:
                with _naming(target):
                    _write_synced(aside, data)
                    os.link(aside, target)  # atomic, and whole from the first moment
            except FileExistsError:
                return False
            finally:
                aside.unlink(missing_ok=True)
            _sync_folder(target.parent)
            return True
        try:
            self.fs.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return self._holds(name, data)
        return True

    def tagged(self, name: str) -> tuple[bytes, str]:
        """The whole file, and the tag by which `swap` replaces this content and no later one.

        FileNotFoundError where there is none.
        """
        tag = str(self.fs.info(self.path(name)).get("ETag", ""))  # first: older than the content
        data = self.read(name)
        return data, tag or hashlib.sha256(data).hexdigest()

    def swap(self, name: str, data: bytes, tag: str) -> bool:
        """Replace the content that `tagged` gave with this tag. False: it is another by now.

        One step on S3. Elsewhere a look and then a write: processes of one host must keep one
        another out, and those of several hosts can meet between the two.
        """
        self.before_change()
        if self._has_conditions:
            return self._put_if(name, data, tag)
        try:
            if self.tagged(name)[1] != tag:
                return False
        except FileNotFoundError:
            return False
        self.write(name, data)
        return True

    def _put_if(self, name: str, data: bytes, tag: str) -> bool:
        bucket, _, key = self.path(name).partition("/")
        try:
            self.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=tag)
        except OSError as error:
            told = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
            if told not in ("PreconditionFailed", "412", "NoSuchKey", "404"):
                raise
            return self._holds(name, data)
        return True

    def _holds(self, name: str, data: bytes) -> bool:
        """Whether an earlier attempt of this very write went through and its reply was lost."""
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def read(self, name: str) -> bytes:
        """The whole file; FileNotFoundError where there is none, InputError where a local one would
        keep its reader waiting."""
        if self.is_local:
            self._refuse_endless(name)
        return cast(bytes, self.fs.cat_file(self.path(name)))

    def _refuse_endless(self, name: str) -> None:
        mode = self.local_path(name).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a folder says what it is by itself
            raise InputError(f"{self.url}/{name}", "a regular file", "a FIFO or a device")

    def open(self, name: str) -> BinaryIO:
        """The file, for reading."""
        return cast(BinaryIO, self.fs.open(self.path(name), "rb", block_size=_READ_AHEAD))

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error in reading says that a file here is gone or no longer what was written,
        of which each library tells in its own way; not where storage refuses or is away."""
        if isinstance(error, FileNotFoundError):
            return not (self.is_local and is_away(self.root))
        return is_damage(error) or not is_storage_fault(error)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int:
        """Bytes of the file."""
        return int(self.fs.size(self.path(name)))

    def names(self, folder: str = "") -> list[str]:
        """Names of all files below `folder`, sorted; files still being written are left out."""
        return [name for name in self._all_names(folder) if _aside_root(name) is None]

    def delete(self, name: str) -> None:
        """Remove the file; none there is no error."""
        self.before_change()
        try:
            self.fs.rm_file(self.path(name))
        except FileNotFoundError:
            return

    def delete_folder(self, folder: str) -> None:
        """Remove all below `folder`; none there is no error."""
        self.before_change()
        path = self.path(folder)
        if not self.fs.exists(path):
            return
        if self.is_local:
            self.fs.rm(path, recursive=True)
            return
        # By name: a recursive removal takes brackets for a pattern, and other runs' files for its
        # own.
        self.fs.invalidate_cache()
        self.side_by_side(self.fs.rm_file, list(self.fs.find(path)))

    def side_by_side(self, change: Callable[[str], object], names: Iterable[str]) -> None:
        """Call `change`, which must be safe in threads, with each name, some at once: an object
        store answers each request late, and many together.

        `before_change` is asked for each. The first error is raised; none is begun after it.
        """
        over, turn = threading.Event(), threading.Lock()

        def one(name: str) -> None:
            try:
                with turn:
                    if over.is_set():
                        return
                    self.before_change()
                change(name)
            except BaseException:
                over.set()
                raise

        left, running = iter(names), set[Future[None]]()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="store") as pool:
            try:
                while True:
                    stopping.check()
                    # No more than these are known to the pool: there may be 10⁵ names.
                    more = islice(left, _AT_ONCE - len(running))
                    running |= {pool.submit(one, name) for name in more}
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
            except BaseException:  # an interrupt of this thread too
                over.set()
                raise

    def delete_unfinished(self, folders: Collection[str]) -> int:
        """Remove what killed writers left aside of files at the top, of `folders` and in them;
        returns how many files and folders. What lies elsewhere is not this store's."""
        left = {
            root: root == name
            for name in self._all_names("")
            if (root := _aside_root(name)) and _is_in(root, folders)
        }
        for root, is_file in left.items():
            if is_file:
                self.delete(root)
            else:
                self.delete_folder(root)
        return len(left) + (self._abort_uploads(folders) if self._has_conditions else 0)

    def _abort_uploads(self, folders: Collection[str]) -> int:
        """Give up uploads in parts that nobody ended: invisible, but they are stored and paid."""
        bucket, _, prefix = self.root.partition("/")
        try:
            found = self.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
        except PermissionError:  # a right of its own; a rule of the bucket may do it instead
            return 0
        all_of_them = found.get("Uploads", [])
        uploads = [u for u in all_of_them if _is_in(u["Key"][len(prefix) + 1 :], folders)]
        for upload in uploads:
            self.fs.call_s3(
                "abort_multipart_upload",
                Bucket=bucket,
                Key=upload["Key"],
                UploadId=upload["UploadId"],
            )
        return len(uploads)

    def _all_names(self, folder: str) -> list[str]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self.path(folder))
        except FileNotFoundError:
            return []
        return sorted(path[len(self.root) + 1 :] for path in found)


def _aside(target: Path) -> Path:
    return target.with_name(f"{_ASIDE}{uuid.uuid4().hex[:12]}-{target.name}")


def _is_in(name: str, folders: Collection[str]) -> bool:
    """Whether a name is a file at the top, or one of `folders`, or aside of one, or in one."""
    first, _, below = name.partition("/")
    return not below or first.partition(_ASIDE)[0] in folders


def _aside_root(name: str) -> str | None:
    """The file or folder that a writer made aside and in which this file is; None for others."""
    parts = name.split("/")
    for depth, part in enumerate(parts, 1):
        if _IS_ASIDE.search(part):
            return "/".join(parts[:depth])
    return None


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """An error of the system inside names `target`: a full disk's own does not say where."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(target)
        raise


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

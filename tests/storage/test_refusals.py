from __future__ import annotations

import errno
import re
from pathlib import Path

import duckdb
import pytest

from lenspipe.storage.refusals import describe_refusal
from lenspipe.storage.store import is_storage_fault


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_its_path_and_what_is_free(tmp_path: Path, code: int) -> None:
    target = tmp_path / "run" / "scores" / "part.parquet"  # no folder of it is there yet
    line = describe_refusal(OSError(code, "No space left", str(target)))
    assert str(target) in line
    found = re.search(r"\(([\d,]+) bytes free, [\d,]+ more files on the disk of (.*)\)$", line)
    assert found is not None, line
    assert found[2] == str(tmp_path)


def test_an_error_without_a_path_is_told_with_the_folder_that_was_written_to(
    tmp_path: Path,
) -> None:
    full = OSError(errno.ENOSPC, "No space left")
    assert describe_refusal(full) == "[Errno 28] No space left"
    assert f"on the disk of {tmp_path})" in describe_refusal(full, str(tmp_path / "run"))
    assert describe_refusal(full, "s3://b/run") == "[Errno 28] No space left"


def test_too_many_open_files_are_told_with_the_limit() -> None:
    line = describe_refusal(OSError(errno.EMFILE, "Too many open files", "/a/b"))
    assert re.search(r"'/a/b' \(this process may open \d+ files; `ulimit -n` sets it\)$", line)


def test_other_refusals_are_told_as_they_are() -> None:
    assert describe_refusal(PermissionError(13, "Permission\ndenied", "/x")) == (
        "[Errno 13] Permission denied: '/x'"
    )


def test_a_sort_without_room_to_spill_is_a_fault_of_the_storage(tmp_path: Path) -> None:
    """DuckDB has errors of its own for that, here a real one."""
    (tmp_path / "file").touch()
    spill = tmp_path / "file" / "spill"
    config = {"temp_directory": str(spill), "memory_limit": "30MB", "threads": "1"}
    with duckdb.connect(config=config) as connection:  # type: ignore[arg-type]  # its own stub
        query = "SELECT hash(i) AS h, i, hash(i + 1) FROM range(3000000) t(i) ORDER BY h"
        with pytest.raises(duckdb.Error) as caught:
            connection.sql(query).to_arrow_reader(8192).read_next_batch()
    assert is_storage_fault(caught.value)
    assert "bytes free" in describe_refusal(caught.value, str(tmp_path))
    with pytest.raises(duckdb.Error) as caught:
        duckdb.sql("SELECT nothing")
    assert not is_storage_fault(caught.value)

"""Faults of the catalogue under a whole job: an outage leaves no trace, damage costs its own rows,
a hostile cut ends the run in one line, and ids are what they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lenspipe.config import load_survey
from lenspipe.errors import FailureLimitError, HopelessError
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory, Stage
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.chaos.results import assert_same
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
FILES, FILE_ROWS = 4, 150


class _Meddler(SilentProgress):
    """Does something when stage `select` begins, and something at the first retry."""

    def __init__(self, at_select: Callable[[], None], at_retry: Callable[[], None]) -> None:
        self.at_select, self.at_retry = at_select, at_retry
        self.retries: list[str] = []

    def stage_started(self, stage: Stage, total_rows: int, done_rows: int) -> None:  # noqa: ARG002  # the interface
        if stage == "select":
            self.at_select()

    def retried(
        self,
        stage: Stage,  # noqa: ARG002  # the interface
        message: str = "",
        shard: str = "",  # noqa: ARG002  # the interface
    ) -> None:
        if not self.retries:
            self.at_retry()
        self.retries.append(message)


def _nothing() -> None:
    """No meddling."""


def _survey(folder: Path, **changes: Any) -> Path:
    """A toy survey whose catalogue is several files with checksums on their pages."""
    survey = make_survey(folder, rows=FILES * FILE_ROWS, string_ids=True, **changes)
    whole = folder / "catalogue" / "part.parquet"
    table = pq.read_table(whole)
    whole.unlink()
    for k in range(FILES):
        pq.write_table(
            table.slice(k * FILE_ROWS, FILE_ROWS),
            folder / "catalogue" / f"{k}.parquet",
            row_group_size=50,
            compression="none",
            write_page_checksum=True,
        )
    return survey


def _run(
    survey: Path, at_select: Callable[[], None] = _nothing, at_retry: Callable[[], None] = _nothing
) -> list[str]:
    """Run it; returns what was told of retries."""
    progress = _Meddler(at_select, at_retry)
    with suppress(FailureLimitError):  # files that are lost may be many
        run_survey(load_survey(survey), Events(RunMetrics("toy"), progress))
    return progress.retries


def _rows(run: Path, folder: str) -> dict[str, dict[str, Any]]:
    """Rows of stage `score` by id."""
    table = RunDirectory(str(run)).read_folder(folder, ["score"])
    rows = [] if table is None else table.to_pylist()
    return {row["object_id"]: row for row in rows}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    survey = _survey(tmp_path_factory.mktemp("undisturbed"))
    _run(survey)
    return survey.parent / "run"


def test_a_disk_that_is_away_for_a_while_leaves_no_trace(tmp_path: Path, undisturbed: Path) -> None:
    survey = _survey(tmp_path)
    catalogue, elsewhere = tmp_path / "catalogue", tmp_path / "elsewhere"

    def go() -> None:
        catalogue.rename(elsewhere)
        catalogue.mkdir()  # where nothing is mounted

    def come_back() -> None:
        catalogue.rmdir()
        elsewhere.rename(catalogue)

    retries = _run(survey, go, come_back)
    assert any("FileNotFoundError" in line for line in retries)
    assert_same(tmp_path / "run", undisturbed)


def _gone(path: Path) -> None:
    path.unlink()


def _bent(path: Path) -> None:
    """A bit of the page of positions of the second row group."""
    status, content = path.stat(), bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    content[column.data_page_offset + column.total_compressed_size - 20] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(("damage", "lost"), [(_gone, range(150)), (_bent, range(50, 100))])
def test_a_bad_file_costs_its_own_rows_and_no_other(
    tmp_path: Path, undisturbed: Path, damage: Callable[[Path], None], lost: range
) -> None:
    survey = _survey(tmp_path)
    _run(survey, lambda: damage(tmp_path / "catalogue" / "2.parquet"))
    run = RunDirectory(str(tmp_path / "run"))
    assert verify(run) == []
    ids = {f"obj {1000 + 2 * FILE_ROWS + k}" for k in lost}
    for folder in ("scores", "failures"):
        expected = _rows(undisturbed, folder)
        found = _rows(tmp_path / "run", folder)
        assert found == {name: row for name, row in expected.items() if name not in ids}
    failed = run.read_folder("failures", ["select"])
    assert failed is not None
    assert failed.num_rows == len(lost)
    assert set(failed["reason"].to_pylist()) == {"unreadable"}
    assert all("2.parquet" in detail for detail in failed["detail"].to_pylist())


@pytest.fixture
def slow_survey(tmp_path: Path) -> Path:
    """A cut that compiles a pattern of its own for each row."""
    survey = _survey(tmp_path)
    for path in (tmp_path / "catalogue").iterdir():
        table = pq.read_table(path)
        notes = ["a" * 1_000 + str(k) for k in range(table.num_rows)]
        pq.write_table(table.append_column("notes", pa.array(notes)), path)
    return survey


def _with(survey: Path, **blocks: Any) -> None:
    content = yaml.safe_load(survey.read_text())
    for name, block in blocks.items():
        content[name] = {**content[name], **block}
    survey.write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_cut_past_its_limit_ends_the_run_and_a_larger_limit_takes_it_up(
    slow_survey: Path, undisturbed: Path, ray_cluster: object
) -> None:
    _with(slow_survey, cuts={"slow": "regexp_matches(notes, notes)"})
    _with(slow_survey, runtime={"cut_timeout_s": 0.05})
    with pytest.raises(HopelessError, match=r"^cuts\.slow: .*cut_timeout_s = 0\.05 s") as caught:
        _run(slow_survey)
    assert "\n" not in str(caught.value)
    _with(slow_survey, runtime={"cut_timeout_s": 600.0})
    _run(slow_survey)
    run = slow_survey.parent / "run"
    assert verify(RunDirectory(str(run))) == []
    assert _rows(run, "scores") == _rows(undisturbed, "scores")


def test_hostile_ids_are_each_scored_once(tmp_path: Path, ray_cluster: object) -> None:
    hostile = [
        "../../etc/passwd",
        "a/b\\c",
        'it\'s "quoted"; DROP TABLE scores --',
        "line\nbreak\r\n",
        "nul\0inside",
        "",
        " ",
        "%s {0} $HOME `id`",
        "x" * 10_000,
        "ünïcödé \u202e \U0001f52d",
        "<script>alert(1)</script>",
        "twice",
        "twice",
        "NULL",
        "-inf",
    ]
    survey = make_survey(tmp_path, rows=60, string_ids=True, cuts={"all": "i_mag < 99"})
    path = tmp_path / "catalogue" / "part.parquet"
    table = pq.read_table(path)
    ids = [*hostile, *(f"tame {k}" for k in range(60 - len(hostile)))]
    table = table.set_column(0, "object_id", pa.array(ids))
    table = table.set_column(4, "g_mag", pa.array(np.full(60, 30.0)))  # all pass the network
    pq.write_table(table, path)
    _run(survey)
    run = RunDirectory(str(tmp_path / "run"))
    assert verify(run) == []
    scores, failures = run.read_folder("scores", ["score"]), run.read_folder("failures", ["score"])
    assert scores is not None
    assert failures is not None
    assert sorted(scores["object_id"].to_pylist()) == sorted(set(ids))
    assert failures["object_id"].to_pylist() == ["twice"]
    assert failures["reason"].to_pylist() == ["duplicate_id"]

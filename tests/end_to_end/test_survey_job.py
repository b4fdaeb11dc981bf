"""The whole job on toy surveys: files, Ray and ONNX Runtime are real, only the sky is small."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from lenspipe.catalogue.funnel import Funnel
from lenspipe.config import load_survey
from lenspipe.errors import CorruptRunError, FailureLimitError, InputError, ResumeRefusedError
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory, ShardRecord
from lenspipe.telling.events import Events
from lenspipe.telling.progress import make_progress
from tests.toy_models import POISON, make_member
from tests.toy_survey import make_survey

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(survey: Path, **options: Any) -> Funnel:
    with make_progress() as progress:
        info = run_survey(load_survey(survey), Events(RunMetrics("toy"), progress), **options)
    return info.funnel


def results(survey: Path) -> tuple[pa.Table, dict[int, str]]:
    """Scores in the order of ids, and id -> reason of the failures."""
    directory = RunDirectory(str(survey.parent / "run"))
    scores = directory.read_folder("scores", ["score"])
    failures = directory.read_folder("failures", ["select", "score"])
    assert scores is not None
    reasons = (
        dict(zip(failures["object_id"].to_pylist(), failures["reason"].to_pylist(), strict=True))
        if failures is not None
        else {}
    )
    return scores.sort_by("object_id"), reasons


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    """A survey that ran once, with nothing in its way."""
    survey = make_survey(
        tmp_path_factory.mktemp("undisturbed"),
        runtime={"shard_rows": 64, "provider": "cpu", "scorers": 2, "failure_limit": 1.0},
    )
    run(survey)
    return survey


def test_every_source_leaves_once_and_verify_proves_it(undisturbed: Path) -> None:
    funnel = run(undisturbed)  # all is committed: this publishes again and reads no pixel
    assert funnel.sources_in == 600
    assert funnel.accounted
    assert min(funnel.cut, funnel.rejected, funnel.scored) > 100
    assert verify(RunDirectory(str(undisturbed.parent / "run"))) == []


def test_the_scores_are_those_of_the_bare_arithmetic(undisturbed: Path) -> None:
    """From the catalogue's own columns and pixels, with numpy alone."""
    from tests.toy_models import expected_logits, make_weights

    scores, _ = results(undisturbed)
    catalogue = pq.read_table(undisturbed.parent / "catalogue")
    colour = pc.subtract(catalogue["g_mag"], catalogue["i_mag"])
    keep = pc.and_(pc.less(catalogue["i_mag"], 21.0), pc.greater(colour, 1.0))
    kept = catalogue.filter(keep)
    assert scores["object_id"].to_pylist() == kept["object_id"].to_pylist()
    with h5py.File(undisturbed.parent / "cutouts.h5") as file:
        pixels = file["images"][...][kept["row"].to_numpy()]
    members = [expected_logits(pixels, make_weights((3, 8, 8), seed)) for seed in (0, 1)]
    # float32 sums of 192 terms of order one: their order of summation differs
    np.testing.assert_allclose(scores["score"], np.mean(members, axis=0), atol=2e-6)
    assert scores["ra"].to_pylist() == kept["ra"].to_pylist()


def test_a_resume_that_may_hold_fewer_rows_divides_what_is_not_done(
    undisturbed: Path, tmp_path: Path
) -> None:
    survey = make_survey(
        tmp_path / "divided",
        runtime={"shard_rows": 64, "provider": "cpu", "failure_limit": 1.0},
    )
    run(survey)
    directory = RunDirectory(str(survey.parent / "run"))
    before = {(record.start, record.stop) for record in directory.records("score")}
    for name in list(directory.store.names("shards")):
        if "score" in name:
            directory.store.delete(name)
    content = yaml.safe_load(survey.read_text())
    content["runtime"]["shard_rows"] = 16
    survey.write_text(yaml.safe_dump(content, sort_keys=False))
    run(survey)
    after = [(record.start, record.stop) for record in directory.records("score")]
    assert max(stop - start for start, stop in before) > 16
    assert max(stop - start for start, stop in after) <= 16
    assert verify(directory) == []
    assert results(survey)[0].equals(results(undisturbed)[0])


def test_string_ids_small_row_groups_and_reader_tasks_give_the_same(
    undisturbed: Path, tmp_path: Path
) -> None:
    survey = make_survey(
        tmp_path / "text",
        string_ids=True,
        row_group=7,
        runtime={"shard_rows": 64, "provider": "cpu", "readers": 1, "failure_limit": 1.0},
    )
    run(survey)
    scores, _ = results(survey)
    expected, _ = results(undisturbed)
    numbers = [int(text.split()[1]) for text in scores["object_id"].to_pylist()]
    found = dict(zip(numbers, scores["score"].to_pylist(), strict=True))
    assert [found[k] for k in expected["object_id"].to_pylist()] == expected["score"].to_pylist()


def test_repeated_ids_are_reported_and_scored_once(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "twice")
    path = survey.parent / "catalogue" / "part.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 50)]), path)
    funnel = run(survey)
    scores, reasons = results(survey)
    assert funnel.accounted
    assert len(set(scores["object_id"].to_pylist())) == scores.num_rows
    assert funnel.reasons == {"duplicate_id": len(reasons)}
    assert len(reasons) > 5
    assert verify(RunDirectory(str(survey.parent / "run"))) == []


def test_bad_stamps_fail_alone(undisturbed: Path, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "bad", member={"poison": True})
    wanted = results(undisturbed)[0]["object_id"].to_pylist()
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        for object_id, value in zip(wanted[:2], (np.nan, 3.0), strict=True):
            file["images"][object_id - 1000] = value
        file["images"][wanted[2] - 1000, 0, 0, 0] = POISON  # a member raises on it
    run(survey)
    scores, reasons = results(survey)
    assert reasons == {
        wanted[0]: "bad_pixels",
        wanted[1]: "constant_image",
        wanted[2]: "member_error",
    }
    assert scores["object_id"].to_pylist() == wanted[3:]
    assert scores["score"].to_pylist() == results(undisturbed)[0]["score"].to_pylist()[3:]


def test_failures_past_the_limit_end_with_status_3(tmp_path: Path) -> None:
    survey = make_survey(
        tmp_path / "limit", runtime={"shard_rows": 64, "provider": "cpu", "failure_limit": 0.0}
    )
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        file["images"][...] = np.nan
    with pytest.raises(
        FailureLimitError, match=r"([0-9]+) of \1 sources failed .*bad_pixels"
    ) as caught:
        run(survey)
    assert caught.value.exit_status == 3


def test_what_a_resume_takes_and_what_it_refuses(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "changed")
    run(survey)
    folder = survey.parent / "run"
    records = sorted((folder / "shards").iterdir())
    times = [record.stat().st_mtime_ns for record in records]
    content = yaml.safe_load(survey.read_text())

    survey.write_text(yaml.safe_dump({**content, "candidates": {"top": 3}}))
    assert run(survey).candidates == 3  # chosen anew, nothing scored anew
    assert [record.stat().st_mtime_ns for record in records] == times

    survey.write_text(yaml.safe_dump({**content, "cuts": {"bright_enough": "i_mag < 20.0"}}))
    with pytest.raises(ResumeRefusedError, match=r"survey\.cuts\.bright_enough.*21\.0.*20\.0"):
        run(survey)

    survey.write_text(yaml.safe_dump(content))
    make_member(survey.parent / "toy-a.onnx", seed=9)
    with pytest.raises(ResumeRefusedError, match=r"models\.ensemble"):
        run(survey)

    (folder / "run.json").unlink()
    with pytest.raises(ResumeRefusedError, match="commits without it"):
        run(survey)

    before, _ = results(survey)
    run(survey, fresh=True)  # with the other model
    after, _ = results(survey)
    assert after["object_id"] == before["object_id"]
    assert after["score"] != before["score"]


@pytest.mark.slow
def test_an_erasing_that_was_killed_is_finished(undisturbed: Path, tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "erased")
    run(survey)
    directory = RunDirectory(str(survey.parent / "run"))
    directory.write_json("run.json", {"state": "erasing"})
    directory.store.delete_folder("shards")
    run(survey)
    assert_same_scores(survey, undisturbed)
    assert verify(directory) == []


def test_a_plan_lost_while_failures_of_select_are_retried_scores_every_source_once(
    undisturbed: Path, tmp_path: Path
) -> None:
    """Its next plan has rows that the first one lacked: scores by the first one's rows are void."""
    survey = make_survey(tmp_path)
    part = tmp_path / "catalogue" / "part.parquet"
    whole, times = part.read_bytes(), part.stat()
    broken = bytearray(whole)
    for at in range(200, len(whole) // 3, 97):
        broken[at] ^= 255
    part.write_bytes(broken)
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(survey).failed > 50
    part.write_bytes(whole)
    os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
    (tmp_path / "run" / "plan" / "plan.json").unlink()
    funnel = run(survey, retry_failed=True)
    assert (funnel.failed, funnel.accounted) == (0, True)
    assert results(survey)[0].equals(results(undisturbed)[0])
    assert verify(RunDirectory(str(tmp_path / "run"))) == []


@pytest.mark.parametrize("folder", ["select", "scores"])
def test_a_damaged_part_is_told_and_done_again(
    undisturbed: Path, tmp_path: Path, folder: str
) -> None:
    survey = make_survey(tmp_path)
    run(survey)
    part = sorted((tmp_path / "run" / folder).iterdir())[0]
    part.write_bytes(part.read_bytes()[:-50])
    for lost in ("catalogue/hats.properties", "candidates.zarr/zarr.json"):
        (tmp_path / "run" / lost).unlink()
    if folder == "scores":
        with pytest.raises(CorruptRunError, match=rf"{part.name}: damaged.*--retry-failed"):
            run(survey)
    run(survey, retry_failed=True)
    assert results(survey)[0].equals(results(undisturbed)[0])
    assert verify(RunDirectory(str(tmp_path / "run"))) == []


def test_pixels_that_were_away_are_scored_when_they_are_back(
    undisturbed: Path, tmp_path: Path
) -> None:
    survey = make_survey(tmp_path / "away")
    wanted = results(undisturbed)[0]["object_id"].to_pylist()
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        kept = file["images"][...]
        del file["images"]
        file.create_dataset("images", data=kept[: wanted[len(wanted) // 2] - 1000])
    away = run(survey)
    assert away.reasons == {"not_found": len(wanted) - len(wanted) // 2}
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        del file["images"]
        file.create_dataset("images", data=kept)
    with pytest.raises(ResumeRefusedError, match=r"pixels\.g\.bytes"):
        run(survey)
    assert run(survey, retry_failed=True).reasons == {}
    assert_same_scores(survey, undisturbed)
    assert verify(RunDirectory(str(survey.parent / "run"))) == []


def test_wrong_bands_and_a_wrong_pixel_scale_are_refused(tmp_path: Path) -> None:
    survey = make_survey(tmp_path / "wrong")
    content = yaml.safe_load(survey.read_text())
    for key, value, message in (
        ("bands", ["g", "r", "z"], "i"),
        ("pixel_scale_arcsec", 0.2, "0.25"),
    ):
        changed = {**content, "cutouts": {**content["cutouts"], key: value}}
        survey.write_text(yaml.safe_dump(changed))
        with pytest.raises(InputError, match=message):
            run(survey)


def assert_same_scores(survey: Path, other: Path) -> None:
    """Row by row the same, but for the order in which rows were committed."""
    (scores, reasons), (expected, others) = results(survey), results(other)
    assert scores.equals(expected)
    assert reasons == others


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Path]:
    """A survey large enough that a kill meets it at work."""
    yield make_survey(tmp_path / "killed", rows=600)
    shutil.rmtree(tmp_path / "killed", ignore_errors=True)


def start(survey: Path) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "lenspipe", "run", str(survey)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def wait_for(folder: Path, process: subprocess.Popen[bytes], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if folder.is_dir() and any(folder.iterdir()):
            return
        time.sleep(0.01)
    raise AssertionError(f"nothing came to be in {folder}")


@pytest.mark.parametrize("stage", ["plan", "scores"])
def test_a_killed_driver_is_resumed_to_the_undisturbed_result(
    driver: Path, undisturbed: Path, stage: str
) -> None:
    process = start(driver)
    wait_for(driver.parent / "run" / stage, process)
    if stage == "plan":  # while it lives, nobody else may write there
        with pytest.raises(InputError, match=f"process {process.pid}"):
            run(driver)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    funnel = run(driver)
    assert funnel.accounted
    assert_same_scores(driver, undisturbed)
    assert verify(RunDirectory(str(driver.parent / "run"))) == []


class _KillOnce(Events):
    """Kills one scoring actor of this session when the first shard is committed."""

    killed: list[int]

    def committed(self, record: ShardRecord) -> None:
        super().committed(record)
        if record.stage == "score" and not self.killed:
            actors = [
                child
                for child in psutil.Process().children(recursive=True)
                if "ray::_Host" in " ".join(child.cmdline())
            ]
            actors[0].kill()
            self.killed.append(actors[0].pid)


def test_a_killed_scoring_actor_costs_no_row(undisturbed: Path, tmp_path: Path) -> None:
    survey = make_survey(
        tmp_path / "actor",
        runtime={"shard_rows": 16, "provider": "cpu", "failure_limit": 0.0},
    )
    with make_progress() as progress:
        metrics = RunMetrics("toy")
        events = _KillOnce(metrics, progress)
        object.__setattr__(events, "killed", [])
        run_survey(load_survey(survey), events)
    assert len(events.killed) == 1
    assert b"lenspipe_actor_restarts_total 1.0" in metrics.text()
    assert_same_scores(survey, undisturbed)

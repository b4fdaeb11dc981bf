"""Models that change under a run, and the GPU benchmark from start to finish without a GPU."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe import job
from lenspipe.config import load_survey
from lenspipe.errors import InputError
from lenspipe.metrics import RunMetrics
from lenspipe.processes.slots import Slots
from lenspipe.run.opening import Job
from lenspipe.stages import scoring
from lenspipe.stages.planning import Plan
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_models import make_member
from tests.toy_survey import make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]


def run(survey: Path) -> None:
    job.run_survey(load_survey(survey), Events(RunMetrics("toy"), SilentProgress()))


def scores(survey: Path) -> pa.Table:
    files = sorted((survey.parent / "run" / "scores").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).sort_by("object_id")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another model": (lambda file: make_member(file, seed=9), "models that the run began with"),
    "a flipped bit": (flip, "toy-b.onnx"),
    "a truncated file": (lambda file: os.truncate(file, 200), "toy-b.onnx"),
    "no file": (Path.unlink, "nothing at .*toy-b.onnx"),
}


def test_a_model_that_changes_between_plan_and_scoring(
    tmp_path: Path, ray_cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scorer refuses it in one line, nothing is scored with it, and with the model back the
    same command ends as the undisturbed run did, row by row."""
    whole = make_survey(tmp_path / "whole", rows=200)
    run(whole)
    survey = make_survey(tmp_path / "disturbed", rows=200)
    model = survey.parent / "toy-b.onnx"
    sound = model.read_bytes()
    plan_shards = job.plan_shards
    for damage, told in DAMAGES.values():

        def damaged(opened: Job, slots: Slots, hurt: Callable[[Path], object] = damage) -> Plan:
            plan = plan_shards(opened, slots)
            hurt(model)
            return plan

        monkeypatch.setattr(job, "plan_shards", damaged)
        with pytest.raises(InputError, match=told) as refused:
            run(survey)
        assert "\n" not in str(refused.value)
        assert not list((survey.parent / "run" / "scores").glob("*.parquet"))
        model.write_bytes(sound)
    monkeypatch.setattr(job, "plan_shards", plan_shards)
    run(survey)
    found, wanted = scores(survey), scores(whole)
    assert found.num_rows > 50
    assert found.equals(wanted)


def test_a_model_that_cannot_be_read_for_a_while_when_a_scorer_starts_again(
    tmp_path: Path, ray_cluster: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first scorer dies, and the storage refuses the model twice to its successor."""
    whole = make_survey(tmp_path / "whole", rows=200)
    run(whole)
    survey = make_survey(
        tmp_path / "disturbed",
        rows=200,
        runtime={"scorers": 1, "provider": "cpu", "shard_rows": 32},
    )
    starts = tmp_path / "starts"

    def disturbed(*given: Any, **named: Any) -> Callable[[], Callable[..., Any]]:
        factory = scoring.ScorerFactory(*given, **named)

        def build() -> Callable[..., Any]:
            with starts.open("a") as file:
                before = file.tell()
                file.write(".")
            if before == 0:
                return lambda *_: os._exit(9)
            if before <= 2:

                def refused(path: Path) -> bytes:
                    raise OSError(errno.EIO, "Input/output error", str(path))

                setattr(Path, "read_bytes", refused)  # noqa: B010  # in the scorer's process
            return factory()

        return build

    monkeypatch.setattr(
        job, "scoring", SimpleNamespace(**{**vars(scoring), "ScorerFactory": disturbed})
    )
    run(survey)
    assert starts.stat().st_size == 4
    found, wanted = scores(survey), scores(whole)
    assert found.num_rows > 50
    assert found.equals(wanted)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_without_a_gpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_throughput", "--provider", "cpu", "--small"]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=380
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    assert [row["precision"] for row in found["measured"]] == ["fp32", "fp16"]
    for row in found["measured"]:
        assert 0.05 < row["job_vs_session"] < 5
        assert row["job_cutouts_per_s"] > 0
    assert found["left_out"] == []
    assert found["score_minus_cpu_fp32"]["cpu"]["fp32"] == 0.0
    assert found["score_minus_cpu_fp32"]["cpu"]["fp16"] < 0.1

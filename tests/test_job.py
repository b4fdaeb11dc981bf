"""The run's last word: nothing is published where a row is not accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from lenspipe.config import load_survey
from lenspipe.errors import CorruptRunError
from lenspipe.job import finish, settle_threshold
from lenspipe.metrics import RunMetrics
from lenspipe.run.opening import check_and_open
from lenspipe.run.shard_record import ShardRecord
from lenspipe.stages.planning import make_plan
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import make_survey


def test_a_run_whose_last_commits_got_lost_is_not_done(tmp_path: Path) -> None:
    survey = load_survey(make_survey(tmp_path, rows=20))
    events = Events(RunMetrics("toy"), SilentProgress())
    counts = {"rows_in": 10, "rows_out": 0, "rows_failed": 0, "removed": {"network": 10}}
    with check_and_open(survey, events) as job:
        for start in (0, 10):
            job.run.commit(ShardRecord(stage="select", start=start, stop=start + 10, **counts))
        make_plan(job.run, [], 10, 1)
        job.run.store.delete("shards/select-00000001.jsonl")  # no gap: it was the last
        with pytest.raises(CorruptRunError, match=r"10 rows are committed, of 20 of the catalogue"):
            finish(job)
        told = job.run.read_json("run.json")
        assert told is not None
        assert told["state"] == "running"
        assert not job.run.store.exists("funnel.json")


@pytest.mark.parametrize("content", [b"{}", b'{"value": "x"}'])
def test_a_broken_threshold_is_named_with_what_helps(tmp_path: Path, content: bytes) -> None:
    network = {"model": "photometry.onnx", "keep": {"fraction": 0.5}}
    survey = load_survey(make_survey(tmp_path, rows=20, photometry=network))
    with check_and_open(survey, Events(RunMetrics("toy"), SilentProgress())) as job:
        job.run.store.write("threshold.json", content)
        with pytest.raises(CorruptRunError, match=r"^threshold\.json: .*--fresh begins anew$"):
            settle_threshold(job)

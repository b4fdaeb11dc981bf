"""What a resume is compared by."""

from __future__ import annotations

from pathlib import Path

from lenspipe.check import check_survey
from lenspipe.config import load_survey
from lenspipe.run.identity import check_same_run
from lenspipe.run.opening import write_state
from lenspipe.run_directory import RUN, RunDirectory
from tests.toy_survey import make_survey


def test_a_run_that_was_begun_before_a_key_came_is_the_same_run(tmp_path: Path) -> None:
    checked = check_survey(load_survey(make_survey(tmp_path, rows=40)))
    run = RunDirectory(str(tmp_path / "run"))
    write_state(run, checked, "interrupted")
    before = run.read_json(RUN)
    assert before is not None
    del before["survey"]["sources"]["keep_columns"]
    run.write_json(RUN, before)
    assert check_same_run(run, checked.identity()) == []

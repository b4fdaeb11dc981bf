"""`lenspipe models reference`: a run's ensemble that states the run's own scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lenspipe.config import load_survey
from lenspipe.errors import InputError
from lenspipe.metrics import RunMetrics
from lenspipe.models.drift import count_scores, population_stability
from lenspipe.models.ensemble_file import describe_ensemble
from lenspipe.models.locate import folder as zoo
from lenspipe.run.opening import check_and_open, write_state
from lenspipe.run.score_reference import write_reference
from lenspipe.run_directory import RUN, RunDirectory
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.catalogue.small_run import cap, commit_scores, score_table
from tests.run.ended_run import edit
from tests.toy_models import make_member
from tests.toy_survey import make_survey


def ended(folder: Path, rows: int = 2000, state: str = "done") -> RunDirectory:
    survey = load_survey(make_survey(folder, rows=20))
    with check_and_open(survey, Events(RunMetrics("toy"), SilentProgress())) as job:
        half = rows // 2
        tables = [score_table(*cap(half, 10.0, 0.0, 0.1), seed=k) for k in range(2)]
        commit_scores(job.run, tables)
        write_state(job.run, job.checked, state)
        return job.run


def scores(run: RunDirectory) -> np.ndarray:
    table = run.read_folder("scores", ["score"])
    assert table is not None
    return np.asarray(table["score"].to_numpy())


def test_scores_and_hash_stay_and_the_run_does_not_drift_from_itself(tmp_path: Path) -> None:
    run = ended(tmp_path / "sky")
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / "mine.yaml"
    found = write_reference(run.url, out)
    before, after = (
        describe_ensemble(str(tmp_path / "sky" / "toy.yaml")),
        describe_ensemble(str(out)),
    )
    assert after.model_hash == before.model_hash
    assert after.spec.thresholds == before.spec.thresholds
    assert after.spec.score_distribution == found
    assert sum(found.counts) == 2000
    assert found.population.startswith("sources that run toy scored until 20")
    index, n = population_stability(found, count_scores(found, scores(run)))
    assert index == pytest.approx(0.0, abs=1e-12)
    assert n == 2000


def test_networks_that_are_shipped_go_by_name(tmp_path: Path) -> None:
    run = ended(tmp_path)
    shipped = describe_ensemble("ps1-group")
    edit(run, RUN, lambda told: told["survey"].update(ensemble="ps1-group"))
    edit(run, RUN, lambda told: told["models"].update(ensemble=shipped.model_hash))
    write_reference(run.url, tmp_path / "mine.yaml", "galaxies")
    text = (tmp_path / "mine.yaml").read_text("utf-8")
    assert str(zoo()) not in text
    after = describe_ensemble(str(tmp_path / "mine.yaml"))
    assert after.member_names == ("ps1-group",)
    assert after.spec.score_distribution is not None
    assert after.spec.score_distribution.population == "galaxies"


def test_a_run_that_goes_on_is_refused(tmp_path: Path) -> None:
    run = ended(tmp_path, state="running")
    with pytest.raises(InputError, match="RUN: expected a run that has ended, found running"):
        write_reference(run.url, tmp_path / "mine.yaml")


def test_few_scores_are_refused(tmp_path: Path) -> None:
    run = ended(tmp_path, rows=998)
    with pytest.raises(InputError, match="at least 1000 scored sources, found 998"):
        write_reference(run.url, tmp_path / "mine.yaml")


def test_other_models_by_now_are_refused(tmp_path: Path) -> None:
    run = ended(tmp_path)
    make_member(tmp_path / "toy-a.onnx", seed=99)
    with pytest.raises(InputError, match="expected the models of the run"):
        write_reference(run.url, tmp_path / "mine.yaml")


@pytest.mark.parametrize("out", ["mine.txt", "no/such/folder/mine.yaml"])
def test_a_file_that_can_be_no_ensemble_is_refused(tmp_path: Path, out: str) -> None:
    run = ended(tmp_path)
    with pytest.raises(InputError, match=r"--out: expected a file \.yaml in a folder"):
        write_reference(run.url, tmp_path / out)

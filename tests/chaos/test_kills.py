"""Whatever is killed, at whatever moment: the same command gives the undisturbed result."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.chaos.job_process import JobProcess, spans
from tests.chaos.killing import VICTIMS, Campaign, make_deck
from tests.toy_models import POISON
from tests.toy_survey import make_survey

ROWS = 4000
RUNTIME = {
    "shard_rows": 4,
    "provider": "cpu",
    "scorers": 1,
    "readers": 1,
    "failure_limit": 1.0,
}
# A dozen for CI: every victim, every stage, and lives with and without reader tasks in turn.
DOZEN = {
    "select": ["actor", "group"],
    "plan": ["raylet"],
    "score": ["actor", "feed", "raylet", "actor", "gcs", "feed", "driver"],
    "publish": ["driver", "group"],
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A survey with some rows that fail, run once with nothing in its way; seconds by stage."""
    survey = make_survey(
        tmp_path_factory.mktemp("undisturbed"), ROWS, runtime=RUNTIME, member={"poison": True}
    )
    with h5py.File(survey.parent / "cutouts.h5", "a") as file:
        file["images"][5:400:80] = np.nan
        file["images"][7:400:80, 0, 0, 0] = POISON
    with JobProcess(survey) as job:
        assert job.wait() == 0, job.lines()
        return survey, spans(job.events())


def _copy(survey: Path, folder: Path) -> Path:
    """The same survey without its run; times of files belong to a run's identity, and stay."""
    shutil.copytree(survey.parent, folder, ignore=shutil.ignore_patterns("run", "lp-*"))
    return folder / survey.name


def _campaign(
    undisturbed: tuple[Path, dict[str, float]], folder: Path, seed: int, kills: int | None
) -> Campaign:
    survey, seconds = undisturbed
    rng = random.Random(seed)
    deck = make_deck(rng, kills) if kills else {k: list(v) for k, v in DOZEN.items()}
    # Stage `score` must outlast its kills.
    short = {**seconds, "score": min(seconds["score"] / 4, 1.5)}
    return Campaign(_copy(survey, folder / "killed"), survey.parent / "run", short, deck, rng)


def _seed() -> int:
    seed = int(os.environ.get("LENSPIPE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"LENSPIPE_SEED={seed}")  # noqa: T201 - pytest shows it where the test fails
    return seed


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_dozen_kills_change_nothing(
    undisturbed: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    campaign = _campaign(undisturbed, tmp_path, _seed(), kills=None)
    campaign.run()
    assert sum(campaign.done.values()) == 12
    assert {victim for _, victim in campaign.done} == {v for each in VICTIMS.values() for v in each}
    assert campaign.scored_alone >= 1
    assert campaign.finished >= 1


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_a_hundred_kills_change_nothing(
    undisturbed: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    """LENSPIPE_KILLS sets how many, LENSPIPE_SEED which."""
    wanted = int(os.environ.get("LENSPIPE_KILLS", "100"))
    campaign = _campaign(undisturbed, tmp_path, _seed(), kills=wanted)
    try:
        campaign.run()
    finally:
        print(f"{campaign.lives} lives, {campaign.finished} runs, {campaign.done}")  # noqa: T201
    assert sum(campaign.done.values()) >= wanted

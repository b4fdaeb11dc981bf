"""Kills at random moments of a run's stages, life after life, until every one on the list is done.

A life is one call of the command. Ray survives the death of an actor or of a feeding task, so a
life takes many of those; the others end it, and the same command is given again.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.chaos.job_process import PATIENCE_S, JobProcess
from tests.chaos.results import assert_same

# Ray is gone when a run publishes, and plans on the driver alone.
VICTIMS = {
    "select": ("actor", "raylet", "gcs", "driver", "group"),
    "plan": ("raylet", "gcs", "driver", "group"),
    "score": ("actor", "feed", "raylet", "gcs", "driver", "group"),
    "publish": ("driver", "group"),
}
SURVIVED = ("actor", "feed")
_TIMES_SURVIVED = 12  # of these, for one of the others, which cost a start of Ray each
_GONE_S = 90.0  # Ray's agents outlive their node while they ask whether it is really gone


@dataclass
class Campaign:
    """Kills of the run that `survey` describes. deck: the victims still to come, by stage.

    spans: seconds that each stage takes undisturbed, within which moments are drawn. Lives take
    turns: in one reader tasks feed the scorers, as the survey file says, in the next scorers read
    for themselves. scored_alone: kills of stage `score` in the latter.
    """

    survey: Path
    undisturbed: Path
    spans: Mapping[str, float]
    deck: dict[str, list[str]]
    rng: random.Random
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    finished: int = 0
    lives: int = 0
    scored_alone: int = 0
    # Fraction of a stage's span within which the next moment is drawn: a busy machine looks late,
    # and a stage that ended meanwhile is struck earlier in the next life.
    within: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Live and kill until the deck is empty; then let the run end and compare it."""
        most = 4 * sum(map(len, self.deck.values())) + 20
        ended: list[JobProcess] = []
        with ExitStack() as lives:
            while any(self.deck.values()) or self._is_begun():
                self.lives += 1
                assert self.lives <= most, f"{self.lives} lives, and still to kill: {self.deck}"
                fed = self.lives % 2 == 1 or set(self.deck["score"]) == {"feed"}
                job = lives.enter_context(JobProcess(_with_readers(self.survey, fed)))
                self._live(job, fed)
                self._judge(job, job.wait())
                ended.append(job)
            # Not after each: Ray's agents outlive it by a minute, and another life may begin.
            assert [job.wait_until_gone(_GONE_S) for job in ended] == [[]] * len(ended)

    def _is_begun(self) -> bool:
        return (self.survey.parent / "run").exists() or not self.finished

    def _live(self, job: JobProcess, fed: bool) -> None:
        """Kill in each stage that this life comes to, until it dies or ends. fed: whether there
        are tasks that feed."""
        for stage in _stages(job):
            while there := [v for v in self.deck.get(stage, ()) if fed or v != "feed"]:
                victim = there[0]
                within = self.within.get(stage, 1.0)
                time.sleep(self.rng.uniform(0.0, self.spans[stage] * within))
                if not self._strike(job, stage, victim):
                    self.within[stage] = within / 2
                    break
                self.within.pop(stage, None)
                self.deck[stage].remove(victim)
                self.scored_alone += stage == "score" and not fed
                self.done[job.stage(), victim] += 1
                print(f"killed {victim} in {job.stage()}", flush=True)  # noqa: T201 - on failure
                if victim not in SURVIVED:
                    return

    def _strike(self, job: JobProcess, stage: str, victim: str) -> bool:
        """Kill one, as soon as there is one; False where the stage or the life ended before."""
        # Half of the actors die at work: five in a row that die while starting stop a run.
        kind = "worker" if victim == "actor" and self.rng.random() < 0.5 else victim
        while not job.ended and job.stage() == stage:
            if job.kill(kind) is not None:
                return True
            time.sleep(0.005)
        return False

    def _judge(self, job: JobProcess, status: int) -> None:
        lines = job.lines()
        assert status in {0, 1, -9}, lines[-5:]
        assert not any("Traceback" in line for line in lines), lines
        if status == 1:
            assert lines[-1].startswith("StoppedError: "), lines[-1]
            assert lines[-1].endswith("the same command resumes"), lines[-1]
            in_order = "before the run could end in order" not in lines[-1]
            assert in_order != (self.survey.parent / "run" / "lock.json").exists(), lines[-1]
        if status == 0:
            assert_same(self.survey.parent / "run", self.undisturbed)
            shutil.rmtree(self.survey.parent / "run")
            self.finished += 1


def _with_readers(survey: Path, fed: bool) -> Path:
    """The same survey with one reader task, or none; a resume takes another `runtime`."""
    content = yaml.safe_load(survey.read_text(encoding="utf-8"))
    content["runtime"]["readers"] = int(fed)
    survey.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return survey


def _stages(job: JobProcess) -> Iterator[str]:
    """The stages of a life as they begin."""
    told = "open"
    deadline = time.monotonic() + PATIENCE_S
    while not job.ended:
        assert time.monotonic() < deadline, f"a life without an end: {job.lines()[-3:]}"
        stage = job.stage()
        if stage != told:
            told = stage
            yield stage
        time.sleep(0.005)


def make_deck(rng: random.Random, least: int) -> dict[str, list[str]]:
    """Victims of every stage in random order, as many of each as it takes to have so many."""
    deck: dict[str, list[str]] = {stage: [] for stage in VICTIMS}
    while sum(map(len, deck.values())) < least:
        for stage, victims in VICTIMS.items():
            for victim in victims:
                deck[stage] += [victim] * (_TIMES_SURVIVED if victim in SURVIVED else 1)
    for cards in deck.values():
        rng.shuffle(cards)
    return deck

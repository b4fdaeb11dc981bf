"""The whole survey on one screen: select, plan, score, publish.

Every stage looks first at what is committed and does the rest, so that a run that was killed
anywhere goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from lenspipe import scoring, selecting
from lenspipe.candidate_stamps import CandidateStamps
from lenspipe.catalogue.funnel import Funnel
from lenspipe.check import CheckedSurvey, check_survey
from lenspipe.config import Survey, resolve
from lenspipe.errors import FailureLimitError
from lenspipe.events import Events
from lenspipe.identity import check_same_run, versions
from lenspipe.lock import RunLock
from lenspipe.planning import Plan, make_plan, read_plan
from lenspipe.publish import PublishInfo, publish
from lenspipe.run_directory import CATALOGUE, METRICS, REPORT, RUN, RunDirectory
from lenspipe.runtime import PoolOptions, connect
from lenspipe.slots import Slots, plan_slots
from lenspipe.stages import Ledger, StageSpec, run_stage


@dataclass(frozen=True)
class Job:
    """One run under way: what was checked, and where its commits go."""

    checked: CheckedSurvey
    ledger: Ledger

    @property
    def run(self) -> RunDirectory:
        """The run directory."""
        return self.ledger.run

    @property
    def events(self) -> Events:
        """Who is told."""
        return self.ledger.events


def run_survey(
    survey: Survey, events: Events, address: str | None = None, fresh: bool = False
) -> PublishInfo:
    """Run a survey, or what is left of it, to its published catalogue.

    InputError before anything starts where file, columns, bands or models cannot work;
    ResumeRefusedError where the directory holds another run; FailureLimitError at the end where
    more sources failed than the survey file allows.
    """
    with (
        check_and_open(survey, events, fresh) as job,
        connect(address or survey.runtime.address) as cluster,
    ):
        slots = plan_slots(cluster, survey.runtime)
        select(job, workers=max(1, int(cluster.cpus)))
        plan = plan_shards(job, slots)
        score(job, plan, slots)
        return finish(job)


def select(job: Job, workers: int) -> None:
    """Stages 1 and 2 of the pre-filter over the catalogue's parts; no pixel is read."""
    settled = job.checked.settled().select_plan
    spec = StageSpec(
        stage="select",
        worker=selecting.SelectorFactory(job.run.url, settled),
        quarantine=selecting.Quarantine(job.run, settled),
        options=_pool(job, workers),
    )
    run_stage(job.ledger, spec, selecting.lay_out(job.checked.parts))


def plan_shards(job: Job, slots: Slots) -> Plan:
    """The selected sources in the order of their pixels, repeated ids marked, cut into shards."""
    plan = read_plan(job.run)
    if plan is None:
        parts = job.run.part_names("select", job.run.records("select"))
        rows = job.checked.survey.runtime.shard_rows
        plan = make_plan(job.run, parts, rows, slots.scorers)
    if plan.duplicates:
        job.events.message(f"{plan.duplicates} selected rows repeat another row's id: not scored")
    return plan


def score(job: Job, plan: Plan, slots: Slots) -> None:
    """Pixels and networks over the plan's shards."""
    settings = job.checked.score_settings(job.run.url, slots.provider, slots.threads)
    spec = StageSpec(
        stage="score",
        worker=scoring.ScorerFactory(settings),
        quarantine=scoring.Quarantine(job.run),
        options=_pool(job, slots.scorers, slots.cpus, slots.gpus, slots.depth),
        feed=scoring.PixelReading(settings) if slots.readers else None,
    )
    run_stage(job.ledger, spec, [scoring.PlanRows(*shard) for shard in plan.shards])


def finish(job: Job) -> PublishInfo:
    """Catalogue, candidates, funnel and report from what is committed; the run's last word."""
    checked, run = job.checked, job.run
    stamps = CandidateStamps(
        run,
        checked.score_settings(run.url, "cpu", threads=len(os.sched_getaffinity(0))),
        checked.survey.publish.explain,
    )
    limit = checked.survey.runtime.failure_limit

    def too_many(counted: Funnel) -> bool:
        return counted.failed > limit * max(counted.selected, 1)

    def settle(counted: Funnel) -> None:
        state = "finished_with_failures" if too_many(counted) else "done"
        _write_state(run, checked, state)

    info = publish(run, checked.publish_settings(), stamps, settle)
    run.store.write(METRICS, job.events.metrics.text())
    if too_many(info.funnel):
        raise FailureLimitError(
            f"{info.funnel.failed} sources failed, more than runtime.failure_limit "
            f"({limit:.2%}) allows; reasons: {info.funnel.reasons}"
        )
    return info


def describe_run(survey: Survey, info: PublishInfo) -> list[tuple[str, str]]:
    """What a run left, as (field, text) lines for a person."""
    counted = info.funnel
    run = RunDirectory(resolve(survey.output, survey.base))
    return [
        ("sources", f"{counted.sources_in:,}"),
        ("cut", f"{counted.cut:,}"),
        ("rejected", f"{counted.rejected:,} by the photometry network"),
        ("scored", f"{counted.scored:,}"),
        ("failed", f"{counted.failed:,}{_by_reason(counted.reasons)}"),
        ("candidates", f"{info.candidates:,}"),
        ("catalogue", run.store.path(CATALOGUE)),
        ("report", run.store.path(REPORT)),
    ]


def _by_reason(reasons: dict[str, int]) -> str:
    told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f" ({told})" if told else ""


@contextmanager
def check_and_open(survey: Survey, events: Events, fresh: bool = False) -> Iterator[Job]:
    """A survey that can work, its run directory locked: a new run, or one taken up again."""
    checked = check_survey(survey)
    run = RunDirectory(checked.output)
    lock = RunLock(run.store)
    lock.acquire()
    try:
        if fresh:
            run.erase()
        if check_same_run(run, checked.identity()):
            orphans = run.clean()
            events.message(f"resuming {run.url}; {len(orphans)} uncommitted files removed")
        else:
            _write_state(run, checked, "running")
        yield Job(checked, Ledger(run, lock, events))
    finally:
        lock.release()


def _pool(
    job: Job, workers: int, cpus: float = 1.0, gpus: float = 0.0, depth: int = 1
) -> PoolOptions:
    runtime = job.checked.survey.runtime
    return PoolOptions(
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        depth=depth,
        attempts=runtime.max_attempts,
        timeout_s=runtime.shard_timeout_s,
    )


def _write_state(run: RunDirectory, checked: CheckedSurvey, state: str) -> None:
    before = run.read_json(RUN) or {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    run.write_json(
        RUN,
        {
            "state": state,
            "created": before.get("created", now),
            "updated": now,
            **checked.identity(),
            "ensemble": {
                "name": checked.ensemble.name,
                "members": list(checked.ensemble.member_names),
            },
            "versions": versions(),
        },
    )

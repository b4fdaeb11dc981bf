"""A run directory taken up for writing: checked, locked, new or the same run again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from lenspipe.check import CheckedSurvey, check_survey
from lenspipe.config import Survey
from lenspipe.contracts import Reason
from lenspipe.errors import NoDeviceError, ProviderError, ResumeRefusedError, StoppedError
from lenspipe.processes import stopping
from lenspipe.processes.ray_job import own_job
from lenspipe.run.identity import CARRIED, LAYOUT, check_same_run, held_columns, versions
from lenspipe.run.ledger import Ledger
from lenspipe.run.lock import RunLock
from lenspipe.run.shard_record import ShardRecord
from lenspipe.run_directory import ERASING, METRICS, PLAN_RECORD, RUN, RunDirectory
from lenspipe.stages.selecting import rows_lost
from lenspipe.storage.outage import is_passing
from lenspipe.storage.refusals import describe_refusal
from lenspipe.storage.remote import OutageError
from lenspipe.storage.store import Store
from lenspipe.telling.disk_watch import watching_disks
from lenspipe.telling.events import Events

# Reasons of a failure that another attempt may not meet again.
RETRIED = frozenset(
    {Reason.NOT_FOUND, Reason.UNREADABLE, Reason.WORKER_ERROR, Reason.WORKER_DIED, Reason.TIMED_OUT}
)


@dataclass(frozen=True)
class Job:
    """One run under way: what was checked, where its commits go, and whether its products are to
    be made anew whatever became of them."""

    checked: CheckedSurvey
    ledger: Ledger
    anew: bool = False

    @property
    def run(self) -> RunDirectory:
        """The run directory."""
        return self.ledger.run

    @property
    def events(self) -> Events:
        """Who is told."""
        return self.ledger.events


@contextmanager
def check_and_open(
    survey: Survey,
    events: Events,
    fresh: bool = False,
    retry_failed: bool = False,
    wait_s: float = 0.0,
) -> Iterator[Job]:
    """A survey that can work, its run directory locked: a new run, or one taken up again.

    wait_s: how long another run that holds the lock is waited for.
    """
    events.note("checking the survey: files, columns, bands, models")
    try:
        checked = check_survey(survey)
    except (OutageError, OSError) as error:
        if isinstance(error, OSError) and not is_passing(error):
            raise
        raise StoppedError(f"{describe_refusal(error)}; the same command resumes") from error
    events.run_started(survey.name, checked.output)
    for line in checked.cautions:
        events.message(f"warning: {line}")
    run = RunDirectory(checked.output)
    lock = RunLock(Store(run.url))  # not the run's own, which asks the lock before it writes
    lock.acquire(events.message, wait_s)
    run.store.before_change = lock.check
    try:
        run.refuse_foreign()
        if fresh or (run.read_json(RUN) or {}).get("state") == ERASING:
            run.erase()
        changed = check_same_run(
            run, checked.identity(), other_pixels=retry_failed, pixels=checked.pixels
        )
        if changed is not None:
            # Rows that are done again have the columns of those that are there.
            held = held_columns(run.read_json(RUN) or {})
            checked = replace(checked, select_plan=checked.select_plan.carrying(held))
            again = _take_up_again(run, events, checked) if retry_failed else 0
            orphans = run.clean()
            events.message(
                f"resuming {run.url}: {len(orphans)} uncommitted files removed, "
                f"{again} shards taken up again"
            )
            for line in changed:
                events.message(f"resuming with another {line}")
        events.run_opened(write_state(run, checked, "running"))
        try:
            with _telling_end(events), watching_disks(_disks(run), events.disk):
                yield Job(checked, Ledger(run, lock, events), anew=retry_failed)
        except (ProviderError, NoDeviceError):
            events.provider_refused(survey.runtime.provider)
            raise
        finally:
            with suppress(Exception):  # what ended the run is to be told, not this
                run.store.write(METRICS, events.metrics.text())
    finally:
        lock.release()


@contextmanager
def _telling_end(events: Events) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        # A library may turn what a signal raised into another error.
        stopped = stopping.asked() is not None or not isinstance(error, Exception)
        events.run_left("stopped" if stopped else "failed")
        raise
    events.run_left("done")


def _disks(run: RunDirectory) -> dict[str, Path]:
    """Folders whose disks a run fills: its own, and where sorts spill."""
    local = {"output": run.store.local_path("")} if run.store.is_local else {}
    return {**local, "scratch": Path(tempfile.gettempdir())}


def _take_up_again(run: RunDirectory, events: Events, checked: CheckedSurvey) -> int:
    """Take back commits with failures that may have passed; returns how many.

    Those of stage `select` only before the plan is made: the scores stand for its rows. Commits
    that cannot be read any more are made again in either stage, but that failures of `select` stay
    failures once there is a plan.
    """
    for name in run.mend():
        events.message(f"{name} was broken or lost: its rows are done again")
    if run.store.exists(PLAN_RECORD):
        for name in run.renew_lost_failures(partial(_rows_lost, checked)):
            events.message(f"{name} was lost: its rows stay failures, without their ids")
    elif dropped := run.forget_all("score"):
        # They name rows of the plan that is lost; the next one may have others in their place.
        events.message(f"{PLAN_RECORD} was lost: {dropped} scored shards are scored again")
    for name in run.forget_lost():
        events.message(f"{name} was lost or damaged: its rows are done again")
    again = run.forget("score", RETRIED)
    if not run.store.exists(PLAN_RECORD):
        return again + run.forget("select", RETRIED)
    lost = sum(
        count
        for record in run.commits("select")
        for reason, count in record.reasons.items()
        if reason in RETRIED
    )
    if lost:
        events.message(
            f"{lost} rows of the catalogue failed in stage select and stay so, since the plan is "
            "made without them: --fresh begins anew"
        )
    return again


def _rows_lost(checked: CheckedSurvey, record: ShardRecord, name: str) -> pa.Table:
    return rows_lost(checked.select_plan.failure_schema, record, name)


def write_state(run: RunDirectory, checked: CheckedSurvey, state: str) -> str:
    """Write `run.json`: what the run is, and how far; returns when the run was created."""
    before = run.read_json(RUN) or {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    created = str(before.get("created", now))
    run.write_json(
        RUN,
        {
            "state": state,
            "created": created,
            "updated": now,
            "layout": LAYOUT,
            **checked.identity(),
            # Where relative paths start from: the catalogue is asked again by `lenspipe query`.
            "base": checked.survey.base,
            "ensemble": {
                "name": checked.ensemble.name,
                "members": list(checked.ensemble.member_names),
            },
            CARRIED: list(checked.select_plan.carried),
            # Of a cluster, that wrote here last; another one's does not stay.
            **({} if (job := own_job()) is None else {"job": job}),
            "versions": versions(),
            **{key: before[key] for key in ("provider", "variants") if key in before},
        },
    )
    return created


def tell_provider(job: Job, provider: str) -> None:
    """Keep in `run.json` what the networks run on, and what stands in for members there; that a
    resume goes on with another provider is told.

    ResumeRefusedError where scores are there and one of the two rounds to bfloat16, or others stand
    in for members.
    """
    state = job.run.read_json(RUN) or {}
    before = state.get("provider")
    variants = job.checked.ensemble.variants(provider)
    if before == provider:
        return
    others = state.get("variants", [])
    if before is not None and others != variants and any(job.run.commits("score")):
        raise ResumeRefusedError(
            f"run {job.run.url}: runtime.provider",
            f"{before}, by whose networks a part is scored ({_networks(others)}), or --fresh",
            f"{provider} ({_networks(variants)})",
        )
    if (
        before is not None
        and "openvino_bf16" in {before, provider}
        and any(job.run.commits("score"))
    ):
        raise ResumeRefusedError(
            f"run {job.run.url}: runtime.provider",
            f"{before}, in whose precision a part is scored, or --fresh",
            provider,
        )
    if before is not None:
        job.events.message(
            f"resuming with another provider: {before} before, {provider} now; scores of the two "
            "differ in their last digits"
        )
    job.run.write_json(RUN, {**state, "provider": provider, "variants": variants})


def _networks(variants: Sequence[str]) -> str:
    return ", ".join(variants) or "the members themselves"

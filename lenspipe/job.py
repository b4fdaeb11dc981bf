"""The whole survey on one screen: select, plan, score, publish.

Every stage looks first at what is committed and does the rest, so that a run that was killed
anywhere goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import ValidationError

from lenspipe.catalogue.funnel import Funnel, funnel, refuse_unaccounted
from lenspipe.config import Survey, resolve
from lenspipe.errors import CorruptRunError, FailureLimitError
from lenspipe.intervals import Interval
from lenspipe.processes.slots import Machine, Slots, plan_slots
from lenspipe.run.failure_limit import failed_share
from lenspipe.run.identity import check_same_pixels
from lenspipe.run.opening import Job, check_and_open, tell_provider, write_state
from lenspipe.run_directory import CATALOGUE, REPORT, RUN, THRESHOLD, RunDirectory
from lenspipe.runtime import PoolOptions, connect
from lenspipe.select.lookup import Lookup
from lenspipe.select.plan import SelectPlan
from lenspipe.select.threshold import ThresholdChoice, choose_threshold
from lenspipe.stages import scoring, selecting
from lenspipe.stages.candidate_stamps import CandidateStamps
from lenspipe.stages.planning import Plan, broken, make_plan, read_plan
from lenspipe.stages.publish import PublishInfo, publish
from lenspipe.stages.stage import StageSpec, run_stage
from lenspipe.telling.events import Events

# What the last line of a run tells of its funnel.
_TOLD = ("sources_in", "cut", "rejected", "scored", "failed", "candidates")


def run_survey(
    survey: Survey,
    events: Events,
    address: str | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    wait_s: float = 0.0,
    grows_to: Machine | None = None,
) -> PublishInfo:
    """Run a survey, or what is left of it, to its published catalogue.

    fresh: erase what is there. retry_failed: score those shards again in which a source failed for
    a reason that may have passed. wait_s: how long another run of the directory is waited for.
    grows_to: what a cluster that adds nodes where work waits may come to have (see
    `Machine.grown`); the run is planned for that, and goes on with what there is.
    InputError before anything starts where file, columns, bands or models cannot work;
    ResumeRefusedError where the directory holds another run; PixelsChangedError where files of
    pixels changed while they were scored; FailureLimitError at the end where more sources failed
    than the survey file allows.
    """
    with check_and_open(survey, events, fresh, retry_failed, wait_s) as job:
        with connect(address or survey.runtime.address) as cluster:
            slots = plan_slots(cluster.grown(grows_to, survey.runtime), survey.runtime)
            # Nodes with GPUs are not to come for work that needs none.
            cpus = max(cluster.cpus, grows_to.cpus if grows_to else 0.0)
            select(job, workers=max(1, int(cpus)))
            plan = plan_shards(job, slots)
            scored = score(job, plan, slots)
        if scored:
            check_pixels(job)
        return finish(job)


def select(job: Job, workers: int) -> None:
    """Stages 1 and 2 of the pre-filter over the catalogue's parts; no pixel is read."""
    settled = settle_threshold(job)
    spec = selecting.stage_spec(job.run, settled, _pool(job, workers))
    run_stage(job.ledger, spec, selecting.lay_out(job.checked.parts))


def settle_threshold(job: Job) -> SelectPlan:
    """The stage's plan with the photometry network's threshold, which is chosen once a run."""
    plan = job.checked.select_plan
    if plan.keep is None or plan.keep.fraction is None:
        return plan
    known = job.run.read_json(THRESHOLD)
    if known is None:
        job.events.note("choosing the photometry network's threshold from a sample")
        choice = job.ledger.patiently(lambda: choose_threshold(plan, job.checked.parts))
        known = choice.model_dump()
        job.ledger.patiently(lambda: job.run.write_json(THRESHOLD, known or {}))
    try:
        return plan.with_threshold(ThresholdChoice.model_validate(known).value)
    except ValidationError as error:
        told = broken(THRESHOLD, error)
        raise CorruptRunError(f"{told}: lenspipe run --fresh begins anew") from error


def plan_shards(job: Job, slots: Slots) -> Plan:
    """The selected sources in the order of their pixels, repeated ids marked, cut into shards."""
    plan = read_plan(job.run)
    if plan is None:
        job.events.note("planning the shards")
        parts = job.run.part_names("select", job.run.commits("select"))
        rows = job.checked.shard_rows
        plan = job.ledger.patiently(lambda: make_plan(job.run, parts, rows, slots.scorers))
    if plan.duplicates:
        job.events.message(f"{plan.duplicates} selected rows repeat another row's id: not scored")
    return plan


def score(job: Job, plan: Plan, slots: Slots) -> bool:
    """Pixels and networks over the plan's shards; False where all were committed before."""
    # A resume that may hold fewer rows at a time divides the shards that were planned.
    return score_shards(job, plan.shards_of(job.checked.shard_rows), slots)


def score_shards(job: Job, shards: Sequence[Interval], slots: Slots) -> bool:
    """Pixels and networks over these row intervals of the plan."""
    job.ledger.patiently(lambda: tell_provider(job, slots.provider))
    job.events.provider(slots.provider)
    job.events.compare_scores(job.checked.ensemble.spec.score_distribution)
    settings = job.checked.score_settings(job.run.url, slots.provider, slots.threads)
    spec = StageSpec(
        stage="score",
        worker=scoring.ScorerFactory(settings, reads=not slots.readers),
        quarantine=scoring.Quarantine(job.run),
        options=_pool(job, slots.scorers, slots.cpus, slots.gpus, slots.depth),
        feed=scoring.PixelReading(settings) if slots.readers else None,
    )
    return run_stage(job.ledger, spec, [scoring.PlanRows(*shard) for shard in shards])


def check_pixels(job: Job) -> None:
    """PixelsChangedError where the pixels' files are not those that the run began with."""
    job.events.note("listing the pixels again")
    now = job.ledger.patiently(job.checked.pixels_now)
    check_same_pixels(job.checked.pixels, now)


def finish(job: Job) -> PublishInfo:
    """Catalogue, candidates, funnel and report from what is committed; the run's last word.

    CorruptRunError, before anything is published, where the commits do not account for every row.
    """
    checked, run = job.checked, job.run
    stamps = CandidateStamps(
        run,
        checked.score_settings(run.url, "cpu", threads=len(os.sched_getaffinity(0))),
        checked.survey.publish.explain,
        checked.survey.runtime.shard_timeout_s,
        job.events.message,
    )
    limit = checked.survey.runtime.failure_limit
    plan = read_plan(run)

    def refuse_gaps(counted: Funnel) -> None:
        refuse_unaccounted(counted, checked.rows, plan.rows if plan else 0)

    def settle(counted: Funnel) -> None:
        refuse_gaps(counted)
        too_many = failed_share(counted).exceeds(limit)
        write_state(run, checked, "finished_with_failures" if too_many else "done")

    job.ledger.patiently(lambda: refuse_gaps(funnel(run)))
    job.ledger.patiently(run.clean)  # files of attempts that were killed since the run began
    job.events.note("publishing: catalogue, candidates, report")
    if job.anew:
        job.ledger.patiently(run.forget_products)
    asked = Lookup(checked.parts, checked.select_plan)
    settings = checked.publish_settings()
    info = job.ledger.patiently(lambda: publish(run, settings, stamps, settle, asked))
    counts = {name: getattr(info.funnel, name) for name in _TOLD}
    job.events.run_finished(str((run.read_json(RUN) or {})["state"]), counts)
    share = failed_share(info.funnel)
    if share.exceeds(limit):
        raise FailureLimitError(share.told(limit))
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

"""How far a run is, read from its files; the run need not be alive or near."""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lenspipe.errors import InputError, LenspipeError, printable
from lenspipe.run.lock import is_alive, read_holder
from lenspipe.run_directory import ERASING, LOCK, RUN, RunDirectory, Stage
from lenspipe.stages.planning import broken, read_plan


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Publish(_Told):
    mosaic: int = Field(ge=0)


class _Survey(_Told):
    name: str
    publish: _Publish


class _Inputs(_Told):
    rows: int = Field(ge=0)


class Identity(_Told):
    """What of run.json a person is told."""

    state: str
    updated: str
    job: str | None = None
    survey: _Survey
    inputs: _Inputs


def open_run(url: str) -> tuple[RunDirectory, dict[str, Any]]:
    """A run directory and the content of its run.json; InputError where no run was begun.

    Nothing is written.
    """
    try:
        run = RunDirectory(url)
        identity = run.read_json(RUN)
    except LenspipeError:
        raise
    except Exception as error:  # each store's library has exceptions of its own
        raise InputError("run", f"a run directory (with {RUN})", f"{url}: {error}") from error
    if identity is None:
        raise InputError("run", f"a run directory (with {RUN})", url)
    if identity.get("state") == ERASING:
        raise InputError("run", "a whole run", f"{url}, half erased: lenspipe run goes on with it")
    return run, identity


def parse_identity(identity: dict[str, Any]) -> Identity:
    """What of run.json is told; CorruptRunError names what is not as it was written."""
    try:
        return Identity.model_validate(identity)
    except ValidationError as error:
        raise broken(RUN, error) from error


def describe_status(url: str) -> list[tuple[str, str]]:
    """(field, text) lines; InputError where no run was begun."""
    run, identity = open_run(url)
    told = parse_identity(identity)
    plan = read_plan(run)
    lines = [
        ("survey", told.survey.name),
        ("state", _state(run, told.state)),
        ("select", _progress(run, "select", told.inputs.rows)),
    ]
    if plan is not None:
        lines.append(("score", _progress(run, "score", plan.rows)))
    if told.job is not None:
        lines.append(("job", printable(told.job)))
    lines.append(("updated", told.updated))
    return lines


def _state(run: RunDirectory, state: str) -> str:
    holder = read_holder(run.store)
    if holder is None:
        return "interrupted: run the same command to go on" if state == "running" else state
    if not {"pid", "host"} <= set(holder):
        return f"dead: {LOCK} tells of no process; run the same command to go on"
    where = f"process {holder.get('pid')} on {holder.get('host')}"
    if is_alive(holder):
        return f"running: {where}{_last_sign(holder)}"
    return f"dead: {where} left it; run the same command to go on"


def _last_sign(holder: dict[str, Any]) -> str:
    try:
        return f", last sign {time.time() - float(holder['heartbeat']):.0f} s ago"
    except (KeyError, TypeError, ValueError):  # not as we write it
        return ""


def _progress(run: RunDirectory, stage: Stage, total: int) -> str:
    done = failed = commits = 0
    for record in run.commits(stage):
        done += record.stop - record.start
        failed += record.rows_failed
        commits += 1
    share = f" ({done / total:.1%})" if total else ""
    return f"{done:,} of {total:,} rows{share} in {commits} commits, {failed:,} failed"

"""A run's own scores as the distribution that later runs are held against, in an ensemble file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float

from lenspipe.errors import CorruptRunError, InputError
from lenspipe.models import locate
from lenspipe.models.card import ScoreDistribution
from lenspipe.models.drift import distribution_of
from lenspipe.models.ensemble_file import EnsembleDescription, MemberFile, describe_ensemble
from lenspipe.run.status import open_run
from lenspipe.run_directory import RunDirectory

# Below it the index of scores that did not drift is above a hundredth by chance alone.
LEAST_SCORES = 1000
_FINISHED = ("done", "finished_with_failures")


def write_reference(url: str, out: Path, population: str | None = None) -> ScoreDistribution:
    """Write the run's ensemble to the file `out`, with how its scores lie in that run.

    Scores, probabilities and the hash of the models stay those of the run's ensemble. population:
    whose scores they are, in words; by default the name of the run and the day that it ended.
    InputError where the run has not ended, has too few scores, or its models are others by now.
    """
    run, identity = open_run(url)
    if identity.get("state") not in _FINISHED:
        raise InputError("RUN", "a run that has ended", identity.get("state"))
    if out.suffix not in (".yaml", ".yml") or not out.absolute().parent.is_dir():
        raise InputError("--out", "a file .yaml in a folder that is there", out)
    try:
        survey, models = identity["survey"], identity["models"]
        named = f"sources that run {survey['name']} scored until {identity['updated'][:10]}"
        described = describe_ensemble(survey["ensemble"], identity["base"])
        _require_same(described, models["ensemble"])
    except (KeyError, TypeError) as error:
        raise CorruptRunError(f"run.json: {type(error).__name__}: {error}") from error
    found = _distribution(_scores(run), population or named)
    content = _absolute(described, found)
    out.write_text(yaml.safe_dump(content, sort_keys=False, width=100), encoding="utf-8")
    return found


def _require_same(described: EnsembleDescription, expected: str) -> None:
    if described.model_hash != expected:
        field = f"ensemble {described.name}"
        raise InputError(field, f"the models of the run ({expected})", described.model_hash)


def _scores(run: RunDirectory) -> Float[np.ndarray, " n"]:
    names = run.part_names("scores", run.commits("score"))
    parts = [run.read_part(name, ["score"])["score"].to_numpy() for name in names]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _distribution(scores: Float[np.ndarray, " n"], population: str) -> ScoreDistribution:
    if len(scores) < LEAST_SCORES:
        raise InputError("RUN", f"at least {LEAST_SCORES} scored sources", len(scores))
    try:
        return distribution_of(scores, population)
    except ValueError as error:
        raise InputError("RUN", "scores of which some differ", error) from error


def _absolute(described: EnsembleDescription, found: ScoreDistribution) -> dict[str, Any]:
    """The ensemble's file for another folder."""
    content = described.spec.model_dump(mode="json", exclude_defaults=True)
    content["members"] = [_place(member) for member in described.members]
    if described.spec.on_cpu:
        content["on_cpu"] = {m.name: _place(m.on_cpu) for m in described.members if m.on_cpu}
    content["score_distribution"] = found.model_dump(mode="json")
    return content


def _place(member: MemberFile) -> str:
    """A name of the zoo, or a path that holds from any folder."""
    shipped = member.path.parent == locate.folder()
    return member.path.stem if shipped else str(member.path.absolute())

"""Hard-negative mining: score a pool, add its highest non-lenses, train again.

The loop that lens finders live by: what a network takes for lenses among ordinary galaxies is what
it must see more of. Source: Sung & Poggio 1998, IEEE TPAMI 20, 39 (bootstrapping of false
positives); for lenses e.g. Cañameras et al. 2024.

Folder: `round-0` … hold the trainings, `mining.json` which rows each round took and what it
changed. A round whose rows are written is not scored again, so a mining goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from lenspipe.errors import InputError
from training import fit
from training.data import Examples, joined
from training.feed import place
from training.merging import Arcs
from training.metrics import Curve
from training.recipe import MemberRecipe, Mining, StartFrom
from training.together import joined as group_joined

RECORD = "mining.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sets:
    """What a network is made with. pool: where mining looks; lenses in it are left alone."""

    train: Examples
    validation: Examples
    pool: Examples | None = None
    arcs: Arcs | None = None


def mine(
    recipe: MemberRecipe,
    choice: Mining,
    sets: Sets,
    folder: Path,
    *,
    begin: StartFrom | None = None,
    device: str | None = None,
) -> fit.Fitted:
    """Train, then so many rounds of mining and training again; the last round's network."""
    if sets.pool is None:
        raise InputError("mining", "a pool to look in", "none")
    fitted = _trained(recipe, sets.train, sets, folder, 0, begin, device)
    for number in range(1, choice.rounds + 1):
        rounds = _found(recipe, choice, sets.pool, sets.validation, folder, number, fitted, device)
        rows = np.concatenate([np.asarray(done["rows"], np.int64) for done in rounds])
        if choice.begin == "before":
            frozen = recipe.start_from.freeze if recipe.start_from else ()
            before = round_folder(folder, number - 1) / fit.BEST
            begin = StartFrom(checkpoint=str(before), freeze=frozen)
        train = joined(sets.train, sets.pool, rows)
        fitted = _trained(recipe, train, sets, folder, number, begin, device)
        _tell_after(choice, sets.validation, folder, number, fitted, device)
    return fitted


def hardest(
    logits: Float[np.ndarray, " n"], allowed: np.ndarray, choice: Mining
) -> Int64[np.ndarray, " found"]:
    """Rows with the highest logits among those allowed, highest first, the earlier of equals."""
    rows = np.flatnonzero(allowed)
    order = rows[np.argsort(-logits[rows].astype(np.float64), kind="stable")]
    if choice.top is not None:
        return order[: choice.top]
    return order[logits[order] > choice.above]


def fpr_at_tpr(curve: Curve, tpr: float) -> float:
    """False-positive rate at the highest threshold that lets so many of the lenses pass."""
    true, false = curve.counts()
    level = int(np.argmax(true >= tpr * curve.n_positives - 1e-9))
    return float(false[level] / curve.n_negatives)


def round_folder(folder: Path, number: int) -> Path:
    """Folder of one round's training; 0 is the one before any mining."""
    return folder / f"round-{number}"


def read_record(folder: Path) -> list[dict[str, Any]]:
    """What was written of each round, in order."""
    rounds: list[dict[str, Any]] = _read(folder)["rounds"]
    return rounds


def pool_of(folder: Path) -> str | None:
    """SHA-256 of the pool that was looked in; None before the first round."""
    told = _read(folder).get("pool_sha256")
    return None if told is None else str(told)


def in_words(folder: Path) -> Iterator[str]:
    """A line for each round."""
    for done in read_record(folder):
        kinds = ", ".join(f"{n} {kind}" for kind, n in done["kinds"].items()) or "none"
        before, after = done["before"], done["after"]
        yield (
            f"round {done['round']}: {len(done['rows'])} non-lenses ({kinds}); "
            f"validation FPR at TPR {done['at_tpr']:g}: {before['fpr']:.3g} before, "
            f"{after['fpr']:.3g} after"
        )


def _trained(
    recipe: MemberRecipe,
    train: Examples,
    sets: Sets,
    folder: Path,
    number: int,
    begin: StartFrom | None,
    device: str | None,
) -> fit.Fitted:
    logger.info("%s: round %d, %d examples", recipe.name, number, len(train))
    where = round_folder(folder, number)
    return fit.fit(
        recipe, train, sets.validation, where, arcs=sets.arcs, begin=begin, device=device
    )


def _found(
    recipe: MemberRecipe,
    choice: Mining,
    pool: Examples,
    validation: Examples,
    folder: Path,
    number: int,
    fitted: fit.Fitted,
    device: str | None,
) -> list[dict[str, Any]]:
    """The rounds so far, this one's rows included; scored by the first process of a group."""
    with group_joined(device) as group:
        rounds = read_record(folder)
        if group.leads and len(rounds) < number:
            logits = _logits(fitted, pool, device)
            allowed = ~pool.positive
            allowed[[row for done in rounds for row in done["rows"]]] = False
            rows = hardest(logits, allowed, choice)
            if not len(rows):
                raise InputError("mining", "non-lenses in the pool that are left to take", "none")
            rounds.append(
                {
                    "round": number,
                    "rows": rows.tolist(),
                    "logits": [round(float(value), 6) for value in logits[rows]],
                    "kinds": dict(Counter(pool.kinds[rows].tolist()).most_common()),
                    "at_tpr": choice.at_tpr,
                    "before": _judged(fitted, validation, choice, device),
                    "after": None,
                }
            )
            told = {"recipe": recipe.sha256(), "pool": pool.name, "pool_sha256": pool.sha256}
            _write(folder, {**told, "rounds": rounds})
        found: list[dict[str, Any]] = group.told(rounds)
    return found[:number]


def _tell_after(
    choice: Mining,
    validation: Examples,
    folder: Path,
    number: int,
    fitted: fit.Fitted,
    device: str | None,
) -> None:
    with group_joined(device) as group:
        if not group.leads:
            return
        content = _read(folder)
        content["rounds"][number - 1]["after"] = _judged(fitted, validation, choice, device)
        _write(folder, content)


def _judged(
    fitted: fit.Fitted, validation: Examples, choice: Mining, device: str | None
) -> dict[str, float]:
    curve = Curve(_logits(fitted, validation, device), validation.positive)
    return {"fpr": fpr_at_tpr(curve, choice.at_tpr), "auroc": curve.auroc(), "tpr0": curve.tpr(0)}


def _logits(fitted: fit.Fitted, examples: Examples, device: str | None) -> Float[np.ndarray, " n"]:
    with group_joined(device) as group:
        inputs, _ = place(examples, group.where)
        found = fit.logits_of(fitted.model.to(group.where), inputs, group.where).cpu().numpy()
        fitted.model.cpu()
    return found


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    if not path.exists():
        return {"rounds": []}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(folder: Path, content: dict[str, Any]) -> None:
    aside = folder / f"part-{RECORD}"
    aside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    aside.replace(folder / RECORD)

"""The photometry network's threshold where the survey file gives a fraction of its input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict

from lenspipe.errors import HopelessError, InputError, StoppedError
from lenspipe.select.photometry import threshold_for_fraction
from lenspipe.select.plan import SelectPlan
from lenspipe.select.sources import SourcePart, group_slices
from lenspipe.select.stage import survivor_scores

SAMPLE_ROWS = 100_000  # scored rows that a threshold by fraction is taken from
SAMPLE_PARTS = 64  # most readable parts read for them


class ThresholdChoice(BaseModel):
    """A threshold by fraction, and what it was taken from.

    value: logit, -inf where no sampled row has a score; fraction: as the survey file asks;
    sampled_rows: scored rows of the sample; sampled_parts: parts of the catalogue they are from;
    unreadable_parts: parts that were drawn and of which some row group could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float
    fraction: float
    sampled_rows: int
    sampled_parts: int
    unreadable_parts: int


def choose_threshold(plan: SelectPlan, parts: Sequence[SourcePart]) -> ThresholdChoice:
    """The quantile of the scores of rows that survive the cuts, in parts drawn with a fixed seed:
    the same catalogue gives the same threshold.

    Row groups that are damaged are left out: the stage makes failures of their rows. Storage that
    fails is no reason to leave rows out, which would give another threshold: its error is raised.
    """
    if plan.keep is None or plan.keep.fraction is None:
        raise ValueError("the plan has no fraction to choose a threshold for")
    scores: list[Float32[np.ndarray, " n"]] = []
    sampled = unreadable = 0
    for index in np.random.default_rng(0).permutation(len(parts)):
        if sampled >= SAMPLE_PARTS or sum(map(len, scores)) >= SAMPLE_ROWS:
            break
        read, whole = _part_scores(parts[index], plan)
        scores += read
        sampled += bool(read)
        unreadable += not whole
    if unreadable and not sampled:
        raise StoppedError("no part of the catalogue can be read; the same command resumes")
    finite = [group[np.isfinite(group)] for group in scores]
    sample = np.concatenate(finite) if finite else np.empty(0, np.float32)
    return ThresholdChoice(
        value=threshold_for_fraction(sample, plan.keep.fraction),
        fraction=plan.keep.fraction,
        sampled_rows=len(sample),
        sampled_parts=sampled,
        unreadable_parts=unreadable,
    )


def settle_threshold(plan: SelectPlan, parts: Sequence[SourcePart]) -> SelectPlan:
    """The plan with its threshold; unchanged where it has one or needs none."""
    if plan.keep is None or plan.keep.fraction is None or plan.threshold is not None:
        return plan
    return plan.with_threshold(choose_threshold(plan, parts).value)


def _part_scores(
    part: SourcePart, plan: SelectPlan
) -> tuple[list[Float32[np.ndarray, " n"]], bool]:
    """Scores of the readable pieces of a part, and whether all of it could be read."""
    whole = list(_readable([part], plan))
    if whole:
        return whole, True
    return list(_readable(group_slices(part.slices, 1), plan)), False


def _readable(
    pieces: Sequence[SourcePart], plan: SelectPlan
) -> Iterator[Float32[np.ndarray, " n"]]:
    for piece in pieces:
        try:
            yield survivor_scores(piece, plan)
        except HopelessError:
            raise
        except InputError:
            continue

"""Several networks as one score: members, cascade, blend, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from lenspipe import blenders
from lenspipe.contracts import InputSpec, ProviderName
from lenspipe.errors import InputError, MemberError
from lenspipe.models.calibrate import calibrate
from lenspipe.models.card import Threshold
from lenspipe.models.ensemble_file import (
    Cascade,
    EnsembleDescription,
    EnsembleSpec,
    describe_ensemble,
)
from lenspipe.models.providers import (
    ProviderOptions,
    choose,
    default_batch_size,
    memory_share,
    on_gpu,
)
from lenspipe.models.session import Member, default_options

__all__ = [
    "Ensemble",
    "EnsembleDescription",
    "EnsembleScores",
    "EnsembleSpec",
    "Prepared",
    "describe_ensemble",
    "load_ensemble",
]

Images = Mapping[str, np.ndarray]
PREPARED_BYTES = 256 * 1024**2
SPAN_ROWS = 1024


@dataclass(frozen=True)
class EnsembleScores:
    """What an ensemble says of n rows.

    members: logit of each member; NaN where a cascade did not ask it, where the row's pixels are
    not finite, or where the member raised. score: what rows rank by; probability: calibrated.
    failed: row -> what a member said as it raised on that row alone; its score is NaN.
    """

    members: Float32[np.ndarray, "n m"]
    score: Float32[np.ndarray, " n"]
    probability: Float32[np.ndarray, " n"]
    failed: Mapping[int, str]


@dataclass(frozen=True)
class Prepared:
    """Images, and for each member that looks at every row what its graph takes of them."""

    images: Images
    normalised: tuple[Images | None, ...]


class Ensemble:
    """Members that are ready to run, and how their logits become one score.

    prevalence: fraction of lenses that probabilities hold at, None where nobody has measured any.
    """

    def __init__(
        self,
        description: EnsembleDescription,
        members: tuple[Member, ...],
        prevalence: float | None = None,
    ) -> None:
        self.description = description
        self.members = members
        self.prevalence = description.prevalence(prevalence)

    @property
    def name(self) -> str:
        """The ensemble's name."""
        return self.description.name

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Every image tensor that some member wants."""
        return self.description.inputs

    @property
    def member_names(self) -> tuple[str, ...]:
        """The members' names, in the order of the score columns."""
        return self.description.member_names

    @property
    def model_hash(self) -> str:
        """See `EnsembleDescription`."""
        return self.description.model_hash

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return self.members[0].provider

    @property
    def halvings(self) -> int:
        """How often some member's batch was made smaller, as the device's memory was short."""
        return sum(member.halvings for member in self.members)

    @property
    def cascade(self) -> Cascade | None:
        """Which member looks first, if one does."""
        return self.description.spec.cascade

    def threshold(self, fpr: float) -> Threshold:
        """The listed threshold of that false-positive rate; InputError lists those there are."""
        return self.description.threshold(fpr)

    def prepare(self, images: Images) -> Prepared:
        """What can be done for `score` beside another batch's inference, in any thread: pixels
        normalised for the members that look at every row, once for all that want the same.

        Nothing where that would take more than `PREPARED_BYTES`: `score` does it span by span.
        """
        rows = self._rows(images)
        made: dict[str, Images] = {}
        normalised: list[Images | None] = []
        for column, member in enumerate(self.members):
            own = self.own(column, images)
            asked = member.card.normalisation
            outside = asked is not None and not asked.in_graph
            key = repr((asked, sorted(self.description.members[column].inputs.items())))
            left = self.cascade is not None and not self._is_first(column)
            size = sum(pixels.nbytes for pixels in own.values()) * (1 + len(made))
            if rows == 0 or left or (outside and key not in made and size > PREPARED_BYTES):
                normalised.append(None)
            elif outside:
                if key not in made:
                    made[key] = member.normalised(own)
                normalised.append(made[key])
            else:
                normalised.append(member.normalised(own))
        return Prepared(images, tuple(normalised))

    def score(self, images: Images | Prepared, *, full: bool = False) -> EnsembleScores:
        """Score rows of `images`: name in `inputs` -> (n, band, y, x) float32; or of what `prepare`
        made of them.

        full: ask every member for every row, as if there were no cascade.

        A row on which a member raises is isolated and reported; MemberError only where a member
        raises on any input at all.
        """
        prepared = images if isinstance(images, Prepared) else self.prepare(images)
        rows = self._rows(prepared.images)
        cascade = None if full else self.cascade
        logits = np.full((rows, len(self.members)), np.nan, np.float32)
        failed: dict[int, str] = {}
        asked = np.ones(rows, bool)
        for column in self._order():
            logits[asked, column] = self._ask(column, prepared, asked, failed)
            if self._is_first(column):
                asked = _passed(logits[:, column], cascade)
        score = self._blend(logits, asked, cascade)
        score[list(failed)] = np.nan
        probability = calibrate(score, self.description.spec.calibration, self.prevalence)
        return EnsembleScores(logits, score, probability, failed)

    def _rows(self, images: Images) -> int:
        missing = [spec.name for spec in self.inputs if spec.name not in images]
        if missing:
            raise InputError(f"{self.name}: images", f"input {missing[0]}", sorted(images))
        return len(images[self.inputs[0].name])

    def _order(self) -> list[int]:
        """Columns in the order of asking: the cascade's first member first."""
        return sorted(range(len(self.members)), key=lambda column: not self._is_first(column))

    def _is_first(self, column: int) -> bool:
        return self.cascade is not None and self.cascade.first == self.member_names[column]

    def _ask(
        self, column: int, prepared: Prepared, asked: Bool[np.ndarray, " n"], failed: dict[int, str]
    ) -> Float32[np.ndarray, " k"]:
        """Logits of one member for the rows that are asked, compacted into full batches."""
        member, normalised = self.members[column], prepared.normalised[column]
        if normalised is None:
            wanted = _rows_of(self.own(column, prepared.images), asked)
            logits, raised = _predict_in_spans(member, wanted)
        else:
            logits, raised = predict_isolated(member, _rows_of(normalised, asked))
        positions = np.flatnonzero(asked)
        failed.update({int(positions[row]): text for row, text in raised.items()})
        return logits

    def own(self, column: int, images: Images) -> Images:
        """The images that a member takes, under its own names."""
        mapping = self.description.members[column].inputs
        return {own: images[shared] for own, shared in mapping.items()}

    def _blend(
        self,
        logits: Float32[np.ndarray, "n m"],
        asked: Bool[np.ndarray, " n"],
        cascade: Cascade | None,
    ) -> Float32[np.ndarray, " n"]:
        """Score per row; see `cascaded_score` for rows that a cascade stopped."""
        if cascade is None:
            return blenders.blend(logits, self.description.blender)
        column = self.member_names.index(cascade.first)
        blended = np.full(len(logits), np.nan, np.float32)
        blended[asked] = blenders.blend(logits[asked], self.description.blender)
        return cascaded_score(logits[:, column], blended, asked, cascade)


def load_ensemble(
    name_or_path: str,
    base: str | Path = ".",
    provider: ProviderName = "auto",
    threads: int = 1,
    batch_size: int | None = None,
    *,
    device_id: int = 0,
    options: ProviderOptions | None = None,
    gpu_share: float = 1.0,
    described: EnsembleDescription | None = None,
    prevalence: float | None = None,
    variants: bool = True,
) -> Ensemble:
    """Open every member of an ensemble and run each once on zeros; see `Member.load`.

    batch_size: None for the provider's own default. gpu_share: part of the device that is this
    process's; below 1 its memory is divided among the members, so that other processes get theirs.
    described: what `describe_ensemble` gave, where it was asked already; files that changed since
    are refused. prevalence: fraction of lenses that probabilities are to hold at, by default the
    calibration's own. variants: on CPUs, take what the ensemble file has there for its members.
    """
    chosen = choose(provider)
    rows = batch_size or default_batch_size(chosen)
    description = described or describe_ensemble(name_or_path, base)
    given = options or default_options()
    if on_gpu(chosen) and given.memory_bytes is None:
        each = memory_share(gpu_share, len(description.members), device_id)
        given = replace(given, memory_bytes=each)
    files = [file.on(chosen) if variants else file for file in description.members]
    members = tuple(
        Member.load(file.path, provider, threads, rows, device_id, given) for file in files
    )
    for file, member in zip(files, members, strict=True):
        if file.sha256 != member.sha256:
            raise InputError(f"model {file.path}", "a file at rest", "one that changed on loading")
    return Ensemble(description, members, prevalence)


def _rows_of(images: Images, asked: Bool[np.ndarray, " n"]) -> Images:
    if asked.all():
        return images
    return {name: pixels[asked] for name, pixels in images.items()}


def cascaded_score(
    first: Float32[np.ndarray, " n"],
    blended: Float32[np.ndarray, " n"],
    asked: Bool[np.ndarray, " n"],
    cascade: Cascade,
) -> Float32[np.ndarray, " n"]:
    """Score of rows of which only some were seen by every member.

    Rows that all members saw: the blended score, but no lower than `floor`. The others:
    floor + (first - below), which rises with the first member's logit and is at most `floor`. So
    no row that was stopped ever ranks above one that passed, whatever else is in its batch.
    """
    floor = np.float32(cascade.floor)
    stopped = np.minimum(floor + (first - np.float32(cascade.below)), floor)
    return np.asarray(np.where(asked, np.maximum(blended, floor), stopped), np.float32)


def predict_isolated(
    member: Member, images: Images
) -> tuple[Float32[np.ndarray, " n"], dict[int, str]]:
    """Logits, and row -> message for rows on which the member raises by themselves (NaN there).

    images: as `Member.normalised` gives them.
    """
    rows = member.rows(images)
    logits = np.full(rows, np.nan, np.float32)
    failed: dict[int, str] = {}
    done = 0
    while done < rows:
        try:
            for start, found in member.stream(images, done):
                done = start + len(found)
                logits[start:done] = found
        except MemberError:
            stop = min(done + member.batch_size, rows)
            _isolate(member, images, done, stop, logits, failed)
            done = stop
    return logits, failed


def _predict_in_spans(
    member: Member, images: Images
) -> tuple[Float32[np.ndarray, " n"], dict[int, str]]:
    """As `predict_isolated`, for images that are not normalised yet: a few batches at a time."""
    rows = member.rows(images)
    logits = np.full(rows, np.nan, np.float32)
    failed: dict[int, str] = {}
    span = member.batch_size * max(1, SPAN_ROWS // member.batch_size)
    for start in range(0, rows, span):
        part = {name: pixels[start : start + span] for name, pixels in images.items()}
        logits[start : start + span], raised = predict_isolated(member, member.normalised(part))
        failed.update({start + row: text for row, text in raised.items()})
    return logits, failed


def _isolate(
    member: Member,
    images: Images,
    start: int,
    stop: int,
    logits: Float32[np.ndarray, " n"],
    failed: dict[int, str],
) -> None:
    """Score one span; where the member raises, halve it until the rows at fault are alone."""
    part = {name: pixels[start:stop] for name, pixels in images.items()}
    try:
        logits[start:stop] = member.infer(part)
        return
    except MemberError as error:
        if not failed:
            member.warm_up()  # raises where it is the member that fails, not the row
        if stop - start == 1:
            failed[start] = str(error)
            return
    middle = (start + stop) // 2
    _isolate(member, images, start, middle, logits, failed)
    _isolate(member, images, middle, stop, logits, failed)


def _passed(first: Float32[np.ndarray, " n"], cascade: Cascade | None) -> Bool[np.ndarray, " n"]:
    """Rows that go on to the other members; NaN never does."""
    if cascade is None:
        return np.ones(len(first), bool)
    return np.asarray(first >= np.float32(cascade.below))

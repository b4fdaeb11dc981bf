"""The ensemble file: members, blender, calibration, thresholds, cascade; described unopened."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lenspipe import blenders
from lenspipe.contracts import InputSpec, member_column
from lenspipe.errors import InputError
from lenspipe.models import calibrate, locate
from lenspipe.models.card import (
    Calibration,
    CardBlock,
    Metric,
    ModelCard,
    ScoreDistribution,
    Threshold,
    read_card,
    read_model,
)
from lenspipe.models.session import check_normalisation
from lenspipe.problems import first_problem
from lenspipe.yaml_file import read_yaml


class Cascade(CardBlock):
    """first: the member that sees every row; below: logit under which the others are not asked.

    floor: scores of rows that all members saw are no lower than it, scores of the others no higher.
    """

    first: str
    below: float
    floor: float = -20.0


class EnsembleSpec(CardBlock):
    """An ensemble file. members: names in the zoo or paths, relative to the file.

    on_cpu: member's name -> the network, named like a member, that stands in for it on CPUs: the
    same in smaller numbers (int8), whose logits differ a little. The member's column is its own.
    seen: names of real objects that the members' or the ensemble's making saw.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    members: tuple[str, ...] = Field(min_length=1)
    on_cpu: dict[str, str] = Field(default_factory=dict)
    blender: dict[str, Any] = Field(default_factory=lambda: {"kind": "mean"})
    calibration: Calibration | None = None
    thresholds: tuple[Threshold, ...] = ()
    metrics: dict[str, Metric] = Field(default_factory=dict)
    score_distribution: ScoreDistribution | None = None
    cascade: Cascade | None = None
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemberFile:
    """One member on disk. inputs: the network's input name -> name in the ensemble's images.
    on_cpu: what stands in for it on CPUs."""

    name: str
    path: Path
    sha256: str
    card: ModelCard
    inputs: dict[str, str]
    on_cpu: MemberFile | None = None

    def on(self, provider: str) -> MemberFile:
        """The file that runs on a provider that was chosen."""
        return self.on_cpu if provider == "cpu" and self.on_cpu is not None else self


@dataclass(frozen=True)
class EnsembleDescription:
    """What is known of an ensemble without opening a session.

    inputs: every image tensor that some member wants, equal ones once. model_hash: first 16 hex
    digits of SHA-256 over the members' files and what the ensemble file sets.
    """

    spec: EnsembleSpec
    path: Path
    members: tuple[MemberFile, ...]
    inputs: tuple[InputSpec, ...]
    blender: blenders.BlenderOptions
    model_hash: str

    @property
    def name(self) -> str:
        """The ensemble's name."""
        return self.spec.name

    @property
    def member_names(self) -> tuple[str, ...]:
        """The members' names, in the order of the score columns."""
        return tuple(member.name for member in self.members)

    def variants(self, provider: str) -> list[str]:
        """Names of the networks that stand in for members on a provider that was chosen."""
        return [used.name for file in self.members if (used := file.on(provider)) is not file]

    def prevalence(self, wanted: float | None) -> float | None:
        """Fraction of lenses that probabilities hold at: what is wanted, or the calibration's own.

        InputError where one is wanted and there is no calibration to bring there, or it is no
        fraction.
        """
        if wanted is not None and not 0.0 < wanted < 1.0:
            raise InputError("prevalence", "a fraction between 0 and 1", wanted)
        own = self.spec.calibration.prevalence if self.spec.calibration else None
        if wanted is not None and own is None:
            raise InputError("prevalence", f"a calibration in {self.name}", "none")
        return own if wanted is None else wanted

    def threshold(self, fpr: float) -> Threshold:
        """The listed threshold of that false-positive rate; InputError lists those there are."""
        for threshold in self.spec.thresholds:
            if abs(threshold.fpr - fpr) <= 1e-9 * fpr:
                return threshold
        known = ", ".join(f"{t.fpr:g}" for t in self.spec.thresholds) or "none measured"
        raise InputError("candidates.fpr", f"one of {self.name}'s: {known}", f"{fpr:g}")


def describe_ensemble(name_or_path: str, base: str | Path = ".") -> EnsembleDescription:
    """Read an ensemble file, or one network's file as an ensemble of one, and all members' cards.

    InputError names the key, or the member, that is wrong.
    """
    path = locate.find(name_or_path, base, "ensemble")
    spec = _single(path) if path.suffix == ".onnx" else read_spec(path)
    files = [locate.find(name, path.parent, "ensemble.members") for name in spec.members]
    cards, hashes = _read_members(files)
    _check_members(cards, path)
    inputs, names = merge_inputs([[image.spec() for image in card.images] for card in cards])
    _check_spec(spec, [card.name for card in cards])
    members = tuple(
        MemberFile(card.name, file, sha256, card, mapping)
        for card, file, sha256, mapping in zip(cards, files, hashes, names, strict=True)
    )
    members = tuple(_with_variant(member, spec, path.parent) for member in members)
    _check_variants(members)
    return EnsembleDescription(
        spec=spec,
        path=path,
        members=members,
        inputs=inputs,
        blender=blenders.parse(spec.blender, len(files)),
        model_hash=_model_hash(spec, members),
    )


def _with_variant(member: MemberFile, spec: EnsembleSpec, base: Path) -> MemberFile:
    """The member with what stands in for it on CPUs; InputError where that is another network."""
    if member.name not in spec.on_cpu:
        return member
    field = f"ensemble.on_cpu.{member.name}"
    path = locate.find(spec.on_cpu[member.name], base, field)
    [card], [sha256] = _read_members([path])
    wanted, found = ([image.spec() for image in c.images] for c in (member.card, card))
    if found != wanted:
        raise InputError(field, f"a network of the inputs of {member.name}", found)
    return replace(member, on_cpu=MemberFile(card.name, path, sha256, card, member.inputs))


def _check_variants(members: Sequence[MemberFile]) -> None:
    """InputError where what stands in for a member is itself one, or stands in for two: a column
    would hold the logits of another member."""
    seen = [(member.name, member.sha256, f"member {member.name}") for member in members]
    for member in members:
        if (used := member.on_cpu) is None:
            continue
        for name, sha256, known in seen:
            if used.name == name or used.sha256 == sha256:
                raise InputError(
                    f"ensemble.on_cpu.{member.name}",
                    "a network that is no other's variant and no member, by name and by file",
                    f"{used.name} at {used.path}, {known}",
                )
        seen.append((used.name, used.sha256, f"the variant of {member.name}"))


def read_spec(path: Path) -> EnsembleSpec:
    """Parse an ensemble file. InputError names the key that is wrong."""
    content = read_yaml(path, f"ensemble {path}")
    if not isinstance(content, dict):
        raise InputError(f"ensemble {path}", "a mapping of keys to values", type(content).__name__)
    try:
        return EnsembleSpec.model_validate(content)
    except ValidationError as error:
        raise first_problem(error, f"ensemble {path}:") from error


def merge_inputs(
    wanted: Sequence[Sequence[InputSpec]],
) -> tuple[tuple[InputSpec, ...], list[dict[str, str]]]:
    """Union of the members' inputs, and per member: its input name -> name in the union.

    Inputs that agree in all but the name are read once, under the name that came first, as
    `plain_name` writes it. A name that another input has already, capitals apart, becomes
    `name_2`, `name_3` …
    """
    union: list[InputSpec] = []
    mappings: list[dict[str, str]] = []
    for specs in wanted:
        mapping = {}
        for spec in specs:
            same = [known for known in union if replace(known, name=spec.name) == spec]
            if not same:
                same = [replace(spec, name=_free_name(plain_name(spec.name), union))]
                union += same
            mapping[spec.name] = same[0].name
        mappings.append(mapping)
    return tuple(union), mappings


def plain_name(name: str) -> str:
    """A network's own name of an input (`model/x:0`, `..`) as one that files and Zarr arrays may
    have: letters, digits, `-` and, for all else, `_`, but not at the ends."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_") or "input"


def _free_name(name: str, union: Sequence[InputSpec]) -> str:
    taken = {spec.name.lower() for spec in union}
    candidates = [name, *(f"{name}_{k}" for k in range(2, len(union) + 3))]
    return next(candidate for candidate in candidates if candidate.lower() not in taken)


def _single(path: Path) -> EnsembleSpec:
    """One network's file as an ensemble: its own calibration, thresholds and metrics."""
    card = read_card(path)
    return EnsembleSpec(
        name=card.name,
        description=card.description,
        members=(str(path.absolute()),),
        calibration=card.calibration,
        thresholds=card.thresholds,
        metrics=card.metrics,
        score_distribution=card.score_distribution,
        seen=card.training.real_objects,
    )


def _read_members(files: Sequence[Path]) -> tuple[list[ModelCard], list[str]]:
    """Checked cards and hashes of files, each read once: a card and the hash of another file's
    bytes would pass for one."""
    cards, hashes = [], []
    for file in files:
        content, card = read_model(file)
        check_normalisation(card, str(file))
        cards.append(card)
        hashes.append(hashlib.sha256(content).hexdigest())
    return cards, hashes


def _check_members(cards: Sequence[ModelCard], path: Path) -> None:
    field = f"ensemble {path}: members"
    names: dict[str, str] = {}
    for card in cards:
        if not card.images:
            raise InputError(field, "networks that take images", f"{card.name}: none")
        column = member_column(card.name)
        # As DuckDB and SQL fold them.
        if (other := names.get(column.lower())) is not None:
            raise InputError(
                field,
                "names whose columns differ, capitals apart",
                f"{other} and {card.name}: {column}",
            )
        names[column.lower()] = card.name


def _check_spec(spec: EnsembleSpec, members: Sequence[str]) -> None:
    if spec.calibration is not None:
        calibrate.check(spec.calibration)
    others = sorted(set(spec.on_cpu) - set(members))
    if others:
        raise InputError("on_cpu", f"some of {', '.join(members)}", others[0])
    if spec.cascade is None:
        return
    if spec.cascade.first not in members:
        raise InputError("cascade.first", f"one of {', '.join(members)}", spec.cascade.first)
    low = [t.score for t in spec.thresholds if t.score <= spec.cascade.floor]
    if low:
        raise InputError(
            "thresholds", f"scores above the cascade's floor {spec.cascade.floor}", low
        )


def _model_hash(spec: EnsembleSpec, members: Sequence[MemberFile]) -> str:
    """Hash of all that a score, a probability or a candidate depends on."""
    files = {"description", "metrics", "members", "on_cpu", "score_distribution", "seen"}
    kept = spec.model_dump(mode="json", exclude=files)
    variants = {member.name: member.on_cpu.sha256 for member in members if member.on_cpu}
    if variants:
        kept["on_cpu"] = variants
    text = json.dumps({"members": [member.sha256 for member in members], **kept}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

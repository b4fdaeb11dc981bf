"""The shipped models: found by name, listed, verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lenspipe.models.card import read_card
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.ensemble_file import read_spec
from lenspipe.models.locate import find, folder, names
from lenspipe.models.providers import ProviderName
from lenspipe.models.self_test import difference
from lenspipe.models.session import Member

__all__ = ["Entry", "Verified", "find", "folder", "list_models", "names", "verify"]


@dataclass(frozen=True)
class Entry:
    """One model for `lenspipe models list`. bytes: of the file itself."""

    name: str
    kind: Literal["ensemble", "network"]
    task: str
    path: Path
    bytes: int
    description: str


@dataclass(frozen=True)
class Verified:
    """What `verify` found. self_test: per network the difference from its card, None: no test."""

    name: str
    path: Path
    model_hash: str
    self_test: dict[str, float | None]


def list_models() -> list[Entry]:
    """The shipped models; InputError where one of them is not what it should be."""
    return [_entry(find(name)) for name in names()]


def verify(name_or_path: str, base: str | Path = ".", provider: ProviderName = "cpu") -> Verified:
    """Open a model and compare its logits with those in its card, each member of an ensemble.

    InputError where the card, the weights' hash, the graph or the logits are not right;
    ProviderError where the provider is not to be had.
    """
    path = find(name_or_path, base)
    if path.suffix == ".onnx":
        member = Member.load(path, provider)
        return Verified(member.name, path, member.sha256, {member.name: difference(member)})
    ensemble = load_ensemble(str(path), provider=provider)
    tests = {member.name: difference(member) for member in ensemble.members}
    return Verified(ensemble.name, path, ensemble.model_hash, tests)


def _entry(path: Path) -> Entry:
    size = path.stat().st_size
    if path.suffix == ".onnx":
        card = read_card(path)
        return Entry(card.name, "network", card.task, path, size, card.description)
    spec = read_spec(path)
    return Entry(spec.name, "ensemble", "lens_finding", path, size, spec.description)

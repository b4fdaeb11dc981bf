"""The shipped models: found by name, listed, verified."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lenspipe.contracts import InputSpec, ProviderName
from lenspipe.models.card import read_card
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.ensemble_file import describe_ensemble
from lenspipe.models.locate import find, folder, names
from lenspipe.models.self_test import ROWS, difference
from lenspipe.models.session import Member

__all__ = [
    "Entry",
    "Verified",
    "examine",
    "find",
    "folder",
    "list_models",
    "names",
    "show",
    "verify",
]


@dataclass(frozen=True)
class Entry:
    """One model for `lenspipe models list`. bytes: of the file itself."""

    name: str
    kind: Literal["ensemble", "network"]
    task: str
    bands: tuple[str, ...]
    path: Path
    bytes: int
    description: str


@dataclass(frozen=True)
class Verified:
    """What `verify` found. self_test: per network, those that stand in on CPUs among them, the
    difference from its card, None: no test."""

    name: str
    path: Path
    model_hash: str
    self_test: dict[str, float | None]

    def lines(self) -> list[tuple[str, str]]:
        """The same for a terminal: (name, text)."""
        tests = [
            (name, "runs; no self-test in its card" if d is None else f"self-test within {d:.2g}")
            for name, d in self.self_test.items()
        ]
        return [("model", f"{self.name} ({self.path})"), ("hash", self.model_hash), *tests]


def list_models() -> list[Entry]:
    """The shipped models; InputError where one of them is not what it should be."""
    return [_entry(find(name)) for name in names()]


def verify(name_or_path: str, base: str | Path = ".") -> list[tuple[str, str]]:
    """What `examine` found, for a terminal."""
    return examine(name_or_path, base).lines()


def show(name_or_path: str, base: str | Path = ".") -> dict[str, Any]:
    """A network's card, or an ensemble's file with its inputs and hash, as plain values."""
    path = find(name_or_path, base)
    if path.suffix == ".onnx":
        return read_card(path).model_dump(mode="json")
    described = describe_ensemble(str(path))
    return {
        **described.spec.model_dump(mode="json"),
        "member_names": list(described.member_names),
        "variants": described.variants("cpu"),
        "inputs": [asdict(spec) for spec in described.inputs],
        "model_hash": described.model_hash,
    }


def examine(name_or_path: str, base: str | Path = ".", provider: ProviderName = "cpu") -> Verified:
    """Open a model and compare its logits with those in its card, each member of an ensemble.

    InputError where the card, the weights' hash, the graph or the logits are not right;
    ProviderError where the provider is not to be had.
    """
    path = find(name_or_path, base)
    if path.suffix == ".onnx":
        member = Member.load(path, provider, batch_size=ROWS)
        return Verified(member.name, path, member.sha256, {member.name: difference(member)})
    ensemble = load_ensemble(str(path), provider=provider, batch_size=ROWS, variants=False)
    others = [file.on(provider).path for file in ensemble.description.members]
    standing_in = [
        Member.load(other, provider, batch_size=ROWS)
        for other, member in zip(others, ensemble.members, strict=True)
        if other != member.path
    ]
    tests = {member.name: difference(member) for member in (*ensemble.members, *standing_in)}
    return Verified(ensemble.name, path, ensemble.model_hash, tests)


def _entry(path: Path) -> Entry:
    size = path.stat().st_size
    if path.suffix == ".onnx":
        card = read_card(path)
        bands = _bands(image.spec() for image in card.images)
        return Entry(card.name, "network", card.task, bands, path, size, card.description)
    described = describe_ensemble(str(path))
    spec, bands = described.spec, _bands(described.inputs)
    return Entry(spec.name, "ensemble", "lens_finding", bands, path, size, spec.description)


def _bands(inputs: Iterable[InputSpec]) -> tuple[str, ...]:
    """Every band once, in the order in which networks take them."""
    return tuple(dict.fromkeys(band for spec in inputs for band in spec.bands))

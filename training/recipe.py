"""A recipe: everything that made a model, as pydantic models that refuse unknown keys."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from lenspipe.cutouts.base import Block
from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from lenspipe.yaml_file import read_yaml
from training.blend.cascade import CascadeChoice

SPLITS = ("train", "validation", "calibration", "test")


class Named(Block):
    """A plugin by its file name, with its parameters."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class Splits(Block):
    """What each set changes in the recipe's `simulate` block; `seed` at least.

    The sets are drawn separately, so no source is in two of them: equal seeds are refused.
    train, validation: the member's own. calibration: blend, calibration and thresholds.
    test: figures only.
    """

    train: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    calibration: dict[str, Any]
    test: dict[str, Any]

    @model_validator(mode="after")
    def _apart(self) -> Splits:
        seeds: dict[int, str] = {}
        for name, changes in self.given().items():
            seed = changes.get("seed")
            if not isinstance(seed, int) or isinstance(seed, bool):
                raise ValueError(f"expected an integer `seed` in {name}")
            if seed in seeds:
                raise ValueError(f"expected another seed in {name} than in {seeds[seed]}")
            seeds[seed] = name
        return self

    def given(self) -> dict[str, dict[str, Any]]:
        """The sets that are named, in order."""
        found = {name: getattr(self, name) for name in SPLITS}
        return {name: changes for name, changes in found.items() if changes is not None}


class Augmentation(Block):
    """Random changes of each training stamp, on the device, before the normalisation.

    d4: one of the eight rotations and mirrorings. shift_pixels: largest shift of the centre, whole
    pixels, edges repeated. noise: added noise, up to this multiple of the stamp's own.
    brightness_mag: change of all bands together; colour_mag: of each band by itself, both ±.
    """

    d4: bool = True
    shift_pixels: NonNegativeInt = 3
    noise: NonNegativeFloat = 0.0
    brightness_mag: NonNegativeFloat = 0.0
    colour_mag: NonNegativeFloat = 0.0


class Optimiser(Block):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101). clip_norm: largest norm of a gradient."""

    name: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.02
    clip_norm: PositiveFloat = 5.0


class Schedule(Block):
    """one_cycle: rise over `warmup` of the steps, then a cosine to nought; cosine: no rise;
    constant: neither."""

    name: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    warmup: float = Field(default=0.2, gt=0.0, lt=1.0)


class FeatureChoice(Block):
    """One number of the photometry network's input; see `lenspipe.models.card.Feature`.

    Mean and scale are measured on the training set.
    """

    kind: Literal["magnitude", "colour", "error", "missing"]
    a: str
    b: str | None = None

    @model_validator(mode="after")
    def _second_column(self) -> FeatureChoice:
        if (self.kind == "colour") != (self.b is not None):
            raise ValueError("expected `b` for a colour, and for nothing else")
        return self


class Common(Block):
    """What recipes of members and of ensembles share.

    simulate: the block that `training.simulate` takes, or the name of a YAML file beside the recipe
    that holds it. fprs: false-positive rates that a threshold is stored for.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str
    simulate: dict[str, Any]
    splits: Splits
    fprs: tuple[float, ...] = (1e-2, 1e-3)

    def simulate_block(self, split: str) -> dict[str, Any]:
        """The simulate block of one set: the recipe's with the set's changes."""
        changes = self.splits.given().get(split)
        if changes is None:
            known = ", ".join(self.splits.given())
            raise InputError(f"{self.name}: split", f"one of {known}", repr(split))
        return merged(self.simulate, changes)

    def sha256(self) -> str:
        """Identity of the recipe: a hash over every value, defaults included."""
        return digest(self.model_dump(mode="json"))


class MemberRecipe(Common):
    """One network, from the simulation to its weights.

    patience: epochs without a better validation loss before training stops. ema_decay: decay of the
    running mean of the weights, which is what is kept (0: none). drop_band: fraction of the rows of
    photometry that lose one column in training, so that a missing band is nothing new.
    """

    task: Literal["lens_finding", "photometry"]
    licence: str = "BSD-3-Clause"
    architecture: Named
    normalisation: Named | None = None
    features: tuple[FeatureChoice, ...] = ()
    loss: Named = Named(name="cross_entropy")
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    epochs: PositiveInt
    batch_size: PositiveInt = 256
    patience: PositiveInt = 10
    ema_decay: float = Field(default=0.998, ge=0.0, lt=1.0)
    drop_band: float = Field(default=0.0, ge=0.0, lt=1.0)
    seed: NonNegativeInt

    @model_validator(mode="after")
    def _inputs(self) -> MemberRecipe:
        if (self.task == "photometry") != bool(self.features):
            raise ValueError("expected `features` for task photometry, and for no other")
        if (self.task == "photometry") == (self.normalisation is not None):
            raise ValueError("expected `normalisation` for images, and none for photometry")
        if self.splits.train is None or self.splits.validation is None:
            raise ValueError("expected splits train and validation")
        return self


class EnsembleRecipe(Common):
    """Several members as one. members: names of recipes beside this one. cascade: whether one of
    them looks first. int8: whether members that lose little in int8 take that form on CPUs."""

    task: Literal["ensemble"]
    members: tuple[str, ...] = Field(min_length=1)
    blender: Named = Named(name="logistic")
    calibration: Literal["temperature", "platt", "isotonic"] = "platt"
    cascade: CascadeChoice | None = None
    int8: bool = False

    @model_validator(mode="after")
    def _first(self) -> EnsembleRecipe:
        if self.cascade and self.cascade.first not in ("auto", *self.members):
            known = ", ".join(self.members)
            raise ValueError(f"expected `cascade.first` auto or one of {known}")
        return self


Recipe = MemberRecipe | EnsembleRecipe


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; mappings in both are merged key by key."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(base[key], value) if both else value
    return result


def digest(content: Any) -> str:
    """SHA-256 of a JSON value, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse_recipe(content: dict[str, Any]) -> Recipe:
    """Validate a recipe that is already a mapping. InputError names the key that is wrong."""
    tasks: dict[str, type[Recipe]] = {
        "lens_finding": MemberRecipe,
        "photometry": MemberRecipe,
        "ensemble": EnsembleRecipe,
    }
    task = content.get("task")
    if not isinstance(task, str) or task not in tasks:
        raise InputError("task", f"one of {', '.join(tasks)}", repr(task))
    try:
        return tasks[task].model_validate(content)
    except ValidationError as error:
        raise first_problem(error, whole="recipe") from error


def load_recipe(path: str | Path) -> Recipe:
    """Read and validate a recipe file."""
    file = Path(path)
    content = _read(file)
    simulate = content.get("simulate")
    if isinstance(simulate, str):
        content = {**content, "simulate": _read(file.parent / simulate)}
    return parse_recipe(content)


def load_member(path: str | Path) -> MemberRecipe:
    """Read a recipe that must be a member's."""
    recipe = load_recipe(path)
    if not isinstance(recipe, MemberRecipe):
        raise InputError("task", "lens_finding or photometry", recipe.task)
    return recipe


def load_ensemble(path: str | Path) -> EnsembleRecipe:
    """Read a recipe that must be an ensemble's."""
    recipe = load_recipe(path)
    if not isinstance(recipe, EnsembleRecipe):
        raise InputError("task", "ensemble", recipe.task)
    return recipe


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise InputError("recipe", "a YAML file", f"nothing at {file}")
    content = read_yaml(file, str(file))
    if not isinstance(content, dict):
        raise InputError(str(file), "a mapping of keys to values", type(content).__name__)
    return content

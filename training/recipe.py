"""A recipe: everything that made a model, as pydantic models that refuse unknown keys."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from lenspipe.cutouts.base import Block
from lenspipe.errors import InputError
from lenspipe.problems import first_problem
from lenspipe.yaml_file import read_yaml
from training.blend.cascade import CascadeChoice

SPLITS = ("train", "validation", "arcs", "pool", "calibration", "test")
SELECTIONS = ("validation_loss", "auroc", "tpr0", "tpr10")
RangeMethod = Literal["percentile", "minmax"]
AT_FPR = "tpr_at_fpr_"  # begins the names of the other figures that a network may be chosen by


class Grown(Block):
    """A block that got keys after models were made by it.

    LATER: those keys. At its default such a key is left out of what is written and hashed, so a
    recipe that does not name it keeps its identity.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {key for key in self.LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in handler(self).items() if key not in unset}


class Named(Block):
    """A plugin by its file name, with its parameters."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


def _form(value: Any) -> str:
    """Which of the two forms of `Normalisations` a value is: its errors name the keys of that."""
    blocks = value.values() if isinstance(value, dict) and value else (None,)
    return "dict[str, Named]" if all(isinstance(b, dict | Named) for b in blocks) else "Named"


Normalisations = Annotated[
    Annotated[Named, Tag("Named")] | Annotated[dict[str, Named], Tag("dict[str, Named]")],
    Discriminator(_form),
]
"""One for all image inputs, or each input's own by its name."""


class Splits(Grown):
    """What each set changes in the recipe's `simulate` block; `seed` at least.

    The sets are drawn separately, so no source is in two of them: equal seeds are refused.
    train, validation: the member's own. arcs: what `merging` adds to hosts. pool: what `mining`
    looks for negatives in. calibration: blend, calibration and thresholds. test: figures only.
    """

    LATER = frozenset({"arcs", "pool"})

    train: dict[str, Any] | None = None
    validation: dict[str, Any] | None = None
    arcs: dict[str, Any] | None = None
    pool: dict[str, Any] | None = None
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

    In a recipe either a list of `{name, parameters}`, each a file in `training/augmentations`, in
    the order in which they are applied; or the mapping of the other keys: d4: one of the eight
    rotations and mirrorings. shift_pixels: largest shift of the centre, whole pixels, edges
    repeated. brightness_mag: change of all bands together; colour_mag: of each band by itself, both
    ±. noise: added noise, up to this multiple of the stamp's own.
    """

    steps: tuple[Named, ...] | None = None
    d4: bool = True
    shift_pixels: NonNegativeInt = 3
    noise: NonNegativeFloat = 0.0
    brightness_mag: NonNegativeFloat = 0.0
    colour_mag: NonNegativeFloat = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, content: Any) -> Any:
        return {"steps": content} if isinstance(content, list | tuple) else content

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        content = handler(self)
        steps = content.pop("steps")
        return content if steps is None else steps

    def in_order(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Name and parameters of each change that is asked for, as `augmentations.build` wants."""
        if self.steps is not None:
            return tuple((step.name, step.parameters) for step in self.steps)
        shift = {"pixels": self.shift_pixels, "whole": True}
        bright = {"all_mag": self.brightness_mag, "colour_mag": self.colour_mag}
        asked: tuple[tuple[str, dict[str, Any], bool], ...] = (
            ("d4", {}, self.d4),
            ("shift", shift, self.shift_pixels > 0),
            ("brightness", bright, any(bright.values())),
            ("noise", {"relative": self.noise}, self.noise > 0),
        )
        return tuple((name, parameters) for name, parameters, wanted in asked if wanted)


class Optimiser(Grown):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101). clip_norm: largest norm of a gradient.

    weight_decay: decoupled from the gradient. l2: coupled, l2 times the weights on top of the
    gradient; with a weight_decay of 0 this is Adam with an L2 penalty. Neither touches biases and
    normalisations.
    """

    LATER = frozenset({"l2"})

    name: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 0.02
    l2: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat = 5.0


class Schedule(Grown):
    """one_cycle: rise over `warmup` of the steps, then a cosine to nought; cosine: no rise;
    constant: neither; plateau: times `factor` after `patience` epochs that were no better by the
    recipe's `select_by`, down to `floor` of the full rate."""

    LATER = frozenset({"factor", "patience", "floor"})

    name: Literal["one_cycle", "cosine", "constant", "plateau"] = "one_cycle"
    warmup: float = Field(default=0.2, gt=0.0, lt=1.0)
    factor: float = Field(default=0.2, gt=0.0, lt=1.0)
    patience: PositiveInt = 3
    floor: float = Field(default=1e-3, gt=0.0, lt=1.0)


class Sampling(Block):
    """What each batch is made of. lens_fraction: of lenses, rounded to whole ones. kinds: how
    often a kind is drawn, against 1 for each kind that is not named."""

    lens_fraction: float = Field(default=0.5, gt=0.0, lt=1.0)
    kinds: dict[str, NonNegativeFloat] = Field(default_factory=dict)


class Merging(Block):
    """Lenses made while training: arcs of the split `arcs` on non-lenses of the training set.

    hosts: kinds that arcs are put on. share: fraction of the lenses of each batch that are made so.
    rule: `alpha` scales the arcs' peak to a fraction of the host's, uniform in `alpha` (van
    Lohuizen 2022, Eq. 4.2), in `band` of the first input or in the brightest of all; `flux` leaves
    the arcs as they were simulated. noise: the arcs' own photon noise, for which their file must
    say `electrons_per_flux`. search_pixels: how far from the pixel size // 2 a host's peak may lie;
    that pixel of the arcs is put on it. 0: in the middle.
    """

    hosts: tuple[str, ...] = Field(min_length=1)
    share: float = Field(default=0.5, gt=0.0, le=1.0)
    rule: Literal["alpha", "flux"] = "alpha"
    alpha: tuple[PositiveFloat, PositiveFloat] = (0.02, 0.3)
    band: str | None = None
    noise: bool = True
    search_pixels: NonNegativeInt = 3

    @field_validator("alpha")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("expected the smaller end first")
        return value


class Mining(Block):
    """Rounds of hard-negative mining: score the split `pool`, add its highest non-lenses to the
    training set, train again.

    Each round takes the `top` so many, or all with a logit `above`, that no round before took.
    at_tpr: completeness at which false-positive rates before and after are compared. begin:
    `afresh` trains each round from new weights, `before` from those of the round before.
    """

    rounds: PositiveInt = 1
    top: PositiveInt | None = None
    above: float | None = None
    at_tpr: float = Field(default=0.8, gt=0.0, le=1.0)
    begin: Literal["afresh", "before"] = "afresh"

    @model_validator(mode="after")
    def _one_rule(self) -> Mining:
        if (self.top is None) == (self.above is None):
            raise ValueError("expected either top or above")
        return self


class StartFrom(Block):
    """Weights that a training begins with.

    recipe: another member's, a recipe file beside this one, trained in the same work folder.
    checkpoint: a `best.pt`. replace: parts with new weights: `stem`, `head`, or the beginning of
    names of weights. freeze: parts that training leaves alone, batch normalisation included.
    """

    recipe: MemberRecipe | None = None
    checkpoint: str | None = None
    replace: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_origin(self) -> StartFrom:
        if (self.recipe is None) == (self.checkpoint is None):
            raise ValueError("expected either recipe or checkpoint")
        return self


class Int8(Block):
    """How the finished network's int8 form is made. method: how the range of a feature map's 8 bits
    follows from stamps of the training set, see `training.quantise.quantise`. It is chosen here, on
    whatever stamps, and judged on the test set alone."""

    method: RangeMethod = "percentile"


class Views(Block):
    """degrees: by which the stamp is turned about its middle; by other angles than quarter turns it
    is interpolated (bicubic), and its corners are what is inside of them, mirrored. mirrored:
    each of these once more as in a mirror."""

    degrees: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    mirrored: bool = False

    @field_validator("degrees")
    @classmethod
    def _once_each(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len({angle % 360.0 for angle in value}) < len(value):
            raise ValueError(f"expected each angle once, found {', '.join(map(str, value))}")
        return value


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


class Common(Grown):
    """What recipes of members and of ensembles share.

    simulate: the block that `training.simulate` takes, or the name of a YAML file beside the recipe
    that holds it. fprs: false-positive rates that a threshold is stored for.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str
    simulate: dict[str, Any]
    splits: Splits
    fprs: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = Field((1e-2, 1e-3), min_length=1)

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

    normalisation: one for all image inputs, or one for each by its name.
    select_by: the validation set's figure by which the best epoch is chosen: `validation_loss`,
    `auroc`, `tpr0`, `tpr10` or `tpr_at_fpr_X`; of equal ones the epoch of the smaller loss.
    patience: epochs without a better one before training stops. ema_decay: decay of the
    running mean of the weights, which is what is kept (0: none). drop_band: fraction of the rows of
    photometry that lose one column in training, so that a missing band is nothing new.
    precision: what the network computes in; `auto`: bfloat16 on GPUs, float32 on CPUs. batch_size:
    of all processes together. views: over which the exported network's logit is a mean; training
    and validation see the stamp as it is.
    """

    LATER = frozenset(
        {"sampling", "merging", "mining", "start_from", "select_by", "precision", "int8", "views"}
    )

    task: Literal["lens_finding", "photometry"]
    licence: str = "BSD-3-Clause"
    architecture: Named
    normalisation: Normalisations | None = None
    features: tuple[FeatureChoice, ...] = ()
    loss: Named = Named(name="cross_entropy")
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    sampling: Sampling | None = None
    merging: Merging | None = None
    mining: Mining | None = None
    start_from: StartFrom | None = None
    select_by: str = "validation_loss"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    epochs: PositiveInt
    batch_size: PositiveInt = 256
    patience: PositiveInt = 10
    ema_decay: float = Field(default=0.998, ge=0.0, lt=1.0)
    drop_band: float = Field(default=0.0, ge=0.0, lt=1.0)
    seed: NonNegativeInt
    int8: Int8 = Int8()
    views: Views | None = None

    def sha256(self) -> str:
        """Identity of what made the weights: a hash over every value, defaults included, but for
        those that say in what forms the network is exported (`int8`, `views`)."""
        return digest(_weights_made_by(self.model_dump(mode="json")))

    @model_validator(mode="after")
    def _inputs(self) -> MemberRecipe:
        if (self.task == "photometry") != bool(self.features):
            raise ValueError("expected `features` for task photometry, and for no other")
        if (self.task == "photometry") == (self.normalisation is not None):
            raise ValueError("expected `normalisation` for images, and none for photometry")
        if self.task == "photometry" and self.views is not None:
            raise ValueError("expected no `views` for task photometry")
        if self.splits.train is None or self.splits.validation is None:
            raise ValueError("expected splits train and validation")
        return self

    @model_validator(mode="after")
    def _extras(self) -> MemberRecipe:
        for block, split in (("merging", "arcs"), ("mining", "pool")):
            asked = getattr(self, block) is not None
            if asked and self.task == "photometry":
                raise ValueError(f"expected no `{block}` for task photometry")
            if asked != (getattr(self.splits, split) is not None):
                raise ValueError(f"expected a split `{split}` with `{block}`, and without it none")
        return self

    @field_validator("select_by")
    @classmethod
    def _known_figure(cls, value: str) -> str:
        if value not in SELECTIONS and fpr_of(value) is None:
            known = ", ".join(SELECTIONS)
            raise ValueError(f"expected one of {known}, {AT_FPR}X with 0 < X < 1, found {value}")
        return value


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


def fpr_of(figure: str) -> float | None:
    """X of the figure `tpr_at_fpr_X`; None for another."""
    try:
        fpr = float(figure.removeprefix(AT_FPR)) if figure.startswith(AT_FPR) else 0.0
    except ValueError:
        return None
    return fpr if 0.0 < fpr < 1.0 else None


def _weights_made_by(content: dict[str, Any]) -> dict[str, Any]:
    """A member's recipe as JSON, without what its weights do not depend on."""
    kept = {key: value for key, value in content.items() if key not in ("int8", "views")}
    begin = kept.get("start_from") or {}
    if begin.get("recipe"):
        kept["start_from"] = {**begin, "recipe": _weights_made_by(begin["recipe"])}
    return kept


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
    """Validate a recipe that is already a mapping, what it asks for by name included. InputError
    names the key that is wrong."""
    from training.sound import check_sound

    tasks: dict[str, type[Recipe]] = {
        "lens_finding": MemberRecipe,
        "photometry": MemberRecipe,
        "ensemble": EnsembleRecipe,
    }
    task = content.get("task")
    if not isinstance(task, str) or task not in tasks:
        raise InputError("task", f"one of {', '.join(tasks)}", repr(task))
    _check_finite(content)
    try:
        recipe = tasks[task].model_validate(content)
    except ValidationError as error:
        raise first_problem(error, whole="recipe") from error
    check_sound(recipe)
    return recipe


def _check_finite(value: Any, place: str = "") -> None:
    """InputError for a number that is none in what is checked elsewhere and later: `simulate`,
    parameters of plugins."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(place, "a finite number", value)
    named = dict(enumerate(value)) if isinstance(value, list | tuple) else value
    for key, part in named.items() if isinstance(named, dict) else ():
        _check_finite(part, f"{place}.{key}".lstrip("."))


def load_recipe(path: str | Path) -> Recipe:
    """Read and validate a recipe file."""
    return parse_recipe(_inlined(Path(path)))


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


def _inlined(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe file with the files that it names in their places. above: those that name it."""
    content = _read(file)
    simulate, start = content.get("simulate"), content.get("start_from")
    if isinstance(simulate, str):
        content = {**content, "simulate": _read(file.parent / simulate)}
    if isinstance(start, dict) and isinstance(start.get("recipe"), str):
        other = file.parent / start["recipe"]
        line = (*above, file.resolve())
        if other.resolve() in line:
            raise InputError(f"{file}: start_from.recipe", "another recipe", start["recipe"])
        content = {**content, "start_from": {**start, "recipe": _inlined(other, line)}}
    return content


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise InputError("recipe", "a YAML file", f"nothing at {file}")
    content = read_yaml(file, str(file))
    if not isinstance(content, dict):
        raise InputError(str(file), "a mapping of keys to values", type(content).__name__)
    return content

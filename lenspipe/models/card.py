"""The model card: what a network needs to be used rightly, inside its own ONNX file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import onnx
from google.protobuf.message import DecodeError, Message
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError
from lenspipe.problems import first_problem

METADATA_KEY = "lenspipe.card"


class CardBlock(BaseModel):
    """A block of a card: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageInput(CardBlock):
    """One image tensor (batch, band, y, x), float32 flux at `zero_point_mag`."""

    name: str
    bands: tuple[str, ...]
    size_pixels: PositiveInt
    pixel_scale_arcsec: PositiveFloat
    zero_point_mag: float | None = None

    def spec(self) -> InputSpec:
        """The same as the contract that readers take."""
        return InputSpec(**self.model_dump())


class Feature(CardBlock):
    """One number of the photometry network's input vector.

    kind `magnitude`: column a. `colour`: a - b. `error`: column a (mag). `missing`: 1 where a is
    not measured, else 0. A value that is missing becomes `fill` after standardisation by
    (value - mean) / scale.
    """

    kind: Literal["magnitude", "colour", "error", "missing"]
    a: str
    b: str | None = None
    mean: float = 0.0
    scale: PositiveFloat = 1.0
    fill: float = 0.0


class Normalisation(CardBlock):
    """A function of `lenspipe.models.normalise` by name. in_graph: already inside the ONNX."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    in_graph: bool = True


class Output(CardBlock):
    """One output tensor by name and meaning, e.g. `logit`."""

    name: str
    meaning: str


class Threshold(CardBlock):
    """Score that a stated false-positive rate was measured at."""

    fpr: float = Field(gt=0.0, lt=1.0)
    score: FiniteFloat
    n_negatives: PositiveInt


class Metric(CardBlock):
    """A measured figure with what it rests on. interval: low and high, 95% unless `note` says
    that it is less."""

    value: float
    interval: tuple[float, float]
    n_positives: int
    n_negatives: int
    note: str = ""


class Calibration(CardBlock):
    """Score to probability: `platt` p = 1 / (1 + exp(-(slope * score + intercept))), or
    `isotonic` by linear interpolation between (scores, probabilities).

    prevalence: fraction of lenses in the set that it was fitted on.
    """

    kind: Literal["platt", "isotonic"] = "platt"
    slope: float = 1.0
    intercept: float = 0.0
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    prevalence: float = Field(default=0.5, gt=0.0, lt=1.0)


class SelfTest(CardBlock):
    """Logits that the network gave on `lenspipe.models.self_test.images`, to be found again.

    scale: amplitude of that input (its units). tolerance: largest difference, absolute.
    """

    scale: PositiveFloat
    logits: tuple[float, ...] = Field(min_length=1)
    tolerance: PositiveFloat


class Training(CardBlock):
    """What made the weights: recipe by name and SHA-256, training set by identity.

    real_objects: names of real objects that training, validation, calibration or thresholds saw;
    thousands from one table are named by the table and its side.
    """

    recipe: str
    recipe_sha256: str
    training_set: str
    training_set_sha256: str
    n_train: int
    seed: int
    real_objects: tuple[str, ...] = ()


class ModelCard(CardBlock):
    """One network's card. Images or features, never neither."""

    name: str
    task: Literal["lens_finding", "photometry"]
    architecture: str
    images: tuple[ImageInput, ...] = ()
    features: tuple[Feature, ...] = ()
    normalisation: Normalisation | None = None
    outputs: tuple[Output, ...]
    calibration: Calibration | None = None
    thresholds: tuple[Threshold, ...] = ()
    metrics: dict[str, Metric] = Field(default_factory=dict)
    self_test: SelfTest | None = None
    training: Training
    versions: dict[str, str] = Field(default_factory=dict)
    licence: str
    weights_sha256: str
    description: str = ""


def weights_sha256(model: onnx.ModelProto) -> str:
    """SHA-256 over every initialiser's name, shape, type and bytes, in the order of names."""
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        array = onnx.numpy_helper.to_array(tensor)
        digest.update(f"{tensor.name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a whole file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(path: str | Path) -> ModelCard:
    """The card of an ONNX file, its weights checked against it.

    InputError where the file is no ONNX, holds no card, or the weights are others.
    """
    return read_model(path)[1]


def read_model(path: str | Path) -> tuple[bytes, ModelCard]:
    """The file's bytes and its card; see `read_card`. What is checked is what is then run."""
    field = f"model {path}"
    try:
        content = Path(path).read_bytes()
        model = onnx.load_from_string(content)
    except FileNotFoundError:
        raise InputError(field, "an ONNX file", "no such file") from None
    except (OSError, DecodeError) as error:
        raise InputError(field, "an ONNX file", error) from error
    outside = external_tensors(model)
    if outside:
        raise InputError(field, "all weights inside the file", f"{outside[0]} kept outside of it")
    card = _card_of(model, field)
    found = weights_sha256(model)
    if found != card.weights_sha256:
        raise InputError(f"{field}: weights", f"SHA-256 {card.weights_sha256}", found)
    return content, card


def external_tensors(message: Message) -> list[str]:
    """Names of the tensors, at any depth, whose bytes lie in other files."""
    if isinstance(message, onnx.TensorProto):
        outside = message.data_location == onnx.TensorProto.EXTERNAL
        return [message.name or "a tensor"] if outside else []
    found: list[str] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        parts = [value] if isinstance(value, Message) else value
        found += [name for part in parts for name in external_tensors(part)]
    return found


def _card_of(model: onnx.ModelProto, field: str) -> ModelCard:
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in texts:
        raise InputError(field, f"metadata {METADATA_KEY} (a model card)", "none")
    try:
        return ModelCard.model_validate_json(texts[METADATA_KEY])
    except ValidationError as error:
        raise first_problem(error, f"{field}: card") from error


def write_card(model: onnx.ModelProto, card: ModelCard, path: str | Path) -> ModelCard:
    """Save `model` with `card` inside; the card gets the hash of the weights as they are."""
    final = card.model_copy(update={"weights_sha256": weights_sha256(model)})
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=METADATA_KEY, value=final.model_dump_json())
    onnx.save(model, str(path))
    return final

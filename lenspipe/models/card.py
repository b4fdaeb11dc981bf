"""The model card: what a network needs to be used rightly, inside its own ONNX file."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import onnx
from google.protobuf.message import DecodeError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError
from lenspipe.models import graph
from lenspipe.problems import first_problem
from lenspipe.storage.outage import is_passing

METADATA_KEY = "lenspipe.card"
DIGEST_KEY = "lenspipe.sha256"  # over all of the model but this entry
# Far above any network of this field (Euclid VIS stamps: 3 x 200 x 200) and far below what would
# fill a machine's memory with the buffers of one batch.
MAX_SIZE_PIXELS = 4096
MAX_STAMP_VALUES = 1 << 24
MAX_CARD_LENGTH = 1 << 24

# What becomes part of a column, a file name or a message.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class CardBlock(BaseModel):
    """A block of a card: unknown keys and numbers that are not finite are refused; frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Normalisation(CardBlock):
    """A function of `lenspipe.models.normalise` by name. in_graph: already inside the ONNX."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    in_graph: bool = True


class ImageInput(CardBlock):
    """One image tensor (batch, band, y, x): flux at `zero_point_mag`.

    dtype: type in which the pixels cross to the device; the graph casts them to what it computes
    in. An integer type holds round((flux - zero_level) / quantum); the graph undoes that too.
    Values beyond the type's range become its ends. normalisation: of this input alone, in the
    graph already; the card's own, which is for all inputs, is then absent.
    """

    name: Label
    bands: tuple[Label, ...] = Field(min_length=1, max_length=64)
    size_pixels: int = Field(gt=0, le=MAX_SIZE_PIXELS)
    pixel_scale_arcsec: PositiveFloat
    zero_point_mag: float | None = None
    dtype: Literal["float32", "float16", "int16", "uint16"] = "float32"
    quantum: PositiveFloat | None = None
    zero_level: float = 0.0
    normalisation: Normalisation | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ImageInput:
        if self.normalisation is not None and not self.normalisation.in_graph:
            raise ValueError("expected a normalisation of one input to be in the graph")
        if (self.dtype in ("int16", "uint16")) != (self.quantum is not None):
            raise ValueError("expected quantum with an integer dtype, and only there")
        if self.quantum is None and self.zero_level:
            raise ValueError("expected zero_level only with an integer dtype")
        if len(self.bands) * self.size_pixels**2 > MAX_STAMP_VALUES:
            raise ValueError(f"expected at most {MAX_STAMP_VALUES} values in a stamp")
        return self

    def spec(self) -> InputSpec:
        """The same as the contract that readers take: always float32 flux."""
        return InputSpec(
            self.name, self.bands, self.size_pixels, self.pixel_scale_arcsec, self.zero_point_mag
        )


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


class ScoreDistribution(CardBlock):
    """How the scores of a stated population lie: what a run's own are held against.

    population: whose scores, in words. edges: rising. counts: one more than edges; scores <=
    edges[0], then those in (edges[i - 1], edges[i]], then those above the last.
    """

    population: Label
    edges: tuple[FiniteFloat, ...] = Field(min_length=1, max_length=100)
    counts: tuple[NonNegativeInt, ...]

    @model_validator(mode="after")
    def _consistent(self) -> ScoreDistribution:
        if any(high <= low for low, high in pairwise(self.edges)):
            raise ValueError("expected edges that rise")
        if len(self.counts) != len(self.edges) + 1 or not sum(self.counts):
            raise ValueError("expected one count more than edges, not all 0")
        return self


class SelfTest(CardBlock):
    """Logits that the network gave on `lenspipe.models.self_test.images`, to be found again.

    scale: amplitude of that input (its units). tolerance: largest difference, absolute.
    """

    scale: PositiveFloat
    logits: tuple[float, ...] = Field(min_length=1)
    tolerance: PositiveFloat


LearntUse = Literal["train", "validation", "arcs", "pool"]


class LearntSet(CardBlock):
    """A set that the weights depend on.

    recipe: by whose training, the network's own or that of one whose weights it began with. use:
    `train`, `validation` (chose the epoch), `arcs` (merged with hosts while training) or `pool`
    (mined for hard negatives). n: its rows; n_taken: how many of them training took.
    """

    recipe: str
    use: LearntUse
    name: str
    sha256: str
    n: int
    n_taken: int


class Training(CardBlock):
    """What made the weights: recipe by name and SHA-256, training set by identity.

    training_set, n_train: the set that training began with. sets: every set that the weights depend
    on, that one included; empty in cards written before there were any others. real_objects: names
    of real objects that training, validation, calibration or thresholds saw; thousands from one
    table are named by the table and its side.
    """

    recipe: str
    recipe_sha256: str
    training_set: str
    training_set_sha256: str
    n_train: int
    seed: int
    sets: tuple[LearntSet, ...] = ()
    real_objects: tuple[str, ...] = ()


class ModelCard(CardBlock):
    """One network's card. Images or features, never neither."""

    name: Name
    task: Literal["lens_finding", "photometry"]
    architecture: str
    images: tuple[ImageInput, ...] = Field(default=(), max_length=16)
    features: tuple[Feature, ...] = Field(default=(), max_length=10_000)
    normalisation: Normalisation | None = None
    outputs: tuple[Output, ...]
    calibration: Calibration | None = None
    thresholds: tuple[Threshold, ...] = ()
    metrics: dict[str, Metric] = Field(default_factory=dict)
    score_distribution: ScoreDistribution | None = None
    self_test: SelfTest | None = None
    training: Training
    versions: dict[str, str] = Field(default_factory=dict)
    licence: str
    weights_sha256: str
    description: str = ""


def weights_sha256(model: onnx.ModelProto) -> str:
    """SHA-256 over every initialiser's name, shape, type and bytes, in the order of names.

    ValueError where a tensor's bytes are not what its shape asks for, or its type is none.
    """
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        try:
            array = onnx.numpy_helper.to_array(tensor)
        except KeyError as error:
            raise ValueError(f"tensor {tensor.name!r} has type {tensor.data_type}") from error
        digest.update(f"{tensor.name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def model_sha256(model: onnx.ModelProto) -> str:
    """SHA-256 over the whole model, graph, weights and card, but for the entry that holds it."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    kept = [entry for entry in model.metadata_props if entry.key != DIGEST_KEY]
    del bare.metadata_props[:]
    bare.metadata_props.extend(kept)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a whole file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_card(path: str | Path) -> ModelCard:
    """The card of an ONNX file, its weights checked against it.

    InputError where the file is no ONNX, holds no card, or the weights are others; where storage or
    machine refuse for now (`is_passing`), their own error.
    """
    return read_model(path)[1]


def read_model(path: str | Path) -> tuple[bytes, ModelCard]:
    """The file's bytes and its card; see `read_card`. What is checked is what is then run."""
    field = f"model {path}"
    content, model = _parse(Path(path), field)
    graph.check(model, field)
    card = _card_of(model, field)
    _check_digests(model, card, field)
    return content, card


def _parse(path: Path, field: str) -> tuple[bytes, onnx.ModelProto]:
    try:
        size = path.stat().st_size
        if size > graph.MAX_BYTES:
            raise InputError(field, f"an ONNX file of at most {graph.MAX_BYTES} bytes", size)
        content = path.read_bytes()
        return content, onnx.load_from_string(content)
    except FileNotFoundError:
        raise InputError(field, "an ONNX file", "no such file") from None
    except (OSError, DecodeError) as error:
        if isinstance(error, OSError) and is_passing(error):
            raise
        raise InputError(field, "an ONNX file that can be read", error) from error


def _check_digests(model: onnx.ModelProto, card: ModelCard, field: str) -> None:
    """InputError where weights, or anything else of the model, are not what was written."""
    try:
        found = weights_sha256(model)
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}: weights", "tensors that are whole", error) from error
    if found != card.weights_sha256:
        raise InputError(f"{field}: weights", f"SHA-256 {card.weights_sha256}", found)
    written = _metadata(model).get(DIGEST_KEY)
    if written is not None and written != (found := model_sha256(model)):
        raise InputError(f"{field}: graph and card", f"SHA-256 {written}", found)


def _card_of(model: onnx.ModelProto, field: str) -> ModelCard:
    texts = _metadata(model)
    if METADATA_KEY not in texts:
        raise InputError(field, f"metadata {METADATA_KEY} (a model card)", "none")
    if len(texts[METADATA_KEY]) > MAX_CARD_LENGTH:
        raise InputError(f"{field}: card", f"at most {MAX_CARD_LENGTH} characters", "more")
    try:
        return ModelCard.model_validate_json(texts[METADATA_KEY])
    except ValidationError as error:
        raise first_problem(error, f"{field}: card") from error


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def write_card(model: onnx.ModelProto, card: ModelCard, path: str | Path) -> ModelCard:
    """Save `model` with `card` inside, the hash of the weights in the card, of all beside it."""
    final = card.model_copy(update={"weights_sha256": weights_sha256(model)})
    ours = (METADATA_KEY, DIGEST_KEY)
    kept = [entry for entry in model.metadata_props if entry.key not in ours]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=METADATA_KEY, value=final.model_dump_json())
    model.metadata_props.add(key=DIGEST_KEY, value=model_sha256(model))
    onnx.save(model, str(path))
    return final

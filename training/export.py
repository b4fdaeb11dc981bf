"""A trained network as one ONNX file: graph, weights, and the card that says how to use them."""

from __future__ import annotations

import copy
import logging
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float
from torch import Tensor, nn

import lenspipe
from lenspipe.models import self_test
from lenspipe.models.card import (
    Feature,
    ImageInput,
    LearntSet,
    Metric,
    ModelCard,
    Normalisation,
    Output,
    ScoreDistribution,
    Threshold,
    Training,
    write_card,
)
from training.architectures.layers import Foldable
from training.data import Examples, Inputs, rows_of
from training.recipe import MemberRecipe, Named

OPSET = 20
# Logits of torch and of ONNX Runtime on one CPU: the same float32 arithmetic in another order, so
# they agree to some hundred roundings of numbers of the logits' size (measured: below 1e-5).
PARITY = 1e-4
# Amplitude of the self-test's input: features are standardised; of pixels it is the flux of a
# galaxy's middle, some ten times the sky's noise.
SELF_TEST_SCALE = 1.0


class _Positional(nn.Module):
    """A network whose `forward` says to torch.export that it takes any number of inputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(*inputs)
        return logits


def export_graph(model: nn.Module, inputs: Inputs, path: Path) -> onnx.ModelProto:
    """Write `model` to `path` without a card; any batch size, output `logit` (batch,).

    inputs: some rows by name, (n, band, y, x) or (n, feature), in the order of `forward`; the
    graph's inputs have their names.
    """
    examples = tuple(torch.from_numpy(array) for array in rows_of(inputs, slice(2)).values())
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), _no_word_of_torchvision():
        # torch.export's own use of a class that torch deprecates (2.11 to 2.13); not ours to mend.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        # It wants to name each input's rows apart; they are the same rows.
        warnings.filterwarnings("ignore", message=".*axis name: batch", category=UserWarning)
        program = torch.onnx.export(
            _Positional(folded(model)).eval(),
            examples,
            input_names=list(inputs),
            output_names=["logit"],
            dynamic_shapes=(tuple({0: batch} for _ in examples),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    graph = program.model_proto
    forget_sources(graph)
    _name_interpolation(graph)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))
    return graph


def _name_interpolation(model: onnx.ModelProto) -> None:
    """GridSample's words of opset 19 in a graph that has one: OpenVINO knows none of 20's."""
    sampling = [node for node in model.graph.node if node.op_type == "GridSample"]
    for mode in (a for node in sampling for a in node.attribute if a.name == "mode"):
        mode.s = {b"cubic": b"bicubic", b"linear": b"bilinear"}.get(mode.s, mode.s)
    for used in model.opset_import:
        if sampling and not used.domain:
            used.version = min(used.version, 19)


@contextmanager
def _no_word_of_torchvision() -> Iterator[None]:
    """torch warns at each export of every operator of torchvision, which no network here uses."""
    theirs = logging.getLogger("torch.onnx._internal.exporter._registration")

    def others(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    theirs.addFilter(others)
    try:
        yield
    finally:
        theirs.removeFilter(others)


def folded(model: nn.Module) -> nn.Module:
    """A copy of `model` whose `Foldable` layers are what they come to."""
    copied = copy.deepcopy(model)
    layers = [
        (name, layer) for name, layer in copied.named_modules() if isinstance(layer, Foldable)
    ]
    for name, layer in layers:
        copied.set_submodule(name, layer.folded())
    return copied


def forget_sources(model: onnx.ModelProto) -> None:
    """Take out what torch writes of the machine that exported: a stack trace in every node."""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""


def onnx_logits(
    path: Path, inputs: Inputs, threads: int = 0, batch_size: int = 256
) -> Float[np.ndarray, " n"]:
    """Logits of all rows by ONNX Runtime on the CPU. threads: 0 for all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rows = len(next(iter(inputs.values())))
    parts = [
        session.run(["logit"], rows_of(inputs, slice(start, start + batch_size)))[0]
        for start in range(0, rows, batch_size)
    ]
    return np.concatenate(parts)


def check_parity(model: nn.Module, path: Path, inputs: Inputs) -> float:
    """Largest difference between torch's and ONNX Runtime's logits, relative to 1 + |logit|.

    RuntimeError above `PARITY`: the file is not the network that was trained.
    """
    with torch.no_grad():
        wanted = model(*map(torch.from_numpy, inputs.values())).numpy()
    found = onnx_logits(path, inputs, threads=1)
    difference = float(np.max(np.abs(found - wanted) / (1.0 + np.abs(wanted))))
    if not difference <= PARITY:
        raise RuntimeError(f"{path}: ONNX and torch differ by {difference:g}, more than {PARITY}")
    return difference


def card_of(
    recipe: MemberRecipe,
    train: Examples,
    features: Sequence[Feature],
    thresholds: Sequence[Threshold] = (),
    metrics: dict[str, Metric] | None = None,
    real_objects: Sequence[str] = (),
    sets: Sequence[LearntSet] = (),
    scores: ScoreDistribution | None = None,
) -> ModelCard:
    """The card of a network that `recipe` made from `train`; sets: all that it learnt from.
    scores: how those of non-lenses lie."""
    return ModelCard(
        name=recipe.name,
        task=recipe.task,
        architecture=recipe.architecture.name,
        images=_images(recipe, train),
        features=tuple(features),
        normalisation=_shared_normalisation(recipe),
        outputs=(Output(name="logit", meaning="logit of being a lens; larger is likelier"),),
        thresholds=tuple(thresholds),
        metrics=metrics or {},
        score_distribution=scores,
        training=Training(
            recipe=f"{recipe.name}.yaml",
            recipe_sha256=recipe.sha256(),
            training_set=train.name,
            training_set_sha256=train.sha256,
            n_train=len(train),
            seed=recipe.seed,
            sets=tuple(sets),
            real_objects=tuple(real_objects),
        ),
        versions=versions(),
        licence=recipe.licence,
        weights_sha256="",
        description=recipe.description,
    )


def ship(graph: Path, card: ModelCard, path: Path) -> ModelCard:
    """Write the graph with its card inside, self-test included, whole or not at all."""
    aside = path.with_suffix(".part")
    write_card(onnx.load(str(graph)), card, aside)
    final = self_test.add(aside, scale=SELF_TEST_SCALE)
    aside.replace(path)
    return final


def versions() -> dict[str, str]:
    """What the weights were made with."""
    return {
        "lenspipe": lenspipe.__version__,
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _images(recipe: MemberRecipe, train: Examples) -> tuple[ImageInput, ...]:
    own = recipe.normalisation if isinstance(recipe.normalisation, dict) else {}
    return tuple(
        ImageInput(
            name=spec.name,
            bands=spec.bands,
            size_pixels=spec.size_pixels,
            pixel_scale_arcsec=spec.pixel_scale_arcsec,
            zero_point_mag=spec.zero_point_mag,
            normalisation=_in_graph(own[name]) if name in own else None,
        )
        for name, spec in train.specs.items()
    )


def _shared_normalisation(recipe: MemberRecipe) -> Normalisation | None:
    shared = recipe.normalisation
    return _in_graph(shared) if isinstance(shared, Named) else None


def _in_graph(chosen: Named) -> Normalisation:
    return Normalisation(name=chosen.name, parameters=chosen.parameters, in_graph=True)

"""A trained network as one ONNX file: graph, weights, and the card that says how to use them."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float
from torch import nn

import lenspipe
from lenspipe.models import self_test
from lenspipe.models.card import (
    Feature,
    ImageInput,
    Metric,
    ModelCard,
    Normalisation,
    Output,
    Threshold,
    Training,
    write_card,
)
from training.data import Examples
from training.recipe import MemberRecipe

OPSET = 20
# Logits of torch and of ONNX Runtime on one CPU: the same float32 arithmetic in another order, so
# they agree to some hundred roundings of numbers of the logits' size (measured: below 1e-5).
PARITY = 1e-4
# Amplitude of the self-test's input: features are standardised; of pixels it is the flux of a
# galaxy's middle, some ten times the sky's noise.
SELF_TEST_SCALE = 1.0


def export_graph(model: nn.Module, example: Examples, path: Path) -> onnx.ModelProto:
    """Write `model` to `path` without a card; any batch size, output `logit` (batch,).

    The input is `image` (batch, band, y, x) or `features` (batch, feature).
    """
    name = "features" if example.spec is None else "image"
    inputs = torch.from_numpy(example.inputs[:2])
    with warnings.catch_warnings():
        # torch.export's own use of a class that torch deprecates (2.11 to 2.13); not ours to mend.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        program = torch.onnx.export(
            model.eval(),
            (inputs,),
            input_names=[name],
            output_names=["logit"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    graph = program.model_proto
    forget_sources(graph)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))
    return graph


def forget_sources(model: onnx.ModelProto) -> None:
    """Take out what torch writes of the machine that exported: a stack trace in every node."""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""


def onnx_logits(
    path: Path, inputs: Float[np.ndarray, "n ..."], threads: int = 0, batch_size: int = 256
) -> Float[np.ndarray, " n"]:
    """Logits of all inputs by ONNX Runtime on the CPU. threads: 0 for all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = [
        session.run(["logit"], {name: inputs[start : start + batch_size]})[0]
        for start in range(0, len(inputs), batch_size)
    ]
    return np.concatenate(parts)


def check_parity(model: nn.Module, path: Path, inputs: Float[np.ndarray, "n ..."]) -> float:
    """Largest difference between torch's and ONNX Runtime's logits, relative to 1 + |logit|.

    RuntimeError above `PARITY`: the file is not the network that was trained.
    """
    with torch.no_grad():
        wanted = model(torch.from_numpy(inputs)).numpy()
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
) -> ModelCard:
    """The card of a network that `recipe` made from `train`."""
    return ModelCard(
        name=recipe.name,
        task=recipe.task,
        architecture=recipe.architecture.name,
        images=_images(train),
        features=tuple(features),
        normalisation=_normalisation(recipe),
        outputs=(Output(name="logit", meaning="logit of being a lens; larger is likelier"),),
        thresholds=tuple(thresholds),
        metrics=metrics or {},
        training=Training(
            recipe=f"{recipe.name}.yaml",
            recipe_sha256=recipe.sha256(),
            training_set=train.name,
            training_set_sha256=train.sha256,
            n_train=len(train),
            seed=recipe.seed,
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


def _images(train: Examples) -> tuple[ImageInput, ...]:
    if train.spec is None:
        return ()
    spec = train.spec
    return (
        ImageInput(
            name="image",
            bands=spec.bands,
            size_pixels=spec.size_pixels,
            pixel_scale_arcsec=spec.pixel_scale_arcsec,
            zero_point_mag=spec.zero_point_mag,
        ),
    )


def _normalisation(recipe: MemberRecipe) -> Normalisation | None:
    if recipe.normalisation is None:
        return None
    return Normalisation(
        name=recipe.normalisation.name,
        parameters=recipe.normalisation.parameters,
        in_graph=True,
    )

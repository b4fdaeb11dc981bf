"""Tiny ONNX members whose logit is a known linear function of the pixels, with full cards.

The logit of a row is `bias + sum(weights * pixels)` over (band, y, x): `expected_logits` computes
it with numpy. A member made with `poison=True` raises on any batch that holds a row whose first
pixel is at least 1e6, as a real network may on a row that it cannot take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from jaxtyping import Float32
from onnx import TensorProto, helper, numpy_helper

from lenspipe.models.card import (
    Calibration,
    Feature,
    ImageInput,
    ModelCard,
    Normalisation,
    Output,
    Threshold,
    Training,
    write_card,
)

POISON = 1e6  # first pixel of a row that a `poison` member raises on
TRAINING = Training(
    recipe="toy.yaml",
    recipe_sha256="0" * 64,
    training_set="toy",
    training_set_sha256="0" * 64,
    n_train=1,
    seed=0,
)


def make_weights(shape: tuple[int, ...], seed: int = 0) -> Float32[np.ndarray, "*shape"]:
    """Reproducible weights of which every one differs, scaled so that logits are of order one."""
    drawn = np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape))
    return np.asarray(drawn, np.float32)


def expected_logits(
    images: Float32[np.ndarray, "n band y x"], weights: np.ndarray, bias: float = 0.0
) -> Float32[np.ndarray, " n"]:
    """What the member of these weights must give, in float64 and then rounded."""
    flat = images.reshape(len(images), weights.size).astype(np.float64)
    return (flat @ weights.ravel().astype(np.float64) + bias).astype(np.float32)


def make_member(
    path: str | Path,
    *,
    bands: Sequence[str] = ("g", "r", "i"),
    size: int = 8,
    weights: np.ndarray | None = None,
    bias: float = 0.0,
    seed: int = 0,
    name: str | None = None,
    input_name: str = "image",
    pixel_scale_arcsec: float = 0.25,
    zero_point_mag: float | None = None,
    normalisation: Normalisation | None = None,
    calibration: Calibration | None = None,
    thresholds: Sequence[Threshold] = (),
    poison: bool = False,
    **card: Any,
) -> ModelCard:
    """Write a member with one image input. weights: (band, y, x), by default `make_weights`.

    normalisation, when not in the graph, is what serving applies before the linear function.
    card: further fields of the `ModelCard`.
    """
    shape = (len(bands), size, size)
    kernel = make_weights(shape, seed) if weights is None else np.asarray(weights, np.float32)
    image = ImageInput(
        name=input_name,
        bands=tuple(bands),
        size_pixels=size,
        pixel_scale_arcsec=pixel_scale_arcsec,
        zero_point_mag=zero_point_mag,
    )
    return write_card(
        _model([(input_name, shape)], [kernel.reshape(shape)], bias, poison),
        _card(
            name=name or Path(path).stem,
            task="lens_finding",
            images=(image,),
            normalisation=normalisation,
            calibration=calibration,
            thresholds=tuple(thresholds),
            **card,
        ),
        path,
    )


def make_many_input_member(
    path: str | Path, images: Sequence[ImageInput], *, seed: int = 0, name: str | None = None
) -> tuple[ModelCard, dict[str, np.ndarray]]:
    """Write a member with several image inputs; its logit is the sum over them.

    Returns the card and the weights per input name.
    """
    shapes = [(image.name, image.spec().shape) for image in images]
    kernels = [make_weights(shape, seed + k) for k, (_, shape) in enumerate(shapes)]
    card = _card(name=name or Path(path).stem, task="lens_finding", images=tuple(images))
    written = write_card(_model(shapes, kernels, 0.0, poison=False), card, path)
    return written, {image.name: kernel for image, kernel in zip(images, kernels, strict=True)}


def make_photometry(
    path: str | Path,
    *,
    features: Sequence[Feature],
    weights: Sequence[float],
    bias: float = 0.0,
    name: str | None = None,
    **card: Any,
) -> ModelCard:
    """Write a photometry network: input `features` (n, k), logit `bias + features @ weights`."""
    kernel = np.asarray(weights, np.float32)
    return write_card(
        _model([("features", (len(features),))], [kernel], bias, poison=False),
        _card(name=name or Path(path).stem, task="photometry", features=tuple(features), **card),
        path,
    )


def make_ensemble(
    folder: str | Path,
    *,
    name: str = "toy",
    members: int = 2,
    bands: Sequence[str] = ("g", "r", "i"),
    size: int = 8,
    blender: Mapping[str, Any] | None = None,
    cascade: Mapping[str, Any] | None = None,
    thresholds: Sequence[Mapping[str, Any]] = ({"fpr": 0.01, "score": 1.0, "n_negatives": 10_000},),
    calibration: Mapping[str, Any] | None = None,
    **member: Any,
) -> Path:
    """Write members `toy-a`, `toy-b` … (seeds 0, 1 …) and an ensemble file; returns its path."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    files = [f"{name}-{'abcdefghij'[k]}.onnx" for k in range(members)]
    for seed, file in enumerate(files):
        make_member(root / file, bands=bands, size=size, seed=seed, **member)
    content: dict[str, Any] = {
        "name": name,
        "members": files,
        "blender": dict(blender or {"kind": "mean"}),
        "calibration": dict(calibration or {"kind": "platt", "slope": 1.0, "prevalence": 0.5}),
        "thresholds": [dict(threshold) for threshold in thresholds],
    }
    if cascade is not None:
        content["cascade"] = dict(cascade)
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _card(**fields: Any) -> ModelCard:
    defaults: dict[str, Any] = {
        "architecture": "linear",
        "outputs": (Output(name="logit", meaning="logit of being a lens"),),
        "training": TRAINING,
        "licence": "BSD-3-Clause",
        "weights_sha256": "",
    }
    return ModelCard(**{**defaults, **fields})


def _model(
    inputs: Sequence[tuple[str, tuple[int, ...]]],
    kernels: Sequence[np.ndarray],
    bias: float,
    poison: bool,
) -> onnx.ModelProto:
    """Sum over the inputs of flatten(x) @ kernel, plus bias, as (batch,) `logit`."""
    nodes, constants, terms = [], [], []
    for k, ((name, _), kernel) in enumerate(zip(inputs, kernels, strict=True)):
        constants.append(numpy_helper.from_array(kernel.reshape(-1, 1), f"kernel{k}"))
        nodes.append(helper.make_node("Flatten", [name], [f"flat{k}"], axis=1))
        nodes.append(helper.make_node("MatMul", [f"flat{k}", f"kernel{k}"], [f"term{k}"]))
        terms.append(f"term{k}")
    constants.append(_constant("bias", [bias], np.float32))
    constants.append(_constant("axis", [1], np.int64))
    nodes.append(helper.make_node("Sum", [*terms, "bias"], ["column"]))
    if poison:
        nodes += _poison_nodes()
        constants.append(_constant("table", [[0.0]], np.float32))
        constants.append(_constant("unit", 1.0 / POISON, np.float32))
        constants.append(_constant("zero", 0, np.int64))
        nodes.append(helper.make_node("Add", ["column", "looked_up"], ["checked"]))
    last = "checked" if poison else "column"
    nodes.append(helper.make_node("Squeeze", [last, "axis"], ["logit"]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *s]) for n, s in inputs],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["batch"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model


def _constant(name: str, value: Any, kind: type[np.generic]) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, kind), name)


def _poison_nodes() -> list[onnx.NodeProto]:
    """Look row trunc(first pixel / POISON) up in a table of one row: any other row raises."""
    return [
        helper.make_node("Gather", ["flat0", "zero"], ["first"], axis=1),
        helper.make_node("Mul", ["first", "unit"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["looked_up"], axis=0),
    ]

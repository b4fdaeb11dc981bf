"""A shipped network in half precision: weights and arithmetic in float16, pixels over the bus too.

`python -m training.half ps1-resnet ps1-resnet-fp16.onnx --input float16`

What the pixels are normalised by stays in float32, and so does the logit: a flux has a range that
float16 has not. The figures in the card stay those of the float32 network, which the note beside
each of them says, with the largest difference between the two networks' logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from jaxtyping import Float16, Float32
from onnx import TensorProto, helper, numpy_helper

from lenspipe.errors import InputError
from lenspipe.models import self_test
from lenspipe.models.card import ImageInput, Metric, ModelCard, read_card, write_card
from lenspipe.models.locate import find
from lenspipe.models.session import Member, input_shapes

InputType = Literal["float32", "float16", "int16", "uint16"]
# Operators of `lenspipe.models.normalise` as they stand in a graph.
NORMALISING = frozenset({"Abs", "Add", "Asinh", "Clip", "Div", "Mul", "Sign", "Sqrt", "Sub"})
# Self-test on another device: float16 sums in another order, over networks whose logits reach 10.
TOLERANCE = 0.1
_ELEMENTS = {
    "float16": TensorProto.FLOAT16,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
}


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with float16 weights and arithmetic; inputs, the normalisation that comes
    first and the outputs stay float32.

    InputError where the graph holds graphs, as no network of this package does, or a weight that
    float16 has no number for.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    if model.functions or any(a.HasField("g") or a.graphs for n in graph.node for a in n.attribute):
        raise InputError("model", "one flat graph", "graphs inside of it")
    early = normalising(graph)
    weights = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    # Values in float32 that float16 nodes may ask for: what is fed, and what was normalised.
    wide = {tensor.name for tensor in graph.input} | {n for node in early for n in node.output}
    nodes, halved = list(early), dict[str, str]()
    late = [node for node in graph.node if node not in early]
    for node in late:
        for name in node.input:
            if name in wide and name not in halved:
                halved[name] = f"{name}/half"
                nodes.append(_cast(name, halved[name], TensorProto.FLOAT16))
            elif name in weights and name not in halved:
                halved[name] = f"{name}/half"
                small = _small(numpy_helper.to_array(weights[name]), name)
                graph.initializer.append(numpy_helper.from_array(small, halved[name]))
        node.input[:] = [halved.get(name, name) for name in node.input]
        _halve_attributes(node)
        nodes.append(node)
    nodes += _widen_outputs(graph, late)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def normalising(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that normalise: elementwise ones on the inputs and constants alone."""
    known = {tensor.name for tensor in (*graph.input, *graph.initializer)}
    early = []
    for node in graph.node:
        if node.op_type in NORMALISING and all(name in known for name in node.input):
            known.update(node.output)
            early.append(node)
    return early


def _halve_attributes(node: onnx.NodeProto) -> None:
    """Constants inside of a node, and casts to float32, become float16."""
    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
            small = _small(numpy_helper.to_array(attribute.t), node.name)
            attribute.t.CopyFrom(numpy_helper.from_array(small, attribute.t.name))
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def _small(values: np.ndarray, name: str) -> Float16[np.ndarray, ...]:
    """InputError where float16 has no such number."""
    limit = float(np.finfo(np.float16).max)
    if values.size and not np.abs(values).max() <= limit:
        raise InputError(f"weights {name}", f"values up to {limit:g}", np.abs(values).max())
    return values.astype(np.float16)


def _widen_outputs(
    graph: onnx.GraphProto, late: Sequence[onnx.NodeProto]
) -> Iterator[onnx.NodeProto]:
    """Casts of the outputs back to float32, under their own names."""
    for tensor in graph.output:
        for node in late:
            node.output[:] = [f"{n}/half" if n == tensor.name else n for n in node.output]
            node.input[:] = [f"{n}/half" if n == tensor.name else n for n in node.input]
        yield _cast(f"{tensor.name}/half", tensor.name, TensorProto.FLOAT)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=to)


def with_input_type(
    model: onnx.ModelProto, card: ModelCard, images: Mapping[str, ImageInput]
) -> tuple[onnx.ModelProto, ModelCard]:
    """The same network with inputs in the types that `images` says, cast to float32 in the graph.

    images: input name -> how it is to be written; inputs that are not named stay as they are.
    InputError where the card has no such input, or one that is cast already.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    known = {image.name: image for image in card.images}
    for name, image in images.items():
        if name not in known or known[name].dtype != "float32":
            wanted = ", ".join(n for n, i in known.items() if i.dtype == "float32") or "none left"
            raise InputError("input", f"one of the float32 image inputs: {wanted}", name)
        if image.dtype != "float32":
            _cast_input(changed.graph, image)
    kept = tuple(images.get(image.name, image) for image in card.images)
    onnx.checker.check_model(changed, full_check=True)
    return changed, card.model_copy(update={"images": kept})


def _cast_input(graph: onnx.GraphProto, image: ImageInput) -> None:
    """Put `flux = value * quantum + zero_level` (integers) or a cast (float16) behind an input."""
    tensor = next(node for node in graph.input if node.name == image.name)
    tensor.type.tensor_type.elem_type = _ELEMENTS[image.dtype]
    flux = f"{image.name}/flux"
    for node in graph.node:
        node.input[:] = [flux if name == image.name else name for name in node.input]
    cast = f"{image.name}/cast" if image.quantum is not None else flux
    nodes = [helper.make_node("Cast", [image.name], [cast], to=TensorProto.FLOAT)]
    if image.quantum is not None:
        for name, value in (("quantum", image.quantum), ("zero_level", image.zero_level)):
            constant = np.asarray(value, np.float32)
            graph.initializer.append(numpy_helper.from_array(constant, f"{image.name}/{name}"))
        scaled = f"{image.name}/scaled"
        nodes.append(helper.make_node("Mul", [cast, f"{image.name}/quantum"], [scaled]))
        nodes.append(helper.make_node("Add", [scaled, f"{image.name}/zero_level"], [flux]))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def make_half(
    source: Path,
    out: Path,
    images: Mapping[str, Float32[np.ndarray, "n band y x"]],
    input_type: InputType = "float16",
    quantum: float | None = None,
    zero_level: float = 0.0,
) -> float:
    """Write the half-precision network of `source` to `out`; returns its largest difference.

    images: stamps of the kind that the network is for, to compare the two networks' logits on.
    """
    card = read_card(source)
    model = halve(onnx.load(str(source)))
    written = {
        image.name: image.model_copy(
            update={"dtype": input_type, "quantum": quantum, "zero_level": zero_level}
        )
        for image in card.images
    }
    checked = {
        name: ImageInput.model_validate(image.model_dump()) for name, image in written.items()
    }
    model, card = with_input_type(model, card, checked)
    named = card.model_copy(update={"name": f"{card.name}-fp16", "self_test": None})
    write_card(model, named, out)
    apart = largest_difference(source, out, images)
    rows = len(next(iter(images.values())))
    text = f"of the float32 network; logits of this one are within {apart:.2g} on {rows} stamps"
    metrics = {name: noted(metric, text) for name, metric in named.metrics.items()}
    description = f"{card.description} In half precision, input {input_type}.".strip()
    final = named.model_copy(update={"metrics": metrics, "description": description})
    write_card(model, final, out)
    self_test.add(out, tolerance=TOLERANCE)
    return apart


def largest_difference(first: Path, second: Path, images: Mapping[str, np.ndarray]) -> float:
    """Largest absolute difference of two networks' logits on the CPU; InputError where one of
    them is no number, as where float16 overflows."""
    size = min(64, len(next(iter(images.values()))))
    logits = [Member.load(p, "cpu", batch_size=size).predict(images) for p in (first, second)]
    apart = float(np.max(np.abs(logits[0] - logits[1])))
    if not np.isfinite(apart):
        raise InputError(f"model {second}", "finite logits on the stamps", apart)
    return apart


def noted(metric: Metric, text: str) -> Metric:
    """The figure with `text` before its note."""
    return metric.model_copy(update={"note": f"{text}; {metric.note}".rstrip("; ")})


def example_stamps(card: ModelCard, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Round galaxies of random flux and size on noise: the amplitudes of stamps, without a sky."""
    draw = np.random.default_rng(seed)
    made = {}
    for name, (bands, size, _) in input_shapes(card).items():
        y, x = np.mgrid[:size, :size] - size // 2
        flux = draw.lognormal(0.0, 1.5, (rows, 1, 1)).astype(np.float32)
        width = draw.uniform(2.0, 6.0, (rows, 1, 1)).astype(np.float32)
        light = flux * np.exp(-np.hypot(x, y).astype(np.float32) / width)
        noise = draw.standard_normal((rows, bands, size, size), np.float32)
        made[name] = light[:, None] + np.float32(0.1) * noise
    return made


def main() -> None:
    """Convert one network and print how far its logits moved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a network's name in the zoo, or a path")
    parser.add_argument("out", type=Path)
    parser.add_argument("--input", choices=("float32", *_ELEMENTS), default="float16")
    parser.add_argument("--quantum", type=float, help="flux of one step of an integer input")
    parser.add_argument("--zero-level", type=float, default=0.0, help="flux of the integer 0")
    parser.add_argument("--stamps", type=Path, help="NPZ with one array per input; else drawn ones")
    options = parser.parse_args()
    source = find(options.model)
    card = read_card(source)
    images = dict(np.load(options.stamps)) if options.stamps else example_stamps(card, 256)
    apart = make_half(
        source, options.out, images, options.input, options.quantum, options.zero_level
    )
    print(f"{options.out}: largest difference of logits {apart:.3g}")  # noqa: T201  # a command


if __name__ == "__main__":
    main()

"""A fitted blender as one small ONNX graph, for those who run the members outside of lenspipe.

    python -m training.blend.onnx_graph ENSEMBLE BLEND.onnx

Input `logits` (batch, member) float32 in the members' order, output `score` (batch,) float32. As in
`lenspipe.blenders` sums are made in float64 and rounded once, so that the two agree to one rounding
of a float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

import training.blend as package
from lenspipe import blenders, registry
from lenspipe.models.ensemble_file import describe_ensemble

OPSET = 20
# Names between which a blender's own nodes lie: float64, (batch, member) and (batch,).
WIDE, BLENDED = "wide", "blended"


def blend_graph(options: blenders.BlenderOptions, members: int) -> onnx.ModelProto:
    """The blend of so many members' logits; InputError where the options are for another number."""
    options.check_members(members)
    module = registry.load(package, options.kind, "blender.kind", package.HELPERS)
    return whole(module.nodes(options, members), members)


def whole(nodes: Sequence[NodeProto], members: int) -> onnx.ModelProto:
    """A blender's own nodes as a model."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["logits"], [WIDE], to=TensorProto.DOUBLE),
            *nodes,
            helper.make_node("Cast", [BLENDED], ["score"], to=TensorProto.FLOAT),
        ],
        "blend",
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", members])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10  # of opset 20, which older ONNX Runtimes read too
    onnx.checker.check_model(model, full_check=True)
    return model


def weighted_sum(options: Any, members: int) -> list[NodeProto]:
    """Nodes of a blender with `weights` and `intercept`."""
    del members
    return sum_of(options.weights, options.intercept)


def sum_of(weights: Sequence[float], intercept: float = 0.0) -> list[NodeProto]:
    """Nodes of intercept + Σ weight · logit. A NaN in any member stays one, whatever its weight."""
    return [
        constant("weights", weights),
        constant("intercept", intercept),
        helper.make_node("Mul", [WIDE, "weights"], ["weighted"]),
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("ReduceSum", ["weighted", "axes"], ["summed"], keepdims=0),
        helper.make_node("Add", ["summed", "intercept"], [BLENDED]),
    ]


def constant(name: str, value: Sequence[float] | float) -> NodeProto:
    """A float64 constant."""
    tensor = numpy_helper.from_array(np.asarray(value, np.float64), name)
    return helper.make_node("Constant", [], [name], value=tensor)


def main() -> None:
    """Write the blend of one ensemble."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ensemble", help="an ensemble's name in the zoo, or a path")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    described = describe_ensemble(options.ensemble)
    onnx.save(blend_graph(described.blender, len(described.members)), str(options.out))


if __name__ == "__main__":
    main()

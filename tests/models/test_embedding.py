"""What a network sees: the features that its last linear layer makes the logit from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lenspipe.models.card import ImageInput, read_model, write_card
from lenspipe.models.embedding import Embedding, last_features
from lenspipe.models.ensemble import load_ensemble
from tests import toy_models


def linear_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Weight (d,) and bias of the layer that makes the logit."""
    model = onnx.load_from_string(read_model(path)[0])
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    [node] = [n for n in model.graph.node if last_features(model, "logit") in n.input]
    weight, bias = (arrays[name] for name in node.input[1:])
    return weight.ravel(), bias.ravel()


def test_the_logit_is_a_linear_function_of_every_shipped_members_features() -> None:
    ensemble = load_ensemble("ps1-gri", provider="cpu")
    embedding = Embedding(ensemble)
    assert [name for name, _ in embedding.members] == list(ensemble.member_names)
    rng = np.random.default_rng(1)
    [spec] = ensemble.inputs
    images = {spec.name: rng.normal(0, 0.3, (20, *spec.shape)).astype(np.float32)}
    found = embedding(images)
    assert found is not None
    logits = ensemble.score(images, full=True).members
    start = 0
    for column, (member, (_, width)) in enumerate(
        zip(ensemble.members, embedding.members, strict=True)
    ):
        weight, bias = linear_of(member.path)
        own = found[:, start : start + width]
        start += width
        # The same sum in another order, of numbers of the logits' size.
        np.testing.assert_allclose(own @ weight + bias, logits[:, column], rtol=1e-4, atol=1e-4)
    assert start == found.shape[1]


def test_a_row_that_is_not_finite_has_no_features_and_changes_no_other() -> None:
    ensemble = load_ensemble("ps1-gri", provider="cpu")
    embedding = Embedding(ensemble)
    [spec] = ensemble.inputs
    pixels = np.random.default_rng(2).normal(0, 0.3, (5, *spec.shape)).astype(np.float32)
    whole = embedding({spec.name: pixels})
    pixels[2, 0, 3, 3] = np.nan
    found = embedding({spec.name: pixels})
    assert whole is not None
    assert found is not None
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(found[others], whole[others], rtol=1e-5, atol=1e-5)


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["batch", "width"])
    weight = numpy_helper.from_array(np.ones((4, 1), np.float32), "w")
    bias = numpy_helper.from_array(np.zeros(1, np.float32), "b")
    made = helper.make_graph(list(nodes), "g", [x], [y], [weight, bias])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


RELU = helper.make_node("Relu", ["x"], ["h"])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([RELU, helper.make_node("Gemm", ["h", "w", "b"], ["logit"])], "h"),
        (
            [
                RELU,
                helper.make_node("MatMul", ["h", "w"], ["m"]),
                helper.make_node("Add", ["b", "m"], ["logit"]),
            ],
            "h",
        ),
        ([helper.make_node("Gemm", ["x", "w", "b"], ["logit"])], None),  # of the pixels themselves
        (
            [
                helper.make_node("Gemm", ["x", "w", "b"], ["m"]),
                helper.make_node("Sigmoid", ["m"], ["logit"]),
            ],
            None,
        ),
        ([helper.make_node("Identity", ["x"], ["logit"])], None),
    ],
)
def test_features_are_found_where_a_linear_layer_ends(
    nodes: list[onnx.NodeProto], expected: str | None
) -> None:
    model = graph(*nodes)
    onnx.checker.check_model(model)
    assert last_features(model, "logit") == expected
    if expected:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        assert session.run(["logit"], {"x": -np.ones((1, 4), np.float32)})[0].item() == 0.0


def test_no_rows_have_no_features() -> None:
    ensemble = load_ensemble("ps1-gri", provider="cpu")
    [spec] = ensemble.inputs
    found = Embedding(ensemble)({spec.name: np.zeros((0, *spec.shape), np.float32)})
    assert found is not None
    assert len(found) == 0


@pytest.mark.parametrize("kind", ["weights among the inputs", "scalar among the inputs", "pairs"])
def test_an_odd_graph_has_features_or_none_and_raises_nothing(tmp_path: Path, kind: str) -> None:
    spec = ImageInput(name="image", bands=("g",), size_pixels=2, pixel_scale_arcsec=0.25)
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 2, 2])
    y = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["rows", 1])
    weights = [
        numpy_helper.from_array(np.ones((4, 1), np.float32), "w"),
        numpy_helper.from_array(np.zeros(1, np.float32), "b"),
        numpy_helper.from_array(np.array([-1, 4]), "flat"),
        numpy_helper.from_array(np.array([-1, 8, 4]), "pairs"),
        numpy_helper.from_array(np.array(1.0, np.float32), "one"),
    ]
    shapes = ["pairs", "flat"] if kind == "pairs" else ["flat", "flat"]
    nodes = [
        helper.make_node("Reshape", ["image", shapes[0]], ["a"]),
        helper.make_node("Reshape", ["a", shapes[1]], ["c"]),
        helper.make_node("Mul", ["c", "one"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["logit"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    listed = {"weights among the inputs": ["w", "b"], "scalar among the inputs": ["one"]}
    for each in weights:
        if each.name in listed.get(kind, []):
            graph.input.append(
                helper.make_tensor_value_info(each.name, TensorProto.FLOAT, list(each.dims))
            )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    card = toy_models._card(name="odd", task="lens_finding", images=(spec,))
    write_card(model, card, tmp_path / "odd.onnx")
    ensemble = load_ensemble(str(tmp_path / "odd.onnx"), provider="cpu")
    pixels = np.arange(20, dtype=np.float32).reshape(5, 1, 2, 2)
    assert np.isfinite(ensemble.score({"image": pixels}).score).all()
    found = Embedding(ensemble)({"image": pixels})
    assert found is not None
    np.testing.assert_array_equal(found, pixels.reshape(5, 4))

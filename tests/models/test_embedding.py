"""What a network sees: the features that its last linear layer makes the logit from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lenspipe.models import providers
from lenspipe.models.card import ImageInput, read_model, write_card
from lenspipe.models.embedding import Embedding, last_features
from lenspipe.models.ensemble import Ensemble, load_ensemble
from lenspipe.models.memory import OutOfMemoryError
from tests import toy_models


def linear_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Weight (d,) and bias of the layer that makes the logit."""
    model = onnx.load_from_string(read_model(path)[0])
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    first, *_ = last_features(model, "logit")
    [node] = [n for n in model.graph.node if first in n.input]
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
        ([RELU, helper.make_node("Gemm", ["h", "w", "b"], ["logit"])], ("h",)),
        (
            [
                RELU,
                helper.make_node("MatMul", ["h", "w"], ["m"]),
                helper.make_node("Add", ["b", "m"], ["logit"]),
            ],
            ("h",),
        ),
        ([helper.make_node("Gemm", ["x", "w", "b"], ["logit"])], ()),  # of the pixels themselves
        (
            [
                helper.make_node("Gemm", ["x", "w", "b"], ["m"]),
                helper.make_node("Sigmoid", ["m"], ["logit"]),
            ],
            (),
        ),
        ([helper.make_node("Identity", ["x"], ["logit"])], ()),
    ],
)
def test_features_are_found_where_a_linear_layer_ends(
    nodes: list[onnx.NodeProto], expected: tuple[str, ...]
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


class _Short:
    """A session that takes so many rows at a time, and raises `fault` for more."""

    def __init__(self, session: Any, rows: int, fault: Exception) -> None:
        self._session, self._rows, self._fault = session, rows, fault
        self.asked: list[int] = []

    def run(self, names: None, fed: dict[str, np.ndarray]) -> list[np.ndarray]:
        rows = len(next(iter(fed.values())))
        self.asked.append(rows)
        if rows > self._rows:
            raise self._fault
        return list(self._session.run(names, fed))


MEMORY = [MemoryError(), RuntimeError("BFCArena: Failed to allocate memory for requested buffer")]


def linear_member(folder: Path) -> Ensemble:
    """One member whose last layer is linear, of its four pixels."""
    spec = ImageInput(name="image", bands=("g",), size_pixels=2, pixel_scale_arcsec=0.25)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["logit"]),
    ]
    model = graph(*nodes)
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 2, 2])
    )
    model.graph.node[0].input[0] = "image"
    card = toy_models._card(name="linear", task="lens_finding", images=(spec,))
    write_card(model, card, folder / "linear.onnx")
    return load_ensemble(str(folder / "linear.onnx"), provider="cpu")


def seen(folder: Path) -> tuple[Embedding, np.ndarray, list[str]]:
    """What a member sees, pixels, and what is told."""
    told: list[str] = []
    pixels = np.random.default_rng(4).normal(size=(40, 1, 2, 2)).astype(np.float32)
    return Embedding(linear_member(folder), told=told.append), pixels, told


@pytest.mark.parametrize("fault", MEMORY, ids=["python", "onnxruntime"])
def test_memory_that_is_short_is_asked_for_less(tmp_path: Path, fault: Exception) -> None:
    embedding, pixels, told = seen(tmp_path)
    whole = embedding({"image": pixels})
    _, eye = embedding._eyes[0]
    short: Any = _Short(eye.session, 16, fault)
    eye.session = short
    found = embedding({"image": pixels})
    assert whole is not None
    assert found is not None
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-5)
    assert max(short.asked) > 16
    embedding.tell()
    assert told == []


@pytest.mark.parametrize("fault", MEMORY, ids=["python", "onnxruntime"])
def test_no_memory_at_all_is_no_missing_feature(tmp_path: Path, fault: Exception) -> None:
    embedding, pixels, _ = seen(tmp_path)
    _, eye = embedding._eyes[0]
    none: Any = _Short(eye.session, 0, fault)
    eye.session = none
    with pytest.raises(OutOfMemoryError, match=eye.member.name):
        embedding({"image": pixels})


@pytest.mark.parametrize("fault", MEMORY, ids=["python", "onnxruntime"])
def test_no_memory_for_a_session_is_no_member_without_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    ensemble = linear_member(tmp_path)

    def short(*_: object) -> None:
        raise fault

    monkeypatch.setattr(providers, "open_session", short)
    with pytest.raises(OutOfMemoryError):
        Embedding(ensemble)


def test_rows_without_features_are_told(tmp_path: Path) -> None:
    embedding, pixels, told = seen(tmp_path)
    pixels[3] = np.nan
    embedding({"image": pixels})
    embedding.tell()
    like = "candidates are like no other, since member linear has no features of them"
    assert told == [f"1 {like}: values that are not finite"]
    _, eye = embedding._eyes[0]
    broken: Any = _Short(eye.session, 0, RuntimeError("Reshape\nof nothing"))
    eye.session = broken
    found = embedding({"image": pixels})
    assert found is not None
    assert np.isnan(found).all()
    embedding.tell()
    assert told[1:] == [f"41 {like}: Reshape of nothing"]


def test_members_without_features_are_told_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenspipe.models.embedding.MOST_FEATURES", 0)
    embedding, pixels, told = seen(tmp_path)
    assert embedding({"image": pixels}) is None
    begin = "candidates are not seen alike by member"
    assert told == [f"{begin} linear: its last layer reads no table of at most 0 numbers a row"]
    toys = load_ensemble(str(toy_models.make_ensemble(tmp_path / "toys")), provider="cpu")
    Embedding(toys, told=told.append)
    assert told[1:] == [
        f"{begin} {name}: its logit is made by no linear layer" for name in toys.member_names
    ]

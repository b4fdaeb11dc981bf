from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lenspipe.errors import InputError
from lenspipe.models import zoo
from lenspipe.models.card import read_card
from training.evaluation import features, probe

REAL = np.arange(300) < 100
NAMES = np.array([f"object {k}" for k in range(300)], object)


def test_equal_sets_cannot_be_told_apart() -> None:
    values = np.random.default_rng(0).normal(size=(300, 20))
    found = probe.separability(values, REAL, NAMES)
    assert found["interval"][0] < 0.5 < found["interval"][1] + 0.1
    assert found["auroc"] < 0.65


def test_a_shift_is_found_and_named() -> None:
    values = np.random.default_rng(1).normal(size=(300, 5))
    values[REAL, 3] += 2.0
    assert probe.separability(values, REAL, NAMES)["auroc"] > 0.88  # Φ(2/√2) = 0.921
    told = probe.telling({f"column {k}": values[:, k] for k in range(5)}, REAL)
    assert told[0]["name"] == "column 3"
    assert told[0]["auroc"] == pytest.approx(0.92, abs=0.04)
    assert told[0]["shift"] == pytest.approx(2.0, abs=0.5)


def test_an_object_that_is_recognised_does_not_count() -> None:
    """Each of 20 real objects has a column of its own, ten stamps each: a probe that were judged on
    objects of its fit would be perfect."""
    draw = np.random.default_rng(2)
    names = np.array([f"{'r' if k < 200 else 'm'}{(k % 200) // 10}" for k in range(400)], object)
    real = np.arange(400) < 200
    values = draw.normal(size=(400, 20)) * 0.1
    for k in range(20):
        values[names == f"r{k}", k] += 5.0
    assert probe.separability(values, real, names)["auroc"] < 0.7


def test_what_was_not_measured_counts_as_the_median() -> None:
    values = np.random.default_rng(3).normal(size=(300, 2))
    values[::3, 1] = np.nan
    assert 0.35 < probe.separability(values, REAL, NAMES)["auroc"] < 0.65
    assert probe.telling({"a": np.full(300, np.nan)}, REAL) == []


def test_too_few_objects_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5 objects"):
        probe.separability(np.zeros((300, 2)), REAL, np.where(REAL, "one", NAMES))


@pytest.mark.parametrize("name", ["ps1-holismokes", "ps1-resnet", "ps1-group"])
def test_hidden_features_are_what_the_last_layer_takes(name: str) -> None:
    """The last layer's weights on them give the logit."""
    path: Path = zoo.find(name)
    images = np.random.default_rng(0).normal(0, 0.5, (5, 3, 48, 48)).astype(np.float32)
    found = features.hidden(path, images)
    model = onnx.load(str(path))
    last = [n for n in model.graph.node if n.op_type == "Gemm"][-1]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    logit = found @ weights[last.input[1]].reshape(-1) + weights[last.input[2]][0]
    from training.export import onnx_logits

    assert len(found) == 5
    np.testing.assert_allclose(
        logit, onnx_logits(path, {"image": images}, threads=1), rtol=1e-4, atol=1e-4
    )
    assert read_card(path).name == name  # the file is as it was

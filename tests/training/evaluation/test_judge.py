"""The report of a toy test set: numbers, JSON and page."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lenspipe.models.card import Calibration
from training import timing
from training.data import Examples
from training.evaluation import confusion
from training.evaluation.judge import evaluate, probabilities, scores_of_others, thresholds_of
from training.evaluation.page import as_json, figure
from training.evaluation.report import write_report


def test_confusion_names_the_worst_kind_first(test_set: Examples, scores: np.ndarray) -> None:
    found = confusion.by_kind(scores, 2.0, test_set.positive, test_set.kinds)
    assert list(found) == ["spiral", "star", "lens"]
    spiral = found["spiral"]
    own = scores[test_set.kinds == "spiral"]
    assert (spiral["n"], spiral["passing"]) == (200, int((own > 2.0).sum()))
    assert spiral["share"] + found["star"]["share"] == pytest.approx(1.0)
    assert spiral["auroc"] < found["star"]["auroc"]
    assert "auroc" not in found["lens"]


def test_the_distribution_is_of_non_lenses_alone(test_set: Examples, scores: np.ndarray) -> None:
    found = scores_of_others(scores, test_set)
    assert found is not None
    assert sum(found.counts) == int((~test_set.positive).sum())
    assert max(found.edges) < float(scores[~test_set.positive].max())
    assert scores_of_others(np.zeros(len(test_set), np.float32), test_set) is None


def test_a_report_says_what_its_sample_cannot(test_set: Examples, scores: np.ndarray) -> None:
    marks = thresholds_of(scores, test_set.positive, (1e-2,))
    found = as_json(evaluate(scores, test_set, marks))
    assert "needs 10000 non-lenses" in json.dumps(found["figures"]["tpr_at_fpr_0.0001"])
    at = found["at_threshold"]["fpr_0.01"]
    assert at["fpr"]["value"] == pytest.approx(14 / 1400)
    assert set(at["purity"]) == {"0.001", "0.0001"}
    assert found["completeness_hexbins"]["at"] == "fpr_0.01"
    assert sum(found["completeness_hexbins"]["panels"][0]["n"]) == 600
    rising = [m["value"] for m in at["completeness_by"]["theta_e_arcsec"].values()]
    assert rising[0] < rising[-1]


def test_probabilities_are_at_the_sets_own_fraction_of_lenses(test_set: Examples) -> None:
    """Score 0 is the calibration's prevalence of a half; the set has 0.3 lenses."""
    found = probabilities(np.zeros(2000), test_set.positive, Calibration(prevalence=0.5))
    assert found == pytest.approx(np.full(2000, 0.3), abs=1e-6)
    assert probabilities(np.zeros(2000), test_set.positive, None) == pytest.approx(0.5)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """logit = sum of two features."""
    total = helper.make_node("ReduceSum", ["features", "axes"], ["logit"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    made = helper.make_graph(
        [total],
        "sum",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])],
        [axes],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(made, opset_imports=opset, ir_version=9), str(tmp_path / "m.onnx"))
    return tmp_path / "m.onnx"


def test_times_are_taken_in_turns(graph: Path, test_set: Examples) -> None:
    found = timing.seconds_in_turns({"a": graph, "b": graph}, test_set.inputs, rounds=2)
    assert {name: len(turns) for name, turns in found.items()} == {"a": 2, "b": 2}
    assert min(turns.min() for turns in found.values()) > 0


def test_time_per_image_states_threads_and_machine(graph: Path, test_set: Examples) -> None:
    found = timing.seconds_per_image({"a": graph, "b": graph}, test_set.inputs, threads=1, rounds=3)
    assert found["range"][0] <= found["seconds"] <= found["range"][1]
    assert found["images_per_second"] == pytest.approx(1 / found["seconds"])
    assert (found["threads"], found["batch"], found["rounds"]) == (1, timing.IMAGES, 3)
    assert "ONNX Runtime" in found["machine"]


def diversity_table() -> dict[str, object]:
    pair = {"both": 3, "jaccard": 0.2, "jaccard_by_chance": 0.01, "q": None, "correlation": 0.5}
    return {
        "fpr": 0.01,
        "n_negatives": 1400,
        "shared_by": {"1": 8, "2": 3},
        "pairs": [{"members": ["a", "b"], **pair}],
    }


def test_page_and_pictures_show_the_numbers(
    tmp_path: Path, test_set: Examples, scores: np.ndarray
) -> None:
    marks = thresholds_of(scores, test_set.positive, (1e-1, 1e-2))
    found = evaluate(scores, test_set, marks, Calibration(prevalence=0.3))
    found |= {
        "diversity": diversity_table(),
        "seconds_per_image": {
            "seconds": 2e-3,
            "images_per_second": 500.0,
            "threads": 2,
            "batch": 128,
            "machine": "a processor",
        },
    }
    other = evaluate(-scores, test_set, ())
    write_report(tmp_path, test_set, {"first": found, "second": other}, marks)
    page = (tmp_path / "index.html").read_text("utf-8")
    for text in (
        "<h2>second</h2>",
        "not supported by this sample: needs 10000 non-lenses",
        "2.00 ms",
        "2 threads",
        "a · b",
        "expected purity where 1 source in 10000 is a lens",
        "5 real host galaxies",
    ):
        assert text in page, text
    for picture in ("roc", "thresholds", "reliability", "completeness", "bins", "confusion"):
        assert f'src="{picture}.png"' in page
        pixels = matplotlib.image.imread(tmp_path / f"{picture}.png")
        assert pixels.std() > 0.02, picture
    stored = json.loads((tmp_path / "evaluation.json").read_text("utf-8"))
    assert stored["models"]["first"]["figures"]["auroc"]["n_negatives"] == 1400
    assert stored["test_set"]["lenses"] == 600


def test_a_set_without_truth_has_a_page_too(tmp_path: Path, test_set: Examples) -> None:
    from dataclasses import replace

    bare = replace(test_set, truth={})
    scores = np.random.default_rng(0).normal(size=2000)
    write_report(tmp_path, bare, {"m": evaluate(scores, bare, ())})
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "completeness.png" not in page
    assert "roc.png" in page


def test_numbers_in_tables_are_short() -> None:
    assert [figure(v) for v in (None, float("nan"), 0.0, 0.25, 2e-5)] == [
        "–",
        "–",
        "0.0000",
        "0.2500",
        "2.00e-05",
    ]

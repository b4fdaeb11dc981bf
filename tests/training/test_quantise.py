"""Members in int8: close to the float32 ones, judged by what they cost, honest about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lenspipe.errors import InputError
from lenspipe.models.card import read_card
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.locate import find
from lenspipe.models.session import Member
from lenspipe.models.zoo import examine
from tests import toy_models
from training.half import example_stamps, normalising
from training.quantise import METHODS, Method, accept, make_int8, quantise, stamps_of

MEMBERS = ("ps1-resnet", "ps1-holismokes", "ps1-group")
ROWS = 64


def stamps(seed: int = 3) -> dict[str, np.ndarray]:
    return example_stamps(read_card(find(MEMBERS[0])), ROWS, seed)


@pytest.mark.parametrize("name", MEMBERS)
def test_shipped_members_keep_their_ranks(tmp_path: Path, name: str) -> None:
    """8 bits are 256 steps of a feature map's range, so logits move by tenths (median below 0.3 on
    drawn stamps, which are no lenses) and ranks by little."""
    source, out = find(name), tmp_path / "int8.onnx"
    apart = make_int8(source, out, stamps())
    held = stamps(seed=4)
    logits = [Member.load(path, "cpu", batch_size=ROWS).predict(held) for path in (source, out)]
    assert np.median(np.abs(logits[0] - logits[1])) < 0.3
    assert np.corrcoef(logits[0], logits[1])[0, 1] > 0.98
    card, int8 = read_card(source), read_card(out)
    assert int8.name == f"{name}-int8"
    assert int8.images == card.images
    assert f"within {apart:.2g} on {ROWS} stamps" in int8.metrics["auroc"].note
    assert int8.metrics["auroc"].value == card.metrics["auroc"].value
    difference = examine(str(out)).self_test[int8.name]
    assert difference is not None
    assert difference < 1e-3  # the same file on the same CPU
    assert out.stat().st_size < source.stat().st_size


def test_normalisation_and_logit_stay_in_float32() -> None:
    graph = quantise(find("ps1-holismokes"), stamps()).graph
    assert [node.op_type for node in normalising(graph)] == ["Div", "Asinh"]
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    last = [node for node in graph.node if node.op_type == "Gemm"][-1]
    assert made_by[graph.output[0].name] != "DequantizeLinear"
    assert last.input[1] not in made_by  # its weights are an initialiser, in float32
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert {made_by[node.input[0]] for node in convolutions} == {"DequantizeLinear"}
    scales = {t.name: list(t.dims) for t in graph.initializer if t.name.endswith("_scale")}
    weights = [made for made in graph.node if convolutions[1].input[1] in made.output]
    assert scales[weights[0].input[1]][0] > 1  # a scale per channel


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_network_that_runs(
    tmp_path: Path, method: Method, capsys: pytest.CaptureFixture[str]
) -> None:
    make_int8(find("ps1-holismokes"), tmp_path / "int8.onnx", stamps(), method)
    assert f"ranges by {method}" in read_card(tmp_path / "int8.onnx").description
    assert capsys.readouterr().out == ""


def test_every_method_has_ranges_of_its_own() -> None:
    """Percentiles cut what minima and maxima hold; two methods of equal ranges would be one."""
    found = {
        method: ranges(quantise(find("ps1-holismokes"), stamps(), method)) for method in METHODS
    }
    assert len({tuple(values) for values in found.values()}) == len(METHODS)
    assert (found["percentile"] <= found["minmax"] * (1 + 1e-6)).all()


def ranges(model: onnx.ModelProto) -> np.ndarray:
    """Step of the 8 bits of each feature map."""
    steps = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    names = sorted(name for name in steps if name.endswith("_scale") and not steps[name].shape)
    return np.array([steps[name] for name in names])


def test_an_unknown_method_lists_what_there_is() -> None:
    with pytest.raises(InputError, match="method: expected one of minmax, percentile"):
        quantise(find("ps1-holismokes"), stamps(), "best")  # type: ignore[arg-type]


def test_what_has_no_images_or_no_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a network that takes images"):
        make_int8(find("ps1-photometry"), tmp_path / "int8.onnx", {})
    toy_models.make_member(tmp_path / "toy.onnx")
    with pytest.raises(InputError, match="layers before the last"):
        make_int8(
            tmp_path / "toy.onnx",
            tmp_path / "int8.onnx",
            {"image": np.zeros((2, 3, 8, 8), np.float32)},
        )


def test_stamps_of_a_file(tmp_path: Path) -> None:
    wanted = stamps()["image"]
    np.savez(tmp_path / "stamps.npz", image=wanted)
    found = stamps_of(tmp_path / "stamps.npz", find("ps1-resnet"), rows=5)
    np.testing.assert_array_equal(found["image"], wanted[:5])


def scores(noise: float, n: int = 40_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, the same with noise, and which are lenses (a half)."""
    draw = np.random.default_rng(0)
    positive = np.arange(n) % 2 == 0
    plain = 3.0 * positive + draw.normal(size=n)
    return plain, plain + noise * draw.normal(size=n), positive


def test_the_same_scores_are_accepted_and_rough_ones_are_not() -> None:
    same = accept(*scores(0.0))
    assert same.accepted
    assert same.tpr is not None
    assert same.tpr[0] == same.tpr[1]
    assert same.fpr_at_threshold == pytest.approx(1e-3)
    assert (same.n_positives, same.n_negatives) == (20_000, 20_000)
    rough = accept(*scores(1.0))
    assert not rough.accepted
    assert "AUROC falls" in rough.reason
    assert "TPR at FPR 0.001 falls" in rough.reason


def test_a_worse_end_of_the_ranking_alone_is_enough() -> None:
    """50 non-lenses of 20,000 rise to the top: nothing in AUROC, all of the TPR at 10⁻³."""
    plain, _, positive = scores(0.0)
    rough = plain.copy()
    rough[np.flatnonzero(~positive)[:50]] = 99.0
    verdict = accept(plain, rough, positive)
    assert not verdict.accepted
    assert verdict.tpr is not None
    assert verdict.tpr[1] < verdict.tpr[0] - 0.1
    assert abs(verdict.auroc[1] - verdict.auroc[0]) < 0.003


def test_better_ranks_are_no_cost() -> None:
    """The rule looks to one side alone, and says so."""
    plain, rough, positive = scores(1.0)
    verdict = accept(rough, plain, positive)
    assert verdict.accepted
    assert verdict.auroc[1] > verdict.auroc[0] + 0.001
    told = verdict.as_dict()["rule"]
    assert told.startswith("one-sided: AUROC may fall by 0.001 and TPR at FPR 0.001 by 0.01;")


def test_a_set_that_is_too_small_accepts_nothing() -> None:
    plain, same, positive = scores(0.0, n=1000)
    verdict = accept(plain, same, positive)
    assert not verdict.accepted
    assert "needs 1000 non-lenses, found 500" in verdict.reason
    assert verdict.tpr is None


def test_cpus_take_the_variant_and_columns_keep_their_names(tmp_path: Path) -> None:
    """By hand: members a and b, b' in place of b on CPUs."""
    path = toy_models.make_ensemble(tmp_path)
    toy_models.make_member(tmp_path / "other.onnx", seed=7, name="toy-b-int8")
    plain = load_ensemble(str(path), provider="cpu")
    path.write_text(path.read_text() + "on_cpu: {toy-b: other.onnx}\n")
    ensemble, whole = (load_ensemble(str(path), provider="cpu", variants=v) for v in (True, False))
    images = {"image": np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)}
    found = ensemble.score(images)
    assert ensemble.member_names == plain.member_names == ("toy-a", "toy-b")
    wanted = toy_models.expected_logits(images["image"], toy_models.make_weights((3, 8, 8), 7))
    np.testing.assert_allclose(found.members[:, 1], wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole.score(images).score, plain.score(images).score)
    assert ensemble.model_hash == whole.model_hash != plain.model_hash
    assert ensemble.description.variants("cpu") == ["toy-b-int8"]
    assert ensemble.description.variants("cuda") == ensemble.description.variants("openvino") == []
    assert list(examine(str(path)).self_test) == ["toy-a", "toy-b", "toy-b-int8"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("on_cpu: {toy-c: other.onnx}", "on_cpu: expected some of toy-a, toy-b, found toy-c"),
        ("on_cpu: {toy-b: none.onnx}", "on_cpu.toy-b: expected a model file"),
        ("on_cpu: {toy-b: other.onnx}", "on_cpu.toy-b: expected a network of the inputs of toy-b"),
    ],
)
def test_a_variant_must_be_one(tmp_path: Path, line: str, message: str) -> None:
    path = toy_models.make_ensemble(tmp_path)
    toy_models.make_member(tmp_path / "other.onnx", size=16)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=message):
        load_ensemble(str(path), provider="cpu")

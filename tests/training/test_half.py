"""Members in half precision: within a stated distance of the float32 ones, and honest about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from lenspipe.errors import InputError
from lenspipe.models.card import read_card, write_card
from lenspipe.models.ensemble import load_ensemble
from lenspipe.models.locate import find
from lenspipe.models.zoo import examine
from tests import toy_models
from training.half import example_stamps, halve, largest_difference, make_half

# float16 keeps 11 bits, so a layer's sum is off by some 1e-3 of itself, over five to twenty layers
# and logits up to 10. Measured on drawn stamps: 0.007 (ps1-resnet), 0.005 (ps1-holismokes), 0.037
# (ps1-group).
PARITY = 0.1


ROWS = 8
MEMBERS = (
    "ps1-resnet",
    "ps1-holismokes",
    "ps1-mined",
    "ps1-group",
    "ps1-group-wide",
    "ps1-group-deep",
    "ps1-group-rings",
)


def stamps(rows: int) -> dict[str, np.ndarray]:
    return example_stamps(read_card(find(MEMBERS[0])), rows, seed=3)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped ensemble's file beside its members in half precision."""
    folder = tmp_path_factory.mktemp("halves")
    for name in MEMBERS:
        make_half(find(name), folder / f"{name}.onnx", stamps(ROWS))
    text = find("ps1-gri").read_text(encoding="utf-8")
    text = text.replace("first: ps1-group\n", "first: ps1-group-fp16\n")  # a half's name is its own
    (folder / "half.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", MEMBERS)
def test_shipped_members_keep_their_logits(halves: Path, name: str) -> None:
    source, out = find(name), halves / f"{name}.onnx"
    card, half = read_card(source), read_card(out)
    apart = largest_difference(source, out, stamps(ROWS))
    assert 0 < apart <= PARITY
    assert out.stat().st_size < 0.6 * source.stat().st_size
    assert (half.name, half.images[0].dtype) == (f"{name}-fp16", "float16")
    assert f"within {apart:.2g} on {ROWS} stamps" in half.metrics["auroc"].note
    assert half.metrics["auroc"].value == card.metrics["auroc"].value
    difference = examine(str(out)).self_test[half.name]
    assert difference is not None
    assert difference < 1e-3  # the same file on the same CPU
    kinds = {t.data_type for t in onnx.load(str(out)).graph.initializer if np.prod(t.dims) > 64}
    assert TensorProto.FLOAT not in kinds


def test_an_ensemble_of_halves_scores_as_the_whole(halves: Path) -> None:
    """The blended score moves by no more than its members may."""
    half = load_ensemble(str(halves / "half.yaml"), provider="cpu", batch_size=ROWS)
    whole = load_ensemble("ps1-gri", provider="cpu", batch_size=ROWS)
    assert half.model_hash != whole.model_hash
    found, wanted = half.score(stamps(ROWS)).score, whole.score(stamps(ROWS)).score
    np.testing.assert_allclose(found, wanted, atol=PARITY)


def test_a_bright_star_does_not_overflow(halves: Path) -> None:
    """Flux beyond float16's 65504 is cut there; the normalisation, in float32, makes it small."""
    images = stamps(8)
    images["image"][0, :, 20:28, 20:28] = 1e9
    half = load_ensemble(str(halves / "ps1-resnet.onnx"), provider="cpu", batch_size=8)
    assert np.isfinite(half.score(images).score).all()


def test_weights_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    toy_models.make_member(path, weights=np.full((3, 8, 8), 1e6, np.float32))
    with pytest.raises(InputError, match="values up to 65504"):
        make_half(path, tmp_path / "half.onnx", example_stamps(read_card(path), 4))


def test_graphs_inside_of_nodes_are_refused(tmp_path: Path) -> None:
    toy_models.make_member(tmp_path / "toy.onnx")
    model = onnx.load(str(tmp_path / "toy.onnx"))
    inner = onnx.helper.make_graph([], "inner", [], [])
    always = numpy_helper.from_array(np.asarray(True), "always")
    model.graph.initializer.append(always)
    node = onnx.helper.make_node("If", ["always"], ["x"], then_branch=inner, else_branch=inner)
    model.graph.node.append(node)
    with pytest.raises(InputError, match="one flat graph"):
        halve(model)


def test_the_original_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    toy_models.make_member(path)
    model = onnx.load(str(path))
    kept = model.SerializeToString(deterministic=True)
    halve(model)
    assert model.SerializeToString(deterministic=True) == kept
    write_card(model, read_card(path), path)

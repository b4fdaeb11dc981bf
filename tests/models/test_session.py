from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.contracts import ProviderName
from lenspipe.errors import InputError, MemberError, ProviderError
from lenspipe.models import normalise, providers
from lenspipe.models.card import (
    Feature,
    ImageInput,
    ModelCard,
    Normalisation,
    Output,
    read_card,
    write_card,
)
from lenspipe.models.session import FEATURES, Member
from tests import toy_models

SHAPE = (3, 8, 8)
TOLERANCE = 1e-5  # float32 sums of 192 products in another order


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("member") / "toy.onnx"
    toy_models.make_member(path, bias=0.5)
    return path


@pytest.fixture(scope="module")
def member(path: Path) -> Member:
    return Member.load(path, "cpu", batch_size=4)


def expected(images: np.ndarray) -> np.ndarray:
    return toy_models.expected_logits(images, toy_models.make_weights(SHAPE), 0.5)


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 8, 11])
def test_logits_for_any_number_of_rows(member: Member, rows: int) -> None:
    images = pixels(rows)
    found = member.predict({"image": images})
    assert found.shape == (rows,)
    assert found.dtype == np.float32
    assert_close(found, expected(images))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 13), st.integers(1, 7), st.integers(0, 99))
def test_batch_size_changes_no_row(path: Path, rows: int, batch_size: int, seed: int) -> None:
    member = Member.load(path, "cpu", batch_size=batch_size)
    images = pixels(rows, seed)
    assert_close(member.predict({"image": images}), expected(images))


def test_a_partial_batch_never_sees_rows_of_the_one_before(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What reaches ONNX Runtime is looked at, as a row's logit does not show its neighbours."""
    fed: list[np.ndarray] = []
    run = member._feed._session.run  # type: ignore[attr-defined]  # the CPU's feed has one

    def watched(names: list[str], feed: Mapping[str, np.ndarray], options: object) -> list[object]:
        fed.append(feed["image"].copy())
        return list(run(names, feed, options))

    monkeypatch.setattr(member._feed, "_session", SimpleNamespace(run=watched))
    member.predict({"image": pixels(5) + 10.0})
    assert [len(batch) for batch in fed] == [4, 4]
    assert (fed[1][0] != 0).all()
    assert (fed[1][1:] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_nan_alone(member: Member, bad: float) -> None:
    images = pixels(7)
    wanted = expected(images)
    images[2, 1, 3, 3] = bad
    found = member.predict({"image": images})
    assert np.isnan(found[2])
    assert_close(np.delete(found, 2), np.delete(wanted, 2))


def test_large_values_are_scored_up_to_what_can_be_a_flux(member: Member) -> None:
    """Their squares overflow long before: the values themselves are looked at then."""
    images = np.zeros((4, *SHAPE), np.float32)
    images[1, 0, :4, 0] = 9e29
    images[2, 0, 0, 0] = 2e30
    found = member.predict({"image": images})
    weights = toy_models.make_weights(SHAPE)[0, :4, 0]
    np.testing.assert_allclose(found[1], np.sum(9e29 * weights.astype(np.float64)), rtol=1e-5)
    assert np.isnan(found[2])
    np.testing.assert_array_equal(found[[0, 3]], np.float32(0.5))


def test_arrays_that_are_no_block_of_memory(member: Member) -> None:
    images = pixels(16)
    found = member.predict({"image": images[::2]})
    assert_close(found, expected(np.ascontiguousarray(images[::2])))
    turned = images[:4].transpose(0, 1, 3, 2)
    assert_close(member.predict({"image": turned}), expected(np.ascontiguousarray(turned)))


@pytest.mark.parametrize(
    ("rows", "run"), [(1, [8]), (8, [8]), (9, [16]), (16, [16]), (40, [32, 8])]
)
def test_a_short_batch_costs_less_on_the_cpu(
    path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, run: list[int]
) -> None:
    """Padded to whole vectors, with zeros also where a longer batch was before."""
    member = Member.load(path, "cpu", batch_size=32)
    member.predict({"image": pixels(31, seed=1)})
    fed: list[np.ndarray] = []
    stage = member._feed.stage

    def watched(slot: int, batch: Mapping[str, np.ndarray]) -> None:
        fed.append(batch["image"].copy())
        stage(slot, batch)

    monkeypatch.setattr(member._feed, "stage", watched)
    images = pixels(rows)
    assert_close(member.predict({"image": images}), expected(images))
    assert [len(batch) for batch in fed] == run
    assert not np.concatenate(fed)[rows:].any()


def test_a_graph_of_one_batch_size_gets_it(path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 32
    write_card(model, read_card(path), tmp_path / "fixed.onnx")
    member = Member.load(tmp_path / "fixed.onnx", "cpu", batch_size=4)
    assert member.batch_size == 32
    assert_close(member.predict({"image": pixels(35)}), expected(pixels(35)))


def test_the_images_are_left_as_they_were(member: Member) -> None:
    images = pixels(6)
    images[2, 0, 0, 0] = np.nan
    kept = images.copy()
    member.predict({"image": images})
    np.testing.assert_array_equal(images, kept)


def test_normalisation_outside_the_graph_is_applied(tmp_path: Path) -> None:
    asinh = Normalisation(name="asinh", parameters={"softening": [2.0]}, in_graph=False)
    toy_models.make_member(tmp_path / "a.onnx", normalisation=asinh)
    images = pixels(6) * 10
    done = normalise.apply("asinh", {"softening": [2.0]}, images, np)
    found = Member.load(tmp_path / "a.onnx", "cpu", batch_size=4).predict({"image": images})
    wanted = toy_models.expected_logits(done, toy_models.make_weights(SHAPE))
    assert_close(found, wanted)


def test_normalisation_inside_the_graph_is_not_applied_again(tmp_path: Path) -> None:
    asinh = Normalisation(name="asinh", parameters={"softening": [2.0]}, in_graph=True)
    toy_models.make_member(tmp_path / "a.onnx", normalisation=asinh)
    images = pixels(3)
    found = Member.load(tmp_path / "a.onnx", "cpu").predict({"image": images})
    wanted = toy_models.expected_logits(images, toy_models.make_weights(SHAPE))
    assert_close(found, wanted)


def test_several_inputs(tmp_path: Path) -> None:
    inputs = [
        ImageInput(name="vis", bands=("vis",), size_pixels=10, pixel_scale_arcsec=0.1),
        ImageInput(name="nisp", bands=("y", "j"), size_pixels=4, pixel_scale_arcsec=0.3),
    ]
    _, weights = toy_models.make_many_input_member(tmp_path / "two.onnx", inputs)
    member = Member.load(tmp_path / "two.onnx", "cpu", batch_size=2)
    rng = np.random.default_rng(3)
    images = {i.name: rng.normal(size=(5, *i.spec().shape)).astype(np.float32) for i in inputs}
    terms = [toy_models.expected_logits(images[name], w) for name, w in weights.items()]
    assert_close(member.predict(images), np.sum(terms, axis=0))
    with pytest.raises(InputError, match="input nisp"):
        member.predict({"vis": images["vis"]})
    with pytest.raises(InputError, match="as many rows"):
        member.predict({**images, "vis": images["vis"][:2]})


def test_photometry_network(tmp_path: Path) -> None:
    features = [Feature(kind="colour", a="g", b="r"), Feature(kind="magnitude", a="i")]
    toy_models.make_photometry(
        tmp_path / "p.onnx", features=features, weights=[2.0, -1.0], bias=0.25
    )
    member = Member.load(tmp_path / "p.onnx", "cpu", batch_size=2)
    values = np.array([[1.0, 2.0], [0.5, 0.0], [np.nan, 0.0]], np.float32)
    np.testing.assert_allclose(member.predict({FEATURES: values}), [0.25, 1.25, np.nan])


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (2, 2, 8, 8), (3, 8, 8)])
def test_wrong_shape_is_refused(member: Member, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="input image"):
        member.predict({"image": np.zeros(shape, np.float32)})


def test_wrong_type_is_refused(member: Member) -> None:
    with pytest.raises(InputError, match="float64"):
        member.predict({"image": np.zeros((2, *SHAPE))})


def test_a_network_that_raises_is_named(tmp_path: Path) -> None:
    toy_models.make_member(tmp_path / "a.onnx", name="picky", poison=True)
    images = pixels(2)
    images[1, 0, 0, 0] = 2 * toy_models.POISON
    with pytest.raises(MemberError, match=r"picky: .*out of data bounds"):
        Member.load(tmp_path / "a.onnx", "cpu").predict({"image": images})


def _recard(path: Path, out: Path, **changes: object) -> Path:
    card = ModelCard.model_validate({**read_card(path).model_dump(), **changes})
    write_card(onnx.load(str(path)), card, out)
    return out


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size_pixels": 9}, "input image"),
        ({"bands": ("g", "r")}, "input image"),
        ({"name": "pixels"}, "inputs"),
    ],
)
def test_card_and_graph_must_agree(
    path: Path, tmp_path: Path, changes: dict[str, object], field: str
) -> None:
    image = {**read_card(path).images[0].model_dump(), **changes}
    other = _recard(path, tmp_path / "other.onnx", images=[image])
    with pytest.raises(InputError, match=field):
        Member.load(other, "cpu")


def test_outputs_must_exist(path: Path, tmp_path: Path) -> None:
    outputs = [Output(name="score", meaning="")]
    other = _recard(path, tmp_path / "other.onnx", outputs=outputs)
    with pytest.raises(InputError, match="outputs"):
        Member.load(other, "cpu")


def test_a_wrong_normalisation_is_refused(path: Path, tmp_path: Path) -> None:
    asinh = Normalisation(name="asinh", parameters={"softening": [1.0, 2.0]})
    other = _recard(path, tmp_path / "other.onnx", normalisation=asinh)
    with pytest.raises(InputError, match=r"card\.normalisation\.softening"):
        Member.load(other, "cpu")


def test_features_have_no_normalisation_of_pixels(tmp_path: Path) -> None:
    asinh = Normalisation(name="asinh", parameters={"softening": [1.0]}, in_graph=False)
    features = [Feature(kind="magnitude", a="g")]
    path = tmp_path / "p.onnx"
    toy_models.make_photometry(path, features=features, weights=[1.0], normalisation=asinh)
    with pytest.raises(InputError, match=r"card\.normalisation: expected none beside features"):
        Member.load(path, "cpu")


def test_what_no_graph_holds_is_not_said_to_be_in_it(path: Path, tmp_path: Path) -> None:
    """Else it would be applied nowhere, and every score be wrong."""
    zscale = Normalisation(name="zscale")
    message = r"card\.normalisation\.in_graph: expected false, as no graph holds zscale, found true"
    with pytest.raises(InputError, match=message):
        Member.load(_recard(path, tmp_path / "all.onnx", normalisation=zscale), "cpu")
    image = read_card(path).images[0].model_copy(update={"normalisation": zscale})
    with pytest.raises(InputError, match=message):
        Member.load(_recard(path, tmp_path / "one.onnx", images=[image]), "cpu")
    outside = zscale.model_copy(update={"in_graph": False})
    Member.load(_recard(path, tmp_path / "outside.onnx", normalisation=outside), "cpu")


def test_a_normalisation_is_for_all_inputs_or_for_each(path: Path, tmp_path: Path) -> None:
    asinh = Normalisation(name="asinh", parameters={"softening": [1.0]})
    image = read_card(path).images[0].model_copy(update={"normalisation": asinh})
    Member.load(_recard(path, tmp_path / "own.onnx", images=[image]), "cpu")
    both = _recard(path, tmp_path / "both.onnx", images=[image], normalisation=asinh)
    with pytest.raises(InputError, match=r"card\.normalisation: .*each its own, found both"):
        Member.load(both, "cpu")
    wrong = asinh.model_copy(update={"parameters": {"softening": [1.0, 2.0]}})
    image = image.model_copy(update={"normalisation": wrong})
    other = _recard(path, tmp_path / "other.onnx", images=[image])
    with pytest.raises(InputError, match=r"card\.normalisation\.softening"):
        Member.load(other, "cpu")


def test_a_normalisation_of_one_input_is_in_the_graph() -> None:
    block = {"name": "asinh", "parameters": {"softening": [1.0]}, "in_graph": False}
    image = {"name": "vis", "bands": ["VIS"], "size_pixels": 8, "pixel_scale_arcsec": 0.1}
    with pytest.raises(ValueError, match="normalisation of one input to be in the graph"):
        ImageInput.model_validate({**image, "normalisation": block})


def test_weights_outside_the_file_are_refused(path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    onnx.save_model(
        model,
        str(tmp_path / "a.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    with pytest.raises(InputError, match="inside the file"):
        Member.load(tmp_path / "a.onnx", "cpu")


def test_an_operator_that_no_one_knows_is_refused(path: Path, tmp_path: Path) -> None:
    model = onnx.load(str(path))
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    model.graph.node[0].domain = "elsewhere"
    onnx.save(model, str(tmp_path / "a.onnx"))
    with pytest.raises(InputError, match="Flatten of domain 'elsewhere'"):
        Member.load(tmp_path / "a.onnx", "cpu")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "openvino", "openvino_bf16"])
def test_a_provider_that_is_not_there_is_an_error(path: Path, provider: ProviderName) -> None:
    if providers.RUNTIME_NAMES[provider] in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    with pytest.raises(ProviderError, match=provider):
        Member.load(path, provider)


def test_a_silent_fall_back_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case that ONNX Runtime makes: CUDA asked for, a CPU session given without a word."""
    monkeypatch.setattr(providers, "_require", lambda _: None)
    monkeypatch.setattr(providers, "_provider_list", lambda *_: [providers.RUNTIME_NAMES["cpu"]])
    with pytest.raises(ProviderError, match="gave CPUExecutionProvider"):
        Member.load(path, "cuda")


def test_auto_without_a_device_is_the_cpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "cuda_devices", lambda: 0)
    assert Member.load(path, "auto").provider == "cpu"

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.contracts import InputSpec, member_column
from lenspipe.errors import InputError, MemberError
from lenspipe.models import ensemble as ensemble_module
from lenspipe.models import normalise
from lenspipe.models.card import Calibration, Normalisation, Threshold
from lenspipe.models.ensemble import (
    Ensemble,
    cascaded_score,
    describe_ensemble,
    load_ensemble,
)
from lenspipe.models.ensemble_file import Cascade, merge_inputs
from lenspipe.models.session import Member
from tests import toy_models

SHAPE = (3, 8, 8)


def pixels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, *SHAPE)).astype(np.float32)


def member_logits(images: np.ndarray, members: int) -> np.ndarray:
    weights = [toy_models.make_weights(SHAPE, seed) for seed in range(members)]
    return np.stack([toy_models.expected_logits(images, w) for w in weights], axis=1)


def load(path: Path, batch_size: int = 4) -> Ensemble:
    return load_ensemble(str(path), provider="cpu", batch_size=batch_size)


def assert_close(found: np.ndarray, wanted: np.ndarray) -> None:
    """Float32 sums of 192 products in another order."""
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_scores_are_the_blend_of_the_members(tmp_path: Path) -> None:
    blender = {"kind": "weighted_mean", "weights": [1.0, 3.0, 0.5]}
    ensemble = load(toy_models.make_ensemble(tmp_path, members=3, blender=blender))
    images = pixels(11)
    found = ensemble.score({"image": images})
    wanted = member_logits(images, 3)
    assert ensemble.member_names == ("toy-a", "toy-b", "toy-c")
    assert_close(found.members, wanted)
    assert_close(found.score, np.average(wanted, axis=1, weights=[1.0, 3.0, 0.5]))
    assert_close(found.probability, 1.0 / (1.0 + np.exp(-found.score)))
    assert found.failed == {}


def test_no_rows(tmp_path: Path) -> None:
    found = load(toy_models.make_ensemble(tmp_path)).score({"image": pixels(0)})
    assert found.members.shape == (0, 2)
    assert found.score.shape == found.probability.shape == (0,)


def test_a_nan_stamp_gives_nan_alone(tmp_path: Path) -> None:
    images = pixels(6)
    images[3, 0, 0, 0] = np.nan
    found = load(toy_models.make_ensemble(tmp_path)).score({"image": images})
    for values in (found.score, found.probability, found.members[:, 1]):
        assert np.flatnonzero(np.isnan(values)).tolist() == [3]
    assert found.failed == {}


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 12), max_size=13), st.integers(1, 6))
def test_rows_at_fault_are_isolated(
    poisoned_ensemble: Path, rows: set[int], batch_size: int
) -> None:
    images = pixels(13)
    wanted = member_logits(images, 2).mean(axis=1)
    images[sorted(rows), 0, 0, 0] = 2 * toy_models.POISON
    found = load(poisoned_ensemble, batch_size).score({"image": images})
    good = sorted(set(range(13)) - rows)
    assert set(found.failed) == rows
    assert np.isnan(found.score[sorted(rows)]).all()
    assert_close(found.score[good], wanted[good])


@pytest.fixture(scope="module")
def poisoned_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_models.make_ensemble(tmp_path_factory.mktemp("poison"), poison=True)


def test_a_member_that_always_raises_is_no_fault_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = load(toy_models.make_ensemble(tmp_path))

    def broken(slot: int) -> np.ndarray:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(ensemble.members[1]._feed, "run", broken)
    with pytest.raises(MemberError, match="toy-b: the device is gone"):
        ensemble.score({"image": pixels(3)})


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_models.make_ensemble(
        tmp_path_factory.mktemp("cascade"),
        members=3,
        cascade={"first": "toy-b", "below": 0.3},
    )


def test_cascade_equals_the_full_ensemble_where_rows_pass(cascade: Path) -> None:
    """Same members on the same rows in other batches: equal within float32 roundings."""
    ensemble = load(cascade)
    images = pixels(40)
    full = ensemble.score({"image": images}, full=True)
    found = ensemble.score({"image": images})
    passed = full.members[:, 1] >= 0.3
    assert 5 < passed.sum() < 35
    assert_close(found.score[passed], full.score[passed])
    assert_close(found.members[:, 1], full.members[:, 1])
    assert np.isnan(found.members[~passed][:, [0, 2]]).all()
    assert np.isfinite(found.score).all()


def test_cascade_ranks_no_stopped_row_above_one_that_passed(cascade: Path) -> None:
    found = load(cascade).score({"image": pixels(60) * 20})
    passed = found.members[:, 1] >= 0.3
    assert found.score[~passed].max() <= found.score[passed].min()
    order = np.argsort(found.members[~passed, 1])
    assert (np.diff(found.score[~passed][order]) >= 0).all()


def test_cascade_asks_the_others_only_where_it_must(
    cascade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch that reaches a session is looked at: the survivors of all batches of the first
    member, gathered in full ones, the last padded with zeros and never with rows of before."""
    ensemble = load(cascade)
    fed: dict[str, list[np.ndarray]] = {name: [] for name in ensemble.member_names}

    def watch(member: Member) -> None:
        stage = member._feed.stage

        def watched(slot: int, batch: dict[str, np.ndarray]) -> None:
            fed[member.name].append(batch["image"].copy())
            stage(slot, batch)

        monkeypatch.setattr(member._feed, "stage", watched)

    for member in ensemble.members:
        watch(member)
    images = pixels(42)
    found = ensemble.score({"image": images})
    passed = found.members[:, 1] >= 0.3
    count = int(passed.sum())
    assert 4 < count < 38
    assert count % 4
    assert len(fed["toy-b"]) == 11
    for name in ("toy-a", "toy-c"):
        rows = np.concatenate(fed[name])
        assert len(fed[name]) == -(-count // 4)
        np.testing.assert_array_equal(rows[:count], images[passed])
        assert not rows[count:].any()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)), min_size=1),
    st.floats(-50, 50, width=32),
    st.floats(-50, 0, width=32),
)
def test_cascaded_score_by_its_rule(
    logits: Sequence[tuple[float, float]], below: float, floor: float
) -> None:
    first, blended = np.asarray(logits, np.float32).T
    asked = first >= np.float32(below)
    rule = Cascade(first="a", below=below, floor=floor)
    score = cascaded_score(first, blended, asked, rule)
    assert (score[asked] >= np.float32(floor)).all()
    assert (score[~asked] <= np.float32(floor)).all()
    order = np.argsort(first[~asked])
    assert (np.diff(score[~asked][order]) >= 0).all()
    higher = asked & (blended > floor)
    np.testing.assert_array_equal(score[higher], blended[higher])


def spec(name: str, bands: tuple[str, ...] = ("g", "r"), size: int = 40) -> InputSpec:
    return InputSpec(name, bands, size, 0.25)


def test_equal_inputs_are_read_once_and_others_told_apart() -> None:
    union, mappings = merge_inputs(
        [
            [spec("image")],
            [spec("pixels")],
            [spec("image", size=60)],
            [spec("image", bands=("r", "g")), spec("wide", size=60)],
        ]
    )
    assert union == (
        spec("image"),
        spec("image_2", size=60),
        spec("image_3", bands=("r", "g")),
    )
    assert mappings == [
        {"image": "image"},
        {"pixels": "image"},
        {"image": "image_2"},
        {"image": "image_3", "wide": "image_2"},
    ]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("image", "image"),
        ("euclid-nisp_2", "euclid-nisp_2"),
        ("input_1:0", "input_1_0"),
        ("model/input.1:0", "model_input_1_0"),
        ("zarr.json", "zarr_json"),
        ("__reserved", "reserved"),
        (".", "input"),
        ("../..", "input"),
        ("Ω\n", "input"),
    ],
)
def test_inputs_have_plain_names(name: str, plain: str) -> None:
    union, [mapping] = merge_inputs([[spec(name)]])
    assert union == (spec(plain),)
    assert mapping == {name: plain}


def test_names_that_become_equal_are_told_apart() -> None:
    names = ["a/b", "a_b", "a/B", "a/b/zarr.json"]
    union, [mapping] = merge_inputs([[spec(name, size=40 + k) for k, name in enumerate(names)]])
    assert list(mapping.values()) == ["a_b", "a_b_2", "a_B_3", "a_b_zarr_json"]
    assert [s.size_pixels for s in union] == [40, 41, 42, 43]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=200), min_size=1, max_size=6, unique=True))
def test_names_of_inputs_may_be_files(names: list[str]) -> None:
    union, _ = merge_inputs([[spec(name, size=k + 1) for k, name in enumerate(names)]])
    found = [one.name for one in union]
    assert all(re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9_-]{0,205}", name) for name in found)
    assert len({name.lower() for name in found}) == len(names)


@pytest.mark.parametrize(
    ("on_cpu", "message"),
    [
        ({"toy-a": "toy-b.onnx", "toy-b": "toy-a.onnx"}, r"on_cpu\.toy-a: .* member toy-b$"),
        ({"toy-b": "toy-b.onnx"}, r"on_cpu\.toy-b: .* member toy-b$"),
        ({"toy-b": "copy.onnx"}, r"on_cpu\.toy-b: .* member toy-a$"),
        ({"toy-b": "named.onnx"}, r"on_cpu\.toy-b: .* member toy-a$"),
        ({"toy-a": "int8.onnx", "toy-b": "int8.onnx"}, r"on_cpu\.toy-b: .* the variant of toy-a$"),
    ],
)
def test_no_member_stands_in_for_another(
    tmp_path: Path, on_cpu: dict[str, str], message: str
) -> None:
    path = change(toy_models.make_ensemble(tmp_path), on_cpu=on_cpu)
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "toy-a.onnx").read_bytes())
    toy_models.make_member(tmp_path / "named.onnx", name="toy-a", seed=8)
    toy_models.make_member(tmp_path / "int8.onnx", name="toy-a-int8", seed=9)
    with pytest.raises(InputError, match=message):
        describe_ensemble(str(path))


def test_networks_keep_the_names_of_their_inputs(tmp_path: Path) -> None:
    toy_models.make_member(tmp_path / "a.onnx", input_name="model/x:0")
    ensemble = load(tmp_path / "a.onnx")
    images = pixels(5)
    assert_close(ensemble.score({"model_x_0": images}).score, member_logits(images, 1)[:, 0])


def test_members_with_other_bands_see_their_own_pixels(tmp_path: Path) -> None:
    toy_models.make_member(tmp_path / "a.onnx", seed=0)
    toy_models.make_member(tmp_path / "b.onnx", seed=1, bands=("r", "i"), size=6)
    path = tmp_path / "both.yaml"
    path.write_text("name: both\nmembers: [a.onnx, b.onnx]\n", encoding="utf-8")
    ensemble = load(path)
    assert [i.name for i in ensemble.inputs] == ["image", "image_2"]
    images = {"image": pixels(5), "image_2": np.ones((5, 2, 6, 6), np.float32)}
    found = ensemble.score(images)
    assert_close(found.members[:, 0], member_logits(images["image"], 1)[:, 0])
    wanted = toy_models.expected_logits(images["image_2"], toy_models.make_weights((2, 6, 6), 1))
    assert_close(found.members[:, 1], wanted)
    with pytest.raises(InputError, match="input image_2"):
        ensemble.score({"image": images["image"]})


def test_description_is_that_of_the_loaded_ensemble(tmp_path: Path) -> None:
    path = toy_models.make_ensemble(tmp_path)
    described, loaded = describe_ensemble("toy.yaml", base=tmp_path), load(path)
    assert described.model_hash == loaded.model_hash
    assert described.inputs == loaded.inputs
    assert described.member_names == loaded.member_names
    assert len(described.model_hash) == 16
    int(described.model_hash, 16)


def change(path: Path, **keys: Any) -> Path:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**content, **keys}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("keys", "same"),
    [
        ({"description": "said otherwise"}, True),
        ({"blender": {"kind": "weighted_mean", "weights": [1.0, 2.0]}}, False),
        ({"calibration": {"slope": 2.0}}, False),
        ({"cascade": {"first": "toy-a", "below": 0.0}}, False),
        ({"members": ["toy-b.onnx", "toy-a.onnx"]}, False),
    ],
)
def test_hash_follows_what_a_result_depends_on(
    tmp_path: Path, keys: dict[str, Any], same: bool
) -> None:
    path = toy_models.make_ensemble(tmp_path)
    before = describe_ensemble(str(path)).model_hash
    assert (describe_ensemble(str(change(path, **keys))).model_hash == before) is same


def test_hash_follows_the_weights(tmp_path: Path) -> None:
    path = toy_models.make_ensemble(tmp_path)
    before = describe_ensemble(str(path)).model_hash
    toy_models.make_member(tmp_path / "toy-a.onnx", seed=9)
    assert describe_ensemble(str(path)).model_hash != before


def test_one_network_is_an_ensemble_of_one(tmp_path: Path) -> None:
    toy_models.make_member(
        tmp_path / "one.onnx",
        calibration=Calibration(slope=2.0),
        thresholds=[Threshold(fpr=0.001, score=3.5, n_negatives=5000)],
    )
    ensemble = load(tmp_path / "one.onnx")
    images = pixels(3)
    found = ensemble.score({"image": images})
    assert_close(found.score, member_logits(images, 1)[:, 0])
    assert_close(found.probability, 1.0 / (1.0 + np.exp(-2.0 * found.score)))
    assert ensemble.threshold(0.001).score == 3.5


def test_threshold_is_a_listed_one_or_none(tmp_path: Path) -> None:
    ensemble = load(toy_models.make_ensemble(tmp_path))
    assert ensemble.threshold(1e-2).n_negatives == 10_000
    with pytest.raises(InputError, match=r"one of toy's: 0.01, found 0\.001"):
        ensemble.threshold(1e-3)


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"blend": "mean"}, "blend"),
        ({"blender": {"kind": "median"}}, "blender.kind"),
        ({"blender": {"kind": "weighted_mean", "weights": [1.0]}}, "blender.weights"),
        ({"members": []}, "members"),
        ({"members": ["toy-a.onnx", "toy-a.onnx"]}, "members"),
        ({"members": ["nowhere.onnx"]}, "members"),
        ({"members": ["nowhere"]}, "members"),
        ({"cascade": {"first": "toy-z", "below": 0.0}}, "cascade.first"),
        ({"cascade": {"first": "toy-a", "below": 0.0, "floor": 1.5}}, "thresholds"),
        ({"calibration": {"slope": -1.0}}, "calibration.slope"),
    ],
)
def test_refused(tmp_path: Path, keys: dict[str, Any], field: str) -> None:
    path = change(toy_models.make_ensemble(tmp_path), **keys)
    with pytest.raises(InputError) as refused:
        describe_ensemble(str(path))
    assert field in refused.value.field
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("other", ["toy_a", "toy.a", "Toy-A", "toy-a"])
def test_members_of_one_column_are_refused(tmp_path: Path, other: str) -> None:
    for name, seed in (("toy-a", 0), ("toy-b", 1), (other, 2)):
        toy_models.make_member(tmp_path / f"{seed}.onnx", name=name, seed=seed)
    path = tmp_path / "toy.yaml"
    path.write_text("name: toy\nmembers: [0.onnx, 1.onnx, 2.onnx]\n", encoding="utf-8")
    with pytest.raises(InputError, match=f"found toy-a and {other}: score_") as refused:
        describe_ensemble(str(path))
    assert refused.value.expected == "names whose columns differ, capitals apart"


@pytest.mark.parametrize("on_cpu", [False, True])
@pytest.mark.parametrize(
    ("name", "message"), [("nope", "name: expected one of"), ("zscale", "in_graph: expected false")]
)
def test_a_wrong_normalisation_shows_before_a_session(
    tmp_path: Path, name: str, message: str, on_cpu: bool
) -> None:
    path = toy_models.make_ensemble(tmp_path)
    wrong = Normalisation(name=name)
    toy_models.make_member(tmp_path / "other.onnx", name="wrong", seed=7, normalisation=wrong)
    keys: dict[str, Any] = {"on_cpu": {"toy-b": "other.onnx"}} if on_cpu else {}
    change(path, **(keys or {"members": ["toy-a.onnx", "other.onnx"]}))
    with pytest.raises(InputError, match=rf"other\.onnx: card\.normalisation\.{message}"):
        describe_ensemble(str(path))


@pytest.mark.parametrize("name", ["ps1-resnet", "a.b", "0-9_Z..-"])
def test_sql_takes_a_members_column_without_quotes(name: str) -> None:
    column = member_column(name)
    scores = duckdb.arrow(pa.table({column: [2.5, 1.0]}))
    assert scores.aggregate(f"max({column})").fetchall() == [(2.5,)]


def test_shipped_members_keep_their_columns() -> None:
    columns = [member_column(name) for name in describe_ensemble("ps1-gri").member_names]
    names = ("mined", "group", "group_deep", "group_rings")
    assert columns == [f"score_ps1_{name}" for name in names]


def test_a_photometry_network_is_no_member(tmp_path: Path) -> None:
    from lenspipe.models.card import Feature

    features = [Feature(kind="magnitude", a="g")]
    toy_models.make_photometry(tmp_path / "p.onnx", features=features, weights=[1.0])
    with pytest.raises(InputError, match="networks that take images"):
        describe_ensemble(str(tmp_path / "p.onnx"))


def test_what_was_prepared_scores_as_it_is(tmp_path: Path, cascade: Path) -> None:
    """A member whose pixels are normalised outside of its graph, beside one whose are not; members
    that a cascade asks later are left for later."""
    zscale = Normalisation(name="zscale", in_graph=False)
    toy_models.make_member(tmp_path / "a.onnx", normalisation=zscale, seed=1)
    toy_models.make_member(tmp_path / "b.onnx", seed=2)
    spec = {"members": ["a.onnx", "b.onnx"], "blender": {"kind": "mean"}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"name": "two", **spec}))
    images = pixels(150, seed=3)
    images[70, 1, 2, 3] = np.nan
    ensemble = load(tmp_path / "two.yaml", batch_size=16)
    prepared = ensemble.prepare({"image": images})
    first, second = prepared.normalised
    assert first is not None
    assert second is not None
    assert second["image"] is images  # nothing to be done, nothing copied
    assert np.isnan(first["image"][70]).all()
    rest = np.delete(np.arange(len(images)), 70)
    wanted = normalise.apply("zscale", {}, images[rest], np)
    np.testing.assert_array_equal(first["image"][rest], wanted)
    found = ensemble.score(prepared)
    assert_close(found.members, ensemble.score({"image": images}).members)
    assert_close(found.members[rest, 0], toy_models.expected_logits(wanted, _weights(1)))
    later = load(cascade)
    assert [made is None for made in later.prepare({"image": images}).normalised].count(False) == 1
    assert_close(
        later.score(later.prepare({"image": images})).score, later.score({"image": images}).score
    )


def test_members_that_want_the_same_share_it_and_no_more_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zscale = Normalisation(name="zscale", in_graph=False)
    for seed, name in enumerate("abc"):
        toy_models.make_member(tmp_path / f"{name}.onnx", normalisation=zscale, seed=seed)
    names = [f"{name}.onnx" for name in "abc"]
    content = {"name": "three", "members": names, "blender": {"kind": "mean"}}
    (tmp_path / "three.yaml").write_text(yaml.safe_dump(content))
    images = {"image": pixels(37, seed=4)}
    ensemble = load(tmp_path / "three.yaml", batch_size=8)
    wanted = ensemble.score(images)
    first, second, third = ensemble.prepare(images).normalised
    assert first is second is third is not None
    monkeypatch.setattr(ensemble_module, "PREPARED_BYTES", 1)
    monkeypatch.setattr(ensemble_module, "SPAN_ROWS", 16)
    prepared = ensemble.prepare(images)
    assert prepared.normalised == (None, None, None)
    np.testing.assert_array_equal(ensemble.score(prepared).members, wanted.members)


def _weights(seed: int) -> np.ndarray:
    return toy_models.make_weights(SHAPE, seed)

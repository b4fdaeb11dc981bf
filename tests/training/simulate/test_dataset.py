from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lenspipe.errors import InputError
from training.simulate import real
from training.simulate.dataset import Generator, make_dataset, parse_recipe, simulate, spoil

SMALL = {"n": 70, "seed": 12, "size_pixels": 32}


def contents(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[:]} if hasattr(item, "shape") else {})
        )
    return found


def test_a_set_is_the_same_whatever_the_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        simulate(SMALL, tmp_path / f"{workers}.h5", workers)
    one, two = contents(tmp_path / "1.h5"), contents(tmp_path / "2.h5")
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name], err_msg=name)


def test_another_seed_is_another_set() -> None:
    one, two = (Generator.of(parse_recipe({"n": 1, "seed": s})) for s in (1, 2))
    assert not np.array_equal(one.example(0).image, two.example(0).image)


def test_a_set_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sets" / "train.h5"
    make_dataset(parse_recipe({**SMALL, "n": 40}), path)
    with h5py.File(path) as file:
        assert file["images"].shape == (40, 3, 32, 32)
        assert file["images"].dtype == np.float32
        assert np.isfinite(file["images"][:]).all()
        assert list(file.attrs["bands"]) == ["g", "r", "i"]
        assert file.attrs["zero_point_mag"] == 25.0
        assert file.attrs["pixel_scale_arcsec"] == 0.25
        assert "lens_fraction: 0.5" in file.attrs["recipe"]
        lens = file["label"][:] == 1
        kind = file["kind"].asstr()[:]
        assert set(kind[lens]) == {"lens"}
        assert "lens" not in set(kind[~lens])
        assert np.isfinite(file["truth/theta_e_arcsec"][:][lens]).all()
        assert np.isnan(file["truth/theta_e_arcsec"][:][~lens]).all()
        assert (file["truth/arc_snr_g"][:][lens] >= 10).all()
        assert file["object_id"][:].tolist() == list(range(40))
    assert [p.name for p in path.parent.iterdir()] == ["train.h5"]


def test_the_mix_is_that_of_the_recipe() -> None:
    recipe = {"n": 1, "seed": 5, "lens_fraction": 0.0, "negatives": {"star": 3.0, "edge_on": 1.0}}
    made = Generator.of(parse_recipe(recipe))
    kinds = [made.example(k).kind for k in range(200)]
    assert set(kinds) == {"star", "edge_on"}
    assert np.mean([kind == "star" for kind in kinds]) == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lens_fractions": 0.5}, "simulate.lens_fractions"),
        ({"n": 0}, "simulate.n"),
        ({"negatives": {"dragon": 1.0}}, "simulate.negatives: expected kinds out of .*dragon"),
        ({"negatives": {"star": 0.0}}, "simulate.negatives"),
        ({"instrument": "hubble"}, "instrument"),
        ({"snr_band": "y"}, "snr_band"),
        ({"hosts": "all"}, "simulate.hosts"),
    ],
)
def test_a_wrong_recipe_is_refused_by_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Generator.of(parse_recipe({**SMALL, **change}))


def test_lost_pixels_are_filled_with_the_bands_median() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        image = rng.normal(0, 1, (3, 48, 48)).astype(np.float32)
        before = image.copy()
        spoil(rng, image)
        changed = image != before
        assert changed.any()
        for band, was, gone in zip(image, before, changed, strict=True):
            if gone.any():
                assert 48 <= gone.sum() <= 48 * 10
                np.testing.assert_array_equal(np.unique(band[gone]), [np.median(was[~gone])])


@pytest.mark.data
def test_held_out_hosts_never_appear_in_a_training_set(data: Path) -> None:
    recipe = {
        "n": 60,
        "seed": 2,
        "data": str(data),
        "painted_fraction": 1.0,
        "real_negative_fraction": 1.0,
    }
    made = Generator.of(parse_recipe(recipe))
    examples = [made.example(k) for k in range(60)]
    names = {e.host for e in examples if e.host}
    assert len(names) > 15
    assert all(real.split_of(name) == "training" for name in names)
    assert {"painted_lens", "real_galaxy", "real_neighbour"} <= {e.kind for e in examples}
    assert all(np.isfinite(e.image).all() for e in examples)

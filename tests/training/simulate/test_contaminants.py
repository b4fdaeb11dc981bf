from __future__ import annotations

import numpy as np
import pytest

from lenspipe.errors import InputError
from training.simulate import contaminants, priors
from training.simulate.instrument import load_instrument
from training.simulate.scene import flux, render

PS1 = load_instrument("ps1")


@pytest.mark.parametrize("kind", contaminants.names())
def test_every_kind_is_finite_and_never_twice_the_same(kind: str) -> None:
    rng = np.random.default_rng(8)
    scenes = [contaminants.draw(rng, kind, PS1) for _ in range(6)]
    images = [render(s, PS1.bands, 48, 0.25, 25.0) for s in scenes]
    assert all(s.kind == kind and np.isfinite(list(s.magnitudes.values())).all() for s in scenes)
    assert all(np.isfinite(image).all() and image.min() >= 0 for image in images)
    assert all(s.components or s.points for s in scenes)
    assert len({round(s.magnitudes["i"], 6) for s in scenes}) == 6


@pytest.mark.parametrize("kind", ["spiral", "ring", "merger", "edge_on"])
def test_magnitudes_are_those_of_the_light(kind: str) -> None:
    rng = np.random.default_rng(9)
    for _ in range(4):
        scene = contaminants.draw(rng, kind, PS1)
        image = render(scene, PS1.bands, 321, 0.25, 25.0)
        expected = [flux(scene.magnitudes[band], 25.0) for band in PS1.bands]
        np.testing.assert_allclose(image.sum(axis=(1, 2)), expected, rtol=0.04)


def test_rings_are_bluer_than_their_cores() -> None:
    rng = np.random.default_rng(10)
    for _ in range(20):
        scene = contaminants.draw(rng, "ring", PS1)
        light = {part.profile: part.magnitudes for part in scene.components}
        core = scene.components[-1].magnitudes
        assert light["RING"]["g"] - light["RING"]["i"] < core["g"] - core["i"]


def test_companions_are_no_part_of_the_catalogues_object() -> None:
    scene = contaminants.draw(np.random.default_rng(12), "companion", PS1)
    everything = priors.combined([part.magnitudes for part in scene.components])
    assert everything["g"] < scene.magnitudes["g"]


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InputError, match="dragon"):
        contaminants.draw(np.random.default_rng(0), "dragon", PS1)


def test_a_quasar_pairs_images_differ_in_colour_and_stand_on_either_side() -> None:
    rng = np.random.default_rng(13)
    scenes = [contaminants.draw(rng, "quasar_pair", PS1) for _ in range(20)]
    assert {bool(scene.components) for scene in scenes} == {True, False}
    for scene in scenes:
        one, two = scene.points
        assert one.x_arcsec * two.x_arcsec + one.y_arcsec * two.y_arcsec < 0
        colours = [p.magnitudes["g"] - p.magnitudes["i"] for p in (one, two)]
        assert colours[0] != colours[1]
        assert max(colours) < 1.5


def test_a_star_pairs_light_is_that_of_both() -> None:
    scene = contaminants.draw(np.random.default_rng(14), "star_pair", PS1)
    both = priors.combined([point.magnitudes for point in scene.points])
    assert len(scene.points) == 2
    assert scene.magnitudes == pytest.approx(both)

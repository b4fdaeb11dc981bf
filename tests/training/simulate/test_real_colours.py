"""Colours of real faint galaxies, and sources that have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from training.simulate.instrument import load_instrument
from training.simulate.real import Split
from training.simulate.real_colours import load_colours
from training.simulate.source import SourceStamp, draw_source

FILTERS = load_instrument("ps1").filters
FLUX = np.array([1.0, 1.5, 2.0])


def write_blend(path: Path, peaks: list[tuple[float, float]], masked: bool = False) -> None:
    y, x = np.mgrid[:60, :60]
    image = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8.0) for px, py in peaks)
    bands = np.concatenate([FLUX, [2.0, 2.0]])[:, None, None] * image
    weights = np.full(bands.shape, 1e4, np.float32)
    if masked:
        weights[1, 30, 30] = 0.0
    np.savez(path, images=bands.astype(np.float32), weights=weights, peaks=np.array(peaks))


def test_colours_are_those_of_the_galaxies_that_stand_alone(tmp_path: Path) -> None:
    folder = tmp_path / "hsc_cosmos/blends"
    folder.mkdir(parents=True)
    write_blend(folder / "1.npz", [(15.0, 15.0), (45.0, 40.0)])
    write_blend(folder / "2.npz", [(30.0, 30.0), (34.0, 30.0)])
    write_blend(folder / "5.npz", [(30.0, 30.0)], masked=True)
    write_blend(folder / "6.npz", [(30.0, 30.0)])  # the only one of its side
    expected = 2.5 * np.log10(FLUX[1:] / FLUX[:-1])
    np.testing.assert_allclose(load_colours(tmp_path), [expected, expected], atol=1e-3)
    np.testing.assert_allclose(load_colours(tmp_path, "held_out"), [expected], atol=1e-3)
    assert load_colours(None).shape == (0, 2)


@pytest.mark.parametrize("colour", [(0.1, 0.05), (0.7, 0.3)])
def test_a_real_source_has_a_real_colour(colour: tuple[float, float]) -> None:
    stamp = SourceStamp(np.ones((9, 9), np.float32), 3.0, np.array([colour]))
    rng = np.random.default_rng(4)
    drawn = [draw_source(rng, FILTERS, (0.0, 0.0), 1.5, 24.0, [stamp]) for _ in range(20)]
    real = [parts[0].magnitudes for parts in drawn if parts[0].profile == "STAMP"]
    assert 3 <= len(real) <= 17
    for found in real:
        assert found["r"] == pytest.approx(24.0)
        assert (found["g"] - found["r"], found["r"] - found["i"]) == pytest.approx(colour)
    other = draw_source(
        np.random.default_rng(4), FILTERS, (0.0, 0.0), 1.5, 24.0, [replace(stamp, colours=None)]
    )
    assert other[0].magnitudes["r"] == pytest.approx(24.0, abs=2.0)


@pytest.mark.data
def test_faint_galaxies_of_the_blends_are_blue(data: Path) -> None:
    sides = [load_colours(data, side) for side in get_args(Split)]
    assert [len(colours) for colours in sides] == [160, 68, 59]  # as the docs say
    found = np.concatenate(sides)
    assert 0.3 < np.median(found[:, 0]) < 0.5
    assert 0.2 < np.median(found[:, 1]) < 0.4

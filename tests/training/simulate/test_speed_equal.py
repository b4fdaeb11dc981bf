"""Our renderer gives what lenstronomy's `SimAPI`, built per image and band, gives.

Equal means: of every band's noiseless image, no pixel differs by more than 1e-5 of the peak where
both sample alike. How much faster it is, `benchmarks/simulate_speed.py` measures.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulate_speed import draw_examples, largest_difference, measure, naive, ours
from training.simulate.instrument import instrument_names, load_instrument
from training.simulate.scene import ADAPTIVE, Sampling

PS1 = load_instrument("ps1")
# lenstronomy's convolution still calls NumPy as NumPy 1 had it.
pytestmark = pytest.mark.filterwarnings("ignore:`axes` should not be:DeprecationWarning")


@pytest.mark.parametrize("samples", [1, 3])
def test_images_are_those_of_simapi_within_1e_5_of_the_peak(samples: int) -> None:
    examples = draw_examples(PS1, 4, 32, seed=8)
    expected = np.stack([naive(e, PS1, 32, samples) for e in examples])
    found = np.stack([ours(e, PS1, 32, Sampling.uniform(samples)) for e in examples])
    assert found.shape == expected.shape == (4, len(PS1.bands), 32, 32)
    assert largest_difference(found, expected) < 1e-5


@pytest.mark.parametrize("name", instrument_names())
def test_every_instrument_can_be_measured(name: str) -> None:
    instrument = load_instrument(name)
    found = measure(instrument, lenses=1, rounds=1, samples=1, size_pixels=48)
    assert found["bands"] == len(instrument.bands)
    assert found["same_against_naive"] < 1e-5


def test_adaptive_sampling_is_as_near_to_the_truth_as_five_samples_everywhere() -> None:
    examples = draw_examples(PS1, 3, 32, seed=9)
    finest = np.stack([naive(e, PS1, 32, 15) for e in examples])
    uniform, adaptive = (
        largest_difference(np.stack([ours(e, PS1, 32, s) for e in examples]), finest)
        for s in (Sampling.uniform(5), ADAPTIVE)
    )
    assert adaptive < 1.2 * uniform
    assert adaptive < 0.03

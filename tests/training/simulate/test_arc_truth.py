from __future__ import annotations

import numpy as np

from training.simulate.arc_truth import area, contrast, lens_peak


def stamp(peak: float, at: tuple[int, int]) -> np.ndarray:
    image = np.zeros((2, 24, 24), dtype=np.float32)
    image[0, at[1], at[0]], image[1, at[1], at[0]] = peak, 2 * peak
    return image


def test_a_neighbour_is_not_the_lens() -> None:
    light = stamp(5.0, (12, 12)) + stamp(50.0, (3, 3))
    np.testing.assert_allclose(lens_peak(light, (12.2, 11.9), 0.25), [5.0, 10.0])
    np.testing.assert_allclose(contrast(stamp(1.0, (18, 12)), light, (12.2, 11.9), 0.25), 0.2)


def test_area_counts_pixels_above_twice_the_noise() -> None:
    arcs = np.zeros((10, 20), dtype=np.float32)
    arcs[2, :8] = 0.21
    arcs[4, :8] = 0.19
    found = area(arcs, 0.1, 0.5)
    assert found == {"arc_area_arcsec2": 2.0, "arc_area_2sigma_fraction": 0.04}

"""A toy test set in memory."""

from __future__ import annotations

import numpy as np
import pytest

from training.data import Examples


@pytest.fixture
def test_set() -> Examples:
    """600 lenses and 1400 others of two kinds; completeness rises with Einstein radius."""
    draw = np.random.default_rng(3)
    labels = (np.arange(2000) < 600).astype(np.uint8)
    none = np.where(labels == 1, 1.0, np.nan)
    return Examples(
        inputs={"features": draw.normal(size=(2000, 2)).astype(np.float32)},
        labels=labels,
        kinds=np.where(labels == 1, "lens", np.where(np.arange(2000) < 800, "spiral", "star")),
        name="toy",
        sha256="0" * 64,
        truth={
            "theta_e_arcsec": none * draw.uniform(0.5, 3.0, 2000),
            "source_mag_r": none * draw.uniform(22, 26, 2000),
            "arc_snr_g": none * 10 ** draw.uniform(1, 2.5, 2000),
            "arc_area_2sigma_fraction": none * draw.uniform(0.0, 0.2, 2000),
        },
        rests_on="5 real host galaxies",
    )


@pytest.fixture
def scores(test_set: Examples) -> np.ndarray:
    """Lenses score by their Einstein radius; spirals a little above stars."""
    draw = np.random.default_rng(4)
    lens = 2.0 * np.nan_to_num(test_set.truth["theta_e_arcsec"])
    spiral = 0.8 * (test_set.kinds == "spiral")
    return np.asarray(draw.normal(size=2000) + lens + spiral, np.float32)

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation import reasons
from training.evaluation.measures import measure
from training.simulate.instrument import load_instrument
from training.simulate.observe import sky_noise

PS1 = load_instrument("ps1")
BANDS = ("g", "r", "i")


def galaxy(fluxes: tuple[float, float, float], width: float = 3.0) -> np.ndarray:
    """A round Gaussian in pixel 24, fluxes within it, on noise of 0.01."""
    y, x = np.indices((48, 48)) - 24
    light = np.exp(-(x**2 + y**2) / (2 * width**2)) / (2 * np.pi * width**2)
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 48, 48))
    return np.asarray(noise + np.asarray(fluxes)[:, None, None] * light, np.float32)


def test_magnitudes_colours_and_sizes_of_a_gaussian() -> None:
    """Within 6 pixels, two sigma, lies 1 - exp(-2) of the flux; half of it within 1.177 sigma."""
    found = measure(galaxy((100.0, 200.0, 400.0)), BANDS, 0.25, 25.0)
    assert found["mag_g"] == pytest.approx(25 - 2.5 * np.log10(100 * (1 - np.exp(-2))), abs=0.05)
    assert found["g-r"] == pytest.approx(2.5 * np.log10(2), abs=0.02)
    assert found["r50_arcsec"] == pytest.approx(1.177 * 3 * 0.25, rel=0.08)
    assert found["ellipticity"] < 0.02
    assert found["asymmetry"] < 0.05
    assert found["ring_blue"] == pytest.approx(0.0, abs=0.05)
    assert found["neighbours"] == 0
    assert np.isnan(found["nearest_neighbour_arcsec"])
    assert found["sky_rms_g"] == pytest.approx(0.01, rel=0.15)


def test_where_an_object_lies_is_no_property_of_it() -> None:
    plain = measure(galaxy((100.0, 200.0, 400.0)), BANDS, 0.25, 25.0)
    moved = np.roll(galaxy((100.0, 200.0, 400.0)), (2, -3), (1, 2))
    found = measure(moved, BANDS, 0.25, 25.0)
    for name in ("r50_arcsec", "concentration", "ellipticity", "asymmetry"):
        assert found[name] == pytest.approx(plain[name], abs=0.02)


@pytest.mark.parametrize("rows", [3, 14, 28, 45, 48])
def test_filled_pixels_have_no_noise_to_measure(rows: int) -> None:
    """Gaps are filled with one value; what is left is measured, and nothing warns."""
    image = galaxy((100.0, 200.0, 400.0))
    image[:, :rows] = 0.0
    found = measure(image, BANDS, 0.25, 25.0)
    if rows < 44:
        assert found["sky_rms_g"] == pytest.approx(0.01, rel=0.3)
    else:
        assert np.isnan(found["sky_rms_g"])


def test_a_band_of_one_value_is_measured_in_the_others() -> None:
    image = galaxy((100.0, 200.0, 400.0))
    image[0] = 0.0
    found = measure(image, BANDS, 0.25, 25.0)
    assert np.isnan(found["sky_rms_g"])
    assert np.isnan(found["mag_g"])
    assert found["sky_rms_i"] == pytest.approx(0.01, rel=0.15)


def test_a_lopsided_object_is_asymmetric() -> None:
    image = galaxy((100.0, 200.0, 400.0))
    image[2, 20:28, 30:36] += 2.0
    assert measure(image, BANDS, 0.25, 25.0)["asymmetry"] > 0.1


def test_a_blue_spot_and_a_neighbour_are_seen() -> None:
    image = galaxy((100.0, 200.0, 400.0))
    plain = measure(image, BANDS, 0.25, 25.0)
    image[0, 22:26, 30:34] += 0.3
    image[2, 36:40, 24:28] += 5.0
    found = measure(image, BANDS, 0.25, 25.0)
    assert found["bluest_spot_snr"] > 20 > plain["bluest_spot_snr"]
    assert found["ring_blue"] != plain["ring_blue"]
    assert found["neighbours"] == 1
    assert found["nearest_neighbour_arcsec"] == pytest.approx(13.5 * 0.25, abs=0.4)
    told = reasons.counted([reasons.of_false_positive(found, "galaxy")])
    assert {"neighbour", "blue spot"} <= set(told)


def test_correlation_of_the_noise_is_the_instruments() -> None:
    noise = sky_noise(np.random.default_rng(1), PS1, (3, 96, 96))
    found = measure(noise, BANDS, 0.25, 25.0)
    stated = PS1.noise_correlation
    lag = 0.5 * (stated[0][1] + stated[1][0])
    assert found["noise_lag_1"] == pytest.approx(lag, abs=0.06)
    white = np.random.default_rng(2).normal(size=(3, 96, 96)).astype(np.float32)
    assert abs(measure(white, BANDS, 0.25, 25.0)["noise_lag_1"]) < 0.05


def test_a_star_is_called_one_and_so_is_a_filled_frame() -> None:
    found = measure(galaxy((100.0, 100.0, 100.0), width=1.5), BANDS, 0.25, 25.0)
    assert reasons.of_false_positive(found, "neighbour, point-like")[0].startswith("star: ")
    assert reasons.of_false_positive(found, "galaxy", flags=4)[0].startswith("artefact: ")


def miss(**changes: float) -> dict[str, float]:
    plain = {
        "theta_e_arcsec": 1.8,
        "host_radius_arcsec": 1.0,
        "arc_snr_g": 40.0,
        "arc_mag_g": 20.0,
        "host_mag_g": 20.0,
        "magnification": 8.0,
    }
    return plain | changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "unknown"),
        ({"magnification": 2.0}, "one image"),
        ({"theta_e_arcsec": 1.0}, "small"),
        ({"host_radius_arcsec": 1.6}, "inside the host"),
        ({"theta_e_arcsec": 2.6}, "wide"),
        ({"arc_mag_g": 22.0}, "faint beside the host"),
        ({"arc_snr_g": 21.0}, "low S/N"),
    ],
)
def test_reasons_of_misses(changes: dict[str, float], reason: str) -> None:
    alone = {"neighbours": 0.0, "nearest_neighbour_arcsec": float("nan")}
    assert list(reasons.counted([reasons.of_miss(miss(**changes), alone, "g")])) == [reason]
    crowded = {"neighbours": 1.0, "nearest_neighbour_arcsec": 2.0}
    found = reasons.of_miss(miss(**changes), crowded, "g")
    assert any(one.startswith("crowded: ") for one in found)


def test_reasons_are_counted_by_class_once_per_stamp() -> None:
    assert reasons.counted([["a: 1", "a: 2", "b: x"], ["a: 3"]]) == {"a": 2, "b": 1}

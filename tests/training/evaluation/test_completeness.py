from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.data import Examples
from training.evaluation.completeness import AXES, by_truth, hexagons, hexbins, in_bins


def test_hexagons_hold_every_lens_once_and_their_own_completeness() -> None:
    draw = np.random.default_rng(0)
    x, y = draw.uniform(0, 1, (2, 500))
    found = hexagons(x, y, x > 0.5, grid=6)
    assert sum(found["n"]) == 500
    assert len({len(column) for column in found.values()}) == 1
    hits = np.dot(found["n"], found["completeness"])
    assert hits == pytest.approx((x > 0.5).sum())
    far = np.abs(np.asarray(found["x"]) - 0.5) > 1 / 6
    sure = np.asarray(found["x"]) > 0.5
    assert np.asarray(found["completeness"])[far].tolist() == sure[far].astype(float).tolist()


def test_lenses_at_two_places_are_two_hexagons() -> None:
    x = np.repeat([0.0, 1.0], [3, 7])
    found = hexagons(x, x, np.arange(10) < 5, grid=4)
    order = np.argsort(found["x"])
    assert np.asarray(found["n"])[order].tolist() == [3, 7]
    assert np.asarray(found["completeness"])[order] == pytest.approx([1.0, 2 / 7])


def test_area_above_the_noise_is_said_to_be_a_part_of_the_stamp(test_set: Examples) -> None:
    """van Lohuizen (2022), section 5.3: of the whole image's area. In arcsec² beside it."""
    labels = {axis.column: axis.label for axis in AXES}
    assert labels["arc_area_2sigma_fraction"].startswith("part of the stamp")
    assert "arcsec²" in labels["arc_area_arcsec2"]
    fraction = test_set.truth["arc_area_2sigma_fraction"]
    truth = {**test_set.truth, "arc_area_arcsec2": fraction * 144.0}
    found = by_truth(np.ones(2000, bool), replace(test_set, truth=truth))["arc_area_arcsec2"]
    assert sum(metric.n_positives for metric in found.values()) == 600


def test_panels_are_those_whose_columns_are_there(test_set: Examples) -> None:
    above = np.ones(2000, bool)
    assert [p["columns"] for p in hexbins(above, test_set)] == [
        ["theta_e_arcsec", "source_mag_r"],
        ["theta_e_arcsec", "arc_snr_g"],
        ["source_mag_r", "arc_snr_g"],
    ]
    assert hexbins(above, replace(test_set, truth={})) == []
    assert by_truth(above, replace(test_set, truth={})) == {}


def test_columns_of_other_bands_take_the_place_of_g(test_set: Examples) -> None:
    column = test_set.truth["arc_snr_g"]
    other = {"arc_snr_VIS": column, "theta_e_arcsec": test_set.truth["theta_e_arcsec"]}
    found = by_truth(np.ones(2000, bool), replace(test_set, truth=other))
    assert list(found) == ["theta_e_arcsec", "arc_snr_VIS"]
    assert sum(m.n_positives for m in found["arc_snr_VIS"].values()) == 600


def test_a_column_of_nothing_is_no_axis(test_set: Examples) -> None:
    truth = {**test_set.truth, "arc_snr_g": np.full(2000, np.nan)}
    panels = hexbins(np.ones(2000, bool), replace(test_set, truth=truth))
    assert [p["columns"] for p in panels] == [["theta_e_arcsec", "source_mag_r"]]


def test_bins_are_closed_below_and_empty_ones_left_out() -> None:
    found = in_bins(np.array([True, False, True]), np.array([1.0, 1.5, 2.0]), (0, 1, 2, 3, 4))
    assert {name: (m.value, m.n_positives) for name, m in found.items()} == {
        "1 to 2": (0.5, 2),
        "2 to 3": (1.0, 1),
    }

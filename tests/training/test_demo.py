from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pytest

from training.demo import (
    Outcome,
    binned_lines,
    fraction,
    ids_past_cuts,
    match_lines,
    stage_lines,
)
from training.simulate.sky import Scale, make_sky


@pytest.fixture
def outcome() -> Outcome:
    """Ten lenses, of which 8 pass the cuts, 6 the network, 5 the CNN; 2 of 90 spirals do too."""
    lens = np.arange(100) < 10
    number = np.arange(100)
    cnn = (number < 5) | (number >= 98)
    return Outcome(
        kind=np.where(lens, "lens", "spiral"),
        theta_e_arcsec=np.where(lens, np.where(number < 4, 0.7, 1.2), np.nan),
        arc_snr=np.where(lens, 25.0, np.nan),
        passed_cuts=(number < 8) | ~lens,
        selected=(number < 6) | ~lens,
        scored=(number < 6) | ~lens,
        candidate=cnn,
    )


def test_each_stage_is_measured_on_what_reached_it(outcome: Outcome) -> None:
    lines = list(stage_lines(outcome))
    assert lines[0].split()[-1] == "10"
    for line, found in zip(lines[1:], ("8/10", "6/8", "6/6", "5/6"), strict=True):
        assert found in line


def test_completeness_purity_and_false_positive_rate(outcome: Outcome) -> None:
    completeness, purity, false, rate = match_lines(outcome)
    assert "5/10 = 0.500" in completeness
    assert "5/7 = 0.714" in purity
    assert "spiral 2" in false
    assert "2/90" in rate


def test_bins_hold_lenses_alone(outcome: Outcome) -> None:
    lines = list(binned_lines(outcome, "θ_E", outcome.theta_e_arcsec, (0.5, 1.0, 1.5, 2.0)))
    assert [line.split()[4] for line in lines] == ["4/4", "1/6", "0/0"]


def test_the_interval_of_none_of_ten() -> None:
    # Clopper and Pearson (1934): upper bound 1 - 0.025^(1/n) for no success.
    assert fraction(0, 10) == f"0/10 = 0.000 [0.000, {1.0 - 0.025**0.1:.3f}]"


def test_cuts_are_the_survey_files(tmp_path: Path) -> None:
    make_sky(tmp_path, 2, Scale(1, 1, 128, 20, imaged=40, rows=60, lenses=0))
    rows = pads.dataset(tmp_path / "catalogue").to_table().to_pandas()
    g, i = (rows[c].where(rows[c] > -999.0) for c in ("g_mag", "i_mag"))
    psf = rows["i_psf_mag"].where(rows["i_psf_mag"] > -999.0)
    kept = (rows["n_frames"] > 0) & (i < 21.5) & (g - i).between(1.2, 3.6) & (psf - i > 0.05)
    assert kept.sum() > 3
    assert set(ids_past_cuts(tmp_path)) == set(rows["object_id"][kept])

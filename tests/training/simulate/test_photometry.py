from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lenspipe.errors import InputError
from training.simulate.measurement import Depth, kron, psf_minus_kron
from training.simulate.photometry import LRG_TABLE, SIDES, make_photometry, sides

SMALL = {"seed": 4, "sources": 3000, "lenses": 200, "drawn_lenses": 4, "data": None}
DATA = Path(__file__).parents[4] / "shared" / "data"


def depth(n: int) -> Depth:
    return Depth(np.full(n, 27.0), np.full(n, 1.1), np.full(n, 32.0), 0.25)


def test_errors_match_the_scatter() -> None:
    rng, n = np.random.default_rng(0), 20_000
    for true in (17.0, 19.0, 20.5):
        measured, error = kron(rng, np.full(n, true), np.full(n, 0.6), depth(n))
        pull = (measured - true) / error
        assert np.std(pull) == pytest.approx(1.0, abs=0.05)
        assert np.median(measured) == pytest.approx(true, abs=0.02)


def test_larger_sources_have_larger_errors_and_faint_ones_none() -> None:
    rng, n = np.random.default_rng(0), 100
    _, small = kron(rng, np.full(n, 20.0), np.full(n, 0.2), depth(n))
    _, large = kron(rng, np.full(n, 20.0), np.full(n, 3.0), depth(n))
    assert np.median(large) > 2 * np.median(small)
    magnitude, error = kron(rng, np.full(n, 28.0), np.full(n, 0.2), depth(n))
    assert np.isnan(magnitude).mean() > 0.95
    assert np.array_equal(np.isnan(magnitude), np.isnan(error))


def test_stars_have_no_extent_and_galaxies_have() -> None:
    rng, n = np.random.default_rng(0), 5000
    error = np.full(n, 0.01)
    star = psf_minus_kron(rng, np.zeros(n), error, depth(n))
    galaxy = psf_minus_kron(rng, np.full(n, 0.6), error, depth(n))
    assert np.mean(star) == pytest.approx(0.0, abs=0.002)
    assert (star < 0.05).mean() > 0.99
    assert (galaxy > 0.05).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": [3.7, 1.1]}, "simulate: expected colour with the smaller end first"),
        ({"cut_bands": ["g", "g"]}, "simulate: expected cut_bands of two bands"),
        ({"bands": ["g", "i", "g"]}, "bands: expected some of .*, each once"),
        ({"i_mag_below": float("nan")}, "simulate.i_mag_below"),
        ({"data": "/nowhere"}, "simulate.data: expected a folder of real data, found none at /no"),
        ({"data": "/"}, "simulate.lrg_rows: expected 0, or .*, found 20000 and no such file"),
    ],
)
def test_a_wrong_block_is_refused_by_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_photometry({**SMALL, **change}, Path("never.parquet"))


def test_same_seed_gives_the_same_rows_within_the_cuts(tmp_path: Path) -> None:
    first = pq.read_table(make_photometry(SMALL, tmp_path / "a.parquet"))
    again = pq.read_table(make_photometry(SMALL, tmp_path / "b.parquet"))
    other = pq.read_table(make_photometry({**SMALL, "seed": 5}, tmp_path / "c.parquet"))
    assert first.equals(again)
    assert not first.equals(other)
    colour = first["g_mag"].to_numpy() - first["i_mag"].to_numpy()
    assert ((colour > 1.1) & (colour < 3.7)).all()
    assert (first["i_mag"].to_numpy() < 21.7).all()
    label = first["label"].to_numpy()
    assert np.array_equal(label == 1, np.array(first["kind"].to_pylist()) == "lens")
    assert 100 < label.sum() <= 200
    assert (label == 0).sum() > 500


def test_magnitudes_are_kept_with_errors_in_every_band(tmp_path: Path) -> None:
    rows = pq.read_table(make_photometry(SMALL, tmp_path / "a.parquet"))
    for band in "gri":
        magnitude, error = (
            rows[f"{band}_mag"].to_numpy(),
            rows[f"{band}_mag_err"].to_numpy(),
        )
        assert np.array_equal(np.isnan(magnitude), np.isnan(error))
        assert np.nanmin(error) >= 0.01 - 1e-6


def test_unknown_key_is_named() -> None:
    with pytest.raises(InputError, match=r"simulate\.galaxies: expected a known key"):
        make_photometry({"seed": 1, "galaxies": 3}, Path("never-written.parquet"))


def test_repeated_positions_stay_on_one_side() -> None:
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 4000), rng.uniform(-10, 60, 4000)
    side = sides(ra, dec)
    assert np.array_equal(side, sides(ra.copy(), dec.copy()))
    shares = np.bincount(side, minlength=len(SIDES)) / len(side)
    assert shares == pytest.approx([0.5, 0.125, 0.125, 0.25], abs=0.03)


@pytest.mark.parametrize(
    ("block", "bands"),
    [
        ({"instrument": "ps1", "bands": ["g", "r", "i", "z", "y"]}, "grizy"),
        ({"instrument": "hsc"}, "grizy"),
        (
            {"instrument": "euclid", "cut_bands": ["VIS", "H"], "colour": [0.3, 4.0]},
            ("VIS", "Y", "J", "H"),
        ),
    ],
)
def test_any_instrument_gives_its_bands(
    block: dict[str, object], bands: tuple[str, ...], tmp_path: Path
) -> None:
    small = {**SMALL, "sources": 400, "lenses": 50, "drawn_lenses": 2, **block}
    rows = pq.read_table(make_photometry(small, tmp_path / "a.parquet"))
    assert {f"{band}_mag" for band in bands} <= set(rows.column_names)
    assert set(rows["label"].to_pylist()) == {0, 1}
    for band in bands:
        magnitude = rows[f"{band}_mag"].to_numpy()
        assert np.isfinite(magnitude).mean() > 0.7
        assert np.nanmedian(rows[f"{band}_mag_err"].to_numpy()) < 0.2


def test_bands_to_cut_on_must_be_there() -> None:
    with pytest.raises(InputError, match=r"cut_bands: expected two of VIS, Y, J, H"):
        make_photometry({**SMALL, "instrument": "euclid"}, Path("never-written.parquet"))


@pytest.mark.data
@pytest.mark.skipif(not (DATA / LRG_TABLE).is_file(), reason="no real data in ../shared/data")
def test_real_galaxies_come_in_another_surveys_bands(tmp_path: Path) -> None:
    """The same real galaxies: i differs by a colour term and noise, g - i by little more; z and y
    are those of a red galaxy's spectrum."""
    block = {**SMALL, "sources": 1, "lenses": 1, "data": str(DATA), "lrg_rows": 2000}
    tables = {
        name: pq.read_table(make_photometry({**block, **more}, tmp_path / f"{name}.parquet"))
        for name, more in (("ps1", {}), ("hsc", {"instrument": "hsc"}))
    }
    medians = {
        name: [
            np.nanmedian(rows.filter(rows["kind"].to_numpy() == "lrg")[f"{b}_mag"].to_numpy())
            for b in "gri"
        ]
        for name, rows in tables.items()
    }
    np.testing.assert_allclose(medians["hsc"], medians["ps1"], atol=0.15)
    red = tables["hsc"].filter(tables["hsc"]["kind"].to_numpy() == "lrg")
    for blue, redder, low, high in (("i", "z", 0.1, 0.6), ("z", "y", 0.0, 0.4)):
        colour = red[f"{blue}_mag"].to_numpy() - red[f"{redder}_mag"].to_numpy()
        assert low < np.nanmedian(colour) < high


@pytest.mark.data
@pytest.mark.skipif(not (DATA / LRG_TABLE).is_file(), reason="no real data in ../shared/data")
def test_real_galaxies_come_with_and_without_arcs(tmp_path: Path) -> None:
    block = {**SMALL, "data": str(DATA), "lrg_rows": 2000}
    rows = pq.read_table(make_photometry(block, tmp_path / "a.parquet")).to_pylist()
    real = [row for row in rows if row["origin"] == "sdss_lrg"]
    plain = [row["i_mag"] for row in real if row["label"] == 0]
    lensed = [row["i_mag"] for row in real if row["label"] == 1]
    assert min(len(plain), len(lensed)) > 1000
    assert np.median(lensed) < np.median(plain)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / LRG_TABLE).is_file(), reason="no real data in ../shared/data")
def test_no_real_galaxy_is_on_two_sides(tmp_path: Path) -> None:
    """Magnitudes to the last digit name a real galaxy: few coincide by chance."""
    found = {}
    for side in SIDES:
        block = {**SMALL, "sources": 1, "lenses": 1, "data": str(DATA), "side": side}
        rows = pq.read_table(make_photometry(block, tmp_path / f"{side}.parquet")).to_pylist()
        found[side] = {(r["g_mag"], r["r_mag"], r["i_mag"]) for r in rows if r["kind"] == "lrg"}
        assert len(found[side]) > 5000
    for side in SIDES[1:]:
        assert not found["training"] & found[side]

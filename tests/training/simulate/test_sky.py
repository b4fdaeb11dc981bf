from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lenspipe.config import load_survey
from training.simulate import field, paint_field, population
from training.simulate.catalogue import ROW_GROUP_ROWS
from training.simulate.instrument import load_instrument
from training.simulate.scene import Point, Scene
from training.simulate.sky import SCALES, make_sky
from training.simulate.tile_pixels import MARGIN_PIXELS, expose, lay_point
from training.simulate.tiles import BAD_COLUMN, SATURATED, layout, write_tile

SMALL = replace(SCALES["small"], imaged=60, rows=600, lenses=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sky")
    assert make_sky(out, 3, SMALL)
    return out


def tile(out: Path, name: str, band: str) -> tuple[np.ndarray, np.ndarray, fits.Header]:
    (path,) = (out / "tiles").glob(f"{name}_{band}.fits*")
    with fits.open(path) as hdus:
        image = hdus[0] if hdus[0].data is not None else hdus[1]
        return np.array(image.data, np.float64), np.array(hdus["MASK"].data), image.header.copy()


def catalogue(out: Path) -> pa.Table:
    return pads.dataset(out / "catalogue").to_table()


def test_same_seed_gives_same_bytes(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    make_sky(again, 3, SMALL, workers=1)
    names = sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(again)) for p in again.rglob("*") if p.is_file())
    for name in names:
        assert (made / name).read_bytes() == (again / name).read_bytes(), name


def test_another_seed_gives_another_sky(made: Path, tmp_path: Path) -> None:
    make_sky(tmp_path, 4, SMALL)
    assert not catalogue(made)["ra"].equals(catalogue(tmp_path)["ra"])


def test_a_whole_sky_is_reused_and_an_unfinished_one_is_not(made: Path, tmp_path: Path) -> None:
    assert not make_sky(made, 3, SMALL)
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "left_over.fits").write_bytes(b"half a file")
    assert make_sky(tmp_path, 3, replace(SMALL, imaged=4, rows=10, lenses=0))
    assert not (tmp_path / "tiles" / "left_over.fits").exists()


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    tiny = replace(SMALL, imaged=8, rows=20, lenses=0)
    make_sky(tmp_path / "one", 5, tiny, workers=1)
    make_sky(tmp_path / "two", 5, tiny, workers=2)
    for path in (tmp_path / "one" / "tiles").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "tiles" / path.name).read_bytes()


def test_catalogue_and_truth_have_the_rows_asked_for(made: Path) -> None:
    rows, truth = catalogue(made), pq.read_table(made / "truth.parquet")
    assert (rows.num_rows, truth.num_rows) == (SMALL.rows, SMALL.imaged)
    assert len(set(rows["object_id"].to_pylist())) == SMALL.rows
    assert truth["kind"].to_pylist().count("lens") == SMALL.lenses
    imaged = rows.filter(pa.array(rows["n_frames"].to_numpy() > 0))
    assert set(imaged["object_id"].to_pylist()) == set(truth["object_id"].to_pylist())
    lens = truth.filter(pa.array(np.array(truth["kind"].to_pylist()) == "lens"))
    assert (lens["theta_e_arcsec"].to_numpy() > 0.3).all()
    assert (lens["arc_snr"].to_numpy() > 3).all()
    first = next((made / "catalogue").glob("*.parquet"))
    assert pq.ParquetFile(first).metadata.row_group(0).num_rows <= ROW_GROUP_ROWS


def test_rows_with_frames_are_those_on_a_tile(made: Path) -> None:
    rows = catalogue(made)
    on_tile = np.zeros(rows.num_rows, bool)
    for name in ("t00", "t01"):
        pixels, _, cards = tile(made, name, "g")
        x, y = WCS(cards).world_to_pixel_values(rows["ra"].to_numpy(), rows["dec"].to_numpy())
        side = pixels.shape[0]
        on_tile |= (x > -0.5) & (y > -0.5) & (x < side - 0.5) & (y < side - 0.5)
    assert np.array_equal(on_tile, rows["n_frames"].to_numpy() > 0)


def test_survey_file_is_valid_and_names_columns_that_are_there(made: Path) -> None:
    survey = load_survey(made / "survey.yaml")
    assert set(survey.cuts) == {"imaged", "bright_enough", "red", "extended"}
    text = " ".join(survey.cuts.values())
    columns = catalogue(made).column_names
    for name in ("g_mag", "i_mag", "i_psf_mag", "i_kron_mag", "n_frames"):
        assert name in text
        assert name in columns


def test_tiles_differ_in_zero_point_and_one_band_is_rice_compressed(made: Path) -> None:
    points = [tile(made, name, band)[2]["MAGZERO"] for name in ("t00", "t01") for band in "gri"]
    assert len(set(points)) == 6
    with fits.open(made / "tiles" / "t00_i.fits.fz") as hdus:
        assert hdus[1].compression_type == "RICE_1"
    assert len(list((made / "tiles").iterdir())) == 6


def test_compression_keeps_pixels_within_a_small_part_of_the_noise(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).normal(0.0, 5.0, (256, 256)).astype(np.float32)
    counts[10:20, 30] = np.nan
    mask = np.isnan(counts).astype(np.uint8) * SATURATED
    write_tile(tmp_path / "a.fits.fz", counts, mask, fits.Header())
    with fits.open(tmp_path / "a.fits.fz") as hdus:
        assert np.array_equal(np.isnan(hdus["IMAGE"].data), np.isnan(counts))
        assert np.array_equal(hdus["MASK"].data, mask)
        # Steps of sigma / 16, so at most half a step off; the noise is estimated row by row.
        assert np.nanmax(np.abs(hdus["IMAGE"].data - counts)) < 5.0 / 16


def one_star_on_two_tiles(
    magnitude: float, monkeypatch: pytest.MonkeyPatch, out: Path
) -> tuple[Path, float]:
    """A sky with one star in the tiles' overlap and nothing else."""
    light = dict.fromkeys("gri", magnitude)
    star = Scene("star", (), light, points=(Point(0.0, 0.0, light),))
    monkeypatch.setattr(paint_field, "draw", lambda *_: star)
    monkeypatch.setattr(field, "scatter", lambda *_: (np.array([235.37]), np.array([128.61])))
    make_sky(out, 1, replace(SMALL, imaged=1, rows=2, lenses=0))
    return out, magnitude


def aperture(image: np.ndarray, x: float, y: float, radius: float) -> tuple[float, float, float]:
    """Sum and centroid inside a circle."""
    yy, xx = np.indices(image.shape)
    inside = np.hypot(xx - x, yy - y) < radius
    light = np.where(inside, image, 0.0)
    total = light.sum()
    return float(total), float((light * xx).sum() / total), float((light * yy).sum() / total)


def test_star_in_the_overlap_is_at_its_place_and_brightness_in_both_tiles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, magnitude = one_star_on_two_tiles(15.0, monkeypatch, tmp_path)
    truth = pq.read_table(out / "truth.parquet")
    ra, dec = truth["ra"][0].as_py(), truth["dec"][0].as_py()
    checked = 0
    for name in ("t00", "t01"):
        for band in "gri":
            counts, mask, cards = tile(out, name, band)
            x, y = (float(v) for v in WCS(cards).world_to_pixel_values(ra, dec))
            good = np.where((mask & (BAD_COLUMN | SATURATED)) > 0, 0.0, counts)
            reach = min(x, counts.shape[1] - 1 - x, 18.0)
            assert reach > 10  # both tiles hold the whole star
            total, cx, cy = aperture(good, x, y, reach)
            if ((mask & BAD_COLUMN) > 0)[:, int(x) - 18 : int(x) + 19].any():
                continue
            checked += 1
            assert np.hypot(cx - x, cy - y) < 0.2
            # A circle of 10 to 18 pixels misses 1 to 3% of a Moffat profile's light.
            assert cards["MAGZERO"] - 2.5 * np.log10(total) == pytest.approx(magnitude, abs=0.05)
    assert checked >= 3


def test_overlap_shows_the_same_noiseless_sky(made: Path) -> None:
    counts = {}
    for name, columns in (("t00", slice(-SMALL.overlap, None)), ("t01", slice(0, SMALL.overlap))):
        pixels, mask, cards = tile(made, name, "r")
        flux = pixels * 10 ** (-0.4 * (cards["MAGZERO"] - 25.0))
        flux[(mask & BAD_COLUMN) > 0] = np.nan
        counts[name] = flux[:, columns]
    left, right = counts["t00"], counts["t01"]
    good = np.isfinite(left) & np.isfinite(right)
    bright = good & (left > 1.0)
    assert bright.sum() > 30
    assert np.corrcoef(left[bright], right[bright])[0, 1] > 0.8


def test_saturated_star_is_nan_and_masked_with_a_trail_along_its_column() -> None:
    instrument = load_instrument("ps1")
    side = 256 + 2 * MARGIN_PIXELS
    flux = np.zeros((3, side, side), np.float32)
    light = np.full(3, 10 ** (0.4 * (25.0 - 10.0)))
    lay_point(flux, (side / 2, side / 2), light)
    observation = paint_field.observation_of(1, 0, instrument)
    counts, masks = expose(np.random.default_rng(0), flux, instrument, observation)
    for image, mask in zip(counts, masks, strict=True):
        full = (mask & SATURATED) > 0
        assert full.any()
        assert np.array_equal(full, np.isnan(image))
        rows, columns = (np.ptp(np.nonzero(full)[axis]) for axis in (0, 1))
        assert rows > 2 * columns


def test_dead_columns_hold_numbers_that_only_the_mask_rejects(made: Path) -> None:
    counts, mask, cards = tile(made, "t01", "g")
    dead = (mask & BAD_COLUMN) > 0
    assert dead.any()
    wrong = counts[dead & np.isfinite(counts)]
    assert np.allclose(wrong, -20 * cards["BKGRMS"], rtol=1e-5)


def test_layout_overlaps_as_asked_and_shares_one_projection() -> None:
    mosaic, tiles = layout(
        columns=3, rows=2, side=100, overlap=10, centre_deg=(10.0, -5.0), pixel_scale_arcsec=0.25
    )
    assert mosaic.shape == (190, 280)
    assert len(tiles) == 6
    ra, dec = mosaic.sky(np.array([95.0]), np.array([50.0]))
    for tile_ in tiles[:2]:
        x, y = tile_.wcs(mosaic).world_to_pixel_values(ra, dec)
        assert (x[0] + tile_.x, y[0] + tile_.y) == pytest.approx((95.0, 50.0), abs=1e-6)


def test_receding_keeps_surface_brightness() -> None:
    instrument = load_instrument("ps1")
    near = population.draw(np.random.default_rng(2), "spiral", instrument)
    far = population.recede(near, 3.0)
    assert far.magnitudes["i"] == pytest.approx(near.magnitudes["i"] + 3.0)
    dimming = 5 * np.log10(near.half_light_radius_arcsec / far.half_light_radius_arcsec)
    assert dimming == pytest.approx(3.0)


def test_a_lens_cannot_recede() -> None:
    instrument = load_instrument("ps1")
    lens = population.draw(np.random.default_rng(2), "lens", instrument)
    with pytest.raises(ValueError, match="without a lens"):
        population.recede(lens, 1.0)


def test_command_makes_no_use_of_torch(tmp_path: Path) -> None:
    program = (
        "import sys; import training.simulate.sky, training.demo; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])

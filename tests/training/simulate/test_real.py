from __future__ import annotations

import csv
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from astropy.io import fits

from training.simulate import real
from training.simulate.hosts import load_hosts
from training.simulate.instrument import load_instrument

PS1 = load_instrument("ps1")


def test_without_data_there_are_no_hosts_and_no_sources(tmp_path: Path) -> None:
    assert load_hosts(None, PS1) == ()
    assert load_hosts(tmp_path, PS1) == ()
    assert real.load_sources(None) == ()
    assert real.load_sources(tmp_path) == ()


def test_the_split_is_fixed_and_about_even() -> None:
    names = [f"J{k:06d}" for k in range(2000)]
    training = [real.split_of(name) == "training" for name in names]
    assert 0.45 < np.mean(training) < 0.55
    # printf NAME | sha256sum: the last digit, modulo 4, is 0 or 2, 1, 3.
    assert real.split_of("J000001") == "training"
    assert real.split_of("J000003") == "calibration"
    assert real.split_of("J000004") == "held_out"


def test_sky_rms_is_that_of_the_pixels_between_sources() -> None:
    rng = np.random.default_rng(5)
    frame = rng.normal(0.0, 0.1, (3, 120, 120)).astype(np.float32)
    frame[:, 50:62, 50:62] += 20.0
    np.testing.assert_allclose(real.sky_rms(frame), 0.1, rtol=0.04)


def test_peaks_are_found_where_galaxies_are() -> None:
    y, x = np.mgrid[:120, :120]
    image = np.random.default_rng(6).normal(0, 0.1, (120, 120))
    for cx, cy in ((60, 58), (95, 30)):
        image += 5 * np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / 2.5**2)
    found = real.find_peaks(image.astype(np.float32))
    assert len(found) == 2
    assert np.abs(found[np.argsort(found[:, 0])] - [[60, 58], [95, 30]]).max() <= 1


def test_a_faint_stamp_is_no_source() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 1.0, (60, 60)).astype(np.float32)
    assert real.clean_stamp(noise, 1.0) is None
    y, x = np.mgrid[:60, :60]
    galaxy = 40 * np.exp(-np.hypot(x - 30, y - 28) / 4)
    found = real.clean_stamp((noise + galaxy).astype(np.float32), 1.0)
    assert found is not None
    assert found.image.sum() == pytest.approx(1.0, abs=1e-4)
    assert found.radius_pixels == pytest.approx(1.68 * 4, rel=0.2)
    assert not found.image[:5, :5].any()


@pytest.mark.data
def test_only_red_galaxies_of_ones_own_split_are_hosts(data: Path) -> None:
    training = load_hosts(data, PS1)
    held_out = load_hosts(data, PS1, "held_out")
    with (data / "ps1_lenses" / "ps1_catalogue.csv").open(encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert len(training) > 40
    assert len(held_out) > 12
    kept_for_thresholds = load_hosts(data, PS1, "calibration")
    names = [h.name for h in (*training, *kept_for_thresholds, *held_out)]
    assert all(names)
    assert len(set(names)) == len(names)
    assert not {h.name for h in training} & {h.name for h in held_out}
    for host in training:
        assert real.split_of(host.name) == "training"
        assert rows[host.name]["group"] == "unresolved_galaxy_lens"
        assert rows[host.name]["arc_visible_by_eye"] == "no"
        assert np.isfinite(host.frame).all()
        assert np.hypot(host.centre[0] - 59.5, host.centre[1] - 59.5) < 5


@pytest.mark.data
def test_noise_of_real_frames_is_that_of_the_instrument(data: Path) -> None:
    hosts = load_hosts(data, PS1)
    median = np.median([host.sky_rms for host in hosts], axis=0)
    stated = [PS1.sky_rms(band) for band in PS1.bands]
    # Frames hold faint galaxies that the corners do not.
    np.testing.assert_allclose(median, stated, rtol=0.12)


def write_sources(data: Path, count: int = 12) -> None:
    """Galaxies 0, 1, ... in the layout of the HST catalogue."""
    images, catalogue = (data / path for path in real._SOURCES[0])
    images.parent.mkdir(parents=True)
    y, x = np.mgrid[:60, :60]
    galaxy = (40 * np.exp(-np.hypot(x - 30, y - 28) / 4)).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(galaxy) for _ in range(count))]).writeto(
        images
    )
    columns = {"IDENT": np.arange(count), "GAL_HDU": 1 + np.arange(count)}
    table = [fits.Column(name, "J", array=values) for name, values in columns.items()]
    table.append(fits.Column("NOISE_VARIANCE", "D", array=np.ones(count)))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(table)]).writeto(catalogue)


def test_a_source_is_on_one_side_by_its_name(tmp_path: Path) -> None:
    write_sources(tmp_path)
    sides = {s: {one.name for one in real.load_sources(tmp_path, s)} for s in get_args(real.Split)}
    assert set.union(*sides.values()) == {f"hst-cosmos-paltas-{k}" for k in range(12)}
    assert sum(map(len, sides.values())) == 12
    for side, names in sides.items():
        assert names == {name for name in names if real.split_of(name) == side} != set()


@pytest.mark.data
def test_hst_galaxies_are_loaded_as_sources(data: Path) -> None:
    sides = {side: real.load_sources(data, side) for side in get_args(real.Split)}
    assert [len(stamps) for stamps in sides.values()] == [23, 13, 13]  # as the docs say
    stamps = [stamp for side in sides.values() for stamp in side]
    assert len({s.name for s in stamps}) == 49
    assert all(s.image.min() >= 0 and s.radius_pixels >= 1 for s in stamps)

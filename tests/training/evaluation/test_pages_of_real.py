"""The pages on real pixels and on realism, of made-up stamps and a committee that takes y."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from lenspipe.models.ensemble import Ensemble, load_ensemble
from tests import toy_models
from training.evaluation import probe, real, real_report, real_stamps, realism, realism_report
from training.evaluation.injection import Injected
from training.evaluation.real import RealPixels
from training.evaluation.real_stamps import BANDS, HOSTS, Frame
from training.evaluation.realism import Comparison
from training.simulate.instrument import load_instrument

SIZE = 32


@pytest.fixture
def ensemble(tmp_path: Path) -> Ensemble:
    return committee(tmp_path / "zoo", SIZE)


def committee(folder: Path, size: int) -> Ensemble:
    """Its score is the mean flux in y."""
    weights = np.zeros((5, size, size))
    weights[4] = 1 / size**2
    path = toy_models.make_ensemble(
        folder,
        members=1,
        bands=BANDS,
        size=size,
        weights=weights,
        pixel_scale_arcsec=0.25,
        zero_point_mag=25.0,
    )
    return load_ensemble(str(path), provider="cpu", threads=1)


def frame(k: int, arc: str = "no") -> Frame:
    """A round galaxy on noise; the k-th is a little brighter than the one before."""
    y, x = np.indices((120, 120)) - 60
    light = (20 + 0.2 * k) * np.exp(-(x**2 + y**2) / 50)
    noise = np.random.default_rng(k).normal(0, 0.05, (5, 120, 120))
    name = f"{'lens' if arc != 'no' else 'galaxy'}-{k}"
    row = {"name": name, "folder": name, "group": HOSTS, "arc_visible_by_eye": arc}
    return Frame(name, row, np.asarray(noise + light, np.float32), 0)


def injected(hosts: list[Frame], bright: np.ndarray) -> Injected:
    """Arcs of S/N 30 at 2 arcsec; bright: which are so in y too."""
    y, x = np.indices((SIZE, SIZE)) - SIZE // 2
    ring = np.exp(-((np.hypot(x, y) - 8) ** 2) / 4).astype(np.float32)
    arcs = np.stack([ring * np.array([1, 1, 1, 1, 40 * b])[:, None, None] for b in bright])
    arcs = arcs.astype(np.float32)
    images = real_stamps.centred(hosts, SIZE).images[: len(bright)]
    truth = {"arc_snr_g": 30.0, "theta_e_arcsec": 2.0, "magnification": 5.0, "arc_mag_g": 22.0}
    truth |= {"host_mag_g": 20.0, "host_radius_arcsec": 1.5}
    names = np.array([host.name for host in hosts[: len(bright)]], object)
    columns = {name: np.full(len(bright), value) for name, value in truth.items()}
    return Injected(images + arcs, arcs, names, columns, np.ones(len(bright), bool))


def test_the_page_shows_lenses_misses_and_false_positives(
    ensemble: Ensemble, tmp_path: Path
) -> None:
    """Of 12 injections the 9 that are bright in y are found, so y is read; the rest are shown."""
    frames = [frame(k) for k in range(16)]
    galaxies = real_stamps.centred(frames, SIZE, 8)
    lenses = real_stamps.centred([frame(80, "clear"), frame(90, "possible")], SIZE)
    none = galaxies.of(np.zeros(len(galaxies), bool))
    pixels = RealPixels(
        galaxies,
        none,
        lenses,
        injected(frames, np.arange(12) < 9),
        real_stamps.instrument_for(ensemble.inputs),
    )
    report = real_report.write_real(tmp_path, pixels, real.score(pixels, ensemble), ensemble)
    target = report["injection"]["tpr"]["target"]
    assert (target["value"], target["lenses"], target["hosts"]) == (0.75, 12, 12)
    stored = json.loads((tmp_path / "real.json").read_text("utf-8"))
    assert [one["name"] for one in stored["lenses"]] == ["lens-90", "lens-80"]
    assert all(one["reached"] for one in stored["lenses"])
    assert stored["best_false_positives"][0]["frame"] == "galaxy-15"
    assert {one["host"] for one in stored["misses"]["stamps"]} == {
        f"galaxy-{k}" for k in (9, 10, 11)
    }
    page = (tmp_path / "index.html").read_text("utf-8")
    assert page.count("data:image/png") == 2 * (2 + real.BEST_FALSE_POSITIVES + 3)
    for text in ("Every miss of the target (3 of", "lens-90", "galaxy-15: galaxy", "16 galaxy"):
        assert text in page, text
    assert matplotlib.image.imread(tmp_path / "tpr.png").std() > 0.02


def test_the_page_of_realism_tells_what_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mocks are twice as noisy: plain statistics tell them, the noise in each band by itself."""
    monkeypatch.setattr(probe, "RESAMPLES", 50)
    ensemble = committee(tmp_path / "zoo", 8)
    draw = np.random.default_rng(0)
    stamps = real_stamps.centred([frame(k) for k in range(40)], SIZE).images
    real_ones = np.arange(40) % 2 == 0
    rough = stamps + 0.1 * draw.normal(size=stamps.shape) * ~real_ones[:, None, None, None]
    names = np.array([f"object {k}" for k in range(40)], object)
    found = Comparison(np.asarray(rough, np.float32), BANDS, real_ones, names)
    report = realism.judge({"galaxies": found, "lenses": found}, ensemble)
    realism_report.write_realism(tmp_path, report)
    stored = json.loads((tmp_path / "realism.json").read_text("utf-8"))
    told = stored["galaxies"]
    assert told["statistics"]["auroc"] > 0.95
    alone = {one["name"]: one["auroc"] for one in told["telling"]}
    assert all(alone[f"sky_rms_{band}"] < 0.02 for band in BANDS)
    assert abs(alone["g-r"] - 0.5) < 0.3
    assert set(told["members"]) == {"toy-a"}
    page = (tmp_path / "index.html").read_text("utf-8")
    for text in ("Real red galaxies", "20 real stamps of 20 objects, 20 mocks", "sky_rms_y"):
        assert text in page, text
    for name in ("galaxies", "lenses"):
        assert f'src="{name}.png"' in page
        assert matplotlib.image.imread(tmp_path / f"{name}.png").std() > 0.02


def test_a_committee_that_takes_z_and_y_is_given_them(ensemble: Ensemble) -> None:
    assert real_stamps.instrument_for(ensemble.inputs).bands == BANDS
    assert real_stamps.instrument_for(ensemble.inputs[:0]).bands == ("g", "r", "i")
    assert load_instrument("ps1").bands == ("g", "r", "i")  # what nobody asked for is not given

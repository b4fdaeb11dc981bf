"""Files of the Bologna challenge through `lenspipe score`: every file opened once, masked pixels
gone before ZScale, positions as the headers have them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.visualization import ZScaleInterval

from benchmarks import lexactum
from benchmarks.bologna_files import MASKED, PARTS, SIZE, draw, encode, write_part
from lenspipe.contracts import Flag
from lenspipe.cutouts.fits.fitsfile import FitsFile, open_fits
from lenspipe.cutouts.formats import stamps
from lenspipe.models.card import Normalisation
from lenspipe.models.footprint import cpu_batch_size
from lenspipe.score import score_cutouts as module
from lenspipe.score.score_cutouts import ScoreSummary, score_cutouts
from tests import toy_models

OBJECTS = 9
LAYOUTS = Path(__file__).parents[2] / "examples"
BANDS, SCALE = PARTS["ground"]


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ground stamps; object 3 has a masked strip in r, object 5 a NaN in u, object 6 is lost in
    masked pixels, object 7 has no band g."""
    folder = write_part(tmp_path_factory.mktemp("bologna"), "ground", OBJECTS, seed=4)
    rng = np.random.default_rng(8)

    def write(row: int, band: str, pixels: np.ndarray) -> None:
        path = folder / f"{BANDS[band]}-{100_000 + row}.fits"
        path.write_bytes(encode(pixels, SCALE, 0.001 * row, -0.002))

    for row in range(OBJECTS):
        for band in BANDS:
            write(row, band, draw(rng, 1, masked=0.0)[0])
    strip, hole, lost = draw(rng, 3, masked=0.0)
    strip[20:24] = MASKED
    hole[50, 50] = np.nan
    lost[:40] = MASKED
    write(3, "r", strip)
    write(5, "u", hole)
    write(6, "i", lost)
    (folder / f"{BANDS['g']}-100007.fits").unlink()
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy.onnx"
    toy_models.make_member(
        path,
        bands=tuple(BANDS),
        size=SIZE,
        pixel_scale_arcsec=SCALE,
        normalisation=Normalisation(name="zscale", in_graph=False),
    )
    return path


def expected(public: Path, row: int) -> float:
    """Astropy alone: masked and missing pixels take the median of the others, then ZScale."""
    planes = []
    for name in BANDS.values():
        pixels = fits.getdata(public / f"{name}-{100_000 + row}.fits").astype(np.float32)
        good = np.isfinite(pixels) & (pixels != MASKED)
        pixels[~good] = np.median(pixels[good])
        planes.append(ZScaleInterval()(pixels))
    weights = toy_models.make_weights((4, SIZE, SIZE), 0)
    return float(toy_models.expected_logits(np.stack(planes)[None], weights)[0])


def test_masked_pixels_never_reach_zscale(
    public: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "chunk_rows", lambda *_: 2
    )  # chunks, and a last one that is not full
    monkeypatch.setattr(module, "WRITE_ROWS", 5)
    opened: Counter[str] = Counter()
    monkeypatch.setattr(stamps, "open_fits", counting(opened))
    out = tmp_path / "scores.parquet"
    layout = LAYOUTS / "bologna_ground.yaml"
    summary = score_cutouts(str(model), public, out, layout=layout, provider="cpu")
    rows = {row["object_id"]: row for row in pq.read_table(out).to_pylist()}
    failures = pq.read_table(tmp_path / "scores.failures.parquet").to_pylist()
    assert (summary.rows, summary.scored) == (OBJECTS, OBJECTS - 2)
    reasons = {row["object_id"]: row["reason"] for row in failures}
    assert reasons == {"100006": "bad_pixels", "100007": "missing_band"}
    for row in set(range(OBJECTS)) - {6, 7}:
        found = rows[str(100_000 + row)]
        flag = {3: Flag.MASKED, 5: Flag.NAN_FILLED}.get(row, 0)
        assert found["flags"] == flag
        # Sums of 40,804 products of float32 in another order.
        assert found["score"] == pytest.approx(expected(public, row), rel=1e-4, abs=1e-4)
        assert found["ra"] == pytest.approx(np.degrees(0.001 * row), abs=1e-9)
        assert found["dec"] == pytest.approx(np.degrees(-0.002), abs=1e-9)
    assert {row["object_id"]: row["ra"] is None for row in failures} == {
        "100006": False,
        "100007": False,
    }
    first = {f"{public}/{name}-100000.fits" for name in BANDS.values()}
    once = {path for path, times in opened.items() if times == 1}
    # The check before the start looks at one stamp of each band.
    assert {path for path, times in opened.items() if times > 1} == first
    assert len(once | first) == 4 * OBJECTS - 1


def counting(opened: Counter[str]) -> Callable[..., AbstractContextManager[FitsFile]]:
    def counted(path: str, whole: bool = False) -> AbstractContextManager[FitsFile]:
        opened[path] += Path(path).exists()
        return open_fits(path, whole=whole)

    return counted


def test_the_files_are_what_the_challenge_has(public: Path) -> None:
    path = public / f"{BANDS['r']}-100003.fits"
    with fits.open(path) as units:
        units.verify("exception")
        (unit,) = units
        header = unit.header
        assert (header["BITPIX"], unit.data.shape) == (-32, (SIZE, SIZE))
        assert (header["CTYPE1"], header["CRVAL1"], header["CRVAL2"]) == ("RA---TAN", 0.0, 0.0)
        assert header["CD2_2"] == pytest.approx(SCALE / 3600.0)
        assert (header["RA"], header["DEC"]) == (pytest.approx(0.003), pytest.approx(-0.002))
        assert (unit.data == MASKED).sum() == 4 * SIZE
        assert 1e-13 < np.median(np.abs(unit.data)) < 1e-10
    assert path.stat().st_size == 46080


@pytest.mark.data
def test_cards_are_those_of_the_challenge_own_files(data: Path, public: Path) -> None:
    sample = fits.getheader(data / "bologna_samples" / "imageSDSS_R-100002.fits")
    made = fits.getheader(public / f"{BANDS['r']}-100001.fits")
    assert list(made) == list(sample)
    for key in ("CRPIX1", "CD1_1", "CD2_2", "CUNIT1", "NX", "EXTEND", "WCSAXES"):
        assert made[key] == pytest.approx(sample[key]) or made[key] == sample[key]
    assert made.comments["RA"].strip() == "radians"
    assert sample.comments["RA"].strip() == "radians"


def test_batches_suit_the_largest_feature_map(model: Path, tmp_path: Path) -> None:
    assert cpu_batch_size([]) == 64
    toy_models.make_member(tmp_path / "large.onnx", size=600)
    small, large = cpu_batch_size([model]), cpu_batch_size([tmp_path / "large.onnx"])
    # Flat copies of 4 x 101 x 101 and of 3 x 600 x 600 float32: 163 kB and 4.3 MB in 6 MiB.
    assert (small, large) == (32, 4)
    assert cpu_batch_size([model, tmp_path / "large.onnx"]) == 4


def test_the_benchmark_counts_no_rows_without_a_score() -> None:
    told = ScoreSummary("e", "o.parquet", "f.parquet", "cpu", rows=3, scored=2)
    with pytest.raises(RuntimeError, match=r"o\.parquet: 2 of 3 rows were scored"):
        lexactum.require_scored(told, 3)
    told.scored = 3
    lexactum.require_scored(told, 3)


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path: Path) -> None:
    """A network is exported, scored by function and by command, and beside its bare session."""
    options = argparse.Namespace(
        objects=40,
        rounds=1,
        threads=1,
        parts=["ground"],
        networks=["lensflow"],
        command=True,
        provider="cpu",
    )
    found = lexactum.run(tmp_path, options)["ground"]
    network = found["networks"]["lensflow"]
    assert network["lexactum_on_2_cores"] == [168, 251]
    assert 0 < network["images_per_s"] < network["bare_per_s"]
    assert network["command_s"] > 40 / network["images_per_s"]
    assert found["mean_lexactum_on_2_cores"] == pytest.approx((168 * 251) ** 0.5)

"""The job on real rows and pixels: BOSS galaxies, Pan-STARRS1 lenses, a CFHTLS field, Bologna.

None of the data is in the repository; the tests skip where it is absent.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import yaml
from astropy.io import fits
from astropy.wcs import WCS

from lenspipe import job
from lenspipe.catalogue.candidates import IMAGES, array_of, open_candidates
from lenspipe.catalogue.funnel import Funnel, funnel
from lenspipe.config import load_survey, parse_survey
from lenspipe.contracts import Flag, Reason, member_column
from lenspipe.cutouts.formats.stamps import Options as StampOptions
from lenspipe.cutouts.formats.stamps import list_stamps
from lenspipe.metrics import RunMetrics
from lenspipe.models.ensemble import describe_ensemble
from lenspipe.run.opening import check_and_open
from lenspipe.run.verify import verify
from lenspipe.run_directory import THRESHOLD, RunDirectory, Stage
from lenspipe.score.score_cutouts import score_cutouts
from lenspipe.telling.events import Events
from lenspipe.telling.progress import make_progress
from tests.toy_models import expected_logits, make_ensemble, make_weights

pytestmark = pytest.mark.data

ENSEMBLE = "ps1-gri"
EXAMPLES = Path(__file__).parents[2] / "examples"
LRG_CUTS = {"bright_enough": "i_mag < 20.5", "red": "g_mag - i_mag BETWEEN 1.2 AND 3.6"}


def run_job(folder: Path, **blocks: Any) -> tuple[Funnel, RunDirectory]:
    """A whole survey in a folder, and where it ran; every run must pass `verify`."""
    common = {"candidates": {"top": 1000}, "runtime": {"provider": "cpu", "failure_limit": 1.0}}
    survey = {"name": folder.name, **common, **blocks}
    (folder / "survey.yaml").write_text(yaml.safe_dump(survey), encoding="utf-8")
    with make_progress() as progress:
        events = Events(RunMetrics(folder.name), progress)
        info = job.run_survey(load_survey(folder / "survey.yaml"), events)
    run = RunDirectory(str(folder / "run"))
    assert verify(run) == []
    assert info.funnel.accounted
    return info.funnel, run


def cutouts_of(example: str) -> dict[str, Any]:
    """The cutouts block of a layout that is shipped."""
    layout = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text(encoding="utf-8"))
    return dict(layout["cutouts"])


def rows_of(run: RunDirectory, folder: str, stage: Stage) -> dict[Any, dict[str, Any]]:
    """object_id -> row of the parts of a run."""
    table = run.read_folder(folder, [stage])
    return {} if table is None else {row["object_id"]: row for row in table.to_pylist()}


@pytest.mark.usefixtures("ray_cluster")
def test_150000_real_galaxies_through_both_photometric_stages(data: Path, tmp_path: Path) -> None:
    """The job's own stage `select`, on Ray; it goes no further, as nobody gave us their pixels."""
    path = data / "catalogues" / "sdss_lrg_ps1_gri_150k.parquet"
    survey = {
        "name": "lrg",
        "sources": {
            "path": str(path),
            "columns": {"id": "specobjid"},
            "rename": {f"{band}_mag": f"ps1_{band}_mag" for band in "gri"},
            "missing_values": [-999.0],
        },
        "cuts": LRG_CUTS,
        "photometry": {"model": "ps1-photometry", "keep": {"fraction": 0.2}},
        "cutouts": {
            "reader": "hdf5",
            "path": str(data / "ps1_lenses" / "ps1_grizy_70px.h5"),
            "bands": list("grizy"),
            "ids": "name",
            "zero_point": {"constant": 30.0},
            "crop": True,
        },
        "ensemble": ENSEMBLE,
        "candidates": {"top": 1},
        "runtime": {"provider": "cpu"},
    }
    with make_progress() as progress:
        events = Events(RunMetrics("lrg"), progress)
        with check_and_open(parse_survey(survey, str(tmp_path)), events) as opened:
            job.select(opened, workers=2)
            run = opened.run
    counted = funnel(run)
    assert counted.sources_in == 150_000
    assert counted.failed == 0
    table = pq.read_table(path, columns=["ps1_g_mag", "ps1_r_mag", "ps1_i_mag"]).to_pandas()
    known = table.where(table > -999.0)
    bright = known["ps1_i_mag"] < 20.5
    red = (known["ps1_g_mag"] - known["ps1_i_mag"]).between(1.2, 3.6)
    removed = {name: count.removed for name, count in counted.cuts.items()}
    assert removed == {"bright_enough": (~bright).sum(), "red": (bright & ~red).sum()}
    survivors = int((bright & red).sum())
    assert counted.rejected + counted.selected == survivors
    # The threshold is a quantile of a sample of 100,000 rows: 0.2 within five standard errors.
    assert counted.selected / survivors == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / 100_000))
    selected = run.read_folder("select", ["select"])
    assert selected is not None
    assert selected.num_rows == counted.selected
    threshold = run.read_json(THRESHOLD)
    assert threshold is not None
    assert (selected["photometry_score"].to_numpy() >= threshold["value"]).all()
    assert set(selected["locality"].to_pylist()) == {-1}


def scores_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["object_id"]: row for row in pq.read_table(out).to_pylist()}


def test_the_same_systems_score_alike_from_fits_and_from_hdf5(data: Path, tmp_path: Path) -> None:
    """Pixels and exposure times are equal in both, so the inputs are. A row sits at another place
    of its batch, where a kernel may add in another order: logits of order ten agree to 1e-4."""
    found = {}
    for layout in ("ps1_fits_stamps", "ps1_lenses"):
        out = tmp_path / f"{layout}.parquet"
        file = EXAMPLES / f"{layout}.yaml"
        summary = score_cutouts(ENSEMBLE, data / "ps1_lenses", out, layout=file, provider="cpu")
        assert summary.rows == summary.scored + summary.failed.total()
        found[layout] = scores_of(out)
    stamps, stack = found["ps1_fits_stamps"], found["ps1_lenses"]
    assert len(stamps) == 12
    assert len(stack) > 320
    members = [member_column(name) for name in describe_ensemble(ENSEMBLE).member_names]
    for name, row in stamps.items():
        for column in (*members, "score"):
            assert row[column] == pytest.approx(stack[name][column], abs=1e-4, nan_ok=True), (
                name,
                column,
            )
        separation = np.hypot(
            (row["ra"] - stack[name]["ra"]) * np.cos(np.radians(row["dec"])),
            row["dec"] - stack[name]["dec"],
        )
        assert separation * 3600 < 1.0  # arcsec: from the header's WCS and from the catalogue


@pytest.mark.usefixtures("ray_cluster")
def test_the_same_systems_as_surveys_from_fits_and_from_hdf5(data: Path, tmp_path: Path) -> None:
    """The same twelve rows in the same order: their logits agree to 1e-4, as above."""
    base = data / "ps1_lenses"
    lenses = pacsv.read_csv(base / "ps1_catalogue.csv")
    lenses = lenses.append_column("catalogue_row", pa.array(np.arange(lenses.num_rows)))
    names = {path.name.rpartition("_")[0] for path in (base / "raw_fits").glob("*.fits")}
    lenses = lenses.filter(pc.is_in(lenses["folder"], pa.array(sorted(names))))
    lenses = lenses.append_column("object_id", lenses["folder"])
    found = {}
    for example in ("ps1_fits_stamps", "ps1_lenses"):
        folder = tmp_path / example
        folder.mkdir()
        pq.write_table(lenses, folder / "lenses.parquet")
        block = cutouts_of(example)
        block["path"] = str(base / block["path"])
        counted, run = run_job(
            folder, sources={"path": "lenses.parquet"}, cutouts=block, ensemble=ENSEMBLE
        )
        assert counted.sources_in == 12
        found[example] = rows_of(run, "scores", "score")
        assert len(found[example]) == counted.scored > 8
    stamps, stack = found["ps1_fits_stamps"], found["ps1_lenses"]
    assert set(stamps) == set(stack)
    members = [member_column(name) for name in describe_ensemble(ENSEMBLE).member_names]
    for name, row in stamps.items():
        for column in (*members, "score"):
            assert row[column] == pytest.approx(stack[name][column], abs=1e-4, nan_ok=True), (
                name,
                column,
            )
        assert row["flags"] == stack[name]["flags"]


def detect(sep: Any, base: Path) -> pa.Table:
    """Sources of the i band with aperture magnitudes (1.5 arcsec radius) and their pixels."""
    images = {}
    for band in "gri":
        pixels = fits.getdata(base / f"CFHTLS-test_{band}.fits").astype(np.float32)
        images[band] = pixels - sep.Background(pixels).back()
    rms = sep.Background(images["i"]).globalrms
    objects = sep.extract(images["i"], 1.5, err=rms, minarea=5)
    header = fits.getheader(base / "CFHTLS-test_i.fits")
    header["RADESYS"] = header.pop("RADECSYS")
    ra, dec = WCS(header).all_pix2world(objects["x"], objects["y"], 0)
    columns: dict[str, Any] = {
        "object_id": np.arange(len(objects)),
        "ra": ra,
        "dec": dec,
        "x": objects["x"],
        "y": objects["y"],
    }
    for band, pixels in images.items():
        flux, _, _ = sep.sum_circle(pixels, objects["x"], objects["y"], 1.5 / 0.186)
        zero = fits.getheader(base / f"CFHTLS-test_{band}.fits")["MZP_AB"]
        measured = np.where(flux > 0, flux, 1.0)
        columns[f"{band}_mag"] = np.where(flux > 0, zero - 2.5 * np.log10(measured), np.nan)
    return pa.table(columns)


@pytest.mark.usefixtures("ray_cluster")
def test_a_cfhtls_field_as_a_survey(data: Path, tmp_path: Path) -> None:
    sep = pytest.importorskip("sep", reason="sep comes with the training extra")
    base = data / "survey_fields" / "humvi"
    catalogue = detect(sep, base)
    pq.write_table(catalogue, tmp_path / "catalogue.parquet")
    counted, run = run_job(
        tmp_path,
        sources={"path": "catalogue.parquet"},
        cuts={"measured": "g_mag < 28", "bright_enough": "i_mag < 24.2"},
        photometry={"model": "ps1-photometry", "keep": {"fraction": 0.8}},
        cutouts={
            "reader": "coadd",
            "tiles": str(base / "CFHTLS-test_*.fits"),
            "bands": {band: f"{{tile}}_{band}.fits" for band in "gri"},
            "zero_point": {"header": "MZP_AB"},
            "resample": True,
        },
        ensemble=ENSEMBLE,
        runtime={"provider": "cpu", "shard_rows": 64, "failure_limit": 1.0},
    )
    assert counted.sources_in == catalogue.num_rows > 60
    assert min(counted.cut, counted.rejected) > 3
    assert counted.candidates == counted.scored > 20
    # All that fails lies so near the rim that too little of its stamp is inside the field.
    reasons = {row["reason"] for row in rows_of(run, "failures", "score").values()}
    assert reasons <= {Reason.BAD_PIXELS}
    scores = rows_of(run, "scores", "score").values()
    assert all(row["flags"] & Flag.RESAMPLED for row in scores)
    check_stamps(run, catalogue)


def check_stamps(run: RunDirectory, catalogue: pa.Table) -> None:
    """Bright sources with no neighbour within 3 arcsec peak at the middle of their stamps."""
    group = open_candidates(run)
    assert group is not None
    ids = np.asarray(array_of(group, "object_id")[:])
    has_stamp = np.asarray(array_of(group, "has_stamp")[:])
    images = np.asarray(next(iter(group.require_group(IMAGES).arrays()))[1][:])
    x, y = catalogue["x"].to_numpy(), catalogue["y"].to_numpy()
    distance = np.hypot(x[:, None] - x, y[:, None] - y) + 1e9 * np.eye(len(x))
    alone = distance.min(axis=1) * 0.186 > 3.0
    inside = (np.minimum(x, y) > 40) & (np.maximum(x, y) < 400)
    i_mag = catalogue["i_mag"].to_numpy()
    bright = (i_mag > 18.0) & (i_mag < 22.8)  # the field's one brighter star is saturated
    looked = 0
    for row in np.flatnonzero(np.isin(ids, np.flatnonzero(alone & inside & bright)) & has_stamp):
        image = images[row, -1]
        middle = image.shape[0] // 2
        near = image[middle - 8 : middle + 9, middle - 8 : middle + 9]
        peak = np.array(np.unravel_index(np.argmax(near), near.shape)) - 8
        assert np.abs(peak).max() <= 1, ids[row]
        looked += 1
    assert looked >= 4


@pytest.fixture
def challenge(data: Path, tmp_path: Path) -> Path:
    """The challenge's ground stamps in its own folders. The samples are in R and G: R stands for I
    too, and G for U. They hold no masked pixel, so a strip of one stamp and most of the other are
    given the challenge's mask value."""
    for number, (band, sample) in enumerate(zip("RIGU", "RRGG", strict=True), start=1):
        folder = tmp_path / f"Band{number}"
        folder.mkdir()
        for name, columns in (("100002", 5), ("100004", 90)):
            path = folder / f"imageSDSS_{band}-{name}.fits"
            shutil.copy(data / "bologna_samples" / f"imageSDSS_{sample}-{name}.fits", path)
            if band == "G":
                with fits.open(path, mode="update") as units:
                    units[0].data[:, :columns] = 100.0
    return tmp_path


def expect_position(row: dict[str, Any], path: Path) -> None:
    """That of the header's cards, which are in radians."""
    card = fits.getheader(path)
    assert row["ra"] == pytest.approx(np.degrees(card["RA"]) % 360)
    assert row["dec"] == pytest.approx(np.degrees(card["DEC"]))


@pytest.mark.usefixtures("ray_cluster")
def test_bologna_ground_stamps_as_a_survey_are_masked_at_100_and_placed_by_radians(
    challenge: Path,
) -> None:
    bands = ("r", "i", "g", "u")
    make_ensemble(challenge, bands=bands, size=101, pixel_scale_arcsec=0.2)
    block = cutouts_of("bologna_ground")
    found = list_stamps(StampOptions.model_validate(block), str(challenge))
    pq.write_table(found, challenge / "catalogue.parquet")
    counted, run = run_job(
        challenge, sources={"path": "catalogue.parquet"}, cutouts=block, ensemble="toy.yaml"
    )
    assert (counted.sources_in, counted.scored) == (2, 1)
    row = rows_of(run, "scores", "score")["100002"]
    assert row["flags"] == Flag.MASKED
    failed = rows_of(run, "failures", "score")["100004"]
    assert failed["reason"] == Reason.BAD_PIXELS
    for name, each in (("100002", row), ("100004", failed)):
        expect_position(each, challenge / "Band1" / f"imageSDSS_R-{name}.fits")
    # The score of the bare arithmetic, with the median where the stamp held 100.
    paths = [challenge / f"Band{n}" / f"imageSDSS_{b}-100002.fits" for n, b in enumerate("RIGU", 1)]
    pixels = np.stack([fits.getdata(path) for path in paths]).astype(np.float32)
    assert (pixels[2] == 100.0).sum() == 5 * 101
    pixels[2, :, :5] = np.median(pixels[2, :, 5:])
    members = [expected_logits(pixels[None], make_weights((4, 101, 101), n)) for n in (0, 1)]
    assert row["score"] == pytest.approx(float(np.mean(members)), rel=1e-3, abs=1e-16)


def test_the_bologna_space_stamp_is_scored_by_the_layout_that_is_shipped(
    data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "space"
    (folder / "Band1").mkdir(parents=True)
    sample = data / "bologna_samples" / "imageEUC_VIS-100002.fits"
    shutil.copy(sample, folder / "Band1")
    ensemble = make_ensemble(tmp_path, bands=("vis",), size=101, pixel_scale_arcsec=0.1)
    out = tmp_path / "scores.parquet"
    layout = EXAMPLES / "bologna_space.yaml"
    summary = score_cutouts(str(ensemble), folder, out, layout=layout, provider="cpu")
    assert (summary.rows, summary.scored) == (1, 1)
    row = scores_of(out)["100002"]
    assert row["flags"] == 0
    expect_position(row, sample)
    pixels = fits.getdata(sample).astype(np.float32)[None, None]
    members = [expected_logits(pixels, make_weights((1, 101, 101), n)) for n in (0, 1)]
    assert row["score"] == pytest.approx(float(np.mean(members)), rel=1e-3, abs=1e-16)

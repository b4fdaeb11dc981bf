"""The shipped models on real surveys: BOSS galaxies, Pan-STARRS1 lenses, a CFHTLS field, Bologna.

None of the data is in the repository; the tests skip where it is absent.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from astropy.io import fits
from astropy.wcs import WCS

from lenspipe import config
from lenspipe.catalogue.candidates import IMAGES, array_of, open_candidates
from lenspipe.config import load_survey
from lenspipe.contracts import Flag, Reason, member_column
from lenspipe.events import Events
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.models.ensemble import describe_ensemble
from lenspipe.progress import make_progress
from lenspipe.run_directory import RunDirectory
from lenspipe.score_cutouts import score_cutouts
from lenspipe.select.counts import SelectCounts
from lenspipe.select.plan import plan_catalogue
from lenspipe.select.sources import list_parts
from lenspipe.select.stage import select_part
from lenspipe.select.threshold import settle_threshold
from lenspipe.verify import verify
from tests.toy_models import make_ensemble

pytestmark = pytest.mark.data

ENSEMBLE = "ps1-gri"
EXAMPLES = Path(__file__).parents[2] / "examples"
LRG_CUTS = {"bright_enough": "i_mag < 20.5", "red": "g_mag - i_mag BETWEEN 1.2 AND 3.6"}


def test_150000_real_galaxies_through_both_photometric_stages(data: Path) -> None:
    path = data / "catalogues" / "sdss_lrg_ps1_gri_150k.parquet"
    sources = config.Sources(
        path=str(path),
        columns=config.Columns(id="specobjid"),
        rename={f"{band}_mag": f"ps1_{band}_mag" for band in "gri"},
        missing_values=(-999.0,),
    )
    keep = config.Keep(fraction=0.2)
    photometry = config.Photometry(model="ps1-photometry", keep=keep)
    plan = plan_catalogue(sources, LRG_CUTS, photometry, None, ".")
    parts = list_parts(sources, ".")
    settled = settle_threshold(plan, parts)
    counts = SelectCounts()
    for part in parts:
        result = select_part(part, settled)
        assert result.counts.balanced
        assert result.selected.num_rows == result.counts.selected
        counts += result.counts
        photometry_score = result.selected["photometry_score"].to_numpy()
        assert (photometry_score >= settled.threshold).all()
    assert counts.rows_in == 150_000
    table = pq.read_table(path, columns=["ps1_g_mag", "ps1_r_mag", "ps1_i_mag"]).to_pandas()
    known = table.where(table > -999.0)
    bright = known["ps1_i_mag"] < 20.5
    red = (known["ps1_g_mag"] - known["ps1_i_mag"]).between(1.2, 3.6)
    removed = {name: count.false + count.unknown for name, count in counts.removed.items()}
    assert removed == {"bright_enough": (~bright).sum(), "red": (bright & ~red).sum()}
    survivors = int((bright & red).sum())
    assert counts.failed == 0
    assert counts.rejected + counts.selected == survivors
    # The threshold is a quantile of a sample of 100,000 rows: 0.2 within five standard errors.
    assert counts.selected / survivors == pytest.approx(0.2, abs=5 * np.sqrt(0.16 / 100_000))


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
            assert row[column] == pytest.approx(stack[name][column], abs=1e-4), (name, column)
        separation = np.hypot(
            (row["ra"] - stack[name]["ra"]) * np.cos(np.radians(row["dec"])),
            row["dec"] - stack[name]["dec"],
        )
        assert separation * 3600 < 1.0  # arcsec: from the header's WCS and from the catalogue


@pytest.fixture(scope="module")
def field(data: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: object) -> Path:
    """The run directory's parent of a survey job on the CFHTLS field."""
    sep = pytest.importorskip("sep", reason="sep comes with the training extra")
    folder = tmp_path_factory.mktemp("cfhtls")
    base = data / "survey_fields" / "humvi"
    pq.write_table(detect(sep, base), folder / "catalogue.parquet")
    survey = {
        "name": "cfhtls",
        "sources": {"path": "catalogue.parquet"},
        "cuts": {"measured": "g_mag < 28", "bright_enough": "i_mag < 24.2"},
        "photometry": {"model": "ps1-photometry", "keep": {"fraction": 0.8}},
        "cutouts": {
            "reader": "coadd",
            "tiles": str(base / "CFHTLS-test_*.fits"),
            "bands": {band: f"{{tile}}_{band}.fits" for band in "gri"},
            "zero_point": {"header": "MZP_AB"},
            "resample": True,
        },
        "ensemble": ENSEMBLE,
        "candidates": {"top": 1000},
        "runtime": {"provider": "cpu", "shard_rows": 64, "failure_limit": 1.0},
    }
    (folder / "survey.yaml").write_text(yaml.safe_dump(survey), encoding="utf-8")
    return folder


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


def test_a_cfhtls_field_as_a_survey(field: Path) -> None:
    with make_progress() as progress:
        info = run_survey(
            load_survey(field / "survey.yaml"), Events(RunMetrics("cfhtls"), progress)
        )
    catalogue = pq.read_table(field / "catalogue.parquet")
    funnel = info.funnel
    run = RunDirectory(str(field / "run"))
    assert verify(run) == []
    assert funnel.accounted
    assert funnel.sources_in == catalogue.num_rows > 60
    assert min(funnel.cut, funnel.rejected) > 3
    assert funnel.scored > 20
    assert funnel.candidates == funnel.scored
    # All that fails lies so near the rim that too little of its stamp is inside the field.
    failures = run.read_folder("failures", ["score"])
    reasons = {} if failures is None else dict.fromkeys(failures["reason"].to_pylist())
    assert set(reasons) <= {Reason.BAD_PIXELS}
    scores = run.read_folder("scores", ["score"])
    assert scores is not None
    assert (scores["flags"].to_numpy() & Flag.RESAMPLED).all()
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
    """The challenge's ground stamps in R and G; the samples hold no masked pixel, so a strip of
    one stamp and most of the other are given the challenge's mask value."""
    folder = tmp_path / "bologna"
    folder.mkdir()
    for path in (data / "bologna_samples").glob("imageSDSS_*.fits"):
        shutil.copy(path, folder)
    for name, columns in (("100002", 5), ("100004", 90)):
        with fits.open(folder / f"imageSDSS_G-{name}.fits", mode="update") as units:
            units[0].data[:, :columns] = 100.0
    return folder


def test_bologna_stamps_are_masked_at_100_and_placed_by_radians(
    challenge: Path, tmp_path: Path
) -> None:
    ensemble = make_ensemble(
        tmp_path / "models", bands=("r", "g"), size=101, pixel_scale_arcsec=0.2
    )
    layout = tmp_path / "bologna.yaml"
    block = {
        "reader": "stamps",
        "path": "{band}-{object_id}.fits",
        "bands": {"r": "imageSDSS_R", "g": "imageSDSS_G"},
        "position": {"unit": "rad"},
        "mask": {"values": [100]},
    }
    layout.write_text(yaml.safe_dump({"cutouts": block}), encoding="utf-8")
    out = tmp_path / "scores.parquet"
    summary = score_cutouts(str(ensemble), challenge, out, layout=layout, provider="cpu")
    assert (summary.rows, summary.scored) == (2, 1)
    row = scores_of(out)["100002"]
    assert row["flags"] & Flag.MASKED
    assert abs(row["score"]) < 1e-3  # fluxes are of order 1e-11: no 100 has reached the network
    failed = pq.read_table(tmp_path / "scores.failures.parquet").to_pylist()
    assert [(f["object_id"], f["reason"]) for f in failed] == [("100004", Reason.BAD_PIXELS)]
    for found in (row, failed[0]):
        card = fits.getheader(challenge / f"imageSDSS_R-{found['object_id']}.fits")
        assert found["ra"] == pytest.approx(np.degrees(card["RA"]) % 360)
        assert found["dec"] == pytest.approx(np.degrees(card["DEC"]))

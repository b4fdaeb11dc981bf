from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import requests
import zarr
from astropy.io import fits
from astropy.wcs import WCS
from matplotlib.image import imread
from prometheus_client.parser import text_string_to_metric_families

from lenspipe.catalogue.candidates import array_of, open_candidates
from lenspipe.run_directory import METRICS, RunDirectory
from lenspipe.serve.command import Service
from tests.serve.conftest import CANDIDATES, SIZE, WITHOUT_PIXELS


def get(service: Service, path: str) -> requests.Response:
    return requests.get(service.url + path, timeout=30)


def stored(run: RunDirectory) -> zarr.Group:
    group = open_candidates(run)
    assert group is not None
    return group


def test_the_run_is_told(service: Service) -> None:
    told = get(service, "/api/run").json()
    assert (told["name"], told["state"], told["sources"]) == ("toy", "done", 1201)
    assert told["candidates"] == CANDIDATES
    assert told["bands"] == ["g", "r", "i"]
    assert told["has_explanation"] is True


def test_candidates_come_by_rank(service: Service, run: RunDirectory) -> None:
    first = get(service, "/api/candidates?limit=15").json()
    rest = get(service, "/api/candidates?offset=15&limit=500").json()
    assert first["total"] == rest["total"] == CANDIDATES
    rows = first["rows"] + rest["rows"]
    assert [row["rank"] for row in rows] == list(range(1, CANDIDATES + 1))
    ids = np.asarray(array_of(stored(run), "object_id")[:])
    assert [row["object_id"] for row in rows] == [str(i) for i in ids]
    assert rows[0]["name"].startswith("J")
    assert get(service, "/api/candidates?offset=1000").json()["rows"] == []


def test_one_candidate_has_all_columns_of_the_catalogue(service: Service) -> None:
    told = get(service, "/api/candidates/3").json()
    assert told["rank"] == 3
    assert {"score_resnet_a", "score_vit_b", "probability", "flags", "healpix_29"} <= set(told)


def test_what_is_seen_alike(service: Service) -> None:
    told = get(service, "/api/candidates/2/similar?count=3").json()
    assert told["total"] == 3
    assert all(row["rank"] % 6 == 2 for row in told["rows"])
    assert get(service, "/api/candidates/999/similar").status_code == 400


def test_a_picture_is_the_stamp(service: Service) -> None:
    seen = {}
    for stretch in ("asinh", "sqrt", "linear", "zscale"):
        reply = get(service, f"/api/candidates/1/stamp.png?stretch={stretch}&scale=2")
        assert reply.headers["content-type"] == "image/png"
        seen[stretch] = imread(io.BytesIO(reply.content), format="png")
        assert seen[stretch].shape == (2 * SIZE, 2 * SIZE, 4)
        middle, corner = seen[stretch][SIZE, SIZE, :3], seen[stretch][1, 1, :3]
        assert middle.sum() > corner.sum() + 0.5
        red, blue = seen[stretch][..., 0].sum(), seen[stretch][..., 2].sum()
        assert red > blue
    assert not np.array_equal(seen["sqrt"], seen["linear"])
    grey = get(service, "/api/candidates/1/stamp.png?band=i")
    pixels = imread(io.BytesIO(grey.content), format="png")
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_the_map_of_what_spoke_for_a_lens_lies_over_it(service: Service) -> None:
    reply = get(service, "/api/candidates/1/explanation.png")
    alpha = imread(io.BytesIO(reply.content), format="png")[..., 3]
    assert alpha[SIZE // 2, SIZE // 2] > 0.7
    assert alpha[0, 0] < 0.05


def test_pixels_come_as_fits_with_their_place(service: Service, run: RunDirectory) -> None:
    reply = get(service, "/api/candidates/2/stamp.fits")
    group = stored(run)
    with fits.open(io.BytesIO(reply.content), checksum=True) as file:
        assert [hdu.name for hdu in file[1:]] == ["G", "R", "I"]
        expected = np.asarray(array_of(group, "images/image")[1])
        assert np.array_equal([hdu.data for hdu in file[1:]], expected)
        wcs = WCS(file[1].header)
        x, y = wcs.world_to_pixel_values(
            *(np.asarray(array_of(group, k)[1]).item() for k in ("ra", "dec"))
        )
        assert (x, y) == pytest.approx(((SIZE - 1) / 2, (SIZE - 1) / 2))
        assert file[1].header["ZEROPT"] == 25.0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/candidates/0", 422),
        ("/api/candidates/41", 400),
        ("/api/candidates/x", 422),
        ("/api/candidates/99999999999999999999", 422),
        ("/api/candidates/1%2F..%2F..%2Frun.json", 404),
        ("/api/candidates/..%2f..%2fetc%2fpasswd/stamp.png", 404),
        ("/api/candidates/1/stamp.png?stretch=no", 422),
        ("/api/candidates/1/stamp.png?band=../../x", 400),
        ("/api/candidates/1/stamp.png?image=../explanation", 400),
        ("/api/candidates/1/stamp.fits?image=%00", 400),
        ("/api/candidates/1/stamp.png?scale=1000", 422),
        (f"/api/candidates/{WITHOUT_PIXELS}/stamp.png", 400),
        ("/api/candidates?limit=100000", 422),
        ("/api/candidates?offset=-1", 422),
        ("/api/cone?ra=1&dec=99&radius_arcsec=1", 422),
        ("/api/cone?ra=nan&dec=1&radius_arcsec=1", 422),
        ("/api/nothing", 404),
        ("/../../etc/passwd", 404),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(service: Service, path: str, status: int) -> None:
    request = requests.Request("GET", service.url + path).prepare()
    request.url = service.url + path  # as it is, dots and all
    with requests.Session() as session:
        reply = session.send(request, timeout=30)
    assert reply.status_code == status
    assert "Traceback" not in reply.text
    assert "\n" not in (reply.json().get("error") or "")


def test_a_cone_gives_the_nearest_first(service: Service) -> None:
    told = get(service, "/api/cone?ra=150&dec=2&radius_arcsec=1800&limit=1000").json()
    away = [row["separation_arcsec"] for row in told["rows"]]
    assert len(away) > 50
    assert away == sorted(away)
    few = get(service, "/api/cone?ra=150&dec=2&radius_arcsec=1800&limit=5").json()
    assert len(few["rows"]) == 5
    assert few["total"] == 6


def test_prometheus_reads_the_metrics(service: Service, run: RunDirectory) -> None:
    run.store.write(METRICS, b"# HELP lenspipe_x X.\n# TYPE lenspipe_x gauge\nlenspipe_x 3.0\n")
    get(service, "/api/run")
    families = {f.name: f for f in text_string_to_metric_families(get(service, "/metrics").text)}
    counted = {s.labels["route"] for s in families["lenspipe_serve_requests"].samples
               if "route" in s.labels}  # fmt: skip
    assert "/api/run" in counted
    assert families["lenspipe_x"].samples[0].value == 3.0


def test_the_interface_describes_itself(service: Service) -> None:
    document = get(service, "/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert {"/api/run", "/api/candidates/{rank}", "/tap/sync", "/scs"} <= set(document["paths"])
    json.dumps(document)


@pytest.mark.timeout(300)
def test_schemathesis_finds_no_fault(service: Service) -> None:
    """Requests made from the OpenAPI document: none ends in a fault of the service's own, and
    answers are as the document says."""
    pytest.importorskip("schemathesis")
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json",
         "--max-examples", "40", "--seed", "1", "--checks", "not_a_server_error,"
         "response_schema_conformance,content_type_conformance", "--no-color"],
        capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]

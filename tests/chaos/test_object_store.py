"""Whole jobs with catalogue, pixels and run directory on S3, under faults of the store.

What holds in every test: the rows of the undisturbed run on the local disk, bit by bit, or a
`StoppedError` in one line after which the same command comes to those rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lenspipe import cutouts
from lenspipe.catalogue.candidates import array_of, open_candidates
from lenspipe.cli import app
from lenspipe.contracts import CutoutBatch, InputSpec
from lenspipe.cutouts.files.list_files import listed, listed_below
from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from lenspipe.storage.remote import OutageError
from lenspipe.storage.store import Store
from tests.chaos.s3_jobs import RESTS, Jobs, jobs
from tests.chaos.s3_server import Fault, Kind, Request, Server, serving
from tests.chaos.s3_survey import (
    assert_same,
    in_bucket,
    make_twin,
    upload,
    write_stamps,
)
from tests.toy_survey import BANDS, SIZE

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
PLANTED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SEED = int(os.environ.get("LENSPIPE_TEST_SEED", "20"))
# Short rests and time limits; what a user may set in the same way.
OPTIONS = {
    "attempts": 5,
    "first_rest_s": 0.02,
    "config_kwargs": {"read_timeout": 6, "connect_timeout": 6},
}


@dataclass(frozen=True)
class Place:
    """The bucket, the process that runs jobs, and the undisturbed run on the local disk."""

    server: Server
    jobs: Jobs
    twin: Path
    ray_folder: Path

    @property
    def undisturbed(self) -> str:
        """The run to compare with."""
        return str(self.twin.parent / "run")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("store")
    with (
        serving(folder) as server,
        pytest.MonkeyPatch.context() as patch,
        TemporaryDirectory(prefix="lp-", dir="/tmp") as ray_folder,  # sockets have short names
    ):
        environment = server.environment(
            FSSPEC_S3=json.dumps(OPTIONS), RAY_TMPDIR=ray_folder, **{RESTS: "0.2"}
        )
        for name, value in environment.items():
            patch.setenv(name, value)
        twin = make_twin(folder / "local")
        for name in ("catalogue", "cutouts.zarr"):
            upload(twin.parent / name, f"s3://sky/{name}")
        with jobs(folder, environment) as process:
            assert process.run(twin).error == ""
            yield Place(server, process, twin, Path(ray_folder))


@pytest.fixture(autouse=True)
def weather(place: Place) -> Iterator[None]:
    """Each test begins and ends in fair weather; a failing one shows the seed."""
    sys.stdout.write(f"LENSPIPE_TEST_SEED={SEED}\n")
    place.server.weather.clear(SEED)
    yield
    place.server.weather.clear(SEED)


def assert_undisturbed(place: Place, survey: Path) -> None:
    """The run that the survey left in the bucket is that of the local disk, and whole."""
    place.server.weather.clear()
    url = f"s3://sky/runs/{survey.stem}"
    assert_same(url, place.undisturbed)
    assert verify(RunDirectory(url)) == []


def succeed(place: Place, survey: Path, **options: Any) -> None:
    """Run a survey to its end."""
    ended = place.jobs.run(survey, **options)
    assert ended.error == "", f"{ended.error}: {ended.line}"


def lag(place: Place) -> None:
    """No listing shows anything of a run, as long as a test lasts."""
    place.server.weather.lagging = "sky/runs/"
    place.server.weather.listing_lag_s = 600.0


def puts(place: Place, part: str) -> list[str]:
    """Keys with `part` in them that were written since fair weather began."""
    return [r.key for r in place.server.weather.log if r.method == "PUT" and part in r.key]


def some(kind: Kind, rate: float = 0.1) -> Fault:
    """A kind at a rate; at most three times a request, so that five attempts suffice."""
    return Fault(kind, rate, times=3)


def test_a_run_survives_every_kind_of_fault_at_once(place: Place) -> None:
    kinds: tuple[Kind, ...] = (
        "internal_error",
        "slow_down",
        "reset",
        "truncate",
        "shorten",
        "lost_reply",
    )
    place.server.weather.faults = (*(some(kind, 0.04) for kind in kinds), some("stall", 0.01))
    survey = in_bucket(place.twin, "all-kinds")
    succeed(place, survey)
    injected = dict(place.server.weather.injected)
    assert min(injected.get(kind, 0) for kind in kinds) > 3, injected
    assert_undisturbed(place, survey)


def test_an_outage_that_outlasts_the_retries_stops_the_run_and_it_resumes(place: Place) -> None:
    survey = in_bucket(place.twin, "outage")

    def outage(request: Request) -> bool:
        begun = bool(puts(place, "/scores/"))
        # The lock is spared: the process that left it lives on here, and would be refused.
        return begun and "runs/outage" in request.key and "lock.json" not in request.key

    place.server.weather.faults = (Fault("slow_down", only=outage),)
    ended = place.jobs.run(survey)
    assert ended.error == "StoppedError"
    assert "\n" not in ended.line
    assert "runs/outage/" in ended.line
    assert "503" in ended.line or "SlowDown" in ended.line
    assert ended.line.endswith("the same command resumes")
    place.server.weather.clear()
    succeed(place, survey)
    assert_undisturbed(place, survey)
    assert_commands_work(place, "s3://sky/runs/outage")


def test_credentials_that_expire_in_mid_run_stop_it_and_it_resumes(place: Place) -> None:
    survey = in_bucket(place.twin, "expired")

    def pixels(request: Request) -> bool:
        return "cutouts.zarr/images/c" in request.key

    place.server.weather.faults = (Fault("expired", only=pixels),)
    ended = place.jobs.run(survey)
    assert (ended.error, "ExpiredToken" in ended.line) == ("StoppedError", True), ended.line
    place.server.weather.clear()
    assert_no_credential_is_told(place)
    succeed(place, survey)
    assert_undisturbed(place, survey)


def test_a_listing_that_lags_loses_and_repeats_nothing(place: Place) -> None:
    survey = in_bucket(place.twin, "lagging")
    lag(place)
    succeed(place, survey)
    written = puts(place, "/scores/")
    assert written
    succeed(place, survey)  # all is committed: nothing is done twice
    assert puts(place, "/scores/") == written
    succeed(place, survey, fresh=True)  # erases what no listing shows
    assert_undisturbed(place, survey)


def test_a_chunk_put_again_is_another_one_by_its_etag_alone(place: Place) -> None:
    upload(place.twin.parent / "cutouts.zarr", "s3://sky/again.zarr")
    store, chunk = Store("s3://sky/again.zarr"), "images/c/0/0/0/0"
    before = listed_below("s3://sky/again.zarr/images")
    content = store.read(chunk)
    store.write(chunk, content)
    same = listed_below("s3://sky/again.zarr/images")
    assert same.sha256 == before.sha256
    assert list(before.differences(same)) == []
    store.write(chunk, content[:-1] + bytes([content[-1] ^ 1]))
    after = listed_below("s3://sky/again.zarr/images")
    assert (after.bytes, after.count) == (before.bytes, before.count)
    assert after.sha256 != before.sha256
    [line] = before.differences(after)
    assert line.startswith(f"s3://sky/again.zarr/{chunk} changed at 20")
    assert listed([file.path for file in after.files]) == after
    assert next(listed([f"s3://sky/again.zarr/{chunk}"]).files) in set(after.files)


def assert_commands_work(place: Place, url: str) -> None:
    """`status`, `verify`, `report`, and what was published is what the local run published."""
    for command, told in (("status", "done"), ("verify", "verified"), ("report", "index.html")):
        found = CliRunner().invoke(app, [command, url])
        assert (found.exit_code, told in found.output) == (0, True), (command, found.output)
    local, remote = (
        RunDirectory(where).store.names("catalogue") for where in (place.undisturbed, url)
    )
    assert remote == local
    stamps = open_candidates(RunDirectory(url))
    assert stamps is not None
    expected = open_candidates(RunDirectory(place.undisturbed))
    assert expected is not None
    for name in ("images/image", "explanation", "score"):
        np.testing.assert_array_equal(array_of(stamps, name), array_of(expected, name))


def test_an_upload_in_parts_that_fails_is_invisible_and_is_cleared(
    place: Place, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(11 << 20))
    store = Store("s3://sky/runs/parts")

    def put() -> None:
        store.fs.put_file(str(large), store.path("large"), chunksize=5 << 20)

    def last_part(request: Request) -> bool:
        return "partNumber=3" in request.query or request.method == "DELETE"

    place.server.weather.faults = (Fault("slow_down", only=last_part),)
    with pytest.raises(OutageError):
        put()
    place.server.weather.clear()
    assert not store.exists("large")
    assert store.delete_unfinished([]) == 1
    assert store.delete_unfinished([]) == 0
    place.server.weather.faults = (Fault("reset", only=last_part, times=2),)
    put()
    assert store.read("large") == large.read_bytes()


READERS: dict[str, dict[str, Any]] = {
    "hdf5": {
        "path": "{root}/cutouts.h5",
        "dataset": "images",
        "row": "row",
        "bands": list(BANDS),
    },
    "zarr": {
        "path": "{root}/cutouts.zarr",
        "array": "images",
        "row": "row",
        "bands": list(BANDS),
    },
    "stamps": {
        "path": "{root}/stamps/{object_id}_{band}.fits",
        "bands": {band: band for band in BANDS},
    },
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_same_pixels_under_faults(place: Place, reader: str) -> None:
    rows = 8 if reader == "stamps" else 40
    if reader == "stamps":
        write_stamps(place.twin.parent, rows)
        upload(place.twin.parent / "stamps", "s3://sky/stamps")
    if reader == "hdf5":
        Store("s3://sky").write("cutouts.h5", (place.twin.parent / "cutouts.h5").read_bytes())
    kinds: tuple[Kind, ...] = ("reset", "truncate", "shorten", "slow_down")
    # Every object meets each of them, one after the other; the fifth attempt is answered.
    place.server.weather.faults = tuple(Fault(kind, times=1) for kind in kinds)
    disturbed = read_rows(reader, "s3://sky", rows)
    assert set(kinds) == set(place.server.weather.injected)
    undisturbed = read_rows(reader, str(place.twin.parent), rows)
    assert disturbed.failures == undisturbed.failures == ()
    np.testing.assert_array_equal(disturbed.images["image"], undisturbed.images["image"])
    place.server.weather.faults = (Fault("slow_down"),)
    with pytest.raises(OutageError):  # never a row that failed for good
        read_rows(reader, "s3://sky", rows)


def read_rows(reader: str, root: str, rows: int) -> CutoutBatch:
    """The first rows of the catalogue, read from below a folder or URL."""
    told = {**READERS[reader], "reader": reader, "pixel_scale_arcsec": 0.25}
    told["path"] = told["path"].replace("{root}", root)
    options = cutouts.options_model(reader).model_validate(told)
    numbers = np.arange(rows)
    table = pa.table(
        {
            "object_id": numbers + 1000,
            "ra": np.full(rows, 150.0),
            "dec": np.zeros(rows),
            "row": numbers,
        }
    )
    return cutouts.open_reader(options, ".").read(table, (InputSpec("image", BANDS, SIZE, 0.25),))


def assert_no_credential_is_told(place: Place) -> None:
    """What jobs and Ray wrote and said, and every object of every run so far."""
    planted = [value.encode() for name, value in os.environ.items() if name in PLANTED]
    assert len(planted) == len(PLANTED)
    store = Store("s3://sky/runs")
    said = {name: store.read(name) for name in store.names()}
    said |= {
        str(path): path.read_bytes()
        for folder in (place.jobs.errors.parent, place.ray_folder)
        for path in folder.rglob("*.log*")
        if path.is_file()
    }
    assert len(said) > 50
    assert any("session_" in name for name in said)  # Ray's own logs
    assert any(b"s3://sky" in as_text(name, data) for name, data in said.items())
    for name, data in said.items():
        assert not [secret for secret in planted if secret in as_text(name, data)], name


def as_text(name: str, data: bytes) -> bytes:
    """A file's bytes, those of Parquet unpacked."""
    if not name.endswith(".parquet"):
        return data
    return str(pq.read_table(BytesIO(data)).to_pydict()).encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["internal_error", "slow_down", "reset", "stall", "truncate", "shorten", "lost_reply"]
)
def test_a_run_survives_one_kind_at_a_high_rate(place: Place, kind: Kind) -> None:
    place.server.weather.faults = (some(kind, 0.02 if kind == "stall" else 0.3),)
    survey = in_bucket(place.twin, f"one-{kind}")
    succeed(place, survey)
    assert place.server.weather.injected[kind] > 3
    assert_undisturbed(place, survey)


@pytest.mark.slow
def test_a_command_ends_in_one_line_where_the_store_goes_away_and_resumes(place: Place) -> None:
    """The command itself, its lock and all: a dead process's lock is taken over."""
    survey = in_bucket(place.twin, "gone")

    def gone(_request: Request) -> bool:
        return bool(puts(place, "/scores/"))

    command = [sys.executable, "-m", "lenspipe", "run", str(survey)]
    place.server.weather.faults = (Fault("reset", only=gone),)
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert (ended.returncode, len(lines)) == (1, 1), ended.stderr
    assert lines[0].startswith("StoppedError: storage failed")
    assert lines[0].endswith("the same command resumes")
    place.server.weather.clear()
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert again.returncode == 0, again.stderr
    assert_undisturbed(place, survey)

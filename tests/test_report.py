from __future__ import annotations

import errno
import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.catalogue.candidates import Rule, StampBatch
from lenspipe.contracts import InputSpec
from lenspipe.errors import CorruptRunError
from lenspipe.report import write_report
from lenspipe.run_directory import RunDirectory
from lenspipe.stages.publish import PublishSettings, publish
from tests.catalogue.small_run import (
    cap,
    commit_scores,
    commit_select,
    failure_table,
    score_table,
)
from tests.tools import require_tool

SPEC = InputSpec("image", ("g", "r", "i"), 10, 0.25, 25.0)
RULE = Rule(score_above=-4.0, fpr=1e-3, n_negatives=54321, n_positives=900, prevalence=1e-4)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(str(tmp_path_factory.mktemp("published") / "run"))
    run.write_json(
        "run.json",
        {
            "state": "done",
            "updated": "2026-01-02T03:04:05+00:00",
            "survey": {"name": "toy <survey>", "cuts": {"red": "g - i > 1"}},
            "models": {"ensemble": "feedbeef"},
        },
    )
    commit_select(run, 0, 83, {"cut:red:false": 1200, "cut:red:unknown": 34, "network": 500})
    table = score_table(*cap(80, 150.0, 2.0, 0.4))
    failures = failure_table([900, 901, 902], ["not_found", "not_found", "bad_pixels"])
    commit_scores(run, [table], [failures])

    def stamps(chosen: pa.Table) -> Iterator[StampBatch]:
        ids = chosen["object_id"].to_pylist()[1:]
        rng = np.random.default_rng(0)
        pixels = rng.normal(size=(len(ids), *SPEC.shape)).astype(np.float32)
        yield StampBatch(ids, {"image": pixels})

    publish(run, PublishSettings("toy", RULE, (SPEC,), ("red",), mosaic=12), stamps)
    return run


@pytest.fixture
def run(published: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy that a test may change."""
    shutil.copytree(published.url, tmp_path / "run")
    return RunDirectory(str(tmp_path / "run"))


def page_of(run: RunDirectory) -> str:
    return run.store.read("report/index.html").decode()


def test_the_page_needs_nothing_beside_it(run: RunDirectory) -> None:
    page = page_of(run)
    references = re.findall(r'(?:src|href|srcset)="([^"]*)"', page)
    assert references
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)
    assert "url(" not in page


def test_the_page_tells_the_funnel_the_failures_and_the_threshold(run: RunDirectory) -> None:
    text = " ".join(
        html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page_of(run), flags=re.S)).split()
    )
    for expected in (
        "toy <survey>",
        "1,817",
        "cut: red 583 1,234 34 for a missing value",
        "Every source is accounted for",
        "not found 2",
        "bad pixels 1",
        "54,321 non-lenses, 900 lenses",
        "0.001 on the ensemble's test set",
        "fraction of lenses of 0.0001",
        "feedbeef",
        "read 2.0",
    ):
        assert expected in text


def test_the_mosaic_shows_the_best_and_says_where_pixels_are_missing(run: RunDirectory) -> None:
    page = page_of(run)
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    best = scored.sort_by([("score", "descending")])["object_id"].to_pylist()[:12]
    assert [int(i) for i in re.findall(r'<span class="id">(\d+)</span>', page)] == best
    assert page.count("no pixels") == 1


def test_it_can_be_made_again_from_the_files(run: RunDirectory) -> None:
    before = page_of(run)
    run.store.delete("report/index.html")
    assert write_report(RunDirectory(run.url), 12) == "report/index.html"
    assert page_of(run) == before


def test_a_run_that_lost_a_source_says_so(run: RunDirectory) -> None:
    run.store.delete("funnel.json")
    commit_select(run, 1, 7, {})
    write_report(run)
    assert "Not every source is accounted for" in page_of(run)


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    write_report(run)
    assert "lenspipe run" in page_of(run)


@pytest.mark.tool
def test_a_browser_shows_it(run: RunDirectory, tmp_path: Path) -> None:
    chromium = require_tool("chromium")
    page = run.store.local_path("report/index.html")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    shown = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            profile,
            "--dump-dom",
            f"file://{page}",
        ],
        capture_output=True,
        check=True,
        timeout=90,
    )
    assert shown.stdout.count(b"<figure>") == 12


@pytest.mark.parametrize(
    ("name", "damage", "product"),
    [
        ("candidates.zarr/images/zarr.json", None, "candidates.zarr"),
        ("candidates.zarr/images/zarr.json", b"{", "candidates.zarr"),
        ("candidates.zarr/images/image/c/0/0/0/0", b"junk", "candidates.zarr"),
        ("catalogue/partition_info.csv", None, "catalogue"),
        ("catalogue/partition_info.csv", b"Norder,Npix\n", "catalogue"),
        ("catalogue/hats.properties", b"\xff\xfe", "catalogue"),
        ("catalogue/dataset/Norder", None, "catalogue"),
        ("catalogue/dataset/Norder", b"PAR1", "catalogue"),
        ("funnel.json", b"{}", "funnel.json"),
    ],
)
def test_a_damaged_product_is_named_in_one_line(
    run: RunDirectory, name: str, damage: bytes | None, product: str
) -> None:
    file = next(file for file in run.store.names() if file.startswith(name))
    if damage is None:
        run.store.delete(file)
    else:
        run.store.write(file, damage)
    told = f"^{re.escape(product)}: cannot be read: .*: lenspipe run makes it anew$"
    with pytest.raises(CorruptRunError, match=told):
        write_report(run)


def test_storage_that_refuses_is_no_damaged_product(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for reader in ("open_candidates", "scored_files", "stream"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
            patch.setattr(f"lenspipe.report.{reader}", refuse)
            write_report(run)

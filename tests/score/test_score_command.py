"""`lenspipe score` as it is called: paths and URLs arrive as they were written."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from lenspipe.cli import main
from lenspipe.score import score_cutouts as module
from lenspipe.storage.store import Store
from tests import toy_models

ROWS, SIZE = 5, 8
BANDS = ("g", "r", "i")
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Calls the command with the toy ensemble in `tmp_path`: (exit status, what went wrong)."""
    ensemble = str(toy_models.make_ensemble(tmp_path / "models", bands=BANDS, size=SIZE))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str]:
        given = ["lenspipe", "score", ensemble, *map(str, arguments), "--provider", "cpu"]
        monkeypatch.setattr(sys, "argv", given)
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(ROWS, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def stack(tmp_path: Path, pixels: np.ndarray) -> Path:
    path = tmp_path / "cutouts" / "a.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        data = file.create_dataset("images", data=pixels)
        data.attrs.update({"bands": "gri", "pixel_scale_arcsec": 0.25})
    return path


def _write_stamps(folder: Path, names: list[str], pixels: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    for name, images in zip(names, pixels, strict=False):
        for band, image in zip(BANDS, images, strict=True):
            fits.PrimaryHDU(image).writeto(folder / f"{name}_{band}.fits")
    return folder


def _seen(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_urls_of_this_machine_are_read_and_written(
    score: Command, stack: Path, tmp_path: Path
) -> None:
    here = stack.parent
    (here / "c.csv").write_text("object_id\n" + "\n".join("edcba") + "\n")
    layout = here / "layout.yaml"
    layout.write_text(f"catalogue: file://{here}/c.csv\n")
    (tmp_path / "out").mkdir()
    before = _seen(tmp_path)
    given = (
        (stack, "--catalogue", f"file://{here}/c.csv", "--out", f"file://{tmp_path}/out/a.parquet"),
        (stack, "--layout", layout, "--out", "out/b.parquet"),
    )
    for arguments in given:
        assert score(*arguments) == (0, "")
    assert _seen(tmp_path) == before
    assert pq.read_table("out/a.parquet")["object_id"].to_pylist() == list("edcba")
    assert pq.read_table("out/b.parquet").equals(pq.read_table("out/a.parquet"))
    assert {"a.report.html", "a.failures.parquet"} < _seen(tmp_path / "out")


def test_a_url_of_this_machine_is_no_other_file(score: Command, stack: Path) -> None:
    catalogue = stack.parent / "c.parquet"
    pq.write_table(pa.table({"object_id": range(ROWS)}), catalogue)
    before = catalogue.read_bytes()
    for read, written in ((catalogue, f"file://{catalogue}"), (f"local://{catalogue}", catalogue)):
        status, told = score(stack, "--catalogue", read, "--out", written)
        assert (status, told.count("\n")) == (2, 1)
        assert told.startswith("error: --out: expected ")
    assert catalogue.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a.h5", "--out", "s3:/bucket/s.parquet"), "--out: expected SCHEME://"),
        (("a.h5", "--out", "s3://s.parquet"), "--out: expected a bucket and a name in it"),
        (
            ("a.h5", "--out", "ftp://host/a/s.parquet"),
            "--out: expected a folder, or a URL of s3://",
        ),
        (("s3://bucket/a.h5", "--out", "s.parquet"), "CUTOUTS: expected a file or folder of this"),
        (("s3:/bucket/a.h5", "--out", "s.parquet"), "CUTOUTS: expected SCHEME://"),
        (
            ("a.h5", "--layout", "s3://bucket/l.yaml", "--out", "s.parquet"),
            "--layout: expected a file of this machine, found s3://bucket/l.yaml",
        ),
        (
            ("a.h5", "--catalogue", "gs:/bucket/c.csv", "--out", "s.parquet"),
            "--catalogue: expected SCHEME://",
        ),
        (
            ("a.h5", "--catalogue", "nix://bucket/c.parquet", "--out", "s.parquet"),
            "catalogue nix://bucket/c.parquet: expected a path or a URL that fsspec opens",
        ),
        (("a.h5", "--catalogue", "nix://bucket/c.csv", "--out", "s.parquet"), "nix://bucket/c.csv"),
    ],
)
def test_urls_that_cannot_be_are_one_line(
    score: Command, stack: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, told: str
) -> None:
    monkeypatch.chdir(stack.parent)
    status, line = score(*arguments)
    assert (status, line.count("\n")) == (2, 1), line
    assert told in line
    assert _seen(stack.parent) == {"a.h5"}


def test_names_with_a_point_are_as_they_stand_in_the_csv(
    score: Command, tmp_path: Path, pixels: np.ndarray
) -> None:
    names = ["1234.060", "1234.06", "7", "8.5"]
    folder = _write_stamps(tmp_path / "stamps", names, pixels)
    rows = "".join(f"{k}.0,{name}\n" for k, name in enumerate(names))
    (tmp_path / "c.csv").write_text(f"object_id,cell\n{rows}")
    settings = ("--set", "pixel_scale_arcsec=0.25", "--set", 'path="{cell}_{band}.fits"')
    assert score(
        folder, "--catalogue", "c.csv", "--out", "s.parquet", "--no-report", *settings
    ) == (0, "")
    assert pq.read_table("s.failures.parquet").num_rows == 0
    scored = pq.read_table("s.parquet")
    assert scored["object_id"].to_pylist() == ["0.0", "1.0", "2.0", "3.0"]
    weights = [toy_models.make_weights((3, SIZE, SIZE), seed) for seed in (0, 1)]
    wanted = np.mean([toy_models.expected_logits(pixels[:4], w) for w in weights], axis=0)
    np.testing.assert_allclose(scored["score"].to_numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_names_that_are_no_utf8_are_one_line(
    score: Command, stack: Path, tmp_path: Path, pixels: np.ndarray
) -> None:
    strange = stack.parent.rename(tmp_path / "d\udcff")
    (strange / "c.csv").write_text("object_id\n1\n")
    good = tmp_path / "good"
    _write_stamps(good, ["q\udcff"], pixels)
    h5 = tmp_path / "a.h5"
    (strange / "a.h5").rename(h5)
    for arguments in (
        (strange, "--out", "s.parquet"),
        (h5, "--out", strange / "s.parquet"),
        (h5, "--catalogue", strange / "c.csv", "--out", "s.parquet"),
        (h5, "--layout", strange / "l.yaml", "--out", "s.parquet"),
        (good, "--out", "s.parquet", "--set", "pixel_scale_arcsec=0.25"),
    ):
        status, told = score(*arguments)
        assert (status, told.count("\n")) == (2, 1), told
        assert "expected a name in UTF-8, found " in told
        assert r"\udcff" in told
    os.chdir(strange)
    assert score(h5, "--out", "s.parquet")[0] == 2
    assert not list(tmp_path.rglob("s.*"))


def test_a_folder_that_may_not_be_listed_is_one_line(
    score: Command, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(stack.parent))

    for method in ("iterdir", "exists"):
        monkeypatch.setattr(Path, method, refuse)
        status, told = score(stack.parent, "--out", "s.parquet")
        assert (status, told.count("\n")) == (2, 1)
        assert told.startswith(f"error: CUTOUTS {stack.parent}: expected what may be read")


@pytest.mark.parametrize("refused", ["write", "render"])
def test_a_disk_that_is_full_when_the_page_comes_leaves_the_scores(
    score: Command, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "s.report.html"))

    monkeypatch.setattr(
        *{"write": (Store, "write"), "render": (module, "render_report")}[refused], full
    )
    status, told = score(stack, "--out", "s.parquet")
    assert (status, told.count("\n")) == (1, 1)
    assert told.startswith("StoppedError: ")
    assert "bytes free" in told
    assert told.endswith(
        f"; {tmp_path}/s.parquet and {tmp_path}/s.failures.parquet are complete, "
        f"only the page {tmp_path}/s.report.html was not made\n"
    )
    assert pq.read_table("s.parquet").num_rows == ROWS
    assert pq.read_table("s.failures.parquet").num_rows == 0
    assert not Path("s.report.html").exists()

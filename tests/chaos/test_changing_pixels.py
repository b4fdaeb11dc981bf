"""A job whose pixels change under it publishes nothing, and says what to do (Ray and all)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits

from lenspipe.config import load_survey
from lenspipe.errors import PixelsChangedError, ResumeRefusedError
from lenspipe.job import run_survey
from lenspipe.metrics import RunMetrics
from lenspipe.run.verify import verify
from lenspipe.run_directory import CATALOGUE, RunDirectory, Stage
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import BANDS, make_survey

pytestmark = [pytest.mark.chaos, pytest.mark.usefixtures("ray_cluster")]
SIDE, STEP = 4096, 0.25 / 3600


class _Spoiler(SilentProgress):
    """Writes a tile in place when a stage begins or ends; keeps the notes."""

    def __init__(self, tile: Path, moment: str) -> None:
        self._tile, self._moment = tile, moment
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage_started(self, stage: Stage, total_rows: int, done_rows: int) -> None:  # noqa: ARG002 - Progress
        self._spoil(f"{stage} starts")

    def stage_finished(self, stage: Stage) -> None:
        self._spoil(f"{stage} ends")

    def _spoil(self, moment: str) -> None:
        if moment != self._moment:
            return
        size = self._tile.stat().st_size
        with fits.open(self._tile, mode="update") as file:
            file[0].data += np.float32(1.0)
        assert self._tile.stat().st_size == size


def _survey(folder: Path) -> Path:
    """The toy survey on tiles: one per band, of 0.28 degrees; other sources are on none."""
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update({"CRVAL1": 151.5, "CRPIX1": SIDE / 2, "CDELT1": -STEP})
    header.update({"CRVAL2": 0.0, "CRPIX2": SIDE / 2, "CDELT2": STEP})
    survey = make_survey(
        folder,
        rows=2000,
        cutouts={
            "reader": "coadd",
            "tiles": "tiles/*",
            "bands": {band: f"{{tile}}_{band}.fits" for band in BANDS},
        },
    )
    rng = np.random.default_rng(4)
    (folder / "tiles").mkdir()
    for band in BANDS:
        pixels = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
        fits.PrimaryHDU(pixels, header).writeto(folder / "tiles" / f"a_{band}.fits")
    return survey


def _run(survey: Path, moment: str = "never", **options: Any) -> tuple[Any, list[str]]:
    progress = _Spoiler(survey.parent / "tiles" / "a_r.fits", moment)
    info = run_survey(load_survey(survey), Events(RunMetrics("toy"), progress), **options)
    return info, progress.notes


@pytest.mark.parametrize("moment", ["score starts", "score ends"])
def test_a_tile_written_in_place_stops_the_run_before_it_publishes(
    tmp_path: Path, moment: str
) -> None:
    survey = _survey(tmp_path)
    with pytest.raises(PixelsChangedError, match=r"band r: .*a_r\.fits changed at 20"):
        _run(survey, moment)
    run = RunDirectory(str(tmp_path / "run"))
    assert not run.store.exists(CATALOGUE)
    assert (run.read_json("run.json") or {})["state"] == "running"
    with pytest.raises(ResumeRefusedError, match=r"pixels\.r\.sha256.*--retry-failed.*a_r\.fits"):
        _run(survey)
    if moment == "score starts":
        return
    first, _ = _run(survey, retry_failed=True)  # scores of before, as was asked for
    assert first.funnel.scored > 2
    assert verify(run) == []
    content = yaml.safe_load(survey.read_text(encoding="utf-8"))
    survey.write_text(yaml.safe_dump({**content, "candidates": {"top": 1}}), encoding="utf-8")
    again, notes = _run(survey)
    assert again.candidates == 1
    assert "listing the pixels again" not in notes  # nothing was scored

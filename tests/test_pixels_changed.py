"""Pixels that change while a run scores them: seen before it publishes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lenspipe.config import load_survey
from lenspipe.errors import InputError, PixelsChangedError
from lenspipe.job import check_pixels
from lenspipe.metrics import RunMetrics
from lenspipe.run.identity import check_same_pixels
from lenspipe.run.opening import check_and_open
from lenspipe.telling.events import Events
from lenspipe.telling.progress import SilentProgress
from tests.toy_survey import make_survey


def _events() -> Events:
    return Events(RunMetrics("toy"), SilentProgress())


def _change_a_pixel(path: Path) -> None:
    """The last byte of the file is another one; its size is the same."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_file_written_in_place_since_the_check_stops_the_run_in_one_line(
    tmp_path: Path,
) -> None:
    survey = make_survey(tmp_path, rows=30)
    with check_and_open(load_survey(survey), _events()) as job:
        check_pixels(job)  # nothing changed
        _change_a_pixel(tmp_path / "cutouts.h5")
        with pytest.raises(PixelsChangedError) as caught:
            check_pixels(job)
    line = str(caught.value)
    assert line.startswith("cutouts, band g: expected the pixels that the run began with")
    assert f"{tmp_path}/cutouts.h5 changed at 20" in line
    assert "--fresh" in line
    assert "--retry-failed" in line
    assert "\n" not in line
    assert caught.value.exit_status == 2
    # The same command is refused by the same difference: the run on disk keeps what it began with.
    with (
        pytest.raises(InputError, match=r"pixels\.g\.sha256.*--retry-failed.*newest file: cutouts"),
        check_and_open(load_survey(survey), _events()),
    ):
        pass
    with check_and_open(load_survey(survey), _events(), retry_failed=True) as job:
        check_pixels(job)


def test_a_band_that_is_gone_is_told_by_its_first_file(tmp_path: Path) -> None:
    survey = make_survey(tmp_path, rows=30)
    with check_and_open(load_survey(survey), _events()) as job:
        with pytest.raises(PixelsChangedError, match=r"band g: .* found \S+cutouts\.h5 gone$"):
            check_same_pixels(job.checked.pixels, {})
        (tmp_path / "cutouts.h5").unlink()
        with pytest.raises(PixelsChangedError, match=r"cutouts\.h5 gone$"):
            check_pixels(job)

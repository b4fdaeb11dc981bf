"""What the check of a survey tells beside what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from lenspipe.check import check_survey, describe
from lenspipe.config import load_survey
from tests.toy_survey import make_survey, write_cutouts


@pytest.mark.parametrize(
    ("numbers", "pair"), [(("1", "2", "10"), ("10", "2")), (("01", "02", "10"), None)]
)
def test_files_that_were_counted_by_number_are_warned_of(
    tmp_path: Path, numbers: tuple[str, ...], pair: tuple[str, str] | None
) -> None:
    survey = make_survey(tmp_path, 30)
    for number in numbers:
        write_cutouts(tmp_path / f"part{number}.h5", 20, np.random.default_rng(0))
    content = yaml.safe_load(survey.read_text())
    content["cutouts"]["path"] = "part*.h5"
    survey.write_text(yaml.safe_dump(content))
    told = dict(describe(check_survey(load_survey(survey)))).get("warning")
    if pair is None:
        assert told is None
    else:
        assert told is not None
        assert f"part{pair[0]}.h5 before {tmp_path}/part{pair[1]}.h5" in told


@pytest.mark.parametrize("name", ["gl[1]ob", "s*r", "br{a}ce"])
def test_the_name_of_a_folder_is_no_pattern(tmp_path: Path, name: str) -> None:
    make_survey(tmp_path / "gl1ob", 40)
    checked = check_survey(load_survey(make_survey(tmp_path / name, 30)))
    files = [file.path for listing in checked.pixels.values() for file in listing.files]
    assert set(files) == {f"{tmp_path}/{name}/cutouts.h5"}

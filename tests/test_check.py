"""What the check of a survey tells beside what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from lenspipe.check import check_survey
from lenspipe.config import load_survey
from tests.toy_survey import make_survey


@pytest.mark.parametrize("name", ["gl[1]ob", "s*r", "br{a}ce"])
def test_the_name_of_a_folder_is_no_pattern(tmp_path: Path, name: str) -> None:
    make_survey(tmp_path / "gl1ob", 40)
    checked = check_survey(load_survey(make_survey(tmp_path / name, 30)))
    files = [file.path for listing in checked.pixels.values() for file in listing.files]
    assert set(files) == {f"{tmp_path}/{name}/cutouts.h5"}

"""A survey file's list of known lenses, from the check to what the catalogue says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lenspipe.check import check_survey
from lenspipe.config import load_survey
from lenspipe.errors import InputError
from lenspipe.select.lookup import Lookup
from tests.toy_survey import make_survey


def test_a_list_is_read_by_the_check_and_its_lenses_found_in_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "lenses.csv").write_text("name,ra,dec\nA,151.0,0.5\nB,10,10\n")
    survey = load_survey(make_survey(tmp_path, 100, known_lenses={"path": "lenses.csv"}))
    checked = check_survey(survey)
    known = checked.publish_settings().known
    assert known is not None
    assert known.table["name"].to_pylist() == ["A", "B"]
    assert checked.identity()["known_lenses"] == {"rows": 2, "sha256": known.sha256}
    assert checked.identity()["survey"]["known_lenses"]["radius_arcsec"] == 2.0

    rows = pq.read_table(tmp_path / "catalogue" / "part.parquet")
    ra, dec = (rows[name].to_numpy() for name in ("ra", "dec"))
    found = Lookup(checked.parts, checked.select_plan)(ra, dec, 1e-3)
    cut = rows["i_mag"].to_numpy() >= 21.0
    assert [f and f.object_id for f in found] == rows["object_id"].to_pylist()
    np.testing.assert_array_equal([f is not None and f.left == "cut" for f in found], cut)
    assert {f.reason for f in found if f and f.left == "cut"} == {"bright_enough"}
    assert {f.left for f in found if f} == {"cut", "rejected"}


def test_a_survey_without_a_list_has_none(tmp_path: Path) -> None:
    checked = check_survey(load_survey(make_survey(tmp_path, 100)))
    assert checked.publish_settings().known is None
    assert "known_lenses" not in checked.identity()


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"path": "none.csv"}, r"^known_lenses.path: expected a VOTable, .*none\.csv"),
        ({"path": "lenses.csv", "ra": "x"}, r"^known_lenses.ra: expected one of name, ra, dec"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(
    tmp_path: Path, block: dict[str, object], told: str
) -> None:
    (tmp_path / "lenses.csv").write_text("name,ra,dec\nA,151.0,0.5\n")
    survey = load_survey(make_survey(tmp_path, 100, known_lenses=block))
    with pytest.raises(InputError, match=told):
        check_survey(survey)


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({}, r"known_lenses.path: expected"),
        ({"path": "a.csv", "radius": 2}, r"known_lenses.radius: expected a known key"),
        ({"path": "a.csv", "radius_arcsec": 0}, r"known_lenses.radius_arcsec: expected"),
        ({"path": "a.csv", "radius_arcsec": 61}, r"known_lenses.radius_arcsec: expected"),
    ],
)
def test_keys_are_checked(tmp_path: Path, block: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_survey(make_survey(tmp_path, 100, known_lenses=block))

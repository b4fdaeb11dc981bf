"""What the plan of stage `select` refuses before a row is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lenspipe.config import load_survey
from lenspipe.contracts import RESERVED_COLUMNS
from lenspipe.errors import InputError
from lenspipe.select.plan import plan_select
from tests.toy_survey import make_survey


def _survey(folder: Path, name: str) -> Path:
    """The toy survey, whose column of positions is called `name`."""
    survey = make_survey(folder, rows=20)
    part = folder / "catalogue" / "part.parquet"
    table = pq.read_table(part)
    pq.write_table(
        table.rename_columns([name if c == "row" else c for c in table.schema.names]), part
    )
    content = yaml.safe_load(survey.read_text())
    content["cutouts"]["row"] = name
    survey.write_text(yaml.safe_dump(content, sort_keys=False))
    return survey


@pytest.mark.parametrize("name", sorted(RESERVED_COLUMNS))
def test_a_column_called_as_one_that_a_run_adds_is_refused(tmp_path: Path, name: str) -> None:
    """A table with two columns of one name breaks the run after all of stage `select`."""
    survey = _survey(tmp_path, name)
    with pytest.raises(InputError) as refused:
        plan_select(load_survey(survey))
    assert refused.value.field == "cutouts"
    assert refused.value.found == name
    content = yaml.safe_load(survey.read_text())
    content["sources"]["rename"] = {"image_row": name}
    content["cutouts"]["row"] = "image_row"
    survey.write_text(yaml.safe_dump(content, sort_keys=False))
    assert plan_select(load_survey(survey)).carried == ("image_row",)


@pytest.mark.parametrize("reader", ["hdf5", "stamps"])
def test_a_column_of_floats_for_whole_numbers_is_refused(tmp_path: Path, reader: str) -> None:
    """As pandas makes them of a column with gaps."""
    survey = make_survey(tmp_path, rows=20)
    part = tmp_path / "catalogue" / "part.parquet"
    table = pq.read_table(part)
    place = table.schema.names.index("row")
    pq.write_table(table.set_column(place, "row", table["row"].cast(pa.float64())), part)
    content = yaml.safe_load(survey.read_text())
    field = "cutouts.row"
    if reader == "stamps":
        field = "cutouts.path"
        bands = {"g": "g", "r": "r", "i": "i"}
        content["cutouts"] = {"reader": reader, "path": "{row:06d}_{band}.fits", "bands": bands}
    survey.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(InputError, match=f"{field}: expected whole numbers in .* found double"):
        plan_select(load_survey(survey))

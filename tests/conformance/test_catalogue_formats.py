"""Every format that a table is exported to: found by the registry, held to the same behaviour."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from pyarrow import csv

from lenspipe.catalogue import formats
from lenspipe.catalogue.export import publishable
from lenspipe.contracts import score_schema
from lenspipe.errors import InputError
from tests.catalogue.small_run import MEMBERS, cap, score_table

SUFFIXES = formats.suffixes()
# Regions hold positions and a label.
TABULAR = [suffix for suffix in SUFFIXES if suffix != ".reg"]


def read(path: Path) -> dict[str, list[Any]]:
    """Columns as Python values, None where a value is missing."""
    if path.suffix == ".csv":
        options = csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
        return dict(csv.read_csv(path, convert_options=options).to_pydict())
    if path.suffix == ".parquet":
        return dict(pq.read_table(path).to_pydict())
    table = Table.read(path)
    if path.suffix == ".fits":
        table.convert_bytestring_to_unicode()
    return {name: table[name].tolist() for name in table.colnames}


def scores(kind: pa.DataType, n: int = 7) -> pa.Table:
    return score_table(*cap(n, 150.0, 2.0, 0.1), id_type=kind)


@pytest.mark.parametrize("suffix", TABULAR)
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()], ids=["int", "string"])
def test_rows_come_back(suffix: str, kind: pa.DataType, tmp_path: Path) -> None:
    rows = scores(kind)
    out = tmp_path / f"a{suffix}"
    formats.write_rows(rows.to_reader(), str(out), "scores")
    found = read(out)
    assert list(found) == rows.column_names
    for name, expected in rows.to_pydict().items():
        if isinstance(expected[0], float):
            np.testing.assert_allclose(found[name], expected, rtol=1e-6)
        else:
            assert found[name] == expected, name
    np.testing.assert_array_equal(found["ra"], rows["ra"].to_numpy())


@pytest.mark.parametrize("suffix", TABULAR)
def test_what_is_missing_stays_missing(suffix: str, tmp_path: Path) -> None:
    candidates = scores(pa.int64()).select(["object_id", "ra", "dec", "score", "probability"])
    candidates = candidates.set_column(
        3, candidates.schema.field("score"), pa.nulls(7, pa.float32())
    )
    out = tmp_path / f"a{suffix}"
    formats.write_rows(publishable(candidates).to_reader(), str(out), "candidates")
    found = read(out)
    assert found["votes"] == [None] * 7
    assert [value for value in found["grade"] if value not in (None, "")] == []
    missing = [value is None or bool(np.isnan(value)) for value in found["score"]]
    assert missing == [True] * 7
    assert found["object_id"] == candidates["object_id"].to_pylist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"a{suffix}"
    formats.write_rows(score_schema(pa.string(), MEMBERS).empty_table().to_reader(), str(out), "s")
    if suffix in TABULAR:
        found = read(out)
        assert list(found) == score_schema(pa.string(), MEMBERS).names
        assert found["ra"] == []
    else:
        assert "circle" not in out.read_text()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_writer_that_fails_leaves_the_file_before_it(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"a{suffix}"
    out.write_text("before")
    rows = scores(pa.int64())

    def batches() -> Iterator[pa.RecordBatch]:
        yield from rows.to_batches()
        raise InputError("rows", "all of them", "half")

    broken = pa.RecordBatchReader.from_batches(rows.schema, batches())
    with pytest.raises(InputError):
        formats.write_rows(broken, str(out), "scores")
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_capitals_of_a_suffix_do_not_matter(suffix: str, tmp_path: Path) -> None:
    formats.write_rows(scores(pa.int64()).to_reader(), str(tmp_path / f"a{suffix.upper()}"), "s")
    assert (tmp_path / f"a{suffix.upper()}").stat().st_size > 0


@pytest.mark.parametrize("out", ["a.xlsx", "a", "csv", ""])
def test_another_suffix_is_refused_with_those_that_there_are(out: str) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"--out: expected a name that ends in {', '.join(SUFFIXES)}")
    ):
        formats.require_known(out, "--out")


@pytest.mark.parametrize("suffix", [".vot", ".fits"])
def test_units_descriptions_and_ucds_are_told(suffix: str, tmp_path: Path) -> None:
    out = tmp_path / f"a{suffix}"
    formats.write_rows(scores(pa.int64()).to_reader(), str(out), "scores")
    table = Table.read(out)
    assert str(table["ra"].unit) == "deg"
    if suffix == ".vot":
        assert table["ra"].description == "right ascension, ICRS"
        assert table["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    else:
        assert table.meta.get("TCOMM2", "right ascension, ICRS") == "right ascension, ICRS"


def test_parquet_keeps_units_and_ucds_in_its_fields(tmp_path: Path) -> None:
    formats.write_rows(scores(pa.int64()).to_reader(), str(tmp_path / "a.parquet"), "scores")
    about = pq.read_schema(tmp_path / "a.parquet").field("dec").metadata
    assert about[b"unit"] == b"deg"
    assert about[b"ucd"] == b"pos.eq.dec;meta.main"


def test_fits_columns_have_comments_and_ucds(tmp_path: Path) -> None:
    from astropy.io import fits

    formats.write_rows(scores(pa.int64()).to_reader(), str(tmp_path / "a.fits"), "scores")
    header = fits.getheader(tmp_path / "a.fits", 1)
    assert (header["TTYPE2"], header["TUNIT2"]) == ("ra", "deg")
    assert (header["TCOMM2"], header["TUCD2"]) == ("right ascension, ICRS", "pos.eq.ra;meta.main")
    assert header["EXTNAME"] == "SCORES"


def test_positions_of_a_votable_are_in_a_frame(tmp_path: Path) -> None:
    from astropy.io.votable import parse, validate

    formats.write_rows(scores(pa.string()).to_reader(), str(tmp_path / "a.vot"), "scores")
    file = parse(tmp_path / "a.vot", verify="exception")
    [resource] = file.resources
    assert [(frame.ID, frame.system) for frame in resource.coordinate_systems] == [("ICRS", "ICRS")]
    fields = {field.name: field for field in resource.tables[0].fields}
    assert {name for name, field in fields.items() if field.ref == "ICRS"} == {"ra", "dec"}
    assert validate(str(tmp_path / "a.vot"), output=None)


@pytest.mark.parametrize(
    ("suffix", "text"), [(".fits", "galaxy α"), (".fits", "a\nb"), (".vot", "bell\a")]
)
def test_text_that_a_format_cannot_hold_is_refused(suffix: str, text: str, tmp_path: Path) -> None:
    table = pa.table({"object_id": ["plain", text]})
    with pytest.raises(InputError, match=r"^object_id: expected text that"):
        formats.write_rows(table.to_reader(), str(tmp_path / f"a{suffix}"), "scores")
    assert list(tmp_path.iterdir()) == []


def test_regions_are_circles_with_their_names(tmp_path: Path) -> None:
    rows = pa.table({"object_id": ["a}b\n", None], "ra": [10.0, None], "dec": [-1.5, 2.0]})
    formats.write_rows(rows.to_reader(), str(tmp_path / "a.reg"), "scores")
    lines = (tmp_path / "a.reg").read_text().splitlines()
    assert lines[0] == "# Region file format: DS9 version 4.1"
    assert lines[2:] == ["icrs", 'circle(10.0000000,-1.5000000,3.0") # text={ab}']
    with pytest.raises(InputError, match=r"^columns: expected ra and dec"):
        formats.write_rows(rows.drop_columns("ra").to_reader(), str(tmp_path / "b.reg"), "s")

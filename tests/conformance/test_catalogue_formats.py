"""Every format that a table is exported to: found by the registry, held to the same behaviour."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

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


def test_text_that_fits_cannot_hold_is_escaped(tmp_path: Path) -> None:
    texts = ["plain", "galaxy α, é", "a\nb\\n", None]
    table = pa.table({"comment": texts})
    formats.write_rows(table.to_reader(), str(tmp_path / "a.fits"), "grades")
    found = read(tmp_path / "a.fits")["comment"]
    assert found[:3] == ["plain", r"galaxy \u03b1, \xe9", r"a\nb\\n"]
    assert [each.encode().decode("unicode_escape") for each in found[:3]] == texts[:3]


def test_text_that_votable_cannot_hold_is_refused(tmp_path: Path) -> None:
    table = pa.table({"object_id": ["plain", "bell\a"]})
    with pytest.raises(InputError, match=r"^object_id: expected text that"):
        formats.write_rows(table.to_reader(), str(tmp_path / "a.vot"), "scores")
    assert list(tmp_path.iterdir()) == []


# What `lenspipe query` may give: type, values, as each format tells them. A decimal of a sum of
# integers is exact where it fits 64 bits.
AT = datetime(2026, 1, 2, 3, 4, 5, 500_000)
PARIS = ZoneInfo("Europe/Paris")
TYPES: dict[str, tuple[pa.DataType, list[Any], list[Any]]] = {
    "sum": (pa.decimal128(38, 0), [2**53 + 1, -7, None], [2**53 + 1, -7, None]),
    "huge": (pa.decimal128(38, 0), [10**30, 1, None], [1e30, 1.0, None]),
    "decimal": (
        pa.decimal128(10, 2),
        [Decimal("1.50"), Decimal("-0.25"), None],
        [1.5, -0.25, None],
    ),
    "unsigned": (pa.uint64(), [2**63 - 1, 0, None], [2**63 - 1, 0, None]),
    "byte": (pa.int8(), [-3, 3, None], [-3, 3, None]),
    "half": (pa.float16(), [np.float16(value) for value in (0.5, -2.0, 1.0)], [0.5, -2.0, 1.0]),
    "truth": (pa.bool_(), [True, False, True], [True, False, True]),
    "date": (pa.date32(), [AT.date(), None, AT.date()], ["2026-01-02", None, "2026-01-02"]),
    "time": (pa.time64("us"), [AT.time(), None, AT.time()], ["03:04:05.500000", None] * 2),
    "timestamp": (pa.timestamp("us"), [AT, None, AT], ["2026-01-02T03:04:05.500000", None] * 2),
    "zoned": (
        pa.timestamp("us", "Europe/Paris"),
        [AT.replace(tzinfo=PARIS), None, AT.replace(tzinfo=PARIS)],
        ["2026-01-02T02:04:05.500000Z", None] * 2,
    ),
    "nothing": (pa.null(), [None] * 3, [None] * 3),
    "category": (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None], ["a", "b", None]),
}


EXACT = ("sum", "huge", "decimal", "unsigned")  # as text


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("suffix", TABULAR)
def test_types_of_queries_are_told(suffix: str, name: str, tmp_path: Path) -> None:
    kind, values, expected = TYPES[name]
    array = pa.array(values, kind)
    out = tmp_path / f"a{suffix}"
    formats.write_rows(pa.table({"id": [1, 2, 3], "x": array}).to_reader(), str(out), "query")
    if suffix == ".parquet":  # has them all
        assert pq.read_table(out)["x"].to_pylist() == array.to_pylist()
        return
    found = as_text(out) if suffix == ".csv" else read(out)["x"]
    if suffix == ".csv":
        expected = [_csv(value) for value in (array.to_pylist() if name in EXACT else expected)]
    for value, wanted in zip(found, expected[:3], strict=True):
        missing = value in (None, "") or value != value  # noqa: PLR0124  # NaN
        assert missing if wanted is None else value == wanted


def as_text(path: Path) -> list[str | None]:
    options = csv.ConvertOptions(column_types={"x": pa.string()}, strings_can_be_null=True)
    return list(csv.read_csv(path, convert_options=options)["x"].to_pylist())


def _csv(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (pa.list_(pa.int32()), [1, 2], "list<item: int32>"),
        (pa.struct({"a": pa.int32()}), {"a": 1}, "struct<a: int32>"),
        (pa.binary(), b"\xff", "binary"),
        (pa.month_day_nano_interval(), pa.MonthDayNano([1, 2, 3]), "month_day_nano_interval"),
    ],
)
@pytest.mark.parametrize("suffix", TABULAR)
def test_types_that_a_format_has_not_are_one_line(
    suffix: str, kind: pa.DataType, value: Any, told: str, tmp_path: Path
) -> None:
    table = pa.table({"id": [1], "x": pa.array([value], kind)})
    out = tmp_path / f"a{suffix}"
    if suffix == ".parquet" and "interval" not in told:
        formats.write_rows(table.to_reader(), str(out), "query")
        assert pq.read_table(out)["x"].to_pylist() == [value]
        return
    with pytest.raises(InputError, match=rf"^x: expected .*, found {re.escape(told)}$"):
        formats.write_rows(table.to_reader(), str(out), "query")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".csv", ".fits", ".vot"])
def test_a_date_without_a_year_is_refused(suffix: str, tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([2**31 - 1], pa.int32()).cast(pa.date32())})
    with pytest.raises(InputError, match=r"^x: expected times that have a year"):
        formats.write_rows(table.to_reader(), str(tmp_path / f"a{suffix}"), "query")


def test_unsigned_ids_beyond_int64_stay_exact_where_the_format_has_them(tmp_path: Path) -> None:
    table = pa.table({"object_id": pa.array([2**64 - 1, 5], pa.uint64())})
    for suffix in (".csv", ".fits", ".parquet"):
        formats.write_rows(table.to_reader(), str(tmp_path / f"a{suffix}"), "query")
    for suffix in (".fits", ".parquet"):
        assert read(tmp_path / f"a{suffix}")["object_id"] == [2**64 - 1, 5]
    assert (tmp_path / "a.csv").read_text().split()[1:] == [str(2**64 - 1), "5"]


def test_regions_take_numbers_alone(tmp_path: Path) -> None:
    rows = pa.table({"ra": pa.array([Decimal("10.5")]), "dec": [2], "x": [[1]]})
    formats.write_rows(rows.to_reader(), str(tmp_path / "a.reg"), "query")
    assert "circle(10.5000000,+2.0000000" in (tmp_path / "a.reg").read_text()
    rows = pa.table({"ra": ["10.5"], "dec": [2.0]})
    with pytest.raises(InputError, match=r"^ra: expected numbers, for regions, found string$"):
        formats.write_rows(rows.to_reader(), str(tmp_path / "b.reg"), "query")


def test_regions_are_circles_with_their_names(tmp_path: Path) -> None:
    rows = pa.table({"object_id": ["a}b\n", None], "ra": [10.0, None], "dec": [-1.5, 2.0]})
    formats.write_rows(rows.to_reader(), str(tmp_path / "a.reg"), "scores")
    lines = (tmp_path / "a.reg").read_text().splitlines()
    assert lines[0] == "# Region file format: DS9 version 4.1"
    assert lines[2:] == ["icrs", 'circle(10.0000000,-1.5000000,3.0") # text={ab}']
    with pytest.raises(InputError, match=r"^columns: expected ra and dec"):
        formats.write_rows(rows.drop_columns("ra").to_reader(), str(tmp_path / "b.reg"), "s")

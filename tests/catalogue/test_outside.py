from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.units import Unit

from lenspipe.catalogue import formats
from lenspipe.catalogue.outside import open_outside
from lenspipe.errors import InputError, StoppedError
from lenspipe.storage.remote import CredentialsError, OutageError

ROWS = pa.table(
    {"name": ["a", "b", None], "RA": [10.0, -20.5, None], "Dec": [1.0, 2.0, 3.0], "n": [1, None, 3]}
)


def only(path: Path) -> pa.Table:
    [table] = open_outside(str(path)).slabs()
    return table


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".vot", ".fits"])
def test_each_format_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    formats.write_rows(ROWS.to_reader(), str(path), "other")
    outside = open_outside(str(path))
    assert (outside.ra, outside.dec) == ("RA", "Dec")
    [table] = outside.slabs()
    ra, dec = outside.position(table)
    np.testing.assert_array_equal(ra, [10.0, 339.5, np.nan])
    np.testing.assert_array_equal(dec, [1.0, 2.0, 3.0])
    assert table["name"].to_pylist()[:2] == ["a", "b"]
    assert table["n"].to_pylist() == [1, None, 3]


def test_a_folder_is_parquet_below_it(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / "other" / f"Norder={k}").mkdir(parents=True)
        pq.write_table(ROWS, tmp_path / "other" / f"Norder={k}" / "Npix=0.parquet")
    tables = list(open_outside(str(tmp_path / "other")).slabs(2))
    assert sum(table.num_rows for table in tables) == 9


@pytest.mark.data
def test_lenscat_opens(data: Path) -> None:
    outside = open_outside(str(data / "catalogues" / "lenscat" / "catalog.csv"))
    assert (outside.ra, outside.dec) == ("RA [deg]", "DEC [deg]")
    [table] = outside.slabs()
    assert table.num_rows > 30_000
    ra, dec = outside.position(table)
    assert np.all(np.isfinite(ra) & np.isfinite(dec))


def test_columns_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("alpha\tdelta\n1\t2\n3\t4\n")
    outside = open_outside(str(tmp_path / "a.tsv"), "alpha", "delta")
    [table] = outside.slabs()
    np.testing.assert_array_equal(outside.position(table)[0], [1.0, 3.0])
    with pytest.raises(InputError, match="--ra: expected the name of a column of degrees, found"):
        open_outside(str(tmp_path / "a.tsv"))
    with pytest.raises(InputError, match="--dec: expected one of alpha, delta, found 'beta'"):
        open_outside(str(tmp_path / "a.tsv"), "alpha", "beta")


def test_numbers_are_numbers_only_where_all_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ra,dec,z\n1,2,0.3\n3,4,-\n5,6,\n")
    table = only(tmp_path / "a.csv")
    assert table["z"].to_pylist() == ["0.3", "-", None]
    assert table["ra"].type == pa.int64()


@pytest.mark.parametrize(
    "text",
    [
        "# of 2026\n#two, lines\nra,dec,n\n1,2,#a\n3,4,b\n\n",
        "\ufeff#\n\nra,dec,n\r\n1,2,#a\r\n3,4,b\r\n  ",
    ],
)
def test_comments_before_the_heading_and_blank_lines_are_no_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    assert only(tmp_path / "a.csv").to_pydict() == {"ra": [1, 3], "dec": [2, 4], "n": ["#a", "b"]}


@pytest.mark.parametrize(
    "text",
    [
        "# ra,dec,name\n150.1,2.1,A\n150.2,2.2,B\n",
        "# of 2026\n#ra,dec,name\n150.1,2.1,A\n150.2,2.2,B\n",
        "# three, words, only\nra,dec,name\n150.1,2.1,A\n150.2,2.2,B\n",
    ],
)
def test_a_heading_in_a_comment_is_the_heading(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    found = only(tmp_path / "a.csv").to_pydict()
    assert found == {"ra": [150.1, 150.2], "dec": [2.1, 2.2], "name": ["A", "B"]}


def test_positions_must_be_degrees(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ra,dec\n10:00:24,+2:12:00\n")
    outside = open_outside(str(tmp_path / "a.csv"))
    [table] = outside.slabs()
    with pytest.raises(InputError, match="CATALOGUE: expected degrees in column ra, found string"):
        outside.position(table)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"ra,dec\n1\n", "1 in row 2"),
        ("a.csv", b"ra,ra\n1,2\n", "ra, ra"),
        ("a.csv", b"ra,dec\n\xff,1\n", "UnicodeDecodeError"),
        ("a.vot", b"<VOTABLE", "a.vot"),
        ("a.fits", b"SIMPLE", "a.fits"),
        ("a.parquet", b"PAR1", "a.parquet"),
        ("a.pickle", b"x", "a.pickle"),
        ("none.csv", None, "none.csv"),
        ("none", None, "none"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, found: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"^CATALOGUE: expected") as raised:
        open_outside(str(tmp_path / name))
    assert found in str(raised.value)
    assert "\n" not in str(raised.value)


def test_billion_laughs_are_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10 if k else "lol"}">' for k in range(9))
    text = f'<?xml version="1.0"?><!DOCTYPE v [{entities}]><VOTABLE><INFO>&a8;</INFO></VOTABLE>'
    (tmp_path / "a.vot").write_text(text)
    with pytest.raises(InputError, match=r"^CATALOGUE: expected"):
        open_outside(str(tmp_path / "a.vot"))


def test_masked_and_wide_columns_of_fits(tmp_path: Path) -> None:
    table = Table(
        {
            "ra": [1.0, 2.0],
            "dec": MaskedColumn([3.0, 4.0], mask=[False, True]),
            "v": [[1, 2], [3, 4]],
        }
    )
    table.write(tmp_path / "a.fits")
    outside = open_outside(str(tmp_path / "a.fits"))
    assert outside.schema.names == ["ra", "dec"]
    [rows] = outside.slabs()
    np.testing.assert_array_equal(outside.position(rows)[1], [3.0, np.nan])


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


class GoneAwayError(OSError):
    """As libraries of stores have them: no number of the system, and a name of their own."""

    __module__ = "aiohttp.client_exceptions"


class RefusedError(Exception):
    """An answer of a web server."""

    __module__ = "aiohttp.client_exceptions"

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}")
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, "Input/output error"), StoppedError),
        (OSError(errno.ESTALE, "Stale file handle"), StoppedError),
        (ConnectionResetError(errno.ECONNRESET, "reset"), StoppedError),
        (TimeoutError(), StoppedError),
        (GoneAwayError("cannot connect"), StoppedError),
        (RefusedError(503), StoppedError),
        (OutageError("the store does not answer"), OutageError),
        (CredentialsError("no credentials"), InputError),
        (RefusedError(403), InputError),
        (FileNotFoundError(errno.ENOENT, "none"), InputError),
        (PermissionError(errno.EACCES, "forbidden"), InputError),
        (OSError(errno.ENAMETOOLONG, "too long"), InputError),
        (OSError("truncated"), InputError),
        (ValueError("no number"), InputError),
    ],
    ids=repr,
)
def test_storage_that_fails_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: type[Exception]
) -> None:
    monkeypatch.setattr("lenspipe.storage.store.Store.open", failing(error))
    with pytest.raises(kind) as raised:
        open_outside(str(tmp_path / "a.csv"))
    assert type(raised.value) is kind
    if kind is StoppedError:
        assert f"CATALOGUE {tmp_path / 'a.csv'}: " in str(raised.value)


def test_storage_that_fails_between_two_slabs_is_told_too(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "a.parquet")
    outside = open_outside(str(tmp_path / "a.parquet"))

    def batches() -> Iterator[pa.RecordBatch]:
        yield from ROWS.to_batches()
        raise OSError(errno.EIO, "Input/output error")

    broken = replace(outside, _batches=batches)
    with pytest.raises(StoppedError, match=r"^CATALOGUE .*a\.parquet: .*the same command works"):
        list(broken.slabs(1))


def test_text_that_is_held_as_views_can_be_joined(tmp_path: Path) -> None:
    views = ROWS.set_column(0, "name", ROWS["name"].cast(pa.string_view()))
    pq.write_table(views, tmp_path / "a.parquet")
    table = only(tmp_path / "a.parquet")
    assert table.take(pa.array([1]))["name"].to_pylist() == ["b"]


UNITS = [("deg", 10.0), ("rad", np.radians(10.0)), ("hourangle", 10 / 15), ("h", 10 / 15)]
UNITS += [("arcsec", 36000.0), ("", 10.0), ("degrees", 10.0), ("DEG", 10.0)]


@pytest.mark.parametrize(("unit", "value"), UNITS)
@pytest.mark.parametrize("suffix", [".fits", ".vot", ".parquet"])
@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
@pytest.mark.filterwarnings("ignore::astropy.io.votable.exceptions.W50")
def test_positions_are_converted_by_their_unit(
    tmp_path: Path, unit: str, value: float, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        field = pa.field("ra", pa.float64(), metadata={"unit": unit})
        rows = pa.table([[value], [5.0]], schema=pa.schema([field, ("dec", pa.float64())]))
        pq.write_table(rows, path)
    elif suffix == ".fits":
        columns = [fits.Column("ra", "D", unit=unit, array=[value])]
        columns.append(fits.Column("dec", "D", array=[5.0]))
        fits.BinTableHDU.from_columns(columns).writeto(path)
    else:
        table = Table({"ra": [value], "dec": [5.0]})
        table["ra"].unit = Unit(unit, parse_strict="silent")
        table.write(path, format="votable")
    outside = open_outside(str(path))
    [rows] = outside.slabs()
    np.testing.assert_allclose(outside.position(rows), [[10.0], [5.0]], rtol=1e-12)
    assert rows["ra"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("heading", "value"),
    [
        ("RA [rad]", np.radians(10.0)),
        ("ra (rad)", np.radians(10.0)),
        ("RA[hourangle]", 10 / 15),
        ("RA (h)", 10 / 15),
        ("RA [deg]", 10.0),
        ("RA (Degrees)", 10.0),
        ("RA (°)", 10.0),
        ("RA [J2000]", 10.0),
        ("RA (2000.0)", 10.0),
        ("RA [ICRS]", 10.0),
        ("RA []", 10.0),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_positions_are_converted_by_the_unit_in_their_heading(
    tmp_path: Path, heading: str, value: float, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".csv":
        path.write_text(f"name,{heading},Dec [deg]\na,{float(value)!r},5.0\n", "utf-8")
    else:
        pq.write_table(pa.table({heading: [value], "Dec [deg]": [5.0]}), path)
    for asked in (None, heading):
        outside = open_outside(str(path), ra=asked)
        [rows] = outside.slabs()
        np.testing.assert_allclose(outside.position(rows), [[10.0], [5.0]], rtol=1e-12)


NO_POSITION = r"^--ra: expected the name of a column of degrees, found columns "
NO_ANGLE = r"^CATALOGUE: expected an angle .* in column (RA|ra)\b.*, found "


@pytest.mark.parametrize(
    ("heading", "row", "expected"),
    [
        ("RA (error),RA,Dec (error),Dec", "0.01,150,0.02,1", (150.0, 1.0)),
        ("RAJ2000,DEJ2000,RA (error),Dec (error)", "150,1,0.01,0.02", (150.0, 1.0)),
        ("RA (rms),ra,Dec (rms),dec", "0.01,150,0.02,1", (150.0, 1.0)),
        ("RA (deg),Dec (deg),raj2000,dej2000", "1,2,150,1", (150.0, 1.0)),
        ("RA (hms),Dec (dms),RA (deg),Dec (deg)", "10:00:00,+01:00:00,150,1", (150.0, 1.0)),
        ("RA (J2000),Dec (J2000),RA (h),Dec (deg)", "1,2,10,1", (150.0, 1.0)),
        ("RA (B1950),Dec (B1950),RA (J2000),Dec (J2000)", "1,2,150,1", (150.0, 1.0)),
        ("RA (h) [J2000],Dec (deg) [J2000]", "10,1", (150.0, 1.0)),
        ("RA [h] J2000,Dec [degrees] J2000", "10,1", (150.0, 1.0)),
        ("RA [J2000] (hours),Dec (ICRS deg)", "10,1", (150.0, 1.0)),
        ("RA [h; epoch 2015.5],Dec [FK5 J2000.0]", "10,1", (150.0, 1.0)),
        ("RA (FK5),Dec (FK5)", "150,1", (150.0, 1.0)),
        ("RA [arcsec],Dec [mas]", "540000,3600000", (150.0, 1.0)),
        ("RA [HR],Dec [ARCMIN]", "10,60", (150.0, 1.0)),
        ("RA (PS1),Dec (PS1)", "150,1", NO_POSITION),
        ("RA [pix],Dec [pix]", "150,1", NO_POSITION),
        ("RA (deg) error,Dec (deg) error", "150,1", NO_POSITION),
        ("RA (deg/yr),Dec (deg/yr)", "150,1", NO_POSITION),
        ("RA (FK4),Dec (FK4)", "150,1", NO_POSITION),
        ("RA (1950),Dec (1950.0)", "150,1", NO_POSITION),
        ("RA (h) (deg),Dec", "150,1", NO_POSITION),
        ("RA (hms),Dec (dms)", "10:00:00,+01:00:00", NO_ANGLE + "'hms'$"),
        ("RA [h m s] J2000,Dec", "10 00 00,1", NO_ANGLE + "'h m s'$"),
        ("RA (hh:mm:ss.s),Dec", "10:00:00,1", NO_ANGLE),
        ("ra (d),dec (d)", "150,1", NO_ANGLE + "'d'$"),
    ],
)
def test_a_heading_tells_which_column_is_a_position(
    tmp_path: Path, heading: str, row: str, expected: tuple[float, float] | str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"name,{heading}\na,{row}\n", "utf-8")
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            open_outside(str(path))
        return
    outside = open_outside(str(path))
    [rows] = outside.slabs()
    np.testing.assert_allclose(np.ravel(outside.position(rows)), expected, rtol=1e-12)


@pytest.mark.parametrize("word", ["PS1", "Ks", "AB", "rms", "FK4"])
def test_a_word_in_a_heading_that_is_asked_for_is_no_unit(tmp_path: Path, word: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"RA ({word}),Dec ({word})\n150,1\n", "utf-8")
    outside = open_outside(str(path), f"RA ({word})", f"Dec ({word})")
    assert outside.in_degrees == (1.0, 1.0)


def test_a_unit_of_the_file_goes_before_one_in_a_name(tmp_path: Path) -> None:
    field = pa.field("RA [rad]", pa.float64(), metadata={"unit": "deg"})
    rows = pa.table([[10.0], [5.0]], schema=pa.schema([field, ("dec", pa.float64())]))
    pq.write_table(rows, tmp_path / "a.parquet")
    assert open_outside(str(tmp_path / "a.parquet")).in_degrees == (1.0, 1.0)


@pytest.mark.parametrize("unit", ["mag", "pix", "J2000"])
@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_units_that_are_no_angle_are_refused(tmp_path: Path, unit: str) -> None:
    column = fits.Column("RA", "D", unit=unit, array=[1.0])
    other = fits.Column("DEC", "D", array=[1.0])
    fits.BinTableHDU.from_columns([column, other]).writeto(tmp_path / "a.fits")
    told = rf"^CATALOGUE: expected an angle .* in column RA, found '.*{unit}.*'$"
    with pytest.raises(InputError, match=told):
        open_outside(str(tmp_path / "a.fits"))


def test_columns_that_no_table_holds_are_left_out(tmp_path: Path) -> None:
    for suffix in (".fits", ".vot"):
        table = Table({"ra": [1.0, 2.0], "dec": [3.0, 4.0], "z": [1 + 2j, 3j], "n": [1, 2]})
        table.write(tmp_path / f"a{suffix}", format="votable" if suffix == ".vot" else "fits")
        assert only(tmp_path / f"a{suffix}").column_names == ["ra", "dec", "n"]

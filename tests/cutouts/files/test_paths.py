from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from lenspipe.cutouts.files.paths import (
    NameTemplate,
    UnsafeNameError,
    constant_folder,
    constant_part,
    expand,
    out_of_number,
    tiles_of,
)
from lenspipe.errors import InputError


def test_tiles_take_their_names_from_the_templates() -> None:
    paths = ["d/a_b_g.fits", "d/a_b_r.fits.fz", "d/c_g.fits.gz", "d/notes.txt", "d/c_g.fits.bak"]
    tiles = tiles_of(paths, {"g": "{tile}_g.fits", "r": "{tile}_r.fits"})
    assert [(t.name, dict(t.files)) for t in tiles] == [
        ("a_b", {"g": "d/a_b_g.fits", "r": "d/a_b_r.fits.fz"}),
        ("c", {"g": "d/c_g.fits.gz"}),
    ]


def test_a_star_in_a_template_and_one_file_for_all_bands() -> None:
    tiles = tiles_of(["d/t1-v3.fits"], {"g": "{tile}-v*.fits", "r": "{tile}-v*.fits"})
    assert [(t.name, dict(t.files)) for t in tiles] == [
        ("t1", {"g": "d/t1-v3.fits", "r": "d/t1-v3.fits"})
    ]


def test_templates_with_folders_and_tiles_of_one_name_in_several() -> None:
    paths = ["s/1/g.fits", "s/2/g.fits", "s/2/r.fits"]
    by_folder = tiles_of(paths, {"g": "{tile}/g.fits", "r": "{tile}/r.fits"})
    assert [(t.name, len(t.files)) for t in by_folder] == [("1", 1), ("2", 2)]
    flat = tiles_of(["s/1/t_g.fits", "s/2/t_g.fits"], {"g": "{tile}_g.fits"})
    assert [t.name for t in flat] == ["s/1/t", "s/2/t"]
    twice = tiles_of(["s/a/a_g.fits", "s/a/b_g.fits"], {"g": "{tile}/{tile}_g.fits"})
    assert [t.name for t in twice] == ["a"]


def test_two_files_for_one_band_of_a_tile_are_refused() -> None:
    with pytest.raises(InputError, match=r"cutouts\.bands\.g: expected one file per tile"):
        tiles_of(["d/t_g.fits", "d/t_g.fits.fz"], {"g": "{tile}_g.fits"})


@pytest.mark.parametrize("template", ["g.fits", "{tile}_{band}.fits"])
def test_templates_without_tile_or_with_other_fields_are_refused(template: str) -> None:
    with pytest.raises(InputError, match=r"cutouts\.bands\.g"):
        tiles_of([], {"g": template})


def test_a_path_stands_for_itself_and_a_glob_for_its_files(tmp_path: Path) -> None:
    for name in ("b.fits", "a.fits", "c.txt"):
        (tmp_path / name).touch()
    assert expand("none.fits", str(tmp_path)) == (f"{tmp_path}/none.fits",)
    assert [Path(p).name for p in expand("*.fits", str(tmp_path))] == ["a.fits", "b.fits"]


def test_names_are_filled_from_columns_with_formats() -> None:
    template = NameTemplate("d/{field}/{object_id:06d}_{band}.fits", "cutouts.path")
    assert template.fields == {"field", "object_id", "band"}
    assert template.is_integer("object_id")
    assert not template.is_integer("field")
    name = template.fill({"field": "w1", "object_id": 42, "band": "G/g"})
    assert name == "d/w1/000042_G/g.fits"


@pytest.mark.parametrize(
    "value", ["../up", "a/b", "a\\b", "..", ".", ".hidden", "", "a\0b", "a..b"]
)
def test_values_that_lead_out_of_the_folder_are_refused(value: str) -> None:
    with pytest.raises(UnsafeNameError, match="column name"):
        NameTemplate("d/{name}.fits", "cutouts.path").fill({"name": value})


@pytest.mark.parametrize("template", ["{a.b}", "{a[0]}", "{}", "{0}", "{a!r}", "{a:{b}}", "{a"])
def test_templates_that_reach_beyond_column_names_are_refused(template: str) -> None:
    with pytest.raises(InputError, match=r"cutouts\.path"):
        NameTemplate(template, "cutouts.path")


def test_fields_are_found_again_in_a_name() -> None:
    template = NameTemplate("d[1]/{name}_{band}_{name}.fits", "cutouts.path")
    match = template.pattern({"band": "g"}).fullmatch("d[1]/a_b_g_a_b.fits")
    assert match is not None
    assert match["name"] == "a_b"
    assert template.pattern({"band": "g"}).fullmatch("d[1]/a_g_b.fits") is None
    assert template.glob({"band": "g"}) == "d[[]1]/*_g_*.fits"


NEIGHBOURS = ("a[1]/p1.h5", "a[1]/p2.h5", "a1/p1.h5", "a1/p3.h5", "b/p[1].h5", "b/p1.h5")


@pytest.fixture(params=["disk", "memory"])
def neighbours(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder or URL with files whose names are patterns of others' names."""
    base = str(tmp_path) if request.param == "disk" else "memory://neighbours"
    fs, root = fsspec.core.url_to_fs(base)
    for name in NEIGHBOURS:
        fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe(f"{root}/{name}", b"x")
    return base


def names(paths: tuple[str, ...]) -> list[str]:
    return ["/".join(path.split("/")[-2:]) for path in paths]


def test_only_what_was_written_is_a_pattern(neighbours: str) -> None:
    own = f"{neighbours}/a[1]"
    assert names(expand("p*.h5", own)) == ["a[1]/p1.h5", "a[1]/p2.h5"]
    assert names(expand(f"{neighbours}/a[1]/p*.h5", "/else")) == ["a1/p1.h5", "a1/p3.h5"]


def test_what_is_there_under_exactly_that_name_goes_before_a_pattern(neighbours: str) -> None:
    assert names(expand("b/p[1].h5", neighbours)) == ["b/p[1].h5"]
    assert names(expand("p[1].h5", f"{neighbours}/b")) == ["b/p[1].h5"]
    assert names(expand("a[1]/p[3].h5", neighbours)) == ["a1/p3.h5"]


def test_a_folder_that_the_process_is_in_is_no_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("c[1] {x}", "c1 {x}"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.h5").touch()
    assert names(expand("../c?/p.h5", f"{tmp_path}/c[1] {{x}}")) == []
    assert names(expand("../c1*/p.h5", f"{tmp_path}/c[1] {{x}}")) == ["c1 {x}/p.h5"]
    monkeypatch.chdir(tmp_path / "c[1] {x}")
    assert names(expand("*.h5", ".")) == ["c[1] {x}/p.h5"]
    assert NameTemplate("{name}.h5", "cutouts.path", ".").fields == {"name"}


def test_what_stands_before_a_wildcard(tmp_path: Path) -> None:
    (tmp_path / "x[1].zarr").mkdir()
    base = f"{tmp_path}/a[1]"
    assert constant_folder("t/x*/y_{n}.fits", base) == f"{base}/t"
    assert constant_folder("*.fits", base) == base
    assert constant_folder("/*.fits", base) == "/"
    assert constant_folder("t/one.h5", base) == f"{base}/t"
    assert constant_part("t/x*/y", base) == f"{base}/t/x"
    assert constant_part("x[1].zarr", str(tmp_path)) == f"{tmp_path}/x[1].zarr"
    assert constant_part("x[2].zarr", str(tmp_path)) == f"{tmp_path}/x"
    assert constant_part("s3://b/x*.h5", base) == "s3://b/x*.h5"


def test_braces_of_the_folder_are_no_fields() -> None:
    template = NameTemplate("d{{1}}/{name}.fits", "cutouts.path", "/s/{name} {{x}")
    assert template.fields == {"name"}
    assert template.folder == "/s/{name} {{x}/d{1}"
    path = template.fill({"name": "a"})
    assert path == "/s/{name} {{x}/d{1}/a.fits"
    match = template.pattern({}).fullmatch(path)
    assert match is not None
    assert match["name"] == "a"


@pytest.mark.parametrize(
    ("sorted_names", "found"),
    [
        (["p1.h5", "p10.h5", "p2.h5"], ("p10.h5", "p2.h5")),
        (["10/p.h5", "9/p.h5"], ("10/p.h5", "9/p.h5")),
        (["r1_p1", "r1_p10", "r1_p2", "r2_p1"], ("r1_p10", "r1_p2")),
        (["p01.h5", "p02.h5", "p10.h5"], None),
        (["p1.h5", "p2.h5", "p9.h5"], None),
        (["p10.h5", "q2.h5"], None),
        (["a.h5"], None),
        ([], None),
    ],
)
def test_names_whose_numbers_count_otherwise(
    sorted_names: list[str], found: tuple[str, str] | None
) -> None:
    assert sorted_names == sorted(sorted_names)
    assert out_of_number(sorted_names) == found

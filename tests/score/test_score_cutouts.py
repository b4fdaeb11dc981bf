from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import zarr
from astropy.io import fits

from lenspipe.contracts import Reason, failure_schema, score_schema
from lenspipe.cutouts.faults import UnreadableError
from lenspipe.cutouts.formats import hdf5
from lenspipe.errors import InputError
from lenspipe.score import score_cutouts as module
from lenspipe.score.score_cutouts import score_cutouts
from tests import toy_models

ROWS = 23
SIZE = 8
BANDS = ("g", "r", "i")
DATA = Path(__file__).parents[3] / "shared" / "data" / "ps1_lenses"


@pytest.fixture
def pixels() -> np.ndarray:
    drawn = np.random.default_rng(5).normal(size=(ROWS, 3, SIZE, SIZE))
    return drawn.astype(np.float32)


@pytest.fixture
def ensemble(tmp_path: Path) -> str:
    return str(toy_models.make_ensemble(tmp_path / "models", bands=BANDS, size=SIZE))


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    folder = tmp_path / "cutouts"
    folder.mkdir()
    with h5py.File(folder / "stamps.h5", "w") as file:
        data = file.create_dataset("images", data=pixels)
        data.attrs.update({"bands": "gri", "pixel_scale_arcsec": 0.25})
        file["name"] = [f"object-{row}" for row in range(ROWS)]
    catalogue = pa.table(
        {
            "name": [f"object-{row}" for row in range(ROWS)],
            "ra": pa.array([None, *np.linspace(0.0, 350.0, ROWS - 1)], pa.float64()),
            "dec": np.linspace(-80.0, 80.0, ROWS),
        }
    )
    pacsv.write_csv(catalogue, folder / "catalogue.csv")
    return folder


def wanted(pixels: np.ndarray) -> np.ndarray:
    weights = [toy_models.make_weights((3, SIZE, SIZE), seed) for seed in (0, 1)]
    logits = [toy_models.expected_logits(pixels, w) for w in weights]
    return np.asarray(np.mean(logits, axis=0))


def assert_scores(table: pa.Table, pixels: np.ndarray) -> None:
    """Float32 sums of 192 products in another order."""
    np.testing.assert_allclose(table["score"].to_numpy(), wanted(pixels), rtol=1e-5, atol=1e-5)


def failures_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out.with_suffix(".failures.parquet")).to_pylist()
    return rows


def test_a_file_with_its_catalogue(
    folder: Path, ensemble: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "scores.parquet"
    summary = score_cutouts(
        ensemble,
        folder / "stamps.h5",
        out,
        catalogue=folder / "catalogue.csv",
        columns={"id": "name"},
        provider="cpu",
        batch_size=4,
    )
    table = pq.read_table(out)
    schema = score_schema(pa.string(), ["toy-a", "toy-b"], prevalence=0.5)
    assert table.schema.equals(schema, check_metadata=True)
    assert table["object_id"].to_pylist() == [f"object-{row}" for row in range(ROWS)]
    assert_scores(table, pixels)
    assert table["ra"].null_count == table["healpix_29"].null_count == 1
    empty = pq.read_table(tmp_path / "scores.failures.parquet")
    assert empty.schema.equals(failure_schema(pa.string()))
    assert (summary.rows, summary.scored, summary.failed.total()) == (ROWS, ROWS, 0)
    assert list(summary.above.values()) == [int((table["score"].to_numpy() >= 1.0).sum())]
    assert dict(summary.lines())["cutouts"] == str(ROWS)


def test_a_file_by_itself(folder: Path, ensemble: str, pixels: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    score_cutouts(ensemble, folder, out, provider="cpu")
    table = pq.read_table(out)
    assert table["object_id"].to_pylist() == list(range(ROWS))
    assert table["ra"].null_count == ROWS
    assert_scores(table, pixels)


@pytest.mark.parametrize("catalogue", [True, False])
def test_files_whose_numbers_order_them_otherwise_are_told(
    folder: Path, ensemble: str, tmp_path: Path, catalogue: bool
) -> None:
    """As `lenspipe check` does: positions count through the files in the order of their names."""

    def warnings(**options: Any) -> list[str]:
        summary = score_cutouts(
            ensemble,
            folder,
            tmp_path / "scores.parquet",
            catalogue=folder / "catalogue.csv" if catalogue else None,
            columns={"id": "name"},
            options={"reader": "hdf5", "path": "part*.h5", "bands": ["g", "r", "i"], **options},
            provider="cpu",
        )
        return [text for name, text in summary.lines() if name == "warning"]

    (folder / "stamps.h5").rename(folder / "part10.h5")
    assert warnings(row="catalogue_row") == []
    shutil.copy(folder / "part10.h5", folder / "part2.h5")
    [line] = warnings(row="catalogue_row")
    assert re.search(r"cutouts\.row counts .*part10\.h5 before .*part2\.h5; .*leading zeros", line)
    if catalogue:
        assert warnings(ids="name", id_column="name") == []
    (folder / "part2.h5").rename(folder / "part02.h5")
    assert warnings(row="catalogue_row") == []


def test_a_layout_serves_any_folder_like_it(
    folder: Path, ensemble: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text(
        "catalogue: catalogue.csv\ncolumns: {id: name}\n"
        "cutouts: {reader: hdf5, path: stamps.h5, bands: [g, r, i], row: catalogue_row}\n"
    )
    out = tmp_path / "scores.parquet"
    score_cutouts(ensemble, folder, out, layout=layout, provider="cpu")
    assert_scores(pq.read_table(out), pixels)
    moved = folder.rename(tmp_path / "elsewhere")
    inside = moved / "layout.yaml"
    inside.write_text(layout.read_text())
    score_cutouts(ensemble, inside, tmp_path / "again.parquet", provider="cpu")
    assert pq.read_table(tmp_path / "again.parquet").equals(pq.read_table(out))


def test_options_go_over_what_the_files_say(
    folder: Path, ensemble: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    """Found by name instead of by row, from a catalogue in another order."""
    order = np.random.default_rng(0).permutation(ROWS)
    names = pa.table({"object_id": [f"object-{row}" for row in order]})
    pq.write_table(names, tmp_path / "order.parquet")
    out = tmp_path / "scores.parquet"
    score_cutouts(
        ensemble,
        folder / "stamps.h5",
        out,
        catalogue=tmp_path / "order.parquet",
        options={"ids": "name"},
        provider="cpu",
    )
    assert_scores(pq.read_table(out), pixels[order])


def test_a_zarr_store(ensemble: str, pixels: np.ndarray, tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "stamps.zarr"))
    array = group.create_array("images", data=pixels, chunks=(4, 3, SIZE, SIZE))
    array.attrs.update({"bands": list(BANDS)})
    out = tmp_path / "scores.parquet"
    score_cutouts(
        ensemble,
        tmp_path / "stamps.zarr",
        out,
        options={"pixel_scale_arcsec": 0.25},
        provider="cpu",
    )
    assert_scores(pq.read_table(out), pixels)


def test_a_zarr_store_whose_array_has_the_usual_name_need_not_name_it(
    ensemble: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    group = zarr.create_group(str(tmp_path / "stamps.zarr"))
    group.create_array("images", data=pixels, chunks=(4, 3, SIZE, SIZE))
    layout = tmp_path / "layout.yaml"
    layout.write_text(
        "cutouts: {reader: zarr, path: stamps.zarr, bands: [g, r, i], row: catalogue_row,"
        " pixel_scale_arcsec: 0.25}\n"
    )
    out = tmp_path / "scores.parquet"
    score_cutouts(ensemble, layout, out, provider="cpu")
    assert_scores(pq.read_table(out), pixels)


@pytest.mark.parametrize("finder", [{}, {"row": None, "ids": "name"}])
@pytest.mark.parametrize("name", ["stamps.h5", "stamps.zarr"])
def test_an_absurd_length_is_refused_before_a_list_is_made(
    ensemble: str, tmp_path: Path, name: str, finder: dict[str, str | None]
) -> None:
    count = 10**13
    if name == "stamps.h5":
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("images", (count, 3, SIZE, SIZE), "f4", chunks=(4, 3, SIZE, SIZE))
            file.create_dataset("name", (count,), "i8", chunks=(4,))
    else:
        group = zarr.create_group(str(tmp_path / name))
        shape = (count, 3, SIZE, SIZE)
        group.create_array("images", shape=shape, dtype="f4", chunks=(4, 3, SIZE, SIZE))
        group.create_array("name", shape=(count,), dtype="i8", chunks=(4,))
    options = {"pixel_scale_arcsec": 0.25, "bands": list(BANDS), **finder}
    with pytest.raises(InputError, match=r"at most 2,147,483,648 objects.*found 10,000,000,000"):
        score_cutouts(ensemble, tmp_path / name, tmp_path / "s.parquet", options=options)


def test_a_folder_of_stamps(ensemble: str, pixels: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "stamps"
    folder.mkdir()
    for row in range(4):
        for band, image in zip(BANDS, pixels[row], strict=True):
            fits.PrimaryHDU(image).writeto(folder / f"J10_{row}_{band}.fits")
    (folder / "J10_2_r.fits").write_bytes(b"SIMPLE  = no FITS at all")
    out = tmp_path / "scores.parquet"
    score_cutouts(ensemble, folder, out, options={"pixel_scale_arcsec": 0.25}, provider="cpu")
    table = pq.read_table(out)
    assert table["object_id"].to_pylist() == ["J10_0", "J10_1", "J10_3"]
    assert_scores(table, pixels[[0, 1, 3]])
    failed = failures_of(out)
    assert [(f["object_id"], f["reason"]) for f in failed] == [("J10_2", Reason.UNREADABLE)]


def test_every_row_is_scored_or_a_failure(
    folder: Path,
    ensemble: str,
    pixels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Across chunks: an id that was there before, a NaN stamp, a row beyond the file."""
    monkeypatch.setattr(module, "chunk_rows", lambda *_: 7)
    with h5py.File(folder / "stamps.h5", "r+") as file:
        file["images"][11] = np.nan
    ids = list(range(ROWS + 1))
    ids[20] = 3
    pq.write_table(pa.table({"object_id": ids}), tmp_path / "c.parquet")
    out = tmp_path / "scores.parquet"
    told: list[tuple[int, int]] = []
    summary = score_cutouts(
        ensemble,
        folder / "stamps.h5",
        out,
        catalogue=tmp_path / "c.parquet",
        provider="cpu",
        batch_size=4,
        progress=lambda done, rows: told.append((done, rows)),
    )
    scored = [row for row in range(ROWS) if row not in (11, 20)]
    assert pq.read_table(out)["object_id"].to_pylist() == scored
    assert_scores(pq.read_table(out), pixels[scored])
    reasons = [(f["object_id"], Reason(f["reason"])) for f in failures_of(out)]
    assert reasons == [
        (11, Reason.BAD_PIXELS),
        (3, Reason.DUPLICATE_ID),
        (ROWS, Reason.NOT_FOUND),
    ]
    assert (summary.rows, summary.scored) == (ROWS + 1, ROWS - 2)
    assert told == [(7, 24), (14, 24), (21, 24), (24, 24)]


def test_a_catalogue_without_rows(folder: Path, ensemble: str, tmp_path: Path) -> None:
    nothing = pa.table({"object_id": pa.array([], pa.int64())})
    pq.write_table(nothing, tmp_path / "c.parquet")
    out = tmp_path / "scores.parquet"
    summary = score_cutouts(
        ensemble, folder / "stamps.h5", out, catalogue=tmp_path / "c.parquet", provider="cpu"
    )
    assert summary.rows == pq.read_table(out).num_rows == 0


def test_what_stops_half_way_leaves_no_file(
    folder: Path, ensemble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(module, "score_rows", broken)
    target = tmp_path / "out"
    with pytest.raises(RuntimeError, match="the disk is gone"):
        score_cutouts(ensemble, folder / "stamps.h5", target / "s.parquet", provider="cpu")
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cutouts_path": "nowhere"}, "CUTOUTS"),
        ({"out": "scores.csv"}, "--out"),
        ({"catalogue": "nowhere.csv"}, "catalogue"),
        ({"catalogue": __file__}, "catalogue"),
        ({"columns": {"id": "nom"}}, "columns.id"),
        ({"columns": {"id": "name", "ra": "alpha"}}, "columns.ra"),
        ({"columns": {"id": "name", "dec": "name"}}, "columns.dec"),
        ({"options": {"row": "number"}}, "catalogue"),
        ({"options": {"row": "dec"}}, "cutouts.row"),
        ({"options": {"zero_point": {"column": "name"}}}, "cutouts.zero_point.column"),
        ({"options": {"bands": ["i", "r", "g"]}}, "cutouts.bands"),
        ({"options": {"smooth": 3}}, "cutouts.smooth"),
        ({"options": {"reader": "jpeg"}}, "cutouts.reader"),
        ({"options": {"pixel_scale_arcsec": 0.3}}, "cutouts.pixel_scale_arcsec"),
        ({"ensemble": "nothing-like-it"}, "ensemble"),
    ],
)
def test_refused(
    folder: Path,
    ensemble: str,
    tmp_path: Path,
    changes: dict[str, Any],
    field: str,
) -> None:
    given: dict[str, Any] = {
        "ensemble": ensemble,
        "cutouts_path": folder / "stamps.h5",
        "out": tmp_path / "scores.parquet",
        "catalogue": folder / "catalogue.csv",
        "columns": {"id": "name"},
        "provider": "cpu",
    }
    with pytest.raises(InputError) as refused:
        score_cutouts(**{**given, **changes})
    assert refused.value.field.startswith(field)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "scores.parquet").exists()


def test_an_id_of_parquet_that_is_a_number_with_a_point_is_refused(
    folder: Path, ensemble: str, tmp_path: Path
) -> None:
    """Of a CSV it is the text that stands there."""
    pq.write_table(pa.table({"object_id": [0.5] * ROWS}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"columns\.id: .* integers or text, found double"):
        score_cutouts(ensemble, folder, tmp_path / "s.parquet", catalogue=tmp_path / "c.parquet")


@pytest.mark.data
def test_the_ps1_lenses_give_the_same_scores_from_fits_and_hdf5(tmp_path: Path) -> None:
    """The 12 systems whose survey stamps are there. The HDF5 file holds the same pixels, so scores
    of order one agree to float32 roundings of the zero points."""
    if not DATA.is_dir():
        pytest.skip("no ../shared/data")
    ensemble = str(toy_models.make_ensemble(tmp_path, size=40, zero_point_mag=25.0))
    examples = Path(__file__).parents[2] / "examples"
    tables = {}
    for layout in ("ps1_lenses", "ps1_fits_stamps"):
        out = tmp_path / f"{layout}.parquet"
        score_cutouts(ensemble, DATA, out, layout=examples / f"{layout}.yaml", provider="cpu")
        tables[layout] = pq.read_table(out)
    assert tables["ps1_lenses"].num_rows == 323  # one stamp has 27% of its g band missing
    one, other = (
        {row["object_id"]: row["score"] for row in tables[layout].to_pylist()}
        for layout in ("ps1_fits_stamps", "ps1_lenses")
    )
    assert len(one) == 12
    np.testing.assert_allclose(list(one.values()), [other[name] for name in one], atol=1e-5)


def test_a_page_beside_the_scores(folder: Path, ensemble: str, tmp_path: Path) -> None:
    """Groups are counted, every member of a small one is shown, a failed one without pixels."""
    with h5py.File(folder / "stamps.h5", "r+") as file:
        file["images"][3] = np.nan
    kinds = ["spiral"] * 5 + ["early"] * (ROWS - 5)
    names = [f"object-{row}" for row in range(ROWS)]
    pq.write_table(pa.table({"object_id": names, "kind": kinds}), tmp_path / "c.parquet")
    out = tmp_path / "scores.parquet"
    summary = score_cutouts(
        ensemble,
        folder / "stamps.h5",
        out,
        catalogue=tmp_path / "c.parquet",
        options={"ids": "name"},
        group=["kind"],
        report=True,
        provider="cpu",
    )
    assert summary.groups is not None
    assert summary.report_out == str(tmp_path / "scores.report.html")
    early, spiral = summary.groups.groups
    assert (early.values, early.rows, early.scored) == (("early",), ROWS - 5, ROWS - 5)
    assert (spiral.values, spiral.rows, spiral.failed) == (("spiral",), 5, 1)
    score = {row["object_id"]: row["score"] for row in pq.read_table(out).to_pylist()}
    above = [score[name] >= 1.0 for name in names[5:]]
    assert early.passing[0].rows == sum(above)
    assert early.passing[0].low < np.mean(above) < early.passing[0].high or not any(above)
    page = Path(summary.report_out).read_text(encoding="utf-8")
    # The best 22, five of the small group of which one failed, six at each end of the other.
    assert page.count("<figure>") == 22 + 5 + 12
    assert page.count("no pixels") == 1
    assert page.count("data:image/png") == 22 + 4 + 12 + 2
    assert "bad pixels" in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("group", "expected"),
    [("kind", "one of "), ("number", "at most 60 different combinations")],
)
def test_groups_that_cannot_be_made_are_refused_before_any_work(
    ensemble: str, tmp_path: Path, group: str, expected: str
) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        data = file.create_dataset("images", data=np.zeros((70, 3, SIZE, SIZE), np.float32))
        data.attrs.update({"bands": "gri", "pixel_scale_arcsec": 0.25})
    table = pa.table({"object_id": range(70), "number": range(70)})
    pq.write_table(table, tmp_path / "c.parquet")
    out = tmp_path / "out" / "s.parquet"
    with pytest.raises(InputError) as refused:
        score_cutouts(
            ensemble,
            tmp_path / "s.h5",
            out,
            catalogue=tmp_path / "c.parquet",
            group=[group],
            provider="cpu",
        )
    assert refused.value.field == "--group"
    assert refused.value.expected.startswith(expected)
    assert not out.parent.exists()


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], b"\xff"])
def test_groups_of_what_is_no_text_are_refused(
    folder: Path, ensemble: str, tmp_path: Path, value: object
) -> None:
    pq.write_table(pa.table({"object_id": [0], "odd": [value]}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match=r"--group: expected a column of text, numbers or dates"):
        score_cutouts(
            ensemble,
            folder / "stamps.h5",
            tmp_path / "s.parquet",
            catalogue=tmp_path / "c.parquet",
            group=["odd"],
            provider="cpu",
        )


def test_ids_of_a_csv_with_leading_zeros_are_three_stamps(
    ensemble: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "stamps"
    folder.mkdir()
    ids = ["007", "7", "08"]
    for row, name in enumerate(ids):
        for band, image in zip(BANDS, pixels[row], strict=True):
            fits.PrimaryHDU(image).writeto(folder / f"{name}_{band}.fits")
    catalogue = tmp_path / "c.csv"
    catalogue.write_text("object_id\n" + "\n".join(ids) + "\n")
    out = tmp_path / "scores.parquet"
    options = {"pixel_scale_arcsec": 0.25}
    score_cutouts(ensemble, folder, out, catalogue=catalogue, options=options, provider="cpu")
    table = pq.read_table(out)
    assert table["object_id"].to_pylist() == ids
    assert_scores(table, pixels[:3])


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "options", [{}, {"reader": "hdf5", "path": "*.h5", "row": "catalogue_row"}]
)
@pytest.mark.parametrize("catalogued", [True, False])
def test_a_special_file_is_not_waited_for(
    folder: Path, ensemble: str, tmp_path: Path, options: dict[str, Any], catalogued: bool
) -> None:
    """Alone, and among others that can be read; what has a catalogue then goes on without it."""
    os.mkfifo(folder / "z.h5")
    given = {**options, **({"bands": BANDS, "dataset": "images"} if options else {})}
    where = folder if options else folder / "z.h5"
    out = tmp_path / "s.parquet"
    call: dict[str, Any] = {"options": given, "provider": "cpu"}
    if catalogued:
        call |= {"catalogue": folder / "catalogue.csv", "columns": {"id": "name"}}
    if catalogued and options:
        assert score_cutouts(ensemble, where, out, **call).scored == ROWS
        return
    with pytest.raises(InputError, match="found a FIFO"):
        score_cutouts(ensemble, where, out, **call)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("place", ["zarr.json", "images/zarr.json"])
@pytest.mark.parametrize("options", [{}, {"reader": "zarr", "path": "a.zarr", "array": "images"}])
def test_special_files_of_a_store_are_not_waited_for(
    ensemble: str, tmp_path: Path, place: str, options: dict[str, Any]
) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.create_array("images", data=np.zeros((2, 3, SIZE, SIZE), np.float32))
    (tmp_path / "a.zarr" / place).unlink()
    os.mkfifo(tmp_path / "a.zarr" / place)
    given = {**options, **({"bands": BANDS, "row": "catalogue_row"} if options else {})}
    with pytest.raises(InputError, match="found a FIFO"):
        score_cutouts(
            ensemble, tmp_path / "a.zarr", tmp_path / "s.parquet", options=given, provider="cpu"
        )


@pytest.mark.parametrize("out", ["taken.parquet", "file/scores.parquet"])
def test_a_target_that_cannot_be_is_refused_before_any_work(tmp_path: Path, out: str) -> None:
    (tmp_path / "taken.parquet").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--out"):
        score_cutouts("no-such-model", tmp_path / "none.h5", tmp_path / out)


def test_failures_tell_no_credentials(
    folder: Path, ensemble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: Any) -> Any:
        raise UnreadableError("cannot open https://host/x.fits?X-Amz-Signature=planted0secret&a=1")

    monkeypatch.setattr(hdf5._Hdf5Stack, "pieces", refused)
    out = tmp_path / "scores.parquet"
    score_cutouts(ensemble, folder, out, provider="cpu", report=True)
    rows = failures_of(out)
    assert len(rows) == ROWS
    assert all("host/x.fits?X-Amz-Signature=***&a=1" in row["detail"] for row in rows)
    assert "planted0secret" not in (tmp_path / "scores.report.html").read_text(encoding="utf-8")


def test_what_the_system_refuses_while_reading_is_told_of_the_cutouts() -> None:
    """Not of the file that is being written meanwhile."""

    def refuse(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    reading = module._ChunkReading(
        reader=cast(Any, SimpleNamespace(read=refuse)),
        sources=pa.table({"object_id": [1, 2]}),
        ensemble=cast(Any, SimpleNamespace(inputs=())),
        locator=None,
        repeated=np.zeros(2, bool),
        chunk=2,
        place="stamps/",
    )
    with pytest.raises(OSError, match="Input/output error: 'stamps/'"):
        reading(0)


def test_probabilities_at_another_prevalence(folder: Path, ensemble: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    score_cutouts(ensemble, folder / "stamps.h5", out, provider="cpu", prevalence=0.01)
    table = pq.read_table(out)
    told = table.schema.field("probability").metadata[b"description"]
    assert told == b"calibrated score, where a fraction 0.01 are lenses"
    odds = np.exp(table["score"].to_numpy().astype(float)) / 99  # calibrated at 0.5
    np.testing.assert_allclose(table["probability"].to_numpy(), odds / (1 + odds), rtol=1e-5)
    with pytest.raises(InputError, match="prevalence: expected a fraction"):
        score_cutouts(ensemble, folder / "stamps.h5", out, provider="cpu", prevalence=1.0)


def test_positions_are_found_wrapped_and_unknown_where_they_are_none(
    tmp_path: Path, folder: Path, ensemble: str
) -> None:
    ra = [-10.0, 370.0, 1e30, np.inf, -1e-17, 360.0, *[5.0] * (ROWS - 6)]
    lines = [f"object-{k}, {value}, 2.0" for k, value in enumerate(ra)]
    catalogue = tmp_path / "c.csv"
    catalogue.write_text("\n".join(["name, RA, Dec", *lines]) + "\n")
    out = tmp_path / "s.parquet"
    columns = {"id": "name"}
    score_cutouts(
        ensemble, folder / "stamps.h5", out, catalogue=catalogue, columns=columns, provider="cpu"
    )
    found = pq.read_table(out)
    expected = [350.0, None, None, None, 0.0, 0.0, *[5.0] * (ROWS - 6)]
    assert found["ra"].to_pylist() == expected
    assert found["healpix_29"].is_null().to_pylist() == [value is None for value in expected]


def test_ids_of_a_dictionary_are_text(tmp_path: Path, folder: Path, ensemble: str) -> None:
    names = pa.array([f"object-{row}" for row in range(ROWS)]).dictionary_encode()
    pq.write_table(pa.table({"object_id": names}), tmp_path / "c.parquet")
    out = tmp_path / "s.parquet"
    catalogue = tmp_path / "c.parquet"
    score_cutouts(ensemble, folder / "stamps.h5", out, catalogue=catalogue, provider="cpu")
    assert pq.read_table(out)["object_id"].to_pylist() == names.to_pylist()


def test_a_name_on_the_command_line_is_no_pattern(
    folder: Path, ensemble: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    place = tmp_path / "x[1] {y}"
    place.mkdir()
    (folder / "stamps.h5").rename(place / "only[2].h5")
    for name in ("only2.h5", "../x1 {y}"):
        if name.endswith(".h5"):
            target = place / name
        else:
            (place / name).mkdir()
            target = place / name / "only2.h5"
        with h5py.File(target, "w") as file:
            file["images"] = -pixels
            file["images"].attrs.update({"bands": "gri", "pixel_scale_arcsec": 0.25})
    score_cutouts(ensemble, place / "only[2].h5", tmp_path / "s.parquet", provider="cpu")
    assert_scores(pq.read_table(tmp_path / "s.parquet"), pixels)

"""Stage select as a whole: each row leaves once, and where it should."""

from __future__ import annotations

import errno
import math
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe import config, cutouts
from lenspipe.cutouts.base import ReaderOptions
from lenspipe.cutouts.columns import Kind, NeededColumn
from lenspipe.errors import InputError
from lenspipe.models.card import Feature
from lenspipe.run_directory import RunDirectory
from lenspipe.select import parquet_file, threshold
from lenspipe.select.cuts import CutCount
from lenspipe.select.photometry import PhotometryNetwork
from lenspipe.select.plan import SelectPlan, plan_catalogue
from lenspipe.select.sources import list_parts
from lenspipe.select.stage import SelectCounts, select_part
from lenspipe.select.threshold import settle_threshold
from tests import toy_models

SHARED = Path(__file__).parents[3] / "shared" / "data"
DATA = SHARED / "catalogues" / "sdss_lrg_ps1_gri_150k.parquet"
CUTS = {"bright": "i < 21", "red": "g - i > 1"}
MISSING = -999.0
FEATURES = (
    Feature(kind="colour", a="g", b="i", mean=1.0),
    Feature(kind="magnitude", a="i", mean=20.0),
    Feature(kind="missing", a="r"),
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "p.onnx"
    toy_models.make_photometry(path, features=FEATURES, weights=[1.0, -1.0, 3.0])
    return path


def _plan(
    folder: Path, network: Path | None = None, keep: config.Keep | None = None, **sources: Any
) -> SelectPlan:
    photometry = None
    if network:
        keep = keep or config.Keep(score_above=0.0)
        photometry = config.Photometry(model=str(network), keep=keep)
    catalogue = config.Sources(path=str(folder), missing_values=(MISSING,), **sources)
    return plan_catalogue(catalogue, CUTS, photometry, None, ".")


def _select(plan: SelectPlan, folder: Path) -> tuple[pa.Table, pa.Table, SelectCounts]:
    parts = list_parts(config.Sources(path=str(folder)), ".")
    results = [select_part(part, plan) for part in parts]
    counts = SelectCounts()
    for result in results:
        assert result.counts.balanced
        counts += result.counts
    selected = pa.concat_tables([result.selected for result in results])
    return selected, pa.concat_tables([result.failures for result in results]), counts


_MAG = st.none() | st.sampled_from([MISSING, math.nan, math.inf, 18.0, 20.5, 21.0, 22.5])
_DEGREES = st.none() | st.sampled_from([math.nan, -999.0, -180.0, -0.5, 0.0, 12.5, 90.0, 360.0])
_ROW = st.tuples(
    st.none() | st.integers(-5, 5), _DEGREES, _DEGREES, _MAG, _MAG, st.none() | st.just(20.0)
)


def _outcome(row: tuple[Any, ...]) -> str:
    """Where one row must go, by hand."""
    source, ra, dec, g, i, r = row
    g, i = (None if m is None or m == MISSING or not math.isfinite(m) else m for m in (g, i))
    if i is None or i >= 21:
        return "bright.unknown" if i is None else "bright.false"
    if g is None or g - i <= 1:
        return "red.unknown" if g is None else "red.false"
    sky = ra is not None and dec is not None and -180 <= ra <= 360 and -90 <= dec <= 90
    if source is None or not sky:
        return "failed"
    logit = (g - i - 1) - (i - 20) + (3 if r is None else 0)
    return "selected" if logit > 0 else "rejected"


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_ROW, min_size=1, max_size=40), group=st.integers(1, 40))
def test_each_row_leaves_once_and_by_the_right_door(
    rows: list[tuple[Any, ...]],
    group: int,
    network: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("catalogue")
    kinds = [pa.int64(), pa.float64(), pa.float64(), pa.float32(), pa.float32(), pa.float32()]
    names = ["object_id", "ra", "dec", "g", "i", "r"]
    columns = [pa.array(c, k) for c, k in zip(zip(*rows, strict=True), kinds, strict=True)]
    table = pa.table(columns, names=names)
    pq.write_table(table, folder / "a.parquet", row_group_size=group)
    selected, failures, counts = _select(_plan(folder, network), folder)
    outcomes = [_outcome(row) for row in rows]
    wanted = [row[0] for row, where in zip(rows, outcomes, strict=True) if where == "selected"]
    assert selected.column("object_id").to_pylist() == wanted
    failed = [row[0] for row, where in zip(rows, outcomes, strict=True) if where == "failed"]
    assert failures.column("object_id").to_pylist() == failed
    assert counts == SelectCounts(
        rows_in=len(rows),
        removed={
            cut: CutCount(outcomes.count(f"{cut}.false"), outcomes.count(f"{cut}.unknown"))
            for cut in CUTS
        },
        rejected=outcomes.count("rejected"),
        selected=len(wanted),
        failed=len(failed),
    )
    assert all(0 <= ra < 360 for ra in selected.column("ra").to_pylist())


def _good(rows: int, **columns: Any) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "object_id": np.arange(rows),
            "ra": rng.uniform(0, 360, rows),
            "dec": rng.uniform(-90, 90, rows),
            "g": rng.normal(22.5, 0.3, rows).astype(np.float32),
            "i": rng.normal(20, 0.5, rows).astype(np.float32),
            "r": rng.normal(21, 0.3, rows).astype(np.float32),
            **columns,
        }
    )


def test_schemas_are_those_of_the_contract(tmp_path: Path, network: Path) -> None:
    names = np.array([f"id/{k}'" for k in range(500)])
    pq.write_table(_good(500, object_id=names), tmp_path / "a.parquet")
    plan = _plan(tmp_path, network)
    selected, failures, _ = _select(plan, tmp_path)
    assert selected.schema.equals(plan.selected_schema, check_metadata=True)
    assert failures.schema.equals(plan.failure_schema, check_metadata=True)
    assert selected.column("object_id").type == pa.string()
    assert set(selected.column("locality").to_pylist()) == {-1}
    assert pa.compute.all(pa.compute.greater(selected.column("photometry_score"), 0.0)).as_py()


def test_without_cuts_or_network_all_is_selected_without_a_score(tmp_path: Path) -> None:
    pq.write_table(_good(50), tmp_path / "a.parquet")
    plan = plan_catalogue(config.Sources(path=str(tmp_path)), {}, None, None, ".")
    selected, _, counts = _select(plan, tmp_path)
    assert (counts.selected, counts.rows_in) == (50, 50)
    assert selected.column("photometry_score").null_count == 50


def test_failures_say_what_is_wrong(tmp_path: Path) -> None:
    table = pa.table(
        {
            "object_id": pa.array([None, 1, 2, 3], pa.int64()),
            "ra": [10.0, None, 10.0, 361.0],
            "dec": [10.0, 10.0, math.nan, 91.0],
            "g": [23.0] * 4,
            "i": [20.0] * 4,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    _, failures, _ = _select(_plan(tmp_path), tmp_path)
    assert failures.column("detail").to_pylist() == [
        "object_id is missing or no text",
        "ra is missing or not finite",
        "dec is missing or not finite",
        "ra 361, dec 91 deg is no position on the sky",
    ]
    assert set(failures.column("reason").to_pylist()) == {"bad_metadata"}
    assert [h is None for h in failures.column("healpix_29").to_pylist()] == [False] + [True] * 3


def test_an_id_that_is_no_utf8_fails_its_row_and_no_other(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary())
    ids = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    table = pa.table(
        {"object_id": ids, "ra": [1.0] * 3, "dec": [2.0] * 3, "g": [23.0] * 3, "i": [20.0] * 3}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    selected, failures, _ = _select(_plan(tmp_path), tmp_path)
    assert selected.column("object_id").to_pylist() == ["good", "fine"]
    assert failures.column("detail").to_pylist() == ["object_id is missing or no text"]
    failures.validate(full=True)


def test_hostile_ids_go_through_and_a_file_as_they_are(tmp_path: Path) -> None:
    ids = [
        "../../x",
        "a\\b",
        "it's",
        '"',
        "line\nbreak",
        "nul\0inside",
        "",
        "x" * 10_000,
        "two",
        "two",
    ]
    pq.write_table(_good(len(ids), object_id=np.array(ids, object)), tmp_path / "a.parquet")
    selected, _, _ = _select(_plan(tmp_path), tmp_path)
    run = RunDirectory(str(tmp_path / "run"))
    part = run.write_part("select", 0, len(ids), selected)
    assert run.read_part(part.name, ["object_id"]).column(0).to_pylist() == ids


def test_a_row_without_a_score_is_a_failure(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(_good(50), tmp_path / "a.parquet")
    plan = _plan(tmp_path, network)
    honest = PhotometryNetwork.score

    def with_nan(self: PhotometryNetwork, table: pa.Table) -> np.ndarray:
        scores = honest(self, table)
        scores[3] = np.nan
        return scores

    before, _, _ = _select(plan, tmp_path)
    monkeypatch.setattr(PhotometryNetwork, "score", with_nan)
    selected, failures, counts = _select(plan, tmp_path)
    assert failures.column("reason").to_pylist() == ["non_finite_score"]
    lost = failures.column("object_id").to_pylist()
    found = sorted(selected.column("object_id").to_pylist() + lost)
    assert found == sorted({*before.column("object_id").to_pylist(), *lost})
    assert counts.failed == 1


def test_a_fraction_settles_the_threshold_the_same_way_each_time(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(20):
        ids = np.arange(1000 * k, 1000 * (k + 1))
        pq.write_table(_good(1000, object_id=ids), tmp_path / f"{k:02d}.parquet")
    plan = _plan(tmp_path, network, config.Keep(fraction=0.1))
    parts = list_parts(config.Sources(path=str(tmp_path)), ".")
    with pytest.raises(ValueError, match="no threshold"):
        select_part(parts[0], plan)
    settled = settle_threshold(plan, parts)
    assert settled == settle_threshold(plan, parts)
    assert settled != plan
    assert settle_threshold(settled, parts) is settled
    _, _, counts = _select(settled, tmp_path)
    share = counts.selected / (counts.selected + counts.rejected)
    assert share == pytest.approx(0.1, abs=0.001)  # all parts are in the sample; ties are few
    monkeypatch.setattr(threshold, "SAMPLE_ROWS", 1)
    assert settle_threshold(plan, parts).threshold is not None


class _Options(ReaderOptions):
    tile: str = "tile"


class _Reader:
    """A reader of which a source's tile is a catalogue column."""

    needs = tuple(NeededColumn("cutouts", name, Kind.NUMBER) for name in ("tile", "i"))

    def locality(self, sources: pa.Table) -> np.ndarray:
        assert {"object_id", "ra", "dec", "tile"} <= set(sources.column_names)
        return np.asarray(sources.column("tile").to_numpy(), np.int64)


def test_the_readers_columns_are_carried_and_its_locality_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutouts, "open_reader", lambda *_: _Reader())
    pq.write_table(_good(300, tile=np.arange(300, dtype=np.int16) % 7), tmp_path / "a.parquet")
    plan = plan_catalogue(
        config.Sources(path=str(tmp_path)), CUTS, None, _Options(reader="fake"), "."
    )
    assert plan.carried == ("i", "tile")
    assert plan.stored_columns == {"object_id", "ra", "dec", "g", "i", "tile"}
    selected, _, _ = _select(plan, tmp_path)
    ids = np.array(selected.column("object_id"))
    np.testing.assert_array_equal(selected.column("tile"), ids % 7)
    np.testing.assert_array_equal(selected.column("locality"), ids % 7)
    original = pq.read_table(tmp_path / "a.parquet").take(ids)
    assert selected.column("i").combine_chunks().equals(original.column("i").combine_chunks())


def test_a_plan_that_went_through_a_pickle_is_the_same_plan(tmp_path: Path, network: Path) -> None:
    pq.write_table(_good(50), tmp_path / "a.parquet")
    plan = _plan(tmp_path, network)
    again: SelectPlan = pickle.loads(pickle.dumps(plan))  # noqa: S301  # as Ray sends it to a task
    assert again == plan
    assert hash(again) == hash(plan)
    assert _select(again, tmp_path)[2] == _select(plan, tmp_path)[2]
    assert plan != _plan(tmp_path, network, config.Keep(score_above=1.0))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"r": None}, "photometry.model: column r: expected a column of the catalogue"),
        ({"r": ["x"] * 5}, "photometry.model: column r: expected a numeric column"),
        ({"g": ["x"] * 5, "i": [1.0] * 5}, "cuts.red: expected text compared with text"),
        ({"g": None}, "cuts.red: expected a column"),
        ({"r": None, "R": [1.0] * 5}, "photometry.model: column r: expected a name with the same"),
    ],
)
def test_a_catalogue_that_cannot_serve_is_refused_in_one_line(
    tmp_path: Path, network: Path, change: dict[str, Any], line: str
) -> None:
    columns = {**dict(zip(_good(5).column_names, _good(5).columns, strict=True)), **change}
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        _plan(tmp_path, None if line.startswith("cuts") else network)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_outage_while_sampling_gives_no_other_threshold(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(4):
        ids = np.arange(100 * k, 100 * (k + 1))
        pq.write_table(_good(100, object_id=ids), tmp_path / f"{k}.parquet")
    plan = _plan(tmp_path, network, config.Keep(fraction=0.1))
    parts = list_parts(config.Sources(path=str(tmp_path)), ".")
    undisturbed = threshold.choose_threshold(plan, parts)

    def refuse(_file: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(parquet_file, "check_unchanged", refuse)
        with pytest.raises(OSError, match="Stale"):
            threshold.choose_threshold(plan, parts)
    assert threshold.choose_threshold(plan, parts) == undisturbed


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is absent")
def test_real_luminous_red_galaxies_through_both_stages(tmp_path: Path) -> None:
    features = [
        Feature(kind="colour", a="g_mag", b="i_mag", mean=2.0, scale=0.5),
        Feature(kind="magnitude", a="i_mag", mean=19.5, scale=1.0),
        Feature(kind="missing", a="r_mag"),
    ]
    toy_models.make_photometry(tmp_path / "p.onnx", features=features, weights=[1.0, -0.5, -2.0])
    sources = config.Sources(
        path=str(DATA.absolute()),
        columns=config.Columns(id="specobjid"),
        rename={f"{band}_mag": f"ps1_{band}_mag" for band in "gri"},
        missing_values=(-999.0,),
    )
    cuts = {
        "bright_enough": "i_mag < 21.5",
        "red": "g_mag - i_mag BETWEEN 1.2 AND 3.6",
        "moving": "veldisp > 0",
        "survey": "programname = 'boss' OR programname = 'eboss'",
    }
    photometry = config.Photometry(model=str(tmp_path / "p.onnx"), keep=config.Keep(fraction=0.05))
    parts = list_parts(sources, ".")
    plan = settle_threshold(plan_catalogue(sources, cuts, photometry, None, "."), parts)
    counts = SelectCounts()
    for part in parts:
        counts += select_part(part, plan).counts

    table = pq.read_table(DATA).to_pandas()
    mags = {b: table[f"ps1_{b}_mag"].where(np.isfinite(table[f"ps1_{b}_mag"])) for b in "gri"}
    mags = {band: mag.where(mag != np.float32(-999)) for band, mag in mags.items()}
    kept = mags["i"] < np.float32(21.5)
    kept &= (mags["g"] - mags["i"]).between(np.float32(1.2), np.float32(3.6))
    kept &= (table["veldisp"] > 0) & table["programname"].isin(["boss", "eboss"])
    assert counts.rows_in == len(table) == 150_000
    assert counts.balanced
    assert counts.selected + counts.rejected + counts.failed == int(kept.sum()) > 50_000
    assert counts.selected == pytest.approx(0.05 * kept.sum(), rel=0.001)


@pytest.mark.parametrize("cuts", [{}, {"some": "row != 5"}])
def test_a_missing_value_is_none_where_pixels_are_found_by_it(
    tmp_path: Path, cuts: dict[str, str]
) -> None:
    n = 120
    table = pa.table(
        {
            "object_id": pa.array(range(n)),
            "ra": pa.array(np.full(n, 99.0)),
            "dec": pa.array(np.full(n, 2.0)),
            "row": pa.array(range(n)),
            "zp_g": pa.array(np.where(np.arange(n) == 7, 99.0, 25.0)),
        }
    )
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=50)
    with h5py.File(tmp_path / "cutouts.h5", "w") as file:
        file["images"] = np.zeros((n, 1, 8, 8), np.float32)
    reader = cutouts.options_model("hdf5").model_validate(
        {
            "reader": "hdf5",
            "path": "cutouts.h5",
            "dataset": "images",
            "bands": ["g"],
            "row": "row",
            "pixel_scale_arcsec": 0.25,
            "zero_point": {"column": "zp_{band}"},
        }
    )
    sources = config.Sources(path="c.parquet", missing_values=(99.0,))
    plan = plan_catalogue(sources, cuts, None, reader, str(tmp_path))
    [part] = list_parts(sources, str(tmp_path))
    found = select_part(part, plan).selected.sort_by("object_id")
    kept = [k for k in range(n) if not cuts or k != 5]
    if cuts:  # in a cut the list holds for every column: 99 is unknown there
        kept.remove(99)
    assert found["row"].to_pylist() == kept
    assert found["zp_g"].null_count == 1


def test_a_column_that_is_there_twice_is_refused_where_it_is_used(tmp_path: Path) -> None:
    columns = [pa.array([1]), pa.array([1.0]), pa.array([2.0]), pa.array([20.0]), pa.array([21.0])]
    table = pa.Table.from_arrays(columns, ["object_id", "ra", "dec", "i", "i"])
    pq.write_table(table, tmp_path / "c.parquet")
    sources = config.Sources(path="c.parquet")
    with pytest.raises(InputError, match=r"c\.parquet: column i: expected each column once"):
        list_parts(sources, str(tmp_path), ["object_id", "ra", "dec", "i"])
    assert list_parts(sources, str(tmp_path), ["object_id", "ra", "dec"])

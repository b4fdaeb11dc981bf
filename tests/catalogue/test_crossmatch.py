from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lenspipe.catalogue import cells, hats
from lenspipe.catalogue import crossmatch as matching
from lenspipe.catalogue.cells import Cells
from lenspipe.catalogue.crossmatch import crossmatch
from lenspipe.catalogue.outside import Outside, open_outside
from lenspipe.catalogue.published import Published
from lenspipe.errors import InputError
from lenspipe.run_directory import RunDirectory
from tests.catalogue.small_run import cap, commit_scores, score_table


def outside_of(folder: Path, table: pa.Table) -> Outside:
    pq.write_table(table, folder / "other.parquet")
    return open_outside(str(folder / "other.parquet"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    rng = np.random.default_rng(8)
    parts = [
        cap(600, 150.0, 2.0, 0.05),
        (rng.uniform(0, 360, 300), 90 - np.abs(rng.normal(0, 0.03, 300))),
        (rng.normal(0, 0.03, 300) % 360, rng.normal(0, 0.03, 300)),
    ]
    run = RunDirectory(str(tmp_path_factory.mktemp("run")))
    tables = [score_table(*place, first_id=1000 * k) for k, place in enumerate(parts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hats, "ROW_GROUP_ROWS", 50)
        hats.write_catalogue(run, commit_scores(run, tables), "toy", 200)
    return run


def scored(run: RunDirectory) -> pa.Table:
    table = run.read_folder("scores", ("score",))
    assert table is not None
    return table


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000), radius=st.floats(0.0, 3.3).map(lambda power: 10.0**power))
@example(seed=1, radius=3600.0)
def test_pairs_are_those_of_astropy(
    run: RunDirectory, tmp_path: Path, seed: int, radius: float
) -> None:
    from astropy.coordinates import SkyCoord, search_around_sky
    from astropy.units import arcsec

    rng = np.random.default_rng(seed)
    rows = scored(run)
    near = rows.take(pa.array(rng.integers(0, rows.num_rows, 40)))
    ra = near["ra"].to_numpy() + rng.normal(0, radius / 3600, 40)
    dec = np.clip(near["dec"].to_numpy() + rng.normal(0, radius / 3600, 40), -90, 90)
    other = pa.table({"lens": np.arange(40), "ra": ra, "dec": dec})
    found = crossmatch(Published(run), outside_of(tmp_path, other), radius, every=True)
    theirs = SkyCoord(ra, dec, unit="deg")
    ours = SkyCoord(rows["ra"].to_numpy(), rows["dec"].to_numpy(), unit="deg")
    first, second, far, _ = search_around_sky(theirs, ours, radius * arcsec)
    ids = rows["object_id"].to_numpy()[second]
    expected = sorted(zip(first.tolist(), ids.tolist(), strict=True))
    pairs = zip(found["lens"].to_pylist(), found["object_id"].to_pylist(), strict=True)
    assert sorted(pairs) == expected
    np.testing.assert_allclose(
        np.sort(found["separation_arcsec"].to_numpy()), np.sort(far.arcsec), atol=1e-6
    )
    nearest = crossmatch(Published(run), outside_of(tmp_path, other), radius)
    lenses = nearest["lens"].to_numpy()
    np.testing.assert_array_equal(lenses, np.unique(first))
    for lens, separation in zip(lenses, nearest["separation_arcsec"].to_numpy(), strict=True):
        assert separation == pytest.approx(far.arcsec[first == lens].min(), abs=1e-6)


def test_columns_of_both_and_the_order_of_the_other(run: RunDirectory, tmp_path: Path) -> None:
    rows = scored(run).slice(0, 5)
    other = pa.table(
        {
            "score": ["e", "d", "c", "b", "a"],
            "ra": rows["ra"].to_pylist()[::-1],
            "dec": rows["dec"].to_pylist()[::-1],
        }
    )
    found = crossmatch(Published(run), outside_of(tmp_path, other), 0.01)
    assert found["other_score"].to_pylist() == ["e", "d", "c", "b", "a"]
    assert found["object_id"].to_pylist() == rows["object_id"].to_pylist()[::-1]
    assert found.column_names[-4:] == ["separation_arcsec", "other_score", "other_ra", "other_dec"]
    assert found.schema.field("ra").metadata[b"unit"] == b"deg"


def test_slabs_and_pieces_of_pairs_change_nothing(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = scored(run).select(["ra", "dec"])
    whole = crossmatch(Published(run), outside_of(tmp_path, rows), 30.0, every=True)
    monkeypatch.setattr(cells, "_PAIRS", 37)
    monkeypatch.setattr(matching, "SLAB_ROWS", 100)
    pq.write_table(rows, tmp_path / "other.parquet", row_group_size=64)
    again = crossmatch(
        Published(run), open_outside(str(tmp_path / "other.parquet")), 30.0, every=True
    )
    assert whole.num_rows > rows.num_rows
    assert again.equals(whole)


def test_rows_without_a_position_and_catalogues_without_rows(
    run: RunDirectory, tmp_path: Path
) -> None:
    place = scored(run).slice(0, 1)
    ra, dec = place["ra"][0].as_py(), place["dec"][0].as_py()
    other = pa.table(
        {"ra": [None, ra, float("nan"), ra - 360.0, ra], "dec": [dec, None, dec, dec, 91.0]}
    )
    found = crossmatch(Published(run), outside_of(tmp_path, other), 1.0)
    assert found["other_ra"].to_pylist() == [ra - 360.0]
    none = crossmatch(Published(run), outside_of(tmp_path, other.slice(0, 0)), 1.0)
    assert (none.num_rows, none.column_names) == (0, found.column_names)


@pytest.mark.parametrize("radius", [0.0, -1.0, 3601.0, float("nan")])
def test_a_radius_that_is_none_is_refused(run: RunDirectory, tmp_path: Path, radius: float) -> None:
    other = outside_of(tmp_path, pa.table({"ra": [1.0], "dec": [1.0]}))
    with pytest.raises(InputError, match="--radius: expected an angle up to 3600 arcsec"):
        crossmatch(Published(run), other, radius)


def test_cells_hold_every_position_once() -> None:
    found = Cells(np.array([0.0, 0.0, 120.0]), np.array([90.0, 90.0, -3.0]), 360.0)
    ranges = found.ranges()
    assert np.all(ranges[1:, 0] > ranges[:-1, 1])
    pairs = list(found.pairs(np.array([ranges[0, 0]])))
    assert sum(len(rows) for rows, _ in pairs) >= 1

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from lenspipe.catalogue.hats import read_properties, scored_files, write_catalogue
from lenspipe.contracts import score_schema
from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import RunDirectory
from tests.catalogue.small_run import MEMBERS, cap, commit_scores, score_table

LIMIT = 300


def tables(id_type: pa.DataType) -> list[pa.Table]:
    crowded, wide = cap(1500, 150.0, 2.0, 0.4), cap(500, 10.0, -30.0, 20.0, seed=1)
    return [
        score_table(*crowded, first_id=0, id_type=id_type),
        score_table(*wide, first_id=1500, id_type=id_type, seed=1),
    ]


@pytest.fixture(params=[pa.int64(), pa.string()], ids=["int", "string"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunDirectory:
    run = RunDirectory(str(tmp_path / "run"))
    write_catalogue(run, commit_scores(run, tables(request.param)), "toy", LIMIT)
    return run


def rows_of(run: RunDirectory) -> pa.Table:
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    return scored.sort_by([("healpix_29", "ascending"), ("object_id", "ascending")])


def test_hats_reads_it_and_finds_it_valid(run: RunDirectory) -> None:
    from hats.catalog.catalog import Catalog
    from hats.io.validation import is_valid_catalog
    from hats.loaders.read_hats import read_hats

    folder = run.store.local_path("catalogue")
    assert is_valid_catalog(folder, strict=True)
    catalogue = read_hats(folder)
    assert isinstance(catalogue, Catalog)
    assert catalogue.catalog_info.total_rows == 2000
    assert catalogue.catalog_info.healpix_column == "healpix_29"
    assert len(catalogue.get_healpix_pixels()) > 5


def test_every_row_is_there_once_sorted_and_in_small_partitions(run: RunDirectory) -> None:
    files = sorted(run.store.local_path("catalogue").glob("dataset/Norder=*/Dir=*/Npix=*.parquet"))
    parts = [pq.read_table(file, partitioning=None) for file in files]
    assert all(0 < part.num_rows <= LIMIT for part in parts)
    for part in parts:
        assert np.all(np.diff(part["healpix_29"].to_numpy()) >= 0)
    together = pa.concat_tables(parts).sort_by(
        [("healpix_29", "ascending"), ("object_id", "ascending")]
    )
    assert together.equals(rows_of(run))


def test_fields_keep_unit_and_description(run: RunDirectory) -> None:
    metadata = run.store.local_path("catalogue") / "dataset" / "_common_metadata"
    found = pq.read_schema(metadata)
    expected = score_schema(found.field("object_id").type, MEMBERS)
    assert found.equals(expected, check_metadata=True)


def test_pyarrow_opens_it_by_its_metadata_file(run: RunDirectory) -> None:
    dataset = pads.parquet_dataset(run.store.local_path("catalogue") / "dataset" / "_metadata")
    assert dataset.count_rows() == 2000
    best = dataset.to_table(filter=pads.field("score") > 0)
    assert best.num_rows == pc.sum(pc.greater(rows_of(run)["score"], 0)).as_py()


def test_duckdb_opens_it(run: RunDirectory) -> None:
    pattern = run.store.local_path("catalogue") / "dataset" / "*" / "*" / "*.parquet"
    table = duckdb.read_parquet(str(pattern)).to_arrow_table()
    assert table.num_rows == 2000
    assert len(table["object_id"].unique()) == 2000


# nested-pandas 0.7, which lsdb builds on, still calls what pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore:The inplace keyword:pandas.errors.Pandas4Warning")
def test_lsdb_opens_it_and_a_cone_finds_the_same_rows(run: RunDirectory) -> None:
    lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed")
    from astropy.coordinates import SkyCoord

    catalogue = lsdb.open_catalog(run.store.local_path("catalogue"))
    found = catalogue.cone_search(ra=150.0, dec=2.0, radius_arcsec=600).compute()
    expected = rows_of(run)
    there = SkyCoord(expected["ra"].to_numpy(), expected["dec"].to_numpy(), unit="deg")
    near = there.separation(SkyCoord(150.0, 2.0, unit="deg")).arcsec < 600
    assert 0 < np.count_nonzero(near) < 1500
    assert sorted(found["object_id"]) == sorted(expected.filter(near)["object_id"].to_pylist())


def test_a_second_call_leaves_it_alone_and_new_parts_replace_it(run: RunDirectory) -> None:
    parts = run.part_names("scores", run.records("score"))
    before = run.store.local_path("catalogue/hats.properties").stat().st_ino
    again = write_catalogue(run, parts, "toy", LIMIT)
    assert not again.written
    assert again.rows == 2000
    assert run.store.local_path("catalogue/hats.properties").stat().st_ino == before
    fewer = write_catalogue(run, parts[:1], "toy", LIMIT)
    assert (fewer.written, fewer.rows) == (True, 1500)
    files = run.store.names("catalogue")
    assert sum("Npix=" in file for file in files) == fewer.partitions
    assert [n for n in run.store.names() if n.startswith("catalogue.tmp")] == []


def test_the_rows_are_read_from_the_catalogue_only_while_it_is_that_of_the_parts(
    run: RunDirectory,
) -> None:
    parts = run.part_names("scores", run.records("score"))
    files = scored_files(run, parts)
    assert all("Npix=" in file for file in files)
    assert sum(run.read_part(file).num_rows for file in files) == 2000
    assert scored_files(run, parts[:1]) == parts[:1]


def test_a_killed_writer_leaves_the_old_catalogue_and_is_cleaned(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = run.part_names("scores", run.records("score"))
    left = run.store.local_path("catalogue.tmp-dead/dataset/half.parquet")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lenspipe.catalogue.hats.write_partition", broken)
        with pytest.raises(OSError, match="No space"):
            write_catalogue(run, parts[:1], "toy", LIMIT)
    properties = read_properties(run)
    assert properties is not None
    assert properties["hats_nrows"] == "2000"
    assert [n for n in run.store.names() if n.startswith("catalogue.tmp")] == []


def test_a_file_that_a_lagging_listing_hid_is_cleared_away_by_the_same_command(
    run: RunDirectory,
) -> None:
    parts = run.part_names("scores", run.records("score"))
    files = scored_files(run, parts)
    hidden = "catalogue/dataset/Norder=9/Dir=0/Npix=1.parquet"
    run.store.write(hidden, run.store.read(files[0]))
    assert write_catalogue(run, parts, "toy", LIMIT).written
    assert hidden not in run.store.names("catalogue")
    assert not write_catalogue(run, parts, "toy", LIMIT).written


def test_a_run_without_scores_has_no_catalogue(run: RunDirectory) -> None:
    info = write_catalogue(run, [], "toy", LIMIT)
    assert (info.rows, info.written) == (0, False)
    assert read_properties(run) is None


@pytest.mark.parametrize("index", [-1, 12 << 58])
def test_an_index_that_is_no_pixel_is_not_published(tmp_path: Path, index: int) -> None:
    run = RunDirectory(str(tmp_path))
    table = score_table(*cap(20, 30.0, 5.0, 0.1))
    beyond = pa.array([index, *table["healpix_29"].to_pylist()[1:]])
    parts = commit_scores(run, [table.set_column(3, table.schema.field(3), beyond)])
    with pytest.raises(CorruptRunError, match="healpix_29"):
        write_catalogue(run, parts, "toy", LIMIT)
    assert read_properties(run) is None


def test_an_object_store_holds_the_same_catalogue(tmp_path: Path) -> None:
    local, remote = RunDirectory(str(tmp_path)), RunDirectory("memory://hats-test/run")
    for run in (local, remote):
        write_catalogue(run, commit_scores(run, tables(pa.int64())), "toy", LIMIT)
    assert remote.store.names("catalogue") == local.store.names("catalogue")
    name = next(name for name in local.store.names("catalogue") if "Npix=" in name)
    assert remote.read_part(name).equals(local.read_part(name))
    remote.store.delete_folder("")

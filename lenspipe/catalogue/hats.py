"""The scored sources as a HATS catalogue: Parquet files by HEALPix pixel.

Format: https://www.ivoa.net/documents/Notes/HATS/. lsdb, pyarrow, DuckDB and TOPCAT open it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

import lenspipe
from lenspipe.catalogue import scores
from lenspipe.catalogue.partitions import MAX_ORDER, SKY, Partition, plan_partitions
from lenspipe.catalogue.whole_folder import remove, replacing
from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import CATALOGUE, RunDirectory

PROPERTIES = "hats.properties"
HEALPIX = "healpix_29"
FINGERPRINT = "lenspipe_fingerprint"
# Statistics of so many rows let a reader skip most of a partition in a small cone.
ROW_GROUP_ROWS = 65_536
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class CatalogueInfo:
    """What is in the catalogue. written: False where it was there already."""

    rows: int
    partitions: int
    written: bool


def write_catalogue(
    run: RunDirectory, score_parts: Sequence[str], name: str, partition_rows: int
) -> CatalogueInfo:
    """Make RUN/catalogue from the committed score parts, or leave it where it is up to date.

    Rows are sorted by `healpix_29`; no partition has more than `partition_rows` rows unless they
    share one pixel of order 29. Memory: one partition, and DuckDB's limit. A run that scored
    nothing has no catalogue.
    """
    if not score_parts:
        remove(run.store, CATALOGUE, PROPERTIES)
        return CatalogueInfo(rows=0, partitions=0, written=False)
    identity = scores.fingerprint(score_parts, name, partition_rows)
    present = read_properties(run)
    if present is not None and present.get(FINGERPRINT) == identity:
        return CatalogueInfo(int(present["hats_nrows"]), int(present["lenspipe_partitions"]), False)
    with replacing(run.store, CATALOGUE, PROPERTIES) as folder:
        partitions = _write_partitions(run, score_parts, partition_rows, folder)
        _write_metadata(folder, partitions, name, partition_rows, identity)
    return CatalogueInfo(sum(p.rows for p in partitions), len(partitions), True)


def read_properties(run: RunDirectory) -> dict[str, str] | None:
    """`hats.properties` of the run's catalogue; None where there is no catalogue."""
    from jproperties import Properties  # type: ignore[import-untyped]  # hats' own; has no types

    properties = Properties()
    try:
        properties.load(BytesIO(run.store.read(f"{CATALOGUE}/{PROPERTIES}")), "utf-8")
    except FileNotFoundError:
        return None
    return dict(properties.properties)


def _write_partitions(
    run: RunDirectory, score_parts: Sequence[str], limit: int, folder: Path
) -> list[Partition]:
    schema = scores.schema(run, score_parts)
    with scores.connect(run, score_parts) as connection:
        partitions = plan_partitions(lambda *cell: _histogram(connection, *cell), limit)
        if partitions[0].first < 0 or partitions[-1].stop > SKY:
            raise CorruptRunError(f"scores: {HEALPIX}: expected 0 to {SKY - 1}, found others")
        ordered = connection.sql(
            f"SELECT * FROM scores ORDER BY {HEALPIX}, object_id"  # noqa: S608  # a constant
        ).to_arrow_reader(_BATCH_ROWS)
        tables = _tables(ordered, [partition.rows for partition in partitions])
        for partition, table in zip(partitions, tables, strict=True):
            _write_partition(folder, partition, table.cast(schema))
    return partitions


def _histogram(
    connection: duckdb.DuckDBPyConnection,
    order: int,
    lowest: int,
    parents: Int64[np.ndarray, " k"] | None,
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    where = ""
    if parents is not None:
        connection.register("parents", pa.table({"pixel": parents}))
        shift = 2 * (MAX_ORDER - lowest + 1)
        where = f"WHERE {HEALPIX} >> {shift} IN (SELECT pixel FROM parents)"  # noqa: S608  # numbers
    counted = connection.execute(
        f"SELECT {HEALPIX} >> {2 * (MAX_ORDER - order)} AS pixel, count(*) AS n "  # noqa: S608
        f"FROM scores {where} GROUP BY pixel ORDER BY pixel"  # numbers of ours
    ).fetchnumpy()
    return counted["pixel"].astype(np.int64), counted["n"].astype(np.int64)


def _tables(batches: Iterable[pa.RecordBatch], sizes: Iterable[int]) -> Iterator[pa.Table]:
    source = iter(batches)
    waiting: list[pa.RecordBatch] = []
    held = 0
    for size in sizes:
        while held < size:
            waiting.append(next(source))
            held += waiting[-1].num_rows
        table = pa.Table.from_batches(waiting)
        yield table.slice(0, size)
        waiting = table.slice(size).to_batches()
        held -= size


def _write_partition(folder: Path, partition: Partition, table: pa.Table) -> None:
    from hats.io.file_io.file_io import get_parquet_write_table_kwargs
    from hats.io.paths import new_pixel_catalog_file
    from hats.pixel_math.healpix_pixel import HealpixPixel

    ends = table[HEALPIX][0].as_py(), table[HEALPIX][-1].as_py()
    if not (partition.first <= ends[0] and ends[1] < partition.stop):
        raise CorruptRunError(f"scores: {HEALPIX} from {ends[0]} to {ends[1]} not in {partition}")
    sorting = pq.SortingColumn(table.schema.get_field_index(HEALPIX))
    options = get_parquet_write_table_kwargs(
        table.schema,
        write_table_kwargs={"sorting_columns": [sorting], "row_group_size": ROW_GROUP_ROWS},
    )
    path = new_pixel_catalog_file(folder, HealpixPixel(partition.order, partition.pixel))
    pq.write_table(table, str(path), **options)


def _write_metadata(
    folder: Path, partitions: Sequence[Partition], name: str, limit: int, identity: str
) -> None:
    from hats.catalog.partition_info import PartitionInfo
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.pixel_math.healpix_pixel import HealpixPixel

    pixels = [HealpixPixel(partition.order, partition.pixel) for partition in partitions]
    written = write_parquet_metadata(folder)
    planned = sum(partition.rows for partition in partitions)
    if written != planned:
        raise CorruptRunError(f"catalogue: expected {planned} rows, found {written}")
    PartitionInfo.from_healpix(pixels).write_to_file(catalog_path=folder)
    _properties(folder, partitions, name, limit, identity).to_properties_file(folder)


def _properties(
    folder: Path, partitions: Sequence[Partition], name: str, limit: int, identity: str
) -> Any:
    from hats.catalog.dataset.table_properties import TableProperties

    return TableProperties(
        catalog_name=name,
        catalog_type="object",
        total_rows=sum(partition.rows for partition in partitions),
        ra_column="ra",
        dec_column="dec",
        healpix_column=HEALPIX,
        healpix_order=MAX_ORDER,
        hats_max_rows=limit,
        hats_order=max(partition.order for partition in partitions),
        **TableProperties.new_provenance_dict(folder, builder=f"lenspipe {lenspipe.__version__}"),
        lenspipe_partitions=len(partitions),
        **{FINGERPRINT: identity},
    )

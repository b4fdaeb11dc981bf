"""The scored sources as a HATS catalogue: Parquet files by HEALPix pixel.

Format: https://www.ivoa.net/documents/Notes/HATS/. lsdb, pyarrow, DuckDB and TOPCAT open it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lenspipe
from lenspipe.catalogue import scores
from lenspipe.catalogue.candidates import COLUMNS
from lenspipe.catalogue.known import KNOWN_LENS, KnownAt, KnownList
from lenspipe.catalogue.partitions import MAX_ORDER, Partition, plan_partitions
from lenspipe.catalogue.places import HEALPIX, find_places
from lenspipe.catalogue.whole_folder import remove, replacing
from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import CATALOGUE, PROPERTIES, RunDirectory, reading
from lenspipe.storage.external_sort import Scatter, piece_of, slabs, sorted_piece, stream

PARTITIONS = "partition_info.csv"
DATASET = f"{CATALOGUE}/dataset"
METADATA, COMMON_METADATA = f"{DATASET}/_metadata", f"{DATASET}/_common_metadata"
FINGERPRINT = "lenspipe_fingerprint"
_KNOWN = "lenspipe_known_lenses"  # the list, and the radius, by which rows are flagged
# Statistics of so many rows let a reader skip most of a partition in a small cone.
ROW_GROUP_ROWS = 65_536


@dataclass(frozen=True)
class CatalogueInfo:
    """What is in the catalogue. written: False where it was there already."""

    rows: int
    partitions: int
    written: bool


def write_catalogue(
    run: RunDirectory,
    score_parts: Sequence[str],
    name: str,
    partition_rows: int,
    known: KnownList | None = None,
) -> CatalogueInfo:
    """Make RUN/catalogue from the committed score parts, or leave it where it is up to date.

    known: lenses that the column `known_lens` names at their sources; without a list there is no
    such column.
    Rows are sorted by `healpix_29`; no partition has more than `partition_rows` rows unless they
    share one pixel of order 29. Memory does not grow with the rows: they are sorted on disk. A run
    that scored nothing has no catalogue.
    """
    if not score_parts:
        remove(run.store, CATALOGUE, PROPERTIES)
        return CatalogueInfo(rows=0, partitions=0, written=False)
    listed = "" if known is None else f"{known.sha256} {known.radius_arcsec}"
    identity = _identity(score_parts, name, partition_rows, listed)
    kept = _kept_catalogue(run, identity)
    if kept is not None:
        return kept
    with replacing(run.store, CATALOGUE, PROPERTIES) as folder:
        partitions = _write_partitions(run, score_parts, partition_rows, folder, known)
        write_metadata(folder, partitions, name, partition_rows, identity, listed)
    return CatalogueInfo(sum(p.rows for p in partitions), len(partitions), True)


def _identity(score_parts: Sequence[str], name: str, limit: int, listed: str) -> str:
    return scores.fingerprint(score_parts, name, limit, *([listed] if listed else []))


def _kept_catalogue(run: RunDirectory, identity: str) -> CatalogueInfo | None:
    """What is in the catalogue, where it is the one of this fingerprint and all its files are
    there and can be read; None where it is to be made.

    Of the rows, the columns are read that publishing reads: damage elsewhere is left to `verify`.
    """
    try:
        present = read_properties(run)
        if present is None or present.get(FINGERPRINT) != identity:
            return None
        told = int(present["hats_nrows"]), int(present["lenspipe_partitions"])
        files = _partition_files(run)
        rows = sum(table.num_rows for table in stream(run, files, COLUMNS))
        summed = footer(run, METADATA).num_rows
        footer(run, COMMON_METADATA)
    except Exception as error:
        if not run.store.is_loss(error):
            raise  # storage that refuses is waited for
        return None
    # Left by a publish to which a lagging listing did not show it: whoever reads the folder would
    # have its rows too.
    foreign = {n for n in run.store.names(DATASET) if n.endswith(".parquet")} - set(files)
    whole = (rows, len(files)) == told and summed == rows and not foreign
    return CatalogueInfo(*told, written=False) if whole else None


def footer(run: RunDirectory, name: str) -> pq.FileMetaData:
    """What a Parquet file of the run says of itself; CorruptRunError names one that is damaged."""
    with reading(name), run.store.open(name) as file:
        return pq.read_metadata(file)


def scored_files(run: RunDirectory, score_parts: Sequence[str]) -> Sequence[str]:
    """Files that hold the scored rows: those of the catalogue where it was made from these parts,
    which are few and large, else the parts themselves."""
    present = read_properties(run) or {}
    name, limit = present.get("obs_collection", ""), int(present.get("hats_max_rows", 0))
    listed = present.get(_KNOWN, "")
    if present.get(FINGERPRINT) != _identity(score_parts, name, limit, listed):
        return score_parts
    return _partition_files(run)


def _partition_files(run: RunDirectory) -> list[str]:
    return sorted(partition_file(order, pixel) for order, pixel in listed_pixels(run))


def listed_pixels(run: RunDirectory) -> list[tuple[int, int]]:
    """(order, pixel) of the catalogue's files by its own list: a listing of an object store may lag
    behind. KeyError, ValueError or CorruptRunError where the list is damaged."""
    text = run.store.read(f"{CATALOGUE}/{PARTITIONS}").decode()
    pixels = [(int(row["Norder"]), int(row["Npix"])) for row in csv.DictReader(StringIO(text))]
    if not pixels:
        raise CorruptRunError(f"{CATALOGUE}/{PARTITIONS}: expected partitions, found none")
    return pixels


def partition_file(order: int, pixel: int) -> str:
    """Name below the run of the catalogue's file of a HEALPix pixel."""
    return f"{DATASET}/Norder={order}/Dir={pixel // 10_000 * 10_000}/Npix={pixel}.parquet"


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
    run: RunDirectory,
    score_parts: Sequence[str],
    limit: int,
    folder: Path,
    known: KnownList | None,
) -> list[Partition]:
    schema = scores.schema(run, score_parts)
    flagged = schema if known is None else schema.append(KNOWN_LENS)
    at = None if known is None else KnownAt(known.table, known.radius_arcsec)
    places = find_places(run, score_parts)
    partitions = plan_partitions(places.histogram, limit)
    with Scatter() as rows:
        for table in stream(run, score_parts):
            rows.add(table, piece_of(table[HEALPIX].to_numpy().astype(np.uint64), places.bounds))
        ordered = (sorted_piece(rows.read(p), [HEALPIX], ["object_id"]) for p in rows.pieces())
        tables = Consecutive(_flagged(table.cast(schema), at) for table in ordered)
        for partition in partitions:
            pieces = slabs(tables.take(partition.rows), ROW_GROUP_ROWS)
            write_partition(folder, partition, flagged, pieces)
    return partitions


def _flagged(table: pa.Table, known: KnownAt | None) -> pa.Table:
    """With the known lenses at each row's position, where there is a list of them."""
    if known is None:
        return table
    ra_deg, dec_deg = (table[name].to_numpy() for name in ("ra", "dec"))
    return table.append_column(KNOWN_LENS, pa.array(known.names(ra_deg, dec_deg), pa.string()))


class Consecutive:
    """Tables end to end, of which rows are taken in turn."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._source = iter(tables)
        self._rest: pa.Table | None = None

    def take(self, rows: int) -> Iterator[pa.Table]:
        """The next rows, so many in all; RuntimeError where there are not so many."""
        while rows:
            table = next(self._source) if self._rest is None else self._rest
            self._rest = table.slice(rows) if table.num_rows > rows else None
            rows -= min(rows, table.num_rows)
            left = 0 if self._rest is None else self._rest.num_rows
            yield table.slice(0, table.num_rows - left)


def write_partition(
    folder: Path, partition: Partition, schema: pa.Schema, tables: Iterable[pa.Table]
) -> None:
    """One file of a catalogue in `folder`: tables sorted by `healpix_29`, each a row group.

    CorruptRunError where a row is not in the partition.
    """
    from hats.io.file_io.file_io import get_parquet_write_table_kwargs
    from hats.io.paths import new_pixel_catalog_file
    from hats.pixel_math.healpix_pixel import HealpixPixel

    sorting = pq.SortingColumn(schema.get_field_index(HEALPIX))
    options = get_parquet_write_table_kwargs(
        schema, write_table_kwargs={"sorting_columns": [sorting], "row_group_size": ROW_GROUP_ROWS}
    )
    rows = int(str(options.pop("row_group_size")))
    path = new_pixel_catalog_file(folder, HealpixPixel(partition.order, partition.pixel))
    with pq.ParquetWriter(str(path), schema, **options) as writer:
        for table in tables:
            ends = table[HEALPIX][0].as_py(), table[HEALPIX][-1].as_py()
            if not (partition.first <= ends[0] and ends[1] < partition.stop):
                where = f"from {ends[0]} to {ends[1]} not in {partition}"
                raise CorruptRunError(f"scores: {HEALPIX} {where}")
            writer.write_table(table, row_group_size=rows)


def write_metadata(
    folder: Path,
    partitions: Sequence[Partition],
    name: str,
    limit: int,
    identity: str,
    listed: str = "",
) -> None:
    """What a reader looks at first, once all partitions are written; `identity`: of the rows,
    `listed`: of the known lenses that flag them."""
    from hats.catalog.partition_info import PartitionInfo
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.pixel_math.healpix_pixel import HealpixPixel

    pixels = [HealpixPixel(partition.order, partition.pixel) for partition in partitions]
    written = write_parquet_metadata(folder)
    planned = sum(partition.rows for partition in partitions)
    if written != planned:
        raise CorruptRunError(f"catalogue: expected {planned} rows, found {written}")
    PartitionInfo.from_healpix(pixels).write_to_file(catalog_path=folder)
    _properties(folder, partitions, name, limit, identity, listed).to_properties_file(folder)


def _properties(
    folder: Path,
    partitions: Sequence[Partition],
    name: str,
    limit: int,
    identity: str,
    listed: str,
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
        **({_KNOWN: listed} if listed else {}),
    )

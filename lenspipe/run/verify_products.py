"""Whether what a run published is what its commits give: funnel, catalogue, candidates, known
lenses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from jaxtyping import Bool

from lenspipe.catalogue.candidates import (
    EMBEDDING,
    EXPLANATION,
    IMAGES,
    Rule,
    altered,
    array_of,
    choose,
    is_sealed,
    kept_columns,
    open_candidates,
    sealed_arrays,
)
from lenspipe.catalogue.funnel import funnel
from lenspipe.catalogue.hats import (
    COMMON_METADATA,
    DATASET,
    METADATA,
    PARTITIONS,
    footer,
    listed_pixels,
    partition_file,
    read_properties,
)
from lenspipe.catalogue.known import KNOWN_LENS, Known, KnownAt, read_known
from lenspipe.errors import CorruptRunError
from lenspipe.run.verify_rows import same_rows
from lenspipe.run_directory import (
    CANDIDATES,
    CATALOGUE,
    FUNNEL,
    KNOWN,
    PROPERTIES,
    ZARR_ROOT,
    RunDirectory,
)
from lenspipe.storage.external_sort import stream

# What lenspipe and other tools of HATS put beside the data; no reader of rows looks into it.
_BESIDE = re.compile(
    rf"{CATALOGUE}/(?:hats\.properties|properties|partition_info\.csv|point_map\.fits"
    r"|skymap(?:\.\d+)?\.fits|data_thumbnail\.parquet|per_partition_statistics\.parquet)"
)


def check_funnel(run: RunDirectory, cuts: Iterable[str]) -> Iterator[str]:
    """funnel.json counts what the commit records count; the candidates are looked at elsewhere."""
    told = _read_funnel(run)
    counted = funnel(run, cuts=cuts).model_dump(mode="json", exclude={"candidates"})
    for field in sorted({*counted, *told} - {"candidates"}):
        if told.get(field) != counted.get(field):
            yield (
                f"{FUNNEL}: {field}: {told.get(field)}, the commit records give "
                f"{counted.get(field)}"
            )


def check_catalogue(run: RunDirectory, score_parts: Sequence[str]) -> Iterator[str]:
    """The HATS catalogue is there, whole, and holds the rows of the score parts."""
    properties = read_properties(run)
    if not score_parts or properties is None:
        if score_parts:
            yield f"{CATALOGUE}/{PROPERTIES}: not there"
        elif run.store.names(CATALOGUE):
            yield f"{CATALOGUE}: there, but nothing was scored"
        return
    there = set(run.store.names(CATALOGUE))
    listed = sorted({partition_file(*pixel) for pixel in listed_pixels(run)})
    for name in sorted(there - {*listed, METADATA, COMMON_METADATA}):
        if not _BESIDE.fullmatch(name):
            yield f"{name}: a file that the catalogue does not list"
    # By name too: a listing may lag behind.
    files = [name for name in listed if name in there or run.store.exists(name)]
    for name in sorted({*listed} - {*files}):
        yield f"{name}: lost: {CATALOGUE}/{PARTITIONS} lists it"
    if files:
        yield from _check_rows(run, score_parts, files, int(properties["hats_nrows"]))


def _check_rows(
    run: RunDirectory, score_parts: Sequence[str], files: Sequence[str], told: int
) -> Iterator[str]:
    """The files of the catalogue hold the scored rows, and what sums them up says so."""
    held = sum(footer(run, name).num_rows for name in files)
    if told != held:
        yield f"{CATALOGUE}/{PROPERTIES}: hats_nrows {told}, found {held}"
    for name, rows in ((METADATA, held), (COMMON_METADATA, 0)):
        try:
            summed = footer(run, name)
        except FileNotFoundError:
            yield f"{name}: lost"
        except CorruptRunError as error:
            yield str(error)
        else:
            if summed.num_rows != rows:
                yield f"{name}: {summed.num_rows} rows, found {rows}"
            if summed.schema.to_arrow_schema() != footer(run, files[0]).schema.to_arrow_schema():
                yield f"{name}: other columns than {files[0]} has"
    if not same_rows(run, score_parts, files):
        yield f"{DATASET}: its rows are not those of scores/"


def check_candidates(run: RunDirectory, score_parts: Sequence[str]) -> Iterator[str]:
    """candidates.zarr is what was written, where it says so; it holds the best of the scores by its
    own rule, and can be read throughout. Where it was changed, that alone is told."""
    group = open_candidates(run)
    if group is None and score_parts:
        yield f"{CANDIDATES}: not there"
    elif not score_parts and run.store.names(CANDIDATES):
        yield f"{CANDIDATES}: there, but nothing was scored"
    total = 0
    if group is not None and score_parts:
        total = int(str(group.attrs["candidates"]))
        changes = list(_check_seal(run, group)) if is_sealed(group) else []
        yield from changes or _check_choice(run, score_parts, group, total)
    told = _read_funnel(run).get("candidates")
    if told != total:
        yield f"{FUNNEL}: candidates: {told}, {CANDIDATES} says {total}"


def _check_seal(run: RunDirectory, group: zarr.Group) -> Iterator[str]:
    for name in altered(group):
        what = f"{CANDIDATES}/{name}" if name else f"{CANDIDATES}: attributes"
        yield f"{what}: not what was written"
    known = {IMAGES, *sealed_arrays(group)}
    for file in run.store.names(CANDIDATES):
        folder, _, last = file.removeprefix(f"{CANDIDATES}/").rpartition("/")
        if folder and last == ZARR_ROOT and folder not in known:
            yield f"{CANDIDATES}/{folder}: was not written with the others"


def _check_choice(
    run: RunDirectory, score_parts: Sequence[str], group: zarr.Group, total: int
) -> Iterator[str]:
    chosen = choose(run, score_parts, Rule.model_validate(group.attrs["rule"]))
    if chosen is None:
        return
    if total != chosen.total:
        yield f"{CANDIDATES}: says {total} candidates, the scores give {chosen.total}"
    for name in chosen.table.column_names:
        if np.asarray(array_of(group, name)[:]).tolist() != chosen.table[name].to_pylist():
            yield f"{CANDIDATES}/{name}: not that of the best among the scores"
    yield from _check_pixels(group, chosen.table.num_rows)


def _check_pixels(group: zarr.Group, n: int) -> Iterator[str]:
    """No candidate that has a stamp is without a pixel; where nothing else read them, every chunk
    decodes."""
    images = group[IMAGES]
    names = sorted(images.array_keys()) if isinstance(images, zarr.Group) else []
    seen = np.zeros(n, bool)
    for name in names:
        seen |= _with_pixels(array_of(group, f"{IMAGES}/{name}"), n)
    if not is_sealed(group):
        for name in (EXPLANATION, EMBEDDING, *kept_columns(group)):
            if name in group:
                _decode(array_of(group, name))
    lost = int(np.count_nonzero(np.asarray(array_of(group, "has_stamp")[:]) & ~seen))
    if lost:
        yield f"{CANDIDATES}/{IMAGES}: no pixels of {lost} candidates that are said to have them"


def _decode(array: zarr.Array[Any]) -> None:
    for start in range(0, array.shape[0], array.chunks[0]):
        array[start : start + array.chunks[0]]


def _with_pixels(array: zarr.Array[Any], n: int) -> Bool[np.ndarray, " n"]:
    found = np.zeros(n, bool)
    for start in range(0, n, array.chunks[0]):
        pixels = np.asarray(array[start : start + array.chunks[0]])
        rows = slice(start, start + len(pixels))
        found[rows] = np.isfinite(pixels).reshape(len(pixels), -1).any(axis=1)
    return found


def check_known(run: RunDirectory, score_parts: Sequence[str], expected: bool) -> Iterator[str]:
    """known_lenses.parquet is there where the survey has such lenses, and what it says of scored
    sources is what the scores say."""
    known = read_known(run)
    if (known is not None) != expected:
        told = "not there" if expected else "there, but the survey file names no known lenses"
        yield f"{KNOWN}: {told}"
    if known is not None:
        yield from _check_scored(run, score_parts, known)


def check_flagged(run: RunDirectory) -> Iterator[str]:
    """The catalogue names the known lenses where known_lenses.parquet has them, if it names any:
    that of an older run does not, and a run that scored nothing has none."""
    known = read_known(run)
    if known is None or read_properties(run) is None:
        return
    files = [partition_file(*pixel) for pixel in listed_pixels(run)]
    if KNOWN_LENS.name not in footer(run, files[0]).schema.names:
        return
    at = KnownAt(known.table, known.radius_arcsec)
    wrong = 0
    for table in stream(run, files, ("ra", "dec", KNOWN_LENS.name)):
        names = at.names(*(table[name].to_numpy() for name in ("ra", "dec")))
        told = table[KNOWN_LENS.name].to_pylist()
        wrong += sum(a != b for a, b in zip(names, told, strict=True))
    if wrong:
        yield f"{DATASET}: {KNOWN_LENS.name} of {wrong} rows is not as in {KNOWN}"


def _check_scored(run: RunDirectory, score_parts: Sequence[str], known: Known) -> Iterator[str]:
    told = known.table.filter(pc.is_valid(known.table["score"]))
    wanted = {row["object_id"]: row for row in told.to_pylist()}
    columns = ("object_id", "score", "probability")
    ids = pa.array(list(wanted), known.table.schema.field("object_id").type)
    there = {}
    for table in stream(run, score_parts, columns) if wanted else ():
        for row in table.filter(pc.is_in(table["object_id"], ids)).to_pylist():
            there[row["object_id"]] = row
    for row in told.to_pylist():
        if {name: row[name] for name in columns} != there.get(row["object_id"]):
            yield f"{KNOWN}: {row['name']}: not the score of {row['object_id']!r}"


def _read_funnel(run: RunDirectory) -> dict[str, Any]:
    content: object = run.read_json(FUNNEL)
    if not isinstance(content, dict):
        there = "not there" if content is None else f"expected an object, found {content!r:.60}"
        raise CorruptRunError(f"{FUNNEL}: {there}")
    return content

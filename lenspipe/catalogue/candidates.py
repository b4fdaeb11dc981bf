"""The candidates of a run: chosen from the scores, their stamps in one Zarr group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from jaxtyping import Float32, Int64, Shaped
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from lenspipe.catalogue import scores
from lenspipe.catalogue.whole_folder import replacing
from lenspipe.contracts import InputSpec
from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import CANDIDATES, ZARR_ROOT, RunDirectory
from lenspipe.storage.external_sort import stream

IMAGES = "images"
EXPLANATION = "explanation"
EMBEDDING = "embedding"
MEMBERS = "members"  # attribute of `embedding`: (name, features) of each, in their order
KEPT_COLUMNS = "kept_columns"  # attribute: names of the columns that are the survey's own
FINGERPRINT = "fingerprint"
ARRAYS = "arrays_sha256"  # attribute: SHA-256 of each array by name, see `_array_sha256`
CONTENT = "content_sha256"  # attribute: SHA-256 of all the others, `ARRAYS` among them
COLUMNS = ("object_id", "ra", "dec", "score", "probability", "flags")
_CHUNK_BYTES = 1 << 20  # one stamp is looked at by reading about this much
_CHUNKS_AT_ONCE = 16  # of an object store, which answers them side by side
_AXES = {EXPLANATION: ("y", "x"), EMBEDDING: ("feature",)}

# Of the candidates' table, beside `COLUMNS`: no column that is kept may have such a name.
OWN_NAMES = frozenset(
    {*COLUMNS, "has_stamp", "rank", "name", "known_lens", "grade", "votes", "references"}
    | {IMAGES, EXPLANATION, EMBEDDING}
)


@dataclass(frozen=True)
class StampBatch:
    """What is kept of some candidates beside their scores.

    ids; images: pixels by input name. explanation: what spoke for a lens. embedding: what the
    networks see in them, see `models.embedding`; members: those networks, and how many features
    each has.
    """

    ids: Sequence[Any] | np.ndarray
    images: Mapping[str, Float32[np.ndarray, "n band y x"]]
    explanation: Float32[np.ndarray, "n y x"] | None = None
    embedding: Float32[np.ndarray, "n d"] | None = None
    members: Sequence[tuple[str, int]] = ()


class Rule(BaseModel):
    """Which scored sources are candidates, and what the choice rests on.

    score_above: logit that a candidate's score exceeds; or top: the best so many. keep: most
    candidates whose stamps are kept, the best first. fpr, n_negatives, n_positives: the
    false-positive rate that the threshold holds on the ensemble's test set, and that set's size.
    prevalence: the fraction of lenses that probabilities assume.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    score_above: FiniteFloat | None = None
    top: PositiveInt | None = None
    keep: PositiveInt = 10_000
    fpr: float | None = Field(default=None, gt=0.0, lt=1.0)
    n_negatives: NonNegativeInt | None = None
    n_positives: NonNegativeInt | None = None
    prevalence: float | None = Field(default=None, gt=0.0, lt=1.0)

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if (self.score_above is None) == (self.top is None):
            raise ValueError("expected exactly one of score_above, top")
        return self


@dataclass(frozen=True)
class Chosen:
    """total: how many candidates the run has. table: the best `keep` of them, ranked."""

    total: int
    table: pa.Table


def choose(run: RunDirectory, score_parts: Sequence[str], rule: Rule) -> Chosen | None:
    """The candidates ranked by score, equal scores by `object_id`; None where none was scored.

    Memory is bounded by `rule.keep`.
    """
    if not score_parts:
        return None
    limit = min(rule.keep, rule.top or rule.keep)
    schema = scores.schema(run, score_parts)
    best = pa.schema([schema.field(name) for name in COLUMNS]).empty_table()
    passing = 0
    for table in stream(run, score_parts, COLUMNS):
        found = table.filter(_passes(table["score"], rule.score_above))
        passing += found.num_rows
        best = _ranked(pa.concat_tables([best, found.cast(best.schema)]), limit)
    return Chosen(min(passing, rule.top or passing), best)


def _passes(score: pa.ChunkedArray, above: float | None) -> pa.ChunkedArray:
    """Whether a score is a candidate's; NaN, the largest of all to some, never is."""
    finite = pc.is_finite(score)
    return finite if above is None else pc.and_(finite, pc.greater(score, above))


def _ranked(table: pa.Table, limit: int) -> pa.Table:
    if table.num_rows > limit:  # sorting is dear: rows below the last of the best go first
        least = pc.select_k_unstable(table, k=limit, sort_keys=[("score", "descending")])[-1]
        table = table.filter(pc.greater_equal(table["score"], table["score"][least.as_py()]))
    order = pc.sort_indices(table, sort_keys=[("score", "descending"), ("object_id", "ascending")])
    return table.take(order[:limit]).combine_chunks()


def write_candidates(
    run: RunDirectory,
    chosen: Chosen,
    inputs: Sequence[InputSpec],
    batches: Iterable[StampBatch],
    attributes: Mapping[str, Any],
) -> int:
    """Make RUN/candidates.zarr whole; returns how many candidates have pixels there.

    Arrays by rank: `object_id`, `ra`, `dec`, `score`, `probability`, `flags`, what else the table
    of `chosen` has, `has_stamp`, `images/<input>` (n, band, y, x) and, where batches bring them,
    `explanation` (n, y, x) and `embedding` (n, d).
    Batches may come in any order and leave candidates out: those are NaN, `has_stamp` false.
    CorruptRunError where a batch names an id that is no candidate, or one twice.
    """
    with replacing(run.store, CANDIDATES, ZARR_ROOT) as folder:
        group = zarr.create_group(folder, zarr_format=3)
        _write_columns(group, chosen.table)
        _create_images(group, chosen.table.num_rows, inputs)
        written = _write_stamps(group, chosen.table, batches)
        kept = [name for name in chosen.table.column_names if name not in COLUMNS]
        group.update_attributes({"candidates": chosen.total, KEPT_COLUMNS: kept, **attributes})
        _seal(group)
    return written


def open_candidates(run: RunDirectory) -> zarr.Group | None:
    """RUN/candidates.zarr for reading; None where there is none."""
    if not run.store.exists(f"{CANDIDATES}/{ZARR_ROOT}"):
        return None
    if run.store.is_local:
        return zarr.open_group(run.store.local_path(CANDIDATES), mode="r")
    return zarr.open_group(f"{run.url.rstrip('/')}/{CANDIDATES}", mode="r")


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """The array of that name; KeyError where there is none, or a group."""
    member = group[name]
    if not isinstance(member, zarr.Array):
        raise KeyError(name)
    return member


def kept_columns(group: zarr.Group) -> list[str]:
    """Names of the columns of the survey's own catalogue that the candidates have."""
    names = group.attrs.get(KEPT_COLUMNS, [])
    return [str(name) for name in names] if isinstance(names, list) else []


def _write_columns(group: zarr.Group, table: pa.Table) -> None:
    for field in table.schema:
        values = table[field.name].to_numpy()
        text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        array = group.create_array(
            field.name,
            shape=values.shape,
            dtype="str" if text else values.dtype,
            dimension_names=("candidate",),
            attributes={key.decode(): text.decode() for key, text in field.metadata.items()},
        )
        if len(values):
            array[:] = values
    group.create_array(
        "has_stamp",
        shape=(table.num_rows,),
        dtype="bool",
        dimension_names=("candidate",),
        attributes={"description": "whether the candidate's pixels could be read again"},
    )


def _create_images(group: zarr.Group, n: int, inputs: Sequence[InputSpec]) -> None:
    images = group.create_group(IMAGES)
    for spec in inputs:
        array = _create_maps(images, spec.name, n, spec.shape, ("band", "y", "x"))
        array.update_attributes(
            {
                "bands": list(spec.bands),
                "pixel_scale_arcsec": spec.pixel_scale_arcsec,
                "zero_point_mag": spec.zero_point_mag,
            }
        )


def _create_maps(
    group: zarr.Group, name: str, n: int, shape: tuple[int, ...], axes: tuple[str, ...]
) -> zarr.Array[Any]:
    rows = _CHUNK_BYTES // (4 * int(np.prod(shape)))
    return group.create_array(
        name,
        shape=(n, *shape),
        chunks=(max(1, min(rows, n)), *shape),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=("candidate", *axes),
    )


def _write_stamps(group: zarr.Group, table: pa.Table, batches: Iterable[StampBatch]) -> int:
    rank = {key: row for row, key in enumerate(table["object_id"].to_pylist())}
    seen = np.zeros(table.num_rows, bool)
    for batch in batches:
        rows = _rows(rank, batch.ids, seen)
        seen[rows] = True
        for name, pixels in batch.images.items():
            _put(array_of(group, f"{IMAGES}/{name}"), rows, pixels)
        for name, values in ((EXPLANATION, batch.explanation), (EMBEDDING, batch.embedding)):
            if values is not None and len(rows):
                if name not in group:
                    made = _create_maps(group, name, table.num_rows, values.shape[1:], _AXES[name])
                    if name == EMBEDDING:
                        made.update_attributes({MEMBERS: [list(each) for each in batch.members]})
                _put(array_of(group, name), rows, values)
    if len(seen):
        array_of(group, "has_stamp")[:] = seen
    return int(np.count_nonzero(seen))


def _rows(
    rank: Mapping[Any, int], ids: Sequence[Any] | np.ndarray, seen: Shaped[np.ndarray, " n"]
) -> Int64[np.ndarray, " m"]:
    keys = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    unknown = [key for key in keys if key not in rank]
    if unknown:
        raise CorruptRunError(f"stamps: {unknown[0]!r} is no candidate")
    rows = np.array([rank[key] for key in keys], np.int64)
    if np.any(seen[rows]) or len(np.unique(rows)) != len(rows):
        raise CorruptRunError("stamps: a candidate came twice")
    return rows


def _put(array: zarr.Array[Any], rows: Int64[np.ndarray, " m"], pixels: np.ndarray) -> None:
    if len(rows):
        order = np.argsort(rows)  # zarr writes each chunk once where rows ascend
        array.set_orthogonal_selection((rows[order],), pixels[order])


def kept_candidates(run: RunDirectory, identity: str) -> int | None:
    """How many candidates RUN/candidates.zarr is of, where it is the one of this fingerprint and
    all that was written there is read again; None where it is to be made."""
    try:
        group = open_candidates(run)
        if group is None or group.attrs.get(FINGERPRINT) != identity:
            return None
        unchanged = is_sealed(group) and not any(True for _ in altered(group))
        return int(str(group.attrs["candidates"])) if unchanged else None
    except Exception as error:
        if not run.store.is_loss(error):
            raise  # storage that refuses is waited for
        return None


def is_sealed(group: zarr.Group) -> bool:
    """Whether candidates say what was written; those of older runs do not."""
    return ARRAYS in group.attrs


def sealed_arrays(group: zarr.Group) -> dict[str, str]:
    """SHA-256 of each array as it was written, by name."""
    told = group.attrs.get(ARRAYS)
    return {
        str(name): str(sha256) for name, sha256 in (told if isinstance(told, dict) else {}).items()
    }


def altered(group: zarr.Group) -> Iterator[str]:
    """Names of the arrays and groups that are not what was written, that of the whole ("") for its
    attributes. Some chunks are in memory at a time."""
    if group.attrs.get(CONTENT) != _attributes_sha256(group):
        yield ""
    if not isinstance(group.get(IMAGES), zarr.Group):
        yield IMAGES
    for name, sha256 in sealed_arrays(group).items():
        array = group.get(name)
        if not isinstance(array, zarr.Array) or _array_sha256(array) != sha256:
            yield name


def _seal(group: zarr.Group) -> None:
    members = sorted(group.members(max_depth=None), key=lambda member: member[0])
    arrays = {name: _array_sha256(each) for name, each in members if isinstance(each, zarr.Array)}
    group.update_attributes({ARRAYS: arrays})
    group.update_attributes({CONTENT: _attributes_sha256(group)})


def _attributes_sha256(group: zarr.Group) -> str:
    told = {key: value for key, value in dict(group.attrs).items() if key != CONTENT}
    return hashlib.sha256(_as_json(told)).hexdigest()


def _array_sha256(array: zarr.Array[Any]) -> str:
    """Of shape, axes, kind, attributes and values: not of files, since a chunk of nothing but the
    fill value has none."""
    axes = array.metadata.to_dict().get("dimension_names")
    about = [array.shape, axes, array.dtype.kind, dict(array.attrs)]
    digest = hashlib.sha256(_as_json(about))
    for piece in _pieces(array):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(array: zarr.Array[Any]) -> Iterator[bytes]:
    """All values in their order, some chunks at a time."""
    rows = max(1, array.chunks[0]) * _CHUNKS_AT_ONCE
    for start in range(0, array.shape[0], rows):
        values = np.asarray(array[start : start + rows])
        yield values.tobytes() if values.dtype.kind in "biuf" else _as_json(values.tolist())


def _as_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()

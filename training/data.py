"""The sets that `training.simulate` writes, as arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, UInt8

from lenspipe.contracts import InputSpec
from lenspipe.errors import InputError
from lenspipe.models.card import Feature, file_sha256
from lenspipe.models.session import FEATURES
from lenspipe.select.photometry import feature_columns, feature_matrix
from training.stored import Stored, open_set, set_sha256

Inputs = Mapping[str, Float32[np.ndarray, "n ..."]]
SEVERAL = "images_"  # begins the names of the data sets of a file with several grids


@dataclass(frozen=True)
class Examples:
    """Inputs with their labels.

    inputs: by name as in the model card, (n, band, y, x) flux each (`image`, or `vis` and `nisp`
    …), or `features` (n, feature). labels: 1 for a lens. kinds: class of each source (`lens`,
    `spiral` …). truth: parameters of the simulation by name, NaN where there are none.
    specs: what the pixels of each input are; empty for features. name, sha256: identity of the
    file. rests_on: how many distinct real objects or drawn lenses the sources were made from, in
    words.
    """

    inputs: Inputs
    labels: UInt8[np.ndarray, " n"]
    kinds: np.ndarray
    name: str
    sha256: str
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    specs: Mapping[str, InputSpec] = field(default_factory=dict)
    rests_on: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def positive(self) -> Bool[np.ndarray, " n"]:
        """Which are lenses."""
        return self.labels.astype(bool)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input name -> shape without the rows, as `architectures.build` takes it."""
        return {name: array.shape[1:] for name, array in self.inputs.items()}


def rows_of(inputs: Inputs, rows: slice | np.ndarray) -> dict[str, np.ndarray]:
    """The same rows of every input."""
    return {name: array[rows] for name, array in inputs.items()}


def joined(examples: Examples, more: Examples, rows: np.ndarray) -> Examples:
    """`examples` with some rows of another set behind; truth that both know.

    InputError where the other's pixels are others.
    """
    if dict(more.specs) != dict(examples.specs):
        raise InputError(f"set {more.name}", f"pixels as {dict(examples.specs)}", dict(more.specs))
    known = [key for key in examples.truth if key in more.truth]
    return replace(
        examples,
        inputs={
            name: np.concatenate([array, more.inputs[name][rows]])
            for name, array in examples.inputs.items()
        },
        labels=np.concatenate([examples.labels, more.labels[rows]]),
        kinds=np.concatenate([examples.kinds, more.kinds[rows]]),
        truth={key: np.concatenate([examples.truth[key], more.truth[key][rows]]) for key in known},
    )


def load_images(path: str | Path, both: bool = True) -> Examples:
    """A simulated set of stamps (HDF5 or Zarr). both: whether lenses and non-lenses must be in it.

    Data set `images` (n, band, y, x) is input `image`. A set on several pixel grids has a data set
    `images_NAME` for each input NAME in its place; the network gets them in the order of names.
    Attributes `bands`, `pixel_scale_arcsec` and `zero_point_mag` stand on a data set, or on the
    file where they hold for all. `label` (n,) is 1 for a lens; `kind`, `host`, `source` (n,)
    and `truth/*` may be absent.
    """
    field = f"training set {path}"
    with open_set(path, field) as stored:
        if "label" not in stored.names():
            raise InputError(field, "a dataset `label`", "none")
        grids = _grids(stored, field)
        images = {name: _pixels(stored, array) for name, array in grids.items()}
        specs = {
            name: spec_of(name, images[name], stored.told(grids[name]), field) for name in grids
        }
        labels = stored.array("label").astype(np.uint8)
        kinds = stored.words("kind") if "kind" in stored.names() else labels.astype(str)
        truth = {key: stored.array(f"truth/{key}") for key in stored.names("truth")}
        rests_on = _rests_on_galaxies(stored)
    for name, pixels in images.items():
        _check_pixels(f"{field}: input {name}", pixels, len(labels))
    if both:
        _need_both(path, labels)
    return Examples(
        inputs=images,
        labels=labels,
        kinds=np.asarray(kinds, str),
        name=f"{Path(path).stem} ({len(labels)} stamps)",
        sha256=set_sha256(path),
        truth=truth,
        specs=specs,
        rests_on=rests_on,
    )


def _pixels(stored: Stored, name: str) -> Float32[np.ndarray, "n band y x"]:
    return stored.array(name).astype(np.float32, copy=False)


def _grids(stored: Stored, field: str) -> dict[str, str]:
    """Input name -> the name of its data set of stamps."""
    names = stored.names()
    several = [name for name in names if name.startswith(SEVERAL) and name != SEVERAL]
    if ("images" in names) == bool(several):
        found = ", ".join(["images", *several]) if several else "none"
        raise InputError(field, f"a dataset `images`, or `{SEVERAL}NAME` for each input", found)
    if not several:
        return {"image": "images"}
    return {name.removeprefix(SEVERAL): name for name in several}


def spec_of(
    name: str,
    pixels: Float32[np.ndarray, "n band y x"],
    told: Mapping[str, Any],
    field: str,
) -> InputSpec:
    """What the pixels of an input are, by what its data set or its file says."""
    for key in ("bands", "pixel_scale_arcsec", "zero_point_mag"):
        if key not in told:
            raise InputError(f"{field}: input {name}", f"an attribute `{key}`", "none")
    return InputSpec(
        name=name,
        bands=tuple(_text(band) for band in told["bands"]),
        size_pixels=int(pixels.shape[-1]),
        pixel_scale_arcsec=float(told["pixel_scale_arcsec"]),
        zero_point_mag=float(told["zero_point_mag"]),
    )


def _check_pixels(field: str, pixels: Float32[np.ndarray, "n band y x"], rows: int) -> None:
    if len(pixels) != rows:
        raise InputError(field, f"{rows} rows, as many as labels", len(pixels))
    if not np.isfinite(pixels).all():
        raise InputError(field, "finite pixels", "NaN or infinity")


def rows_in(path: str | Path) -> int:
    """How many rows a set has, whatever is in it."""
    if Path(path).suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    with open_set(path, f"set {path}") as stored:
        if "label" not in stored.names():
            raise InputError(f"set {path}", "an array `label`", ", ".join(stored.names()) or "none")
        return len(stored.array("label"))


def real_objects(path: str | Path) -> tuple[str, ...]:
    """Names of the real objects in a set, sorted; the table and its side for a set of rows."""
    if Path(path).suffix == ".parquet":
        told = _told(path)
        taken = int(told.get("real_galaxies", 0)) > 0
        return (f"{told['table']}, side {told['side']}",) if taken else ()
    with open_set(path, f"set {path}") as stored:
        return tuple(sorted({*_galaxies(stored, "host"), *_galaxies(stored, "source")}))


def _galaxies(stored: Stored, column: str) -> set[str]:
    """The different names in `host` or `source`."""
    return set(stored.words(column).tolist()) - {""} if column in stored.names() else set()


def _rests_on_galaxies(stored: Stored) -> str:
    hosts, sources = (len(_galaxies(stored, column)) for column in ("host", "source"))
    if not hosts and not sources:
        return ""
    return f"{hosts} real host galaxies and {sources} real source galaxies"


def _told(path: str | Path) -> dict[str, str]:
    """What a set of rows says of itself; empty for a file that says nothing."""
    found = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in found.items()}


def _rests_on_rows(path: str | Path) -> str:
    told = _told(path)
    if "drawn_lenses" not in told:
        return ""
    return f"{told['drawn_lenses']} drawn lenses and {told['real_galaxies']} real galaxies"


def load_table(
    path: str | Path, features: Sequence[Feature], drop: float = 0.0, seed: int = 0
) -> Examples:
    """A simulated set of photometry (Parquet), standardised by `features`.

    drop: fraction of the rows that lose one of the features' columns, drawn by `seed`.
    """
    table = without_a_band(_read_table(path, features), feature_columns(features), drop, seed)
    labels = np.asarray(table["label"].to_numpy(), np.uint8)
    kinds = table["kind"].to_pylist() if "kind" in table.column_names else labels
    _need_both(path, labels)
    return Examples(
        inputs={FEATURES: feature_matrix(features, table)},
        labels=labels,
        kinds=np.asarray(kinds, str),
        name=f"{Path(path).stem} ({len(labels)} rows)",
        sha256=file_sha256(path),
        rests_on=_rests_on_rows(path),
    )


def measure_features(path: str | Path, features: Sequence[Feature]) -> tuple[Feature, ...]:
    """`features` with the mean and scale of their measured values; flags stay 0 and 1."""
    table = _read_table(path, features)
    plain = [f.model_copy(update={"mean": 0.0, "scale": 1.0, "fill": np.nan}) for f in features]
    columns = feature_matrix(plain, table).T
    return tuple(map(_measured, features, columns))


def without_a_band(table: pa.Table, columns: Sequence[str], fraction: float, seed: int) -> pa.Table:
    """`table` with one of `columns` not measured in a fraction of the rows."""
    draw = np.random.default_rng([seed, table.num_rows])
    lost = draw.integers(0, len(columns), table.num_rows)
    lost[draw.random(table.num_rows) >= fraction] = -1
    for k, name in enumerate(columns):
        values = np.where(lost == k, np.nan, table[name].to_numpy())
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table


def _measured(feature: Feature, column: Float32[np.ndarray, " n"]) -> Feature:
    values = column[np.isfinite(column)].astype(np.float64)
    if feature.kind == "missing":
        return feature
    if not len(values):
        raise InputError(f"features.{feature.a}", "a column with measured values", "none")
    mean, scale = float(values.mean()), float(values.std())
    return feature.model_copy(update={"mean": mean, "scale": scale if scale > 0 else 1.0})


def _read_table(path: str | Path, features: Sequence[Feature]) -> pa.Table:
    table = pq.read_table(path)
    for name in (*feature_columns(features), "label"):
        if name not in table.column_names:
            raise InputError(f"training set {path}", f"a column `{name}`", table.column_names)
    return table


def _need_both(path: str | Path, labels: UInt8[np.ndarray, " n"]) -> None:
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise InputError(f"training set {path}: label", "both 0 and 1", np.unique(labels))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

"""Graded candidates as a set of labelled stamps that `python -m training` takes.

The file is one that `training.data.load_images` reads: HDF5 with `images` (n, band, y, x) float32
flux, or `images_NAME` for each input where there are several; `label` (n,), 1 for a lens; `kind`
(n,), `lens` or `graded_GRADE`; `object_id`; and bands, pixel scale and zero point as attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from jaxtyping import Int64

from lenspipe.catalogue.candidates import IMAGES, array_of, open_candidates
from lenspipe.catalogue.graded import grades_table, id_type_of
from lenspipe.errors import CorruptRunError, InputError
from lenspipe.run_directory import RunDirectory
from lenspipe.serve.grades.event import ObjectId
from lenspipe.serve.grades.scheme import Scheme
from lenspipe.serve.grades.store import GradeStore
from lenspipe.storage.store import Store

ROWS_AT_ONCE = 256
_OF_PIXELS = ("bands", "pixel_scale_arcsec", "zero_point_mag")


@dataclass(frozen=True)
class Choice:
    """Which consensus grades are labels. lens, other: names of grades; grades in neither are left
    out. votes: the least number of persons who graded it."""

    lens: tuple[str, ...]
    other: tuple[str, ...]
    votes: int = 1

    @classmethod
    def of(
        cls, scheme: Scheme, lens: Sequence[str] = (), other: Sequence[str] = (), votes: int = 1
    ) -> Choice:
        """Without names: grades that say lens are lenses, and all the rest are others. InputError
        where a name is no grade, or is both."""
        for field, names in (("--lens", lens), ("--other", other)):
            for name in names:
                scheme.require(name, field)
        first = tuple(lens) or tuple(
            n for n in scheme.names if scheme.says_lens(n) and n not in other
        )
        second = tuple(other) or tuple(
            n for n in scheme.names if n not in first and not scheme.says_lens(n)
        )
        both = set(first) & set(second)
        if both:
            raise InputError("--other", "grades that are not lenses", min(both))
        return cls(first, second, votes)


@dataclass(frozen=True)
class Labelled:
    """How many stamps were written, of lenses and others, and how many labels had no stamp."""

    lenses: int
    others: int
    without_stamp: int


def write_labels(run: RunDirectory, store: GradeStore, out: str | Path, choice: Choice) -> Labelled:
    """Write the set; the file is there whole or not at all.

    The label of a hidden training object that is a candidate is its truth, whatever was said.
    InputError where there is no label, no stamp, or pixels whose zero point is not known.
    """
    path = Path(out)
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError("OUT", "a name that ends in .h5 or .hdf5", path.name)
    group = open_candidates(run)
    if group is None:
        raise InputError("RUN", "a run with candidates", f"{run.url} without any")
    labels = labels_of(store, run, choice)
    ids: list[ObjectId] = np.asarray(array_of(group, "object_id")[:]).tolist()
    has_stamp = np.asarray(array_of(group, "has_stamp")[:])
    labelled = [k for k, each in enumerate(ids) if each in labels]
    rows = np.array([k for k in labelled if has_stamp[k]], np.int64)
    if not len(rows):
        raise InputError("RUN", "graded candidates with stamps", "none")
    found = [labels[ids[k]] for k in rows]
    lenses = sum(label for label, _ in found)
    with (
        Store(str(path.absolute().parent)).writing(path.name) as aside,
        h5py.File(aside, "w") as file,
    ):
        file["label"] = np.array([label for label, _ in found], np.uint8)
        file.create_dataset("kind", data=[kind for _, kind in found], dtype=h5py.string_dtype())
        _write_ids(file, [ids[k] for k in rows])
        _write_pixels(file, group, rows)
        file.attrs["graded_from"] = run.url
    return Labelled(lenses, len(found) - lenses, len(labelled) - len(rows))


def labels_of(
    store: GradeStore, run: RunDirectory, choice: Choice
) -> dict[ObjectId, tuple[int, str]]:
    """(label, kind) of each object by consensus, or by truth where that is known."""
    graded = grades_table(store, {}, id_type_of(run)).to_pylist()
    found: dict[ObjectId, tuple[int, str]] = {}
    for row in graded:
        grade, enough = row["grade"], row["votes"] >= choice.votes
        if enough and grade in choice.lens:
            found[row["object_id"]] = (1, "lens")
        elif enough and grade in choice.other:
            found[row["object_id"]] = (0, f"graded_{grade}")
    for each in store.hidden():
        found[each.object_id] = (1, "lens") if each.is_lens else (0, each.kind or "known_other")
    return found


def _write_ids(file: h5py.File, ids: Sequence[ObjectId]) -> None:
    if isinstance(ids[0], int):
        file["object_id"] = np.array(ids)
    else:
        file.create_dataset("object_id", data=ids, dtype=h5py.string_dtype())


def _write_pixels(file: h5py.File, group: zarr.Group, rows: Int64[np.ndarray, " n"]) -> None:
    images = group.get(IMAGES)
    if not isinstance(images, zarr.Group):
        raise CorruptRunError("candidates.zarr/images: lost: lenspipe run makes it anew")
    names = sorted(images.array_keys())
    for name in names:
        source = array_of(images, name)
        target = file.create_dataset(
            "images" if len(names) == 1 else f"images_{name}",
            (len(rows), *source.shape[1:]),
            np.float32,
            chunks=(min(16, len(rows)), *source.shape[1:]),
        )
        target.attrs.update(_about(name, source.attrs.asdict()))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            target[start : start + len(part)] = source.oindex[part]


def _about(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    for key in _OF_PIXELS:
        if attributes.get(key) is None:
            raise InputError(f"candidates.zarr: images/{name}", f"pixels of a known {key}", "none")
    return {key: attributes[key] for key in _OF_PIXELS}

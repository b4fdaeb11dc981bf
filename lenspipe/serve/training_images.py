"""Images of known truth that are mixed in among candidates: they tell how good a grader is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lenspipe.errors import InputError
from lenspipe.serve.grades.event import ObjectId
from lenspipe.serve.grades.store import Hidden
from lenspipe.serve.stamps import Image

FIELD = "--training-images"
MOST_IMAGES = 20_000


@dataclass(frozen=True)
class _Pixels:
    """What pixels of a set must share with the candidates', so that nothing tells them apart."""

    bands: tuple[str, ...]
    pixel_scale_arcsec: float
    size_pixels: tuple[int, ...]


class TrainingImages:
    """A set of stamps as `python -m training simulate` writes it (HDF5: `images`, `label`, `kind`).

    like: a candidate's image; bands, pixel scale and size must be its own, and fluxes are brought
    to its zero point. InputError where the file is no such set. Safe to use from several threads.
    """

    def __init__(self, path: Path, like: Image) -> None:
        try:
            self._file = h5py.File(path, "r")
            self._images = self._file["images"]
            labels = np.asarray(self._file["label"][:MOST_IMAGES], np.int64)
            kinds = self._file["kind"].asstr()[:MOST_IMAGES]
            told = self._about()
            zero_point = float(self._attributes()["zero_point_mag"])
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            expected = "a set of labelled stamps (HDF5)"
            raise InputError(FIELD, expected, f"{path}: {error}") from error
        wanted = _Pixels(like.bands, like.pixel_scale_arcsec, like.pixels.shape[1:])
        if told != wanted:
            raise InputError(FIELD, f"pixels as the candidates have: {wanted}", told)
        shift_mag = 0.0 if like.zero_point_mag is None else like.zero_point_mag - zero_point
        self._like, self._factor = like, np.float32(10 ** (0.4 * shift_mag))
        # The same images are the same objects, wherever the file lies.
        digest = hashlib.sha256(labels.tobytes() + np.asarray(self._images[0]).tobytes())
        prefix = f"training-{digest.hexdigest()[:12]}"
        self._rows: dict[ObjectId, int] = {f"{prefix}-{row}": row for row in range(len(labels))}
        self.hidden: Sequence[Hidden] = [
            Hidden(object_id, bool(labels[row]), str(kinds[row]))
            for object_id, row in self._rows.items()
        ]

    def __contains__(self, object_id: ObjectId) -> bool:
        return object_id in self._rows

    def image(self, object_id: ObjectId) -> Image:
        """One of them, as if it were a candidate's. KeyError where it is none of them."""
        pixels = np.asarray(self._images[self._rows[object_id]], np.float32) * self._factor
        return replace(self._like, pixels=pixels, object_id=str(object_id), explanation=None)

    def _attributes(self) -> dict[str, Any]:
        """Of the file, as simulations have them, and of its images, as `grades labels` writes."""
        return {**self._file.attrs, **self._images.attrs}

    def _about(self) -> _Pixels:
        attributes = self._attributes()
        bands = tuple(str(band) for band in attributes["bands"])
        return _Pixels(bands, float(attributes["pixel_scale_arcsec"]), self._images.shape[2:])

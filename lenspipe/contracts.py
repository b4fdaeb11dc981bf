"""What the parts of lenspipe hand to one another: frozen, checked at construction."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, UInt32

# Execution providers of ONNX Runtime, and the arithmetic that they are asked for.
ProviderName = Literal["auto", "cpu", "openvino", "openvino_bf16", "cuda", "tensorrt"]


class Flag(IntFlag):
    """Quality of a cutout that was scored all the same; combined by OR in column `flags`."""

    EDGE = 1  # part of the stamp lies outside the image and was filled with sky
    MASKED = 2  # pixels that the survey's mask rejects were filled
    NAN_FILLED = 4  # pixels that were not finite were filled
    MISSING_BAND = 8  # a whole band was missing and filled (only where the survey file allows it)
    RESAMPLED = 16  # pixels were interpolated to the model's pixel scale
    CROPPED = 32  # a larger stamp was cut down to the model's size


class Reason(StrEnum):
    """Why a source has no score."""

    NOT_FOUND = "not_found"  # no file, row or tile holds its pixels
    UNREADABLE = "unreadable"  # the file or chunk is there and cannot be read
    MISSING_BAND = "missing_band"
    BAD_PIXELS = "bad_pixels"  # too large a part of a band is masked or not finite
    CONSTANT_IMAGE = "constant_image"
    BAD_METADATA = "bad_metadata"  # zero point, exposure time or position is missing or absurd
    DUPLICATE_ID = "duplicate_id"
    MEMBER_ERROR = "member_error"
    NON_FINITE_SCORE = "non_finite_score"
    WORKER_ERROR = "worker_error"  # our own code raised on this source alone, every time
    WORKER_DIED = "worker_died"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class InputSpec:
    """One image tensor as a model wants it.

    bands in channel order; size_pixels: side of the square stamp; pixel_scale_arcsec: arcsec per
    pixel; zero_point_mag: AB magnitude of one flux unit, or None where the model takes the
    survey's own counts.
    """

    name: str
    bands: tuple[str, ...]
    size_pixels: int
    pixel_scale_arcsec: float
    zero_point_mag: float | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(band, y, x)."""
        return (len(self.bands), self.size_pixels, self.size_pixels)


@dataclass(frozen=True)
class Failure:
    """One source without a score. row: its position in the table that was asked for."""

    row: int
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class CutoutBatch:
    """The pixels of `requested` sources: each is either an image row or a failure, exactly once.

    rows: positions in the requested table, one per image, strictly increasing.
    images: input name -> (n, band, y, x) float32, finite, flux at the input's zero point.
    flags: `Flag` bits per image. bytes_read: bytes taken from storage.
    """

    requested: int
    rows: Int64[np.ndarray, " n"]
    images: Mapping[str, Float32[np.ndarray, "n band y x"]]
    flags: UInt32[np.ndarray, " n"]
    failures: Sequence[Failure] = field(default_factory=tuple)
    bytes_read: int = 0

    def __post_init__(self) -> None:
        n = len(self.rows)
        for name, pixels in self.images.items():
            if pixels.ndim != 4 or len(pixels) != n or pixels.dtype != np.float32:
                raise ValueError(
                    f"images[{name}]: expected ({n}, band, y, x) float32, "
                    f"found {pixels.shape} {pixels.dtype}"
                )
        if len(self.flags) != n:
            raise ValueError(f"flags: expected {n} rows, found {len(self.flags)}")
        seen = np.concatenate([self.rows, [f.row for f in self.failures]]).astype(np.int64)
        if not np.array_equal(np.sort(seen), np.arange(self.requested)):
            raise ValueError(
                f"rows: expected each of {self.requested} sources once as image or failure, "
                f"found {n} images and {len(self.failures)} failures"
            )

    def __len__(self) -> int:
        return len(self.rows)


def _field(name: str, kind: pa.DataType, unit: str, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "description": description})


# Columns that every table of a run carries; `object_id` keeps the survey's own type.
POSITION_FIELDS: tuple[pa.Field, ...] = (
    _field("ra", pa.float64(), "deg", "right ascension, ICRS"),
    _field("dec", pa.float64(), "deg", "declination, ICRS"),
    _field("healpix_29", pa.int64(), "", "HEALPix index, order 29, nested"),
)


# Columns that the plan adds to the selected rows, for good and while it sorts them.
DUPLICATE = "duplicate"
PLAN_ROW = "__row"
PLAN_HASH = "__hash"
# What lenspipe writes beside the columns that a reader takes from the catalogue: none of those may
# have such a name.
RESERVED_COLUMNS = frozenset(
    {"healpix_29", "photometry_score", "locality", DUPLICATE, PLAN_ROW, PLAN_HASH}
)


def id_field(kind: pa.DataType) -> pa.Field:
    """Column `object_id` in the survey's own type (integer or string)."""
    return _field("object_id", kind, "", "identifier of the source in the survey's catalogue")


def selected_schema(id_type: pa.DataType, carried: Sequence[pa.Field] = ()) -> pa.Schema:
    """Schema of `select/part-*.parquet`: sources that survived cuts and photometry network.

    carried: further catalogue columns that the cutout reader needs.
    """
    return pa.schema(
        [
            id_field(id_type),
            *POSITION_FIELDS,
            _field("photometry_score", pa.float32(), "", "logit of the photometry network"),
            _field("locality", pa.int64(), "", "unit of storage that holds the pixels; -1: none"),
            *carried,
        ]
    )


def member_column(member: str) -> str:
    """Column of one member's logit: letters, digits and `_`, which SQL takes without quotes.

    SQL folds capitals, so that members whose columns differ in those alone are refused together.
    """
    return "score_" + re.sub(r"[^A-Za-z0-9_]", "_", member)


def score_schema(
    id_type: pa.DataType, members: Sequence[str], prevalence: float | None = None
) -> pa.Schema:
    """Schema of `scores/part-*.parquet` and of the published catalogue.

    prevalence: fraction of lenses that the probabilities hold at.
    """
    at = "" if prevalence is None else f", where a fraction {prevalence:.3g} are lenses"
    return pa.schema(
        [
            id_field(id_type),
            *POSITION_FIELDS,
            *(_field(member_column(m), pa.float32(), "", f"logit of member {m}") for m in members),
            _field("score", pa.float32(), "", "logit of the ensemble; what candidates rank by"),
            _field("probability", pa.float32(), "", f"calibrated score{at}"),
            _field("flags", pa.int32(), "", "quality bits, see lenspipe.contracts.Flag"),
            _field("model_hash", pa.string(), "", "SHA-256 of the ensemble, first 16 digits"),
        ]
    )


def failure_schema(id_type: pa.DataType) -> pa.Schema:
    """Schema of `failures/part-*.parquet`."""
    return pa.schema(
        [
            id_field(id_type),
            *POSITION_FIELDS,
            _field("stage", pa.string(), "", "stage that failed: select or score"),
            _field("reason", pa.string(), "", "see lenspipe.contracts.Reason"),
            _field("detail", pa.string(), "", "what was found, in words"),
        ]
    )

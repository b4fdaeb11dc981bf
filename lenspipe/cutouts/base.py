"""What every cutout reader takes and gives; the conformance suite holds each one to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticKnownError

from lenspipe.contracts import CutoutBatch, InputSpec
from lenspipe.cutouts.columns import NeededColumn
from lenspipe.cutouts.files.listing import Listing


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
WholeNumber = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, gt=0)]
# Text that is a number passes, since YAML reads 1e-3 as text.
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_truth_value)]
PositiveNumber = Annotated[Number, Field(gt=0.0)]
Switch = Annotated[bool, Field(strict=True)]


class Block(BaseModel):
    """A block of a survey file or a recipe: unknown keys and numbers that are not finite are
    refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ZeroPoint(Block):
    """Where the AB magnitude of one count comes from; exactly one source, for all bands.

    header: FITS card that holds it (mag). column: catalogue column, `{band}` filled in (mag).
    constant: one number or one per band (mag). exptime_header / exptime_column: exposure time (s),
    the zero point is then `base_mag + 2.5 log10(exptime)` (Pan-STARRS1 stacks: base 25).
    """

    header: Text | None = None
    column: Text | None = None
    constant: Number | dict[Text, Number] | None = None
    exptime_header: Text | None = None
    exptime_column: Text | None = None
    base_mag: Number = 25.0

    @model_validator(mode="after")
    def _one_source(self) -> ZeroPoint:
        sources = (
            self.header,
            self.column,
            self.constant,
            self.exptime_header,
            self.exptime_column,
        )
        if sum(source is not None for source in sources) != 1:
            raise ValueError(
                "expected exactly one of header, column, constant, exptime_header, exptime_column"
            )
        return self


class Mask(Block):
    """Which pixels are bad, beside those that are not finite.

    values: pixel values that mean "no data" (Bologna challenge: 100). hdu: extension that holds a
    mask image; file: path template of a separate mask image; bits: bad bit numbers of that mask
    (none given: any non-zero pixel is bad).
    """

    values: tuple[Number, ...] = ()
    hdu: Text | WholeNumber | None = None
    file: Text | None = None
    bits: tuple[Annotated[WholeNumber, Field(ge=0, le=63)], ...] = ()


class ReaderOptions(Block):
    """Options that every reader takes; a reader's own `Options` adds to them.

    bands: the bands that the pixels have. pixel_scale_arcsec: where the files do not say it.
    crop / resample: allow what the model's size or scale asks for. missing_band: `fail` the row or
    `fill` the band with zeros and flag it. max_bad_fraction: a row with a larger part of any band
    bad is a failure.
    """

    reader: str
    pixel_scale_arcsec: PositiveNumber | None = None
    zero_point: ZeroPoint | None = None
    mask: Mask = Mask()
    crop: Switch = False
    resample: Switch = False
    missing_band: Literal["fail", "fill"] = "fail"
    max_bad_fraction: Number = Field(default=0.25, ge=0.0, le=1.0)

    @property
    def counts_files(self) -> bool:
        """Whether a source's pixels are found by a position that counts through all files: then a
        file that comes before others moves all that follow."""
        return False


@dataclass(frozen=True)
class BandInfo:
    """What `describe` finds out about one band without reading pixels."""

    pixel_scale_arcsec: float | None
    size_pixels: tuple[int, int] | None  # (y, x) of a stamp; None where stamps are cut to measure
    files: int
    bytes: int
    listing: Listing = field(
        default_factory=Listing
    )  # the files, as they were when `describe` was asked


class Reader(Protocol):
    """Pixels of sources. Safe to call from several threads at once; holds no source's state."""

    @property
    def needs(self) -> Sequence[NeededColumn]:
        """Catalogue columns that `locality` and `read` take, and what each must hold."""
        ...

    @property
    def columns(self) -> frozenset[str]:
        """Names of `needs` beside object_id."""
        ...

    def describe(self) -> Mapping[str, BandInfo]:
        """Band -> what is there. Reads headers only. InputError where nothing readable is."""
        ...

    def listing(self) -> Mapping[str, Listing]:
        """Band -> its files as they are now: names, sizes, times or ETags. Opens no file.

        Asked of a new reader at the end of a run, and held against what `describe` told.
        """
        ...

    def check(self, inputs: Sequence[InputSpec]) -> None:
        """InputError where bands, pixel scale, size or zero point cannot serve `inputs`."""
        ...

    def locality(self, sources: pa.Table) -> Int64[np.ndarray, " n"]:
        """Unit of storage (tile, chunk, file) of each source's pixels; -1 where none has them.

        Sources that share a locality are read together: shards are planned by it.
        """
        ...

    def read(self, sources: pa.Table, inputs: Sequence[InputSpec]) -> CutoutBatch:
        """Cut out every source of the table (object_id, ra, dec, `columns`).

        A row that cannot be read is a `Failure`; only a fault that no row causes is raised.
        """
        ...


@runtime_checkable
class Locator(Protocol):
    """A reader whose files say where their sources are."""

    def read_located(
        self, sources: pa.Table, inputs: Sequence[InputSpec]
    ) -> tuple[CutoutBatch, Float64[np.ndarray, "n 2"]]:
        """As `Reader.read`, with (ra, dec) in degrees of every row, NaN where no file says it."""
        ...


@runtime_checkable
class Inspector(Protocol):
    """A reader that can tell before a run which of its files will cost sources."""

    def problems(self) -> Sequence[str]:
        """One line per file that cannot be read or is missing; reads headers only."""
        ...

"""Normalisation of pixels, once for training and serving: there is one definition of a pixel.

A function of `FUNCTIONS` takes its parameters, images (n, band, y, x) and the array module (numpy,
or torch where training traces it into the ONNX graph) and returns images of the same shape.
Functions of `ARRAY_ONLY` cannot be traced: serving applies them before the session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from lenspipe.errors import InputError
from lenspipe.models import zscale
from lenspipe.problems import first_problem


class Parameters(BaseModel):
    """Parameters of one normalisation: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def check_bands(self, bands: int) -> None:
        """InputError where parameters are given for another number of bands."""
        for name, value in self:
            if isinstance(value, tuple) and len(value) not in (1, bands):
                raise InputError(
                    f"normalisation.{name}", f"1 or {bands} values, one per band", len(value)
                )


PerBand = tuple[PositiveFloat, ...]


class Asinh(Parameters):
    """asinh(x / softening) * gain. softening: flux units, one for all bands or one per band."""

    softening: PerBand = Field(min_length=1)
    gain: PositiveFloat = 1.0


class Sqrt(Parameters):
    """sign(x) sqrt(|x| / scale). scale: flux units, one for all bands or one per band."""

    scale: PerBand = Field(min_length=1)


class ClipScale(Parameters):
    """(clip(x, low, high) - low) / (high - low). low, high: flux units."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> ClipScale:
        if not self.high > self.low:
            raise ValueError("expected high above low")
        return self


class ZScale(Parameters):
    """Each band of each image to 0–1 between the limits of IRAF's zscale; numpy only.

    contrast: the fitted line's slope is divided by it (0: not). samples: pixels that are taken.
    Where more than `max_reject` of them are rejected or fewer than `min_pixels` are left, the
    limits are their minimum and maximum. krej: standard deviations off the line at which one is
    rejected, in at most `max_iterations` turns. Defaults are astropy's.
    """

    contrast: float = Field(default=0.25, ge=0.0)
    samples: int = Field(default=1000, ge=2)
    max_reject: float = Field(default=0.5, ge=0.0, le=1.0)
    min_pixels: int = Field(default=5, ge=2)
    krej: PositiveFloat = 2.5
    max_iterations: int = Field(default=5, ge=1)

    def fit(self) -> zscale.Fit:
        """The same for the function that fits."""
        return zscale.Fit(
            contrast=self.contrast,
            n_samples=self.samples,
            max_reject=self.max_reject,
            min_npixels=self.min_pixels,
            krej=self.krej,
            max_iterations=self.max_iterations,
        )


def asinh(parameters: Asinh, images: Any, xp: Any) -> Any:
    """Linear for |x| << softening, logarithmic above (Lupton et al. 1999, AJ 118, 1406)."""
    return xp.asinh(images / _per_band(parameters.softening, images, xp)) * parameters.gain


def sqrt(parameters: Sqrt, images: Any, xp: Any) -> Any:
    """Square root that keeps the sign, so that sky noise stays symmetric."""
    return xp.sign(images) * xp.sqrt(xp.abs(images) / _per_band(parameters.scale, images, xp))


def clip_scale(parameters: ClipScale, images: Any, xp: Any) -> Any:
    """Cut at two flux levels and bring to 0–1."""
    span = parameters.high - parameters.low
    return (xp.clip(images, parameters.low, parameters.high) - parameters.low) / span


def zscale_numpy(parameters: ZScale, images: Any, xp: Any) -> Any:
    """As astropy's `ZScaleInterval`, band by band."""
    if xp.__name__ != "numpy":
        raise InputError("normalisation.name", "one that the graph can hold", "'zscale'")
    return zscale.scale(images, parameters.fit())


Function = Callable[[Any, Any, Any], Any]
FUNCTIONS: dict[str, tuple[type[Parameters], Function]] = {
    "asinh": (Asinh, asinh),
    "sqrt": (Sqrt, sqrt),
    "clip_scale": (ClipScale, clip_scale),
    "zscale": (ZScale, zscale_numpy),
}
ARRAY_ONLY = frozenset({"zscale"})


def parse(name: str, parameters: Mapping[str, Any]) -> Parameters:
    """Validated parameters. InputError for an unknown name or a parameter that is not right."""
    if name not in FUNCTIONS:
        raise InputError("normalisation.name", f"one of {', '.join(FUNCTIONS)}", repr(name))
    try:
        return FUNCTIONS[name][0].model_validate(dict(parameters))
    except ValidationError as error:
        raise first_problem(error, "normalisation") from error


def apply(name: str, parameters: Mapping[str, Any], images: Any, xp: Any) -> Any:
    """Normalise images (n, band, y, x) with the function `name`.

    xp: numpy or torch; `images` is its array. Values that are not finite stay so.
    """
    parsed = parse(name, parameters)
    parsed.check_bands(images.shape[1])
    return FUNCTIONS[name][1](parsed, images, xp)


def _per_band(values: tuple[float, ...], images: Any, xp: Any) -> Any:
    """(band, 1, 1) or (1, 1, 1) array of the images' type, on their device."""
    kept = images.device if xp.__name__ == "torch" else None
    where = {} if kept is None else {"device": kept}
    return xp.asarray(values, dtype=images.dtype, **where).reshape(len(values), 1, 1)

"""The wavelengths that a filter lets through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveFloat, model_validator

if TYPE_CHECKING:
    from jaxtyping import Float64

# Width of a flank as a fraction of its wavelength: interference filters rise within about 1%.
_FLANK = 0.003


class Passband(BaseModel):
    """A top hat with steep flanks; the edges are where half of the light passes.

    Edges that are the mean wavelength of the true response (telescope, filter, detector and air)
    minus and plus sqrt(3) of its standard deviation give the box the response's first two moments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    blue_angstrom: PositiveFloat
    red_angstrom: PositiveFloat

    @model_validator(mode="after")
    def _ordered(self) -> Passband:
        if self.red_angstrom <= self.blue_angstrom:
            raise ValueError("expected red_angstrom above blue_angstrom")
        return self

    @property
    def mean_angstrom(self) -> float:
        """Mean wavelength."""
        return (self.blue_angstrom + self.red_angstrom) / 2

    def response(self, wavelength_angstrom: Float64[np.ndarray, " w"]) -> Float64[np.ndarray, " w"]:
        """Fraction of photons that is counted, at most 1."""
        rise = (wavelength_angstrom / self.blue_angstrom - 1.0) / _FLANK
        fall = (wavelength_angstrom / self.red_angstrom - 1.0) / _FLANK
        return np.asarray(_step(rise) * _step(-fall))


def _step(x: Float64[np.ndarray, " w"]) -> Float64[np.ndarray, " w"]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -50.0, 50.0))))


Filters = Mapping[str, Passband]

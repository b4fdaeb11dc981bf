"""What the lenses of a set are to be like: Einstein radius, brightness and multiplicity by nature,
or uniform on purpose (Cañameras et al. 2023, arXiv:2306.03136: it decides what a network finds)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import numpy as np

Measure = Literal["arc_snr", "arc_mag", "alpha"]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ThetaE(_Block):
    """Einstein radii within [low, high] arcsec.

    natural: as velocity dispersions and redshifts have them, thinned out where the ground does not
    resolve them; uniform: as many at every radius.
    """

    distribution: Literal["natural", "uniform"] = "natural"
    low: float = Field(default=0.6, gt=0.0)
    high: float = 3.5

    @model_validator(mode="after")
    def _ordered(self) -> ThetaE:
        if self.low >= self.high:
            raise ValueError(f"expected low < high, found {self.low} and {self.high}")
        return self


class Brightness(_Block):
    """Brightness of the arcs.

    natural: sources by number counts down to the faintest that shows. uniform: `of` is uniform in
    [low, high], in the set's `snr_band`: arc_snr (see `observe.signal_to_noise`), arc_mag (total,
    AB), or alpha, the arcs' peak in units of the lens's (van Lohuizen 2021, equation 4.2).
    """

    distribution: Literal["natural", "uniform"] = "natural"
    of: Measure | None = None
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> Brightness:
        given = [value is not None for value in (self.of, self.low, self.high)]
        uniform = self.distribution == "uniform"
        if (uniform and not all(given)) or (not uniform and any(given)):
            raise ValueError("expected of, low and high with distribution uniform, and only there")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"expected low < high, found {self.low} and {self.high}")
        if self.of in ("arc_snr", "alpha") and self.low is not None and self.low <= 0:
            raise ValueError(f"expected low over 0 for {self.of}, found {self.low}")
        return self


@dataclass(frozen=True)
class Aim:
    """What one lens is to be, drawn before all else of it; None is left to nature.

    theta_e_arcsec; brightness: a measure and its value; quad: at least four images, or fewer;
    gamma: slope of the power law, 2 for an isothermal ellipsoid.
    """

    theta_e_arcsec: float | None = None
    brightness: tuple[Measure, float] | None = None
    quad: bool | None = None
    gamma: float | None = None


NATURAL = Aim()


def draw_aim(
    rng: np.random.Generator,
    theta_e: ThetaE,
    brightness: Brightness,
    quad_fraction: float | None,
    gamma: float | None,
) -> Aim:
    """One lens's aim. What stays natural takes no draw."""
    radius = float(rng.uniform(theta_e.low, theta_e.high)) if _uniform(theta_e) else None
    light: tuple[Measure, float] | None = None
    if brightness.of and brightness.low is not None and brightness.high is not None:
        light = brightness.of, float(rng.uniform(brightness.low, brightness.high))
    quad = None if quad_fraction is None else bool(rng.random() < quad_fraction)
    return Aim(radius, light, quad, gamma)


def _uniform(theta_e: ThetaE) -> bool:
    return theta_e.distribution == "uniform"

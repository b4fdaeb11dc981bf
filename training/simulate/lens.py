"""A lens: mass that follows an early type, a blue source behind it, and arcs that can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from training.simulate import colours, priors
from training.simulate.observe import Conditions, Instrument, convolve, signal_to_noise
from training.simulate.passband import Filters
from training.simulate.priors import Host
from training.simulate.scene import Component, Lens, Scene, magnitude, render_arcs, render_light

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

SOURCE_REDSHIFT = (0.8, 3.0)
# Einstein radii below this are thinned out by (theta_E / this)^2: most lenses of the sky are too
# small for a ground-based survey to resolve, and would be most of the set.
_RESOLVED_ARCSEC = 1.7
# Pan-STARRS r magnitude of unlensed sources: the bright limit is where galaxies at z > 0.8 become
# rare.
SOURCE_R_MAG = (21.8, 25.8)
MAX_DRAWS = 400
_SOURCES_PER_HOST = 10


@dataclass(frozen=True)
class Arcs:
    """Lensed light on a stamp, with and without PSF, and what it is: S/N and magnitude per band."""

    lens: Lens
    sharp: Float32[np.ndarray, "band y x"]
    blurred: Float32[np.ndarray, "band y x"]
    snr: Float64[np.ndarray, " band"]
    truth: Mapping[str, float]


@dataclass(frozen=True)
class Visible:
    """Which lenses count: arcs with S/N (see `observe.signal_to_noise`) of at least `minimum_snr`
    in `band`, Einstein radius (arcsec) within theta_e_arcsec."""

    minimum_snr: float = 10.0
    band: str = "g"
    theta_e_arcsec: tuple[float, float] = (0.6, 3.5)


VISIBLE = Visible()


def draw_mass(
    rng: np.random.Generator, host: Host, theta_e_arcsec: tuple[float, float]
) -> tuple[tuple[tuple[str, dict[str, float]], ...], float, float] | None:
    """Elliptical power law and external shear of a host: (mass, theta_E, z_source).

    None where the Einstein radius is outside theta_e_arcsec, or is thinned out. Slopes: Auger et
    al. 2010 (arXiv:1007.2880), gamma 2.08 with scatter 0.16; axis ratio and angle scatter about
    the light's.
    """
    z_source = priors.truncated_normal(rng, 1.6, 0.6, *SOURCE_REDSHIFT)
    theta_e = priors.theta_e_arcsec(host.sigma_km_s, host.redshift, z_source)
    low, high = theta_e_arcsec
    if not low < theta_e < high or rng.random() > (theta_e / _RESOLVED_ARCSEC) ** 2:
        return None
    modulus, angle = np.hypot(*host.shape), 0.5 * np.arctan2(host.shape[1], host.shape[0])
    q = np.clip((1 - modulus) / (1 + modulus) + rng.normal(0.0, 0.08), 0.5, 0.98)
    e1, e2 = priors.ellipticity_of(float(q), float(angle + rng.normal(0.0, 0.17)))
    gamma = priors.truncated_normal(rng, 2.06, 0.14, 1.7, 2.4)
    shear, direction = rng.rayleigh(0.035), rng.uniform(0, 2 * np.pi)
    epl = {"theta_E": theta_e, "gamma": gamma, "e1": e1, "e2": e2, "center_x": 0.0, "center_y": 0.0}
    external = {"gamma1": shear * np.cos(direction), "gamma2": shear * np.sin(direction)}
    return (("EPL", epl), ("SHEAR", external)), theta_e, z_source


@dataclass(frozen=True)
class SourceStamp:
    """A real galaxy as source light: image without noise or neighbours, its half-light radius in
    its own pixels."""

    image: Float32[np.ndarray, "y x"]
    radius_pixels: float


def draw_source(
    rng: np.random.Generator,
    filters: Filters,
    theta_e: float,
    z_source: float,
    r_mag: float,
    stamps: Sequence[SourceStamp] = (),
) -> tuple[Component, ...]:
    """A star-forming galaxy at a place that is strongly lensed.

    A Sersic disc with up to three clumps, or, where there are `stamps`, in half of the cases a real
    galaxy turned at random and scaled to the size that was drawn.
    """
    radius = np.clip(
        2.2 * 10.0 ** rng.normal(0.0, 0.17) / priors.kpc_per_arcsec(z_source), 0.1, 0.6
    )
    distance, angle = 0.75 * theta_e * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    at = (float(distance * np.cos(angle)), float(distance * np.sin(angle)))
    colour = colours.draw(rng, "source", z_source, filters, reference="r")
    total = priors.magnitudes(r_mag, colour)
    if stamps and rng.random() < 0.5:
        return (
            _real_source(rng, stamps[int(rng.integers(len(stamps)))], float(radius), at, total),
        )
    return _clumpy_source(rng, float(radius), at, total)


def _real_source(
    rng: np.random.Generator,
    stamp: SourceStamp,
    radius_arcsec: float,
    at: tuple[float, float],
    total: priors.Magnitudes,
) -> Component:
    parameters = {
        "image": stamp.image,
        "scale": radius_arcsec / stamp.radius_pixels,
        "phi_G": float(rng.uniform(-np.pi, np.pi)),
        "center_x": at[0],
        "center_y": at[1],
    }
    return Component("STAMP", parameters, total)


def _clumpy_source(
    rng: np.random.Generator, radius: float, at: tuple[float, float], total: priors.Magnitudes
) -> tuple[Component, ...]:
    shape, index = priors.ellipticity(rng, 0.35, 0.95), float(rng.uniform(0.7, 1.8))
    rest = total
    clumps = []
    for _ in range(rng.integers(0, 4)):
        clump, rest = priors.split(rest, float(rng.uniform(0.05, 0.25)))
        dx, dy = rng.normal(0.0, 0.8 * radius, size=2)
        size = float(radius * rng.uniform(0.15, 0.4))
        clumps.append(priors.sersic(clump, size, 1.0, (0.0, 0.0), (at[0] + dx, at[1] + dy)))
    return (priors.sersic(rest, radius, index, shape, at), *clumps)


def dimmed(source: tuple[Component, ...], by_mag: float) -> tuple[Component, ...]:
    """The same source, fainter by `by_mag` in every band."""
    return tuple(
        replace(part, magnitudes={band: m + by_mag for band, m in part.magnitudes.items()})
        for part in source
    )


def _faintest(
    blurred: Float32[np.ndarray, "y x"], variance: Float64[np.ndarray, "y x"], minimum_snr: float
) -> float:
    """By how many magnitudes arcs may dim until their S/N against `variance` is the minimum."""
    snr = float(np.sqrt(np.sum(blurred.astype(np.float64) ** 2 / variance)))
    return 2.5 * float(np.log10(snr / minimum_snr)) if snr > 0 else -np.inf


def _scaled(
    arcs: Arcs, dim_mag: float, light: Float32[np.ndarray, "band y x"], seen: Conditions
) -> Arcs:
    factor = np.float32(10.0 ** (-0.4 * dim_mag))
    blurred = arcs.blurred * factor
    return Arcs(
        Lens(arcs.lens.mass, dimmed(arcs.lens.source, dim_mag)),
        arcs.sharp * factor,
        blurred,
        signal_to_noise(blurred, light + blurred, seen),
        arcs.truth,
    )


def _magnitudes_of(
    image: Float32[np.ndarray, "band y x"], instrument: Instrument
) -> dict[str, float]:
    return {
        band: magnitude(float(image[k].sum()), instrument.zero_point_mag)
        for k, band in enumerate(instrument.bands)
    }


def _truth(
    arcs: Arcs, host: Host, instrument: Instrument, theta_e: float, z_source: float
) -> dict[str, float]:
    arc_mag = _magnitudes_of(arcs.sharp, instrument)
    source_mag = priors.combined([part.magnitudes for part in arcs.lens.source])
    reference = instrument.bands[0]
    epl = arcs.lens.mass[0][1]
    return {
        "theta_e_arcsec": theta_e,
        "z_lens": host.redshift,
        "z_source": z_source,
        "sigma_v_km_s": host.sigma_km_s,
        "gamma": epl["gamma"],
        "magnification": float(10.0 ** (0.4 * (source_mag[reference] - arc_mag[reference]))),
        **{f"arc_mag_{band}": m for band, m in arc_mag.items()},
        **{f"source_mag_{band}": m for band, m in source_mag.items()},
        **{f"arc_snr_{b}": float(s) for b, s in zip(instrument.bands, arcs.snr, strict=True)},
    }


def draw_arcs(
    rng: np.random.Generator,
    host: Host,
    light: Float32[np.ndarray, "band y x"],
    instrument: Instrument,
    seen: Conditions,
    *,
    visible: Visible,
    centre: tuple[float, float],
    stamps: Sequence[SourceStamp] = (),
) -> Arcs | None:
    """Arcs of a random source behind `host`, drawn so that they can be seen on this image.

    light: the host convolved with the PSF, the noise of which the arcs must overcome; centre:
    (x, y) of the host in pixels; stamps: see `draw_source`. Geometry is drawn
    first; the source's magnitude then follows number counts down to the faintest that is visible.
    None where no source of a plausible magnitude is visible, or the host is no lens.
    """
    drawn = draw_mass(rng, host, visible.theta_e_arcsec)
    if drawn is None:
        return None
    mass, theta_e, z_source = drawn
    bright, faint = SOURCE_R_MAG
    lens = Lens(mass, draw_source(rng, instrument.filters, theta_e, z_source, bright, stamps))
    sharp = render_arcs(
        lens,
        instrument.bands,
        light.shape[1:],
        instrument.pixel_scale_arcsec,
        instrument.zero_point_mag,
        centre=centre,
    )
    first = Arcs(lens, sharp, convolve(sharp, seen.psf), np.empty(0), {})
    k = instrument.bands.index(visible.band)
    variance = seen.sky_rms[k] ** 2 + np.maximum(light[k], 0.0) / seen.electrons[k]
    room = min(faint - bright, _faintest(first.blurred[k], variance, visible.minimum_snr))
    if room < 0.0:
        return None
    # What brighter sources or higher magnification would show anyway is rarer on the sky.
    if rng.random() > 10.0 ** (0.2 * (room - (faint - bright))):
        return None
    arcs = _scaled(first, priors.counts(rng, bright, bright + room) - bright, light, seen)
    if arcs.snr[k] < visible.minimum_snr:
        return None
    return replace(arcs, truth=_truth(arcs, host, instrument, theta_e, z_source))


def host_light(
    host: Host,
    instrument: Instrument,
    psf: Float32[np.ndarray, "band py px"],
    size_pixels: int,
    centre: tuple[float, float],
) -> Float32[np.ndarray, "band y x"]:
    """The host's light on a stamp, convolved."""
    shape = (size_pixels, size_pixels)
    sharp = render_light(
        host.components,
        instrument.bands,
        shape,
        instrument.pixel_scale_arcsec,
        instrument.zero_point_mag,
        centre=centre,
    )
    return convolve(sharp, psf)


def lens_scene(host: Host, arcs: Arcs) -> Scene:
    """Host and arcs as one object of the catalogue."""
    bands = host.magnitudes.keys()
    arc_magnitudes = {band: arcs.truth[f"arc_mag_{band}"] for band in bands}
    return Scene(
        "lens",
        host.components,
        priors.combined([host.magnitudes, arc_magnitudes]),
        host.radius_arcsec,
        i_mag=host.i_mag,
        lens=arcs.lens,
        truth=arcs.truth,
    )


def draw_lens(
    rng: np.random.Generator,
    instrument: Instrument,
    seen: Conditions,
    *,
    visible: Visible = VISIBLE,
    size_pixels: int = 48,
    centre: tuple[float, float] | None = None,
    stamps: Sequence[SourceStamp] = (),
) -> tuple[Scene, Float32[np.ndarray, "band y x"]]:
    """A lens with visible arcs, and its noiseless image under these conditions."""
    where = centre or ((size_pixels - 1) / 2, (size_pixels - 1) / 2)
    for _ in range(MAX_DRAWS):
        host = priors.draw_host(rng, instrument.filters)
        light = host_light(host, instrument, seen.psf, size_pixels, where)
        for _ in range(_SOURCES_PER_HOST):
            arcs = draw_arcs(
                rng, host, light, instrument, seen, visible=visible, centre=where, stamps=stamps
            )
            if arcs is not None:
                return lens_scene(host, arcs), light + arcs.blurred
    raise RuntimeError(f"no lens with {visible} in {MAX_DRAWS} hosts: the mix asks for too much")

"""A lens: an early type, a blue source behind it, and arcs that can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lenspipe.errors import HopelessError
from training.simulate import arc_truth, priors
from training.simulate.aim import NATURAL, Aim
from training.simulate.deflector import Deflector, draw_mass, draw_place
from training.simulate.instrument import Instrument
from training.simulate.multiplicity import count_images
from training.simulate.observe import Conditions, convolve, signal_to_noise, stamp_after_psf
from training.simulate.priors import Host
from training.simulate.scene import Component, Lens, Scene, magnitude, render_arcs, render_light
from training.simulate.source import SourceStamp, dimmed, draw_source

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

# Pan-STARRS r magnitude of unlensed sources: the bright limit is where galaxies at z > 0.8 become
# rare.
SOURCE_R_MAG = (21.8, 25.8)
MAX_DRAWS = 400
_SOURCES_PER_HOST = 10
# r magnitudes of sources that may be asked for by their arcs' brightness.
_ASKED_R_MAG = (20.0, 27.5)
# Part of the arcs' light on a stamp's outermost pixels that says that there is none beyond.
_NO_LIGHT = 1e-4


class NoSuchLensError(HopelessError):
    """What a set asks of its lenses is not found."""


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


def visible_in(instrument: Instrument) -> Visible:
    """`VISIBLE` in g, or in the instrument's first band where it has no g."""
    bands = instrument.bands
    return VISIBLE if VISIBLE.band in bands else replace(VISIBLE, band=bands[0])


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
    arcs: Arcs,
    host: Host,
    behind: _Setting,
    deflector: Deflector,
) -> dict[str, float]:
    instrument, bands = behind.instrument, behind.instrument.bands
    arc_mag = _magnitudes_of(arcs.sharp, instrument)
    source_mag = priors.combined([part.magnitudes for part in arcs.lens.source])
    k, scale = bands.index(behind.visible.band), instrument.pixel_scale_arcsec
    contrast = arc_truth.contrast(arcs.blurred, behind.light, behind.centre, scale)
    brighter = source_mag[bands[0]] - arc_mag[bands[0]]
    # Lensing has no colour: bands of other grids are magnified as this grid's.
    elsewhere = {band: m - brighter for band, m in source_mag.items()}
    return {
        **_geometry(deflector, arcs.lens.source[0]),
        "z_lens": host.redshift,
        "magnification": float(10.0 ** (0.4 * brighter)),
        **arc_truth.area(arcs.blurred[k], float(behind.seen.sky_rms[k]), scale),
        **{f"arc_mag_{band}": m for band, m in (elsewhere | arc_mag).items()},
        **{f"source_mag_{band}": m for band, m in source_mag.items()},
        **{f"arc_snr_{b}": float(s) for b, s in zip(bands, arcs.snr, strict=True)},
        **{f"source_lens_contrast_{b}": float(c) for b, c in zip(bands, contrast, strict=True)},
    }


def _geometry(deflector: Deflector, source: Component) -> dict[str, float]:
    epl, shear = (keywords for _, keywords in deflector.mass)
    x, y = source.parameters["center_x"], source.parameters["center_y"]
    return {
        "theta_e_arcsec": deflector.theta_e_arcsec,
        "z_source": deflector.z_source,
        "sigma_v_km_s": deflector.sigma_km_s,
        "gamma": epl["gamma"],
        "lens_e1": epl["e1"],
        "lens_e2": epl["e2"],
        "shear_1": shear["gamma1"],
        "shear_2": shear["gamma2"],
        "source_x_arcsec": x,
        "source_y_arcsec": y,
        "n_images": float(count_images(deflector.mass, deflector.theta_e_arcsec, x, y)),
    }


@dataclass(frozen=True)
class _Setting:
    """The image that arcs must show on: host light (convolved), its centre (x, y) in pixels."""

    light: Float32[np.ndarray, "band y x"]
    centre: tuple[float, float]
    instrument: Instrument
    seen: Conditions
    visible: Visible

    @property
    def band(self) -> int:
        """Number of the band that arcs must show in."""
        return self.instrument.bands.index(self.visible.band)

    def room_mag(self, blurred: Float32[np.ndarray, "band y x"]) -> float:
        """How far arcs of the brightest source may dim and still show."""
        k = self.band
        noise = self.seen.sky_rms[k] ** 2
        variance = noise + np.maximum(self.light[k], 0.0) / self.seen.electrons[k]
        bright, faint = SOURCE_R_MAG
        return min(faint - bright, _faintest(blurred[k], variance, self.visible.minimum_snr))


def _natural_dimming(rng: np.random.Generator, room_mag: float) -> float | None:
    """By how much the brightest source dims, by number counts down to `room_mag`."""
    bright, faint = SOURCE_R_MAG
    # What brighter sources or higher magnification would show anyway is rarer on the sky.
    if room_mag < 0.0 or rng.random() > 10.0 ** (0.2 * (room_mag - (faint - bright))):
        return None
    return priors.counts(rng, bright, bright + room_mag) - bright


def _dimming_to(first: Arcs, setting: _Setting, aim: Aim) -> float | None:
    """By how much the brightest source dims until its arcs are as bright as aimed at."""
    if aim.brightness is None:
        raise ValueError("expected an aim with a brightness")
    measure, value = aim.brightness
    k = setting.band
    if measure == "arc_mag":
        total = float(first.sharp[k].sum())
        dim = value - magnitude(total, setting.instrument.zero_point_mag)
    elif measure == "alpha":
        scale = setting.instrument.pixel_scale_arcsec
        now = arc_truth.contrast(first.blurred, setting.light, setting.centre, scale)[k]
        dim = 2.5 * float(np.log10(now / value)) if now > 0 else -np.inf
    else:
        dim = _dimming_to_snr(first, setting, value)
    low, high = (limit - SOURCE_R_MAG[0] for limit in _ASKED_R_MAG)
    return dim if low <= dim <= high else None


def _dimming_to_snr(first: Arcs, setting: _Setting, wanted: float) -> float:
    """S/N falls with every magnitude: halve the interval until it is within a thousandth."""
    low, high = (limit - SOURCE_R_MAG[0] for limit in (19.0, 29.0))
    for _ in range(14):
        middle = 0.5 * (low + high)
        arcs = first.blurred * np.float32(10.0 ** (-0.4 * middle))
        snr = signal_to_noise(arcs, setting.light + arcs, setting.seen)[setting.band]
        low, high = (middle, high) if snr > wanted else (low, middle)
    return low


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
    aim: Aim = NATURAL,
) -> Arcs | None:
    """Arcs of a random source behind `host`, drawn so that they can be seen on this image.

    light: the host convolved with the PSF, the noise of which the arcs must overcome; centre:
    (x, y) of the host in pixels; stamps: see `draw_source`. Geometry is drawn
    first; the source's magnitude then follows number counts down to the faintest that is visible,
    or is what the aim's brightness asks. None where no source of a plausible magnitude is visible
    or as bright as aimed at, or the host is no such lens.
    """
    setting = _Setting(light, centre, instrument, seen, visible)
    deflector = draw_mass(rng, host, visible.theta_e_arcsec, aim)
    at = None if deflector is None else draw_place(rng, deflector, aim.quad)
    if deflector is None or at is None:
        return None
    source = draw_source(rng, instrument.filters, at, deflector.z_source, SOURCE_R_MAG[0], stamps)
    first = _brightest(Lens(deflector.mass, source), setting)
    if aim.brightness is None:
        dim = _natural_dimming(rng, setting.room_mag(first.blurred))
    else:
        dim = _dimming_to(first, setting, aim)
    if dim is None:
        return None
    arcs = _scaled(first, dim, light, seen)
    if arcs.snr[setting.band] < visible.minimum_snr:
        return None
    return replace(arcs, truth=_truth(arcs, host, setting, deflector))


def _brightest(lens: Lens, setting: _Setting) -> Arcs:
    """Arcs of a lens as it is, not yet dimmed and without S/N."""
    height, width = setting.light.shape[1:]
    images = blurred_arcs(
        lens, setting.instrument, setting.seen.psf, (height, width), setting.centre
    )
    return Arcs(lens, *images, np.empty(0), {})


def blurred_arcs(
    lens: Lens,
    instrument: Instrument,
    psf: Float32[np.ndarray, "band py px"],
    shape: tuple[int, int],
    centre: tuple[float, float],
) -> tuple[Float32[np.ndarray, "band y x"], Float32[np.ndarray, "band y x"]]:
    """The arcs on a stamp of shape (y, x), without PSF and with it.

    Most arcs end well inside of the stamp: what lies around it is rendered only where they do not.
    """
    bands, step, zero = instrument.bands, instrument.pixel_scale_arcsec, instrument.zero_point_mag

    def sharp(margin: int) -> Float32[np.ndarray, "band y x"]:
        side = shape[0] + 2 * margin, shape[1] + 2 * margin
        at = centre[0] + margin, centre[1] + margin
        return render_arcs(lens, bands, side, step, zero, centre=at)

    inside = sharp(0)
    edge = inside.sum() - inside[:, 1:-1, 1:-1].sum()
    if edge <= _NO_LIGHT * inside.sum():
        return inside, convolve(inside, psf)
    return inside, stamp_after_psf(sharp, psf)


def host_light(
    host: Host,
    instrument: Instrument,
    psf: Float32[np.ndarray, "band py px"],
    size_pixels: int,
    centre: tuple[float, float],
) -> Float32[np.ndarray, "band y x"]:
    """The host's light on a stamp, convolved."""

    def sharp(margin: int) -> Float32[np.ndarray, "band y x"]:
        side = size_pixels + 2 * margin
        return render_light(
            host.components,
            instrument.bands,
            (side, side),
            instrument.pixel_scale_arcsec,
            instrument.zero_point_mag,
            centre=(centre[0] + margin, centre[1] + margin),
        )

    return stamp_after_psf(sharp, psf)


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
    aim: Aim = NATURAL,
    hosts: int = MAX_DRAWS,
) -> tuple[Scene, Float32[np.ndarray, "band y x"], Float32[np.ndarray, "band y x"]]:
    """A lens with visible arcs, its noiseless image under these conditions, and of that the arcs.

    NoSuchLensError: none of so many `hosts` made a lens that is visible and as aimed at.
    """
    where = centre or ((size_pixels - 1) / 2, (size_pixels - 1) / 2)
    for _ in range(hosts):
        host = priors.draw_host(rng, instrument.filters)
        light = host_light(host, instrument, seen.psf, size_pixels, where)
        for _ in range(_SOURCES_PER_HOST):
            arcs = draw_arcs(
                rng,
                host,
                light,
                instrument,
                seen,
                visible=visible,
                centre=where,
                stamps=stamps,
                aim=aim,
            )
            if arcs is not None:
                return lens_scene(host, arcs), light + arcs.blurred, arcs.blurred
    wanted = f"lenses of which one in {hosts} galaxies can be {visible}, {aim}"
    raise NoSuchLensError("simulate", wanted, "none")

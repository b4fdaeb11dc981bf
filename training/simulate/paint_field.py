"""Workers of the simulated sky: scenes onto their part of the mosaic, a tile into its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from training.simulate import shapes
from training.simulate.instrument import Instrument, load_instrument
from training.simulate.observe import convolve, signal_to_noise
from training.simulate.population import draw
from training.simulate.scene import (
    ADAPTIVE,
    Sampling,
    Scene,
    point_fluxes,
    render_arcs,
    render_onto,
)
from training.simulate.tile_pixels import (
    MARGIN_PIXELS,
    Observation,
    draw_observation,
    expose,
    lay_point,
)
from training.simulate.tiles import Mosaic, Tile, header, write_tile

# Streams of random numbers: one seed, and no two uses share a generator.
SCENES, OBSERVATIONS, PIXELS, CATALOGUE, FIELD = range(5)

_ARC_STAMP_PIXELS = 65
SMOOTH_ARCSEC = 0.5


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers of one use; the same whichever process asks, in whichever order."""
    return np.random.default_rng([seed, *stream])


@dataclass(frozen=True)
class Part:
    """The sources whose home is one tile. x, y: mosaic pixels; index: number of the source."""

    tile: Tile
    tile_number: int
    index: Int64[np.ndarray, " n"]
    x: Float64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Painted:
    """Noiseless flux of a part, with margin, and the truth of each of its sources."""

    flux: Float32[np.ndarray, "band y x"]
    truth: tuple[dict[str, float | str], ...]


def observation_of(seed: int, tile_number: int, instrument: Instrument) -> Observation:
    """How a tile was observed; known to every worker by the seed alone."""
    return draw_observation(generator(seed, OBSERVATIONS, tile_number), instrument)


def paint(seed: int, part: Part, instrument_name: str) -> Painted:
    """Draw and render the scenes of one part."""
    instrument = load_instrument(instrument_name)
    observation = observation_of(seed, part.tile_number, instrument)
    side = part.tile.side + 2 * MARGIN_PIXELS
    flux = np.zeros((len(instrument.bands), side, side), dtype=np.float32)
    truth = []
    for index, x, y, kind in zip(part.index, part.x, part.y, part.kinds, strict=True):
        scene = draw(generator(seed, SCENES, int(index)), kind, instrument)
        centre = (
            float(x) - part.tile.x + MARGIN_PIXELS,
            float(y) - part.tile.y + MARGIN_PIXELS,
        )
        _lay(flux, scene, instrument, centre)
        truth.append(describe(scene, kind, instrument, observation))
    return Painted(flux, tuple(truth))


def _lay(
    flux: Float32[np.ndarray, "band y x"],
    scene: Scene,
    instrument: Instrument,
    centre: tuple[float, float],
) -> None:
    scale, zero_point = instrument.pixel_scale_arcsec, instrument.zero_point_mag
    render_onto(
        flux,
        scene,
        instrument.bands,
        centre,
        pixel_scale_arcsec=scale,
        zero_point_mag=zero_point,
        sampling=_sampling(scene),
        max_size_pixels=2 * MARGIN_PIXELS + 1,
    )
    for x, y, fluxes in point_fluxes(scene, instrument.bands, scale, zero_point, centre):
        lay_point(flux, (x, y), fluxes)


def _sampling(scene: Scene) -> Sampling:
    """One sample per pixel does for large smooth profiles, whose cusps `scene` samples finely:
    after the PSF it differs from six per side by under 0.2% of the peak, below 1.5 sigma of the
    noise in the sum over all pixels. Arms and rings have structure everywhere."""
    smooth = all(c.profile not in shapes.OWN for c in scene.components)
    return (
        Sampling(light=1) if smooth and scene.half_light_radius_arcsec > SMOOTH_ARCSEC else ADAPTIVE
    )


def describe(
    scene: Scene, kind: str, instrument: Instrument, observation: Observation
) -> dict[str, float | str]:
    """A row of the truth table; magnitudes are the total of all that belongs to the source."""
    row: dict[str, float | str] = {"kind": kind}
    row |= {f"{band}_true_mag": scene.magnitudes[band] for band in instrument.bands}
    row["half_light_radius_arcsec"] = scene.half_light_radius_arcsec
    row |= scene.truth
    if scene.lens is not None:
        per_band = arc_signal_to_noise(scene, instrument, observation)
        row |= {
            f"arc_snr_{band}": float(snr)
            for band, snr in zip(instrument.bands, per_band, strict=True)
        }
        row["arc_snr"] = float(np.sqrt((per_band**2).sum()))
    return row


def arc_signal_to_noise(
    scene: Scene, instrument: Instrument, observation: Observation
) -> Float64[np.ndarray, " band"]:
    """S/N of the lensed light per band as its home tile shows it."""
    if scene.lens is None:
        raise ValueError("expected a scene with a lens, found none")
    size = _ARC_STAMP_PIXELS
    centre = (float(size // 2), float(size // 2))
    scale, zero_point = instrument.pixel_scale_arcsec, instrument.zero_point_mag
    arcs = render_arcs(scene.lens, instrument.bands, (size, size), scale, zero_point, centre=centre)
    total = np.zeros_like(arcs)
    _lay(total, scene, instrument, centre)
    psf = observation.conditions.psf
    return signal_to_noise(convolve(arcs, psf), convolve(total, psf), observation.conditions)


@dataclass(frozen=True)
class TileJob:
    """One tile to observe and write. flux: noiseless, with margin; paths: one per band."""

    tile: Tile
    tile_number: int
    mosaic: Mosaic
    flux: Float32[np.ndarray, "band y x"]
    paths: tuple[Path, ...]


def write_bands(seed: int, job: TileJob, instrument_name: str) -> None:
    """Observe one tile and write its bands."""
    instrument = load_instrument(instrument_name)
    observation = observation_of(seed, job.tile_number, instrument)
    rng = generator(seed, PIXELS, job.tile_number)
    counts, masks = expose(rng, job.flux, instrument, observation)
    for k, path in enumerate(job.paths):
        cards = header(job.tile, job.mosaic, observation.exposures[k])
        write_tile(path, counts[k], masks[k], cards)

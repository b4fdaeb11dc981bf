"""Our renderer against lenstronomy's `SimAPI` built once per image and band, in one process.

    python -m benchmarks.simulate_speed --lenses 24 --rounds 3

Noiseless images of drawn lenses (host, arcs, PSF; every band) from the same parameters: Sersic
hosts and clumpy sources, elliptical power law and shear. Both are sampled `--samples` times per
pixel side everywhere, each sample a ray of its own, and convolved on the pixels of the image with
the same PSF image; times are of the process's CPU, median of the rounds. `adaptive` is the sampling
that training sets are made with; `finest` what `SimAPI` gives with three times the samples, which
both are held against. Differences are the largest over all pixels, as parts of each band's peak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from lenstronomy.SimulationAPI.sim_api import SimAPI

from training.simulate.instrument import Instrument, load_instrument
from training.simulate.lens import draw_lens, visible_in
from training.simulate.observe import (
    Conditions,
    convolve,
    draw_conditions,
)
from training.simulate.scene import ADAPTIVE, Component, Sampling, Scene, flux, render
from training.simulate.shapes import unit_flux


@dataclass(frozen=True)
class Example:
    """A lens and what it is seen with."""

    scene: Scene
    seen: Conditions


def draw_examples(instrument: Instrument, count: int, size_pixels: int, seed: int) -> list[Example]:
    """Lenses as training sets have them, without real stamps."""
    found = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        seen = draw_conditions(rng, instrument)
        scene, *_ = draw_lens(
            rng, instrument, seen, visible=visible_in(instrument), size_pixels=size_pixels
        )
        found.append(Example(scene, seen))
    return found


def ours(
    example: Example, instrument: Instrument, size_pixels: int, sampling: Sampling
) -> np.ndarray:
    """All bands (band, y, x) at once."""
    sharp = render(
        example.scene,
        instrument.bands,
        size_pixels,
        instrument.pixel_scale_arcsec,
        instrument.zero_point_mag,
        sampling=sampling,
    )
    return convolve(sharp, example.seen.psf)


def naive(example: Example, instrument: Instrument, size_pixels: int, samples: int) -> np.ndarray:
    """One `SimAPI` per band."""
    return np.stack(
        [_band(example, instrument, size_pixels, samples, k) for k in range(len(instrument.bands))]
    )


def _band(
    example: Example, instrument: Instrument, size_pixels: int, samples: int, k: int
) -> np.ndarray:
    lens, band = example.scene.lens, instrument.bands[k]
    if lens is None:
        raise ValueError("expected a lens")
    observed = {
        "pixel_scale": instrument.pixel_scale_arcsec,
        "exposure_time": instrument.noise[band].exposure_s,
        "magnitude_zero_point": instrument.zero_point_mag,
        "read_noise": 0.0,
        "ccd_gain": 1.0,
        "sky_brightness": 22.0,
        "num_exposures": 1,
        "psf_type": "PIXEL",
        "kernel_point_source": example.seen.psf[k],
    }
    model = {
        "lens_model_list": [name for name, _ in lens.mass],
        "lens_light_model_list": [part.profile for part in example.scene.components],
        "source_light_model_list": [part.profile for part in lens.source],
    }
    image_model = SimAPI(size_pixels, observed, model).image_model_class(
        {"supersampling_factor": samples, "supersampling_convolution": False}
    )
    image = image_model.image(
        [dict(keywords) for _, keywords in lens.mass],
        [_amplitude(part, band, instrument) for part in lens.source],
        [_amplitude(part, band, instrument) for part in example.scene.components],
    )
    return np.asarray(image)


def _amplitude(part: Component, band: str, instrument: Instrument) -> dict[str, Any]:
    total = flux(part.magnitudes[band], instrument.zero_point_mag)
    return {**part.parameters, "amp": total / unit_flux(part.profile, part.parameters)}


def _timed(call: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    began = time.process_time()
    found = call()
    return time.process_time() - began, found


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of images (n, band, y, x) as a part of each band's peak in each image."""
    return float((np.abs(found - expected) / expected.max(axis=(2, 3), keepdims=True)).max())


def measure(
    instrument: Instrument, lenses: int, rounds: int, samples: int, size_pixels: int
) -> dict[str, Any]:
    """Milliseconds per lens, ratios and differences."""
    examples = draw_examples(instrument, lenses, size_pixels, 5)
    ways: dict[str, Callable[[Example], np.ndarray]] = {
        "naive": lambda e: naive(e, instrument, size_pixels, samples),
        "same": lambda e: ours(e, instrument, size_pixels, Sampling.uniform(samples)),
        "adaptive": lambda e: ours(e, instrument, size_pixels, ADAPTIVE),
    }
    for way in ways.values():
        way(examples[0])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    images: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            taken = [_timed(lambda e=e, way=way: way(e)) for e in examples]  # type: ignore[misc] # a lambda's default
            seconds[name].append(sum(t for t, _ in taken))
            images[name] = np.stack([image for _, image in taken])
    finest = np.stack([naive(e, instrument, size_pixels, 3 * samples) for e in examples])
    ratios = {
        name: round(statistics.median(map(float.__truediv__, seconds["naive"], seconds[name])), 1)
        for name in ("same", "adaptive")
    }
    return {
        "instrument": instrument.name,
        "bands": len(instrument.bands),
        "size_pixels": size_pixels,
        "lenses": lenses,
        "samples": samples,
        "ms_per_lens": {
            name: round(1e3 * statistics.median(taken) / lenses, 2)
            for name, taken in seconds.items()
        },
        "ratio": ratios,
        "same_against_naive": largest_difference(images["same"], images["naive"]),
        "against_finest": {
            name: largest_difference(image, finest) for name, image in images.items()
        },
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instrument", default="ps1")
    parser.add_argument("--lenses", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--size", type=int, default=48)
    given = parser.parse_args()
    instrument = load_instrument(given.instrument)
    print(json.dumps(measure(instrument, given.lenses, given.rounds, given.samples, given.size)))


if __name__ == "__main__":
    main()

"""Red galaxies of Hyper Suprime-Cam blends, with the survey's own PSF images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.simulate.instrument import Instrument
from training.simulate.real import RealHost, Split, measured_host, split_of

if TYPE_CHECKING:
    from jaxtyping import Float32

FILES = ("hsc_cosmos/blends/*.npz",)
_BANDS = "grizy"
# Zero point of the images (AB).
_ZERO_POINT_MAG = 27.0
_FAINTEST_I_MAG = 22.5
# g - i of the red sequence at the redshifts of lenses; bluer galaxies are no deflectors.
_REDDEST_BLUE = 1.3


def load(data: Path, instrument: Instrument, split: Split) -> tuple[RealHost, ...]:
    """The brightest galaxy of each blend that is red, called after its file."""
    paths = sorted(path for pattern in FILES for path in data.glob(pattern))
    chosen = [path for path in paths if split_of(name_of(path)) == split]
    found = [_host(path, instrument) for path in chosen]
    return tuple(host for host in found if host is not None)


def name_of(path: Path) -> str:
    """What a blend is called; all of its galaxies are on one side of the split."""
    return f"hsc-blend-{path.stem}"


def _host(path: Path, instrument: Instrument) -> RealHost | None:
    places = [_BANDS.index(band) for band in instrument.bands]
    with np.load(path, allow_pickle=False) as file:
        images = np.asarray(file["images"], dtype=np.float32)[places]
        weights = np.asarray(file["weights"], dtype=np.float64)[places].reshape(len(places), -1)
        psf, peaks = np.asarray(file["psfs"], dtype=np.float32)[places], np.asarray(file["peaks"])
    noise = np.median(weights, axis=1)
    if not (noise > 0).all():  # half of a band or more is masked
        return None
    scale = np.float32(10.0 ** (0.4 * (instrument.zero_point_mag - _ZERO_POINT_MAG)))
    made = measured_host(
        name_of(path),
        scale * images,
        instrument,
        electrons=np.array([instrument.noise[band].electrons for band in instrument.bands]),
        # Blends leave too little empty sky to measure it in.
        rms=scale / np.sqrt(noise),
        at=_brightest(images[instrument.bands.index("i")], peaks),
        faintest_i_mag=_FAINTEST_I_MAG,
        psf=psf / psf.sum(axis=(1, 2), keepdims=True),
    )
    return made if made is not None and _is_red(made) else None


def _brightest(
    image: Float32[np.ndarray, "y x"], peaks: np.ndarray[tuple[int, int], np.dtype[np.float64]]
) -> tuple[float, float]:
    """(x, y) of the brightest of the blend's peaks, which its file lists as (x, y)."""
    inside = np.clip(np.round(peaks).astype(int), 0, np.array(image.shape[::-1]) - 1)
    x, y = inside[int(np.argmax(image[inside[:, 1], inside[:, 0]]))]
    return float(x), float(y)


def _is_red(host: RealHost) -> bool:
    return "g" in host.magnitudes and host.magnitudes["g"] - host.magnitudes["i"] > _REDDEST_BLUE

"""Files in the format of the Bologna Lens Factory challenge 1.0, with pixels that are drawn.

One primary image per band and object: 101 x 101 big-endian float32, TAN WCS with CRVAL 0, `RA` and
`DEC` in radians, a galaxy on noise of order 1e-12; in the ground-based part some files have masked
pixels, which hold 100.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float32

SIZE = 101
BLOCK = 2880
MASKED = 100.0
# Folder and start of the name of each band, in channel order, and arcsec per pixel.
PARTS: dict[str, tuple[dict[str, str], float]] = {
    "space": ({"vis": "Band1/imageEUC_VIS"}, 0.1),
    "ground": (
        {
            "r": "Band1/imageSDSS_R",
            "i": "Band2/imageSDSS_I",
            "g": "Band3/imageSDSS_G",
            "u": "Band4/imageSDSS_U",
        },
        0.2,
    ),
}


def write_part(folder: Path, part: str, objects: int, seed: int = 0) -> Path:
    """`Public/Band*/…-{ID}.fits` of so many objects under `folder`; returns `Public`."""
    rng = np.random.default_rng(seed)
    bands, scale = PARTS[part]
    public = folder / "Public"
    for name in bands.values():
        (public / name).parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, objects, 100):
        count = min(100, objects - start)
        ra, dec = rng.uniform(-0.0015, 0.0015, size=(2, count))
        for name in bands.values():
            pixels = draw(rng, count, masked=0.05 if part == "ground" else 0.0)
            for row in range(count):
                path = public / f"{name}-{100_000 + start + row}.fits"
                path.write_bytes(encode(pixels[row], scale, float(ra[row]), float(dec[row])))
    return public


def draw(rng: np.random.Generator, count: int, masked: float) -> Float32[np.ndarray, "n 101 101"]:
    """Galaxies on noise; `masked`: part of the images that has a masked strip."""
    y, x = np.indices((SIZE, SIZE), np.float32) - SIZE // 2
    size = rng.uniform(2.0, 8.0, size=(count, 1, 1)).astype(np.float32)
    peak = rng.uniform(2e-12, 6e-11, size=(count, 1, 1)).astype(np.float32)
    pixels = rng.standard_normal((count, SIZE, SIZE), np.float32) * np.float32(8e-13)
    pixels += peak * np.exp(-np.hypot(x, y) / size)
    for row in np.flatnonzero(rng.random(count) < masked):
        first = rng.integers(0, SIZE - 12)
        pixels[row, first : first + rng.integers(1, 12)] = MASKED
    return pixels


def encode(pixels: Float32[np.ndarray, "y x"], scale: float, ra: float, dec: float) -> bytes:
    """One file: scale in arcsec per pixel, ra and dec in radians."""
    step = scale / 3600.0
    cards = [
        "SIMPLE  =                    T / file does conform to FITS standard",
        "BITPIX  =                  -32 / number of bits per data pixel",
        "NAXIS   =                    2 / number of data axes",
        f"NAXIS1  = {SIZE:20d} / length of data axis 1",
        f"NAXIS2  = {SIZE:20d} / length of data axis 2",
        "EXTEND  =                    T / FITS dataset may contain extensions",
        "COMMENT   FITS (Flexible Image Transport System) format is defined in 'Astronomy",
        "COMMENT   and Astrophysics', volume 376, page 359; bibcode: 2001A&A...376..359H",
        "WCSAXES =                    2 / number of World Coordinate System axes",
        *(_number(f"CRPIX{axis}", SIZE // 2 + 1.0) for axis in (1, 2)),
        *(_number(f"CRVAL{axis}", 0.0) for axis in (1, 2)),
        "CTYPE1  = 'RA---TAN'           / the coordinate type for the first axis",
        "CTYPE2  = 'DEC--TAN'           / the coordinate type for the second axis",
        *(f"CUNIT{axis}  = 'deg     '" for axis in (1, 2)),
        _number("CDELT1", -step),
        _number("CDELT2", step),
        _number("CROTA2", 0.0),
        _number("CD1_1", -step),
        _number("CD1_2", 0.0),
        _number("CD2_1", 0.0),
        _number("CD2_2", step),
        f"NX      = {SIZE:20d}",
        f"NY      = {SIZE:20d}",
        f"HIERARCH range x = {math.radians(step * SIZE):.14E} / radians",
        _number("RA", ra) + " / radians",
        _number("DEC", dec) + " / radians",
        "END",
    ]
    header = "".join(card.ljust(80) for card in cards).encode("ascii")
    data = pixels.astype(">f4").tobytes()
    return _padded(header, b" ") + _padded(data, b"\0")


def _number(key: str, value: float) -> str:
    return f"{key:8}= {value:20.13E}"


def _padded(data: bytes, filler: bytes) -> bytes:
    return data + filler * (-len(data) % BLOCK)

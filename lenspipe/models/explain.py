"""Occlusion: what a score loses when a part of the stamp is hidden (Zeiler & Fergus 2014, §4.2).

For a lens the ring or arc should matter, so beside square patches there are annuli about the
stamp's centre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Float32, Float64

Images = Mapping[str, np.ndarray]
Score = Callable[[Images], Float32[np.ndarray, " n"]]


def square_masks(size: int, patch: int, step: int) -> Bool[np.ndarray, "k y x"]:
    """Squares of side `patch` every `step` pixels that together cover the stamp."""
    if not 1 <= step <= patch <= size:
        raise ValueError(f"expected 1 <= step <= patch <= {size}, found {step}, {patch}")
    starts = sorted({*range(0, size - patch + 1, step), size - patch})
    masks = np.zeros((len(starts) ** 2, size, size), bool)
    for k, (y, x) in enumerate((y, x) for y in starts for x in starts):
        masks[k, y : y + patch, x : x + patch] = True
    return masks


def annular_masks(size: int, width: float) -> Bool[np.ndarray, "k y x"]:
    """Annuli of `width` pixels about the centre; every pixel lies in exactly one."""
    if not width > 0:
        raise ValueError(f"width: expected pixels above 0, found {width}")
    centre = (size - 1) / 2.0
    y, x = np.indices((size, size)) - centre
    ring = np.floor(np.hypot(y, x) / width).astype(np.int64)
    return np.stack([ring == k for k in np.unique(ring)])


def occlusion_map(
    score: Score,
    images: Images,
    masks: Bool[np.ndarray, "k y x"],
    input_name: str,
    rows_per_call: int = 1024,
) -> Float32[np.ndarray, "n y x"]:
    """Drop of the score when the masks are hidden, per pixel the mean over masks that cover it.

    score: images -> (n,), such as `lambda i: ensemble.score(i, full=True).score`. input_name: the
    tensor in which pixels are hidden; others stay. Hidden pixels get the median of their band in
    their stamp, in effect the sky. Positive: the pixel spoke for a lens. Pixels that no mask covers
    are 0; a row whose score is NaN gives NaN.
    """
    pixels = images[input_name]
    base = np.asarray(score(images), np.float64)
    sky = np.median(pixels, axis=(2, 3), keepdims=True)
    total = np.zeros((len(pixels), *masks.shape[1:]), np.float64)
    for chosen in _chunks(masks, max(1, rows_per_call // max(1, len(pixels)))):
        hidden = _occluded(pixels, sky, chosen)
        asked = {name: np.repeat(other, len(chosen), axis=0) for name, other in images.items()}
        found = np.asarray(score({**asked, input_name: hidden}), np.float64)
        drop = base[:, None] - found.reshape(len(pixels), len(chosen))
        total += np.einsum("nk,kyx->nyx", drop, chosen)
    covered = np.maximum(masks.sum(axis=0), 1)
    return _mean(total, covered, base)


def _chunks(masks: Bool[np.ndarray, "k y x"], size: int) -> Iterator[Bool[np.ndarray, "c y x"]]:
    return (masks[start : start + size] for start in range(0, len(masks), size))


def _occluded(
    pixels: Float32[np.ndarray, "n band y x"],
    sky: Float32[np.ndarray, "n band 1 1"],
    masks: Bool[np.ndarray, "c y x"],
) -> Float32[np.ndarray, "m band y x"]:
    """Every stamp with every mask hidden; rows n * c, the masks of one stamp side by side."""
    hidden = np.where(masks[None, :, None], sky[:, None], pixels[:, None])
    return np.asarray(hidden.reshape(-1, *pixels.shape[1:]), pixels.dtype)


def _mean(
    total: Float64[np.ndarray, "n y x"], covered: np.ndarray, base: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n y x"]:
    unknown = ~np.isfinite(base)[:, None, None]
    return np.where(unknown, np.nan, total / covered).astype(np.float32)

"""Pixels as the small types in which they cross to a device; the graph turns them back.

A float16 keeps 11 bits of a flux and ends at ±65504, a 16-bit integer keeps steps of the card's
`quantum`. Both halve what float32 asks of the bus, and of the memory that holds the next batch.
"""

from __future__ import annotations

import numpy as np

from lenspipe.models.card import ImageInput, ModelCard

RUNTIME_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int16": "tensor(int16)",
    "uint16": "tensor(uint16)",
}


def image_inputs(card: ModelCard) -> dict[str, ImageInput]:
    """Input name -> how its pixels are written; empty for a photometry network."""
    return {image.name: image for image in card.images}


def input_dtype(image: ImageInput | None) -> np.dtype:
    """The tensor's type in the graph; float32 where the card says nothing of images."""
    return np.dtype("float32" if image is None else image.dtype)


def encode(pixels: np.ndarray, image: ImageInput | None, out: np.ndarray) -> None:
    """Write float32 `pixels` into `out`, an array of the same shape and the input's type.

    Values outside of the type's range become its ends, so that nothing wraps around or overflows.
    """
    if out.dtype == np.float32:
        out[...] = pixels
    elif image is None or image.quantum is None:
        limit = np.finfo(out.dtype).max
        np.clip(pixels, -limit, limit, out=out, casting="same_kind")
    else:
        steps = (pixels - np.float32(image.zero_level)) / np.float32(image.quantum)
        ends = np.iinfo(out.dtype)
        out[...] = np.clip(np.rint(steps, out=steps), ends.min, ends.max, out=steps)

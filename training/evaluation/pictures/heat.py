"""A map of what spoke for a lens, as a small picture."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from jaxtyping import Float32

from lenspipe.pages.figures import stamp_png


def png(values: Float32[np.ndarray, "y x"]) -> str:
    """Red for what raised the score, blue for what lowered it; as a data URI, row 0 below."""
    reach = float(np.nanmax(np.abs(values))) or 1.0
    colours = mpl.colormaps["RdBu_r"](0.5 + 0.5 * np.nan_to_num(values) / reach)[..., :3]
    return stamp_png(np.flipud((255 * colours + 0.5).astype(np.uint8)))

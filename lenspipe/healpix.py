"""Where a source is on the sky as one integer: what HATS catalogues are sorted by."""

from __future__ import annotations

import numpy as np
from hats.pixel_math.spatial_index import compute_spatial_index
from jaxtyping import Float64, Int64

ORDER = 29


def healpix_29(
    ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """HEALPix index of order 29, nested scheme (Górski et al. 2005, ApJ 622, 759).

    ra_deg, dec_deg: ICRS, finite, dec within -90..90; the caller sorts out rows that are not.
    """
    if len(ra_deg) == 0:
        return np.zeros(0, np.int64)
    return np.asarray(compute_spatial_index(ra_deg, dec_deg), np.int64)

"""Where a source is on the sky as one integer: what HATS catalogues are sorted by."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

ORDER = 29


def healpix_29(
    ra_deg: Float64[np.ndarray, " n"], dec_deg: Float64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """HEALPix index of order 29, nested scheme (Górski et al. 2005, ApJ 622, 759).

    ra_deg, dec_deg: ICRS, finite, dec within -90..90; the caller sorts out rows that are not.
    """
    # Not through hats, which calls the same function: it costs every worker 2 s of imports.
    from astropy.coordinates import Latitude, Longitude
    from astropy.units import deg
    from cdshealpix.nested import lonlat_to_healpix

    if len(ra_deg) == 0:
        return np.zeros(0, np.int64)
    longitude, latitude = Longitude(ra_deg, deg), Latitude(dec_deg, deg)
    return np.asarray(lonlat_to_healpix(longitude, latitude, ORDER), np.int64)

"""The HEALPix index agrees with healpy's definition where it can be stated by hand."""

from __future__ import annotations

import numpy as np
from cdshealpix.nested import healpix_to_lonlat

from lenspipe.healpix import ORDER, healpix_29


def test_poles_and_equator_fall_into_their_base_pixels() -> None:
    # Górski et al. 2005, figure 4: base pixels 0-3 are around the north pole, 4-7 the equator.
    index = healpix_29(np.array([45.0, 0.0, 45.0, 315.0]), np.array([80.0, 0.0, -80.0, 80.0]))
    assert (index >> (2 * ORDER)).tolist() == [0, 4, 8, 3]


def test_pixel_centres_are_where_the_sources_are() -> None:
    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 1000), np.degrees(np.arcsin(rng.uniform(-1, 1, 1000)))
    longitude, latitude = healpix_to_lonlat(healpix_29(ra, dec).astype(np.uint64), ORDER)
    # A pixel of order 29 is 0.4 milliarcsec wide.
    np.testing.assert_allclose(latitude.deg, dec, atol=1e-6)
    np.testing.assert_allclose(longitude.deg, ra, atol=1e-4)


def test_nothing_gives_nothing_and_the_type_is_int64() -> None:
    empty = healpix_29(np.zeros(0), np.zeros(0))
    assert empty.dtype == np.int64
    assert len(empty) == 0
    assert healpix_29(np.array([1.0]), np.array([2.0])).dtype == np.int64

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lenspipe.catalogue.cone import Cone, inside, merged, overlap
from lenspipe.errors import InputError
from lenspipe.healpix import healpix_29
from lenspipe.sky import separation_deg

NUMBERS = st.integers(0, 60)
RANGES = st.lists(st.tuples(NUMBERS, st.integers(1, 9)), max_size=12)


def as_array(ranges: list[tuple[int, int]]) -> np.ndarray:
    found = [(first, first + length) for first, length in ranges]
    return np.array(found, np.int64).reshape(-1, 2)


@given(RANGES)
def test_merged_ranges_hold_the_same_numbers_and_lie_apart(ranges: list[tuple[int, int]]) -> None:
    given_ranges = as_array(ranges)
    found = merged(given_ranges)
    numbers = np.arange(80)
    expected = np.zeros(80, bool)
    for first, stop in given_ranges:
        expected[first:stop] = True
    np.testing.assert_array_equal(inside(numbers, found), expected)
    assert np.all(found[1:, 0] > found[:-1, 1])


@given(RANGES, NUMBERS, st.integers(0, 9))
def test_overlap_is_any_number_inside(
    ranges: list[tuple[int, int]], first: int, length: int
) -> None:
    found = merged(as_array(ranges))
    assert overlap(first, first + length, found) == bool(
        np.any(inside(np.arange(first, first + length + 1), found))
    )


@settings(max_examples=200, deadline=None)
@given(
    ra=st.floats(0.0, 360.0),
    dec=st.floats(-90.0, 90.0),
    radius=st.floats(-7.0, 2.25).map(lambda power: min(10.0**power, 180.0)),
    seed=st.integers(0, 2**32 - 1),
)
@example(ra=0.0, dec=90.0, radius=1.0, seed=0)
@example(ra=123.0, dec=-90.0, radius=1e-4, seed=1)
@example(ra=359.9999, dec=0.0, radius=0.01, seed=2)
@example(ra=0.0, dec=0.0, radius=180.0, seed=3)
@example(ra=0.0, dec=0.0, radius=177.82794100389228, seed=0)
def test_no_position_of_a_cone_is_outside_its_ranges(
    ra: float, dec: float, radius: float, seed: int
) -> None:
    """Positions are drawn inside the cone by astropy, at its border above all."""
    from astropy.coordinates import SkyCoord
    from astropy.units import deg

    cone = Cone(ra, dec, radius)
    rng = np.random.default_rng(seed)
    distance = radius * np.r_[rng.uniform(0, 1, 30), np.full(30, 1 - 1e-9)]
    centre = SkyCoord(ra, dec, unit="deg")
    there = centre.directional_offset_by(rng.uniform(0, 360, 60) * deg, distance * deg)
    found_ra, found_dec = np.asarray(there.ra.deg), np.asarray(there.dec.deg)
    assert np.all(inside(healpix_29(found_ra, found_dec), cone.ranges()))
    np.testing.assert_allclose(
        cone.separation_deg(found_ra, found_dec), there.separation(centre).deg, atol=1e-12
    )


def test_a_small_cone_has_few_ranges_and_they_are_small() -> None:
    ranges = Cone(150.1, 2.2, 2 / 3600).ranges()
    sky = 12 << 58
    covered = int(np.sum(ranges[:, 1] - ranges[:, 0])) / sky
    cone = (1 - math.cos(math.radians(2 / 3600))) / 2
    assert len(ranges) < 60
    assert cone < covered < 4 * cone


def test_separation_is_exact_at_small_and_large_distances() -> None:
    found = separation_deg(10.0, 0.0, np.array([10.0, 10 + 1e-10, 190.0]), np.array([0.0, 0, 0]))
    np.testing.assert_allclose(found, [0.0, 1e-10, 180.0], rtol=1e-4)


@pytest.mark.parametrize(
    ("ra", "dec", "radius", "field"),
    [
        (math.nan, 0.0, 1.0, "ra"),
        (0.0, 90.1, 1.0, "dec"),
        (0.0, math.inf, 1.0, "dec"),
        (0.0, 0.0, -1.0, "radius"),
        (0.0, 0.0, 181.0, "radius"),
    ],
)
def test_what_is_no_cone_is_refused(ra: float, dec: float, radius: float, field: str) -> None:
    with pytest.raises(InputError, match=rf"^{field}: expected"):
        Cone(ra, dec, radius)

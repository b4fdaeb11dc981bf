from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from jaxtyping import Float64

from lenspipe.healpix import healpix_29
from lenspipe.pages.sky_map import Field, Rows, choose_order, count_cells, extent, tangent_wcs
from tests.catalogue.small_run import cap


def table(ra: Float64[np.ndarray, " n"], dec: Float64[np.ndarray, " n"]) -> pa.Table:
    return pa.table({"ra": ra, "dec": dec, "healpix_29": healpix_29(ra, dec)})


def halves(whole: pa.Table) -> Rows:
    middle = whole.num_rows // 2
    return lambda columns: [whole.select(columns)[:middle], whole.select(columns)[middle:]]


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, -45.0), (30.0, 85.0)])
@pytest.mark.parametrize("radius", [0.01, 1.0, 4.0])
def test_the_field_holds_every_source_and_little_more(ra: float, dec: float, radius: float) -> None:
    from astropy.coordinates import SkyCoord

    where = cap(400, ra, dec, radius)
    field = extent(halves(table(*where)))
    centre = SkyCoord(field.ra, field.dec, unit="deg")
    apart = centre.separation(SkyCoord(*where, unit="deg")).deg
    assert field.radius == pytest.approx(apart.max(), rel=1e-6)
    assert not field.all_sky


def test_the_whole_sky_is_all_sky_and_one_source_is_a_field() -> None:
    rng = np.random.default_rng(0)
    whole = table(rng.uniform(0, 360, 999), np.degrees(np.arcsin(rng.uniform(-1, 1, 999))))
    assert extent(halves(whole)).all_sky
    field = extent(lambda _: [table(np.array([10.0]), np.array([20.0]))])
    assert field.ra == pytest.approx(10.0)
    assert field.dec == pytest.approx(20.0)
    assert field.radius == pytest.approx(0.0, abs=1e-6)
    assert choose_order(field, 1) <= 18


def test_counts_are_found_again_where_the_sources_are() -> None:
    ra, dec = cap(500, 200.0, -10.0, 1.0)
    counts = count_cells(halves(table(ra, dec)), 8)
    assert counts.rows.sum() == 500
    assert np.all(counts.at(ra, dec) >= 1)
    assert np.isnan(counts.at(np.array([20.0, np.nan]), np.array([10.0, 0.0]))).all()


def test_more_sources_and_smaller_fields_have_smaller_cells() -> None:
    assert choose_order(Field(0, 0, 0.1), 10_000) > choose_order(Field(0, 0, 5.0), 10_000)
    assert choose_order(Field(0, 0, 5.0), 100_000) > choose_order(Field(0, 0, 5.0), 100)
    assert choose_order(Field(0, 0, 180.0), 10**9) == 6


def test_east_is_to_the_left_of_the_plane() -> None:
    wcs = tangent_wcs(Field(150.0, 2.0, 1.0), 100)
    x, y = wcs.world_to_pixel_values(np.array([150.0, 150.5]), np.array([2.0, 2.5]))
    assert x[1] < x[0]
    assert y[1] > y[0]

"""What a query may say about the sky: SQL functions on positions in degrees."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import ARROW, SPECIAL
from jaxtyping import Float64

from lenspipe.catalogue.partitions import MAX_ORDER
from lenspipe.healpix import healpix_29

# Angular distance by Vincenty's formula, exact at all distances; in the database's own arithmetic,
# so that it is as fast as a cut.
_SEPARATION = """
CREATE MACRO separation_deg(ra1, dec1, ra2, dec2) AS degrees(atan2(
    sqrt(power(cos(radians(dec2)) * sin(radians(ra2 - ra1)), 2)
        + power(cos(radians(dec1)) * sin(radians(dec2))
            - sin(radians(dec1)) * cos(radians(dec2)) * cos(radians(ra2 - ra1)), 2)),
    sin(radians(dec1)) * sin(radians(dec2))
        + cos(radians(dec1)) * cos(radians(dec2)) * cos(radians(ra2 - ra1))))
"""
_MACROS = (
    _SEPARATION,
    "CREATE MACRO separation_arcsec(ra1, dec1, ra2, dec2) AS "
    "3600 * separation_deg(ra1, dec1, ra2, dec2)",
    "CREATE MACRO in_cone(ra, dec, ra0, dec0, radius_deg) AS "
    "separation_deg(ra, dec, ra0, dec0) <= radius_deg",
    # Of a pixel of order 29, as in column healpix_29, its parent.
    f"CREATE MACRO healpix_parent(pixel_29, norder) AS pixel_29 >> (2 * ({MAX_ORDER} - norder))",
)


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the functions of this module to a database."""
    for macro in _MACROS:
        connection.execute(macro)
    connection.create_function(
        "healpix",
        _healpix,
        ["DOUBLE", "DOUBLE", "INTEGER"],
        "BIGINT",
        type=ARROW,
        null_handling=SPECIAL,  # no position, no pixel
    )


def _healpix(ra: pa.Array, dec: pa.Array, order: pa.Array) -> pa.Array:
    """Pixel (nested) of an order; NULL where position or order is none."""
    ra_deg, dec_deg, orders = (_floats(column) for column in (ra, dec, order))
    known = np.isfinite(ra_deg) & (np.abs(dec_deg) <= 90) & (orders >= 0) & (orders <= MAX_ORDER)
    found = np.zeros(len(ra_deg), np.int64)
    shift = 2 * (MAX_ORDER - orders[known].astype(np.int64))
    found[known] = healpix_29(ra_deg[known], dec_deg[known]) >> shift
    return pa.array(found, mask=~known)


def _floats(column: pa.Array | pa.ChunkedArray) -> Float64[np.ndarray, " n"]:
    """Numbers of a column, NaN where there is none."""
    found: np.ndarray = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return found

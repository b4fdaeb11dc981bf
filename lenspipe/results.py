"""A run's results in Python: cones, SQL and candidates as astropy Tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lenspipe.errors import InputError
from lenspipe.run.status import open_run as open_directory

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.units import Quantity

    from lenspipe.catalogue.published import Published
    from lenspipe.run_directory import RunDirectory


class Results:
    """What a run left. Nothing is written."""

    def __init__(self, run: RunDirectory, grades: str | None = None) -> None:
        self._run, self._grades = run, grades

    def __repr__(self) -> str:
        return f"lenspipe.open_run({self._run.url!r})"

    @cached_property
    def _published(self) -> Published:
        from lenspipe.catalogue.published import Published

        return Published(self._run)

    def cone(
        self,
        ra_deg: float | Quantity,
        dec_deg: float | Quantity,
        radius_arcsec: float | Quantity,
        columns: Sequence[str] | None = None,
    ) -> Table:
        """Scored sources within a radius, the nearest first, with `separation_arcsec` (ICRS).

        Angles of astropy are taken in their own units. InputError where the position is none, or a
        column is not in the catalogue.
        """
        from lenspipe.catalogue.cone import Cone

        ra, dec = _angle(ra_deg, "ra_deg", "deg"), _angle(dec_deg, "dec_deg", "deg")
        cone = Cone(ra, dec, _angle(radius_arcsec, "radius_arcsec", "arcsec") / 3600.0)
        return _table(self._published.cone(cone, columns), "cone")

    def sql(self, query: str, timeout_s: float = 60.0, memory_mb: int = 2048) -> Table:
        """Rows of one SELECT over the run's tables and the survey's sources; see
        `lenspipe.catalogue.query`."""
        from lenspipe.catalogue import query as asked

        limits = asked.query_limits(timeout_s, memory_mb)
        return _table(asked.query(self._run, query, limits, self._grades), "query")

    def candidates(self) -> Table:
        """The candidates whose stamps are kept, the best first."""
        from lenspipe.catalogue.tables import open_table

        return _table(open_table(self._run, "candidates"), "candidates")

    def crossmatch(
        self,
        catalogue: str | Path,
        radius_arcsec: float = 2.0,
        every: bool = False,
        ra: str | None = None,
        dec: str | None = None,
    ) -> Table:
        """Rows of another catalogue (a file or folder) that lie within a radius of scored sources,
        with the nearest source, or with all of them; see `lenspipe.catalogue.crossmatch`."""
        from lenspipe.catalogue import crossmatch as matching
        from lenspipe.catalogue.outside import open_outside

        outside = open_outside(str(catalogue), ra, dec)
        found = matching.crossmatch(self._published, outside, radius_arcsec, every)
        return _table(found, "crossmatch")

    def lsdb(self) -> Any:
        """The catalogue of scored sources as an lsdb Catalog. ModuleNotFoundError where lsdb is not
        installed."""
        from lsdb.loaders.hats.read_hats import open_catalog

        from lenspipe.run_directory import CATALOGUE

        _ = self._published  # a run without a catalogue says so in our words
        store = self._run.store
        folder = str(store.local_path(CATALOGUE)) if store.is_local else f"{store.url}/{CATALOGUE}"
        return open_catalog(folder)


def open_run(run: str | Path, grades: str | Path | None = None) -> Results:
    """Open a run directory, a path or a URL. grades: a SQLite file or postgresql:// URL in place of
    RUN/grades.sqlite. InputError where no run was begun there."""
    return Results(open_directory(str(run))[0], None if grades is None else str(grades))


def _angle(given: float | Quantity, field: str, unit: str) -> float:
    """A number of that unit; InputError where it is no single angle."""
    if isinstance(given, int | float):
        return given
    try:
        return float(given.to_value(unit) if hasattr(given, "to_value") else given)
    except (TypeError, ValueError) as error:  # astropy's UnitConversionError is a TypeError
        expected = f"a number of {unit}, or an angle of astropy"
        raise InputError(field, expected, repr(given)) from error


def _table(rows: pa.Table, name: str) -> Table:
    from lenspipe.catalogue.columns import to_astropy

    return to_astropy(rows, name)

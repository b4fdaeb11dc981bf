"""IVOA Simple Cone Search 1.03 (https://www.ivoa.net/documents/latest/ConeSearch.html)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from lenspipe.catalogue.cone import Cone
from lenspipe.catalogue.published import SEPARATION, Published
from lenspipe.catalogue.votable import document
from lenspipe.errors import InputError
from lenspipe.serve import parameters

TABLE = "scores"
# The standard's own UCDs, of before UCD1+.
_UCDS = {"object_id": "ID_MAIN", "ra": "POS_EQ_RA_MAIN", "dec": "POS_EQ_DEC_MAIN"}
_LEAST = ("object_id", "ra", "dec")
_USUAL = (*_LEAST, "score", "probability", "flags")
_VERBOSITIES = 3


def answer(published: Published, given: Mapping[str, str], most_rows: int) -> bytes:
    """The VOTable for parameters RA, DEC, SR (deg), VERB (1 to 3) and MAXREC.

    A radius of 0 asks for the columns alone. VERB 1 gives id and position, 2 the scores as well,
    3 all columns. InputError where a parameter is none.
    """
    ra, dec, radius = (parameters.number(given, name) for name in ("RA", "DEC", "SR"))
    verbosity = parameters.whole_number(given, "VERB", 2, low=1)
    if verbosity > _VERBOSITIES:
        raise InputError("VERB", "1, 2 or 3", verbosity)
    most = parameters.whole_number(given, "MAXREC", most_rows, high=most_rows)
    try:
        cone = Cone(ra, dec, radius)
    except InputError as error:
        name = {"ra": "RA", "dec": "DEC", "radius": "SR"}[error.field]
        raise InputError(name, error.expected, error.found) from error
    columns = _columns(published.schema, verbosity)
    if radius == 0 or most == 0:
        rows, overflow = _empty(published, columns), radius > 0
    else:
        found = published.cone(cone, columns, most + 1)
        rows, overflow = found.slice(0, most), found.num_rows > most
    return document(_with_text_ids(rows), TABLE, answer=True, overflow=overflow, ucds=_UCDS)


def _columns(schema: pa.Schema, verbosity: int) -> list[str]:
    wanted = {1: _LEAST, 2: _USUAL}.get(verbosity, tuple(schema.names))
    return [name for name in wanted if name in schema.names]


def _empty(published: Published, columns: list[str]) -> pa.Table:
    fields = [published.schema.field(name) for name in columns]
    return pa.schema([*fields, SEPARATION]).empty_table()


def _with_text_ids(rows: pa.Table) -> pa.Table:
    """The standard wants the id of a source as text."""
    at = rows.schema.get_field_index("object_id")
    field = rows.schema.field(at).with_type(pa.string())
    return rows.set_column(at, field, rows["object_id"].cast(pa.string()))

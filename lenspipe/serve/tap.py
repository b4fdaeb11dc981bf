"""IVOA Table Access Protocol 1.1 (https://www.ivoa.net/documents/TAP/), synchronous queries."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from lenspipe.catalogue import votable
from lenspipe.catalogue.plain_types import plain
from lenspipe.catalogue.survey_sources import SOURCES, open_sources
from lenspipe.catalogue.tables import open_tables
from lenspipe.errors import InputError
from lenspipe.run_directory import RunDirectory
from lenspipe.serve import parameters
from lenspipe.serve.adql import to_duckdb
from lenspipe.serve.json_rows import encoded
from lenspipe.serve.query_process import PRIVATE, QueryLimits, QueryProcesses
from lenspipe.serve.tap_schema import tables_document, tap_schema

# Short names and media types of answers.
FORMATS = {
    "votable": votable.MEDIA_TYPE,
    "csv": "text/csv;header=present",
    "json": "application/json",
}
_ALIASES = {
    **{media: name for name, media in FORMATS.items()},
    "text/xml": "votable",
    "application/x-votable+xml;serialization=tabledata": "votable",
    "votable/td": "votable",
    "text/csv": "csv",
}


@dataclass(frozen=True)
class Asked:
    """One query as it came. text: in ADQL; most: rows; kind: of the answer, a name of FORMATS."""

    text: str
    most: int
    kind: str


@dataclass(frozen=True)
class Reply:
    """What goes over the wire."""

    content: bytes
    media_type: str


class TapService:
    """Queries on one run's tables."""

    def __init__(self, run: RunDirectory, limits: QueryLimits) -> None:
        self._run, self.limits = run, limits
        self._processes = QueryProcesses(run.url, limits)

    @cached_property
    def schemas(self) -> dict[str, pa.Schema]:
        """Columns of the run's tables, by name."""
        relations = open_tables(self._run)
        with suppress(InputError):  # the survey's catalogue need not be there any more
            relations[SOURCES] = open_sources(self._run, SOURCES)
        return {name: r.schema for name, r in relations.items() if name not in PRIVATE}

    def tables(self) -> bytes:
        """VOSI's `/tables`."""
        return tables_document(self.schemas)

    def parse(self, given: Mapping[str, str]) -> Asked:
        """One query from parameters LANG, QUERY, MAXREC, RESPONSEFORMAT or FORMAT, and of TAP 1.0
        REQUEST. InputError where one of them is none; the query itself is not looked at, which
        costs more."""
        request = given.get("REQUEST", "doQuery")
        if request != "doQuery":
            raise InputError("REQUEST", "doQuery", repr(request[:80]))
        if given.get("UPLOAD"):
            raise InputError("UPLOAD", "no tables of your own: this service takes none", "some")
        language = given.get("LANG", "").upper()
        if language not in ("ADQL", "ADQL-2.0", "ADQL-2.1"):
            raise InputError("LANG", "ADQL", repr(given.get("LANG", "")[:80]))
        if not given.get("QUERY", "").strip():
            raise InputError("QUERY", "one SELECT of ADQL", "nothing")
        kind = _format(given)
        most = parameters.whole_number(given, "MAXREC", self.limits.rows, high=self.limits.rows)
        return Asked(given["QUERY"], most, kind)

    def answer(self, asked: Asked) -> Reply:
        """The answer to a query; see `to_duckdb` and `QueryProcesses.ask`."""
        text = to_duckdb(asked.text, frozenset({"scores"}))
        found = self._processes.ask(text, asked.most, tap_schema(self.schemas))
        for field in found.rows.schema:
            if pa.types.is_struct(field.type):  # as DuckDB takes the name of a table
                raise InputError("QUERY", "columns after SELECT", f"all of {field.name} as one")
        return Reply(_encoded(found.rows, asked.kind, found.overflow), FORMATS[asked.kind])


def _format(given: Mapping[str, str]) -> str:
    asked = (given.get("RESPONSEFORMAT") or given.get("FORMAT") or "votable").strip().lower()
    asked = asked.replace("; ", ";")
    found = asked if asked in FORMATS else _ALIASES.get(asked)
    if found is None:
        raise InputError("RESPONSEFORMAT", f"one of {', '.join(FORMATS)}", repr(asked[:80]))
    return found


def _encoded(rows: pa.Table, kind: str, overflow: bool) -> bytes:
    if kind == "votable":
        return votable.document(rows, "result", answer=True, overflow=overflow)
    if kind == "csv":
        from pyarrow import csv

        sink = pa.BufferOutputStream()
        csv.write_csv(plain(rows, by_type=True), sink)
        content: bytes = sink.getvalue().to_pybytes()
        return content
    return encoded(rows)

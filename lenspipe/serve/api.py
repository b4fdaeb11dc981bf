"""The JSON interface: the run, its candidates with their pictures, and cones."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from lenspipe.catalogue.candidates import open_candidates
from lenspipe.catalogue.cone import Cone
from lenspipe.catalogue.export import iau_names
from lenspipe.catalogue.likeness import Likeness, open_likeness
from lenspipe.catalogue.published import Published
from lenspipe.catalogue.tables import open_table
from lenspipe.errors import InputError
from lenspipe.run.status import parse_identity
from lenspipe.run_directory import FUNNEL, RUN, RunDirectory
from lenspipe.serve import stamps
from lenspipe.serve.json_rows import rows_of
from lenspipe.serve.stamps import Stamps

MOST_CANDIDATES = 500  # of one answer
MOST_ROWS = 10_000  # of one cone
MOST_ALIKE = 100
_SAME_DEG = 0.5 / 3600.0  # in which a candidate's own row of the catalogue lies
_CACHED = "private, max-age=3600"  # a finished run does not change
Rank = Annotated[int, Path(ge=1, le=2**31, description="place by score; the best has 1")]
Text = Annotated[str | None, Query(max_length=80)]
Scale = Annotated[int, Query(ge=1, le=16, description="screen pixels of a pixel")]


class RunAnswer(BaseModel):
    """What the run is. funnel: how many sources each step left."""

    model_config = ConfigDict(extra="forbid")
    name: str
    state: str
    updated: str
    sources: int
    candidates: int
    image_inputs: list[str]
    bands: list[str]
    has_explanation: bool
    funnel: dict[str, Any] | None


class Page(BaseModel):
    """Some of a list. total: of the whole list."""

    model_config = ConfigDict(extra="forbid")
    total: int = Field(ge=0)
    offset: int = Field(ge=0)
    rows: list[dict[str, Any]]


class Catalogue:
    """What the answers are made from; opened when it is first asked for, then kept."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    @cached_property
    def published(self) -> Published:
        """The catalogue of scored sources."""
        return Published(self.run)

    @cached_property
    def stamps(self) -> Stamps:
        """Pixels of the candidates."""
        return Stamps(self.run)

    @cached_property
    def likeness(self) -> Likeness | None:
        """Which candidates the networks see alike; None where the run does not know."""
        group = open_candidates(self.run)
        return None if group is None else open_likeness(group)

    def similar(self, rank: int, count: int) -> list[int]:
        """Ranks of the candidates that are most like one, the nearest first; none where the run
        does not know. InputError where there is no such rank."""
        if not 1 <= rank <= self.candidates.num_rows:
            raise InputError("rank", f"1 to {self.candidates.num_rows}", rank)
        if self.likeness is None:
            return []
        return [int(row) + 1 for row in self.likeness.nearest(rank - 1, count)]

    @cached_property
    def candidates(self) -> pa.Table:
        """The candidates by rank, with their names."""
        table = open_table(self.run, "candidates")
        names = iau_names(table["ra"].to_numpy(), table["dec"].to_numpy())
        return table.append_column("name", pa.array(names, pa.string()))

    def listed(self, rank: int) -> dict[str, Any]:
        """A candidate's row of the candidates, as JSON has it. rank: from 1; InputError where there
        is none."""
        table = self.candidates
        if not 1 <= rank <= table.num_rows:
            raise InputError("rank", f"1 to {table.num_rows}", rank)
        [row] = rows_of(table.slice(rank - 1, 1))
        return row

    def candidate(self, rank: int) -> dict[str, Any]:
        """As `listed`, with all columns that the catalogue has of it, which costs a cone."""
        row = self.listed(rank)
        near = rows_of(self.published.cone(Cone(row["ra"], row["dec"], _SAME_DEG)))
        own = [found for found in near if found["object_id"] == row["object_id"]]
        return {**(own[0] if own else {}), **row}


def router(catalogue: Catalogue) -> APIRouter:
    """The routes below /api."""
    routes = APIRouter(prefix="/api")

    @routes.get("/run")
    def run() -> RunAnswer:
        """The run: its name, state and funnel, and what its pictures have."""
        identity = parse_identity(catalogue.run.read_json(RUN) or {})
        image = catalogue.stamps.image(1) if catalogue.candidates.num_rows else None
        return RunAnswer(
            name=identity.survey.name,
            state=identity.state,
            updated=identity.updated,
            sources=identity.inputs.rows,
            candidates=catalogue.candidates.num_rows,
            image_inputs=list(catalogue.stamps.inputs),
            bands=[] if image is None else list(image.bands),
            has_explanation=image is not None and image.explanation is not None,
            funnel=catalogue.run.read_json(FUNNEL),
        )

    @routes.get("/candidates")
    def candidates(
        offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_CANDIDATES)] = 100,
    ) -> Page:
        """Candidates by rank, the best first."""
        table = catalogue.candidates
        rows = rows_of(table.slice(offset, limit))
        return Page(total=table.num_rows, offset=offset, rows=rows)

    @routes.get("/candidates/{rank}")
    def candidate(rank: Rank) -> dict[str, Any]:
        """One candidate with all columns that the catalogue has of it."""
        return catalogue.candidate(rank)

    @routes.get("/candidates/{rank}/similar")
    def similar(rank: Rank, count: Annotated[int, Query(ge=1, le=MOST_ALIKE)] = 10) -> Page:
        """Candidates that the networks see most like one, the nearest first."""
        rows = [catalogue.listed(other) for other in catalogue.similar(rank, count)]
        return Page(total=len(rows), offset=0, rows=rows)

    @routes.get(
        "/candidates/{rank}/stamp.png",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def stamp_png(
        rank: Rank,
        stretch: Literal["asinh", "sqrt", "linear", "zscale"] = "asinh",
        band: Text = None,
        image: Text = None,
        scale: Scale = 1,
    ) -> Response:
        """The candidate's picture: in colour, or of one band in grey."""
        found = catalogue.stamps.image(rank, image)
        content = stamps.picture(found, catalogue.stamps.weights(image), stretch, band, scale)
        return _binary(content, "image/png")

    @routes.get(
        "/candidates/{rank}/explanation.png",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def explanation_png(rank: Rank, scale: Scale = 1) -> Response:
        """What spoke for a lens, to be laid over the picture."""
        return _binary(stamps.overlay(catalogue.stamps.image(rank), scale), "image/png")

    @routes.get(
        "/candidates/{rank}/stamp.fits",
        response_class=Response,
        responses={200: {"content": {"application/fits": {}}}},
    )
    def stamp_fits(rank: Rank, image: Text = None) -> Response:
        """The candidate's pixels, a band in each extension."""
        reply = _binary(stamps.fits(catalogue.stamps.image(rank, image)), "application/fits")
        reply.headers["Content-Disposition"] = f'attachment; filename="candidate-{rank}.fits"'
        return reply

    @routes.get("/cone")
    def cone(
        ra: Annotated[float, Query(ge=0, le=360, description="degrees")],
        dec: Annotated[float, Query(ge=-90, le=90, description="degrees")],
        radius_arcsec: Annotated[float, Query(gt=0, le=180 * 3600)],
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 1000,
    ) -> Page:
        """Scored sources in a cone, the nearest first; where there are more than `limit`, some of
        them. total: found, counted no further than one beyond `limit`."""
        found = catalogue.published.cone(Cone(ra, dec, radius_arcsec / 3600.0), None, limit + 1)
        return Page(total=found.num_rows, offset=0, rows=rows_of(found.slice(0, limit)))

    return routes


def _binary(content: bytes, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers={"Cache-Control": _CACHED})

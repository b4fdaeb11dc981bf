"""What the inspection pages ask: the order, the objects, and to keep what a grader did."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lenspipe.errors import InputError, LenspipeError
from lenspipe.serve import api, stamps
from lenspipe.serve.access import ANYONE
from lenspipe.serve.grades.book import GradeBook
from lenspipe.serve.grades.event import LONGEST_NAME, Kind, NewEvent, View, check_name
from lenspipe.serve.grades.state import GraderState, Progress, progress
from lenspipe.serve.shown import Shown

MOST_OBJECTS = 500
MOST_EVENTS = 200
_CACHED = "private, max-age=3600"
Name = Annotated[str, Path(pattern="^[0-9a-f]{24}$")]
Grader = Annotated[str | None, Query(max_length=LONGEST_NAME)]


class OtherError(LenspipeError):
    """A page asks for another person, or of another run, than this service has: it stayed open
    while somebody else logged in, or while the service came back with something else. What it has
    to send is no worse for that, and is to wait."""


class Told(BaseModel):
    """A part of an answer or of a request."""

    model_config = ConfigDict(extra="forbid")


class GradeTold(Told):
    """One grade of the scheme."""

    name: str
    key: str
    label: str


class InspectionTold(Told):
    """How one grades here, and how far the grader is. run: what a page that asks more says, so
    that it is answered for no other run."""

    run: str
    grader: str
    named_by_token: bool
    blind: bool
    grades: list[GradeTold]
    bands: list[str]
    has_explanation: bool
    progress: Progress
    undoable: bool


class ObjectTold(Told):
    """One object in the grader's order. about: what a grader who is not blind may know."""

    place: int
    object: str
    grade: str | None
    flagged: bool
    comment: str
    has_picture: bool
    about: dict[str, Any] | None


class ObjectsTold(Told):
    """Some objects of an order, or of those that are flagged in it. start: how many are before
    the first one."""

    total: int
    start: int
    objects: list[ObjectTold]


class EventAsked(Told):
    """One thing that a grader did; see `grades.event.NewEvent`."""

    key: str = Field(min_length=1, max_length=100)
    kind: Kind
    object: str | None = Field(default=None, max_length=24)
    grade: str | None = Field(default=None, max_length=100)
    comment: str | None = Field(default=None, max_length=10_000)
    view: View | None = None
    seconds_looked: float | None = Field(default=None, ge=0, le=86_400)


class EventsAsked(Told):
    """Things that a grader did, in their order."""

    events: list[EventAsked] = Field(min_length=1, max_length=MOST_EVENTS)


class EventsKept(Told):
    """Keys of the events that are on disk, and how far the grader is. undone: where the last
    event is an undo, the object that it was about; None where that is not shown here."""

    kept: list[str]
    progress: Progress
    undoable: bool
    undone: ObjectTold | None = None


def router(catalogue: api.Catalogue, shown: Shown, book: GradeBook) -> APIRouter:
    """The routes below /api/inspection."""

    def same_run(run: Annotated[str | None, Query(max_length=24)] = None) -> None:
        if run not in (None, shown.identity):
            raise OtherError("another run is served here now")

    routes = APIRouter(prefix="/api/inspection", dependencies=[Depends(same_run)])

    @routes.get("")
    def inspection(request: Request, grader: Grader = None) -> InspectionTold:
        """How one grades here, and how far this grader is."""
        name, by_token = _grader(request, grader)
        state = book.state(name)
        image = catalogue.stamps.image(1) if catalogue.candidates.num_rows else None
        return InspectionTold(
            run=shown.identity,
            grader=name,
            named_by_token=by_token,
            blind=shown.manner.blind,
            grades=[GradeTold(name=g.name, key=g.key, label=g.label) for g in book.scheme.grades],
            bands=[] if image is None else list(image.bands),
            has_explanation=image is not None and image.explanation is not None,
            progress=_progress(shown, state),
            undoable=state.undoable is not None,
        )

    @routes.get("/objects")
    def objects(
        request: Request,
        grader: Grader = None,
        start: Annotated[int, Query(ge=-MOST_OBJECTS, le=2**31)] = 0,
        count: Annotated[int, Query(ge=1, le=MOST_OBJECTS)] = 100,
        flagged: bool = False,
        place: Annotated[int | None, Query(ge=0, le=2**31)] = None,
        details: bool = False,
    ) -> ObjectsTold:
        """Objects of the grader's order, or the flagged ones alone, from the one on that `start`
        counts. place: count from the first at that place of the order or after it; -1 begins one
        before, whatever was flagged meanwhile. details: all that the catalogue has of each, for a
        look at few."""
        name, _ = _grader(request, grader)
        state, order = book.state(name), shown.order(name)
        places = [k for k, each in enumerate(order) if not flagged or each in state.flagged]
        first = max(0, start + (0 if place is None else bisect_left(places, place)))
        about = catalogue.candidate if details else catalogue.listed
        told = [_object(catalogue, shown, state, k, about) for k in places[first : first + count]]
        return ObjectsTold(total=len(places), start=first, objects=told)

    @routes.get(
        "/objects/{name}/picture.png",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def picture(
        name: Name,
        stretch: Literal["asinh", "sqrt", "linear", "zscale"] = "asinh",
        band: Annotated[str | None, Query(max_length=80)] = None,
        scale: api.Scale = 1,
        without_lens_light: bool = False,
    ) -> Response:
        """The object's picture; without the smooth light of the galaxy in the middle if asked."""
        image = shown.image(name)
        if without_lens_light:
            image = stamps.without_lens_light(image)
        weights = catalogue.stamps.weights()
        return _png(stamps.picture(image, weights, stretch, band, scale))

    @routes.get(
        "/objects/{name}/explanation.png",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    def explanation(name: Name, scale: api.Scale = 1) -> Response:
        """What spoke for a lens, to be laid over the picture; not for those who grade blind."""
        if shown.manner.blind:
            raise InputError("explanation", "a service that is not blind", "a blind one")
        return _png(stamps.overlay(shown.image(name), scale))

    @routes.get("/objects/{name}/neighbours")
    def neighbours(
        request: Request,
        name: Name,
        grader: Grader = None,
        count: Annotated[int, Query(ge=1, le=20)] = 3,
    ) -> ObjectsTold:
        """Candidates next to an object in score, `count` to each side, the better ones first; not
        for those who grade blind."""
        rank = _seen_rank(shown, name, "neighbours")
        most = catalogue.candidates.num_rows
        near = range(max(1, rank - count), min(most, rank + count) + 1)
        return others(request, grader, [each for each in near if each != rank])

    @routes.get("/objects/{name}/similar")
    def similar(
        request: Request,
        name: Name,
        grader: Grader = None,
        count: Annotated[int, Query(ge=1, le=20)] = 6,
    ) -> ObjectsTold:
        """Candidates that the networks see most like an object, the nearest first; not for those
        who grade blind."""
        rank = _seen_rank(shown, name, "similar")
        return others(request, grader, catalogue.similar(rank, count))

    def others(request: Request, grader: str | None, ranks: Sequence[int]) -> ObjectsTold:
        """Candidates by rank, as a grader sees them who does not grade blind: in that order."""
        state = book.state(_grader(request, grader)[0])
        told = [_object(catalogue, shown, state, k - 1, catalogue.listed) for k in ranks]
        return ObjectsTold(total=len(told), start=0, objects=told)

    @routes.post("/events")
    def keep(request: Request, asked: EventsAsked, grader: Grader = None) -> EventsKept:
        """Keep what a grader did: it is on disk when this answers. The same keys again are the same
        events."""
        name, _ = _grader(request, grader)
        kept = book.record_all([_event(shown, name, each) for each in asked.events])
        state = book.state(name)
        taken = state.undone.get(kept[-1].event.id)
        place = None if taken is None else shown.place_of(name, taken.subject)
        undone = (
            None if place is None else _object(catalogue, shown, state, place, catalogue.candidate)
        )
        return EventsKept(
            kept=[each.event.key for each in kept],
            progress=_progress(shown, state),
            undoable=state.undoable is not None,
            undone=undone,
        )

    return routes


def _grader(request: Request, given: str | None) -> tuple[str, bool]:
    """Who grades: whose token it is, or on a service without tokens whoever says so."""
    person = str(request.scope.get("state", {}).get("person") or ANYONE)
    if person != ANYONE:
        if given not in (None, person):
            raise OtherError(f"this browser shows the token of {person} now")
        return person, True
    if given:
        check_name("name", given)
    return given or ANYONE, False


def _seen_rank(shown: Shown, name: str, what: str) -> int:
    rank = shown.rank_of(shown.object_of(name))
    if shown.manner.blind or rank is None:
        raise InputError(what, "a service that is not blind", "a blind one")
    return rank


def _event(shown: Shown, grader: str, asked: EventAsked) -> NewEvent:
    object_id = None if asked.object is None else shown.object_of(asked.object)
    return NewEvent(
        key=asked.key,
        grader=grader,
        kind=asked.kind,
        object_id=object_id,
        grade=asked.grade,
        comment=asked.comment,
        view=asked.view,
        seconds_looked=asked.seconds_looked,
    )


def _object(
    catalogue: api.Catalogue,
    shown: Shown,
    state: GraderState,
    place: int,
    about: Callable[[int], dict[str, Any]],
) -> ObjectTold:
    object_id = shown.order(state.grader)[place]
    rank = shown.rank_of(object_id)
    return ObjectTold(
        place=place,
        object=shown.name_of(object_id),
        grade=state.grades.get(object_id),
        flagged=object_id in state.flagged,
        comment=state.comments.get(object_id, ""),
        has_picture=rank is None or bool(catalogue.candidates["has_stamp"][rank - 1].as_py()),
        about=None if shown.manner.blind or rank is None else about(rank),
    )


def _progress(shown: Shown, state: GraderState) -> Progress:
    return progress(state, shown.order(state.grader))


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png", headers={"Cache-Control": _CACHED})

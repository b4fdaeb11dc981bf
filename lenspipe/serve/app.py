"""The service as one ASGI application."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from lenspipe import __version__
from lenspipe.catalogue import votable
from lenspipe.errors import CorruptRunError, InputError, LenspipeError, one_line
from lenspipe.run.status import parse_identity
from lenspipe.run_directory import METRICS, RUN, RunDirectory
from lenspipe.serve import (
    api,
    capabilities,
    cone_search,
    inspection,
    pages,
    parameters,
)
from lenspipe.serve.access import Access, Guard
from lenspipe.serve.grades.book import GradeBook
from lenspipe.serve.grades.store import GradeStore
from lenspipe.serve.query_process import QueryLimits
from lenspipe.serve.shown import Manner, Shown
from lenspipe.serve.tap import FORMATS, TapService
from lenspipe.serve.training_images import TrainingImages
from lenspipe.serve.turns import BusyError, Turns

_SECONDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_RETRY_S = "5"


def create_app(
    run: RunDirectory,
    access: Access | None = None,
    limits: QueryLimits | None = None,
    grades: GradeStore | None = None,
    manner: Manner | None = None,
    training_images: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> ASGIApp:
    """The service of one run: pages, /scs, /tap, /api, /metrics, /healthz.

    access: anyone by default, as on loopback. limits: of queries from outside. grades: where
    grades are kept; without it there is no grading. manner: how candidates are shown to those who
    grade. training_images: a set of known truth that is mixed in, see `TrainingImages`; InputError
    where it does not fit, or grading is not blind. tell: is called with a line where that set has
    fewer than `manner.hidden_rate` asks for. Nothing else of the run is written.
    """
    limits, access = limits or QueryLimits(), access or Access()
    app = FastAPI(
        title="lenspipe",
        version=__version__,
        description="A run of lenspipe: its catalogue by IVOA protocols and as JSON.",
        docs_url=None,  # its page takes files from another host
        redoc_url=None,
    )
    catalogue = api.Catalogue(run)
    app.include_router(api.router(catalogue))
    _add_errors(app)
    _add_cone_search(app, catalogue, limits)
    _add_tap(app, TapService(run, limits))
    _add_health(app, run)
    if grades is not None:
        shown = _shown(catalogue, grades, manner or Manner(), training_images)
        if tell is not None and (shortage := shown.shortage()):
            tell(shortage)
        app.include_router(inspection.router(catalogue, shown, GradeBook(grades)))
        app.include_router(pages.router(access))
        app.mount("/static", pages.static_files())
    return Guard(app, access)


def _shown(
    catalogue: api.Catalogue, grades: GradeStore, manner: Manner, training_images: Path | None
) -> Shown:
    images = None
    if training_images is not None:
        if not manner.blind:  # what is known of candidates would tell them apart
            raise InputError("--training-images", "--blind beside it", "grading that is not blind")
        images = TrainingImages(training_images, catalogue.stamps.image(1))
        grades.add_hidden(images.hidden)
    secret = _secret(catalogue.run, manner)
    return Shown(catalogue.candidates, catalogue.stamps, manner, secret, images)


def _secret(run: RunDirectory, manner: Manner) -> bytes:
    """What objects' names in pages are made with: the same whenever this run is served, so that
    what a page that stayed open still has to send finds its objects."""
    told = run.read_json(RUN) or {}
    identity = [told.get("created"), parse_identity(told).survey.name, manner.seed]
    return hashlib.sha256(json.dumps(identity).encode()).digest()


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(InputError)
    async def refused(_: Request, error: InputError) -> Response:
        return JSONResponse({"error": one_line(str(error))}, 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return JSONResponse({"error": one_line(said)}, 422)

    @app.exception_handler(LenspipeError)
    async def failed(_: Request, error: LenspipeError) -> Response:
        return JSONResponse({"error": one_line(str(error))}, _status(error), _headers(error))


def _add_cone_search(app: FastAPI, catalogue: api.Catalogue, limits: QueryLimits) -> None:
    async def scs(request: Request) -> Response:
        """IVOA Simple Cone Search: RA, DEC, SR in degrees, VERB, MAXREC."""
        try:
            given = parameters.by_name(request.query_params.multi_items())
            content = await run_in_threadpool(_cone, catalogue, given, limits.rows)
        except LenspipeError as error:
            # Section 2.3 of the standard: what is wrong is told in a table, with status 200.
            content = votable.error_document(one_line(str(error)), cone_search=True)
        return Response(content, media_type=votable.MEDIA_TYPE)

    app.add_api_route("/scs", scs, methods=["GET"], response_class=Response)


def _cone(catalogue: api.Catalogue, given: dict[str, str], most: int) -> bytes:
    return cone_search.answer(catalogue.published, given, most)


def _add_tap(app: FastAPI, tap: TapService) -> None:
    turns = Turns(tap.limits.at_once, tap.limits.waiting, tap.limits.wait_s)

    async def sync(request: Request) -> Response:
        """IVOA Table Access Protocol, synchronous: LANG, QUERY, MAXREC, RESPONSEFORMAT."""
        try:
            given = await _given(request)
            asked = tap.parse(given)
            with turns.place():
                reply = await turns.run(lambda: tap.answer(asked))
        except LenspipeError as error:
            content = votable.error_document(one_line(str(error)))
            return Response(content, _status(error), _headers(error), votable.MEDIA_TYPE)
        return Response(reply.content, media_type=reply.media_type)

    def tables() -> Response:
        """VOSI: the tables that can be asked."""
        return Response(tap.tables(), media_type="application/xml")

    def capable(request: Request) -> Response:
        """VOSI: what the service can do."""
        url = f"{str(request.base_url).rstrip('/')}/tap"
        limits = tap.limits
        content = capabilities.capabilities(url, limits.rows, FORMATS, limits.seconds)
        return Response(content, media_type="application/xml")

    def available() -> Response:
        """VOSI: that the service is there."""
        return Response(capabilities.availability(), media_type="application/xml")

    for method in ("GET", "POST"):  # a route each, as OpenAPI wants an id for each
        app.add_api_route("/tap/sync", sync, methods=[method], response_class=Response)
    for path, answer in (
        ("tables", tables),
        ("capabilities", capable),
        ("availability", available),
    ):
        app.add_api_route(f"/tap/{path}", answer, methods=["GET"], response_class=Response)


async def _given(request: Request) -> dict[str, str]:
    """Parameters of the address and of a form. InputError where the form is none."""
    pairs = request.query_params.multi_items()
    if request.method == "POST":
        try:
            form = await request.form(max_files=0, max_fields=64)
        except HTTPException as error:  # as Starlette says it to FastAPI
            raise InputError("request", "a form", error.detail) from error
        pairs = [*pairs, *((k, v) for k, v in form.multi_items() if isinstance(v, str))]
    return parameters.by_name(pairs)


def _add_health(app: FastAPI, run: RunDirectory) -> None:
    registry = CollectorRegistry()
    requests = Counter(
        "lenspipe_serve_requests", "Requests answered.", ("route", "status"), registry=registry
    )
    seconds = Histogram(
        "lenspipe_serve_seconds",
        "Seconds until a request was answered.",
        ("route",),
        buckets=_SECONDS,
        registry=registry,
    )

    @app.middleware("http")
    async def counted(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began = time.monotonic()
        reply = await call_next(request)
        route = getattr(request.scope.get("route"), "path", "none")
        requests.labels(route, str(reply.status_code)).inc()
        seconds.labels(route).observe(time.monotonic() - began)
        return reply

    @app.get("/healthz")
    def healthy() -> JSONResponse:
        """Whether the run can be read."""
        try:
            state = (run.read_json(RUN) or {}).get("state")
        except Exception:  # each store's library has exceptions of its own
            state = None
        ok = state is not None
        return JSONResponse({"status": "ok" if ok else "run unreadable"}, 200 if ok else 503)

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """For Prometheus: of this service, and the last state of the run's own."""
        own = generate_latest(registry)
        last = run.store.read(METRICS) if run.store.exists(METRICS) else b""
        return Response(own + last, media_type="text/plain; version=0.0.4; charset=utf-8")


def _status(error: LenspipeError) -> int:
    if isinstance(error, InputError):
        return 400
    if isinstance(error, BusyError):
        return 503
    if isinstance(error, inspection.OtherError):
        return 409
    return 500 if isinstance(error, CorruptRunError) else 502


def _headers(error: LenspipeError) -> dict[str, str]:
    return {"Retry-After": _RETRY_S} if isinstance(error, BusyError) else {}

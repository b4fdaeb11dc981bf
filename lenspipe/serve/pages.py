"""The inspection pages, and where a browser gets its token's cookie and loses it."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from lenspipe.serve.access import COOKIE, Access

FOLDER = Path(__file__).parent / "static"
_DAYS = 30
_SEE_OTHER = 303
_NOT_STORED = {"Cache-Control": "no-store"}
_UNSAID, _SAID = '<p role="alert" hidden>', '<p role="alert">'  # that a token was wrong


def static_files() -> StaticFiles:
    """Scripts, styles and pictures of the pages."""
    return StaticFiles(directory=FOLDER)


def router(access: Access) -> APIRouter:
    """`/`, `/login` and `/logout`."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    def index() -> Response:
        return FileResponse(FOLDER / "index.html", headers={"Cache-Control": "no-cache"})

    @routes.get("/login")
    def login() -> Response:
        return FileResponse(FOLDER / "login.html", headers=_NOT_STORED)

    @routes.post("/login")
    async def logged_in(request: Request) -> Response:
        form = await request.form(max_files=0, max_fields=4)
        token = form.get("token")
        if not isinstance(token, str) or access.person_of(token) is None:
            page = (FOLDER / "login.html").read_text()
            return HTMLResponse(page.replace(_UNSAID, _SAID), 401, _NOT_STORED)
        reply = RedirectResponse("/", _SEE_OTHER)
        reply.set_cookie(
            COOKIE,
            token,
            max_age=_DAYS * 86_400,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return reply

    @routes.post("/logout")
    def logged_out() -> Response:
        reply = Response(status_code=204)
        reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return reply

    return routes

"""Who may ask the service what: hosts, tokens, sizes, and what browsers are told."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lenspipe.errors import InputError
from lenspipe.serve.grades.event import check_name
from lenspipe.yaml_file import read_yaml

COOKIE = "lenspipe_token"
ANYONE = "anyone"
SHORTEST_TOKEN = 16
_TOKEN = re.compile(rf"[A-Za-z0-9._~+/=-]{{{SHORTEST_TOKEN},}}")
_BODY_BYTES = 4 * 1024**2
_QUERIES = ("/tap", "/scs", "/api")
_OPEN = frozenset({"/healthz", "/login"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
        " connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether a host to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """tokens: name of a person -> what they show; none needed where it is empty. hosts: names that
    a request may be for, any where it is empty. Without tokens they keep pages of other sites from
    reaching a service on loopback under a name of their own; with tokens a browser sends none under
    such a name, and a proxy in front has the name that people know."""

    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    hosts: frozenset[str] = frozenset()

    def person(self, headers: Headers) -> str | None:
        """Whose token a request shows; `anyone` where none is needed, None where it is nobody's."""
        return self.person_of(_shown_token(headers))

    def person_of(self, shown: str) -> str | None:
        """Whose token that is; see `person`."""
        if not self.tokens:
            return ANYONE
        found = None
        for name, token in self.tokens.items():  # all of them, in the same time
            if hmac.compare_digest(token.encode(), shown.encode()):
                found = name
        return found

    def knows(self, headers: Headers) -> bool:
        """Whether a request is for a name that this service goes by."""
        return not self.hosts or _host_of(headers.get("host", "")) in self.hosts


def access_for(host: str, token_file: Path | None) -> Access:
    """Tokens and names for a host to listen on: on loopback no token is needed, but the name of
    this machine is; elsewhere, or with a file, a token: those of the file, or one that is made now.
    InputError where the file is none."""
    if token_file is not None:
        return Access(read_tokens(token_file))
    if is_loopback(host):
        return Access({}, frozenset({"localhost", "127.0.0.1", "::1", host}))
    return Access({ANYONE: secrets.token_urlsafe(24)})


def read_tokens(path: Path) -> dict[str, str]:
    """Names and tokens of a YAML file `name: token`. InputError where a name is none to grade by, a
    token is short or would not go through a header or a cookie, or two are the same."""
    content = read_yaml(path, "--tokens")
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}", "lines `name: token`", type(content).__name__)
    tokens = {str(name): str(token) for name, token in content.items()}
    for name, token in tokens.items():
        check_name(f"{path}: name", name)
        if not _TOKEN.fullmatch(token):
            expected = f"at least {SHORTEST_TOKEN} characters, letters, digits and ._~+/=-"
            raise InputError(f"{path}: {name}", expected, f"{len(token)} characters, or others")
    if len(set(tokens.values())) != len(tokens):
        raise InputError(f"{path}", "another token for each name", "one twice")
    return tokens


def _shown_token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _host_of(host: str) -> str:
    """Without the port: `[::1]:8000` is `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


class Guard:
    """Wraps an ASGI application: refuses strangers and what is too large, and sets headers.

    A request that goes through has `scope["state"]["person"]`.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self._app(scope, _limited(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if not self._access.knows(headers):
            return _said(421, "a request for another host")
        if not _from_here(scope, headers):
            return _said(403, "a request that a page of another site made")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _BODY_BYTES:
            return _said(413, f"expected at most {_BODY_BYTES} bytes")
        person = self._access.person(headers)
        if (
            person is None
            and scope["path"] not in _OPEN
            and not scope["path"].startswith("/static/")
        ):
            if "text/html" in headers.get("accept", "") and scope["method"] == "GET":
                return RedirectResponse("/login", 303)
            reply = _said(401, "expected a token: Authorization: Bearer …, or /login in a browser")
            reply.headers["WWW-Authenticate"] = "Bearer"
            return reply
        scope.setdefault("state", {})["person"] = person
        return None


def _from_here(scope: Scope, headers: Headers) -> bool:
    """Whether a request that changes something, or may cost a query, comes from our own page or
    from no page at all, as a browser says it. Without its header the latter is let through: it is
    a tool's."""
    reads = scope["method"] in ("GET", "HEAD", "OPTIONS")
    if reads and not scope["path"].startswith(_QUERIES):
        return True
    site = headers.get("sec-fetch-site")
    if reads and site is None:
        return True
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host", "")


def _said(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _limited(receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A body without a length is cut off where it grows too large."""
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > _BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return receiving

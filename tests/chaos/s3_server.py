"""An S3-compatible server of the tests: moto in a process of its own, behind a proxy that injects
faults by a seeded rule.

What a request meets depends on the seed, its method, its key and how often it came, not on which
thread was first: a run of the same requests meets the same faults.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from lenspipe.storage.s3 import PatientS3

Kind = Literal[
    "internal_error", "slow_down", "reset", "stall", "truncate", "shorten", "lost_reply", "expired"
]
_ANSWERS = {
    "internal_error": (500, "InternalError", "We encountered an internal error."),
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
}
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})
START_S = 60.0
# Filesystems of earlier servers: their sessions end with the process, where nothing warns of them.
_SET_ASIDE: list[PatientS3] = []


@dataclass(frozen=True)
class Request:
    """What a rule may look at. key: bucket and key; query: of a listing, its prefix."""

    method: str
    key: str
    query: str = ""


@dataclass(frozen=True)
class Fault:
    """A kind of fault for a share of the requests. only: which ones can meet it. times: most for
    one and the same request, so that a patient client gets through (None: no bound)."""

    kind: Kind
    rate: float = 1.0
    only: Callable[[Request], bool] = lambda _request: True
    times: int | None = None


@dataclass
class Weather:
    """What the proxy does to requests, and what it has seen. Change `faults` at any moment.

    listing_lag_s: a listing lacks what came below `lagging` in the last so many seconds.
    """

    seed: int = 0
    faults: tuple[Fault, ...] = ()
    stall_s: float = 8.0
    listing_lag_s: float = 0.0
    lagging: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    log: list[Request] = field(default_factory=list)
    _came: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _met: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    _put: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self, seed: int | None = None) -> None:
        """Fair weather, counters at nought."""
        with self._lock:
            self.faults, self.listing_lag_s, self.lagging = (), 0.0, ""
            self.seed = self.seed if seed is None else seed
            for counter in (self.requests, self.injected, self._came, self._met):
                counter.clear()
            self.log.clear()

    def draw(self, request: Request) -> Kind | None:
        """The fault that this request meets."""
        name = (request.method, request.key, request.query)
        with self._lock:
            self.log.append(request)
            self.requests[request.method] += 1
            self._came[name] += 1
            for fault in self.faults:
                known = (
                    fault.times is not None and self._met[(fault.kind, *name[:2])] >= fault.times
                )
                if known or not fault.only(request):
                    continue
                drawn = random.Random(f"{self.seed} {fault.kind} {name} {self._came[name]}")
                if drawn.random() < fault.rate:
                    self._met[(fault.kind, *name[:2])] += 1
                    self.injected[fault.kind] += 1
                    return fault.kind
        return None

    def wrote(self, method: str, key: str) -> None:
        """Note when a key came or went."""
        with self._lock:
            if method == "DELETE":
                self._put.pop(key, None)
            else:
                self._put[key] = time.monotonic()

    def old_listing(self, bucket: str, body: bytes) -> bytes:
        """A listing (XML) without the keys that came a moment ago."""
        if not self.listing_lag_s:
            return body
        oldest = time.monotonic() - self.listing_lag_s
        with self._lock:
            young = {
                key for key, at in self._put.items() if at > oldest and key.startswith(self.lagging)
            }

        def keep(match: re.Match[bytes]) -> bytes:
            key = re.search(rb"<Key>(.*?)</Key>", match[0])
            name = unquote(key[1].decode()) if key else ""
            return b"" if f"{bucket}/{name}" in young else match[0]

        return re.sub(rb"<Contents>.*?</Contents>", keep, body, flags=re.DOTALL)


@dataclass(frozen=True)
class Server:
    """url: of the proxy. direct: of moto itself. weather: what the proxy does."""

    url: str
    direct: str
    weather: Weather

    def environment(self, **more: str) -> dict[str, str]:
        """Variables that make a process use this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAPLANTED0KEYID000",
            "AWS_SECRET_ACCESS_KEY": "planted+secret/of+the+environment0000000",
            "AWS_SESSION_TOKEN": "planted-session-token-of-the-environment",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **more,
        }


@contextmanager
def serving(folder: Path, bucket: str = "sky") -> Iterator[Server]:
    """moto behind the proxy, with one empty bucket; both end with the block.

    fsspec keeps filesystems by their options, and the endpoint is none of them: one that an earlier
    server of this process answered would go on asking it.
    """
    _SET_ASIDE.extend(PatientS3._cache.values())
    PatientS3.clear_instance_cache()
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await(process, port, folder / "moto.log")
        weather = Weather()
        proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(port, weather))
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        try:
            _request(port, "PUT", f"/{bucket}")
            yield Server(
                f"http://127.0.0.1:{proxy.server_port}", f"http://127.0.0.1:{port}", weather
            )
        finally:
            proxy.shutdown()
            proxy.server_close()
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"moto did not start: {log.read_text()[-500:]}")


def _request(port: int, method: str, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    connection.getresponse().read()
    connection.close()


def _handler(port: int, weather: Weather) -> type[BaseHTTPRequestHandler]:
    class Handler(_Proxy):
        upstream_port = port
        sky = weather

    return Handler


class _Proxy(BaseHTTPRequestHandler):
    """Hands requests on to moto, unless the weather says otherwise."""

    protocol_version = "HTTP/1.1"
    upstream_port: int
    sky: Weather
    _upstream: http.client.HTTPConnection | None = None

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the client went away, as one that timed out does
            self.close_connection = True

    def finish(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
        try:
            super().finish()
        except OSError:  # reset by us
            return

    def do_GET(self) -> None:
        self._serve()

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815  # http.server's names

    def log_message(self, *_: object) -> None:
        """Nothing: tests read the weather's counters."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        key = unquote(parts.path).strip("/")
        request = Request(self.command, key, parts.query)
        kind = self.sky.draw(request)
        if kind in _ANSWERS:
            self._refuse(*_ANSWERS[kind])
        elif kind == "reset":
            self._reset()
        elif kind == "stall":
            time.sleep(self.sky.stall_s)
            self._reset()
        else:
            self._hand_on(request, body, kind)

    def _hand_on(self, request: Request, body: bytes, kind: Kind | None) -> None:
        status, headers, data = self._ask(body)
        if request.method in ("PUT", "DELETE") and status < 300:
            self.sky.wrote(request.method, request.key)
        listing = request.method == "GET" and "list-type" in parse_qs(request.query)
        if listing and status == 200:
            data = self.sky.old_listing(request.key.partition("/")[0], data)
        if kind == "lost_reply":
            self._reset()
            return
        length = headers.get("Content-Length", "0") if request.method == "HEAD" else str(len(data))
        cut = len(data) // 2 if kind in ("truncate", "shorten") and status < 300 else len(data)
        if kind == "shorten" and request.method != "HEAD":
            length = str(cut)
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP and name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if request.method != "HEAD":
            self.wfile.write(data[:cut])
            if kind == "truncate":
                self.wfile.flush()
                self._reset()

    def _ask(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in (*_HOP, "expect", "content-length", "accept-encoding")
        }
        for again in (False, True):
            if self._upstream is None:
                self._upstream = http.client.HTTPConnection(
                    "127.0.0.1", self.upstream_port, timeout=60
                )
            try:
                self._upstream.request(self.command, self.path, body, headers)
                reply = self._upstream.getresponse()
                return reply.status, reply.headers, reply.read()
            except (OSError, http.client.HTTPException):
                self._upstream.close()
                self._upstream = None
                if again:
                    raise
        raise AssertionError("unreachable")

    def _refuse(self, status: int, code: str, text: str) -> None:
        data = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

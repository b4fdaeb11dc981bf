"""`lenspipe serve`: the service on a socket of this machine."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from lenspipe.catalogue.candidates import open_candidates
from lenspipe.catalogue.published import Published
from lenspipe.errors import InputError
from lenspipe.run.status import open_run
from lenspipe.run_directory import RunDirectory
from lenspipe.serve.access import ANYONE, access_for, is_loopback
from lenspipe.serve.app import create_app
from lenspipe.serve.grades.place import store_of
from lenspipe.serve.grades.store import GradeStore
from lenspipe.serve.query_process import QueryLimits
from lenspipe.serve.shown import Manner

_BACKLOG = 128
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# It writes a line for each form that is none; who sent it is told in the answer.
logging.getLogger("python_multipart").addHandler(logging.NullHandler())


class _Server(uvicorn.Server):
    """uvicorn's, for which a signal that it has obeyed is done with: by default it raises it
    again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the server while this lasts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Service:
    """The service of one run on a socket that listens already.

    port 0: any that is free. InputError where the run has no catalogue, the port is taken, the host
    is none of this machine, or the tokens are none.
    """

    def __init__(
        self,
        run_url: str,
        host: str = "127.0.0.1",
        port: int = 8080,
        token_file: Path | None = None,
        limits: QueryLimits | None = None,
        grades: str | None = None,
        manner: Manner | None = None,
        training_images: Path | None = None,
    ) -> None:
        """grades: a SQLite file or postgresql:// URL; RUN/grades.sqlite by default, where the run
        is on a local disk."""
        run, _ = open_run(run_url)
        Published(run)  # a run without a catalogue says so before anybody asks
        self.grades = _store(run, grades)
        self.access = access_for(host, token_file)
        self._host = host
        self._shortages: list[str] = []
        self._app = create_app(
            run, self.access, limits, self.grades, manner, training_images, self._shortages.append
        )
        self._socket = _listening(host, port)
        self.port = int(self._socket.getsockname()[1])

    def server(self) -> uvicorn.Server:
        """What answers; `run(sockets=[service.socket])` blocks until it is told to end."""
        config = uvicorn.Config(
            self._app,
            log_level="warning",
            server_header=False,
            headers=[("Server", "lenspipe")],
            limit_concurrency=256,
            timeout_keep_alive=15,
            h11_max_incomplete_event_size=64 * 1024,
        )
        return _Server(config)

    def run(self) -> None:
        """Answer until the process is told to end."""
        self.server().run(sockets=[self._socket])

    @property
    def socket(self) -> socket.socket:
        """The socket that listens."""
        return self._socket

    @property
    def url(self) -> str:
        """The address of the first page."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def describe(self) -> list[tuple[str, str]]:
        """What a person who started the service must know, as lines (field, text)."""
        lines = [
            ("serving", self.url if self.grades else f"{self.url} (no grading: see --grades)"),
            ("cone search", f"{self.url}/scs"),
            ("TAP", f"{self.url}/tap"),
        ]
        lines += [("training images", each) for each in self._shortages]
        if list(self.access.tokens) == [ANYONE]:
            lines.append(("token", self.access.tokens[ANYONE]))
        elif not is_loopback(self._host):
            lines.append(("tokens", f"of {len(self.access.tokens)} persons"))
        return lines


def _store(run: RunDirectory, grades: str | None) -> GradeStore | None:
    """None where there is nothing to grade, or no place for grades."""
    if open_candidates(run) is None or (grades is None and not run.store.is_local):
        return None
    return store_of(run, grades, "--grades")


def _listening(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise InputError("--host", "a name or address of this machine", host) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        told = f"{host}:{port}: {error.strerror or error}"
        raise InputError("--host, --port", "an address that is free here", told) from error
    return listener

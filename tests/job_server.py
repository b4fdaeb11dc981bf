"""A stand-in of Ray's job server with what a network does to its answers: for tests that must be
fast. `tests/chaos/test_submission.py` has the real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "a-token-of-forty-characters-or-so-0123456"  # noqa: S105 - of nothing


@dataclass
class StandIn:
    """mode: `token` or `disabled`. jobs: by name, as the server tells of them. bodies: what was
    submitted. log: of what is. unanswered: how many submissions are taken without an answer. cuts:
    after how many letters streams of a log are cut, one stream after the other. ends: what is told
    of a job whose log was streamed to its end. asked: (method, path) so far, headers: their
    tokens."""

    mode: str = "token"
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""
    unanswered: int = 0
    cuts: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)
    ends: dict[str, Any] = field(
        default_factory=lambda: {"status": "SUCCEEDED", "driver_exit_code": 0}
    )
    url: str = ""

    def add(self, name: str, status: str, log: str = "", **more: Any) -> None:
        """A job that is there."""
        self.jobs[name] = {"submission_id": name, "status": status, "metadata": {}, **more}
        self.logs[name] = log

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application(middlewares=[self._check])
        app.router.add_get("/api/authentication_mode", self._mode)
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{name}", self._job)
        app.router.add_post("/api/jobs/{name}/stop", self._stop)
        app.router.add_get("/api/jobs/{name}/logs", self._log)
        app.router.add_get("/api/jobs/{name}/logs/tail", self._tail)
        return app

    @web.middleware
    async def _check(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        given = request.headers.get("Authorization")
        self.headers.append(given)
        if self.mode == "token" and request.path != "/api/authentication_mode":
            if given is None:
                return web.Response(status=401, text="Unauthorized: Missing authentication token")
            if given != f"Bearer {TOKEN}":
                return web.Response(status=403, text="Forbidden: Invalid authentication token")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _mode(self, _request: web.Request) -> web.Response:
        return web.json_response({"authentication_mode": self.mode})

    async def _list(self, _request: web.Request) -> web.Response:
        driver = {"submission_id": None, "job_id": "01000000", "status": "RUNNING"}
        return web.json_response([*self.jobs.values(), driver])

    async def _submit(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["submission_id"]
        if name in self.jobs:
            text = f"Traceback …\nValueError: Job with submission_id {name} already exists."
            return web.Response(status=400, text=text)
        self.bodies.append(body)
        self.add(name, "RUNNING", self.log, metadata=body["metadata"])
        if self.unanswered:
            self.unanswered -= 1
            _cut(request)
        return web.json_response({"submission_id": name})

    def _named(self, request: web.Request) -> dict[str, Any]:
        name = request.match_info["name"]
        if name not in self.jobs:
            raise web.HTTPNotFound(text=f"Job {name} does not exist")
        return self.jobs[name]

    async def _job(self, request: web.Request) -> web.Response:
        return web.json_response(self._named(request))

    async def _stop(self, request: web.Request) -> web.Response:
        self._named(request).update(status="STOPPED")
        return web.json_response({"stopped": True})

    async def _log(self, request: web.Request) -> web.Response:
        self._named(request)
        return web.json_response({"logs": self.logs[request.match_info["name"]]})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        job = self._named(request)
        log = self.logs[job["submission_id"]]
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        if self.cuts:
            await stream.send_str(log[: self.cuts.pop(0)])
            await asyncio.sleep(0.01)  # let it cross before the cut
            _cut(request)
            return stream
        for k in range(0, len(log), 50):
            await stream.send_str(log[k : k + 50])
        job.update(self.ends)
        return stream


def _cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


@contextmanager
def stand_in(**settings: Any) -> Iterator[StandIn]:
    """One that listens on a free port of this machine."""
    server = StandIn(**settings)
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(server.app())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def serve() -> None:
        runner = loop.run_until_complete(start())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    started.wait(10.0)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)
        loop.close()

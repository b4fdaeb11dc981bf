"""Ray's job server over HTTP: jobs begun, watched, read and stopped, with an end to every wait.

Ray's own client waits for ever where a connection is silent, so the interface that it speaks
(https://docs.ray.io/en/latest/cluster/running-applications/job-submission/api.html) is spoken here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

_ANSWER_S = 30.0
_LOOK_S = 10.0  # a stream that is silent for so long has its job asked for
# Another connection may answer where this one is dead (a NAT that forgot it), and Ray answers no
# pings, so a stream that is silent for so long is opened anew.
_SILENT_S = 120.0
_OVER = frozenset(("SUCCEEDED", "FAILED", "STOPPED"))


class ConnectionLostError(Exception):
    """The server cannot be reached, or is not able to answer now; the same call may work later."""


class RefusedError(Exception):
    """The server answered that it will not. status: of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


@dataclass(frozen=True)
class JobInfo:
    """What the cluster says of a job. status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
    exit_code: of its command, where that ended by itself."""

    name: str
    status: str
    message: str
    metadata: Mapping[str, str]
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _OVER


class JobServer:
    """The job server at `address` (`http://HEAD:8265`); a context. headers: of each request. heard:
    when it last answered, in seconds of the monotonic clock; 0 where it never did.

    Every method raises ConnectionLostError where no answer comes within seconds, and RefusedError
    where it is a refusal.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.headers: dict[str, str] = {}
        self.heard = 0.0

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, connect=_ANSWER_S, sock_connect=_ANSWER_S)
        self._session = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def needs_token(self) -> bool:
        """Whether the cluster is shut to whoever has no token; it tells everybody."""
        try:
            said = await self._ask("GET", "/api/authentication_mode")
        except RefusedError as error:
            if error.status in {401, 403}:  # of something before it, as an Ingress
                return True
            if error.status == 404:  # Ray before 2.52 knows no tokens
                return False
            raise
        return isinstance(said, dict) and said.get("authentication_mode") != "disabled"

    async def jobs(self) -> list[JobInfo]:
        """All jobs that were submitted to the cluster."""
        found = await self._ask("GET", "/api/jobs/")
        return [_parsed(job) for job in found if job.get("submission_id")]

    async def job(self, name: str) -> JobInfo:
        """One of them; RefusedError with status 404 where the cluster knows none of that name."""
        return _parsed(await self._ask("GET", f"/api/jobs/{name}"))

    async def begin(
        self, name: str, entrypoint: str, variables: dict[str, str], metadata: dict[str, str]
    ) -> None:
        """Have a shell on the cluster's head run `entrypoint`; once for each name, however often
        it is asked for."""
        wanted = {
            "submission_id": name,
            "entrypoint": entrypoint,
            "runtime_env": {"env_vars": variables},
            "metadata": metadata,
        }
        try:
            await self._ask("POST", "/api/jobs/", wanted)
        except RefusedError as error:
            if "already exists" not in str(error):
                raise

    async def stop(self, name: str) -> None:
        """Have its process told to end, by SIGTERM."""
        await self._ask("POST", f"/api/jobs/{name}/stop")

    async def log(self, name: str) -> str:
        """All that it has printed."""
        return str((await self._ask("GET", f"/api/jobs/{name}/logs"))["logs"])

    async def tail(self, name: str) -> AsyncIterator[str]:
        """What it prints, from its first line on; ends some time after the job did, or when the
        stream is closed or silent for long."""
        url = f"{self.address}/api/jobs/{name}/logs/tail"
        try:
            async with self._session.ws_connect(
                url, headers=self.headers, max_msg_size=0
            ) as stream:
                last = self.heard = time.monotonic()
                while time.monotonic() - last < _SILENT_S:
                    try:
                        message = await stream.receive(timeout=_LOOK_S)
                    except TimeoutError:
                        if (await self.job(name)).is_over:
                            return
                        continue
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return
                    last = self.heard = time.monotonic()
                    yield message.data
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(error.status, error.message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLostError(_told(error)) from error

    async def _ask(self, method: str, path: str, content: Any = None) -> Any:
        try:
            async with (
                asyncio.timeout(_ANSWER_S),
                self._session.request(
                    method,
                    f"{self.address}{path}",
                    json=content,
                    headers=self.headers,
                    allow_redirects=False,
                ) as answer,
            ):
                text = await answer.text()
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLostError(_told(error)) from error
        if answer.status >= 300:
            raise _refusal(answer.status, _last_line(text))
        self.heard = time.monotonic()
        try:
            return json.loads(text)
        except ValueError:
            raise RefusedError(answer.status, f"no JSON but {text[:80]!r}") from None


def _parsed(job: dict[str, Any]) -> JobInfo:
    return JobInfo(
        name=str(job["submission_id"]),
        status=str(job["status"]),
        message=str(job.get("message") or ""),
        metadata=job.get("metadata") or {},
        exit_code=job.get("driver_exit_code"),
    )


def _refusal(status: int, text: str) -> ConnectionLostError | RefusedError:
    """Faults of the server pass: its head may be busy, or on its way up."""
    if status >= 500:
        return ConnectionLostError(f"status {status}: {text}")
    return RefusedError(status, text)


def _told(error: Exception) -> str:
    return str(error) or f"no answer within {_ANSWER_S:g} s"


def _last_line(text: str) -> str:
    """Ray answers with whole tracebacks."""
    return (text.strip().splitlines() or ["no reason given"])[-1]

"""A survey as a job of a Ray cluster: begun once, followed through lost connections, stopped.

Nothing travels but the survey file, in the job's environment; the cluster has lenspipe, and its own
credentials. It travels as base64, since Ray puts variables of the node in the place of $NAME and
${NAME} in whatever it sets. A job's name is made of the run directory and a number, so that a
submission whose answer was lost is asked again without a second job, and the same command later
finds the job.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shlex
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from ray import _raylet
from ray.exceptions import AuthenticationError

from lenspipe.catalogue.outside import LENSCAT
from lenspipe.config import Survey, is_url, load_survey
from lenspipe.errors import InputError, StoppedError
from lenspipe.models.locate import is_path
from lenspipe.processes.job_server import (
    ConnectionLostError,
    JobInfo,
    JobServer,
    RefusedError,
)
from lenspipe.redaction import redact
from lenspipe.storage.remote import refuse_credentials

_raylet_untyped: Any = _raylet
T = TypeVar("T")
SURVEY_VARIABLE = "LENSPIPE_SURVEY"
HASH_VARIABLE = "LENSPIPE_SURVEY_SHA256"
# The chart's line for a cluster that is there: see helm/lenspipe/templates/_helpers.tpl.
ENTRYPOINT = (
    f"survey=$(mktemp -d)/survey.yaml && printenv {SURVEY_VARIABLE} | base64 -d > $survey"
    f' && echo "${HASH_VARIABLE}  $survey" | sha256sum -c > /dev/null'
    " && exec lenspipe run $survey"
)
_SURVEY_HASH = "lenspipe_survey_sha256"
# Linux takes 128 KiB for one variable. Base64 makes 120,000 bytes of these, and Ray hands all
# variables of the job and its metadata to the driver as one. The chart has the same limit.
MOST_BYTES = 90_000
# Ray kills a job that is told to stop after 3 s otherwise.
STOP_WAIT_S = 30
PATIENCE_S = 900.0
_FIRST_REST_S = 0.5
_LONGEST_REST_S = 5.0
_STOP_LOOK_S = 1.0
_EXIT_OF_STOPPED = 143


class JobLog(Protocol):
    """Who is told of a job that is followed."""

    def feed(self, text: str) -> None:
        """The next piece of what the job printed; may end inside a line."""
        ...

    def message(self, text: str) -> None:
        """Something that a person should read."""
        ...


@dataclass(frozen=True)
class Order:
    """What is to be run. text: of the survey file. output: absolute path or URL of the run
    directory. options: of `lenspipe run`, beside those two and the cluster."""

    name: str
    text: str
    output: str
    options: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """What the names of all jobs of this run directory begin with."""
        return f"lenspipe-{self.name}-{hashlib.sha256(self.output.encode()).hexdigest()[:8]}-"

    @property
    def entrypoint(self) -> str:
        """The line for the head's shell."""
        told = shlex.join(("--output", self.output, "--address", "auto", *self.options))
        return f"{ENTRYPOINT} {told}"

    @property
    def variables(self) -> dict[str, str]:
        """The job's environment."""
        return {
            SURVEY_VARIABLE: base64.b64encode(self.text.encode()).decode(),
            HASH_VARIABLE: self.survey_hash,
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        }

    @property
    def survey_hash(self) -> str:
        """Of the survey file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_order(file: Path, output: str | None = None, options: tuple[str, ...] = ()) -> Order:
    """The order that a survey file makes; output: in the place of the file's.

    InputError where the file is none, holds credentials, is too long, or names paths that mean
    something only where it lies.
    """
    survey = load_survey(file)
    text = file.read_text("utf-8-sig")
    for number, line in enumerate(text.splitlines(), start=1):
        if redact(line) != line:
            expected = "no credentials, which the cluster's own environment holds"
            raise InputError(str(file), expected, f"some in line {number}")
    if len(text.encode()) > MOST_BYTES:
        raise InputError(
            str(file),
            f"at most {MOST_BYTES:,} bytes (`lenspipe run` on the head takes more)",
            f"{len(text.encode()):,}",
        )
    wanted = survey.model_copy(update={"output": output or survey.output})
    for field, path in _paths(wanted, "--output" if output else "output"):
        refuse_credentials(path)
        if not (is_url(path) or Path(path).is_absolute()):
            raise InputError(field, "an absolute path or a URL, as the cluster sees it", path)
    return Order(survey.name, text, wanted.output, options)


def _paths(survey: Survey, output_field: str) -> Iterator[tuple[str, str]]:
    """(field, path) of what the nodes of the cluster read, and of the run directory."""
    sources = survey.sources.path
    for path in (sources,) if isinstance(sources, str) else sources:
        yield "sources.path", path
    for name in ("path", "tiles"):
        if isinstance(pixels := getattr(survey.cutouts, name, None), str):
            yield f"cutouts.{name}", pixels
    mask = getattr(getattr(survey.cutouts, "mask", None), "file", None)
    if survey.cutouts.reader == "stamps" and isinstance(mask, str):
        yield "cutouts.mask.file", mask
    models = {"ensemble": survey.ensemble}
    if survey.photometry is not None:
        models["photometry.model"] = survey.photometry.model
    yield from ((field, model) for field, model in models.items() if is_path(model))
    if survey.known_lenses is not None and survey.known_lenses.path != LENSCAT:
        yield "known_lenses.path", survey.known_lenses.path
    yield output_field, survey.output


def check_url(address: str) -> None:
    """InputError where a job server can have no such address."""
    refuse_credentials(address)
    try:
        parts = urlsplit(address)
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise InputError("--address", "http://HOST:PORT or https://…", address)


async def introduce(server: JobServer, allow_open: bool) -> None:
    """Find out whether the cluster asks for a token, and have it ready.

    InputError where no job server answers, where there is no token for one that wants it or a wrong
    one, and where one wants none, which is refused unless `allow_open`.
    """
    try:
        shut = await server.needs_token()
        if shut:
            server.headers = _token_header(server.address)
        elif not allow_open:
            raise InputError(
                "--address",
                "a cluster with RAY_AUTH_MODE=token (or --allow-open-cluster)",
                f"{server.address}, where whoever reaches it runs what they like",
            )
        await server.jobs()
    except ConnectionLostError as error:
        found = f"{server.address}: {error}"
        raise InputError("--address", "a Ray head's job server that answers", found) from error
    except RefusedError as error:
        if error.status in {401, 403}:
            raise InputError("RAY_AUTH_TOKEN", "the cluster's token", "another one") from error
        found = f"{server.address}: {error}"
        raise InputError("--address", "a Ray head's job server", found) from error


def _token_header(address: str) -> dict[str, str]:
    """From where Ray takes it: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token."""
    expected = "the cluster's token (or its file in RAY_AUTH_TOKEN_PATH)"
    try:
        loader = _raylet_untyped.AuthenticationTokenLoader.instance()
        header: dict[str, str] = loader.get_token_for_http_header(ignore_auth_mode=True)
    except AuthenticationError as error:
        raise InputError("RAY_AUTH_TOKEN", expected, error) from error
    if not header:
        raise InputError("RAY_AUTH_TOKEN", expected, f"none, and {address} asks for it")
    return header


async def latest_job(server: JobServer, order: Order) -> tuple[int, JobInfo | None]:
    """The number of the last job of this run directory and what became of it; 0 without any."""
    found: tuple[int, JobInfo | None] = (0, None)
    for job in await server.jobs():
        number = job.name.removeprefix(order.prefix)
        if number != job.name and number.isdecimal() and int(number) > found[0]:
            found = (int(number), job)
    return found


async def begin(server: JobServer, order: Order, told: Callable[[str], None]) -> str:
    """Begin the job, or find the one that is under way; returns its name.

    InputError where that has another survey file, or is to be begun anew.
    """
    number, last = await patiently(server, lambda: latest_job(server, order), told)
    if last is not None and not last.is_over:
        if last.metadata.get(_SURVEY_HASH) != order.survey_hash:
            expected = f"that of job {last.name}, which runs (--stop ends it)"
            raise InputError("survey file", expected, "another")
        for option in ("--fresh", "--retry-failed"):
            if option in order.options:
                expected = "no job of this run directory under way (--stop ends it)"
                raise InputError(option, expected, last.name)
        told(f"job {last.name} is under way: nothing is begun")
        return last.name
    name = f"{order.prefix}{number + 1}"
    metadata = {_SURVEY_HASH: order.survey_hash, "lenspipe_output": order.output}
    try:
        await patiently(
            server, lambda: server.begin(name, order.entrypoint, order.variables, metadata), told
        )
    except RefusedError as error:
        raise StoppedError(f"{server.address} took no job: {error}") from error
    return name


async def follow(
    server: JobServer, name: str, log: JobLog, patience_s: float = PATIENCE_S
) -> JobInfo:
    """Hand what a job prints to `log` until it is over; returns what became of it.

    A connection that is lost is made again, and goes on at the letter where it ended. StoppedError
    where none can be made for `patience_s`, or the cluster knows no such job any more.
    """
    seen = 0

    async def read() -> JobInfo:
        nonlocal seen
        # Asked first: a stream ends seconds after its job, which a bad line may never bear.
        while not (job := await server.job(name)).is_over:
            passed = 0
            async for text in server.tail(name):
                fresh = text[max(0, seen - passed) :]
                passed += len(text)
                seen += len(fresh)
                log.feed(fresh)
        rest = (await server.log(name))[seen:]  # streams may be closed half-way
        seen += len(rest)
        log.feed(rest)
        return job

    try:
        return await patiently(server, read, log.message, patience_s)
    except RefusedError as error:
        raise StoppedError(
            f"{server.address} knows no job {name} any more ({error}); where its cluster was begun"
            " anew, the same command resumes the run"
        ) from error


async def stop(server: JobServer, order: Order, told: Callable[[str], None]) -> JobInfo:
    """Have the job of this run directory end in order, and wait for it; InputError without one."""
    _, last = await patiently(server, lambda: latest_job(server, order), told)
    if last is None or last.is_over:
        raise InputError("--stop", f"a job that writes {order.output}", "none under way")
    name = last.name
    await patiently(server, lambda: server.stop(name), told)
    end = time.monotonic() + 2 * STOP_WAIT_S
    while True:
        job = await patiently(server, lambda: server.job(name), told)
        if job.is_over:
            return job
        if time.monotonic() > end:
            raise StoppedError(f"job {name} was told to stop and is still {job.status}")
        await asyncio.sleep(_STOP_LOOK_S)


def exit_status(job: JobInfo) -> int:
    """What `lenspipe run` would have ended with."""
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return _EXIT_OF_STOPPED
    code = job.exit_code or 1
    return 128 - code if code < 0 else code  # as a shell tells of a signal


async def patiently(
    server: JobServer,
    call: Callable[[], Awaitable[T]],
    told: Callable[[str], None],
    patience_s: float = PATIENCE_S,
) -> T:
    """The call's result; where the connection is lost it is made again, with growing rests.

    StoppedError where nothing was heard of the server for `patience_s`.
    """
    began, told_of, rest_s = time.monotonic(), -1.0, _FIRST_REST_S
    while True:
        try:
            return await call()
        except ConnectionLostError as error:
            if server.heard > told_of:
                told(f"connection lost ({error}); trying again")
                told_of, rest_s = server.heard, _FIRST_REST_S
            elif time.monotonic() - max(began, server.heard) > patience_s:
                raise StoppedError(
                    f"no connection for {patience_s:g} s ({error}); the job may go on, and the "
                    "same command follows it"
                ) from error
        await asyncio.sleep(rest_s)
        rest_s = min(2 * rest_s, _LONGEST_REST_S)

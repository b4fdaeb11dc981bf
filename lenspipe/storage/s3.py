"""S3 as lenspipe uses it: the one place where a request is limited in time and tried again.

Every request of s3fs passes `_call_s3`. Here it gets a time limit, growing rests with jitter where
the store is busy or away, a body that is whole, and at last an `OutageError` that no reader takes
for a damaged file.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.httpchecksum import FlexibleChecksumError
from botocore.parsers import ResponseParserError
from fsspec.asyn import FSTimeoutError, sync_wrapper
from s3fs import S3FileSystem

from lenspipe.redaction import redact
from lenspipe.storage.remote import CredentialsError, OutageError

ATTEMPTS = 6
FIRST_REST_S = 0.25  # doubles; with the rests halved by jitter six attempts bridge some 6 s
LONGEST_REST_S = 10.0
REQUEST_S = 600.0  # a request that trickles is given up too; 5 GB at 10 MB/s take 500 s
CONNECTIONS = 32  # of one process at a time

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_PASSING_CODES = frozenset(
    (
        "408",
        "429",
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
    )
)
_REFUSED_CODES = frozenset(
    (
        "401",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    )
)
_NO_SUCH_FEATURE = 501
_HEADS = ("head_object", "head_bucket")  # their replies have no body that would say why
_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
)


class ShortBodyError(Exception):
    """A reply ended before the bytes that its header promised."""


_PASSING = (
    ShortBodyError,
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    FlexibleChecksumError,
    ResponseParserError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
    FSTimeoutError,
)


class Verdict(Enum):
    """What to do about a failed request."""

    FINAL = "the answer stands"
    PASSING = "the store may answer the next time"
    REFUSED = "the credentials are not taken"


def judge(error: BaseException, method: str) -> Verdict:
    """What a failed request of a botocore method means."""
    told = error if isinstance(error, ClientError) else error.__cause__
    if isinstance(told, ClientError):
        return _judge_answer(told.response, method)
    if isinstance(error, _CREDENTIALS):
        return Verdict.REFUSED
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
        return Verdict.FINAL
    return Verdict.PASSING if isinstance(error, _PASSING) else Verdict.FINAL


def _judge_answer(response: Mapping[str, Any], method: str) -> Verdict:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _REFUSED_CODES or (method in _HEADS and status in (400, 403)):
        return Verdict.REFUSED
    if code in _PASSING_CODES or (status >= 500 and status != _NO_SUCH_FEATURE):
        return Verdict.PASSING
    return Verdict.FINAL


def rest_s(attempt: int, first_s: float = FIRST_REST_S) -> float:
    """Seconds before the next attempt: doubling, drawn from the upper half, so that workers that
    failed together do not come back together."""
    longest = min(first_s * 2.0 ** (attempt - 1), LONGEST_REST_S)
    return longest * random.uniform(0.5, 1.0)


class WholeBody:
    """A reply's body that was read to its end, in the place of the stream."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    async def read(self, amount: int | None = None) -> bytes:
        """The next bytes."""
        stop = len(self._data) if amount is None or amount < 0 else self._at + amount
        piece, self._at = self._data[self._at : stop], min(stop, len(self._data))
        return piece

    def close(self) -> None:
        """Nothing is open."""


class PatientS3(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """s3fs with one rule for failing requests; see the module.

    attempts, first_rest_s: of one request. Listings are not kept: another process may have written.
    """

    retries = 1  # of s3fs itself
    default_block_size = 4 << 20  # read ahead of a file that is read as a stream
    connect_timeout = 5
    read_timeout = 30

    def __init__(
        self,
        *args: Any,
        attempts: int = ATTEMPTS,
        first_rest_s: float = FIRST_REST_S,
        request_s: float = REQUEST_S,
        **options: Any,
    ) -> None:
        options.setdefault("use_listings_cache", False)
        super().__init__(*args, **options)
        self._attempts = attempts
        self._first_rest_s = first_rest_s
        self._request_s = request_s
        self._refreshing = asyncio.Lock()

    def _prepare_config_kwargs(self) -> dict[str, Any]:
        ours = {"retries": {"total_max_attempts": 1}, "max_pool_connections": CONNECTIONS}
        return {**ours, **super()._prepare_config_kwargs()}

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        """One request, tried until it is answered; OutageError where it is not."""

        async def request() -> Any:
            return await self._whole(method, *akwarglist, **kwargs)

        where = "/".join(str(kwargs[key]) for key in ("Bucket", "Key") if key in kwargs)
        return await self._patiently(method, where, request)

    call_s3 = sync_wrapper(_call_s3)

    async def _patiently(
        self, method: str, where: str, request: Callable[[], Awaitable[Any]]
    ) -> Any:
        refreshed = False
        for attempt in range(1, self._attempts + 1):
            client = self._s3
            try:
                async with asyncio.timeout(self._request_s):
                    return await request()
            except (OSError, BotoCoreError, ClientError, *_PASSING) as error:
                verdict, last = judge(error, method), error
                if verdict is Verdict.FINAL:
                    raise
            if verdict is Verdict.REFUSED:
                if refreshed:
                    break
                refreshed = True
                await self._new_credentials(client)
            elif attempt < self._attempts:
                await asyncio.sleep(rest_s(attempt, self._first_rest_s))
        kind = CredentialsError if verdict is Verdict.REFUSED else OutageError
        raise kind(f"s3://{where}: {method}: {_said(last)}") from None

    async def _new_credentials(self, client: Any) -> None:
        """Look for credentials anew: those in files and of roles change while a run lives."""
        async with self._refreshing:
            if client is self._s3:  # no other request did it meanwhile
                await self.set_session(refresh=True)

    async def _whole(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        reply = await super()._call_s3(method, *akwarglist, **kwargs)
        if method == "delete_objects" and reply.get("Errors"):
            first = reply["Errors"][0]
            raise OSError(f"{first.get('Key')}: not deleted: {first.get('Message')}")
        if method == "get_object":
            body = reply["Body"]
            try:
                data = await body.read()
            finally:
                body.close()
            check_whole(data, reply)
            reply["Body"] = WholeBody(data)
        return reply

    async def _cat_file(self, path: str, *args: Any, **options: Any) -> bytes:
        """The file or a range of it in one request; s3fs would ask for the size first."""
        if options.get("max_concurrency") is None:
            options["max_concurrency"] = 1
        return bytes(await super()._cat_file(path, *args, **options))


def check_whole(data: bytes, reply: Mapping[str, Any]) -> None:
    """ShortBodyError where a body is not as long as the reply's header says."""
    expected = reply.get("ContentLength")
    sent = str(reply.get("ContentRange") or "").removeprefix("bytes ").partition("/")[0]
    first, sign, last = sent.partition("-")
    if sign and first.isdigit() and last.isdigit():
        expected = int(last) - int(first) + 1
    if expected is not None and len(data) != expected:
        raise ShortBodyError(f"{len(data)} bytes of {expected} arrived")


def _said(error: BaseException) -> str:
    cause = error if isinstance(error, ClientError) else error.__cause__
    code = cause.response.get("Error", {}).get("Code") if isinstance(cause, ClientError) else None
    text = " ".join(str(error).split()) or "no answer in time"
    return redact(f"{code or type(error).__name__}: {text}")[:400]

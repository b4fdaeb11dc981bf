from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from lenspipe.storage import s3
from lenspipe.storage.remote import CredentialsError, OutageError, raise_if_passing
from lenspipe.storage.s3 import (
    PatientS3,
    ShortBodyError,
    Verdict,
    WholeBody,
    check_whole,
    judge,
    rest_s,
)
from lenspipe.storage.store import is_storage_fault


def answer(code: str, status: int) -> OSError:
    """As s3fs raises it: an OSError caused by what botocore raised."""
    error = OSError("refused")
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error.__cause__ = ClientError(response, "GetObject")
    return error


@pytest.mark.parametrize(
    ("error", "method", "verdict"),
    [
        (answer("InternalError", 500), "get_object", Verdict.PASSING),
        (answer("SlowDown", 503), "put_object", Verdict.PASSING),
        (answer("503", 503), "head_object", Verdict.PASSING),
        (answer("RequestTimeout", 400), "put_object", Verdict.PASSING),
        (EndpointConnectionError(endpoint_url="http://h"), "get_object", Verdict.PASSING),
        (aiohttp.ClientPayloadError("cut"), "get_object", Verdict.PASSING),
        (ConnectionResetError(104, "reset"), "get_object", Verdict.PASSING),
        (TimeoutError(), "get_object", Verdict.PASSING),
        (ShortBodyError(), "get_object", Verdict.PASSING),
        (answer("ExpiredToken", 400), "get_object", Verdict.REFUSED),
        (answer("400", 400), "head_object", Verdict.REFUSED),
        (answer("403", 403), "head_object", Verdict.REFUSED),
        (NoCredentialsError(), "get_object", Verdict.REFUSED),
        (answer("AccessDenied", 403), "get_object", Verdict.FINAL),
        (answer("NoSuchKey", 404), "get_object", Verdict.FINAL),
        (answer("PreconditionFailed", 412), "put_object", Verdict.FINAL),
        (answer("NotImplemented", 501), "put_object", Verdict.FINAL),
        (FileNotFoundError("x"), "get_object", Verdict.FINAL),
    ],
)
def test_what_a_failed_request_means(error: Exception, method: str, verdict: Verdict) -> None:
    assert judge(error, method) is verdict


def test_rests_double_within_bounds_and_differ_between_workers() -> None:
    drawn = [[rest_s(attempt) for _ in range(50)] for attempt in range(1, 12)]
    for number, rests in enumerate(drawn):
        longest = min(s3.FIRST_REST_S * 2**number, s3.LONGEST_REST_S)
        assert longest / 2 <= min(rests) < max(rests) <= longest


@pytest.mark.parametrize(
    ("reply", "sound"),
    [
        ({"ContentLength": 4}, True),
        ({"ContentLength": 5}, False),
        ({"ContentLength": 4, "ContentRange": "bytes 10-13/90"}, True),
        ({"ContentLength": 4, "ContentRange": "bytes 10-14/90"}, False),
        ({}, True),
    ],
)
def test_a_body_is_as_long_as_its_header_says(reply: dict[str, Any], sound: bool) -> None:
    if sound:
        check_whole(b"1234", reply)
    else:
        with pytest.raises(ShortBodyError, match="4 bytes of 5"):
            check_whole(b"1234", reply)


def test_a_whole_body_is_read_in_parts() -> None:
    async def parts() -> list[bytes]:
        body = WholeBody(b"abcdef")
        return [await body.read(4), await body.read(4), await body.read()]

    assert asyncio.run(parts()) == [b"abcd", b"ef", b""]


class Scripted(PatientS3):
    """Requests end as the script says; no server."""

    cachable = False

    def __init__(self, *script: Exception | None) -> None:
        super().__init__(
            anon=True,
            attempts=4,
            first_rest_s=0.0,
            asynchronous=True,
        )
        self.script = list(script)
        self.renewed = 0

    async def _whole(self, *_: Any, **__: Any) -> Any:
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return "reply"

    async def set_session(self, refresh: bool = False, **_: Any) -> None:
        self.renewed += refresh

    def get(self) -> Any:
        """One request."""
        return asyncio.run(self._call_s3("get_object", Bucket="b", Key="k"))


BUSY = answer("SlowDown", 503)
EXPIRED = answer("ExpiredToken", 400)


def test_a_busy_store_is_asked_again() -> None:
    assert Scripted(BUSY, ShortBodyError(), BUSY, None).get() == "reply"


def test_an_outage_is_told_with_the_object_and_is_a_fault_of_storage() -> None:
    with pytest.raises(OutageError, match=r"^s3://b/k: get_object: SlowDown: ") as caught:
        Scripted(BUSY, BUSY, BUSY, BUSY).get()
    assert is_storage_fault(caught.value)
    assert not isinstance(caught.value, OSError)  # no reader takes it for a damaged file


def test_credentials_are_looked_for_anew_once() -> None:
    store = Scripted(EXPIRED, None)
    assert store.get() == "reply"
    assert store.renewed == 1
    with pytest.raises(CredentialsError, match="ExpiredToken"):
        Scripted(EXPIRED, EXPIRED).get()


def test_a_check_tells_refused_credentials_as_a_mistake_and_an_outage_as_one() -> None:
    raise_if_passing(CredentialsError("no key"))
    with pytest.raises(OutageError, match="away"):
        raise_if_passing(OutageError("away"))


def test_an_answer_that_stands_is_raised_at_once() -> None:
    store = Scripted(answer("AccessDenied", 403), None)
    with pytest.raises(OSError, match="refused"):
        store.get()
    assert len(store.script) == 1

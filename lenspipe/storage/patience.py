"""Storage that refuses is asked again: a full disk or an outage need not end a run of a week."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import TypeVar

from lenspipe.errors import LenspipeError, StoppedError
from lenspipe.storage.refusals import describe_refusal
from lenspipe.storage.store import is_storage_fault

ATTEMPTS = 6
R = TypeVar("R")


def rest_s(refusals: int) -> float:
    """Seconds to wait after so many refusals in a row."""
    return 2.0 ** (refusals - 1)


def patiently(
    call: Callable[[], R],
    attempts: int = ATTEMPTS,
    near: str | None = None,
    told: Callable[[str], None] = lambda _line: None,
) -> R:
    """The call's result; storage that refuses is asked again after growing rests.

    near: a folder of the storage, for the line that says how much is free. told: hears why the
    call rests. StoppedError after the last attempt. The call must bear being repeated, as a
    whole-file write does.
    """
    refusals = 0
    while True:
        try:
            return call()
        except Exception as error:
            if isinstance(error, LenspipeError) or not is_storage_fault(error):
                raise
            refusals += 1
            line = describe_refusal(error, near)
            if refusals >= attempts:
                raise gave_up(refusals, line) from error
            rest = rest_s(refusals)
            told(f"storage refused, the run rests {rest:g} s: {line}")
            sleep(rest)


def gave_up(refusals: int, line: str) -> StoppedError:
    """What ends a run that storage refused so often."""
    return StoppedError(f"storage failed {refusals} times: {line}; the same command resumes")

"""How long a piece of work may take before whoever does it counts as hung."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import TypeVar

from lenspipe.errors import StoppedError

# Without a limit of the user's: while nothing is known, then by the slowest that ended well.
FIRST_S = 3600.0
LEAST_S = 300.0
TIMES_SLOWEST = 10.0
# So many pieces that were late, and none that ended well between: no row of theirs is at fault.
HUNG_IN_A_ROW = 8
# The driver that slept, was stopped or waited for its storage has not watched its workers.
_LONGEST_LOOK_S = 5.0
_LOOK_S = 1.0
_left: list[threading.Thread] = []  # in calls that took longer than they may
R = TypeVar("R")


class TimeLimit:
    """A clock that runs only while somebody watches, and the limit that it is read against."""

    def __init__(
        self, limit_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._looked = clock()
        self._watched = 0.0
        self._slowest: float | None = None
        self._late: set[Hashable] = set()

    def now(self) -> float:
        """Seconds watched so far; called at least once every few seconds."""
        at = self._clock()
        self._watched += min(at - self._looked, _LONGEST_LOOK_S)
        self._looked = at
        return self._watched

    def ended_well(self, seconds: float) -> None:
        """A piece was done in so many seconds."""
        self._slowest = max(seconds, self._slowest or 0.0)
        self._late.clear()

    def timed_out(self, piece: Hashable) -> None:
        """A piece took longer than it may. StoppedError where so many did in a row."""
        self._late.add(piece)
        if len(self._late) >= HUNG_IN_A_ROW:
            raise StoppedError(
                f"{HUNG_IN_A_ROW} shards or parts of them in a row took longer than they may (now "
                f"{self.limit_s:g} s) and none was done meanwhile, so the storage hangs rather than"
                " a row; the same command resumes"
            )

    @property
    def limit_s(self) -> float:
        """Seconds that a piece may take: as the user says, else `TIMES_SLOWEST` the slowest."""
        if self._limit_s is not None:
            return self._limit_s
        if self._slowest is None:
            return FIRST_S
        return max(LEAST_S, TIMES_SLOWEST * self._slowest)


def within(limit: TimeLimit, what: str, call: Callable[[], R]) -> R:
    """The call's result, made in a thread of its own; what: its name for the user.

    StoppedError where it takes longer than it may. Its thread cannot be ended and is left; who ends
    the process then must not wait for it (`is_hung`).
    """
    result: Future[R] = Future()

    def attempt() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # raised again where it is waited for
            result.set_exception(error)

    thread = threading.Thread(target=attempt, name="within", daemon=True)
    began = limit.now()
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        if thread.is_alive() and limit.now() - began > limit.limit_s:
            _left.append(thread)
            raise StoppedError(
                f"{what} took longer than a shard may ({limit.limit_s:g} s, "
                "runtime.shard_timeout_s), so the storage hangs; the same command resumes"
            )
    found = result.result()
    limit.ended_well(limit.now() - began)
    return found


def is_hung() -> bool:
    """Whether a thread of this process is still in a call that took longer than it may."""
    return any(thread.is_alive() for thread in _left)

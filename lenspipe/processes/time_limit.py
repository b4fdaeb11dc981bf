"""How long a piece of work may take before whoever does it counts as hung."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from lenspipe.errors import StoppedError

# Without a limit of the user's: while nothing is known, then by the slowest that ended well.
FIRST_S = 3600.0
LEAST_S = 300.0
TIMES_SLOWEST = 10.0
# So many pieces that were late, and none that ended well between: no row of theirs is at fault.
HUNG_IN_A_ROW = 8
# The driver that slept, was stopped or waited for its storage has not watched its workers.
_LONGEST_LOOK_S = 5.0


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

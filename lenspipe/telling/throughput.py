"""How fast a stage goes and when it will end; what metrics and progress bars both show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 120.0


class Throughput:
    """Rows per second over the last two minutes, and the seconds left.

    total: rows of the stage. done: rows that an earlier run did; they count for what is left, not
    for the speed. clock: monotonic seconds.
    """

    def __init__(
        self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.done = done
        self._clock = clock
        self._begun = clock()
        self._first = done
        self._ended: float | None = None
        self._points: deque[tuple[float, int]] = deque([(self._begun, done)])

    def resumed(self, rows: int) -> None:
        """Rows that were done before this run began."""
        self.done += rows
        self._first += rows
        self._points = deque((when, count + rows) for when, count in self._points)

    def add(self, rows: int) -> None:
        """Rows were done just now."""
        self.done += rows
        now = self._clock()
        self._points.append((now, self.done))
        while len(self._points) > 2 and self._points[1][0] < now - WINDOW_S:
            self._points.popleft()

    def finish(self) -> None:
        """The stage is over: from now on the speed is that of all of it."""
        self._ended = self._clock()

    def per_second(self) -> float:
        """Rows per second; 0 before any are done."""
        if self._ended is not None:
            return _ratio(self.done - self._first, self._ended - self._begun)
        when, count = self._points[0]
        return _ratio(self.done - count, self._clock() - when)

    def seconds_left(self) -> float:
        """Seconds until all rows are done at this speed; infinite where nothing moves."""
        left = self.total - self.done
        if left <= 0 or self._ended is not None:
            return 0.0
        rate = self.per_second()
        return left / rate if rate > 0 else float("inf")


def _ratio(rows: int, seconds: float) -> float:
    return rows / seconds if seconds > 0 else 0.0

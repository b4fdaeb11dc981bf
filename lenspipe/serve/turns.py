"""Whose turn it is, where only a few may work at once: the others wait without a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lenspipe.errors import LenspipeError

T = TypeVar("T")


class BusyError(LenspipeError):
    """As many work as may, and as many wait as may or for as long as they may."""


class Turns:
    """Runs work in threads of its own, `at_once` at a time, in the order in which it came.

    Whoever waits holds no thread: those that a service shares stay free for its other requests.
    waiting: most that wait. wait_s: how long one waits.
    """

    def __init__(self, at_once: int, waiting: int, wait_s: float) -> None:
        self._at_once, self._most, self._wait_s = at_once, waiting, wait_s
        self._waiting = 0
        self._free = asyncio.Semaphore(at_once)
        # As many threads as turns: one whose client left still works when its turn is given on.
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="query")

    async def run(self, work: Callable[[], T]) -> T:
        """What the work gives. BusyError where no turn came."""
        await self._acquire()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._free.release()

    async def _acquire(self) -> None:
        busy = f"{self._at_once} queries are running: try again later"
        if self._free.locked() and self._waiting >= self._most:
            raise BusyError(f"{busy} ({self._waiting} wait already)")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise BusyError(busy) from error
        finally:
            self._waiting -= 1

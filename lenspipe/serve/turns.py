"""Whose turn it is, where only a few may work at once: the others wait without a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
        self._at_once, self._waiting, self._wait_s = at_once, waiting, wait_s
        self._here = 0
        self._free = asyncio.Semaphore(at_once)
        # As many threads as turns: one whose client left still works when its turn is given on.
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="turn")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those that work or wait, held while `run` is prepared and done. BusyError
        where all are taken, which costs nothing."""
        if self._here >= self._at_once + self._waiting:
            raise BusyError(f"{self._told}, and {self._waiting} wait")
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    async def run(self, work: Callable[[], T]) -> T:
        """What the work gives. BusyError where no turn came."""
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise BusyError(self._told) from error
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._free.release()

    @property
    def _told(self) -> str:
        return f"try again later: as many queries are running as may ({self._at_once})"

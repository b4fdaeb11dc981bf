from __future__ import annotations

import asyncio
import threading

import pytest

from lenspipe.serve.turns import BusyError, Turns


def test_no_more_work_than_may_and_all_of_it_is_done() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work(k: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.02)
        with lock:
            now -= 1
        return k

    async def all_of_them() -> list[int]:
        turns = Turns(2, 20, 10.0)
        return await asyncio.gather(*(turns.run(lambda k=k: work(k)) for k in range(20)))  # type: ignore[misc]

    assert asyncio.run(all_of_them()) == list(range(20))
    assert most == 2


def test_a_full_queue_and_a_long_wait_are_told() -> None:
    ended = threading.Event()

    async def asked() -> None:
        turns = Turns(1, 1, 0.2)
        with turns.place(), turns.place():
            first = asyncio.create_task(turns.run(ended.wait))
            await asyncio.sleep(0.05)
            with pytest.raises(BusyError, match=r"may \(1\), and 1 wait$"), turns.place():
                pass
            with pytest.raises(BusyError, match=r"^try again later.* may \(1\)$"):
                await turns.run(lambda: 2)
            ended.set()
            assert await first
        with turns.place():
            assert await turns.run(lambda: 4) == 4

    asyncio.run(asked())


def test_work_that_fails_and_clients_that_leave_give_their_turn_on() -> None:
    def broken() -> None:
        raise ValueError("no")

    async def asked() -> None:
        turns = Turns(1, 4, 5.0)
        with pytest.raises(ValueError, match="no"):
            await turns.run(broken)
        ended = threading.Event()
        first = asyncio.create_task(turns.run(ended.wait))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(turns.run(lambda: 2))
        await asyncio.sleep(0.05)
        second.cancel()
        ended.set()
        assert await first
        assert await turns.run(lambda: 3) == 3

    asyncio.run(asked())

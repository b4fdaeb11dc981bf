"""Pools of workers that apply a function of a test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lenspipe.runtime import Outcome, Pool, PoolOptions


@dataclass(frozen=True)
class Factory:
    """Builds the callable that a test's pool applies."""

    call: Callable[..., Any]

    def __call__(self) -> Callable[..., Any]:
        return self.call


def make_pool(call: Callable[..., Any], options: PoolOptions, **more: Any) -> Pool[int, Any]:
    return Pool(Factory(call), options, **more)


def outcomes(call: Callable[..., Any], items: list[int], **options: Any) -> list[Outcome[int, Any]]:
    with make_pool(call, PoolOptions(workers=2, **options)) as pool:
        return list(pool.run(deque(items)))

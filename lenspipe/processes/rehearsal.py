"""What a worker does before its first item, so that no item waits for imports and openings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

LIMIT_S = 60.0


def rehearse(call: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Make the call once, and wait for it no longer than `limit_s`.

    It is for its side effects alone. What it raises, and what it hangs on, the first item meets
    again, where there are limits, retries and a name for the fault.
    """

    def attempt() -> None:
        with suppress(Exception):
            call()

    thread = threading.Thread(target=attempt, name="rehearsal", daemon=True)
    thread.start()
    thread.join(limit_s)

"""Signals that end a run: in order at the first, at once at the second or when order takes long.

A handler raises SystemExit, but an exception that a signal raises inside a library may be turned
into another one or be lost. So the wish is also kept here, for loops to ask; and a thread counts
the signals, since no handler runs while the main thread is inside a call that never returns.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from lenspipe.processes.local_ray import children, end, family

_SAID = {129: "hung up", 130: "interrupted", 143: "terminated"}
_STATUS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}
_GRACE_S = 20.0  # clusters that evict a job kill it some 30 s after their signal
_asked: list[int] = []
_afterwards = ["the same command begins anew"]


def end_on_signals() -> None:
    """SIGTERM, SIGINT and SIGHUP (a terminal that closes) end this process from now on; called
    once, in the main thread.

    What the parent had ignored stays ignored, as for `nohup` and background jobs.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in _STATUS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(reader,), name="signals", daemon=True).start()


def will_resume(how: str = "the same command resumes") -> None:
    """From now on what ends is a run, which another call goes on with; how: which call."""
    _afterwards[:] = [how]


def said(status: int, when: str = "") -> str:
    """The line about an end with this status. when: at which moment it came."""
    return f"{_SAID[status]}{when}: {_afterwards[0]}"


def asked() -> int | None:
    """The exit status that a signal has asked for."""
    return _asked[0] if _asked else None


def check() -> None:
    """Raise SystemExit where a signal has asked for the end."""
    if _asked:
        sys.exit(_asked[0])


def end_now(line: str, status: int) -> NoReturn:
    """End this process and all that came from it, whatever its threads are in the middle of."""
    end(family(children()))
    with suppress(OSError, ValueError):  # closed, or its reader is gone
        os.write(sys.stderr.fileno(), f"{line}\n".encode())
    os._exit(status)


def _handle(number: int, _frame: FrameType | None) -> NoReturn:
    status = _STATUS[signal.Signals(number)]
    _asked.append(status)
    sys.exit(status)


def _count(signals: socket.socket) -> None:
    status = _STATUS[_next(signals)]
    _asked.append(status)  # Ray has handlers of its own while it starts
    signals.settimeout(_GRACE_S)
    with suppress(TimeoutError):
        _next(signals)
    end_now(said(status, " before it could end in order"), status)


def _next(signals: socket.socket) -> signal.Signals:
    """The next signal that ends a run; others with a handler of their own arrive here too."""
    while True:
        number = signal.Signals(signals.recv(1)[0])
        if number in _STATUS:
            return number

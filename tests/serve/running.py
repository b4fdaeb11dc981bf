"""A service that answers on a free port of loopback, in a thread of the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lenspipe.serve.command import Service
from lenspipe.serve.query_process import QueryLimits
from lenspipe.serve.shown import Manner


@contextmanager
def serving(
    run_url: str,
    host: str = "127.0.0.1",
    token_file: Path | None = None,
    limits: QueryLimits | None = None,
    grades: str | None = None,
    manner: Manner | None = None,
    port: int = 0,
    training_images: Path | None = None,
) -> Iterator[Service]:
    service = Service(run_url, host, port, token_file, limits, grades, manner, training_images)
    server = service.server()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [service.socket]})
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline
            assert thread.is_alive()
            time.sleep(0.01)
        yield service
    finally:
        server.should_exit = True
        thread.join()
        service.socket.close()

"""A line to a server that can be cut: what a network, a tunnel or a laptop's lid does to it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class TcpProxy:
    """Passes bytes between a free port of this machine and `target`. A context."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._changing = threading.Lock()
        self._down = False
        self.cut_connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self, down: bool = False) -> None:
        """Cut every connection. down: and each new one, until the line is up again."""
        with self._changing:
            self._down = down
            pairs, self._pairs = self._pairs, []
        self.cut_connections += len(pairs)
        for pair in pairs:
            for end in pair:
                _close(end)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=10.0)
        except OSError:
            _close(near)
            return
        far.settimeout(None)
        with self._changing:
            if self._down:
                _close(near)
                _close(far)
                return
            self._pairs.append((near, far))
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with self._changing, contextlib.suppress(ValueError):
            self._pairs.remove((source, sink) if (source, sink) in self._pairs else (sink, source))
        _close(source)
        _close(sink)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()

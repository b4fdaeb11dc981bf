"""Several hosts on one machine: each has a network, a host name, processes and mounts of its own.

They are Linux namespaces that nothing names: whatever ends the process which made them, the kernel
takes processes, links and addresses away with them. A switch, in a namespace of its own, joins
their links; no address of theirs is known outside.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests.tools import require_tool

_OWN = ("--net", "--uts", "--pid", "--mount")
_NETWORK = "10.213.0."
# Process 1 of a host: takes orphans, and ends when whoever made the host does.
_INIT = """
hostname "$1" && ip link set lo up && mount --bind "$2" /etc/hosts && echo ready || exit 1
cat >/dev/null
exit 0
"""


@dataclass(frozen=True)
class Host:
    """One host. address: of its only link. maker: the process outside that made it."""

    name: str
    address: str
    maker: subprocess.Popen[str]
    pid: int  # of its process 1, as seen from outside
    switch: Host | None = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *words: str | Path) -> list[str]:
        """The command line that runs those words on this host."""
        return ["nsenter", "--target", str(self.pid), *_OWN, "--", *map(str, words)]

    def start(
        self, *words: str | Path, log: IO[bytes], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """A process of this host that writes into `log`; it ends with the host at the latest."""
        process = subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
        self.started.append(process)
        return process

    def run(
        self,
        *words: str | Path,
        environment: dict[str, str] | None = None,
        seconds: float = 60.0,
    ) -> str:
        """What a command of this host prints; AssertionError where it fails."""
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {words}: {done.stdout}"
        return done.stdout

    def processes(self, named: str) -> list[psutil.Process]:
        """Those whose title contains the words."""
        namespace = _process_namespace(self.pid)
        return [
            process
            for process in psutil.process_iter()
            if _process_namespace(process.pid) == namespace and named in _title(process)
        ]

    def unplug(self) -> None:
        """Take its cable out of the switch; nobody is told."""
        assert self.switch is not None
        self.switch.run("ip", "link", "set", self.name, "down")

    def plug(self) -> None:
        """Put the cable back."""
        assert self.switch is not None
        self.switch.run("ip", "link", "set", self.name, "up")

    def lose_power(self) -> None:
        """Every process of it ends at once, and its link goes with them."""
        psutil.Process(self.pid).kill()
        self.maker.wait(30)


@contextmanager
def lab(names: Sequence[str], folder: Path) -> Iterator[list[Host]]:
    """Hosts of those names, each of which finds the others by name; all gone at the end.

    The test skips where this system lets nobody make them.
    """
    for tool in ("unshare", "nsenter", "ip"):
        require_tool(tool)
    known = folder / "hosts"
    addresses = {name: f"{_NETWORK}{number}" for number, name in enumerate(names, start=1)}
    lines = ["127.0.0.1 localhost", *(f"{addresses[name]} {name}" for name in names)]
    known.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with ExitStack() as ending:
        switch = ending.enter_context(_host("switch", "", known))
        switch.run("ip", "link", "add", "bridge", "type", "bridge")
        switch.run("ip", "link", "set", "bridge", "up")
        yield [ending.enter_context(_host(*item, known, switch)) for item in addresses.items()]


@contextmanager
def _host(name: str, address: str, known: Path, switch: Host | None = None) -> Iterator[Host]:
    maker = subprocess.Popen(
        [
            *("unshare", *_OWN, "--fork", "--kill-child", "--mount-proc"),
            *("bash", "-c", _INIT, "init", name, str(known)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started: list[subprocess.Popen[bytes]] = []
    try:
        assert maker.stdout is not None
        if (said := maker.stdout.readline()) != "ready\n":
            pytest.skip(f"no hosts made of namespaces here: {said.strip()}")
        [first] = psutil.Process(maker.pid).children()
        host = Host(name, address, maker, first.pid, switch, started)
        if switch is not None:
            _cable(host, switch)
        yield host
    finally:
        maker.kill()
        maker.communicate()
        for process in started:
            process.kill()
            process.wait()


def _cable(host: Host, switch: Host) -> None:
    """A link from the host to the switch, where its end has the host's name."""
    of_switch = ("nsenter", "--target", str(switch.pid), "--net", "--", "ip", "link")
    peer = ("type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    subprocess.run([*of_switch, "add", host.name, *peer], check=True)
    switch.run("ip", "link", "set", host.name, "master", "bridge", "up")
    host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
    host.run("ip", "link", "set", "eth0", "up")


def _process_namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:  # gone
        return ""


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""

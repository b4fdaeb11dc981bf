from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from lenspipe.processes.local_ray import Servers, children, remove_abandoned, session_folder


def test_a_session_folder_lives_as_long_as_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenspipe.processes.local_ray._base", lambda: tmp_path)
    with session_folder() as folder:
        (folder / "logs").mkdir()
        remove_abandoned(tmp_path)  # as another run does when it begins
        assert (folder / "logs").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_run_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenspipe.processes.local_ray._base", lambda: tmp_path)
    (tmp_path / "lenspipe-ray-abandoned" / "logs").mkdir(parents=True)
    (tmp_path / "lenspipe-ray-file").touch()
    (tmp_path / "another").mkdir()
    with session_folder() as folder:
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {folder.name, "lenspipe-ray-file", "another"}


def test_a_folder_too_deep_for_sockets_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("deep" * 20)))
    with session_folder() as folder:
        assert len(str(folder)) + 64 <= 107
        assert folder.is_dir()


def test_a_server_that_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Servers()
    monkeypatch.setattr("lenspipe.processes.local_ray._LOOK_EVERY_S", 0.0)
    others = children()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(psutil.Process, "name", lambda _self: "raylet")
    try:
        servers.find(others)
        assert servers.dead() is None
        child.kill()  # and not waited for: a dead child stays in the table as a zombie
        psutil.wait_procs([psutil.Process(child.pid)], timeout=0.5)
        assert servers.dead() == "Ray's node server (raylet)"
        with servers.ending():
            assert servers.dead() is None
    finally:
        child.kill()
        child.wait()


def test_servers_of_a_cluster_that_others_started_are_told_of_on_this_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenspipe.processes.local_ray._LOOK_EVERY_S", 0.0)
    session = str(tmp_path / "session")
    told = {"gcs_server": f"--session-dir={session}", "raylet": f"--raylet_socket_name={session}/r"}
    started = {}
    for name, words in {**told, "raylet of another": f"{told['raylet']}.1"}.items():
        program = tmp_path / name / name.split()[0]
        program.parent.mkdir()
        shutil.copy("/bin/sh", program)
        started[name] = subprocess.Popen([program, "-c", "read _", words], stdin=subprocess.PIPE)
    servers = Servers()
    try:
        servers.join(session, f"{session}/r")
        started["raylet of another"].kill()
        started["raylet of another"].wait()
        assert servers.dead() is None
        started["gcs_server"].kill()
        started["gcs_server"].wait()
        assert servers.dead() == "Ray's control server (GCS)"
        with servers.ending():  # others started them, and they go on
            pass
        assert started["raylet"].poll() is None
    finally:
        for each in started.values():
            each.kill()
            each.communicate()


@pytest.mark.parametrize("noticed", [False, True])
def test_a_death_that_the_main_thread_does_not_notice_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    monkeypatch.setattr("lenspipe.processes.local_ray._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("lenspipe.processes.local_ray._GRACE_S", 0.3)
    servers, told = Servers(), threading.Event()
    others = children()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(psutil.Process, "name", lambda _self: "gcs_server")
    try:
        servers.find(others)
        servers.watch(lambda _dead: told.set())
        assert not told.wait(0.5)
        child.kill()
        if noticed:
            with servers.ending():
                pass
        assert told.wait(1.0 if noticed else 30.0) is not noticed
    finally:
        child.kill()
        child.wait()


def test_what_ray_leaves_behind_is_ended() -> None:
    servers = Servers()
    others = children()
    child = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
    try:
        servers.find(others)
        deadline = time.monotonic() + 30.0
        while not (grandchildren := psutil.Process(child.pid).children()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with servers.ending():
            assert child.poll() is None
        assert not psutil.pid_exists(child.pid)
        assert psutil.wait_procs(grandchildren, timeout=5)[1] == []
    finally:
        child.kill()
        child.wait()

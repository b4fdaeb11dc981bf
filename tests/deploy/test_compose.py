"""The compose file, as Debian's docker-compose reads it, and its commands on hosts of a lab."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lenspipe.run.verify import verify
from lenspipe.run_directory import RunDirectory
from tests.cluster.hosts import Host, lab
from tests.cluster.ray_nodes import PATIENCE_S, ROOT, wait_until
from tests.deploy.stand_ins import NEVER, StandIns
from tests.tools import require_tool
from tests.toy_survey import make_survey

pytestmark = pytest.mark.tool

FILE = ROOT / "deploy" / "compose" / "compose.yaml"
NODE = FILE.with_name("node.sh")
Service = dict[str, Any]


def services(folder: Path, **settings: str) -> dict[str, Service]:
    """Every service as docker-compose resolves it. folder: of data, runs and secrets."""
    given = {
        "LENSPIPE_DATA": str(folder),
        "LENSPIPE_RUNS": str(folder),
        "LENSPIPE_RAY_TOKEN": str(folder / "ray-token"),
        "LENSPIPE_TOKENS": str(folder / "tokens.yaml"),
        **settings,
    }
    profiles = ("--profile", "serve", "--profile", "monitoring")
    done = subprocess.run(
        [require_tool("docker-compose"), "--file", FILE, *profiles, "config"],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole = yaml.safe_load(done.stdout)
    for service in whole["services"].values():
        for secret in service.get("secrets", []):
            secret["file"] = whole["secrets"][secret["source"]]["file"]
    return dict(whole["services"])


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Service]:
    return services(tmp_path_factory.mktemp("compose"))


def test_no_service_is_more_than_it_needs_to_be(read: dict[str, Service]) -> None:
    assert sorted(read) == ["head", "prometheus", "serve", "worker"]
    for name in ("head", "serve", "worker"):
        service = read[name]
        assert service["user"] == "1000:1000", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        mounts = [volume.split(":", 1)[1] for volume in service["volumes"]]
        scripts = [] if name == "serve" else ["/node.sh:ro"]
        assert mounts == ["/data:ro", "/runs:rw", *scripts], name


def test_ports_are_open_to_this_machine_alone(read: dict[str, Service]) -> None:
    ports = [port for service in read.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_nodes_share_a_token_that_is_a_file(read: dict[str, Service]) -> None:
    for name in ("head", "worker"):
        environment = read[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token", name
        assert environment["RAY_AUTH_TOKEN_PATH"].startswith("/run/secrets/"), name
        assert "RAY_AUTH_TOKEN" not in environment, name
        assert [secret["source"] for secret in read[name]["secrets"]] == ["ray_token"]


def test_a_folder_that_is_not_given_is_asked_for() -> None:
    done = subprocess.run(
        [require_tool("docker-compose"), "--file", FILE, "config"],
        env={"PATH": os.environ["PATH"], "LENSPIPE_RUNS": "/runs"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "a folder with the survey file and its data" in done.stderr


def test_prometheus_takes_its_configuration(read: dict[str, Service], tmp_path: Path) -> None:
    mounted = dict(volume.rsplit(":", 2)[1::-1] for volume in read["prometheus"]["volumes"])
    told = Path(mounted["/etc/prometheus/prometheus.yml"]).read_text("utf-8")
    (tmp_path / "prometheus.yml").write_text(
        told.replace("/etc/prometheus/rules.yaml", mounted["/etc/prometheus/rules.yaml"]), "utf-8"
    )
    done = subprocess.run(
        [require_tool("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# What containers execute


def image_entrypoint(target: str) -> list[str]:
    """The ENTRYPOINT of a target of the Dockerfile, of its own or of what it is made from."""
    found: dict[str, list[str]] = {}
    stage = ""
    for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("FROM "):
            _, base, _, stage = line.split()
            found[stage] = found.get(base, [])
        elif line.startswith("ENTRYPOINT "):
            found[stage] = json.loads(line.removeprefix("ENTRYPOINT "))
    return found[target]


def here(service: Service, text: str) -> str:
    """A text of a service's with the paths that its mounts stand for."""
    mounts = [volume.rsplit(":", 2)[:2] for volume in service["volumes"]]
    mounts += [[s["file"], f"/run/secrets/{s['source']}"] for s in service.get("secrets", [])]
    for source, target in mounts:
        text = re.sub(rf"(?<![\w.]){re.escape(target)}(?=/|$|\b)", source, text)
    return text


def executed(service: Service) -> list[str]:
    """The words that a service's container starts with: `[]` is no entrypoint, none is the
    image's."""
    own = service.get("entrypoint")
    words = [*(image_entrypoint("cpu") if own is None else own), *service["command"]]
    # `$$` is how a compose file writes `$`, also where it is resolved.
    return [here(service, word.replace("$$", "$")) for word in words]


@pytest.fixture
def programs(tmp_path: Path) -> StandIns:
    made = StandIns(tmp_path / "programs")
    for name in ("lenspipe", "ray", "sleep"):
        made.add(name)
    return made


def begin(service: Service, programs: StandIns, tmp_path: Path) -> subprocess.Popen[bytes]:
    """What a service's container executes, with those programs."""
    environment = {"PATH": programs.path, "RAY_TMPDIR": str(tmp_path / "of-ray")}
    return subprocess.Popen(executed(service), env=environment, stdout=subprocess.DEVNULL)


def end(process: subprocess.Popen[bytes]) -> int:
    """The exit status after a signal such as `docker compose down` sends."""
    process.terminate()
    return process.wait(10)


def test_the_script_of_nodes_has_no_fault_that_shellcheck_knows() -> None:
    done = subprocess.run(
        [require_tool("shellcheck"), NODE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_service_is_what_its_container_executes(
    read: dict[str, Service], programs: StandIns, tmp_path: Path
) -> None:
    assert begin(read["serve"], programs, tmp_path).wait(10) == 0
    [call] = programs.calls("lenspipe")
    assert call.split()[0] == "serve"
    assert programs.calls("ray") == []


def test_no_node_relies_on_a_restart_that_the_documented_command_switches_off(
    read: dict[str, Service],
) -> None:
    page = (ROOT / "docs" / "compose.md").read_text("utf-8")
    assert "docker compose up --abort-on-container-exit --exit-code-from head\n" in page
    assert "restart" not in read["head"]
    assert "restart" not in read["worker"]
    assert read["head"]["stop_grace_period"] == "45s"  # a survey ends in order


@pytest.mark.parametrize(
    ("ends", "status", "runs"),
    [
        ([0], 0, 1),
        ([1, 137, 0], 0, 3),
        ([1, 1, 1, 0], 0, 4),
        ([1, 1, 1, 1, 0], 1, 4),
        ([2, 0], 2, 1),
        ([1, 3, 0], 3, 2),
    ],
)
def test_a_survey_that_fails_is_taken_up_again(
    read: dict[str, Service],
    programs: StandIns,
    tmp_path: Path,
    ends: list[int],
    status: int,
    runs: int,
) -> None:
    programs.add("lenspipe", *ends)
    assert begin(read["head"], programs, tmp_path).wait(10) == status
    told = programs.calls("lenspipe")
    assert len(told) == runs
    assert len(set(told)) == 1
    assert told[0].startswith("run ")
    rays = [call.split()[0] for call in programs.calls("ray")]
    assert rays == ["start", *["stop", "start"] * (runs - 1)]


def test_a_survey_that_is_asked_to_end_ends_in_order(
    read: dict[str, Service], programs: StandIns, tmp_path: Path
) -> None:
    programs.add("lenspipe", NEVER)
    process = begin(read["head"], programs, tmp_path)
    wait_until(lambda: programs.calls("lenspipe"), "not running")
    assert end(process) == 143
    assert programs.calls("lenspipe")[1:] == ["SIGTERM"]


def test_a_worker_comes_back_until_it_is_asked_to_end(
    read: dict[str, Service], programs: StandIns, tmp_path: Path
) -> None:
    programs.add("ray", 1, 0, 0, 0, NEVER)
    process = begin(read["worker"], programs, tmp_path)
    wait_until(lambda: len(programs.calls("ray")) == 5, "not back", lambda: process.poll() is None)
    assert end(process) == 143
    calls = [call.split()[0] for call in programs.calls("ray")]
    assert calls == ["start", "stop", "start", "stop", "start", "SIGTERM"]


# On hosts


def start(host: Host, service: Service, folder: Path) -> subprocess.Popen[bytes]:
    """What a service's container executes, on a host."""
    told = {k: here(service, v) for k, v in service["environment"].items() if v is not None}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(folder / host.name)}
    own["RAY_gcs_rpc_server_reconnect_timeout_s"] = "15"  # as in tests/cluster
    (folder / host.name).mkdir(exist_ok=True)
    with (folder / f"{host.name}.log").open("ab") as log:
        return host.start(*executed(service), log=log, environment={**told, **own})


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))  # sockets bear no long path
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_survey_outlives_its_ray_and_is_served(folder: Path) -> None:
    runtime = {"provider": "cpu", "shard_rows": 4, "scorers": 1}
    make_survey(folder, 2000, runtime=runtime)
    (folder / "ray-token").write_text(secrets.token_hex(32), "utf-8")
    (folder / "tokens.yaml").write_text("ada: 0123456789abcdef\n", "utf-8")
    found = services(folder, LENSPIPE_CPUS="1", LENSPIPE_WORKERS="1")
    with lab(["head", "worker", "serve"], folder) as hosts:
        head, worker, serve = hosts
        driver = start(head, found["head"], folder)
        start(worker, found["worker"], folder)
        told = folder / "head.log"
        wait_until(
            lambda: "shard_committed" in told.read_text("utf-8"),
            "not under way",
            lambda: driver.poll() is None,
        )
        [control] = head.processes("gcs_server")
        control.kill()
        assert driver.wait(2 * PATIENCE_S) == 0, told.read_text("utf-8")[-3000:]
        assert "node.sh: status 1; the run is taken up again" in told.read_text("utf-8")
        assert verify(RunDirectory(str(folder / "run"))) == []

        start(serve, found["serve"], folder)
        check = found["serve"]["healthcheck"]["test"]
        assert check[:2] == ["CMD", "python3"]

        def is_healthy() -> bool:
            done = subprocess.run(serve.command(sys.executable, *check[2:]), check=False)
            return done.returncode == 0

        wait_until(is_healthy, "not healthy")

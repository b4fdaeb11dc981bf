"""The image `cpu`, built and run: a survey and the service, on a read-only root file system."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
import requests

from tests.images.container import ROOT, Container, built
from training.simulate.sky import SCALES, make_sky

pytestmark = [pytest.mark.image, pytest.mark.tool, pytest.mark.timeout(1500)]

LARGEST_BYTES = 1_500_000_000
RUN = "/var/lib/lenspipe/run"
PACKAGES = "opt/lenspipe/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with built("cpu", tmp_path_factory.mktemp("image")) as made:
        yield made


@pytest.fixture(scope="module")
def output(container: Container, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run directory, after `lenspipe run` on a small sky in the container."""
    folder = tmp_path_factory.mktemp("survey")
    sky, output = folder / "sky", folder / "output"
    assert make_sky(sky, 1, SCALES["small"], 1)
    survey = sky / "survey.yaml"  # most of so small a sky are edges
    survey.write_text(survey.read_text("utf-8").replace("failure_limit: 0.03", "failure_limit: 1"))
    output.mkdir()
    user, group = map(int, container.config["User"].split(":"))
    os.chown(output, user, group)
    words = [*container.config["Entrypoint"], "run", "/srv/survey.yaml", "--output", RUN]
    done = completed(container.read_only(words, {sky: "/srv", output: "/var/lib/lenspipe"}), 400)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return output


def completed(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)


def test_its_description_says_who_it_runs_as_and_what_it_is(container: Container) -> None:
    config = container.config
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["lenspipe"]
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "lenspipe.processes.health"]
    labels = {key.rpartition(".")[2]: text for key, text in config["Labels"].items()}
    assert labels["version"] == version("lenspipe")
    assert labels["licenses"] == "BSD-3-Clause"
    assert container.run("id", "--user").strip() == "1000"
    assert container.run("lenspipe", "models").strip()


def test_it_is_as_small_as_the_page_says(container: Container) -> None:
    assert 500_000_000 < container.size_bytes < LARGEST_BYTES


def test_what_builds_trains_and_tests_is_not_in_it(container: Container) -> None:
    packages = container.root / PACKAGES
    for absent in ("torch", "lenstronomy", "training", "tests", "pip", "setuptools"):
        assert not (packages / absent).exists(), absent
    assert not list(container.root.glob("usr/lib/python3/dist-packages/pip*"))
    for program in ("gcc", "cc", "g++", "ld", "make", "pip", "pip3"):
        for folder in ("usr/bin", "usr/local/bin", "opt/lenspipe/bin"):
            assert not (container.root / folder / program).is_symlink(), program
            assert not (container.root / folder / program).exists(), program
    for folder in ("build", "root/.cache", "var/cache/apt", "var/lib/apt/lists"):
        assert not list((container.root / folder).glob("*")), folder
    assert not list((packages / "pandas").rglob("tests"))


def test_every_package_in_it_is_pinned(container: Container) -> None:
    """By the documented command, whose lines the bill of materials is made of."""
    page = (ROOT / "docs" / "images.md").read_text("utf-8")
    [script] = re.findall(r"--entrypoint python lenspipe\S+ -c '([^']+)'", page)
    found = set(container.run("python", "-c", script).split())
    pins = (ROOT / "constraints.txt").read_text("utf-8").split()
    unpinned = found - {f"lenspipe=={version('lenspipe')}"} - set(pins)
    assert not unpinned
    assert len(found) > 100


def test_its_files_are_not_the_users_to_change(container: Container) -> None:
    """But for the run's folder, and folders that are everybody's on any Debian."""
    words = "find / -xdev -writable -not -type l -not -path '/dev/*' 2>/dev/null || true"
    found = set(container.run("sh", "-c", words).split())
    assert found == {"/run/lock", "/tmp", "/var/lib/lenspipe", "/var/tmp"}  # noqa: S108 - their names


def test_a_login_shell_finds_ray_as_kuberay_starts_it(container: Container) -> None:
    told = container.run("bash", "-lc", "ray --version && lenspipe --help && python --version")
    assert f"version {version('ray')}" in told
    assert "Python 3.11" in told


def test_servers_certificates_are_checked_against_one_file(container: Container) -> None:
    """That of the package certifi, which a host's own is mounted over."""
    bundle = container.root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    assert bundle.read_bytes() == (container.root / PACKAGES / "certifi/cacert.pem").read_bytes()
    script = (
        "import ssl, os, certifi; print(len(ssl.create_default_context().get_ca_certs()) > 100,"
        " {os.environ[x] for x in ('SSL_CERT_FILE', 'AWS_CA_BUNDLE', 'REQUESTS_CA_BUNDLE')})"
    )
    found = container.run("python", "-c", script).strip()
    assert found == "True {'/etc/ssl/certs/ca-certificates.crt'}"


def test_no_library_in_it_reports_to_its_makers(container: Container) -> None:
    """ONNX Runtime keeps what it would send below HOME; Ray says itself whether it would."""
    script = (
        "import os, tempfile; home = os.environ['HOME'] = tempfile.mkdtemp();"
        " import onnxruntime; from ray._common.usage.usage_lib import usage_stats_enabled;"
        " print(os.listdir(home), usage_stats_enabled())"
    )
    assert container.run("python", "-c", script).strip() == "[] False"


def test_a_survey_runs_in_it_as_its_user(container: Container, output: Path) -> None:
    funnel = json.loads((output / "run" / "funnel.json").read_text("utf-8"))
    assert funnel["accounted"]
    assert funnel["sources_in"] == 2000
    assert funnel["scored"] > 0
    assert (output / "run" / "report" / "index.html").stat().st_size > 10_000
    assert {path.stat().st_uid for path in output.rglob("*")} == {1000}
    words = ["lenspipe", "verify", RUN]
    done = completed(container.read_only(words, {output: "/var/lib/lenspipe"}), 120)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def serving(container: Container, output: Path, port: int) -> Iterator[psutil.Process]:
    """`lenspipe serve` as the first process of a container, which the network of this host has."""
    words = ["lenspipe", "serve", RUN, f"--port={port}"]
    command = container.read_only(words, {output: "/var/lib/lenspipe"})
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as outer:
        try:
            while not (inside := psutil.Process(outer.pid).children()):
                time.sleep(0.1)
                assert outer.poll() is None, outer.stdout and outer.stdout.read()
            yield inside[0]
        finally:
            outer.kill()  # --kill-child: and all that is in the container


def healthy(container: Container, first: int) -> bool:
    """What the HEALTHCHECK says inside the container."""
    test = container.config["Healthcheck"]["Test"]
    return completed(container.beside(first, test[1:]), 60).returncode == 0


def test_its_service_answers_and_the_health_check_tells_when_not(
    container: Container, output: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(container, output, port) as first:
        deadline = time.monotonic() + 120
        while not healthy(container, first.pid):
            assert time.monotonic() < deadline
            time.sleep(1)
        told = requests.get(f"http://127.0.0.1:{port}/api/run", timeout=20)
        assert told.status_code == 200
        assert told.json()["name"] == "demo"
        first.send_signal(signal.SIGSTOP)
        assert not healthy(container, first.pid)
        first.send_signal(signal.SIGCONT)
        assert healthy(container, first.pid)

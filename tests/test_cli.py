"""The commands as a user calls them: what they print, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lenspipe.cli import main
from tests.toy_survey import make_survey


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def lenspipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """Runs the command's entry point in this process: a new one costs seconds of imports."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["lenspipe", *map(str, arguments)])
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_survey(tmp_path_factory.mktemp("cli"))


Command = Callable[..., Done]


def test_check_tells_what_was_found(lenspipe: Command, survey: Path) -> None:
    done = lenspipe("check", survey)
    assert done.returncode == 0, done.stderr
    assert "600 rows" in done.stdout
    assert "toy (toy-a, toy-b)" in done.stdout


@pytest.mark.parametrize(
    ("block", "value", "field"),
    [
        ("cuts", {"bright": "i_magg < 21"}, "cuts.bright"),
        ("cuts", {"odd": "i_mag + 1"}, "cuts.odd"),
        ("cuts", {"text": "i_mag < 'red'"}, "cuts.text"),
        ("ensemble", "no-such-model", "ensemble"),
        ("candidates", {"fpr": 0.5}, "candidates.fpr"),
        ("sources", {"path": "nowhere/"}, "sources.path"),
        ("sources", {"path": "catalogue/", "columns": {"id": "oid"}}, "sources.columns.id"),
    ],
)
def test_a_refused_survey_is_one_line_and_status_2(
    lenspipe: Command, survey: Path, block: str, value: object, field: str
) -> None:
    path = survey.with_name(f"changed-{block}.yaml")
    path.write_text(yaml.safe_dump({**yaml.safe_load(survey.read_text()), block: value}))
    done = lenspipe("check", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {field}: expected ")
    assert ", found " in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_and_verify_of_a_folder_that_is_no_run(lenspipe: Command, tmp_path: Path) -> None:
    done = lenspipe("status", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    done = lenspipe("verify", tmp_path)
    assert done.returncode == 1
    assert "not there" in done.stderr


def test_the_installed_command_ends_as_the_entry_point_does(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lenspipe", "check", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: survey file: expected a YAML file, found nothing at")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run",), "Missing argument"),
        (("run", "--nope", "x"), "No such option"),
        (("nope",), "No such command"),
        (("bench", "--rows", "many"), "Invalid value for '--rows'"),
        (
            ("score", "toy", "x", "--out", "y", "--provider", "tpu"),
            "provider: expected one of auto",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    lenspipe: Command, arguments: tuple[str, ...], told: str
) -> None:
    done = lenspipe(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1

"""The commands as a user calls them: what they print, and how they end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lenspipe import preflight
from lenspipe.catalogue.candidates import Rule, choose, write_candidates
from lenspipe.catalogue.hats import write_catalogue
from lenspipe.cli import main
from lenspipe.run_directory import RunDirectory
from tests.catalogue.small_run import cap, commit_scores, score_table
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
    assert "at most 600 cutouts (461 kB of pixels into the networks)" in done.stdout
    assert "how many rows pass the cuts and the network" in done.stdout
    assert "0.25 arcsec/pixel" in done.stdout
    assert " free)" in done.stdout


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


@pytest.mark.parametrize("command", ["status", "verify", "report"])
@pytest.mark.parametrize("what", ["folder", "file", "nothing", "foo://x", "/proc/nope/run"])
def test_what_is_no_run_is_one_line_and_nothing_is_made(
    lenspipe: Command, tmp_path: Path, command: str, what: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    done = lenspipe(command, tmp_path / what if what.isalpha() else what)
    assert done.returncode == 2
    assert done.stderr.startswith("error: run: expected a run directory (with run.json), found ")
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["status", "verify", "report"])
def test_a_fifo_in_the_place_of_a_runs_file_keeps_nobody_waiting(
    lenspipe: Command, tmp_path: Path, command: str
) -> None:
    os.mkfifo(tmp_path / "run.json")
    done = lenspipe(command, tmp_path)
    assert done.returncode == 2
    assert "run.json: expected a regular file, found a FIFO" in done.stderr
    assert done.stderr.count("\n") == 1


def _changed(survey: Path, **blocks: object) -> Path:
    path = survey.with_name("changed.yaml")
    path.write_text(yaml.safe_dump({**yaml.safe_load(survey.read_text()), **blocks}))
    return path


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("survey.yaml", "expected a folder or a place for one, found the file"),
        ("survey.yaml/run", "expected a folder or a place for one, found the file"),
        ("foo://x", "expected a folder, or a URL of s3://, gs:// or az://, found foo://x"),
        ("memory://run", "expected a folder, or a URL of s3://"),
        ("/proc/nope/run", "expected a folder that can be written, found /proc/nope/run"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_an_output_that_cannot_be_written_is_refused(
    lenspipe: Command, survey: Path, command: str, output: str, told: str
) -> None:
    before = sorted(survey.parent.rglob("*"))
    path = _changed(survey, output=output)
    done = lenspipe(command, path)
    assert done.returncode == 2
    *events, last = done.stderr.splitlines()
    assert last.startswith(f"error: output: {told}")
    assert all("event" in json.loads(event) for event in events)
    assert {*survey.parent.rglob("*")} - {*before, path} == set()


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ({"output": "catalogue/"}, "output: expected a folder outside of the catalogue's"),
        ({"output": "catalogue/deep/run"}, "output: expected a folder outside of the catalogue's"),
        ({"output": "linked/run"}, "output: expected a folder outside of the catalogue's"),
        # Else the published catalogue would take the place of the survey's own.
        ({"output": "."}, "sources.path: expected files that no run writes over (output is "),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_run_may_not_write_among_its_inputs(
    lenspipe: Command, survey: Path, command: str, blocks: dict[str, object], told: str
) -> None:
    linked = survey.parent / "linked"
    if not linked.is_symlink():
        linked.symlink_to("catalogue")
    before = (survey.parent / "catalogue" / "part.parquet").read_bytes()
    done = lenspipe(command, _changed(survey, **blocks))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {told}")
    assert (survey.parent / "catalogue" / "part.parquet").read_bytes() == before


def test_pixels_may_not_lie_where_a_run_writes(lenspipe: Command, survey: Path) -> None:
    blocks = yaml.safe_load(survey.read_text())["cutouts"]
    path = _changed(survey, cutouts={**blocks, "path": "run/candidates.zarr/x.h5"})
    done = lenspipe("check", path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cutouts.path: expected files that no run writes over")


@pytest.mark.parametrize(
    ("runtime", "field"),
    [
        ({"scorers": 9000, "provider": "cpu"}, "runtime.scorers"),
        ({"readers": 9000, "provider": "cpu"}, "runtime.scorers"),
        ({"address": "http://head:8265"}, "runtime.address"),
    ],
)
def test_what_this_machine_cannot_give_is_refused_by_check(
    lenspipe: Command, survey: Path, runtime: dict[str, object], field: str
) -> None:
    done = lenspipe("check", _changed(survey, runtime=runtime))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {field}: expected ")


def test_a_gpu_that_is_not_there_is_refused_by_check(
    lenspipe: Command, survey: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "cuda_devices", lambda: 0)
    done = lenspipe("check", _changed(survey, runtime={"provider": "cuda"}))
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: runtime.provider: expected cpu or openvino, as the cluster has no"
    )
    monkeypatch.setattr(preflight, "cuda_devices", lambda: 1)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    done = lenspipe("check", _changed(survey, runtime={"provider": "auto"}))
    assert done.returncode == 2
    assert done.stderr.startswith("error: runtime.provider: expected one of this onnxruntime (CPU")


def test_a_cluster_that_does_not_answer_is_refused_at_once(lenspipe: Command, survey: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # bound, and nobody listens
        for given in (address, f"ray://{address}"):
            done = lenspipe("run", survey, "--address", given)
            assert done.returncode == 2
            told = f"error: --address: expected a Ray head that answers, found {given}: "
            assert done.stderr.startswith(told)


def test_a_machine_alone_grows_to_nothing(lenspipe: Command, survey: Path) -> None:
    done = lenspipe("run", survey, "--max-cpus", "64")
    assert done.returncode == 2
    assert (
        done.stderr == "error: --max-cpus, --max-gpus: expected a cluster (--address), found none\n"
    )


def test_a_metrics_port_that_is_taken_is_refused(lenspipe: Command, survey: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        runtime = {"provider": "cpu", "metrics_port": port}
        done = lenspipe("run", _changed(survey, runtime=runtime))
    assert done.returncode == 2
    told = f"error: runtime.metrics_port: expected a free port of 127.0.0.1, found {port}: "
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("fault", [OSError("of no number"), KeyError("x\ny")])
def test_a_fault_of_ours_is_one_line_and_its_traceback_is_kept(
    lenspipe: Command,
    survey: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("lenspipe.check.check_survey", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = lenspipe("check", survey)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fault: {type(fault).__name__}: ")
    assert done.stderr.count("\n") == 1
    [log] = tmp_path.glob("lenspipe-*.log")
    assert str(log) in done.stderr
    assert "Traceback" in log.read_text()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    done = lenspipe("check", survey)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "could not be written" in done.stderr


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            OSError(28, "No space left on device", "/x/run"),
            r"bytes free, .* more files on the disk",
        ),
        (OSError(122, "Disk quota exceeded", "/x/run"), r"quota.* bytes free"),
        (OSError(30, "Read-only file system", "/x/run"), r"Read-only file system: '/x/run'"),
        (PermissionError(13, "Permission denied", "/x/run"), r"Permission denied: '/x/run'"),
        (OSError(24, "Too many open files", "/x/run"), r"may open \d+ files; `ulimit -n`"),
    ],
)
def test_what_the_system_refuses_is_one_line_that_says_what_would_help(
    lenspipe: Command, survey: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError, told: str
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("lenspipe.check.check_survey", fail)
    done = lenspipe("check", survey)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.search(rf"^StoppedError: .*{told}.*; with that mended", done.stderr)


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
        (("score", "toy", "x", "--out", "y.parquet", "--threads", "-1"), "equal to 1"),
        (("score", "toy", "x", "--out", "y.parquet", "--threads", "0"), "equal to 1"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_status_2(
    lenspipe: Command, arguments: tuple[str, ...], told: str
) -> None:
    done = lenspipe(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


_TOLD_TO_STOP = """
import os, signal, sys
from lenspipe import cli
def stop(*_, **__):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
import lenspipe.score.score_cutouts, lenspipe.check
lenspipe.score.score_cutouts.score_cutouts = lenspipe.check.check_machine = stop
sys.argv = ["lenspipe", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.parametrize(
    ("arguments", "afterwards"),
    [
        (("score", "toy", "x", "--out", "y.parquet"), "the same command begins anew"),
        (("check", "SURVEY"), "the same command begins anew"),
        (("run", "SURVEY"), "the same command resumes"),
        (("run", "SURVEY", "--fresh"), "the same command without --fresh resumes"),
    ],
)
def test_what_is_told_to_stop_promises_what_its_command_can(
    survey: Path, arguments: tuple[str, ...], afterwards: str
) -> None:
    given = [str(survey) if part == "SURVEY" else part for part in arguments]
    done = subprocess.run(
        [sys.executable, "-c", _TOLD_TO_STOP, *given],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", f"terminated: {afterwards}\n")


def test_names_that_are_no_utf8_are_one_line(
    lenspipe: Command, survey: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "d\udcff"
    shutil.copytree(survey.parent, strange)
    shutil.copytree(survey.parent, tmp_path / "good")
    catalogue = next((tmp_path / "good" / "catalogue").rglob("*.parquet"))
    shutil.copy(catalogue, catalogue.with_name("q\udcff.parquet"))
    for arguments in (
        ("check", strange / survey.name),
        ("run", strange / survey.name),
        ("check", tmp_path / "good" / survey.name),
        ("run", survey, "--output", strange / "run"),
        ("status", strange / "run"),
        ("verify", strange / "run"),
        ("report", strange / "run"),
    ):
        done = lenspipe(*arguments)
        *notes, told = done.stderr.splitlines()
        assert done.returncode == 2
        assert all(json.loads(note)["event"] == "note" for note in notes)
        assert re.fullmatch(r"error: .*: expected a name in UTF-8, found .*\\udcff.*", told)
    assert not (strange / "run").exists()


@pytest.mark.parametrize("arguments", [("run", "SURVEY", "--output"), ("status",), ("verify",)])
def test_what_is_left_of_a_url_is_no_folder(
    lenspipe: Command,
    survey: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(survey) if part == "SURVEY" else part for part in arguments]
    done = lenspipe(*given, "s3:/bucket/run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "expected SCHEME://… for a URL, ./… for a folder of such a name" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of random scores around (150, -2), published."""
    run = RunDirectory(str(tmp_path_factory.mktemp("published")))
    parts = commit_scores(run, [score_table(*cap(500, 150.0, -2.0, 0.5))])
    write_catalogue(run, parts, "toy", 200)
    chosen = choose(run, parts, Rule(top=9))
    assert chosen is not None
    write_candidates(run, chosen, [], [], {})
    run.write_json("run.json", {"state": "done", "layout": 3})
    return Path(run.url)


def test_cone_takes_negative_declinations_and_prints_the_nearest_first(
    lenspipe: Command, published: Path
) -> None:
    done = lenspipe("cone", published, "150.0", "-2.0", "10arcmin", "--rows", "2")
    assert (done.returncode, done.stderr) == (0, "")
    heading, first, second, count = done.stdout.splitlines()
    assert heading.split()[0] == "object_id"
    assert float(first.split()[-1]) < float(second.split()[-1]) <= 600.0
    assert re.fullmatch(r"\d+ rows, \d+ not shown", count)
    named = lenspipe("cone", published, "J100000-020000", "10'", "--rows", "2")
    assert named.stdout == done.stdout


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (["150", "2"], "RA: expected a number"),
        (["150", "-95", "2"], "DEC: expected degrees within -90..90"),
        (["150", "2", "-3"], "RADIUS: expected an angle above 0"),
        (
            ["1", "2", "3", "4"],
            'command line: expected RA DEC RADIUS, "RA DEC" RADIUS, or NAME RADIUS',
        ),
        (["150", "2", "3", "--out", "a.doc"], "--out: expected a name that ends in .csv"),
    ],
)
def test_cone_says_what_is_wrong(
    lenspipe: Command, published: Path, place: list[str], line: str
) -> None:
    done = lenspipe("cone", published, *place)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {line}")
    assert done.stderr.count("\n") == 1


def test_query_prints_or_writes(lenspipe: Command, published: Path, tmp_path: Path) -> None:
    text = "SELECT count(*) AS n, 'x' AS t FROM scores"
    done = lenspipe("query", published, text)
    assert done.stdout == "  n  t\n500  x\n1 rows\n"
    written = lenspipe("query", published, text, "--out", tmp_path / "a.csv")
    assert written.stdout == f"1 rows in {tmp_path / 'a.csv'}\n"
    assert (tmp_path / "a.csv").read_text() == '"n","t"\n500,"x"\n'
    refused = lenspipe("query", published, "DROP VIEW scores")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: query: expected one SELECT, found DROP\n",
    )


def test_crossmatch_prints_or_writes(lenspipe: Command, published: Path, tmp_path: Path) -> None:
    nearest = lenspipe("query", published, "SELECT ra, dec FROM scores WHERE object_id = 7")
    ra, dec = nearest.stdout.splitlines()[1].split()
    (tmp_path / "known.csv").write_text(f"lens,RA,DEC\nmine,{ra},{dec}\nfar,10,10\n")
    done = lenspipe("crossmatch", published, tmp_path / "known.csv", "--radius", "0.5arcsec")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[0] == "7"
    assert done.stdout.endswith("1 rows\n")
    written = lenspipe(
        "crossmatch", published, tmp_path / "known.csv", "--all", "--out", tmp_path / "a.parquet"
    )
    assert written.stdout == f"1 rows in {tmp_path / 'a.parquet'}\n"
    refused = lenspipe("crossmatch", published, tmp_path / "none.csv")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: CATALOGUE: expected")
    assert refused.stderr.count("\n") == 1


def test_export_writes_candidates(lenspipe: Command, published: Path, tmp_path: Path) -> None:
    done = lenspipe("export", published, tmp_path / "a.csv", "--acronym", "PS1")
    assert done.stdout == f"9 rows in {tmp_path / 'a.csv'}\n"
    heading, first = (tmp_path / "a.csv").read_text().splitlines()[:2]
    assert heading.startswith('"name","ra","dec","score"')
    assert first.startswith('"PS1 J')
    none = lenspipe("export", published, tmp_path / "none.csv", "--table", "failures")
    assert (none.returncode, none.stdout) == (0, f"0 rows in {tmp_path / 'none.csv'}\n")
    refused = lenspipe("export", published, tmp_path / "none" / "a.csv", "--table", "known_lenses")
    assert refused.returncode == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "command", [["cone", "1", "2", "3"], ["query", "SELECT 1"], ["export", "a.csv"]]
)
def test_a_folder_that_is_no_run_is_told(
    lenspipe: Command, tmp_path: Path, command: list[str]
) -> None:
    done = lenspipe(command[0], tmp_path, *command[1:])
    assert done.returncode == 2
    assert done.stderr.startswith("error: run: expected a run directory")

"""Every row of the table of resume rules, against a run directory and real files (no Ray)."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lenspipe import __version__
from lenspipe.check import CheckedSurvey, check_survey
from lenspipe.config import load_survey
from lenspipe.errors import ResumeRefusedError
from lenspipe.models.card import Feature
from lenspipe.run.identity import LAYOUT, check_same_run, fingerprint
from lenspipe.run.opening import write_state
from lenspipe.run.resume_rules import RULES, rule_for
from lenspipe.run_directory import RunDirectory
from lenspipe.select.files import find_files
from tests.toy_models import make_member, make_photometry
from tests.toy_survey import make_survey

pytestmark = pytest.mark.chaos
CUTS = {"bright_enough": "i_mag < 21.0", "not_blue": "g_mag - i_mag > -5"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a survey whose run was begun."""
    survey = make_survey(tmp_path_factory.mktemp("begun"), rows=20, cuts=CUTS)
    checked = check_survey(load_survey(survey))
    write_state(RunDirectory(checked.output), checked, "running")
    return survey.parent


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, and of what run.json says of the catalogue: paths and times."""
    shutil.copytree(begun, tmp_path / "survey", copy_function=shutil.copy2)
    files = find_files("catalogue/", str(tmp_path / "survey"))
    _known("inputs.fingerprint", fingerprint(files))(tmp_path / "survey")
    return tmp_path / "survey"


def _checked(folder: Path) -> CheckedSurvey:
    return check_survey(load_survey(folder / "survey.yaml"))


def _resume(folder: Path, **options: Any) -> list[str]:
    checked = _checked(folder)
    told = check_same_run(RunDirectory(checked.output), checked.identity(), **options)
    assert told is not None
    return told


def _run_json(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run" / "run.json").read_text())
    return content


def _write_run_json(folder: Path, content: dict[str, Any]) -> None:
    (folder / "run" / "run.json").write_text(json.dumps(content))


def _key(key: str, value: Any) -> Callable[[Path], None]:
    """A change of the survey file."""

    def change(folder: Path) -> None:
        path = folder / "survey.yaml"
        content = yaml.safe_load(path.read_text())
        *parents, last = key.split(".")
        block = content
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    return change


def _known(key: str, value: Any) -> Callable[[Path], None]:
    """The run on disk was made by another program."""

    def change(folder: Path) -> None:
        content = _run_json(folder)
        *parents, last = key.split(".")
        block = content
        for parent in parents:
            block = block[parent]
        block[last] = value
        _write_run_json(folder, content)

    return change


def _ensemble_by_another_name(folder: Path) -> None:
    shutil.copy2(folder / "toy.yaml", folder / "same.yaml")
    _key("ensemble", "same.yaml")(folder)


def _ensemble_file(folder: Path) -> None:
    content = yaml.safe_load((folder / "toy.yaml").read_text())
    content["calibration"]["slope"] = 2.0
    (folder / "toy.yaml").write_text(yaml.safe_dump(content))


def _photometry(folder: Path, **changes: Any) -> None:
    feature = Feature(kind="colour", a="g_mag", b="i_mag")
    settings: dict[str, Any] = {"features": [feature], "weights": [1.0], "bias": -1.0, **changes}
    make_photometry(folder / "photometry.onnx", **settings)


def _one_more_row(folder: Path) -> None:
    path = folder / "catalogue" / "part.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)


def _one_more_file(folder: Path) -> None:
    shutil.copy2(folder / "catalogue" / "part.parquet", folder / "catalogue" / "more.parquet")


def _moved_catalogue(folder: Path) -> None:
    (folder / "catalogue").rename(folder / "moved")
    known = _run_json(folder)
    known["survey"]["sources"]["path"] = "moved/"  # only the files' own paths are left to differ
    _write_run_json(folder, known)
    _key("sources.path", "moved/")(folder)


def _moved_run(folder: Path) -> None:
    (folder / "run").rename(folder / "elsewhere")
    _key("output", "elsewhere")(folder)


def _more_pixels(folder: Path) -> None:
    with h5py.File(folder / "cutouts.h5", "a") as file:
        more = np.concatenate([file["images"][...]] * 2)
        del file["images"]
        file.create_dataset("images", data=more)


def _write_in_place(path: Path) -> None:
    """One byte is another one, the size is the same."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# Key of the rule -> changes that it is about.
CHANGES: dict[str, dict[str, Callable[[Path], None]]] = {
    "layout": {
        "older": _known("layout", LAYOUT - 1),
        "newer": _known("layout", LAYOUT + 1),
        "none": _known("layout", None),
    },
    "versions.lenspipe": {
        "minor": _known("versions.lenspipe", "0.0.9"),
        "major": _known("versions.lenspipe", f"1.{__version__.partition('.')[2]}"),
        "unknown": _known("versions.lenspipe", None),
    },
    "versions": {
        "python": _known("versions.python", "3.11.0"),
        "onnxruntime": _known("versions.onnxruntime", "1.0.0"),
        "one that was not there": _known("versions.duckdb", None),
    },
    "survey.name": {"name": _key("name", "other")},
    "survey.sources": {
        "missing_values": _key("sources.missing_values", [-999.0]),
        "columns": _key("sources.columns", {"ra": "dec", "dec": "ra"}),
        "rename": _key("sources.rename", {"z_mag": "g_mag"}),
    },
    "survey.sources.keep_columns": {"longer": _key("sources.keep_columns", ["g_mag", "i_mag"])},
    "survey.cuts": {
        "text": _key("cuts.bright_enough", "i_mag < 20.0"),
        "one more": _key("cuts.more", "g_mag > 0"),
        "none": _key("cuts", {}),
    },
    "survey.cut_order": {"order": _key("cuts", dict(reversed(CUTS.items())))},
    "survey.photometry": {
        "threshold": _key("photometry.keep.score_above", 0.5),
        "rule": _key("photometry.keep", {"fraction": 0.5}),
    },
    "survey.cutouts": {
        "max_bad_fraction": _key("cutouts.max_bad_fraction", 0.5),
        "zero_point": _key("cutouts.zero_point", {"constant": 25.0}),
    },
    "survey.ensemble": {"name": _ensemble_by_another_name},
    "survey.prevalence": {"value": _key("prevalence", 1e-4)},
    "survey.candidates": {
        "top": _key("candidates.top", 3),
        "rule": _key("candidates", {"fpr": 0.01}),
        "max_stamps": _key("candidates.max_stamps", 7),
    },
    "survey.publish": {
        "mosaic": _key("publish", {"mosaic": 3}),
        "partition_rows": _key("publish", {"partition_rows": 100}),
    },
    "survey.known_lenses": {"list": _known("survey.known_lenses", {"path": "lenses.csv"})},
    "known_lenses": {"rows": _known("known_lenses", {"rows": 3, "sha256": "0" * 64})},
    "runtime": {
        "provider": _key("runtime.provider", "auto"),
        "workers": _key("runtime.scorers", 2),
        "readers": _key("runtime.readers", 1),
        "shard_rows": _key("runtime.shard_rows", 7),
        "batch_size": _key("runtime.batch_size", 3),
    },
    "output": {"moved": _moved_run},
    "models.ensemble": {
        "weights": lambda folder: _member(folder, seed=9),
        "card": lambda folder: _member(folder, seed=0, licence="CC0-1.0"),
        "calibration": _ensemble_file,
    },
    "models.photometry": {
        "weights": lambda folder: _photometry(folder, weights=[2.0]),
        "card": lambda folder: _photometry(folder, licence="CC0-1.0"),
    },
    "inputs": {
        "rows": _one_more_row,
        "files": _one_more_file,
        "time": lambda folder: os.utime(folder / "catalogue" / "part.parquet", (1e9, 1e9)),
        "path": _moved_catalogue,
    },
    "pixels": {
        "bytes": _more_pixels,
        "in place": lambda folder: _write_in_place(folder / "cutouts.h5"),
        "touched": lambda folder: os.utime(folder / "cutouts.h5"),
    },
}


def _member(folder: Path, **changes: Any) -> None:
    make_member(folder / "toy-a.onnx", **changes)


CASES = [
    pytest.param(rule, change, id=f"{rule.key}: {name}")
    for rule in RULES
    for name, change in CHANGES[rule.key].items()
]


def test_nothing_changed_is_a_resume_with_nothing_to_tell(folder: Path) -> None:
    assert _resume(folder) == []


@pytest.mark.parametrize(("rule", "change"), CASES)
def test_each_rule_of_the_table_is_what_a_resume_does(
    folder: Path, rule: Any, change: Callable[[Path], None]
) -> None:
    change(folder)
    if rule.verdict == "accepted":
        told = _resume(folder)
        assert all(line.startswith(f"{rule.key}") for line in told)
        return
    with pytest.raises(ResumeRefusedError) as caught:
        _resume(folder)
    line = str(caught.value)
    found = re.search(r": ([a-z_.]+[^:]*): expected (.+) as in the run on disk, or (--\S+),", line)
    assert found is not None, line
    # Other cuts have another order too, which comes first in the order of keys.
    assert rule_for(found[1]) in (rule, rule_for("survey.cut_order"))
    assert found[3] == rule.remedy
    assert re.search(r"found .+$", line)
    assert caught.value.exit_status == 2
    assert "\n" not in line


def test_every_rule_has_a_change_that_tries_it() -> None:
    assert set(CHANGES) == {rule.key for rule in RULES}


def test_accepted_changes_are_told(folder: Path) -> None:
    _known("versions.onnxruntime", "1.0.0")(folder)
    [line] = _resume(folder)
    assert line.startswith("versions.onnxruntime: '1.0.0' before, '")


def test_pixels_that_came_or_went_are_taken_by_a_retry_alone(folder: Path) -> None:
    _more_pixels(folder)
    told = _resume(folder, other_pixels=True)
    assert told
    assert all(line.startswith("pixels.") for line in told)
    _known("survey.name", "other")(folder)
    with pytest.raises(ResumeRefusedError, match=r"survey\.name.*or --fresh"):
        _resume(folder, other_pixels=True)


def test_a_key_that_no_rule_knows_is_refused(folder: Path) -> None:
    _known("survey.of_the_future", 1)(folder)
    with pytest.raises(
        ResumeRefusedError, match=r"survey\.of_the_future: expected 1 as in .* None"
    ):
        _resume(folder)


def test_another_patch_version_is_accepted_and_told(folder: Path) -> None:
    _known("versions.lenspipe", f"{'.'.join(__version__.split('.')[:2])}.99")(folder)
    [line] = _resume(folder)
    assert line.startswith("versions.lenspipe: ")


def test_a_refusal_of_a_long_value_is_still_a_line(folder: Path) -> None:
    _key("sources.missing_values", [float(-k) for k in range(500)])(folder)
    with pytest.raises(ResumeRefusedError) as caught:
        _resume(folder)
    assert len(str(caught.value)) < 600

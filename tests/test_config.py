from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lenspipe.config import Survey, load_survey, parse_survey, resolve
from lenspipe.errors import InputError

SURVEY: dict[str, Any] = {
    "name": "demo",
    "sources": {"path": "catalogue/"},
    "cuts": {"bright": "i_mag < 21.5"},
    "photometry": {"model": "ps1-photometry", "keep": {"fraction": 0.5}},
    "cutouts": {"reader": "hdf5", "path": "a.h5", "bands": ["g"], "row": "row"},
    "ensemble": "ps1-gri",
    "candidates": {"fpr": 0.001},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SURVEY))
    *parents, last = path.split(".")
    block = content
    for parent in parents:
        block = block.setdefault(parent, {})
    block[last] = value
    return content


def test_the_example_of_the_design_is_read() -> None:
    survey = parse_survey(SURVEY, base="/data")
    assert survey.runtime.shard_rows == 8192
    assert survey.cutouts.reader == "hdf5"
    assert survey.sources.columns.id == "object_id"


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("cutz", {}, "cutz: expected a known key, found an unknown one"),
        ("sources.colums", {}, "sources.colums: expected a known key, found an unknown one"),
        ("cutouts.bandz", [], "cutouts.bandz: expected a known key, found an unknown one"),
        ("runtime.shard_rows", 0, "runtime.shard_rows: expected Input should be greater than 0"),
        ("runtime.provider", "tpu", "runtime.provider: expected Input should be 'auto', 'cpu'"),
        ("photometry.keep", {}, "photometry.keep: expected exactly one of score_above, fraction"),
        ("candidates", {"fpr": 0.1, "top": 3}, "candidates: expected exactly one of fpr"),
        ("cutouts", {"reader": "jpeg"}, "cutouts.reader: expected one of coadd, hdf5, stamps"),
        ("cutouts", "hdf5", "cutouts.reader: expected one of coadd"),
        ("name", "../evil", "name: expected String should match pattern"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(path: str, value: Any, line: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_survey(changed(path, value), base=".")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


def test_a_missing_block_is_named() -> None:
    content = {key: value for key, value in SURVEY.items() if key != "sources"}
    with pytest.raises(InputError, match="sources: expected a value, found none"):
        parse_survey(content, base=".")


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "42", ""])
def test_a_file_that_is_no_survey_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        load_survey(path)
    with pytest.raises(InputError, match="nothing at"):
        load_survey(tmp_path / "other.yaml")


def test_paths_start_from_the_survey_file(tmp_path: Path) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text(yaml.safe_dump(SURVEY))
    assert load_survey(path).base == str(tmp_path)
    assert resolve("../run/", str(tmp_path / "sky")) == str(tmp_path / "run")
    assert resolve("/a/b", "/c") == "/a/b"
    assert resolve("x", "s3://bucket/survey/") == "s3://bucket/survey/x"
    assert resolve("gs://b/x", "/c") == "gs://b/x"


def test_identity_holds_what_a_result_depends_on() -> None:
    survey = parse_survey(SURVEY, base=".")
    other = parse_survey(changed("runtime.shard_rows", 7), base=".")
    assert survey.identity() == other.identity()
    assert survey.identity()["cutouts"]["path"] == "a.h5"
    assert parse_survey(changed("cutouts.path", "b.h5"), base=".").identity() != survey.identity()
    assert isinstance(survey, Survey)

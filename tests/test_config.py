from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from lenspipe.config import Survey, load_survey, parse_survey, resolve
from lenspipe.errors import InputError
from lenspipe.yaml_file import parse_yaml

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
        ("runtime.shard_rows", 0, "runtime.shard_rows: expected a number above 0, found 0"),
        (
            "runtime.provider",
            "tpu",
            "runtime.provider: expected one of auto, cpu, openvino",
        ),
        ("photometry.keep", {}, "photometry.keep: expected exactly one of score_above, fraction"),
        ("candidates", {"fpr": 0.1, "top": 3}, "candidates: expected exactly one of fpr"),
        ("cutouts", {"reader": "jpeg"}, "cutouts.reader: expected one of coadd, hdf5, stamps"),
        ("cutouts", "hdf5", "cutouts.reader: expected one of coadd"),
        ("candidates", {"score_above": math.nan}, "candidates.score_above: expected a finite num"),
        ("candidates", {"score_above": -math.inf}, "candidates.score_above: expected a finite n"),
        ("candidates", {"top": True}, "candidates.top: expected a whole number, found True"),
        ("candidates", {"top": "5"}, "candidates.top: expected a whole number, found '5'"),
        ("candidates", {"top": 2.5}, "candidates.top: expected a whole number, found 2.5"),
        ("candidates", {"fpr": True}, "candidates.fpr: expected a number, found True"),
        ("candidates", 3, "candidates: expected a mapping of keys to values, found 3"),
        ("photometry.keep", {"score_above": math.nan}, "photometry.keep.score_above: expected a f"),
        ("photometry.keep", {"fraction": 0}, "photometry.keep.fraction: expected a number above 0"),
        (
            "sources.missing_values",
            [math.nan],
            "sources.missing_values.0: expected a finite",
        ),
        ("sources.missing_values", -999, "sources.missing_values: expected a list, found -999"),
        ("sources.path", 5, "sources.path: expected text or a list, found 5"),
        ("sources.path", "", "sources.path: expected text that is not empty"),
        ("sources.path", [], "sources.path: expected at least 1 entries"),
        (
            "cutouts.zero_point",
            {"constant": math.inf},
            "cutouts.zero_point.constant: expected a f",
        ),
        (
            "cutouts.zero_point",
            {"constant": {"g": math.nan}},
            "cutouts.zero_point.constant.g: exp",
        ),
        ("cutouts.mask", {"values": [math.nan]}, "cutouts.mask.values.0: expected a finite number"),
        ("cutouts.mask", {"bits": [-1]}, "cutouts.mask.bits.0: expected a number of at least 0"),
        ("cutouts.crop", 1, "cutouts.crop: expected true or false, found 1"),
        ("cutouts.max_bad_fraction", 1.5, "cutouts.max_bad_fraction: expected a number of at most"),
        ("cuts", {"": "i_mag < 21"}, "cuts: expected a name that is not empty, found ''"),
        ("cuts", {7: "i_mag < 21"}, "cuts: expected names as text, found 7"),
        ("cuts", {"list": 7}, "cuts.list: expected text, found 7"),
        ("output", "", "output: expected text that is not empty, found ''"),
        ("ensemble", " ", "ensemble: expected text that is not empty"),
        ("base", "/", "base: expected a known key, found an unknown one"),
        ("name", "../evil", "name: expected text that matches ^[A-Za-z0-9]"),
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


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    content = changed("candidates", yaml.safe_load("{fpr: 1e-3}"))
    assert content["candidates"]["fpr"] == "1e-3"
    assert parse_survey(content, base=".").candidates.fpr == 1e-3


def test_of_a_bands_two_forms_the_one_that_was_meant_is_judged() -> None:
    cutouts = {"reader": "coadd", "tiles": "*.fits"}
    with pytest.raises(InputError) as caught:
        parse_survey(changed("cutouts", {**cutouts, "bands": {"G": {"fil": "x"}}}), base=".")
    assert str(caught.value) == "cutouts.bands.G.fil: expected a known key, found an unknown one"
    with pytest.raises(InputError) as caught:
        parse_survey(changed("cutouts", {**cutouts, "bands": {"G": 3}}), base=".")
    line = "cutouts.bands.G: expected text or a mapping of keys to values, found 3"
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "cuts:\n  red: a > 1\n  red: a > 2\n",
            "red: expected this key once, found it in lines 2 and 3",
        ),
        ("name: a\nname: b\n", "name: expected this key once"),
        ("name: 2024-99-99\n", "{file}: expected readable YAML"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "survey.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_survey(path)
    assert str(caught.value).startswith(line.format(file=path))


def test_a_merge_key_may_be_overruled() -> None:
    content = parse_yaml("a: &x {b: 1, d: 3}\nc: {<<: *x, b: 2}\n")
    assert content["c"] == {"b": 2, "d": 3}


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

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lenspipe.config import Survey
from lenspipe.run.identity import IDENTITY_KEYS
from lenspipe.run.resume_rules import RULES, as_table, rule_for, same_minor

RULES_PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_page_has_the_table_that_the_code_declares() -> None:
    assert as_table() in RULES_PAGE.read_text("utf-8")


def test_every_key_of_the_survey_file_and_of_the_identity_has_a_rule() -> None:
    outside = {
        "runtime",
        "output",
    }  # not in run.json's identity, and no row or pixel depends on them
    for name in set(Survey.model_fields) - {"base"}:
        rule = rule_for(name if name in outside else f"survey.{name}")
        assert rule is not None, name
        products = {"candidates", "publish", "known_lenses"}
        assert (rule.verdict == "accepted") == (name in {*outside, *products})
    told = {rule.key.partition(".")[0] for rule in RULES}
    assert told == {*IDENTITY_KEYS, *outside}


def test_the_longest_rule_decides_and_a_name_is_matched_whole() -> None:
    found = {key: rule_for(key) for key in ("versions.lenspipe", "versions.ray", "survey.cutsx")}
    assert [rule and rule.key for rule in found.values()] == ["versions.lenspipe", "versions", None]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("0.1.0", "0.1.7", True),
        ("0.1.7", "0.1.0", True),
        ("0.1.0", "0.2.0", False),
        ("0.1.0", "1.1.0", False),
        ("0.1", "0.1.3", True),
        (None, "0.1.0", False),
        ("", "", False),
    ],
)
def test_patch_versions_are_the_same_version(old: Any, new: Any, same: bool) -> None:
    assert same_minor(old, new) is same

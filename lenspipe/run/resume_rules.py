"""What may have changed between two calls of `lenspipe run` on one run directory, and what not.

`RULES` is the one place where that is decided; docs/rules.md repeats it as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["accepted", "refused"]
KEEP_COLUMNS = "survey.sources.keep_columns"
# What a run did that was begun before there was such a key of the survey file, by its dotted name
# there (`cutouts.crop`): only where that is not what the key's default does now.
BEFORE_THE_KEY: Mapping[str, Any] = {}


def same_minor(old: Any, new: Any) -> bool:
    """Whether two versions differ in no more than the last of their three numbers."""
    first, second = (str(version).split(".") for version in (old, new))
    return min(len(first), len(second)) >= 2 and first[:2] == second[:2]


def are_among(old: Any, new: Any) -> bool:
    """Whether all of one list are in the one before."""
    return set(new) <= set(old)


@dataclass(frozen=True)
class ResumeRule:
    """key: where it stands in run.json, with all below it. what: the change, in words. verdict:
    what becomes of a resume; why: the reason, or what happens then. unless: of a refused change,
    (value before, value now) that are taken all the same. remedy: what goes on nevertheless."""

    key: str
    what: str
    verdict: Verdict
    why: str
    unless: Callable[[Any, Any], bool] | None = None
    remedy: str = "--fresh"

    def takes(self, old: Any, new: Any) -> bool:
        """Whether a resume goes on over this difference."""
        return self.verdict == "accepted" or (self.unless is not None and self.unless(old, new))


RULES: tuple[ResumeRule, ...] = (
    ResumeRule(
        "layout",
        "the form of the run directory",
        "refused",
        "files of another form would be misread; an older lenspipe ends the run",
    ),
    ResumeRule(
        "versions.lenspipe",
        "lenspipe: major or minor version",
        "refused",
        "results may differ; another patch version (0.1.2 for 0.1.1) is accepted: it changes none",
        unless=same_minor,
    ),
    ResumeRule(
        "versions",
        "Python, ONNX Runtime, Ray and other libraries",
        "accepted",
        "they change the last digits of a float at most; the run tells each difference",
    ),
    ResumeRule("survey.name", "`name`", "refused", "another survey"),
    ResumeRule(
        "survey.sources", "`sources`, any other key", "refused", "other rows, or other columns"
    ),
    ResumeRule(
        KEEP_COLUMNS,
        "`sources.keep_columns`: one that the run's tables lack",
        "refused",
        "rows that are done lack it; columns that the tables have, fewer or in another order, are "
        "accepted: published anew",
        unless=are_among,
    ),
    ResumeRule("survey.cuts", "`cuts`", "refused", "other rows are selected"),
    ResumeRule(
        "survey.cut_order", "the order of `cuts`", "refused", "rows are counted at the first one"
    ),
    ResumeRule("survey.photometry", "`photometry`, any key", "refused", "other rows are selected"),
    ResumeRule("survey.cutouts", "`cutouts`, any key", "refused", "other pixels, other scores"),
    ResumeRule("survey.ensemble", "`ensemble`", "refused", "another name is another model"),
    ResumeRule(
        "survey.prevalence",
        "`prevalence`",
        "refused",
        "probabilities that are written hold at the old one",
    ),
    ResumeRule("survey.candidates", "`candidates`, any key", "accepted", "published anew"),
    ResumeRule("survey.publish", "`publish`, any key", "accepted", "published anew"),
    ResumeRule("survey.known_lenses", "`known_lenses`, any key", "accepted", "looked for anew"),
    ResumeRule(
        "known_lenses", "the rows of the list of known lenses", "accepted", "looked for anew"
    ),
    ResumeRule(
        "runtime",
        "`runtime`, any key: provider, workers, shard size",
        "accepted",
        "which rows and pixels are scored does not depend on it, and shards stay as they were "
        "planned, but that those with more rows than `shard_rows` now says are divided; scores on "
        "another provider differ in the last digits (on engines of half precision by more), and "
        "the run tells the change; to or from `openvino_bf16`, and where the ensemble's `on_cpu` "
        "has other networks for it, it is refused once rows are scored",
    ),
    ResumeRule(
        "output",
        "`output`: the run directory was moved or copied",
        "accepted",
        "a run directory names nothing outside of itself",
    ),
    ResumeRule(
        "models.ensemble",
        "bytes or card of a member; the ensemble's file",
        "refused",
        "other scores",
    ),
    ResumeRule(
        "models.photometry",
        "bytes or card of the photometry network",
        "refused",
        "other rows are selected",
    ),
    ResumeRule(
        "inputs",
        "the catalogue's files: paths, sizes, times or ETags, rows",
        "refused",
        "rows may be others; a catalogue that was moved is another one",
    ),
    ResumeRule(
        "pixels",
        "the pixels' files, per band: names, sizes, times or ETags",
        "refused",
        "scores may be others; what was scored stays, and what could not be read is done again",
        remedy="--retry-failed",
    ),
)


def rule_for(key: str) -> ResumeRule | None:
    """The rule of a dotted key of run.json: the longest that it stands under; None without one."""
    under = [rule for rule in RULES if f"{key}.".startswith(f"{rule.key}.")]
    return max(under, key=lambda rule: len(rule.key), default=None)


def as_table() -> str:
    """The rules as the Markdown table of docs/rules.md."""
    rows = [f"| {rule.what} | {_verdict(rule)} | {rule.why} |" for rule in RULES]
    return "\n".join(["| what changed | a resume is | because |", "|---|---|---|", *rows])


def _verdict(rule: ResumeRule) -> str:
    return rule.verdict if rule.verdict == "accepted" else f"refused (or `{rule.remedy}`)"

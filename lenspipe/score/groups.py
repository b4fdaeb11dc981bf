"""How the groups of a catalogue scored: rows, failures and how many pass each threshold. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int64

from lenspipe.errors import InputError
from lenspipe.models.card import Threshold
from lenspipe.proportion import clopper_pearson

MOST_GROUPS = 60


@dataclass(frozen=True)
class Passing:
    """Rows of a group that score above `threshold.score`. low, high: ends of the 95%
    Clopper-Pearson interval of their rate among the scored."""

    threshold: Threshold
    rows: int
    low: float
    high: float


@dataclass(frozen=True)
class GroupCount:
    """One combination of values. members: its rows of the catalogue, from 0."""

    values: tuple[str, ...]
    members: Int64[np.ndarray, " k"]
    scored: int
    passing: tuple[Passing, ...]

    @property
    def rows(self) -> int:
        """Rows of the catalogue in the group."""
        return len(self.members)

    @property
    def failed(self) -> int:
        """Rows without a score."""
        return self.rows - self.scored

    @property
    def name(self) -> str:
        """The values as one text."""
        return " · ".join(self.values)


@dataclass(frozen=True)
class GroupTable:
    """The groups by their values, in alphabetical order. columns: whose values they are."""

    columns: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    groups: tuple[GroupCount, ...]

    def heading(self) -> list[str]:
        """Titles of the columns of `cells`."""
        passing = [f"pass FPR {threshold.fpr:g}" for threshold in self.thresholds]
        return [*self.columns, "rows", "scored", "failed", *passing]

    def cells(self) -> list[list[str]]:
        """One line of text per group."""
        return [
            [
                *group.values,
                f"{group.rows:,}",
                f"{group.scored:,}",
                f"{group.failed:,}",
                *(passing_text(passing, group.scored) for passing in group.passing),
            ]
            for group in self.groups
        ]


def passing_text(passing: Passing, scored: int) -> str:
    """How many pass, and their share with its interval."""
    if not scored:
        return "–"
    share = 100 * passing.rows / scored
    return f"{passing.rows:,} · {share:.1f}% ({100 * passing.low:.1f}–{100 * passing.high:.1f})"


def group_values(sources: pa.Table, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The combination of values of every row. InputError where a column is missing, or where its
    values differ so much that they make no groups."""
    for name in columns:
        if name not in sources.column_names:
            raise InputError("--group", f"one of {', '.join(sources.column_names)}", repr(name))
    texts = [_texts(name, sources[name]) for name in columns]
    values = list(zip(*texts, strict=True))
    if len(set(values)) > MOST_GROUPS:
        found = f"{len(set(values))} of {', '.join(columns)}"
        raise InputError("--group", f"at most {MOST_GROUPS} different combinations", found)
    return values


def count_group(
    values: tuple[str, ...],
    members: Int64[np.ndarray, " k"],
    score: Float[np.ndarray, " n"],
    thresholds: Sequence[Threshold],
) -> GroupCount:
    """score: of every row of the catalogue, NaN where it failed."""
    own = score[members]
    scored = int(np.isfinite(own).sum())
    passing = []
    for threshold in thresholds:
        rows = int((own > threshold.score).sum())
        passing.append(Passing(threshold, rows, *clopper_pearson(rows, scored)))
    return GroupCount(values, members, scored, tuple(passing))


def count_groups(
    columns: Sequence[str],
    values: Sequence[tuple[str, ...]],
    score: Float[np.ndarray, " n"],
    thresholds: Sequence[Threshold],
) -> GroupTable:
    """The table of all groups; see `group_values` and `count_group`."""
    members: dict[tuple[str, ...], list[int]] = {}
    for row, value in enumerate(values):
        members.setdefault(value, []).append(row)
    groups = [
        count_group(value, np.asarray(rows, np.int64), score, thresholds)
        for value, rows in sorted(members.items())
    ]
    return GroupTable(tuple(columns), tuple(thresholds), tuple(groups))


def _texts(name: str, column: pa.ChunkedArray) -> list[str]:
    """The values as text. InputError where they have none."""
    try:
        values = pc.cast(column, pa.string()).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        expected = f"a column of text, numbers or dates as {name}"
        raise InputError("--group", expected, column.type) from error
    return ["–" if value is None else str(value) for value in values]

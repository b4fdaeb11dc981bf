"""Accounts of stage `select`: no row is lost, none is counted twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lenspipe.select.cuts import CutCount


@dataclass(frozen=True)
class SelectCounts:
    """Where the rows of a part went; parts add up."""

    rows_in: int = 0
    removed: Mapping[str, CutCount] = field(default_factory=dict)
    rejected: int = 0
    selected: int = 0
    failed: int = 0

    def __add__(self, other: SelectCounts) -> SelectCounts:
        names = dict.fromkeys([*self.removed, *other.removed])
        none = CutCount()
        return SelectCounts(
            self.rows_in + other.rows_in,
            {n: self.removed.get(n, none) + other.removed.get(n, none) for n in names},
            self.rejected + other.rejected,
            self.selected + other.selected,
            self.failed + other.failed,
        )

    @property
    def balanced(self) -> bool:
        """Whether every row that went in came out once."""
        out = sum(self.flat_removed().values()) + self.selected + self.failed
        return self.rows_in == out

    def flat_removed(self) -> dict[str, int]:
        """Rows taken out, by cause: `cuts.NAME.false`, `cuts.NAME.unknown`, `photometry`."""
        flat: dict[str, int] = {}
        for name, count in self.removed.items():
            flat[f"cuts.{name}.false"] = count.false
            flat[f"cuts.{name}.unknown"] = count.unknown
        return {**flat, "photometry": self.rejected}

"""Where every source of a run went, counted from the commit records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, computed_field

from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import PLAN_RECORD, RunDirectory, ShardRecord

_CUT = "cut:"
_NETWORK = "network"


class CutCount(BaseModel):
    """Sources that one cut removed: those for which it is false, and those for which it cannot be
    decided because a value is missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    false: int = 0
    unknown: int = 0

    @property
    def removed(self) -> int:
        """Both together."""
        return self.false + self.unknown


class Funnel(BaseModel):
    """Counts of sources after each step; `accounted` says whether each left exactly once.

    cuts: by name, in the order in which they are applied. rejected: by the photometry network.
    selected: survivors of both. reasons: failures of both stages by reason.
    """

    model_config = ConfigDict(frozen=True)
    sources_in: int
    cuts: dict[str, CutCount]
    rejected: int
    selected: int
    scored: int
    reasons: dict[str, int]
    candidates: int = 0

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way; mypy cannot stack them
    @property
    def cut(self) -> int:
        """Sources that any cut removed."""
        return sum(count.removed for count in self.cuts.values())

    @computed_field  # type: ignore[prop-decorator]  # likewise
    @property
    def failed(self) -> int:
        """Sources that failed, for whatever reason."""
        return sum(self.reasons.values())

    @computed_field  # type: ignore[prop-decorator]  # likewise
    @property
    def accounted(self) -> bool:
        """Whether sources_in = cut + rejected + scored + failed."""
        return self.sources_in == self.cut + self.rejected + self.scored + self.failed


def funnel(run: RunDirectory, candidates: int = 0, cuts: Iterable[str] = ()) -> Funnel:
    """The funnel of what is committed; `cuts`: their names in the order of the survey file."""
    return count(run.commits("select"), run.commits("score"), candidates, cuts)


def count(
    select: Iterable[ShardRecord],
    score: Iterable[ShardRecord],
    candidates: int = 0,
    cuts: Iterable[str] = (),
) -> Funnel:
    """The same from records already read; each is passed over once."""
    removed: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    sources_in = selected = scored = 0
    for record in select:
        sources_in += record.rows_in
        selected += record.rows_out
        removed.update(record.removed)
        reasons.update(_reasons(record))
    for record in score:
        scored += record.rows_out
        reasons.update(_reasons(record))
    return Funnel(
        sources_in=sources_in,
        cuts=_cuts(removed, cuts),
        rejected=removed[_NETWORK],
        selected=selected,
        scored=scored,
        reasons=dict(reasons.most_common()),
        candidates=candidates,
    )


def refuse_unaccounted(counted: Funnel, sources: int, planned: int) -> None:
    """CorruptRunError unless the commits hold every row of catalogue and plan once.

    sources: rows of the catalogue. planned: rows of the plan. A log whose last files are lost shows
    no gap; it is here that their rows are missed.
    """
    ended = counted.cut + counted.rejected + counted.scored + counted.failed
    again = "the same command does again what was lost; lenspipe verify says more"
    if counted.sources_in != sources:
        raise CorruptRunError(
            f"shards/select-*: {counted.sources_in} rows are committed, of {sources} of the "
            f"catalogue: {again}"
        )
    if counted.selected != planned:
        raise CorruptRunError(
            f"{PLAN_RECORD}: {planned} rows, but {counted.selected} were selected: --fresh begins "
            "anew"
        )
    if not counted.accounted:
        raise CorruptRunError(
            f"shards/score-*: {ended} sources are accounted for, of {counted.sources_in}: {again}"
        )


def _reasons(record: ShardRecord) -> Counter[str]:
    """Failures by reason; those that the record gives no reason for are counted all the same."""
    told = Counter(record.reasons)
    told["unknown"] += record.rows_failed - told.total()
    return +told


def _cuts(removed: Mapping[str, int], names: Iterable[str]) -> dict[str, CutCount]:
    found = [key.removeprefix(_CUT).rpartition(":")[0] for key in removed if key.startswith(_CUT)]
    return {
        name: CutCount(
            false=removed.get(f"{_CUT}{name}:false", 0),
            unknown=removed.get(f"{_CUT}{name}:unknown", 0),
        )
        for name in dict.fromkeys([*names, *found])
    }

"""Failures of both stages are held against the sources of both."""

from __future__ import annotations

import pytest

from lenspipe.catalogue.funnel import Funnel
from lenspipe.run.failure_limit import failed_share


def _funnel(scored: int, selected: int, **reasons: int) -> Funnel:
    failed = sum(reasons.values())
    return Funnel(
        sources_in=scored + failed + 7,
        cuts={},
        rejected=7,
        selected=selected,
        scored=scored,
        reasons=reasons,
    )


def test_failures_of_select_are_part_of_what_they_are_held_against() -> None:
    """A part of the catalogue cannot be read, and what is selected is scored: no limit of 100% is
    exceeded."""
    share = failed_share(_funnel(scored=40, selected=40, unreadable=100))
    assert (share.failed, share.sources) == (100, 140)
    assert not share.exceeds(1.0)
    assert not share.exceeds(100 / 140)
    assert share.exceeds(0.7)
    assert share.told(0.7).startswith("100 of 140 sources failed (71.43%;")
    assert "runtime.failure_limit (70.00%) allows; reasons: 100 unreadable" in share.told(0.7)


def test_repeated_ids_count_on_neither_side() -> None:
    share = failed_share(_funnel(scored=90, selected=110, duplicate_id=10, not_found=10))
    assert (share.failed, share.sources, share.reasons) == (10, 100, {"not_found": 10})
    assert not share.exceeds(0.1)
    assert not failed_share(_funnel(0, 5, duplicate_id=5)).exceeds(0.0)


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_nothing_at_all_is_no_failure(limit: float) -> None:
    assert not failed_share(_funnel(0, 0)).exceeds(limit)
    assert failed_share(_funnel(0, 0)).told(limit).startswith("0 of 0 sources failed (0.00%;")

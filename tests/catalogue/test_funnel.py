from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.catalogue.funnel import CutCount, Funnel, count, funnel, refuse_unaccounted
from lenspipe.errors import CorruptRunError
from lenspipe.run_directory import RunDirectory, ShardRecord
from tests.catalogue.small_run import cap, commit_scores, commit_select, failure_table, score_table

N = st.integers(0, 50)
KEYS = ("cut:red:false", "cut:red:unknown", "cut:a:b:false", "network")


def two_shards(run: RunDirectory) -> None:
    commit_select(run, 0, 30, {"cut:red:false": 5, "cut:bright:unknown": 2, "network": 9}, failed=1)
    commit_select(run, 1, 12, {"cut:bright:false": 4, "network": 1})
    failures = failure_table([90, 91, 92], ["not_found", "not_found", "duplicate_id"])
    commit_scores(run, [score_table(*cap(39, 10.0, 0.0, 0.1))], [failures])


def test_every_source_is_counted_where_it_left(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    two_shards(run)
    counted = funnel(run, candidates=3, cuts=("bright", "red", "idle"))
    assert counted.sources_in == 64
    assert list(counted.cuts) == ["bright", "red", "idle"]
    assert counted.cuts["bright"] == CutCount(false=4, unknown=2)
    assert counted.cuts["idle"].removed == 0
    assert (counted.cut, counted.rejected, counted.selected, counted.scored) == (11, 10, 42, 39)
    assert counted.reasons == {"not_found": 2, "bad_metadata": 1, "duplicate_id": 1}
    assert (counted.failed, counted.candidates, counted.accounted) == (4, 3, True)


def test_a_source_that_got_lost_is_seen(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    commit_select(run, 0, 40, {"network": 2})
    commit_scores(run, [score_table(*cap(39, 10.0, 0.0, 0.1))])
    assert not funnel(run).accounted


def test_a_run_is_whole_only_with_every_row_of_catalogue_and_plan(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    two_shards(run)
    counted = funnel(run)
    refuse_unaccounted(counted, 64, 42)
    with pytest.raises(CorruptRunError, match=r"^shards/select-\*: 64 rows .* of 65 of the cat"):
        refuse_unaccounted(counted, 65, 42)
    with pytest.raises(CorruptRunError, match=r"plan\.json: 41 rows, but 42 were selected"):
        refuse_unaccounted(counted, 64, 41)
    lost = counted.model_copy(update={"scored": 38})
    with pytest.raises(CorruptRunError, match=r"^shards/score-\*: 63 sources .* of 64: the same"):
        refuse_unaccounted(lost, 64, 42)


def test_it_survives_json(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    two_shards(run)
    counted = funnel(run)
    content = json.loads(counted.model_dump_json())
    assert content["accounted"] is True
    assert content["failed"] == 4
    assert Funnel.model_validate(content) == counted


@st.composite
def record(draw: st.DrawFn, stage: str) -> ShardRecord:
    removed = {key: draw(N) for key in KEYS} if stage == "select" else {}
    rows_out, rows_failed = draw(N), draw(N)
    return ShardRecord.model_validate(
        {
            "stage": stage,
            "start": 0,
            "stop": 1,
            "rows_in": rows_out + rows_failed + sum(removed.values()),
            "rows_out": rows_out,
            "rows_failed": rows_failed,
            "removed": removed,
            "reasons": {"not_found": draw(st.integers(0, rows_failed))},
        }
    )


@given(st.lists(record("select"), max_size=4), st.lists(record("score"), max_size=4))
@settings(max_examples=40, deadline=None)
def test_accounted_exactly_where_score_took_what_select_gave(
    select: list[ShardRecord], score: list[ShardRecord]
) -> None:
    counted = count(select, score)
    assert counted.accounted == (counted.selected == sum(r.rows_in for r in score))
    assert counted.cut == sum(r.removed[key] for r in select for key in KEYS if key != "network")

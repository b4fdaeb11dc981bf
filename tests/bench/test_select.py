"""The measurement compares like with like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from lenspipe.bench import select
from lenspipe.run_directory import RunDirectory
from lenspipe.select.plan import SelectPlan
from lenspipe.select.stage import select_part


def test_both_sides_select_the_same_rows(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.parquet"
    select.write_catalogue(file, 300_000)
    plan, parts = select.plan_for(file, None)
    with duckdb.connect() as connection:
        select.query_seconds(connection, file, tmp_path / "bare.parquet", ["object_id"])
    bare = pq.read_table(tmp_path / "bare.parquet").column(0).to_pylist()
    ours = [r for p in parts for r in select_part(p, plan).selected.column(0).to_pylist()]
    # -999 fails "g - i BETWEEN" and "i > …" by value in plain SQL, and as unknown here, but for
    # i = -999, which plain SQL takes for a bright source; its colour then fails the second cut.
    assert sorted(ours) == sorted(bare)
    assert len(ours) > 1000


@pytest.mark.usefixtures("ray_cluster")
def test_both_ratios_are_measured_and_carried_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the photometry network, and with cuts only, by the stage of a run."""
    with_network: list[bool] = []
    stage_seconds = select.stage_seconds

    def watched(folder: Path, plan: SelectPlan, *others: Any) -> float:
        with_network.append(plan.network is not None)
        seconds = stage_seconds(folder, plan, *others)
        assert sum(r.rows_in for r in RunDirectory(str(folder)).commits("select")) == 20_000
        return seconds

    monkeypatch.setattr(select, "stage_seconds", watched)
    found = select.measure_both(rows=20_000, rounds=1, threads=1)
    assert with_network == [False, False, True, True]
    for name in ("select", "select_cuts"):
        assert found[f"{name}_vs_duckdb"] > 0
        rate = found[f"{name}_rows_per_s"]
        hours = "hours_for_3e9_rows" if name == "select" else "select_cuts_hours_for_3e9_rows"
        assert found[hours] == pytest.approx(3e9 / rate / 3600)
    assert found["select_vs_duckdb_positions"] > 0


def test_the_profile_finds_every_step_of_the_stage() -> None:
    found = select.profile(rows=20_000)
    assert found.pop("network") == 0.0  # none was given
    whole = found.pop("whole")
    assert all(took > 0 for took in found.values())
    assert sum(found.values()) <= whole

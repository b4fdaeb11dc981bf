"""Thresholds by fraction: where rows are few, none, or cannot be read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lenspipe import config
from lenspipe.models.card import Feature
from lenspipe.select.plan import SelectPlan, plan_catalogue
from lenspipe.select.sources import SourcePart, list_parts
from lenspipe.select.stage import select_part
from lenspipe.select.threshold import ThresholdChoice, choose_threshold, settle_threshold
from tests.toy_models import make_photometry

ROWS = 1000


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "p.onnx"
    make_photometry(path, features=[Feature(kind="magnitude", a="g")], weights=[1.0], bias=0.0)
    return path


def _write(path: Path, groups: int = 10) -> None:
    table = pa.table(
        {
            "object_id": np.arange(ROWS),
            "ra": np.full(ROWS, 10.0),
            "dec": np.full(ROWS, 0.0),
            "g": np.linspace(0.0, 1.0, ROWS),
        }
    )
    pq.write_table(table, path, row_group_size=ROWS // groups, compression="none")


def _plan(folder: Path, network: Path, cut: str) -> tuple[SelectPlan, tuple[SourcePart, ...]]:
    sources = config.Sources(path=str(folder))
    keep = config.Keep(fraction=0.1)
    photometry = config.Photometry(model=str(network), keep=keep)
    plan = plan_catalogue(sources, {"cut": cut}, photometry, None, ".")
    return plan, list_parts(sources, ".")


def _break_group(path: Path, group: int) -> None:
    """Overwrite the page header of a row group's `g`, whatever the size of the file."""
    column = pq.ParquetFile(path).metadata.row_group(group).column(3)
    start = column.dictionary_page_offset or column.data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 64)


def test_no_survivor_lets_the_run_end_well(tmp_path: Path, network: Path) -> None:
    _write(tmp_path / "a.parquet")
    plan, parts = _plan(tmp_path, network, "g > 5")
    chosen = choose_threshold(plan, parts)
    assert (chosen.value, chosen.sampled_rows, chosen.sampled_parts) == (-math.inf, 0, 1)
    counts = select_part(parts[0], plan.with_threshold(chosen.value)).counts
    assert (counts.selected, counts.rejected) == (0, 0)
    again = ThresholdChoice.model_validate_json(chosen.model_dump_json())
    assert again == chosen


def test_a_broken_row_group_costs_its_rows_alone(tmp_path: Path, network: Path) -> None:
    path = tmp_path / "a.parquet"
    _write(path)
    _break_group(path, 9)  # of the rows above 0.9
    plan, parts = _plan(tmp_path, network, "g >= 0")
    chosen = choose_threshold(plan, parts)
    assert (chosen.sampled_rows, chosen.sampled_parts, chosen.unreadable_parts) == (900, 1, 1)
    assert chosen.value == pytest.approx(0.9 * 0.9, abs=0.002)


def test_a_file_that_is_gone_is_left_out(tmp_path: Path, network: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.parquet")
    sources = config.Sources(path=str(tmp_path))
    plan, _ = _plan(tmp_path, network, "g >= 0")
    parts = tuple(
        part
        for name in ("a", "b")
        for part in list_parts(
            sources.model_copy(update={"path": str(tmp_path / f"{name}.parquet")}), "."
        )
    )
    (tmp_path / "b.parquet").unlink()
    chosen = choose_threshold(plan, parts)
    assert (chosen.sampled_rows, chosen.unreadable_parts) == (ROWS, 1)
    assert settle_threshold(plan, parts).threshold == chosen.value


def test_a_plan_without_a_fraction_has_nothing_to_choose(tmp_path: Path, network: Path) -> None:
    _write(tmp_path / "a.parquet")
    plan, parts = _plan(tmp_path, network, "g >= 0")
    settled = plan.with_threshold(0.5)
    assert settle_threshold(settled, parts) is settled
    with pytest.raises(ValueError, match="no fraction"):
        choose_threshold(
            plan_catalogue(config.Sources(path=str(tmp_path)), {}, None, None, "."), parts
        )

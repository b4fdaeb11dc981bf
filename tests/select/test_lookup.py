from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lenspipe.config import Sources
from lenspipe.select.cuts import compile_cuts
from lenspipe.select.lookup import Lookup, _meets
from lenspipe.select.plan import SelectPlan
from lenspipe.select.sources import list_parts, open_view
from lenspipe.sky import pairs_within, separation_deg

ROWS = 40
CUTS = {"bright": "mag < 21", "red": "colour > 1"}


def lookup_of(folder: Path, network: bool = False, **columns: object) -> Lookup:
    """40 sources along dec = 1°, 0.1° apart from RA 10° on; every fourth is faint, and of every
    fourth the colour is missing."""
    k = np.arange(ROWS)
    table = pa.table(
        {
            "object_id": k + 100,
            "ra": 10.0 + 0.1 * k,
            "dec": np.full(ROWS, 1.0),
            "mag": np.where(k % 4 == 0, 22.0, 20.0),
            "colour": pa.array(np.where(k % 4 == 1, np.nan, 2.0), from_pandas=True),
            **columns,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "a.parquet", row_group_size=10)
    sources = Sources(path=str(folder))
    view = open_view(sources, ".")
    plan = SelectPlan(
        key="",
        view=view,
        cuts=compile_cuts(CUTS, view.schema),
        network=Path("a.onnx") if network else None,
    )
    return Lookup(list_parts(sources, "."), plan)


def test_what_a_cut_took_is_told_by_its_name(tmp_path: Path) -> None:
    lookup = lookup_of(tmp_path)
    found = lookup(np.array([10.0, 10.1, 10.05]), np.full(3, 1.0 + 1 / 3600), 2.0)
    assert found[2] is None
    told = [(f.object_id, f.left, f.reason) for f in found[:2] if f is not None]
    assert told == [(100, "cut", "bright"), (101, "cut", "red (a value is missing)")]
    assert found[0] is not None
    assert found[0].separation_arcsec == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("network", "left"), [(True, "rejected"), (False, "failed")])
def test_what_passed_the_cuts_was_rejected_or_failed(
    tmp_path: Path, network: bool, left: str
) -> None:
    [found] = lookup_of(tmp_path, network)(np.array([10.2]), np.array([1.0]), 2.0)
    assert found is not None
    assert (found.object_id, found.left) == (102, left)


def test_the_nearest_source_counts(tmp_path: Path) -> None:
    ra = np.full(ROWS, 10.0)
    dec = 1.0 + np.arange(ROWS)[::-1] / 3600
    [found] = lookup_of(tmp_path, ra=ra, dec=dec)(
        np.array([10.0]), np.array([1.0 - 0.4 / 3600]), 3.0
    )
    assert found is not None
    assert found.object_id == 139


def test_positions_that_are_none_are_near_nothing(tmp_path: Path) -> None:
    ra = np.where(np.arange(ROWS) % 2, np.nan, 10.0)
    lookup = lookup_of(tmp_path, ra=ra, dec=np.full(ROWS, 95.0))
    assert lookup(np.array([10.0]), np.array([90.0]), 2.0) == [None]


def test_a_file_that_changed_is_told_of_those_without_a_source(tmp_path: Path) -> None:
    lookup = lookup_of(tmp_path)
    os.utime(tmp_path / "a.parquet", (1, 1))
    [found] = lookup(np.array([10.2]), np.array([1.0]), 2.0)
    assert found is not None
    assert found.left == "not_selected"
    assert found.reason is not None
    assert "as planned" in found.reason


def test_only_row_groups_that_may_hold_a_position_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = lookup_of(tmp_path)
    read: list[int] = []
    real = pq.ParquetFile.read_row_groups

    def note(self: pq.ParquetFile, groups: list[int], **more: object) -> pa.Table:
        read.extend(groups)
        return real(self, groups, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", note)
    lookup(np.array([11.55, 200.0]), np.array([1.0, 1.0]), 2.0)
    assert set(read) == {1}


CAPS = st.tuples(st.floats(0, 360), st.floats(-90, 90))


@settings(max_examples=200, deadline=None)
@given(cap=CAPS, source=st.tuples(st.floats(-180, 360), st.floats(-90, 90)))
@example(cap=(0.0, 0.0), source=(359.9999, 0.0))
@example(cap=(359.9999, 0.0), source=(-0.0002, 0.0))
@example(cap=(20.0, 90.0), source=(200.0, 89.9))
@example(cap=(20.0, -89.95), source=(200.0, -89.97))
def test_a_source_near_a_position_is_in_a_box_that_meets_it(
    cap: tuple[float, float], source: tuple[float, float]
) -> None:
    radius_deg = 0.2
    ra, dec = np.array([cap[0]]), np.array([cap[1]])
    near = separation_deg(*cap, np.array([source[0]]), np.array([source[1]]))[0] <= radius_deg
    box = (source[0], source[0]), (source[1], source[1])
    assert not near or _meets(box, ra, dec, radius_deg)[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(CAPS, max_size=8), st.lists(CAPS, max_size=8), st.floats(0.001, 90.0))
def test_pairs_are_all_those_within_the_radius(
    first: list[tuple[float, float]], second: list[tuple[float, float]], radius_deg: float
) -> None:
    places = [np.array([p[k] for p in pairs]) for pairs in (first, second) for k in range(2)]
    a_ra, a_dec, b_ra, b_dec = places
    rows, others, far = pairs_within(a_ra, a_dec, b_ra, b_dec, radius_deg * 3600)
    expected = {
        (i, j)
        for i, place in enumerate(first)
        for j, other in enumerate(second)
        if separation_deg(*place, np.array([other[0]]), np.array([other[1]]))[0] * 3600
        <= radius_deg * 3600
    }
    assert set(zip(rows.tolist(), others.tolist(), strict=True)) == expected
    assert (far <= radius_deg * 3600).all()

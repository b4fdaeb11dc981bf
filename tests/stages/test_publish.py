from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.catalogue.candidates import Rule, StampBatch, open_candidates
from lenspipe.catalogue.hats import read_properties
from lenspipe.contracts import InputSpec
from lenspipe.run_directory import RunDirectory
from lenspipe.stages.publish import PublishSettings, publish
from tests.catalogue.small_run import cap, commit_scores, commit_select, score_table

SPEC = InputSpec("image", ("g", "r", "i"), 8, 0.25, 25.0)
SETTINGS = PublishSettings("toy", Rule(top=5), (SPEC,), ("red",), partition_rows=50)


class Stamps:
    """Counts how often pixels were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, table: pa.Table) -> Iterator[StampBatch]:
        self.asked += 1
        ids = table["object_id"].to_pylist()
        yield ids, {"image": np.ones((len(ids), *SPEC.shape), np.float32)}, None


def dead(_: pa.Table) -> Iterator[StampBatch]:
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    # matplotlib takes seconds and is tested with the report.
    monkeypatch.setattr("lenspipe.report._pictures", lambda *_: (None, None))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(str(tmp_path / "run"))
    commit_select(run, 0, 120, {"cut:red:false": 30})
    commit_scores(run, [score_table(*cap(120, 150.0, 2.0, 0.4))])
    return run


def test_everything_is_published(run: RunDirectory) -> None:
    info = publish(run, SETTINGS, Stamps())
    assert (info.catalogue.rows, info.candidates) == (120, 5)
    assert info.funnel.accounted
    content = run.read_json("funnel.json")
    assert content is not None
    assert (content["candidates"], content["cut"], content["accounted"]) == (5, 30, True)
    assert run.store.exists(info.report)
    assert open_candidates(run) is not None


def test_a_second_publish_changes_nothing_and_asks_for_no_pixels(run: RunDirectory) -> None:
    stamps = Stamps()
    first = publish(run, SETTINGS, stamps)
    before = {name: run.store.read(name) for name in run.store.names()}
    again = publish(run, SETTINGS, stamps)
    assert stamps.asked == 1
    assert (again.candidates, again.funnel) == (first.candidates, first.funnel)
    assert {name: run.store.read(name) for name in run.store.names()} == before


def test_another_rule_makes_new_candidates_and_keeps_the_catalogue(run: RunDirectory) -> None:
    stamps = Stamps()
    publish(run, SETTINGS, stamps)
    info = publish(run, replace(SETTINGS, rule=Rule(top=7)), stamps)
    assert (info.candidates, info.catalogue.written, stamps.asked) == (7, False, 2)


def test_a_publish_that_was_killed_is_repeated_where_it_was(run: RunDirectory) -> None:
    with pytest.raises(KeyboardInterrupt):
        publish(run, SETTINGS, dead)
    assert open_candidates(run) is None
    assert not run.store.exists("report/index.html")
    info = publish(run, SETTINGS, Stamps())
    assert not info.catalogue.written
    assert info.candidates == 5
    assert [name for name in run.store.names() if ".tmp-" in name] == []


def test_a_run_that_scored_nothing_is_published_too(tmp_path: Path) -> None:
    run = RunDirectory(str(tmp_path))
    commit_select(run, 0, 0, {"cut:red:false": 30})
    stamps = Stamps()
    info = publish(run, SETTINGS, stamps)
    assert (info.candidates, info.catalogue.rows, stamps.asked) == (0, 0, 0)
    assert info.funnel.accounted
    assert read_properties(run) is None
    assert b"No source passed" in run.store.read(info.report)


def test_a_rule_that_none_passes_asks_for_no_pixels(run: RunDirectory) -> None:
    stamps = Stamps()
    info = publish(run, replace(SETTINGS, rule=Rule(score_above=1e6)), stamps)
    assert (info.candidates, stamps.asked) == (0, 0)
    assert b"No source passed" in run.store.read(info.report)


def test_more_maps_are_made_where_more_are_asked_for(run: RunDirectory) -> None:
    stamps = Stamps()
    publish(run, SETTINGS, stamps)
    publish(run, replace(SETTINGS, explain=3), stamps)
    assert stamps.asked == 2


def _lose_a_partition(run: RunDirectory) -> None:
    run.store.delete(next(name for name in run.store.names("catalogue") if "Npix" in name))


def _break_an_array(run: RunDirectory) -> None:
    run.store.write("candidates.zarr/score/zarr.json", b"{")


def _break_the_group(run: RunDirectory) -> None:
    run.store.write("candidates.zarr/zarr.json", b"junk")


@pytest.mark.parametrize("damage", [_lose_a_partition, _break_an_array, _break_the_group])
def test_a_damaged_product_is_made_anew(
    run: RunDirectory, damage: Callable[[RunDirectory], None]
) -> None:
    first = publish(run, SETTINGS, Stamps())
    damage(run)
    again = publish(run, SETTINGS, Stamps())
    assert (again.candidates, again.funnel) == (first.candidates, first.funnel)
    assert read_table(run)["object_id"].num_chunks >= 1
    assert len(read_table(run)) == 120
    group = open_candidates(run)
    assert group is not None
    assert np.isfinite(np.asarray(group["score"])).all()


def test_a_retry_makes_the_products_anew(run: RunDirectory) -> None:
    stamps = Stamps()
    publish(run, SETTINGS, stamps)
    run.forget_products()
    assert publish(run, SETTINGS, stamps).catalogue.written
    assert stamps.asked == 2


def read_table(run: RunDirectory) -> pa.Table:
    """The catalogue's rows."""
    names = [name for name in run.store.names("catalogue") if "Npix" in name]
    return pa.concat_tables([run.read_part(name) for name in names])


def test_storage_that_refuses_is_no_damaged_product(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = Stamps()
    publish(run, SETTINGS, stamps)

    def refuse(_: RunDirectory) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("lenspipe.catalogue.candidates.open_candidates", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        publish(run, SETTINGS, stamps)
    assert stamps.asked == 1

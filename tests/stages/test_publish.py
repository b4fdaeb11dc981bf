from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.catalogue.candidates import Rule, StampBatch, open_candidates
from lenspipe.catalogue.hats import read_properties
from lenspipe.catalogue.known import LISTED, Known, KnownList
from lenspipe.catalogue.known_fates import follow
from lenspipe.catalogue.tables import open_table
from lenspipe.contracts import InputSpec
from lenspipe.run.verify_products import check_candidates, check_catalogue, check_funnel
from lenspipe.run_directory import KNOWN, RunDirectory
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
        pixels = np.arange(len(ids) * int(np.prod(SPEC.shape)), dtype=np.float32)
        images = pixels.reshape(len(ids), *SPEC.shape)
        yield StampBatch(ids, {"image": images}, images[:, 0] + 1)


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


def known_list(run: RunDirectory, radius_arcsec: float = 2.0) -> KnownList:
    """The place of a scored source."""
    scored = run.read_folder("scores", ("score",))
    assert scored is not None
    place = scored.slice(7, 1).to_pylist()[0]
    row = {"name": "J1", "ra": place["ra"], "dec": place["dec"]}
    row |= {"type": "galaxy", "grade": "A", "reference": "doi"}
    table = pa.Table.from_pylist([row], schema=pa.schema(LISTED))
    return KnownList(table, radius_arcsec, "0123")


def test_known_lenses_are_followed_once_and_again_where_anything_changed(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(*arguments: Any) -> Known:
        asked.append(arguments)
        return follow(*arguments)

    monkeypatch.setattr("lenspipe.catalogue.known_fates.follow", counted)
    known = known_list(run)
    settings = replace(SETTINGS, known=known)
    for wanted, times in (
        (settings, 1),
        (settings, 1),
        (replace(settings, rule=Rule(top=7)), 2),
        (replace(settings, known=replace(known, radius_arcsec=3.0)), 3),
        (replace(settings, known=replace(known, sha256="other")), 4),
    ):
        publish(run, wanted, Stamps())
        assert len(asked) == times
    page = run.store.read("report/index.html")
    assert b"recall of all in the footprint" in page
    run.store.write(KNOWN, b"PAR1")
    publish(run, settings, Stamps())
    run.forget_products()
    publish(run, settings, Stamps())
    assert len(asked) == 6
    publish(run, SETTINGS, Stamps())
    assert not run.store.exists(KNOWN)
    assert b"Known lenses" not in run.store.read("report/index.html")


def test_the_catalogue_names_the_known_lens_at_a_source(run: RunDirectory) -> None:
    publish(run, SETTINGS, Stamps())
    assert "known_lens" not in _scores_table(run).column_names
    known = known_list(run)
    assert publish(run, replace(SETTINGS, known=known), Stamps()).catalogue.written
    table = _scores_table(run)
    place = known.table.to_pylist()[0]
    found = [row for row in table.to_pylist() if row["known_lens"] is not None]
    assert [(row["known_lens"], row["ra"], row["dec"]) for row in found] == [
        ("J1", place["ra"], place["dec"])
    ]
    assert table.num_rows == 120
    assert not publish(run, replace(SETTINGS, known=known), Stamps()).catalogue.written
    wider = replace(known, radius_arcsec=3.0)
    assert publish(run, replace(SETTINGS, known=wider), Stamps()).catalogue.written


def _scores_table(run: RunDirectory) -> pa.Table:
    relation = open_table(run, "scores")
    return relation if isinstance(relation, pa.Table) else relation.to_table()


def test_a_candidate_that_is_known_is_marked_in_the_mosaic(run: RunDirectory) -> None:
    settings = replace(SETTINGS, known=known_list(run), rule=Rule(top=120), mosaic=120)
    publish(run, settings, Stamps())
    page = run.store.read("report/index.html")
    assert page.count(b"known: J1") == 1
    assert b"1 of 1 = 1.000" in page


def lose(data: bytes) -> None:
    return None


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def flip(data: bytes) -> bytes:
    """One bit of the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


def one_row_less(data: bytes) -> bytes:
    return b"".join(data.splitlines(keepends=True)[:-1])


def header_alone(data: bytes) -> bytes:
    return data.splitlines(keepends=True)[0]


def junk(data: bytes) -> bytes:
    return b"\xff\xfe\x00"


def crushed(data: bytes) -> bytes:
    """The first page overwritten; the footer stays whole."""
    return data[:4] + bytes(len(data) // 4) + data[4 + len(data) // 4 :]


def other_units(data: bytes) -> bytes:
    """JSON still, that says something else."""
    return data.replace(b'"pixel_scale_arcsec": 0.25', b'"pixel_scale_arcsec": 0.75')


PARTITION = "catalogue/dataset/Norder"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (PARTITION, lose),
        (PARTITION, cut),
        (PARTITION, empty),
        (PARTITION, crushed),
        ("catalogue/dataset/_metadata", lose),
        ("catalogue/dataset/_metadata", cut),
        ("catalogue/dataset/_common_metadata", lose),
        ("catalogue/dataset/_common_metadata", cut),
        ("catalogue/partition_info.csv", lose),
        ("catalogue/partition_info.csv", empty),
        ("catalogue/partition_info.csv", header_alone),
        ("catalogue/partition_info.csv", one_row_less),
        ("catalogue/hats.properties", lose),
        ("catalogue/hats.properties", empty),
        ("catalogue/hats.properties", junk),
        ("candidates.zarr/zarr.json", lose),
        ("candidates.zarr/zarr.json", cut),
        ("candidates.zarr/score/zarr.json", cut),
        ("candidates.zarr/score/c/0", lose),
        ("candidates.zarr/score/c/0", cut),
        ("candidates.zarr/object_id/c/0", flip),
        ("candidates.zarr/has_stamp/c/0", lose),
        ("candidates.zarr/images/zarr.json", lose),
        ("candidates.zarr/images/zarr.json", cut),
        ("candidates.zarr/images/image/zarr.json", lose),
        ("candidates.zarr/images/image/zarr.json", other_units),
        ("candidates.zarr/images/image/c/", lose),
        ("candidates.zarr/images/image/c/", cut),
        ("candidates.zarr/images/image/c/", empty),
        ("candidates.zarr/images/image/c/", flip),
        ("candidates.zarr/explanation/zarr.json", lose),
        ("candidates.zarr/explanation/c/", lose),
        ("candidates.zarr/explanation/c/", flip),
        ("funnel.json", lose),
        ("funnel.json", cut),
        ("funnel.json", junk),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_damaged_product_is_made_anew(
    run: RunDirectory, name: str, damage: Callable[[bytes], bytes | None]
) -> None:
    first = publish(run, SETTINGS, Stamps())
    before = contents(run)
    file = next(file for file in run.store.names() if file.startswith(name))
    changed = damage(run.store.read(file))
    assert changed != run.store.read(file)
    if changed is None:
        run.store.delete(file)
    else:
        run.store.write(file, changed)
    again = publish(run, SETTINGS, Stamps())
    assert (again.candidates, again.funnel) == (first.candidates, first.funnel)
    assert contents(run) == before
    assert product_faults(run) == []


def contents(run: RunDirectory) -> dict[str, bytes | None]:
    """Files of the products; of those that say when they were made, that they are there."""
    names = [*run.store.names("catalogue"), *run.store.names("candidates.zarr"), "funnel.json"]
    return {name: None if name.endswith("properties") else run.store.read(name) for name in names}


def product_faults(run: RunDirectory) -> list[str]:
    """What `lenspipe verify` says of the products."""
    parts = run.part_names("scores", run.commits("score"))
    found = [*check_catalogue(run, parts), *check_candidates(run, parts)]
    return [*found, *check_funnel(run, SETTINGS.cuts)]


@pytest.mark.parametrize("found", [(), slice(None, 2)], ids=["none", "two"])
def test_candidates_without_pixels_have_no_chunks_to_miss(
    run: RunDirectory, found: slice | tuple[()]
) -> None:
    asked = []

    def some(table: pa.Table) -> Iterator[StampBatch]:
        asked.append(table.num_rows)
        ids = table["object_id"].to_pylist()[found] if found else []
        yield StampBatch(ids, {"image": np.ones((len(ids), *SPEC.shape), np.float32)})

    publish(run, SETTINGS, some)
    publish(run, SETTINGS, some)
    assert asked == [5]


def test_a_retry_makes_the_products_anew(run: RunDirectory) -> None:
    stamps = Stamps()
    publish(run, SETTINGS, stamps)
    run.forget_products()
    assert publish(run, SETTINGS, stamps).catalogue.written
    assert stamps.asked == 2


@pytest.mark.parametrize(
    "reader", ["candidates.open_candidates", "hats.read_properties", "hats.stream"]
)
def test_storage_that_refuses_is_no_damaged_product(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    stamps = Stamps()
    publish(run, SETTINGS, stamps)
    before = contents(run)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(f"lenspipe.catalogue.{reader}", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        publish(run, SETTINGS, stamps)
    assert stamps.asked == 1
    assert contents(run) == before

"""A run that was held against a list of known lenses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from lenspipe.catalogue.known import LISTED, KnownList
from lenspipe.run.verify import verify
from lenspipe.run.verify_products import check_flagged
from lenspipe.run_directory import KNOWN, RUN, RunDirectory
from lenspipe.stages.publish import publish
from tests.catalogue.small_run import commit_select
from tests.run.ended_run import SETTINGS, edit, one, rewrite, stamps

NAME = "known_lens"


@pytest.fixture
def flagged(ended: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """The run with one known lens, at the place of a scored source."""
    monkeypatch.setattr("lenspipe.report._pictures", lambda *_: (None, None))
    scored = ended.read_folder("scores", ("score",))
    assert scored is not None
    place = scored.slice(3, 1).select(["ra", "dec"]).to_pylist()[0]
    row = {field.name: "told" for field in LISTED} | place
    table = pa.Table.from_pylist([row], schema=pa.schema(LISTED))
    publish(ended, replace(SETTINGS, known=KnownList(table, 2.0, "0123")), stamps)
    edit(ended, RUN, lambda told: told["survey"].update(known_lenses={"path": "lenses.csv"}))
    return ended


def test_a_run_with_known_lenses_is_in_order(flagged: RunDirectory) -> None:
    assert verify(flagged) == []


def test_a_catalogue_that_names_other_known_lenses_is_told(flagged: RunDirectory) -> None:
    def unnamed(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(NAME)
        field = table.schema.field(index)
        return table.set_column(index, field, pa.nulls(table.num_rows, pa.string()))

    for name in flagged.store.names("catalogue/dataset"):
        if "Npix=" in name:
            rewrite(flagged, name, unnamed)
    [fault] = verify(flagged)
    assert fault == f"catalogue/dataset: {NAME} of 1 rows is not as in {KNOWN}"


def test_a_catalogue_from_before_there_was_such_a_column_is_in_order(
    flagged: RunDirectory, published: object
) -> None:
    shutil.rmtree(flagged.store.local_path("catalogue"))
    shutil.copytree(f"{published}/catalogue", flagged.store.local_path("catalogue"))
    assert NAME not in flagged.read_part(one(flagged, "catalogue/dataset", ".parquet")).column_names
    assert verify(flagged) == []


def test_a_run_that_scored_nothing_has_no_catalogue_to_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenspipe.report._pictures", lambda *_: (None, None))
    run = RunDirectory(str(tmp_path))
    commit_select(run, 0, 0, {"cut:red:false": 30})
    lens = dict.fromkeys((field.name for field in LISTED), "told") | {"ra": 10.0, "dec": 20.0}
    table = pa.Table.from_pylist([lens], schema=pa.schema(LISTED))
    publish(run, replace(SETTINGS, known=KnownList(table, 2.0, "0123")), stamps)
    assert run.store.exists(KNOWN)
    assert list(check_flagged(run)) == []

"""Columns of the survey's catalogue that candidates bring along."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from lenspipe.catalogue.kept_columns import check_kept, with_kept
from lenspipe.errors import InputError

SOURCES = pa.table(
    {
        "object_id": [4, 1, 9],
        "z": pa.array([0.5, None, 0.7], pa.float32()),
        "n": pa.array([1, 2, None], pa.int16()),
        "whole": pa.array([2**53 + 1, 1, 2], pa.int64()),
        "kind": ["LRG", None, "QSO"],
        "good": [True, False, None],
        "mag": pa.array([Decimal("19.25"), None, Decimal("20.50")], pa.decimal128(6, 2)),
    }
)


def test_values_come_by_id_and_missing_ones_are_nan_or_empty() -> None:
    table = pa.table({"object_id": pa.chunked_array([[9], [4, 1]]), "score": [3.0, 2.0, 1.0]})
    found = with_kept(table, SOURCES, ["z", "n", "whole", "kind", "good", "mag"])
    assert found["z"].type == pa.float32()
    np.testing.assert_array_equal(found["z"].to_numpy(), np.array([0.7, 0.5, np.nan], np.float32))
    np.testing.assert_array_equal(found["n"].to_numpy(), [np.nan, 1, 2])
    assert found["whole"].to_pylist() == [2, 2**53 + 1, 1]
    assert found["kind"].to_pylist() == ["QSO", "LRG", ""]
    np.testing.assert_array_equal(found["good"].to_numpy(), [np.nan, 1, 0])
    np.testing.assert_array_equal(found["mag"].to_numpy(), [20.5, 19.25, np.nan])
    assert found["score"].to_pylist() == [3.0, 2.0, 1.0]


def test_a_candidate_that_the_plan_does_not_have_has_none() -> None:
    found = with_kept(pa.table({"object_id": [7]}), SOURCES, ["z", "kind"])
    assert np.isnan(found["z"][0].as_py())
    assert found["kind"].to_pylist() == [""]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["score"], "that candidates do not have anyway, found score"),
        (["ra"], "that candidates do not have anyway"),
        (["grade"], "that candidates do not have anyway"),
        (["z", "z"], "each column once, found z 2 times"),
        (["a/b"], "names of at most 60 characters without /"),
        (["zarr.json"], "names of at most 60"),
        (["x" * 61], "names of at most 60"),
        (["back\\slash"], "names of at most 60"),
        (["Flags"], "that candidates do not have anyway"),
        (["z", "Z"], "each column once"),
        (["when"], "column when: expected numbers, text or booleans, found timestamp"),
    ],
)
def test_what_candidates_cannot_hold_is_refused(names: list[str], said: str) -> None:
    others = ["a/b", "zarr.json", "x" * 61, "back\\slash", "Flags", "Z"]
    fields = [*SOURCES.schema, *(pa.field(name, pa.int8()) for name in others)]
    fields.append(pa.field("when", pa.timestamp("s")))
    with pytest.raises(InputError, match=rf"^sources\.keep_columns.*{said}"):
        check_kept(names, pa.schema(fields))

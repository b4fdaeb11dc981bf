"""The photometry network: its features by hand, its scores, its rule of keeping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenspipe.errors import InputError
from lenspipe.models.card import Feature
from lenspipe.select.photometry import (
    BATCH_SIZE,
    PhotometryNetwork,
    feature_columns,
    feature_matrix,
    keeps,
    threshold_for_fraction,
)
from tests import toy_models

FEATURES = (
    Feature(kind="colour", a="g", b="r", mean=0.5, scale=2.0, fill=-1.0),
    Feature(kind="magnitude", a="i", mean=20.0, scale=2.0),
    Feature(kind="error", a="i_err", fill=3.0),
    Feature(kind="missing", a="g"),
)
WEIGHTS = [1.0, -0.5, 0.25, 2.0]


def _table() -> pa.Table:
    return pa.table(
        {
            "g": pa.array([22.0, None, 21.0, float("nan")], pa.float32()),
            "r": pa.array([20.5, 20.0, float("inf"), 1.0], pa.float32()),
            "i": pa.array([20, 22, 24, None], pa.int16()),
            "i_err": pa.array([0.1, None, 0.3, 0.4], pa.float64()),
        }
    )


def test_features_are_what_the_card_says() -> None:
    expected = [[0.5, 0.0, 0.1, 0.0], [-1.0, 1.0, 3.0, 1.0], [-1.0, 2.0, 0.3, 0.0], [-1, 0, 0.4, 1]]
    found = feature_matrix(FEATURES, _table())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert feature_columns(FEATURES) == ("g", "r", "i", "i_err")


def test_a_colour_without_its_second_column_is_refused() -> None:
    with pytest.raises(InputError, match="second column"):
        feature_matrix([Feature(kind="colour", a="g")], _table())


def test_scores_do_not_depend_on_batches(tmp_path: Path) -> None:
    toy_models.make_photometry(tmp_path / "p.onnx", features=FEATURES, weights=WEIGHTS, bias=0.5)
    network = PhotometryNetwork.load(tmp_path / "p.onnx")
    rows = 2 * BATCH_SIZE + 7
    rng = np.random.default_rng(0)
    table = pa.table({name: rng.normal(20, 1, rows) for name in network.columns})
    expected = feature_matrix(FEATURES, table).astype(np.float64) @ np.array(WEIGHTS) + 0.5
    scores = network.score(table)
    # float32 products of four terms of order ten: a few units in the last place
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    # The padding of the last batch is no part of a row's result.
    np.testing.assert_array_equal(network.score(table.slice(rows - 3)), scores[-3:])
    assert len(network.score(table.slice(0, 0))) == 0


def test_an_image_network_is_refused(tmp_path: Path) -> None:
    toy_models.make_member(tmp_path / "cnn.onnx")
    with pytest.raises(InputError, match="photometry network"):
        PhotometryNetwork.load(tmp_path / "cnn.onnx")


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(-50, 50), min_size=1, max_size=60),
    fraction=st.floats(0.001, 1.0),
)
def test_a_fraction_keeps_that_many_or_fewer_where_scores_are_equal(
    scores: list[int], fraction: float
) -> None:
    values = np.array(scores, np.float32)
    threshold = threshold_for_fraction(values, fraction)
    kept, asked = int(keeps(values, threshold).sum()), round(fraction * len(values))
    assert kept <= asked
    # Only rows that tie with the threshold may be missing.
    assert asked - kept <= int((values == np.float32(threshold)).sum())


def test_distinct_scores_keep_the_fraction_exactly() -> None:
    values = np.random.default_rng(0).permutation(1000).astype(np.float32)
    threshold = threshold_for_fraction(values, 0.05)
    assert sorted(values[keeps(values, threshold)]) == list(range(950, 1000))
    assert keeps(values, threshold_for_fraction(values, 1.0)).all()


def test_no_scores_give_a_threshold_that_rejects_nothing() -> None:
    assert threshold_for_fraction(np.array([np.nan], np.float32), 0.5) == -np.inf

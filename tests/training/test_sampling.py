"""What batches are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lenspipe.errors import InputError
from training.data import Examples
from training.recipe import Sampling
from training.sampling import epoch_rows

KINDS = np.array(["lens"] * 10 + ["ring"] * 30 + ["star"] * 60)
SET = Examples({}, (KINDS == "lens").astype(np.uint8), KINDS, "toy", "")


def drawn(sampling: Sampling | None, seed: int = 0, batch_size: int = 8) -> np.ndarray:
    return epoch_rows(SET, sampling, batch_size, torch.Generator().manual_seed(seed)).numpy()


def test_without_a_rule_every_row_comes_once() -> None:
    rows = drawn(None)
    assert rows.shape == (12, 8)
    assert len(np.unique(rows)) == 96
    assert np.array_equal(drawn(None, batch_size=500), drawn(None, batch_size=100))


def test_each_batch_has_its_lenses_and_each_lens_its_turn() -> None:
    rows = drawn(Sampling(lens_fraction=0.5))
    assert (SET.positive[rows].sum(axis=1) == 4).all()
    lenses, counts = np.unique(rows[SET.positive[rows]], return_counts=True)
    assert len(lenses) == 10
    assert set(counts.tolist()) <= {4, 5}  # 48 places for 10 lenses
    others = rows[~SET.positive[rows]]
    assert len(np.unique(others)) == len(others) == 48


def test_kinds_come_by_their_weights() -> None:
    rows = np.concatenate(
        [drawn(Sampling(kinds={"ring": 4.0, "star": 0.5}), seed) for seed in range(20)]
    )
    kinds = KINDS[rows[~SET.positive[rows]]]
    share = (kinds == "ring").mean()  # of 30 * 4 against 60 * 0.5
    assert share == pytest.approx(0.8, abs=0.04)  # 960 draws: scatter 0.013
    never = drawn(Sampling(kinds={"star": 0.0}))
    assert "star" not in KINDS[never]


def test_a_seed_is_an_order() -> None:
    sampling = Sampling(kinds={"ring": 2.0})
    assert np.array_equal(drawn(sampling, 1), drawn(sampling, 1))
    assert not np.array_equal(drawn(sampling, 1), drawn(sampling, 2))


def test_batches_of_one_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"sampling\.lens_fraction: expected lenses and others"):
        drawn(Sampling(lens_fraction=0.01))
    with pytest.raises(InputError, match=r"sampling\.kinds"):
        drawn(Sampling(kinds={"ring": 0.0, "star": 0.0}))

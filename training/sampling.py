"""Which rows each batch of an epoch is made of, by a generator alone."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Generator, Tensor

from lenspipe.errors import InputError
from training.data import Examples
from training.recipe import Sampling


def epoch_rows(
    examples: Examples, sampling: Sampling | None, batch_size: int, generator: Generator
) -> Int64[Tensor, "step batch"]:
    """Rows of each step, on the generator's device; the same on every process of a group.

    Without `sampling`: every row once in random order, but for the rest that fills no batch. With
    it: so many lenses in each batch and the rest others. Each of the two goes through all of its
    rows before one comes again; with weights by kind, rows are drawn anew each time.
    """
    steps = max(1, len(examples) // batch_size)
    if sampling is None:
        return _plain(len(examples), steps, batch_size, generator)
    lenses = lenses_per_batch(sampling, batch_size)
    parts = [
        _drawn(examples, examples.positive, sampling, (steps, lenses), generator),
        _drawn(examples, ~examples.positive, sampling, (steps, batch_size - lenses), generator),
    ]
    return torch.cat(parts, dim=1)


def lenses_per_batch(sampling: Sampling, batch_size: int) -> int:
    """Whole lenses of each batch. InputError where a batch would be of one class."""
    lenses = round(sampling.lens_fraction * batch_size)
    if not 0 < lenses < batch_size:
        raise InputError(
            "sampling.lens_fraction",
            f"lenses and others in each batch of {batch_size}",
            f"{sampling.lens_fraction:g}",
        )
    return lenses


def _plain(
    rows: int, steps: int, batch_size: int, generator: Generator
) -> Int64[Tensor, "step batch"]:
    order = torch.randperm(rows, generator=generator, device=generator.device)
    return order[: steps * batch_size].reshape(steps, -1)


def _drawn(
    examples: Examples,
    chosen: np.ndarray,
    sampling: Sampling,
    shape: tuple[int, int],
    generator: Generator,
) -> Int64[Tensor, "step share"]:
    rows = np.flatnonzero(chosen)
    weights = _weights(examples.kinds[rows], sampling)
    wanted, alike = shape[0] * shape[1], len(np.unique(weights)) == 1
    found = (
        _in_turn(len(rows), wanted, generator) if alike else _by_weight(weights, wanted, generator)
    )
    return torch.from_numpy(rows).to(generator.device)[found].reshape(shape)


def _weights(kinds: np.ndarray, sampling: Sampling) -> Float64[np.ndarray, " n"]:
    found: Float64[np.ndarray, " n"] = np.ones(len(kinds))
    for kind, weight in sampling.kinds.items():
        found[kinds == kind] = weight
    if not found.any():
        raise InputError("sampling.kinds", "a weight above 0 in each class", "none")
    return found


def _in_turn(rows: int, wanted: int, generator: Generator) -> Int64[Tensor, " wanted"]:
    rounds = -(-wanted // rows)
    orders = [
        torch.randperm(rows, generator=generator, device=generator.device) for _ in range(rounds)
    ]
    return torch.cat(orders)[:wanted]


def _by_weight(
    weights: Float64[np.ndarray, " n"], wanted: int, generator: Generator
) -> Int64[Tensor, " wanted"]:
    # torch.multinomial takes no more than 2^24 rows; the inverse of the sum takes any number.
    edges = torch.from_numpy(np.cumsum(weights) / weights.sum()).to(generator.device)
    drawn = torch.rand(wanted, generator=generator, device=generator.device, dtype=torch.float64)
    found: Tensor = torch.searchsorted(edges, drawn, right=True).clamp(max=len(weights) - 1)
    return found

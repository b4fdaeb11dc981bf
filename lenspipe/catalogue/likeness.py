"""Which candidates an ensemble sees alike: one find leads to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32, Float64, Int64

from lenspipe.catalogue.candidates import EMBEDDING, MEMBERS, array_of


def open_likeness(group: zarr.Group) -> Likeness | None:
    """Of a run's candidates; None where no member of its ensemble has features."""
    if EMBEDDING not in group:
        return None
    array = array_of(group, EMBEDDING)
    told: Any = array.attrs[MEMBERS]
    values = np.asarray(array[:], np.float32)
    return Likeness(values, [(str(name), int(width)) for name, width in told])


class Likeness:
    """Which rows an ensemble sees alike: those whose features point the same way. Every feature
    counts by its spread over the rows, and every member as much as another, however many features
    it has."""

    def __init__(
        self, embedding: Float32[np.ndarray, "n d"], members: Sequence[tuple[str, int]]
    ) -> None:
        if sum(width for _, width in members) != embedding.shape[1]:
            raise ValueError(f"expected features of {members}, found {embedding.shape[1]}")
        self._known = np.isfinite(embedding).all(axis=1)
        features: Float64[np.ndarray, "n d"] = np.where(self._known[:, None], embedding, 0.0)
        inside = features[self._known]
        if len(inside):
            spread = inside.std(axis=0)
            features = (features - inside.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
        counts = np.concatenate([np.full(width, width) for _, width in members])
        scaled = features / np.sqrt(counts)
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
        self._features = (scaled / np.where(lengths > 0, lengths, np.inf)).astype(np.float32)

    def nearest(self, row: int, count: int) -> Int64[np.ndarray, " k"]:
        """Rows that are most like `row`, without itself, the nearest first; none where nothing is
        known of it."""
        if not self._known[row]:
            return np.empty(0, np.int64)
        away = 1.0 - self._features @ self._features[row]
        away[~self._known] = np.inf
        away[row] = np.inf
        order = np.argsort(away, kind="stable")[:count]
        found: Int64[np.ndarray, " k"] = order[np.isfinite(away[order])].astype(np.int64)
        return found

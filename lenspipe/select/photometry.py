"""Stage 2 of the pre-filter: a network on magnitudes, colours and errors.

`feature_matrix` is the one definition of its input; training imports it from here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float32, Float64

from lenspipe.errors import InputError
from lenspipe.models.card import Feature, ModelCard
from lenspipe.models.session import FEATURES, Member

BATCH_SIZE = 4096


class PhotometryNetwork:
    """A photometry network that is ready to score tables. Safe to call from several threads."""

    def __init__(self, member: Member) -> None:
        if member.card.task != "photometry" or not member.card.features:
            raise InputError(
                f"model {member.path}", "a photometry network with features", member.card.task
            )
        self._member = member
        self._lock = threading.Lock()  # a member's batch buffers serve one thread at a time
        self.columns = feature_columns(member.card.features)

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> PhotometryNetwork:
        """Open a network on the CPU; InputError where file, card and graph do not agree."""
        return cls(Member.load(path, provider="cpu", threads=threads, batch_size=BATCH_SIZE))

    @property
    def card(self) -> ModelCard:
        """The network's model card."""
        return self._member.card

    def features(self, table: pa.Table) -> Float32[np.ndarray, "n f"]:
        """The network's input for a table that has `columns`."""
        return feature_matrix(self.card.features, table)

    def score(self, table: pa.Table) -> Float32[np.ndarray, " n"]:
        """Logit per row; NaN where the network gave none."""
        features = self.features(table)
        with self._lock:
            return self._member.predict({FEATURES: features})


def feature_columns(features: Sequence[Feature]) -> tuple[str, ...]:
    """Columns that `features` are computed from, each once, in the order of first use."""
    names = (name for feature in features for name in (feature.a, feature.b) if name is not None)
    return tuple(dict.fromkeys(names))


def feature_matrix(features: Sequence[Feature], table: pa.Table) -> Float32[np.ndarray, "n f"]:
    """The card's features of each row (mag or none), standardised.

    A value is missing where a column that it needs is NULL or not finite; it becomes the feature's
    `fill`. So the result is finite.
    """
    columns = {name: _values(table.column(name)) for name in feature_columns(features)}
    matrix = np.empty((table.num_rows, len(features)), np.float32)
    for k, feature in enumerate(features):
        matrix[:, k] = _feature(feature, columns)
    return matrix


def threshold_for_fraction(scores: Float32[np.ndarray, " n"], fraction: float) -> float:
    """Logit that `round(fraction * n)` of the scores lie above; fewer where scores are equal.

    -inf where no score is a number. As an estimate from a sample its relative error in the
    surviving fraction is about 1 / sqrt(fraction * n).
    """
    finite = np.sort(scores[np.isfinite(scores)])[::-1]
    kept = round(fraction * len(finite))
    return float(finite[kept]) if kept < len(finite) else float("-inf")


def keeps(scores: Float32[np.ndarray, " n"], threshold: float) -> Bool[np.ndarray, " n"]:
    """The rule of stage 2: a row stays where its logit lies above the threshold."""
    return np.asarray(scores.astype(np.float64) > threshold)


def _values(column: pa.ChunkedArray) -> Float64[np.ndarray, " n"]:
    """Numbers of a column, NaN where missing."""
    values = pc.cast(column, pa.float64(), safe=False)
    if values.null_count:
        values = pc.fill_null(values, float("nan"))
    numbers = np.asarray(values.to_numpy())
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _feature(
    feature: Feature, columns: dict[str, Float64[np.ndarray, " n"]]
) -> Float64[np.ndarray, " n"]:
    raw = _raw(feature, columns)
    return np.where(np.isnan(raw), feature.fill, (raw - feature.mean) / feature.scale)


def _raw(
    feature: Feature, columns: dict[str, Float64[np.ndarray, " n"]]
) -> Float64[np.ndarray, " n"]:
    a = columns[feature.a]
    if feature.kind == "missing":
        return np.asarray(np.isnan(a), np.float64)
    if feature.kind == "colour":
        if feature.b is None:
            raise InputError(f"features.{feature.a}", "a second column of the colour", "none")
        return np.asarray(a - columns[feature.b])
    return np.asarray(a)

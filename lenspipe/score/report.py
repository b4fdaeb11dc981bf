"""The page beside the scores of `lenspipe score`: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float64, Int64

from lenspipe.contracts import InputSpec
from lenspipe.cutouts.base import Reader
from lenspipe.models.card import Threshold
from lenspipe.pages.colour import asinh_rgb, band_weights
from lenspipe.pages.figures import Histogram, Picture, score_picture, stamp_png
from lenspipe.pages.page import Stamp, page_environment
from lenspipe.score.groups import GroupCount, GroupTable

BEST = 100
SMALL_GROUP = 12  # of a group of so many rows every member is shown
_ENDS = 6  # best and worst that are shown of a larger one
_BATCH_ROWS = 512


@dataclass(frozen=True)
class RowScores:
    """What became of every row of the catalogue. score, probability: NaN where there is none;
    reason: of a failure, else empty."""

    score: Float64[np.ndarray, " n"]
    probability: Float64[np.ndarray, " n"]
    reason: Sequence[str]

    @property
    def ranked(self) -> Int64[np.ndarray, " k"]:
        """Scored rows, the best first; equal scores in the order of the catalogue."""
        order = np.argsort(-self.score, kind="stable")
        return np.asarray(order[: int(np.isfinite(self.score).sum())])


@dataclass(frozen=True)
class ScoreReport:
    """What the page says besides pictures. facts: (name, text); failed: (reason, rows).

    prevalence: fraction of lenses that the probabilities hold at.
    """

    name: str
    ensemble: str
    facts: Sequence[tuple[str, str]]
    thresholds: Sequence[Threshold]
    prevalence: float | None
    failed: Sequence[tuple[str, int]]
    groups: GroupTable | None
    best: int = BEST


@dataclass(frozen=True)
class GroupStamps:
    """Pictures of one group: (title, stamps) each."""

    group: GroupCount
    parts: Sequence[tuple[str, Sequence[Stamp]]]


def row_scores(sources: pa.Table, first: Int64[np.ndarray, " k"], *tables: pa.Table) -> RowScores:
    """Scores and failures, put back on the rows of the catalogue.

    first: rows whose id no earlier row has; the others were never scored. tables: scores, failures.
    """
    scores, failures = tables
    rows = first[_positions(sources["object_id"].take(pa.array(first)), scores["object_id"])]
    columns = {name: np.full(sources.num_rows, np.nan) for name in ("score", "probability")}
    for name, column in columns.items():
        column[rows] = scores[name].to_numpy()
    told = dict(zip(failures["object_id"].to_pylist(), failures["reason"].to_pylist(), strict=True))
    reason = [
        "" if np.isfinite(score) else str(told.get(object_id, "failed")).replace("_", " ")
        for score, object_id in zip(columns["score"], sources["object_id"].to_pylist(), strict=True)
    ]
    return RowScores(columns["score"], columns["probability"], reason)


def _positions(among: pa.ChunkedArray, wanted: pa.ChunkedArray) -> Int64[np.ndarray, " k"]:
    found = pc.index_in(wanted, value_set=among.combine_chunks())
    return np.asarray(found.to_numpy(), np.int64)


def render_report(
    report: ScoreReport,
    sources: pa.Table,
    scores: RowScores,
    reader: Reader,
    inputs: Sequence[InputSpec],
) -> str:
    """The page. Pixels of the rows that it shows are read once more."""
    ranked = scores.ranked
    rank = np.zeros(sources.num_rows, np.int64)
    rank[ranked] = np.arange(1, len(ranked) + 1)
    best = ranked[: report.best].tolist()
    chosen = (
        [(group, _chosen(group, rank)) for group in report.groups.groups] if report.groups else []
    )
    shown = {row for _, parts in chosen for _, rows in parts for row in rows} | set(best)
    spec = colour_input(inputs)
    pictures = _pictures(reader, sources, sorted(shown), inputs, spec)
    ids = sources["object_id"]

    def stamp(row: int) -> Stamp:
        scored = rank[row] > 0
        return Stamp(
            rank=int(rank[row]),
            object_id=str(ids[row].as_py()),
            score=float(scores.score[row]) if scored else None,
            probability=float(scores.probability[row]) if scored else None,
            picture=pictures.get(row),
            note=scores.reason[row],
        )

    galleries = [
        GroupStamps(group, [(title, [stamp(row) for row in rows]) for title, rows in parts])
        for group, parts in chosen
    ]
    return (
        page_environment()
        .get_template("score_report.html")
        .render(
            report=report,
            rows=sources.num_rows,
            scored=len(ranked),
            passing=[(t, int((scores.score > t.score).sum())) for t in report.thresholds],
            best=[stamp(row) for row in best],
            galleries=galleries,
            histogram=_histogram(scores.score[ranked], report.thresholds),
            bands=spec.bands,
        )
    )


def colour_input(inputs: Sequence[InputSpec]) -> InputSpec:
    """The image that pictures are made of: with the most bands, of several the largest."""
    return max(inputs, key=lambda spec: (min(len(spec.bands), 3), spec.size_pixels))


def _chosen(group: GroupCount, rank: Int64[np.ndarray, " n"]) -> list[tuple[str, list[int]]]:
    """(title, rows) of a group's pictures: all of a small one, the ends of a larger one. Failed
    rows come last in a small group and are not shown of a larger one."""
    ordered = sorted(group.members.tolist(), key=lambda row: (rank[row] == 0, rank[row]))
    if group.rows <= SMALL_GROUP:
        return [("all", ordered)]
    scored = ordered[: group.scored]
    ends = max(len(scored) - _ENDS, _ENDS)
    return [("best", scored[:_ENDS]), ("worst", scored[ends:])]


def _pictures(
    reader: Reader,
    sources: pa.Table,
    rows: Sequence[int],
    inputs: Sequence[InputSpec],
    spec: InputSpec,
) -> dict[int, str]:
    """Row of the catalogue -> its picture, for those whose pixels can be read."""
    images: dict[int, np.ndarray] = {}
    for start in range(0, len(rows), _BATCH_ROWS):
        part = np.asarray(rows[start : start + _BATCH_ROWS])
        batch = reader.read(sources.take(pa.array(part)), inputs)
        images.update(zip(part[batch.rows].tolist(), batch.images[spec.name], strict=True))
    if not images:
        return {}
    weights = band_weights(np.stack(list(images.values())))
    return {row: stamp_png(asinh_rgb(image, weights)) for row, image in images.items()}


def _histogram(score: Float64[np.ndarray, " k"], thresholds: Iterable[Threshold]) -> Picture | None:
    if not len(score):
        return None
    rows, edges = np.histogram(score, bins=int(np.clip(2 * np.sqrt(len(score)), 10, 90)))
    marks = {f"FPR {t.fpr:g}: score > {t.score:.3g}": t.score for t in thresholds}
    return score_picture(Histogram(edges.astype(np.float64), rows.astype(np.int64)), marks)

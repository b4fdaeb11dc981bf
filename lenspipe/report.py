"""The run's page: one HTML file that needs nothing beside it, made from the run's files alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr

from lenspipe.catalogue.candidates import IMAGES, Rule, array_of, open_candidates
from lenspipe.catalogue.funnel import Funnel, funnel
from lenspipe.catalogue.hats import scored_files
from lenspipe.catalogue.known import Known, KnownAt, read_known
from lenspipe.errors import CorruptRunError, one_line
from lenspipe.pages.colour import asinh_rgb, band_weights
from lenspipe.pages.figures import Histogram, Picture, Sky, score_picture, sky_picture, stamp_png
from lenspipe.pages.known import known_section
from lenspipe.pages.page import Stamp, page_environment
from lenspipe.pages.sky_map import Rows, choose_order, count_cells, extent
from lenspipe.run_directory import (
    CANDIDATES,
    CATALOGUE,
    FUNNEL,
    REPORT,
    RUN,
    STAGES,
    RunDirectory,
    ShardRecord,
    Stage,
)
from lenspipe.storage.external_sort import stream

_BINS = 90
_LONGEST_LIST = 12


@dataclass(frozen=True)
class Step:
    """One row of the funnel. share: length of its bar, 0 to 1, logarithmic. note: on `removed`."""

    name: str
    left: int
    share: float
    removed: int | None = None
    note: str = ""


@dataclass(frozen=True)
class StageTime:
    """What one stage cost, summed over its workers (s)."""

    stage: str
    shards: int
    rows: int
    seconds: dict[str, float]

    @property
    def rate(self) -> float | None:
        """Rows per second of one worker."""
        total = sum(self.seconds.values())
        return self.rows / total if total > 0 else None


@dataclass(frozen=True)
class FailureReason:
    """Failures of one reason. example: what was found for one of them."""

    reason: str
    rows: int
    example: str


@dataclass(frozen=True)
class CandidateSet:
    """What the report shows of `candidates.zarr`."""

    rule: Rule | None
    total: int
    stamps: Sequence[Stamp]
    bands: Sequence[str]
    ra: np.ndarray
    dec: np.ndarray


def write_report(run: RunDirectory, mosaic: int = 100) -> str:
    """Write RUN/report/index.html from what is committed and published; returns its name.

    mosaic: how many of the best candidates are shown. CorruptRunError where catalogue,
    candidates or funnel are damaged.
    """
    identity = run.read_json(RUN) or {}
    known = read_known(run)
    with _reading(run, CANDIDATES):
        candidates = _candidates(open_candidates(run), mosaic, known)
    counted = _funnel(run)
    histogram, sky = _pictures(run, candidates)
    page = (
        page_environment()
        .get_template("report.html")
        .render(
            name=_name(identity),
            heading=list(_heading(identity)),
            funnel=counted,
            steps=list(_steps(counted)),
            candidates=candidates,
            known=None if known is None else known_section(known),
            histogram=histogram,
            sky=sky,
            failures=_failures(run, counted),
            times=[_time(stage, run.commits(stage)) for stage in STAGES],
            facts=_facts(identity),
        )
    )
    run.store.write(REPORT, page.encode())
    return REPORT


@contextmanager
def _reading(run: RunDirectory, product: str) -> Iterator[None]:
    """One line for a product that cannot be read."""
    try:
        yield
    except Exception as error:
        if not run.store.is_loss(error):
            raise
        told = f"cannot be read: {type(error).__name__}: {error}"
        raise CorruptRunError(f"{product}: {one_line(told)}: lenspipe run makes it anew") from error


def _name(identity: Mapping[str, Any]) -> str:
    survey = identity.get("survey")
    return str(survey["name"]) if isinstance(survey, dict) and "name" in survey else "lenspipe run"


def _heading(identity: Mapping[str, Any]) -> Iterator[str]:
    yield "Strong-lens search"
    if "state" in identity:
        yield str(identity["state"]).replace("_", " ")
    if "updated" in identity:
        yield f"{str(identity['updated'])[:16].replace('T', ' ')} UTC"


def _funnel(run: RunDirectory) -> Funnel:
    content = run.read_json(FUNNEL)
    if content is None:
        return funnel(run)
    with _reading(run, FUNNEL):
        return Funnel.model_validate(content)


def _steps(counted: Funnel) -> Iterator[Step]:
    left = whole = counted.sources_in
    yield Step("sources", left, _share(left, whole))
    for name, cut in counted.cuts.items():
        left -= cut.removed
        note = f"{cut.unknown:,} for a missing value" if cut.unknown else ""
        yield Step(f"cut: {name}", left, _share(left, whole), cut.removed, note)
    left -= counted.rejected
    yield Step("photometry network", left, _share(left, whole), counted.rejected)
    note = "failed" if counted.failed else ""
    yield Step("scored", counted.scored, _share(counted.scored, whole), counted.failed, note)
    yield Step("candidates", counted.candidates, _share(counted.candidates, whole))


def _share(left: int, whole: int) -> float:
    return float(np.log1p(left) / np.log1p(whole)) if whole else 0.0


def _candidates(group: zarr.Group | None, mosaic: int, known: Known | None) -> CandidateSet | None:
    if group is None:
        return None
    columns = {
        name: np.asarray(array_of(group, name)[:])
        for name in ("object_id", "ra", "dec", "score", "probability", "has_stamp")
    }
    pixels = _colour_array(group)
    rule = group.attrs.get("rule")
    return CandidateSet(
        rule=None if rule is None else Rule.model_validate(rule),
        total=int(str(group.attrs["candidates"])),
        stamps=_stamps(columns, pixels, min(mosaic, len(columns["ra"])), known),
        bands=[] if pixels is None else _bands(pixels),
        ra=columns["ra"],
        dec=columns["dec"],
    )


def _bands(pixels: zarr.Array[Any]) -> list[str]:
    attributes: dict[str, Any] = dict(pixels.attrs)
    return [str(band) for band in attributes["bands"]]


def _colour_array(group: zarr.Group) -> zarr.Array[Any] | None:
    """The images with the most bands; of several the sharpest."""
    images = group.require_group(IMAGES)
    arrays = [array for _, array in sorted(images.arrays())]
    return max(arrays, key=lambda array: (min(array.shape[1], 3), array.shape[2]), default=None)


def _stamps(
    columns: Mapping[str, np.ndarray],
    pixels: zarr.Array[Any] | None,
    n: int,
    known: Known | None,
) -> list[Stamp]:
    images = None if pixels is None else np.asarray(pixels[:n])
    weights = None if images is None else band_weights(images)
    notes = _notes(columns, n, known)
    stamps = []
    for row in range(n):
        picture = None
        if images is not None and weights is not None and columns["has_stamp"][row]:
            picture = stamp_png(asinh_rgb(images[row], weights))
        stamps.append(
            Stamp(
                rank=row + 1,
                object_id=str(columns["object_id"][row]),
                score=float(columns["score"][row]),
                probability=float(columns["probability"][row]),
                picture=picture,
                note=notes[row],
            )
        )
    return stamps


def _notes(columns: Mapping[str, np.ndarray], n: int, known: Known | None) -> list[str]:
    """What is said below each of the first stamps."""
    if known is None:
        return [""] * n
    ra_deg, dec_deg = (columns[name][:n] for name in ("ra", "dec"))
    names = KnownAt(known.table, known.radius_arcsec).names(ra_deg, dec_deg)
    return ["" if name is None else f"known: {name}" for name in names]


def _pictures(
    run: RunDirectory, candidates: CandidateSet | None
) -> tuple[Picture | None, Picture | None]:
    parts = run.part_names("scores", run.commits("score"))
    if not parts:
        return None, None
    rule = None if candidates is None else candidates.rule
    none = np.zeros(0)
    ra, dec = (none, none) if candidates is None else (candidates.ra, candidates.dec)

    with _reading(run, CATALOGUE):
        files = scored_files(run, parts)

    def rows(columns: Sequence[str]) -> Iterator[pa.Table]:
        with nullcontext() if files is parts else _reading(run, CATALOGUE):
            yield from stream(run, files, columns)

    histogram = _histogram(rows)
    field = extent(rows)
    counts = count_cells(rows, choose_order(field, int(histogram.rows.sum())))
    return score_picture(histogram, _marks(rule)), sky_picture(Sky(field, counts, ra, dec))


def _marks(rule: Rule | None) -> dict[str, float]:
    if rule is None or rule.score_above is None:
        return {}
    return {f"candidates: score > {rule.score_above:.3g}": rule.score_above}


def _histogram(rows: Rows) -> Histogram:
    ends = [pc.min_max(table["score"]).as_py() for table in rows(["score"])]
    low, high = min(end["min"] for end in ends), max(end["max"] for end in ends)
    width = (high - low) / _BINS or 1.0
    counted = np.zeros(_BINS, np.int64)
    for table in rows(["score"]):
        bins = (table["score"].to_numpy().astype(float) - low) // width
        counted += np.bincount(np.minimum(bins, _BINS - 1).astype(np.int64), minlength=_BINS)
    return Histogram(edges=low + width * np.arange(_BINS + 1), rows=counted)


def _failures(run: RunDirectory, counted: Funnel) -> list[FailureReason]:
    parts = [name for stage in STAGES for name in run.part_names("failures", run.commits(stage))]
    examples: dict[str, str] = {}
    for table in stream(run, parts, ["reason", "detail"]):
        told = table.filter(pc.not_equal(table["detail"], ""))
        least = told.group_by("reason").aggregate([("detail", "min")])
        for reason, detail in zip(
            least["reason"].to_pylist(), least["detail_min"].to_pylist(), strict=True
        ):
            examples[reason] = min(detail, examples.get(reason, detail))
    return [
        FailureReason(reason, rows, examples.get(reason, ""))
        for reason, rows in counted.reasons.items()
    ]


def _time(stage: Stage, records: Iterable[ShardRecord]) -> StageTime:
    seconds: dict[str, float] = {}
    shards = rows = 0
    for record in records:
        shards += 1
        rows += record.rows_in
        for step, spent in record.seconds.items():
            seconds[step] = seconds.get(step, 0.0) + spent
    return StageTime(stage, shards, rows, seconds)


def _facts(identity: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """run.json as (dotted key, text) by top-level key; single values come first, together."""
    single = [(key, str(value)) for key, value in identity.items() if not _nested(value)]
    facts = {"run": single} if single else {}
    for key, value in identity.items():
        if _nested(value):
            facts[key] = list(_flat(value))
    return facts


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        shown = ", ".join(map(str, value[:_LONGEST_LIST]))
        more = len(value) - _LONGEST_LIST
        yield path, f"{shown} … and {more} more" if more > 0 else shown
    elif value is not None:
        yield path, str(value)


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list)

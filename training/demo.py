"""What came out of the demo: the run's funnel, and how its candidates compare with the truth.

python -m training.demo SKY RUN
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import zarr
from jaxtyping import Bool, Float64, Int64

from lenspipe.catalogue.candidates import array_of
from lenspipe.config import load_survey
from lenspipe.errors import InputError
from lenspipe.proportion import clopper_pearson
from lenspipe.run_directory import CANDIDATES, CATALOGUE, FUNNEL, REPORT, RUN, RunDirectory
from lenspipe.select.cuts import compile_cuts
from lenspipe.select.sources import list_parts, open_view, read_part

THETA_E_BINS_ARCSEC = (0.5, 1.0, 1.5, 2.0, 4.0)
ARC_SNR_BINS = (0.0, 20.0, 30.0, 50.0, 1000.0)
_LABEL = 34


@dataclass(frozen=True)
class Outcome:
    """The imaged sources, and how far each came: truth columns with one flag per stage.

    Every flag implies the one before it.
    """

    kind: np.ndarray
    theta_e_arcsec: Float64[np.ndarray, " n"]
    arc_snr: Float64[np.ndarray, " n"]
    passed_cuts: Bool[np.ndarray, " n"]
    selected: Bool[np.ndarray, " n"]
    scored: Bool[np.ndarray, " n"]
    candidate: Bool[np.ndarray, " n"]

    @property
    def lens(self) -> Bool[np.ndarray, " n"]:
        """Which are lenses."""
        return np.asarray(self.kind == "lens")


def fraction(found: int, of: int) -> str:
    """`found/of = fraction [low, high]` with its 95% interval (Clopper and Pearson)."""
    if of == 0:
        return "0/0"
    low, high = clopper_pearson(found, of)
    return f"{found}/{of} = {found / of:.3f} [{low:.3f}, {high:.3f}]"


def read_outcome(sky: Path, run: RunDirectory) -> Outcome:
    """Join the truth with what the run kept at each stage."""
    truth = pq.read_table(sky / "truth.parquet")
    ids = truth["object_id"].to_numpy()
    passed, selected, scored = (
        np.isin(ids, kept)
        for kept in (ids_past_cuts(sky), _ids(run, "select"), _ids(run, "scores"))
    )
    return Outcome(
        kind=np.array(truth["kind"].to_pylist()),
        theta_e_arcsec=truth["theta_e_arcsec"].to_numpy(),
        arc_snr=truth["arc_snr"].to_numpy(),
        passed_cuts=passed,
        selected=selected,
        scored=scored,
        candidate=np.isin(ids, candidate_ids(run)),
    )


def ids_past_cuts(sky: Path) -> Int64[np.ndarray, " n"]:
    """Ids that the survey's cuts keep, by the rule that the run itself uses."""
    survey = load_survey(sky / "survey.yaml")
    view = open_view(survey.sources, survey.base)
    cuts = compile_cuts(survey.cuts, view.schema)
    kept = []
    for part in list_parts(survey.sources, survey.base):
        table = read_part(part, view, ["object_id", *cuts.columns])
        kept.append(table["object_id"].to_numpy()[cuts.apply(table).kept])
    return np.concatenate(kept)


def _ids(run: RunDirectory, folder: str) -> Int64[np.ndarray, " n"]:
    table = run.read_folder(folder, ["score" if folder == "scores" else "select"], ["object_id"])
    return np.zeros(0, np.int64) if table is None else np.asarray(table["object_id"].to_numpy())


def candidate_ids(run: RunDirectory) -> Int64[np.ndarray, " n"]:
    """Ids of the run's candidates."""
    group = zarr.open_group(f"{run.url}/{CANDIDATES}", mode="r")
    return np.asarray(array_of(group, "object_id")[:])


def funnel_lines(run: RunDirectory) -> Iterator[str]:
    """The run's own counts."""
    funnel = run.read_json(FUNNEL)
    if funnel is None:
        raise InputError("run", f"a finished run (with {FUNNEL})", run.url)
    yield f"{'sources':{_LABEL}}{funnel['sources_in']:>10,}"
    left = funnel["sources_in"]
    for name, count in funnel["cuts"].items():
        left -= count["false"] + count["unknown"]
        yield f"{'  after cut ' + name:{_LABEL}}{left:>10,}"
    yield f"{'  after photometry network':{_LABEL}}{funnel['selected']:>10,}"
    yield f"{'  scored':{_LABEL}}{funnel['scored']:>10,}"
    yield f"{'  candidates':{_LABEL}}{funnel['candidates']:>10,}"
    failures = ", ".join(f"{reason} {n}" for reason, n in funnel["reasons"].items()) or "none"
    yield f"{'  failed':{_LABEL}}{funnel['failed']:>10,}  ({failures})"


def stage_lines(outcome: Outcome) -> Iterator[str]:
    """Lenses left after each stage, and what the stage itself let through."""
    before = outcome.lens
    total = int(before.sum())
    yield f"{'lenses on the tiles':{_LABEL}}{total:>6}"
    for name in ("passed_cuts", "selected", "scored", "candidate"):
        after = before & getattr(outcome, name)
        share = fraction(int(after.sum()), int(before.sum()))
        yield f"{'  ' + name.replace('_', ' '):{_LABEL}}{after.sum():>6}   this stage {share}"
        before = after


def match_lines(outcome: Outcome) -> Iterator[str]:
    """Completeness and purity of the candidates, and what the false ones are."""
    lens, candidate = outcome.lens, outcome.candidate
    found = int((lens & candidate).sum())
    yield f"{'completeness':{_LABEL}}{fraction(found, int(lens.sum()))}"
    yield f"{'purity':{_LABEL}}{fraction(found, int(candidate.sum()))}"
    kinds, counts = np.unique(outcome.kind[candidate & ~lens], return_counts=True)
    order = np.argsort(-counts)
    false = ", ".join(f"{kinds[k]} {counts[k]}" for k in order) or "none"
    yield f"{'false candidates by kind':{_LABEL}}{false}"
    scored = outcome.scored & ~lens
    yield (
        f"{'false-positive rate of the scored':{_LABEL}}"
        f"{fraction(int((scored & candidate).sum()), int(scored.sum()))}"
    )


def binned_lines(
    outcome: Outcome, name: str, values: Float64[np.ndarray, " n"], edges: Sequence[float]
) -> Iterator[str]:
    """Completeness in bins of one of the lenses' parameters."""
    for low, high in pairwise(edges):
        inside = outcome.lens & (values >= low) & (values < high)
        found = int((inside & outcome.candidate).sum())
        label = f"  {name} {low:g} to {high:g}"
        yield f"{label:{_LABEL}}{fraction(found, int(inside.sum()))}"


def throughput_lines(run: RunDirectory) -> Iterator[str]:
    """Speed of the whole run by the wall clock, and where the scorers' time went."""
    identity = run.read_json(RUN)
    if identity is None:
        raise InputError("run", f"a run directory (with {RUN})", run.url)
    begun, ended = (datetime.fromisoformat(identity[key]) for key in ("created", "updated"))
    wall = max((ended - begun).total_seconds(), 1.0)
    records = run.records("score")
    rows = sum(record.rows_in for record in run.records("select"))
    cutouts = sum(record.cutouts for record in records)
    yield f"{'wall time':{_LABEL}}{wall:.0f} s"
    yield f"{'catalogue rows per second':{_LABEL}}{rows / wall:,.0f}"
    yield f"{'cutouts scored per second':{_LABEL}}{cutouts / wall:,.0f}"
    for step in sorted({step for record in records for step in record.seconds}):
        seconds = sum(record.seconds.get(step, 0.0) for record in records)
        yield f"{'  scorers: ' + step:{_LABEL}}{seconds:.1f} s"


def describe(sky: Path, url: str) -> str:
    """The whole text."""
    run = RunDirectory(url)
    outcome = read_outcome(sky, run)
    sections = (
        ("Funnel", funnel_lines(run)),
        ("Lenses lost at each stage", stage_lines(outcome)),
        (
            f"Candidates against truth (95% intervals, {len(outcome.kind):,} sources)",
            match_lines(outcome),
        ),
        (
            "Completeness by Einstein radius (arcsec)",
            binned_lines(outcome, "θ_E", outcome.theta_e_arcsec, THETA_E_BINS_ARCSEC),
        ),
        (
            "Completeness by S/N of the arcs",
            binned_lines(outcome, "S/N", outcome.arc_snr, ARC_SNR_BINS),
        ),
        ("Throughput", throughput_lines(run)),
        ("Where to look", _places(sky, url)),
    )
    return "\n\n".join("\n".join([title, *lines]) for title, lines in sections) + "\n"


def _places(sky: Path, url: str) -> Iterator[str]:
    yield f"{'catalogue (HATS)':{_LABEL}}{url}/{CATALOGUE}"
    yield f"{'report':{_LABEL}}{url}/{REPORT}"
    yield f"{'sky and truth':{_LABEL}}{sky}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.demo", description=__doc__)
    parser.add_argument("sky", type=Path)
    parser.add_argument("run", type=str)
    arguments = parser.parse_args()
    try:
        sys.stdout.write(describe(arguments.sky, arguments.run))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_status) from error


if __name__ == "__main__":
    main()

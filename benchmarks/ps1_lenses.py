"""How real Pan-STARRS1 lenses score, as Markdown: `python -m benchmarks.ps1_lenses`.

Training paints arcs on real galaxies of this set, and chooses thresholds on others. Which were
used is what the ensemble and its members' cards say (`seen`, `training.real_objects`); for what,
`training.simulate.real.split_of`. `--names` lists them. No lens whose arc shows, no quasar and no
supernova is ever among them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.errors import InputError
from lenspipe.models.card import Threshold
from lenspipe.models.ensemble import EnsembleDescription, describe_ensemble
from lenspipe.score.catalogue import read_catalogue
from lenspipe.score.groups import GroupCount, count_group, passing_text
from lenspipe.score.score_cutouts import score_cutouts
from training.simulate.hosts.ps1 import name_of
from training.simulate.real import split_of

ROOT = Path(__file__).parents[1]
FPRS = (1e-2, 1e-3)
HOSTS = "unresolved_galaxy_lens"  # the group that training takes galaxies from
KINDS = {
    "training": "galaxy lens, no arc visible; used in training as a host",
    "calibration": "galaxy lens, no arc visible; used for blend, calibration and thresholds",
    "never": "galaxy lens, no arc visible; not used in the making",
    "resolved": "galaxy lens, images 1.5–10″ apart, yet no arc visible; not used in the making",
    "lensed_quasars": "lensed quasar; not used",
    "lensed_supernovae": "lensed supernova; not used",
}


def main() -> None:
    """Score the folder and print the two tables, or the names of what was used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", default="ps1-gri", help="a name in the zoo or a path")
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "shared/data/ps1_lenses")
    parser.add_argument("--layout", type=Path, default=ROOT / "examples/ps1_lenses.yaml")
    parser.add_argument("--names", action="store_true", help="only list the objects used")
    options = parser.parse_args()
    ensemble = describe_ensemble(options.ensemble)
    used = used_objects(ensemble)
    catalogue = read_catalogue(options.folder / "ps1_catalogue.csv")
    check_known(used, catalogue)
    if options.names:
        print("\n".join(names(used, catalogue)))
        return
    thresholds = [ensemble.threshold(fpr) for fpr in FPRS]
    scores = score(options.ensemble, options.folder, options.layout, catalogue)
    print("\n".join([*visible_lenses(scores, thresholds), "", *kinds(scores, thresholds, used)]))


def used_objects(ensemble: EnsembleDescription) -> frozenset[str]:
    """Names of the real objects that the making of an ensemble and its members used."""
    cards = [member.card for member in ensemble.members]
    return frozenset(ensemble.spec.seen).union(*(card.training.real_objects for card in cards))


def names(used: Collection[str], catalogue: pa.Table) -> Iterator[str]:
    """What each used object was used for, and its name."""
    for row in sorted(catalogue.to_pylist(), key=name_of):
        if name_of(row) in used:
            yield f"{kind_of(row, used)}\t{name_of(row)}"


def check_known(used: Collection[str], catalogue: pa.Table) -> None:
    """InputError where an object that was used is a lens that the tables call never used."""
    hidden = [name_of(row) for row in catalogue.to_pylist() if kind_of(row, ()) != "never"]
    both = sorted(set(used) & set(hidden))
    if both:
        raise InputError("ensemble: seen", "only galaxies without visible arcs", ", ".join(both))


def score(ensemble: str, folder: Path, layout: Path, catalogue: pa.Table) -> pa.Table:
    """The catalogue with `score` and `probability`, NaN where a row failed."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "scores.parquet")
        score_cutouts(ensemble, folder, out, layout=layout, provider="cpu")
        rows = {row["object_id"]: row for row in pq.read_table(out).to_pylist()}
    for name in ("score", "probability"):
        found = [rows.get(key, {}).get(name, np.nan) for key in catalogue["folder"].to_pylist()]
        catalogue = catalogue.append_column(name, pa.array(found))
    return catalogue


def visible_lenses(scores: pa.Table, thresholds: Sequence[Threshold]) -> Iterator[str]:
    """Markdown of the lenses whose arcs a person sees, one by one."""
    titles = " | ".join(f"FPR {threshold.fpr:g}" for threshold in thresholds)
    yield f"| lens | arc | score | probability | {titles} |"
    yield "|---|---|--:|--:|" + "---|" * len(thresholds)
    rows = [row for row in scores.to_pylist() if row["arc_visible_by_eye"] != "no"]
    for row in sorted(rows, key=lambda row: (row["arc_visible_by_eye"], -row["score"])):
        passed = " | ".join("pass" if row["score"] > t.score else "–" for t in thresholds)
        numbers = f"{row['score']:.2f} | {row['probability']:.3f}"
        yield f"| {row['name']} | {row['arc_visible_by_eye']} | {numbers} | {passed} |"


def kinds(
    scores: pa.Table, thresholds: Sequence[Threshold], used: Collection[str]
) -> Iterator[str]:
    """Markdown of the others by kind: how many pass, with 95% Clopper-Pearson intervals."""
    titles = " | ".join(f"pass FPR {threshold.fpr:g}" for threshold in thresholds)
    yield f"| others | rows | scored | {titles} |"
    yield "|---|--:|--:|" + "--:|" * len(thresholds)
    found = np.asarray(scores["score"].to_numpy())
    members = [kind_of(row, used) for row in scores.to_pylist()]
    for kind, text in KINDS.items():
        rows = np.flatnonzero([member == kind for member in members])
        yield _line(text, count_group((kind,), rows, found, thresholds))


def _line(text: str, group: GroupCount) -> str:
    passing = " | ".join(passing_text(p, group.scored) for p in group.passing)
    return f"| {text} | {group.rows} | {group.scored} | {passing} |"


def kind_of(row: dict[str, str], used: Collection[str]) -> str | None:
    """Key of `KINDS`; None for a lens with an arc that shows."""
    if row["arc_visible_by_eye"] != "no":
        return None
    if row["group"] == HOSTS:
        return split_of(row["name"]) if name_of(row) in used else "never"
    return "resolved" if row["group"] == "visible_galaxy_lens" else row["group"]


if __name__ == "__main__":
    main()

"""How real Pan-STARRS1 lenses score, as Markdown: `python -m benchmarks.ps1_lenses`.

Each listed object is said to be seen or not: training paints arcs on real galaxies of this set and
chooses thresholds on others (`training.simulate.real.split_of`). No lens whose arc shows, no quasar
and no supernova is ever among them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lenspipe.models.card import Threshold
from lenspipe.models.ensemble import describe_ensemble
from lenspipe.score_cutouts import read_catalogue, score_cutouts
from lenspipe.score_groups import GroupCount, count_group, passing_text
from training.simulate.real import split_of

ROOT = Path(__file__).parents[1]
FPRS = (1e-2, 1e-3)
HOSTS = "unresolved_galaxy_lens"  # the group that training takes galaxies from
KINDS = {
    "held_out": "galaxy lens, no arc visible; never seen, only judged on",
    "calibration": "galaxy lens, no arc visible; thresholds may have seen it as a host",
    "training": "galaxy lens, no arc visible; training may have seen it as a host",
    "resolved": "galaxy lens, images 1.5–10″ apart, yet no arc visible; never seen",
    "lensed_quasars": "lensed quasar; never seen",
    "lensed_supernovae": "lensed supernova; never seen",
}


def main() -> None:
    """Score the folder and print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ensemble", default="ps1-gri", help="a name in the zoo or a path")
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "shared/data/ps1_lenses")
    parser.add_argument("--layout", type=Path, default=ROOT / "examples/ps1_lenses.yaml")
    options = parser.parse_args()
    thresholds = [describe_ensemble(options.ensemble).threshold(fpr) for fpr in FPRS]
    catalogue = read_catalogue(options.folder / "ps1_catalogue.csv")
    scores = score(options.ensemble, options.folder, options.layout, catalogue)
    print("\n".join([*visible_lenses(scores, thresholds), "", *kinds(scores, thresholds)]))


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


def kinds(scores: pa.Table, thresholds: Sequence[Threshold]) -> Iterator[str]:
    """Markdown of the others by kind: how many pass, with 95% Clopper-Pearson intervals."""
    titles = " | ".join(f"pass FPR {threshold.fpr:g}" for threshold in thresholds)
    yield f"| others | rows | scored | {titles} |"
    yield "|---|--:|--:|" + "--:|" * len(thresholds)
    found = np.asarray(scores["score"].to_numpy())
    members = [kind_of(row) for row in scores.to_pylist()]
    for kind, text in KINDS.items():
        rows = np.flatnonzero([member == kind for member in members])
        yield _line(text, count_group((kind,), rows, found, thresholds))


def _line(text: str, group: GroupCount) -> str:
    passing = " | ".join(passing_text(p, group.scored) for p in group.passing)
    return f"| {text} | {group.rows} | {group.scored} | {passing} |"


def kind_of(row: dict[str, str]) -> str | None:
    """Key of `KINDS`; None for a lens with an arc that shows."""
    if row["arc_visible_by_eye"] != "no":
        return None
    if row["group"] == HOSTS:
        return split_of(row["name"])
    return "resolved" if row["group"] == "visible_galaxy_lens" else row["group"]


if __name__ == "__main__":
    main()

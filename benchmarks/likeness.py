"""Whether what an ensemble sees alike is alike: `python -m benchmarks.likeness --work runs/models`.

On the test set of the ensemble's recipe, which is simulated where it is not there: the non-lenses
that score highest among `ROWS` of it, as a run's candidates would be, and a sixth as many lenses.
Of each kind: the fraction of the six most alike that are of that kind too; the same of the six
nearest in score; and the fraction of all that are of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Int64

from benchmarks.committee import RECIPE, scores
from lenspipe.catalogue.likeness import Likeness
from lenspipe.models.embedding import Embedding
from lenspipe.models.ensemble import load_ensemble
from training import stages
from training.recipe import load_ensemble as load_recipe
from training.workspace import Workspace

ROWS, NON_LENSES, LENSES = 12_000, 900, 150
ALIKE, FEWEST = 6, 20
Nearest = Callable[[int], Int64[np.ndarray, " k"]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/models"))
    parser.add_argument("--ensemble", default="ps1-gri")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    arguments = parser.parse_args()
    recipe, work = load_recipe(arguments.recipe), Workspace(arguments.work)
    ensemble = load_ensemble(arguments.ensemble, provider="cpu")
    embedding = Embedding(ensemble)
    rng = np.random.default_rng(1)
    with h5py.File(stages.simulate(recipe, "test", work)) as file:
        score = scores(ensemble, file["images"])
        lens = file["label"][...] == 1
        kind = np.where(lens, "lens", file["kind"].asstr()[...])
        seen = np.sort(rng.choice(len(lens), min(ROWS, len(lens)), replace=False))
        others, lenses = seen[~lens[seen]], seen[lens[seen]]
        best = lenses[np.argsort(-score[lenses])][: 8 * LENSES]
        chosen = np.concatenate(
            [others[np.argsort(-score[others])][:NON_LENSES], rng.choice(best, LENSES)]
        )
        chosen = np.unique(chosen)
        images = {ensemble.inputs[0].name: file["images"][chosen]}
    features = embedding(images)
    if features is None:
        raise SystemExit("no member of the ensemble has features")
    score, kind = score[chosen], kind[chosen]
    likeness = Likeness(features, embedding.members)

    def alike(row: int) -> Int64[np.ndarray, " k"]:
        return likeness.nearest(row, ALIKE)

    def in_score(row: int) -> Int64[np.ndarray, " k"]:
        away = np.abs(score - score[row])
        away[row] = np.inf
        return np.argsort(away)[:ALIKE]

    print("| kind | n | of the six most alike | of the six nearest in score | of all |")
    print("|---|--:|--:|--:|--:|")
    for name in np.unique(kind):
        rows = np.flatnonzero(kind == name)
        if len(rows) >= FEWEST:
            shares = [_share(kind, rows, nearest) for nearest in (alike, in_score)]
            whole = len(rows) / len(kind)
            print(f"| {name} | {len(rows)} | {shares[0]:.2f} | {shares[1]:.2f} | {whole:.2f} |")


def _share(kind: np.ndarray, rows: Int64[np.ndarray, " n"], nearest: Nearest) -> float:
    """Mean fraction of the nearest that are of the row's own kind."""
    return float(np.mean([np.mean(kind[nearest(int(row))] == kind[row]) for row in rows]))


if __name__ == "__main__":
    main()

"""How many bright, wide lenses an ensemble finds at low false-positive rates, and what it takes for
lenses: `python -m benchmarks.committee --work runs/models`.

On the test set of the ensemble's recipe, which is simulated where it is not there. Thresholds are
those of the set itself: of the non-lenses, a fraction FPR lies above.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float32

from lenspipe.models.ensemble import Ensemble, load_ensemble
from lenspipe.proportion import clopper_pearson
from training import stages
from training.recipe import load_ensemble as load_recipe
from training.workspace import Workspace

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "ps1-gri.yaml"
FPRS = (1e-2, 1e-3, 1e-4)
WIDE_ARCSEC, BRIGHT_SNR = 1.5, 20.0
_ROWS = 1024


def scores(ensemble: Ensemble, images: h5py.Dataset) -> Float32[np.ndarray, " n"]:
    """The ensemble's score of every stamp of a set, by its cascade where it has one."""
    [spec] = ensemble.inputs
    parts = [
        ensemble.score({spec.name: images[k : k + _ROWS]}).score
        for k in range(0, len(images), _ROWS)
    ]
    return np.concatenate(parts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/models"))
    parser.add_argument("--ensemble", default="ps1-gri")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    arguments = parser.parse_args()
    recipe, work = load_recipe(arguments.recipe), Workspace(arguments.work)
    test_set = stages.simulate(recipe, "test", work)
    ensemble = load_ensemble(arguments.ensemble, provider="cpu")
    with h5py.File(test_set) as file:
        found = scores(ensemble, file["images"])
        lens = file["label"][...] == 1
        kind = file["kind"].asstr()[...]
        wide = file["truth/theta_e_arcsec"][...] >= WIDE_ARCSEC
        bright = file["truth/arc_snr_g"][...] >= BRIGHT_SNR
    chosen = lens & wide & bright
    print("| FPR | all lenses | from 1.5″ and S/N 20 up | most common false positives |")
    print("|--:|---|---|---|")
    for fpr in FPRS:
        above = found > np.quantile(found[~lens], 1 - fpr)
        shares = [_share(above[rows]) for rows in (lens, chosen)]
        taken = Counter(kind[above & ~lens].tolist()).most_common(3)
        told = ", ".join(f"{name} {count}" for name, count in taken)
        print(f"| {fpr:g} | {shares[0]} | {shares[1]} | {told} |")


def _share(above: np.ndarray) -> str:
    hits, n = int(above.sum()), len(above)
    low, high = clopper_pearson(hits, n)
    return f"{hits}/{n} = {hits / n:.3f} ({low:.3f}–{high:.3f})"


if __name__ == "__main__":
    main()

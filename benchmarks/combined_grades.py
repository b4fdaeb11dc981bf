"""How far the probability from people and network holds: `python -m benchmarks.combined_grades`.

Surveys of 1,000 candidates, of which 25 are lenses, graded by one to three people, with and without
100 hidden objects, half of them lenses. The network's probabilities hold where a quarter are
lenses, so that most are above 0.9; either they tell lenses from others (scores normal, 1 apart), or
nothing at all. Of `--surveys` such skies: the sum of the combined probabilities, which should be
25; the area under the ROC curve of the combination, of the votes' mean and of the network; how many
lenses there are among objects of combined probability up to 0.01, 0.1, 0.5, 0.9 and 1, and how many
those probabilities promise; and the largest probability of an object that all call no lens.
"""

from __future__ import annotations

import argparse

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.metrics import roc_auc_score

from lenspipe.models.calibrate import logistic
from lenspipe.serve.grades.combine import combine, ordered_prior
from lenspipe.serve.grades.scheme import DEFAULT

CANDIDATES, LENSES, HIDDEN = 1000, 25, 100
# Of all galaxies, one in 2,000 is a lens; of those that the network was calibrated on, a quarter.
ON_SKY, IN_CALIBRATION = 0.0005, 0.25
# Grades A, B, C, X of other objects and of lenses.
GRADER = np.array([[0.005, 0.045, 0.15, 0.80], [0.35, 0.35, 0.20, 0.10]])
EDGES = (0.0, 0.01, 0.1, 0.5, 0.9, 1.0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--surveys", type=int, default=30)
    surveys = parser.parse_args().surveys
    bins = " | ".join(f"to {edge:g}" for edge in EDGES[1:])
    print(f"| network | graders | hidden | sum | area | of votes | of network | all X | {bins} |")
    print("|---|" + "--:|" * (7 + len(EDGES) - 1))
    for tells in (True, False):
        for hidden in (0, HIDDEN):
            for graders in (1, 2, 3):
                cells = _measured(surveys, graders, hidden, tells)
                print(f"| {'tells' if tells else 'tells nothing'} | {' | '.join(cells)} |")


def _measured(surveys: int, graders: int, hidden: int, tells: bool) -> list[str]:
    sums, areas, all_no = list[float](), list[list[float]](), list[float]()
    found, truth = list[Float64[np.ndarray, " n"]](), list[Bool[np.ndarray, " n"]]()
    for seed in range(surveys):
        rng = np.random.default_rng(seed)
        network, lens = _sky(rng, tells)
        known = rng.random(hidden) < 0.5
        codes = _votes(rng, np.concatenate([lens, known]), graders)
        combined = combine(
            codes,
            np.concatenate([network, np.full(hidden, np.nan)]),
            np.concatenate([np.full(CANDIDATES, -1), known]),
            ordered_prior(DEFAULT.array()),
        ).probability[:CANDIDATES]
        votes = DEFAULT.array()[codes[:CANDIDATES]]
        sums.append(combined.sum())
        areas.append([roc_auc_score(lens, each) for each in (combined, votes.mean(1), network)])
        all_no.append(combined[(votes == 0).all(axis=1)].max())
        found.append(combined)
        truth.append(lens)
    area = [f"{each:.3f}" for each in np.mean(areas, axis=0)]
    low, middle, high = np.percentile(sums, [10, 50, 90])
    spread = f"{middle:.0f} ({low:.0f}–{high:.0f})"
    told = _bins(np.concatenate(found), np.concatenate(truth))
    return [str(graders), str(hidden), spread, *area, f"{max(all_no):.3f}", *told]


def _sky(
    rng: np.random.Generator, tells: bool
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The network's probabilities of a survey's candidates, and which are lenses."""
    lens = rng.permutation(CANDIDATES) < LENSES
    if not tells:
        return rng.uniform(0.93, 0.997, CANDIDATES), lens
    score = rng.normal(lens, 1.0)  # ln of the likelihood ratio is score - 1/2
    here = np.log(LENSES / (CANDIDATES - LENSES))
    shift = np.log(IN_CALIBRATION / (1 - IN_CALIBRATION)) - np.log(ON_SKY / (1 - ON_SKY))
    return logistic(score - 0.5 + here + shift), lens


def _votes(
    rng: np.random.Generator, lens: Bool[np.ndarray, " n"], graders: int
) -> Int64[np.ndarray, "n g"]:
    other, of_lens = (rng.choice(4, (len(lens), graders), p=GRADER[z]) for z in (0, 1))
    return np.where(lens[:, None], of_lens, other)


def _bins(probability: Float64[np.ndarray, " n"], lens: Bool[np.ndarray, " n"]) -> list[str]:
    inside = np.digitize(probability, EDGES[1:-1])
    return [
        f"{lens[inside == k].sum()} of {probability[inside == k].sum():.1f}"
        for k in range(len(EDGES) - 1)
    ]


if __name__ == "__main__":
    main()

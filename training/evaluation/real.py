"""How a model does on real Pan-STARRS1 pixels that its making never saw.

(a) Every lens whose arc a person sees, ranked among real galaxies. (b) Arcs of real galaxies
painted on real hosts, found at the threshold that real galaxies set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from lenspipe.errors import InputError
from lenspipe.models.ensemble import Ensemble
from training.evaluation import clustered, injection, real_stamps, reasons
from training.evaluation.injection import Injected, Negatives
from training.evaluation.real_stamps import EXTENDED, GALAXY, Stamps
from training.evaluation.subject import scores_of, seen_by
from training.recipe import Recipe
from training.simulate.hosts import load_hosts
from training.simulate.instrument import Instrument
from training.simulate.real import load_sources

VIEWS = 8
FPR = 1e-2
RANK_WANTED = 0.99
BEST_FALSE_POSITIVES = 12


@dataclass(frozen=True)
class RealPixels:
    """What a model is judged on. galaxies: the negatives, in several views each; others: stars,
    quasars, supernovae, lenses whose arcs nobody sees; lenses: whose arcs show."""

    galaxies: Stamps
    others: Stamps
    lenses: Stamps
    injected: Injected
    instrument: Instrument


@dataclass(frozen=True)
class RealScores:
    """Scores of each part of `RealPixels`."""

    galaxies: Float32[np.ndarray, " g"]
    others: Float32[np.ndarray, " o"]
    lenses: Float32[np.ndarray, " l"]
    injected: Float32[np.ndarray, " n"]


def load(recipe: Recipe, ensemble: Ensemble, injections: int, seed: int = 0) -> RealPixels:
    """Everything that is real, none of it seen by the model; InputError without `simulate.data`,
    and for another instrument than Pan-STARRS1.

    injections: half over all S/N and Einstein radii, half in the target.
    """
    block = recipe.simulate_block("test")
    real_stamps.check_instrument(block, recipe.name)
    if not block.get("data"):
        raise InputError(f"{recipe.name}: simulate.data", "a folder of real data", "none")
    data, instrument = Path(block["data"]), real_stamps.instrument_for(ensemble.inputs)
    size = max(spec.size_pixels for spec in ensemble.inputs)
    seen = seen_by(ensemble)
    frames = real_stamps.read_frames(data)
    kept = real_stamps.held_out(frames, seen)
    besides = [f for f in real_stamps.never_hosts(frames, seen) if f not in kept]
    own = real_stamps.centred(kept, size, VIEWS)
    # Around a lens whose arc shows, a neighbour may be the arc itself.
    quiet = [frame for frame in (*kept, *besides) if frame.arc == "no"]
    beside = real_stamps.neighbours(quiet, size, VIEWS)
    every = real_stamps.joined([own, beside])
    galaxy = np.isin(every.kind.astype(str), (GALAXY, EXTENDED))
    lens = np.char.startswith(every.kind.astype(str), "arc ")
    hosts = load_hosts(data, instrument, "held_out")
    sources = load_sources(data, "held_out")
    if both := sorted({*(host.name for host in hosts), *(one.name for one in sources)} & seen):
        raise InputError("held-out galaxies", "objects that the model's making never saw", both)
    band = instrument.bands[0]
    drawn = [
        injection.inject(hosts, sources, instrument, injections // 2, size, visible, seed + k)
        for k, visible in enumerate((injection.everything(band), injection.target(band)))
    ]
    return RealPixels(
        every.of(galaxy),
        every.of(~galaxy & ~lens & (every.view == 0)),
        every.of(lens & (every.view == 0)),
        injection.together(*drawn),
        instrument,
    )


def score(pixels: RealPixels, ensemble: Ensemble) -> RealScores:
    """Scores of every stamp."""

    def real(stamps: Stamps) -> Float32[np.ndarray, " n"]:
        images = real_stamps.model_images(stamps.images, real_stamps.BANDS, ensemble.inputs)
        return scores_of(ensemble, images)

    painted = real_stamps.model_images(
        pixels.injected.images, pixels.instrument.bands, ensemble.inputs
    )
    return RealScores(
        real(pixels.galaxies),
        real(pixels.others),
        real(pixels.lenses),
        scores_of(ensemble, painted),
    )


def judge(pixels: RealPixels, scores: RealScores, ensemble: Ensemble) -> dict[str, Any]:
    """The report: `sample`, `lenses` (a), `injection` (b), `others`, `best_false_positives`, and
    what real galaxies say of the thresholds that the model carries."""
    first = pixels.galaxies.view == 0
    negatives = Negatives(scores.galaxies, pixels.galaxies.frame)
    return {
        "model": ensemble.name,
        "model_hash": ensemble.model_hash,
        "sample": sample(pixels),
        "lenses": ranks(
            pixels.lenses, scores.lenses, scores.galaxies[first], pixels.galaxies.frame[first]
        ),
        "injection": injection.recovered(
            scores.injected, pixels.injected, negatives, FPR, pixels.instrument.bands[0]
        ),
        "carried_thresholds": carried(
            scores.galaxies[first], pixels.galaxies.frame[first], ensemble
        ),
        "others": others(pixels, scores),
        "best_false_positives": best(pixels.galaxies, scores.galaxies),
    }


def sample(pixels: RealPixels) -> dict[str, Any]:
    """How much there is, and how little of it is independent."""
    first = pixels.galaxies.view == 0
    kinds, counts = np.unique(pixels.galaxies.kind[first].astype(str), return_counts=True)
    return {
        "galaxies": int(first.sum()),
        "galaxies_by_kind": dict(zip(kinds.tolist(), counts.tolist(), strict=True)),
        "views_of_each": VIEWS,
        "galaxy_stamps": len(pixels.galaxies),
        "frames": len(set(pixels.galaxies.frame)),
        "lenses": len(pixels.lenses),
        "injections": len(pixels.injected),
        "injection_hosts": len(set(pixels.injected.host)),
    }


def ranks(
    lenses: Stamps,
    scores: Float32[np.ndarray, " l"],
    galaxies: Float32[np.ndarray, " g"],
    frames: np.ndarray,
) -> list[dict[str, Any]]:
    """Each lens with the part of the real galaxies that it ranks above, the best first.

    frames: of the galaxies, for `clustered.interval`: those of one frame are not independent.
    reached: 99%.
    """
    found = []
    for k in np.argsort(-scores):
        below = galaxies < scores[k]
        found.append(
            {
                "name": str(lenses.frame[k]),
                "kind": str(lenses.kind[k]),
                "score": float(scores[k]),
                "above": float(below.mean()),
                "interval": list(clustered.interval(below, frames)),
                "galaxies": len(galaxies),
                "frames": len(set(frames)),
                "reached": bool(below.mean() >= RANK_WANTED),
            }
        )
    return found


def carried(
    galaxies: Float32[np.ndarray, " g"], frames: np.ndarray, ensemble: Ensemble
) -> list[dict[str, Any]]:
    """False-positive rate of real galaxies at the thresholds that simulations set; intervals as in
    `ranks`."""
    found = []
    for t in ensemble.description.spec.thresholds:
        above = galaxies > t.score
        found.append(
            {
                "fpr_on_simulations": t.fpr,
                "score": t.score,
                "fpr": float(above.mean()),
                "interval": list(clustered.interval(above, frames)),
                "galaxies": len(galaxies),
            }
        )
    return found


def others(pixels: RealPixels, scores: RealScores) -> list[dict[str, Any]]:
    """What else passes the threshold of the real galaxies, by kind."""
    threshold = injection.recovered_threshold(scores.galaxies, FPR)
    found = []
    for kind in sorted(set(pixels.others.kind.astype(str))):
        of_kind = pixels.others.kind.astype(str) == kind
        above = scores.others[of_kind] > threshold
        found.append(
            {
                "kind": kind,
                "n": len(above),
                "passing": int(above.sum()),
                "rate": float(above.mean()),
                "interval": list(clustered.interval(above, pixels.others.frame[of_kind])),
            }
        )
    return found


def best(galaxies: Stamps, scores: Float32[np.ndarray, " g"]) -> list[dict[str, Any]]:
    """The real galaxies with the highest scores, as readers cut them, each with a likely reason."""
    first = np.flatnonzero(galaxies.view == 0)
    order = first[np.argsort(-scores[first])][:BEST_FALSE_POSITIVES]
    return [
        {
            "row": int(k),
            "frame": str(galaxies.frame[k]),
            "kind": str(galaxies.kind[k]),
            "score": float(scores[k]),
            "reasons": reasons.of_false_positive(
                galaxies.measures[k], str(galaxies.kind[k]), int(galaxies.flags[k])
            ),
        }
        for k in order
    ]


def misses(pixels: RealPixels, scores: RealScores, threshold: float) -> list[dict[str, Any]]:
    """Every injection of the target below the threshold, the brightest arcs first."""
    injected, band = pixels.injected, pixels.instrument.bands[0]
    snr, theta_e = injected.truth[f"arc_snr_{band}"], injected.truth["theta_e_arcsec"]
    target = (snr >= injection.TARGET_SNR) & (theta_e >= injection.TARGET_THETA_E_ARCSEC)
    missed: Bool[np.ndarray, " n"] = target & (scores.injected <= threshold)
    rows = np.flatnonzero(missed)
    return [
        {
            "row": int(k),
            "host": str(injected.host[k]),
            "score": float(scores.injected[k]),
            "snr": float(snr[k]),
            "theta_e_arcsec": float(theta_e[k]),
            "reasons": reasons.of_miss(_truth(injected.truth, k), _measured(pixels, k), band),
        }
        for k in rows[np.argsort(-snr[rows])]
    ]


def _truth(truth: Mapping[str, Float64[np.ndarray, " n"]], row: int) -> dict[str, float]:
    return {name: float(values[row]) for name, values in truth.items()}


def _measured(pixels: RealPixels, row: int) -> dict[str, float]:
    """Of the host as it was before arcs were painted on it."""
    image = pixels.injected.images[row] - pixels.injected.arcs[row]
    return real_stamps.measure_real(image)

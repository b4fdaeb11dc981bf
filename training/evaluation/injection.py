"""Arcs of real galaxies painted on real hosts that no model saw: how many are found, how bright."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from lenspipe.errors import InputError
from training.evaluation import clustered
from training.metrics import Curve, allowed_false_positives
from training.simulate import paint
from training.simulate.instrument import Instrument
from training.simulate.lens import Arcs, Visible
from training.simulate.real import RealHost
from training.simulate.source import SourceStamp

SNR_EDGES = (5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 1e9)
THETA_E_EDGES = (0.6, 1.0, 1.5, 2.0, 2.5, 3.5)
# Where the committee is held to find most: arcs that stand out, larger than the seeing.
TARGET_SNR, TARGET_THETA_E_ARCSEC = 20.0, 1.5
RESAMPLES = 1000
_TRIES_PER_LENS = 200


@dataclass(frozen=True)
class Injected:
    """Painted lenses. host: name of the real galaxy; arcs: the lensed light alone, convolved.

    truth: by column, as in a simulated set. whole: drawn over all S/N and radii, not in the target
    alone.
    """

    images: Float32[np.ndarray, "n band y x"]
    arcs: Float32[np.ndarray, "n band y x"]
    host: np.ndarray
    truth: dict[str, Float64[np.ndarray, " n"]]
    whole: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.host)


def inject(
    hosts: Sequence[RealHost],
    sources: Sequence[SourceStamp],
    instrument: Instrument,
    n: int,
    size_pixels: int,
    visible: Visible,
    seed: int = 0,
) -> Injected:
    """About `n` lenses, the hosts in turn, arcs of real sources alone. A host behind which nothing
    shows after many tries has fewer."""
    if not hosts or not sources:
        raise InputError("simulate.data", "real hosts and real sources", "none")
    made = []
    for index in range(n):
        host = hosts[index % len(hosts)]
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
        one = _one(rng, host, sources, instrument, visible, size_pixels)
        made.extend([(host, *one)] if one is not None else [])
    if not made:
        raise InputError("injections", "at least one visible lens", f"none in {n} tries")
    names = sorted(set.union(*(set(arcs.truth) for _, _, arcs in made)))
    return Injected(
        np.stack([image for _, image, _ in made]),
        np.stack([arcs.blurred for _, _, arcs in made]),
        np.array([host.name for host, _, _ in made], object),
        {k: np.array([a.truth.get(k, np.nan) for _, _, a in made]) for k in names}
        | {
            f"host_mag_{b}": np.array([host.magnitudes[b] for host, _, _ in made])
            for b in instrument.bands
        }
        | {"host_radius_arcsec": np.array([host.radius_arcsec for host, _, _ in made])},
        np.full(len(made), visible == everything(visible.band)),
    )


def _one(
    rng: np.random.Generator,
    host: RealHost,
    sources: Sequence[SourceStamp],
    instrument: Instrument,
    visible: Visible,
    size_pixels: int,
) -> tuple[Float32[np.ndarray, "band y x"], Arcs] | None:
    """A painted lens whose source is a real galaxy; the simulation draws other sources too."""
    for _ in range(_TRIES_PER_LENS):
        made = paint.painted_lens(
            rng,
            host,
            instrument,
            visible=visible,
            size_pixels=size_pixels,
            max_shift_pixels=0,
            stamps=sources,
        )
        if made is None:
            return None
        if all("image" in part.parameters for part in made.arcs.lens.source):
            return made.image, made.arcs
    return None


def everything(band: str) -> Visible:
    """All that the curves bin: S/N from 5 up, Einstein radii from 0.6 to 3.5 arcsec."""
    return Visible(SNR_EDGES[0], band, (THETA_E_EDGES[0], THETA_E_EDGES[-1]))


def target(band: str) -> Visible:
    """The target alone: of all that can be seen, few are in it."""
    return Visible(TARGET_SNR, band, (TARGET_THETA_E_ARCSEC, THETA_E_EDGES[-1]))


def together(a: Injected, b: Injected) -> Injected:
    """Two draws as one."""
    return Injected(
        np.concatenate([a.images, b.images]),
        np.concatenate([a.arcs, b.arcs]),
        np.concatenate([a.host, b.host]),
        {name: np.concatenate([a.truth[name], b.truth[name]]) for name in a.truth},
        np.concatenate([a.whole, b.whole]),
    )


@dataclass(frozen=True)
class Negatives:
    """Scores of real non-lenses, and the frame that each is from."""

    scores: Float[np.ndarray, " n"]
    frame: np.ndarray


def recovered(
    scores: Float[np.ndarray, " n"], injected: Injected, negatives: Negatives, fpr: float, band: str
) -> dict[str, Any]:
    """True-positive rate of the injections at the threshold that real negatives set for `fpr`.

    All, by S/N in `band` and by Einstein radius: of the lenses drawn over the whole range, so that
    one curve has one mix. The target (S/N and Einstein radius at least `TARGET_*`) and bins of
    both: of every lens in them. Intervals hold two: percentiles of a bootstrap that draws whole
    frames of the negatives, with the threshold anew, and whole hosts of the injections; and, since
    that says nothing where all or none are found, `clustered.interval` by hosts.
    """
    snr, theta_e = injected.truth[f"arc_snr_{band}"], injected.truth["theta_e_arcsec"]
    groups: dict[str, Bool[np.ndarray, " n"]] = {
        "all": injected.whole,
        "target": (snr >= TARGET_SNR) & (theta_e >= TARGET_THETA_E_ARCSEC),
    }
    by_snr = {f"snr {_range(*e)}": _inside(snr, *e) for e in pairwise(SNR_EDGES)}
    by_theta = {f"theta_e {_range(*e)}": _inside(theta_e, *e) for e in pairwise(THETA_E_EDGES)}
    both = {f"{a}, {b}": x & y for a, x in by_snr.items() for b, y in by_theta.items()}
    groups |= {name: inside & injected.whole for name, inside in (by_snr | by_theta).items()}
    groups |= both
    threshold = recovered_threshold(negatives.scores, fpr)
    drawn = _bootstrap(scores, injected, negatives, fpr, list(groups.values()))
    return {
        "fpr": fpr,
        "threshold": threshold,
        "allowed_false_positives": allowed_false_positives(len(negatives.scores), fpr),
        "negative_stamps": len(negatives.scores),
        "negative_frames": len(set(negatives.frame)),
        "band": band,
        "tpr": {
            name: _rate(scores > threshold, inside, drawn[:, k], injected)
            for k, (name, inside) in enumerate(groups.items())
            if inside.any()
        },
    }


def _rate(
    above: Bool[np.ndarray, " n"],
    inside: Bool[np.ndarray, " n"],
    drawn: Float64[np.ndarray, " resample"],
    injected: Injected,
) -> dict[str, Any]:
    known = drawn[np.isfinite(drawn)]
    ends = [*clustered.interval(above[inside], injected.host[inside])]
    ends += np.percentile(known, [2.5, 97.5]).tolist() if len(known) else []
    return {
        "value": float(above[inside].mean()),
        "interval": [min(ends), max(ends)],
        "lenses": int(inside.sum()),
        "hosts": len(set(injected.host[inside])),
    }


def _bootstrap(
    scores: Float[np.ndarray, " n"],
    injected: Injected,
    negatives: Negatives,
    fpr: float,
    groups: Sequence[Bool[np.ndarray, " n"]],
) -> Float64[np.ndarray, "resample group"]:
    """Rates of each group in each resample; NaN where a resample holds none of it."""
    draw = np.random.default_rng(0)
    frames = _members(negatives.frame)
    hosts = _members(injected.host)
    inside = np.stack(groups).astype(np.float64)
    found = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([frames[k] for k in draw.integers(0, len(frames), len(frames))])
        threshold = recovered_threshold(negatives.scores[drawn], fpr)
        times = np.zeros(len(scores))
        for k in draw.integers(0, len(hosts), len(hosts)):
            times[hosts[k]] += 1
        weight = inside @ times
        with np.errstate(invalid="ignore"):
            rates = inside @ (times * (scores > threshold)) / weight
        found.append(np.where(weight > 0, rates, np.nan))
    return np.asarray(found)


def recovered_threshold(negatives: Float[np.ndarray, " n"], fpr: float) -> float:
    """Score above which at most `fpr` of the negatives lie; InputError where they are too few."""
    return Curve(*_labelled(negatives)).threshold(fpr)


def _members(names: np.ndarray) -> list[np.ndarray]:
    """Rows of each name."""
    return [np.flatnonzero(names == name) for name in sorted(set(names))]


def _labelled(
    negatives: Float[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, " n1"], Bool[np.ndarray, " n1"]]:
    """Negatives with one lens that ranks last: all that `Curve` needs for a threshold."""
    scores = np.append(negatives.astype(np.float64), negatives.min() - 1.0)
    return scores, np.arange(len(scores)) == len(negatives)


def _inside(values: Float64[np.ndarray, " n"], low: float, high: float) -> Bool[np.ndarray, " n"]:
    return np.asarray((values >= low) & (values < high))


def _range(low: float, high: float) -> str:
    return f"{low:g} up" if high >= 1e9 else f"{low:g} to {high:g}"

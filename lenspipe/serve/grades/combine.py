"""Probability that an object is a lens, from the network and from what people said of it.

Model (Dawid & Skene 1979, Appl. Stat. 28, 20, with a prior for each object): object i is a lens
with probability π_i before anybody looked, which follows from the network's probability and from
how many lenses there are among the graded objects (`network_prior`); grader g gives grade k to a
lens with probability c_g1k and to another object with c_g0k; given what the object is, graders and
network are independent. The rows of the confusion matrices have Dirichlet priors with pseudo-counts
a_zk (above the uniform one) by which a grader of few votes is taken for an ordinary one, better
than chance: otherwise lenses and others could change places. Objects of known truth count with
that in the matrices, and not in the shift: how many of them are lenses is who chose them. EM finds
the largest posterior density of matrices and shift:

    E   q_i = π_i ∏_g c_g1v / (π_i ∏_g c_g1v + (1 - π_i) ∏_g c_g0v),   v = vote of g on i
    M   c_gzk ∝ a_zk + Σ_i P(z_i = z) [v_gi = k];   π_i: `network_prior.fit`

It begins with graders as their prior and the objects of known truth have them, at several fractions
of lenses, and takes the best end.

A grader who saw the scores, or who copies another, is not independent of them: probabilities are
then too sure. Grade in blind mode where this is to be used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lenspipe.errors import InputError
from lenspipe.serve.grades.network_prior import Shift, centred_logits, fit

TOLERANCE = 1e-7  # of a probability, between two steps
MOST_STEPS = 2000
STRENGTH = 8.0  # pseudo-counts of a row
BETTER_THAN_CHANCE = 4.0
STARTS = (0.01, 0.1, 0.5)  # fractions of lenses


@dataclass(frozen=True)
class Combined:
    """probability: posterior of each object; NaN where the network gave none and no truth is known.
    confusion: of each grader, for others (0) and lenses (1), the probability of each grade. shift:
    of the network's log-odds. log_posterior: after each step; it never falls. converged: whether it
    ended by itself."""

    probability: Float64[np.ndarray, " n"]
    confusion: Float64[np.ndarray, "g 2 k"]
    shift: Shift
    log_posterior: tuple[float, ...]
    converged: bool


def ordered_prior(
    values: Float64[np.ndarray, " k"],
    strength: float = STRENGTH,
    ratio: float = BETTER_THAN_CHANCE,
) -> Float64[np.ndarray, "2 k"]:
    """Pseudo-counts by which better grades are likelier for lenses, worse ones for others:
    `strength` in each row, `ratio` times as many on the best grade as on the worst or the other way
    round, in between by the power of the grade's place."""
    up = (values - values.min()) / (values.max() - values.min())
    rows = np.stack([ratio**-up, ratio**up])
    return np.asarray(strength * rows / rows.sum(axis=1, keepdims=True))


def combine(
    codes: Int64[np.ndarray, "n g"],
    network: Float64[np.ndarray, " n"],
    truth: Int64[np.ndarray, " n"],
    prior: Float64[np.ndarray, "2 k"],
) -> Combined:
    """Posterior probabilities and confusion matrices.

    codes: place of each grade in the scheme, negative for none. network: calibrated probability of
    each object at any prevalence, one for all; NaN where there is none: such objects count only
    where their truth is known. truth: 1 a lens, 0 none, negative unknown; of training objects.
    prior: pseudo-counts, above 0. Without a vote on an object of unknown truth the network's
    probabilities stay as they are. InputError where these do not fit.
    """
    _check(codes, network, truth, prior)
    data = _Data.of(codes, network, truth, prior)
    starts = [Shift.at(fraction) for fraction in STARTS] if data.graded.any() else [Shift()]
    return max((_climb(data, start) for start in starts), key=lambda found: found.log_posterior[-1])


@dataclass(frozen=True)
class _Data:
    """votes: codes of the objects that count; one_hot: the same, one place a grade. x: the
    network's centred log-odds. known: whose truth is known, lens: which of these are lenses.
    graded: that tell how many lenses there are. used: that get a probability."""

    votes: Int64[np.ndarray, "n g"]
    one_hot: Float64[np.ndarray, "n g k"]
    x: Float64[np.ndarray, " n"]
    known: Bool[np.ndarray, " n"]
    lens: Bool[np.ndarray, " n"]
    graded: Bool[np.ndarray, " n"]
    used: Bool[np.ndarray, " n"]
    prior: Float64[np.ndarray, "2 k"]

    @classmethod
    def of(
        cls,
        codes: Int64[np.ndarray, "n g"],
        network: Float64[np.ndarray, " n"],
        truth: Int64[np.ndarray, " n"],
        prior: Float64[np.ndarray, "2 k"],
    ) -> _Data:
        known = truth >= 0
        used = known | np.isfinite(network)
        votes = np.where(used[:, None], codes, -1)
        graded = used & ~known & (votes >= 0).any(axis=1)
        one_hot = np.stack([votes == k for k in range(prior.shape[1])], axis=2).astype(float)
        x = centred_logits(network, graded)
        return cls(votes, one_hot, x, known, truth == 1, graded, used, prior)


def _climb(data: _Data, shift: Shift) -> Combined:
    """EM from one start."""
    confusion = _confusion(np.stack([data.known & ~data.lens, data.lens]).astype(float), data)
    q, told, converged = np.full(len(data.x), np.nan), list[float](), False
    for _ in range(MOST_STEPS):
        before = q
        q, density = _posterior(data, shift, confusion)
        told.append(density + shift.log_prior + float((data.prior * np.log(confusion)).sum()))
        if np.max(np.abs(q - before), initial=0.0) < TOLERANCE:
            converged = True
            break
        confusion = _confusion(np.stack([1.0 - q, q]), data)
        if data.graded.any():
            shift = fit(data.x[data.graded], q[data.graded], shift)
    return Combined(np.where(data.used, q, np.nan), confusion, shift, tuple(told), converged)


def _confusion(share: Float64[np.ndarray, "2 n"], data: _Data) -> Float64[np.ndarray, "g 2 k"]:
    """The M step of the matrices, of objects that are others and lenses by so much."""
    counts = np.einsum("zn,ngk->gzk", share, data.one_hot) + data.prior
    found: Float64[np.ndarray, "g 2 k"] = counts / counts.sum(axis=2, keepdims=True)
    return found


def _posterior(
    data: _Data, shift: Shift, confusion: Float64[np.ndarray, "g 2 k"]
) -> tuple[Float64[np.ndarray, " n"], float]:
    """The E step, and the logarithm of the likelihood of all votes."""
    graders = np.arange(data.votes.shape[1])
    log_c = np.log(confusion)[graders, :, data.votes]  # (n, g, 2)
    of_votes = np.where(data.votes[:, :, None] >= 0, log_c, 0.0).sum(axis=1)  # (n, 2)
    odds = shift.log_odds(data.x)
    log_pi = -np.logaddexp(0.0, np.stack([odds, -odds], axis=1))
    certain = np.where(np.stack([~data.lens, data.lens], axis=1), 0.0, -np.inf)
    log_each = of_votes + np.where(data.known[:, None], certain, log_pi)
    log_all = np.logaddexp(log_each[:, 0], log_each[:, 1])
    return np.exp(log_each[:, 1] - log_all), float(log_all[data.used].sum())


def _check(
    codes: Int64[np.ndarray, "n g"],
    network: Float64[np.ndarray, " n"],
    truth: Int64[np.ndarray, " n"],
    prior: Float64[np.ndarray, "2 k"],
) -> None:
    n, k = len(codes), prior.shape[1]
    if network.shape != (n,) or truth.shape != (n,):
        raise InputError("network, truth", f"{n} values each", f"{network.shape}, {truth.shape}")
    if codes.size and codes.max() >= k:
        raise InputError("codes", f"grades below {k}", int(codes.max()))
    if not (np.isfinite(prior).all() and (prior > 0).all()):
        raise InputError("prior", "pseudo-counts above 0", prior.tolist())
    given = network[np.isfinite(network)]
    if given.size and not (given.min() >= 0.0 and given.max() <= 1.0):
        raise InputError("network", "probabilities within 0..1", f"{given.min()}..{given.max()}")

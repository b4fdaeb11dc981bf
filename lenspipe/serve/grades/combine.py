"""Probability that an object is a lens, from the network and from what people said of it.

Model (Dawid & Skene 1979, Appl. Stat. 28, 20, with a prior for each object): object i is a lens
with the network's calibrated probability p_i; grader g gives grade k to a lens with probability
c_g1k and to another object with c_g0k; given what the object is, graders and network are
independent. The rows of the confusion matrices have Dirichlet priors with pseudo-counts a_zk (above
the uniform one), so that a grader with few votes is taken for an ordinary one. Objects of known
truth count with that. EM finds the largest posterior density of the matrices:

    E   q_i = p_i ∏_g c_g1v / (p_i ∏_g c_g1v + (1 - p_i) ∏_g c_g0v),   v = vote of g on i
    M   c_gzk ∝ a_zk + Σ_i P(z_i = z) [v_gi = k]

A grader who saw the scores, or who copies another, is not independent of them: probabilities are
then too sure. Grade in blind mode where this is to be used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lenspipe.errors import InputError

# No network is surer than this; else no vote could ever speak against it.
SUREST = 1e-6
TOLERANCE = 1e-7  # of a probability, between two steps
MOST_STEPS = 2000
STRENGTH = 4.0  # pseudo-counts of a row


@dataclass(frozen=True)
class Combined:
    """probability: posterior of each object; NaN where the network gave none and no truth is known.
    confusion: of each grader, for others (0) and lenses (1), the probability of each grade.
    log_posterior: after each step; it never falls. converged: whether it ended by itself."""

    probability: Float64[np.ndarray, " n"]
    confusion: Float64[np.ndarray, "g 2 k"]
    log_posterior: tuple[float, ...]
    converged: bool


def ordered_prior(
    values: Float64[np.ndarray, " k"], strength: float = STRENGTH
) -> Float64[np.ndarray, "2 k"]:
    """Pseudo-counts by which better grades are somewhat likelier for lenses, worse ones for others:
    `strength` in each row, and three times as many on the best grade as on the worst, or the other
    way round. Without this nothing would say which class is which where the network is unsure."""
    up = (values - values.min()) / (values.max() - values.min())
    rows = np.stack([1.5 - up, 0.5 + up])
    return np.asarray(strength * rows / rows.sum(axis=1, keepdims=True))


def combine(
    codes: Int64[np.ndarray, "n g"],
    network: Float64[np.ndarray, " n"],
    truth: Int64[np.ndarray, " n"],
    prior: Float64[np.ndarray, "2 k"],
) -> Combined:
    """Posterior probabilities and confusion matrices.

    codes: place of each grade in the scheme, negative for none. network: calibrated probability of
    each object at the prevalence of the objects that are graded; NaN where there is none: such
    objects count only where their truth is known. truth: 1 a lens, 0 none, negative unknown; of
    training objects. prior: pseudo-counts, above 0. InputError where these do not fit.
    """
    _check(codes, network, truth, prior)
    known = truth >= 0
    used = known | np.isfinite(network)
    p = np.where(known, truth == 1, np.clip(np.nan_to_num(network), SUREST, 1.0 - SUREST))
    votes = np.where(used[:, None], codes, -1)
    one_hot = np.stack([votes == k for k in range(prior.shape[1])], axis=2)  # (n, g, k)
    q, told, converged = p.astype(float), list[float](), False
    confusion = _confusion(q, one_hot, prior)
    for _ in range(MOST_STEPS):
        before = q
        q, density = _posterior(p, votes, confusion, known)
        told.append(density + float((prior * np.log(confusion)).sum()))
        if np.max(np.abs(q - before), initial=0.0) < TOLERANCE:
            converged = True
            break
        confusion = _confusion(q, one_hot, prior)
    return Combined(np.where(used, q, np.nan), confusion, tuple(told), converged)


def _confusion(
    q: Float64[np.ndarray, " n"],
    one_hot: Bool[np.ndarray, "n g k"],
    prior: Float64[np.ndarray, "2 k"],
) -> Float64[np.ndarray, "g 2 k"]:
    """The M step."""
    share = np.stack([1.0 - q, q])
    counts = np.einsum("zn,ngk->gzk", share, one_hot.astype(float)) + prior
    found: Float64[np.ndarray, "g 2 k"] = counts / counts.sum(axis=2, keepdims=True)
    return found


def _posterior(
    p: Float64[np.ndarray, " n"],
    votes: Int64[np.ndarray, "n g"],
    confusion: Float64[np.ndarray, "g 2 k"],
    known: Bool[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, " n"], float]:
    """The E step, and the logarithm of the likelihood of all votes."""
    given = votes >= 0
    graders = np.arange(votes.shape[1])
    log_c = np.log(confusion)[graders, :, votes]  # (n, g, 2)
    of_votes = np.where(given[:, :, None], log_c, 0.0).sum(axis=1)  # (n, 2)
    with np.errstate(divide="ignore"):
        log_each = of_votes + np.log(np.stack([1.0 - p, p], axis=1))
    log_all = np.logaddexp(log_each[:, 0], log_each[:, 1])
    q = np.where(known, p, np.exp(log_each[:, 1] - log_all))
    return q, float(log_all.sum())


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

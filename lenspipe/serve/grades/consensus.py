"""One grade for each object from the grades of several people.

The rule: the best grade that more than half of the votes reach. With an odd number of votes this is
the median, with an even number the lower of the two in the middle: "B" then always means that most
of those who looked would say "B" or better. A median, because one person who grades wildly cannot
move it, and because it needs only that grades are ordered; a mean takes the step from A to B to be
as large as that from C to X. The cautious side in ties, because each lens that is followed up costs
telescope time. Where several grades have one value, the one with most votes stands for it, and
among equals the first of the scheme.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from lenspipe.serve.grades.votes import NONE, counts_of


@dataclass(frozen=True)
class Consensus:
    """Of each object: code, the consensus grade (`NONE` without votes); votes, how many; mean, of
    the votes' values; agreeing, the fraction of votes for the consensus grade itself; mean and
    agreeing are NaN without votes."""

    code: Int64[np.ndarray, " n"]
    votes: Int64[np.ndarray, " n"]
    mean: Float64[np.ndarray, " n"]
    agreeing: Float64[np.ndarray, " n"]


def consensus(codes: Int64[np.ndarray, "n g"], values: Float64[np.ndarray, " k"]) -> Consensus:
    """Consensus of votes (places of grades in the scheme, negative for none) by the rule above.

    values: number of each grade.
    """
    counts = counts_of(codes, len(values))
    votes = counts.sum(axis=1)
    levels = np.unique(values)[::-1]  # best first
    # Votes that reach a level: the first with more than half of them is the consensus.
    reaching = np.stack([counts[:, values >= level].sum(axis=1) for level in levels], axis=1)
    level = levels[np.argmax(2 * reaching > votes[:, None], axis=1)]
    among = np.where(values[None, :] == level[:, None], counts, -1)
    code = np.argmax(among, axis=1)
    rows = np.arange(len(codes))
    divisor = np.where(votes > 0, votes, 1)
    none = votes == 0
    return Consensus(
        code=np.where(none, NONE, code),
        votes=votes,
        mean=np.where(none, np.nan, counts @ values / divisor),
        agreeing=np.where(none, np.nan, counts[rows, code] / divisor),
    )

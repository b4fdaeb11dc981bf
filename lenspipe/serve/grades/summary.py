"""What all graders did, in words: how many, how far they agree, how good each is."""

from __future__ import annotations

import itertools

from lenspipe.serve.grades.agreement import Kappa, cohen_kappa, disagreement, fleiss_kappa
from lenspipe.serve.grades.reliability import Share, reliability
from lenspipe.serve.grades.state import states_of
from lenspipe.serve.grades.store import GradeStore
from lenspipe.serve.grades.votes import votes_of


def describe(store: GradeStore) -> list[tuple[str, str]]:
    """(field, text) lines."""
    scheme, states, hidden = store.scheme(), states_of(store.events()), store.hidden()
    votes = votes_of(states, scheme)
    lines = [
        ("grades", " ".join(f"{grade.name}={grade.value:g}" for grade in scheme.grades)),
        ("objects graded", f"{len(votes.object_ids):,}"),
    ]
    for name in sorted(states):
        state = states[name]
        lines.append((name, f"{len(state.grades):,} graded, {len(state.flagged):,} flagged"))
        if hidden and state.grades:
            judged = reliability(state, hidden, scheme)
            lines += [
                (f"{name}: completeness", _share(judged.completeness)),
                (f"{name}: false positives", _share(judged.false_positives)),
                (f"{name}: purity", _share(judged.purity)),
            ]
    weights = disagreement(scheme.array(), 1)
    for first, second in itertools.combinations(range(len(votes.graders)), 2):
        pair = f"{votes.graders[first]}, {votes.graders[second]}"
        columns = votes.codes[:, first], votes.codes[:, second]
        plain = cohen_kappa(*columns, disagreement(scheme.array(), 0))
        lines.append((f"{pair}: kappa", _kappa(plain)))
        lines.append((f"{pair}: linear kappa", _kappa(cohen_kappa(*columns, weights))))
    if len(votes.graders) > 2:
        lines.append(("all: Fleiss' kappa", _kappa(fleiss_kappa(votes.codes, len(scheme.grades)))))
    return lines


def _share(share: Share) -> str:
    if share.value is None:
        return "no hidden objects graded"
    return f"{share.hits}/{share.trials} = {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


def _kappa(kappa: Kappa) -> str:
    return f"{kappa.value:.3f} [{kappa.low:.3f}, {kappa.high:.3f}] on {kappa.objects:,} objects"

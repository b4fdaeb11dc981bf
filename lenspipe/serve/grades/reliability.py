"""How good a grader is, by the hidden training objects whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lenspipe.proportion import clopper_pearson
from lenspipe.serve.grades.event import ObjectId
from lenspipe.serve.grades.scheme import Scheme
from lenspipe.serve.grades.state import GraderState
from lenspipe.serve.grades.store import Hidden


@dataclass(frozen=True)
class Share:
    """hits of trials, with the 95% interval of Clopper and Pearson for the rate behind them; 0..1
    where nothing was tried."""

    hits: int
    trials: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, trials: int) -> Share:
        """A share with its interval."""
        return cls(hits, trials, *clopper_pearson(hits, trials))

    @property
    def value(self) -> float | None:
        """The share; None where nothing was tried."""
        return self.hits / self.trials if self.trials else None


@dataclass(frozen=True)
class Reliability:
    """Of one grader on the hidden objects that have a grade. A grade "says lens" by the scheme.

    completeness: of the lenses, those that the grader called lenses. false_positives: of the
    others, those that were called lenses. purity: of those that were called lenses, the ones that
    are; it holds at the mix of lenses and others that was hidden, not at that of the sky.
    """

    grader: str
    completeness: Share
    false_positives: Share
    purity: Share

    def purity_at(self, prevalence: float) -> float | None:
        """Purity expected where a fraction `prevalence` of the objects are lenses; None where one
        of the two rates was not measured, or nothing would be called a lens."""
        found, wrong = self.completeness.value, self.false_positives.value
        if found is None or wrong is None:
            return None
        called = found * prevalence + wrong * (1.0 - prevalence)
        return found * prevalence / called if called > 0 else None


def reliability(state: GraderState, hidden: Sequence[Hidden], scheme: Scheme) -> Reliability:
    """How good a grader is on the hidden objects."""
    truth = {each.object_id: each.is_lens for each in hidden}
    return judged(state.grader, truth, state.grades, scheme)


def judged(
    grader: str, truth: Mapping[ObjectId, bool], grades: Mapping[ObjectId, str], scheme: Scheme
) -> Reliability:
    """Of grades on objects of known truth; objects without a grade, or without a truth, are passed
    over."""
    calls = [
        (is_lens, scheme.says_lens(grades[each]))
        for each, is_lens in truth.items()
        if each in grades
    ]
    lenses = sum(is_lens for is_lens, _ in calls)
    called = sum(says for _, says in calls)
    found = sum(is_lens and says for is_lens, says in calls)
    return Reliability(
        grader=grader,
        completeness=Share.of(found, lenses),
        false_positives=Share.of(called - found, len(calls) - lenses),
        purity=Share.of(found, called),
    )

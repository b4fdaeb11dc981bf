"""Agreement, consensus, reliability and the combination, against hand-made figures, scikit-learn,
a published table and simulated graders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score

from lenspipe.errors import InputError
from lenspipe.models.calibrate import logistic, to_prevalence
from lenspipe.serve.grades.agreement import cohen_kappa, disagreement, fleiss_kappa
from lenspipe.serve.grades.combine import combine, ordered_prior
from lenspipe.serve.grades.consensus import consensus
from lenspipe.serve.grades.event import ObjectId
from lenspipe.serve.grades.reliability import judged
from lenspipe.serve.grades.scheme import DEFAULT
from lenspipe.serve.grades.state import GraderState
from lenspipe.serve.grades.votes import votes_of

VALUES = DEFAULT.array()
PLAIN = disagreement(VALUES, 0)

# 14 raters, 10 subjects, 5 categories: https://en.wikipedia.org/wiki/Fleiss%27_kappa
WORKED = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def test_fleiss_of_the_worked_example() -> None:
    codes = np.array([np.repeat(np.arange(5), row) for row in WORKED])
    found = fleiss_kappa(codes, 5)
    assert found.value == pytest.approx(0.210, abs=5e-4)
    assert found.low < found.value < found.high
    assert found.objects == 10


def test_fleiss_with_missing_votes_by_hand() -> None:
    """Votes AA, AB and AAB; one object of a single vote, one of none, which do not count."""
    codes = np.array([[0, 0, -1], [0, 1, -1], [0, 0, 1], [1, -1, -1], [-1, -1, -1]])
    observed = (1 + 0 + 1 / 3) / 3
    a = (1 + 1 / 2 + 2 / 3) / 3
    chance = a**2 + (1 - a) ** 2
    found = fleiss_kappa(codes, 2)
    assert found.value == pytest.approx((observed - chance) / (1 - chance), abs=1e-12)
    assert found.objects == 3
    assert np.isnan(fleiss_kappa(codes[3:], 2).value)
    assert np.isnan(fleiss_kappa(np.zeros((5, 3), int), 2).value), "all gave one grade to all"


def test_cohen_by_hand_and_of_scikit_learn() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.4 (https://en.wikipedia.org/wiki/Cohen%27s_kappa)."""
    first = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    second = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert cohen_kappa(first, second, 1 - np.eye(2)).value == pytest.approx(0.4, abs=1e-12)
    rng = np.random.default_rng(3)
    for power, name in ((0, None), (1, "linear"), (2, "quadratic")):
        a = rng.integers(0, 4, 300)
        b = np.where(rng.random(300) < 0.6, a, rng.integers(0, 4, 300))
        missing = rng.random(300) < 0.1
        found = cohen_kappa(np.where(missing, -1, a), b, disagreement(VALUES, power))
        expected = cohen_kappa_score(a[~missing], b[~missing], weights=name)
        assert found.value == pytest.approx(expected, abs=1e-12)
        assert found.objects == np.count_nonzero(~missing)
        assert found.low < expected < found.high
        assert found.high - found.low < 0.25
    assert np.isnan(cohen_kappa(np.full(3, -1), np.zeros(3, int), PLAIN).value)


@settings(max_examples=40, deadline=None)
@given(
    codes=st.lists(st.lists(st.integers(-1, 3), min_size=3, max_size=3), min_size=1, max_size=12)
)
def test_fleiss_asks_neither_for_names_nor_for_order(codes: list[list[int]]) -> None:
    found = np.array(codes)
    value = fleiss_kappa(found, 4).value
    assert np.isnan(value) or -1.0 - 1e-9 <= value <= 1.0 + 1e-9
    turned = fleiss_kappa(found[::-1, ::-1], 4).value
    assert turned == pytest.approx(value, abs=1e-9, nan_ok=True)


def test_the_consensus_is_what_more_than_half_reach() -> None:
    a, b, c, x = range(4)
    codes = np.array(
        [
            [a, a, x, -1],  # two of three say A
            [a, b, -1, -1],  # one of two is not more than half: B
            [a, a, x, x],  # two of four: X
            [b, b, c, x],  # B has two of four, C three
            [a, b, c, x],
            [x, -1, -1, -1],
            [-1, -1, -1, -1],
        ]
    )
    found = consensus(codes, VALUES)
    assert found.code.tolist() == [a, b, x, c, c, x, -1]
    assert found.votes.tolist() == [3, 2, 4, 4, 4, 1, 0]
    assert found.mean[:2].tolist() == [2.0, 2.5]
    assert found.agreeing[0] == pytest.approx(2 / 3)
    assert np.isnan([found.mean[6], found.agreeing[6]]).all()
    # Two kinds of "no lens": more votes, then the scheme's order.
    three = np.array([1.0, 0.0, 0.0])
    same = consensus(np.array([[1, 2, 2], [2, 1, -1]]), three)
    assert same.code.tolist() == [2, 1]


@settings(max_examples=60, deadline=None)
@given(row=st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_the_consensus_is_the_lower_median(row: list[int]) -> None:
    found = consensus(np.array([row]), VALUES)
    values = sorted(VALUES[row])
    assert VALUES[found.code[0]] == values[(len(values) - 1) // 2]
    assert found.code[0] in row


def test_reliability_by_hand() -> None:
    truth: dict[ObjectId, bool] = {1: True, 2: True, 3: True, 4: False, "4": False, 9: True}
    grades: dict[ObjectId, str] = {1: "A", 2: "B", 3: "C", 4: "B", "4": "X", 77: "A"}
    found = judged("ana", truth, grades, DEFAULT)
    assert (found.completeness.hits, found.completeness.trials) == (2, 3)
    assert (found.false_positives.hits, found.false_positives.trials) == (1, 2)
    assert (found.purity.hits, found.purity.trials) == (2, 3)
    # Clopper and Pearson of 2 in 3.
    assert found.completeness.low == pytest.approx(0.0943, abs=1e-4)
    assert found.completeness.high == pytest.approx(0.9916, abs=1e-4)
    assert found.purity_at(0.1) == pytest.approx((2 / 30) / (2 / 30 + 0.5 * 0.9))
    assert judged("bo", truth, {}, DEFAULT).purity_at(0.1) is None


def test_votes_have_a_row_for_each_object_and_a_column_for_each_grader() -> None:
    states = {
        "bo": GraderState("bo", grades={2: "A", "1": "X"}),
        "ana": GraderState("ana", grades={2: "B"}),
        "idle": GraderState("idle", flagged={2}),
    }
    votes = votes_of(states, DEFAULT)
    assert (votes.object_ids, votes.graders) == ((2, "1"), ("ana", "bo"))
    assert votes.codes.tolist() == [[1, 0], [-1, 3]]


# The combination

FIRM = 1e9 * np.array([[0.1, 0.9], [0.8, 0.2]])  # rows: no lens, lens; grades: yes, no


def test_a_posterior_by_hand() -> None:
    """Of graders who are known, on objects that the network takes to be alike. The fraction f of
    lenses is where ∏ (0.1 + 0.7 f) or (0.9 - 0.7 f) of each vote, times the prior f (1 - f) in
    log-odds, is largest; then one yes gives 0.8 f / (0.1 + 0.7 f)."""
    codes = np.repeat([[0, -1], [1, -1], [-1, -1]], [30, 50, 1], axis=0)
    found = combine(codes, np.full(81, 0.97), np.full(81, -1), FIRM)
    f = np.linspace(1e-5, 1 - 1e-5, 1_000_001)
    density = 30 * np.log(0.1 + 0.7 * f) + 50 * np.log(0.9 - 0.7 * f) + np.log(f * (1 - f))
    best = f[density.argmax()]
    expected = [0.8 * best / (0.1 + 0.7 * best), 0.2 * best / (0.9 - 0.7 * best), best]
    np.testing.assert_allclose(found.probability[[0, 40, 80]], expected, atol=1e-5)
    assert found.converged


def test_the_network_alone_stays_as_it_is() -> None:
    """Where nobody voted on an object of unknown truth, nothing says that its odds are others."""
    codes = np.array([[0], [-1], [-1]])
    found = combine(codes, np.array([np.nan, 0.3, 0.9]), np.array([1, -1, -1]), np.ones((2, 2)))
    np.testing.assert_allclose(found.probability, [1.0, 0.3, 0.9])


def test_confusions_are_counts_of_training_objects() -> None:
    codes = np.array([[0], [0], [0], [1], [1], [1]])
    truth = np.array([1, 1, 1, 1, 0, 0])
    found = combine(codes, np.full(6, np.nan), truth, np.ones((2, 2)))
    np.testing.assert_allclose(found.confusion[0], [[1 / 4, 3 / 4], [4 / 6, 2 / 6]])
    assert found.probability.tolist() == truth.tolist()


def test_what_the_network_did_not_see_is_unknown_and_counts_not() -> None:
    codes = np.array([[0], [0], [3]])
    prior = ordered_prior(VALUES)
    found = combine(codes, np.array([0.5, np.nan, 0.2]), np.full(3, -1), prior)
    alone = combine(codes[[0, 2]], np.array([0.5, 0.2]), np.full(2, -1), prior)
    assert np.isnan(found.probability[1])
    np.testing.assert_allclose(found.probability[[0, 2]], alone.probability, atol=1e-6)
    empty = combine(np.empty((0, 0), int), np.empty(0), np.empty(0, int), prior)
    assert empty.probability.shape == (0,)


@pytest.mark.parametrize(
    ("network", "prior", "line"),
    [
        ([0.5], np.ones((2, 4)), "network, truth: expected 2 values"),
        ([0.5, 1.5], np.ones((2, 4)), "network: expected probabilities"),
        ([0.5, 0.5], np.zeros((2, 4)), "prior: expected pseudo-counts above 0"),
        ([0.5, 0.5], np.ones((2, 2)), "codes: expected grades below 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    network: list[float], prior: np.ndarray, line: str
) -> None:
    with pytest.raises(InputError, match=line):
        combine(np.array([[3], [0]]), np.array(network), np.full(len(network), -1), prior)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_step_makes_it_less_likely_and_no_order_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 4, (30, 3))
    network, truth = rng.random(30), rng.choice([-1, -1, 0, 1], 30)
    prior = ordered_prior(VALUES)
    found = combine(codes, network, truth, prior)
    assert (np.diff(found.log_posterior) > -1e-9).all()
    turned = combine(codes[::-1, ::-1], network[::-1], truth[::-1], prior)
    np.testing.assert_allclose(turned.probability[::-1], found.probability, atol=1e-5)


# Rows: no lens, lens; grades A, B, C, X. A careful one, two ordinary ones, one who calls most
# things lenses, and one who hardly looks.
GRADERS = np.array(
    [
        [[0.01, 0.04, 0.15, 0.80], [0.55, 0.30, 0.10, 0.05]],
        [[0.02, 0.08, 0.25, 0.65], [0.35, 0.30, 0.20, 0.15]],
        [[0.02, 0.10, 0.20, 0.68], [0.30, 0.35, 0.20, 0.15]],
        [[0.15, 0.30, 0.30, 0.25], [0.50, 0.30, 0.15, 0.05]],
        [[0.20, 0.20, 0.25, 0.35], [0.28, 0.24, 0.24, 0.24]],
    ]
)


def simulated(
    seed: int, n: int = 2000, hidden: int = 150, seen: float = 0.6
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Codes, network, known truth (of `hidden` training objects, the last rows) and all truth. The
    network is calibrated: an object with probability p is a lens with probability p."""
    rng = np.random.default_rng(seed)
    network = np.concatenate([rng.beta(0.3, 1.7, n), np.full(hidden, np.nan)])
    lens = rng.random(n + hidden) < np.nan_to_num(network, nan=0.5)
    known = np.where(np.arange(n + hidden) < n, -1, lens)
    edges = np.cumsum(GRADERS, axis=2)[:, lens.astype(int)]  # (g, n, k)
    drawn = rng.random((len(GRADERS), n + hidden, 1))
    codes = np.minimum((drawn > edges).sum(axis=2), 3).T
    codes[rng.random(codes.shape) > seen] = -1
    return codes, network, known, lens


@pytest.mark.parametrize("hidden", [150, 0])
def test_the_combination_finds_more_than_people_or_network_alone(hidden: int) -> None:
    codes, network, known, lens = simulated(1, hidden=hidden)
    found = combine(codes, network, known, ordered_prior(VALUES))
    judged_on = known < 0
    truth = lens[judged_on]
    yes = ((codes == 0) | (codes == 1)).sum(axis=1)[judged_on]
    votes = (codes >= 0).sum(axis=1)[judged_on]
    majority = np.divide(yes, votes, where=votes > 0, out=np.zeros(len(votes)))
    wrong = {
        "combined": np.mean((found.probability[judged_on] > 0.5) != truth),
        "majority": np.mean((majority > 0.5) != truth),
        "network": np.mean((network[judged_on] > 0.5) != truth),
    }
    area = {
        "combined": roc_auc_score(truth, found.probability[judged_on]),
        "majority": roc_auc_score(truth, majority),
        "network": roc_auc_score(truth, network[judged_on]),
    }
    assert wrong["combined"] < 0.6 * wrong["network"]
    assert wrong["combined"] < 0.6 * wrong["majority"]
    assert area["combined"] > max(area["network"], area["majority"]) + 0.03
    assert log_loss(truth, found.probability[judged_on]) < 0.6 * log_loss(truth, network[judged_on])
    # As many lenses as the probabilities promise, in each of a few bins: they are calibrated.
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        inside = (found.probability[judged_on] >= low) & (found.probability[judged_on] <= high)
        expected = found.probability[judged_on][inside].sum()
        assert abs(truth[inside].sum() - expected) < 4 * np.sqrt(expected) + 4
    # A cell of a lens row rests on some 180 votes: 0.037 is its standard error were truth known,
    # and the largest deviation of 40 cells, with truth unknown, is some three of those.
    np.testing.assert_allclose(found.confusion, GRADERS, atol=0.13)


# A survey's candidates: few are lenses, and the network's probabilities hold where a quarter are.

GOOD = np.array([[0.005, 0.045, 0.15, 0.80], [0.35, 0.35, 0.20, 0.10]])


def candidates(
    seed: int, graders: int = 3, lenses: int = 25, n: int = 1000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Votes, network's probability at prevalence 0.25 (most above 0.9) and truth. The score is
    normal, its mean 1 higher for lenses: its likelihood ratio is exp(score - 1/2)."""
    rng = np.random.default_rng(seed)
    lens = rng.permutation(n) < lenses
    score = rng.normal(lens, 1.0)
    # One in 2,000 of the survey's galaxies is a lens, one in 40 of those that became candidates.
    rarer = np.log(lenses / (n - lenses)) - np.log(0.0005 / 0.9995) + np.log(0.25 / 0.75)
    network = logistic(score - 0.5 + rarer)
    return votes_on(lens, [GOOD] * graders, rng), network, lens


def votes_on(
    lens: np.ndarray, confusions: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    columns = [
        np.where(lens, *(rng.choice(4, len(lens), p=c[z]) for z in (1, 0))) for c in confusions
    ]
    return np.stack(columns, axis=1)


def unknown(n: int) -> np.ndarray:
    return np.full(n, -1)


@pytest.mark.parametrize("graders", [1, 2, 3])
@pytest.mark.parametrize("objects", [1, 25])
def test_what_all_call_no_lens_falls(graders: int, objects: int) -> None:
    """However sure the network is at its own prevalence. One grader on one object has the prior's
    odds alone, 1/4, at a fraction of lenses that nobody knows."""
    network = np.linspace(0.95, 0.99, objects)
    prior = ordered_prior(VALUES)
    no = combine(np.full((objects, graders), 3), network, unknown(objects), prior)
    assert no.probability.max() < (0.15 if objects == 1 else 0.05)
    yes = combine(np.full((objects, graders), 0), network, unknown(objects), prior)
    assert yes.probability.min() > (0.85 if objects == 1 else 0.95)


def test_few_lenses_among_many_candidates() -> None:
    """Ten surveys of 1,000 candidates with 25 lenses, each graded by three people."""
    found, truth, areas = list[np.ndarray](), list[np.ndarray](), list[list[float]]()
    prior = ordered_prior(VALUES)
    for seed in range(10):
        codes, network, lens = candidates(seed)
        done = combine(codes, network, unknown(len(lens)), prior)
        assert lens.sum() / 2 < done.probability.sum() < lens.sum() * 2
        all_no = (codes == 3).all(axis=1)
        assert done.probability[all_no].max() < 0.05
        scores = done.probability, VALUES[codes].mean(axis=1), network
        areas.append([roc_auc_score(lens, each) for each in scores])
        # Rows of others rest on 975 objects: 0.013 is the standard error of a cell. Those of lenses
        # on 25: 0.1, and 12 cells in 10 surveys go to three of those.
        np.testing.assert_allclose(done.confusion[:, 0], [GOOD[0]] * 3, atol=0.05)
        np.testing.assert_allclose(done.confusion[:, 1], [GOOD[1]] * 3, atol=0.3)
        found.append(done.probability)
        truth.append(lens)
    combined, by_votes, by_network = np.mean(areas, axis=0)
    assert combined > by_votes > by_network
    probability, lens = np.concatenate(found), np.concatenate(truth)
    # Calibrated: as many lenses in each bin as promised, within three binomial sigmas and, since
    # graders and the fraction of lenses are estimated from few lenses, a fifth of the promise.
    for low, high in ((0.0, 0.01), (0.01, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        inside = (probability >= low) & (probability <= high)
        promised = probability[inside].sum()
        sigma = np.sqrt((probability[inside] * (1 - probability[inside])).sum())
        assert abs(lens[inside].sum() - promised) < 3 * sigma + 0.2 * promised, (low, high)


@pytest.mark.parametrize("seed", range(3))
def test_the_prevalence_that_probabilities_hold_at_does_not_matter(seed: int) -> None:
    codes, network, lens = candidates(seed)
    prior = ordered_prior(VALUES)
    rare = to_prevalence(network, 0.25, 1e-3)
    assert np.median(network) > 0.9
    assert np.median(rare) < 0.1
    found = [combine(codes, p, unknown(len(lens)), prior) for p in (network, rare)]
    np.testing.assert_allclose(found[0].probability, found[1].probability, atol=1e-4)


def test_a_network_that_tells_nothing_is_found_out() -> None:
    """Probabilities that have nothing to do with the truth must not drown the votes."""
    rng = np.random.default_rng(2)
    codes, _, lens = candidates(2)
    found = combine(codes, rng.uniform(0.93, 0.997, 1000), unknown(1000), ordered_prior(VALUES))
    assert found.shift.beta < 0.5
    by_votes = roc_auc_score(lens, VALUES[codes].mean(axis=1))
    assert roc_auc_score(lens, found.probability) > by_votes - 0.01


def test_hidden_objects_find_out_who_grades_the_wrong_way_round() -> None:
    """40 hidden objects, half of them lenses, weigh more than the prior that people mean well; of
    the fraction of lenses among the others they say nothing."""
    rng = np.random.default_rng(4)
    _, network, lens = candidates(4)
    hidden = np.arange(40) % 2 == 0
    people = [GOOD, GOOD[::-1]]
    codes = votes_on(np.concatenate([lens, hidden]), people, rng)
    network = np.concatenate([network, np.full(40, np.nan)])
    truth = np.concatenate([unknown(1000), hidden])
    found = combine(codes, network, truth, ordered_prior(VALUES))
    np.testing.assert_allclose(found.confusion, people, atol=0.25)
    assert roc_auc_score(lens, found.probability[:1000]) > 0.95
    assert lens.sum() / 2 < found.probability[:1000].sum() < lens.sum() * 2
    alone = combine(codes[:, 1:], network, truth, ordered_prior(VALUES))
    assert np.median(alone.probability[:1000][codes[:1000, 1] == 0]) < 0.05

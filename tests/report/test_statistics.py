"""Every procedure against a published worked example, an independent computation, or a simulation whose truth is known."""

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binomtest, sem, ttest_1samp
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from mgrpo_lib.report.statistics import (
    accuracy_interval,
    estimate,
    holm,
    maj_at_k,
    mcnemar,
    minimum_detectable_effect,
    pass_at_k,
    problems_to_decide,
    seeds_to_decide,
    transitions,
)


def simulate(number, seeds, problems=300, accuracies=(0.6, 0.6), shift=0.0, own=0.0, difficulty=1.0):
    """Right or wrong (arms, number, seeds, problems) in experiments with the given true accuracies (a probit model).

    A problem has a difficulty shared by all seeds and arms, and another one of its `own` in each arm; each seed of an arm
    has a shift shared by all problems. 0.25 are 7 points of accuracy.
    """
    rng = np.random.default_rng(20)
    shared = difficulty * rng.standard_normal((number, 1, problems))
    spread = np.sqrt(1 + difficulty**2 + shift**2 + own**2)
    arms = []
    for accuracy in accuracies:
        level = shared + own * rng.standard_normal((number, 1, problems)) + spread * ndtri(accuracy)
        arms.append(
            rng.standard_normal((number, seeds, problems)) < level + shift * rng.standard_normal((number, seeds, 1))
        )
    return np.array(arms, dtype=np.int8)


def differences(number, seeds, effect=0.0, **settings):
    first, second = simulate(number, seeds, accuracies=(0.6, 0.6 + effect), **settings)
    return second - first


def coverage(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


def interval(values):
    found = estimate(values)
    return found["low"], found["high"]


def exact_table(seeds, problems, mean, of_seeds, of_problems, of_error):
    """Values with exactly this mean, and variance components estimated to be exactly these."""
    noise = np.random.default_rng(0).standard_normal((seeds, problems))
    rows, columns = noise.mean(1, keepdims=True) - noise.mean(), noise.mean(0, keepdims=True) - noise.mean()
    rest = noise - rows - columns - noise.mean()
    rows *= np.sqrt((of_seeds + of_error / problems) / rows.var(ddof=1))
    columns *= np.sqrt((of_problems + of_error / seeds) / columns.var(ddof=1))
    return mean + rows + columns + rest * np.sqrt(of_error * (seeds - 1) * (problems - 1) / (rest**2).sum())


# ---------------------------------------------------------------------------------------------- transitions
def test_transitions_obey_the_identity():
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 200)) < 0.6, rng.random((3, 200)) < 0.7
    t = transitions(first, second)
    assert t["acc_t2"] == pytest.approx(t["acc_t1"] + t["i_to_c"] - t["c_to_i"], abs=1e-12)
    assert t["delta_t1_t2"] == pytest.approx(t["acc_t2"] - t["acc_t1"], abs=1e-12)


@pytest.mark.parametrize(
    ("kept", "broken", "fixed", "published"),  # SCoRe (arXiv 2409.12917), MATH500: the base model, and SCoRe
    [(184, 79, 23, (52.6, 41.4, -11.2, 4.6, 15.8)), (293, 7, 29, (60.0, 64.4, 4.4, 5.8, 1.4))],
)
def test_transitions_of_a_published_table(kept, broken, fixed, published):
    first = np.repeat([1, 1, 0, 0], [kept, broken, fixed, 500 - kept - broken - fixed])
    second = np.repeat([1, 0, 1, 0], [kept, broken, fixed, 500 - kept - broken - fixed])
    assert [100 * share for share in transitions(first, second).values()] == pytest.approx(published)


def test_attempts_of_different_problems_are_refused():
    for first, second in [((1, 3), (1, 4)), ((1, 0), (1, 0))]:
        with pytest.raises(ValueError, match=re.escape(str(second))):
            transitions(np.ones(first), np.ones(second))


# ---------------------------------------------------------------------------------------------- estimate
def test_estimate_has_the_mean_squares_of_a_published_table():
    """Shrout and Fleiss (1979), tables 2 and 3: judges 32.49 (3 degrees of freedom), targets 11.24 (5), rest 1.02 (15)."""
    targets = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = estimate(np.transpose(targets))
    total = 32.49 + 11.24 - 1.02
    assert found["se"] == pytest.approx(np.sqrt(total / 24), rel=1e-3)
    assert found["df"] == pytest.approx(total**2 / (32.49**2 / 3 + 11.24**2 / 5 + 1.02**2 / 15), rel=1e-3)
    assert found["mean"] == pytest.approx(127 / 24)


def test_one_seed_is_the_t_test_over_problems():
    values = np.random.default_rng(0).choice([-1, 0, 1], 50, p=[0.1, 0.6, 0.3])
    found, theirs = estimate(values), ttest_1samp(values, 0)
    assert (found["low"], found["high"]) == pytest.approx(tuple(theirs.confidence_interval()))
    assert (found["p"], found["df"]) == pytest.approx((theirs.pvalue, 49))
    assert estimate(values, 0.9)["low"] == pytest.approx(theirs.confidence_interval(0.9).low)


def test_p_is_where_the_interval_touches_zero():
    for values in differences(20, 5, effect=0.05, shift=0.25):
        found = estimate(values)
        touching = estimate(values, level=1 - found["p"])
        assert min(abs(touching["low"]), abs(touching["high"])) == pytest.approx(0, abs=1e-9)


def test_the_standard_error_is_never_below_that_of_the_problems_alone():
    for values in differences(200, 3):
        found = estimate(values)
        assert found["se"] >= sem(values.mean(0)) * (1 - 1e-9) and found["df"] >= 2


def test_values_without_variation():
    """Nothing seen in 50 problems: by the rule of three at most about 3 / 50 (one-sided), here 3.7 / 50 (two-sided)."""
    found = estimate(np.zeros((3, 50)))
    assert found["p"] == 1 and found["high"] == -found["low"] == pytest.approx(
        proportion_confint(0, 50, method="beta")[1]
    )
    assert minimum_detectable_effect(np.zeros((3, 50))) == found["high"]
    found, least = estimate(np.ones((3, 50))), proportion_confint(50, 50, method="beta")[0]
    assert (found["low"], found["high"]) == pytest.approx((least - (1 - least), 1)), (
        "the others may be worse, not equal"
    )
    assert found["p"] == pytest.approx(binomtest(50, 50).pvalue)
    for problems in range(2, 12):
        found = estimate(np.ones(problems))
        assert (found["low"] > 0) == (found["p"] < 0.05), "interval and sign test agree"


@pytest.mark.parametrize("values", [[-1, 0], [1, 0, 0], [[1, 0], [1, -1]], [1, 1], np.ones((3, 2)), [0, 0]])
def test_few_problems_give_no_impossible_difference(values):
    found = estimate(values)
    assert -1 <= found["low"] <= found["mean"] <= found["high"] <= 1 and found["p"] > 0.05
    assert found["low"] < 0 < found["high"] and 0 < minimum_detectable_effect(values) <= 1


@pytest.mark.parametrize("problems", [2, 3, 5, 10])
@pytest.mark.parametrize("shares", [(0.1, 0.8, 0.1), (0.0, 0.5, 0.5), (0.0, 0.05, 0.95)])
def test_the_interval_covers_the_truth_with_few_problems(problems, shares):
    drawn = np.random.default_rng(1).choice([-1, 0, 1], (4000, problems), p=shares)
    assert coverage(map(interval, drawn), shares[2] - shares[0]) >= 0.88


@pytest.mark.parametrize("function", [estimate, accuracy_interval, seeds_to_decide, problems_to_decide])
@pytest.mark.parametrize("values", [[], [1], [[1], [0]], np.ones((2, 2, 2)), [0, np.nan], [0, np.inf]])
def test_what_is_no_table_of_numbers_is_refused(function, values):
    with pytest.raises(ValueError, match="shape"):
        function(values)


@pytest.mark.parametrize(
    ("seeds", "effect", "shift", "own", "least", "most"),
    [
        *((5, *truth, 0.93, 0.97) for truth in [(0, 0.25, 0), (0.1, 0.25, 0.3), (0.3, 0.1, 0.3), (0.1, 1, 0)]),
        *((3, *truth, 0.915, 0.97) for truth in [(0, 0.1, 0), (0.1, 0.25, 0.5), (0.1, 0.5, 0)]),
        *((seeds, 0, 0, 0, 0.96, 0.99) for seeds in (3, 5)),  # wider than need be where seeds do not differ
    ],
)
def test_estimate_covers_the_truth(seeds, effect, shift, own, least, most):
    intervals = map(interval, differences(4000, seeds, effect, shift=shift, own=own))
    assert least <= coverage(intervals, effect) <= most


def test_false_positives_are_as_rare_as_they_should_be():
    p = np.array([estimate(values)["p"] for values in differences(4000, 5, shift=0.25, own=0.3)])
    assert 0.03 <= (p < 0.05).mean() <= 0.07
    assert 0.003 <= (p < 0.01).mean() <= 0.02


# ---------------------------------------------------------------------------------------------- accuracies
@pytest.mark.parametrize(
    ("right", "of", "low", "high"),  # Newcombe (1998), table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_accuracy_of_one_model_has_the_published_wilson_interval(right, of, low, high):
    assert accuracy_interval([1] * right + [0] * (of - right)) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("accuracy", "difficulty"), [(0.5, 1), (0.8, 1), (0.8, 0), (0.95, 1)])
@pytest.mark.parametrize(("seeds", "shift", "least"), [(1, 0, 0.93), (3, 0.25, 0.905), (5, 0.15, 0.93)])
def test_accuracy_interval_covers_the_truth(seeds, shift, least, accuracy, difficulty):
    answers = simulate(2000, seeds, accuracies=[accuracy], shift=shift, difficulty=difficulty)[0]
    assert least <= coverage(map(accuracy_interval, answers), accuracy) <= 0.98


def test_accuracy_interval_keeps_its_coverage_near_one_and_stays_within():
    answers = simulate(2000, 5, problems=100, accuracies=[0.99], shift=0.25)[0]
    ours = [accuracy_interval(values) for values in answers]
    assert all(0 <= low <= values.mean() <= high <= 1 for (low, high), values in zip(ours, answers, strict=True))
    assert 0.93 <= coverage(ours, 0.99) <= 0.99


def test_accuracy_interval_is_too_short_where_some_seeds_fail():
    answers = simulate(2000, 5, accuracies=[0.9], shift=2.0)[0]
    assert 15 < 100 * answers.mean(2).std() < 22, "points between seeds"
    assert 0.7 <= coverage(map(accuracy_interval, answers), 0.9) <= 0.9


def test_accuracies_that_are_all_equal_count_as_one_answer_for_each_problem():
    one = accuracy_interval(np.ones(300))
    assert one == pytest.approx((0.9874, 1), abs=1e-4)
    assert accuracy_interval(np.ones((5, 300))) == pytest.approx(one, abs=2e-4)
    assert accuracy_interval(np.zeros((5, 300))) == pytest.approx((0, 1 - one[0]), abs=2e-4)
    assert accuracy_interval(np.full((2, 300), 0.1)) == pytest.approx(accuracy_interval(np.full(300, 0.1)), abs=1e-3)


def test_what_is_no_accuracy_is_refused():
    for wrong in (-1, 1.2):
        with pytest.raises(ValueError, match=str(wrong)):
            accuracy_interval([0, 1, wrong])


# ---------------------------------------------------------------------------------------------- planning
def test_the_detectable_effect_of_one_seed_has_the_textbook_power():
    values = differences(1, 1)[0, 0]
    size = minimum_detectable_effect(values) / values.std(ddof=1)
    assert TTestPower().power(size, nobs=300, alpha=0.05) == pytest.approx(0.8, abs=0.002)
    size = minimum_detectable_effect(values, power=0.9, level=0.99) / values.std(ddof=1)
    assert TTestPower().power(size, nobs=300, alpha=0.01) == pytest.approx(0.9, abs=0.002)


@pytest.mark.parametrize(("seeds", "shift"), [(1, 0), (5, 0.1), (5, 0.25)])
def test_the_detectable_effect_is_found_in_four_of_five_experiments(seeds, shift):
    experiments = differences(2000, seeds, shift=shift, own=0.3)
    effect = np.sqrt(np.mean([minimum_detectable_effect(values) ** 2 for values in experiments]))
    assert 0.76 <= np.mean([estimate(values + effect)["p"] < 0.05 for values in experiments]) <= 0.84


def decided(values):
    return estimate(values)["p"] < 0.05


@pytest.mark.parametrize("mean", [0.02, 0.03, -0.05])
def test_seeds_to_decide_is_the_smallest_number_that_does(mean):
    components = {"mean": mean, "of_seeds": 0.05**2, "of_problems": 0.05**2, "of_error": 0.3}
    observed = exact_table(5, 300, **components)
    found = seeds_to_decide(observed)
    assert decided(exact_table(found, 300, **components)) and not decided(exact_table(found - 1, 300, **components))
    assert (found <= 5) == decided(observed)


@pytest.mark.parametrize("mean", [0.05, 0.07, -0.1])
def test_problems_to_decide_is_the_smallest_number_that_does(mean):
    components = {"mean": mean, "of_seeds": 0.02**2, "of_problems": 0.2**2, "of_error": 0.3}
    observed = exact_table(5, 100, **components)
    found = problems_to_decide(observed)
    assert decided(exact_table(5, found, **components)) and not decided(exact_table(5, found - 1, **components))
    assert (found <= 100) == decided(observed)


def test_planning_and_estimate_agree_on_what_was_observed():
    answers = set()
    for effect in (0, 0.05, 0.1):
        for values in differences(200, 5, effect, shift=0.1, own=0.3):
            seeds, problems = seeds_to_decide(values) or np.inf, problems_to_decide(values) or np.inf
            assert (seeds <= 5) == (problems <= 300) == decided(values)
            answers.add(decided(values))
    assert answers == {True, False}


def test_problems_to_decide_does_not_overlook_that_the_observed_ones_decide():
    """With many more problems the two seeds alone would make up the error, with one degree of freedom."""
    values = exact_table(2, 100, mean=0.35, of_seeds=0.05**2, of_problems=1, of_error=1)
    assert decided(values)
    assert (problems_to_decide(values) or np.inf) <= 100


def test_no_number_suffices():
    values = exact_table(5, 300, mean=0.01, of_seeds=0.1**2, of_problems=0.4**2, of_error=0.3)
    assert seeds_to_decide(values) is None, "the problems alone leave 0 inside"
    assert problems_to_decide(values) is None, "so do the seeds"
    assert seeds_to_decide(values - values.mean()) is None and problems_to_decide(values - values.mean()) is None
    assert seeds_to_decide(values[0]) is None, "one seed does not say how seeds vary"
    tiny = exact_table(5, 300, mean=0.001, of_seeds=0.1**2, of_problems=0, of_error=0.3)
    assert seeds_to_decide(tiny) is None, "more than 10,000"


# ---------------------------------------------------------------------------------------------- tests
@pytest.mark.parametrize(
    ("both", "lost", "won", "neither", "p"),
    [
        (1, 1, 7, 12, 0.0703),  # Bentur et al., in Fagerland, Lydersen and Laake (2013), table 1
        (20, 12, 2, 16, 0.0129),  # Armitage and Berry (1994), p. 127
    ],
)
def test_mcnemar_of_published_tables(both, lost, won, neither, p):
    first = np.repeat([1, 1, 0, 0], [both, lost, won, neither])
    second = np.repeat([1, 0, 1, 0], [both, lost, won, neither])
    assert mcnemar(first, second) == pytest.approx(p, abs=5e-5)


def test_mcnemar_is_the_binomial_test_of_what_changed():
    for lost, won in [(0, 1), (3, 3), (0, 9), (5, 20), (40, 30)]:
        first, second = np.repeat([1, 0, 1], [lost, won, 10]), np.repeat([0, 1, 1], [lost, won, 10])
        assert mcnemar(first, second) == pytest.approx(binomtest(lost, lost + won).pvalue)
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1


def test_mcnemar_refuses_what_is_not_paired():
    for first, second in [([1, 0], [1]), ([[1, 0]], [[1, 0]])]:
        with pytest.raises(ValueError, match="shapes"):
            mcnemar(first, second)


def test_holm_of_four_hypotheses_from_the_encyclopedia():
    adjusted = holm({"H1": 0.01, "H2": 0.04, "H3": 0.03, "H4": 0.005})
    assert adjusted == pytest.approx({"H1": 0.03, "H2": 0.06, "H3": 0.06, "H4": 0.02})
    assert list(adjusted) == ["H1", "H2", "H3", "H4"]
    assert holm({}) == {} and holm({"alone": 0.04}) == {"alone": 0.04} and holm({"a": 0.9, "b": 0.8})["a"] == 1


def test_holm_rejects_three_of_the_fifteen_of_benjamini_and_hochberg():
    """Their paper (1995): Bonferroni, and Hochberg's procedure that rejects all that Holm's does, reject these three."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    adjusted = list(holm(dict(enumerate(p))).values())
    assert [x < 0.05 for x in adjusted] == [True] * 3 + [False] * 12
    assert adjusted == pytest.approx(np.minimum(np.maximum.accumulate(np.array(p) * np.arange(15, 0, -1)), 1))


# ---------------------------------------------------------------------------------------------- several samples
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    right = np.random.default_rng(0).random((20, 7)) < np.linspace(0, 1, 20)[:, None]
    by_k = [pass_at_k(right, k) for k in range(1, 8)]
    for k, found in enumerate(by_k, start=1):
        subsets = [right[:, list(subset)].any(1) for subset in combinations(range(7), k)]
        assert found == pytest.approx(np.mean(subsets, axis=0))
    assert (np.diff(by_k, axis=0) >= 0).all(), "more samples, no fewer solved"
    assert by_k[0] == pytest.approx(right.mean(1))


def majority(answers, right, k):
    """Of one problem, by counting the votes of every subset."""
    shares = []
    for subset in combinations(range(len(answers)), k):
        votes = Counter(answers[i] for i in subset if answers[i] is not None)
        leading = [answer for answer, n in votes.items() if n == max(votes.values())]
        shares.append(np.mean([right[answers.index(answer)] for answer in leading]) if leading else 0)
    return np.mean(shares)


def answered(problems, samples):
    rng = np.random.default_rng(0)
    answers = [[[None, "1", "2", "3"][i] for i in row] for row in rng.integers(4, size=(problems, samples))]
    return answers, np.array([[answer == "2" for answer in row] for row in answers])


def test_maj_at_k_counts_the_votes_of_all_subsets():
    answers, right = answered(12, 7)
    answers[0], right[0] = [None] * 7, False
    for k in range(1, 8):
        counted = [majority(*one, k) for one in zip(answers, right, strict=True)]
        assert maj_at_k(answers, right, k) == pytest.approx(counted)
    assert maj_at_k(answers, right, 1) == pytest.approx(right.mean(1))
    assert maj_at_k([["1", "2"], ["2", "2"], [None, "2"]], [[0, 1], [1, 1], [0, 1]], 2).tolist() == [0.5, 1, 1]


def test_maj_at_k_draws_where_subsets_are_too_many():
    answers, right = answered(6, 14)
    found = maj_at_k(answers, right, 7)
    counted = [majority(*one, 7) for one in zip(answers, right, strict=True)]
    assert found == pytest.approx(counted, abs=0.06) and found != pytest.approx(counted, abs=1e-9)
    assert (found == maj_at_k(answers, right, 7)).all(), "the same samples give the same share"


@pytest.mark.parametrize("function", [pass_at_k, lambda right, k: maj_at_k(np.array(right, str), right, k)])
def test_samples_that_cannot_be_drawn_are_refused(function):
    for right, k in [([[1, 0]], 0), ([[1, 0]], 3), ([1, 0], 1)]:
        with pytest.raises(ValueError, match="samples"):
            function(right, k)


def test_answers_of_other_samples_are_refused():
    for answers in ([["1"]], [["1", "2"], ["1", "2"]], [["1", "2", "3"]]):
        with pytest.raises(ValueError, match="answers of shape"):
            maj_at_k(answers, [[1, 0]], 1)

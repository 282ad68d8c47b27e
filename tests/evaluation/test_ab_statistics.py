import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import sqrtm

from batteryops.errors import DataError
from batteryops.evaluation.ab_statistics import (
    clustered_mean,
    holm,
    interval,
    one_sided_p,
    sample_ratio_p,
    t_value,
    welch,
)


def by_matrices(
    differences: list[np.ndarray], *, agreed: bool = False
) -> tuple[float, float, float]:
    """Mean, CR2 standard error and degrees of freedom by the matrices of the papers."""
    sizes = [len(one) for one in differences]
    n, ends = sum(sizes), np.cumsum([0, *sizes])
    x, residual_maker = np.ones((n, 1)), np.eye(n) - np.ones((n, n)) / n
    y = np.concatenate(differences)
    residuals = residual_maker @ y
    covariance = np.eye(n)
    forms = []
    variance = 0.0
    for start, end in pairwise(ends):
        its = slice(start, end)
        adjust = np.linalg.inv(np.real(sqrtm(residual_maker[its, its])))
        weights = adjust @ x[its] / n
        variance += float((weights.T @ residuals[its]).item() ** 2)
        forms.append(residual_maker[its].T @ weights)
        if agreed:
            covariance[its, its] = 1.0
    p = np.hstack(forms)
    products = p.T @ covariance @ p
    return y.mean(), math.sqrt(variance), float(np.trace(products) ** 2 / (products**2).sum())


def test_with_as_many_answers_of_each_vehicle_it_is_students_test_on_their_means() -> None:
    means = np.random.default_rng(1).normal(0.4, 1.0, 12)
    found = clustered_mean(means * 7, np.full(12, 7))
    student = stats.ttest_1samp(means, 0.0, alternative="greater")
    assert t_value(found) == pytest.approx(student.statistic)
    assert found.df == pytest.approx(11)
    assert one_sided_p(found) == pytest.approx(student.pvalue)
    both = stats.ttest_1samp(means, 0.0).confidence_interval(0.9)
    assert interval(found, 0.9).low == pytest.approx(both.low)
    assert interval(found, 0.9).high == pytest.approx(both.high)


@pytest.mark.parametrize("sizes", [(3, 4, 9, 2, 6), (30, 2, 2, 1, 1, 5), (4, 7)])
def test_with_unequal_vehicles_it_is_what_the_papers_matrices_give(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(sizes))
    rows = [rng.normal(rng.normal(), 1.0, n) for n in sizes]
    found = clustered_mean([one.sum() for one in rows], sizes)
    mean, se, independent = by_matrices(rows)
    agreed = by_matrices(rows, agreed=True)[2]
    assert found.effect == pytest.approx(mean)
    assert found.se == pytest.approx(se)
    assert found.df == pytest.approx(min(independent, agreed))


def test_bell_and_mccaffreys_degrees_of_freedom_are_the_published_ones() -> None:
    # R package dfadjust, vignette: the intercept is the mean of 7 clusters of 50 and one of 500,
    # df 2.42 by Bell and McCaffrey; the others are 3 clusters of 50
    sizes = [50] * 7 + [500]
    assert by_matrices([np.zeros(n) for n in sizes])[2] == pytest.approx(2.42, abs=0.005)
    found = clustered_mean(np.arange(8.0), sizes)
    assert found.df == pytest.approx(by_matrices([np.zeros(n) for n in sizes], agreed=True)[2])
    assert found.df < 2.42
    assert clustered_mean(np.arange(3.0), [50] * 3).df == pytest.approx(2.0)


def test_one_vehicle_says_nothing_of_others_and_none_says_nothing_at_all() -> None:
    alone = clustered_mean([5.0, 0.0], [10, 0])
    assert alone.effect == pytest.approx(0.5)
    assert np.isnan([alone.se, alone.df, one_sided_p(alone)]).all()
    assert np.isnan(clustered_mean([0.0, 0.0], [0, 0])).all()


def test_vehicles_without_answers_change_nothing() -> None:
    few = clustered_mean([1.0, 4.0, 2.0], [2, 5, 1])
    more = clustered_mean([1.0, 0.0, 4.0, 2.0, 0.0], [2, 0, 5, 1, 0])
    assert [*map(float, more)] == pytest.approx([*map(float, few)])


def test_many_trials_at_once_are_each_by_itself() -> None:
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 5, (3, 2, 6)) + 1
    sums = rng.normal(size=(3, 2, 6))
    together = clustered_mean(sums, counts)
    for at in np.ndindex(3, 2):
        assert [part[at] for part in together] == pytest.approx(
            [*map(float, clustered_mean(sums[at], counts[at]))]
        )


def test_a_challenger_that_errs_more_has_p_above_one_half() -> None:
    worse = clustered_mean([-3.0, -8.0, -4.0], [2, 2, 2])
    better = clustered_mean([3.0, 8.0, 4.0], [2, 2, 2])
    assert one_sided_p(worse) == pytest.approx(1.0 - one_sided_p(better))
    assert one_sided_p(worse) > 0.95


def test_vehicles_that_do_not_differ_at_all_are_certain_of_the_sign_and_of_nothing_else() -> None:
    assert one_sided_p(clustered_mean([2.0, 2.0], [2, 2])) == 0.0
    assert one_sided_p(clustered_mean([-2.0, -2.0], [2, 2])) == 1.0
    assert one_sided_p(clustered_mean([0.0, 0.0], [2, 2])) == 0.5


def test_welch_is_that_of_scipy_and_ignores_vehicles_without_answers() -> None:
    rng = np.random.default_rng(2)
    champion, challenger = rng.normal(1.0, 1.0, 9), rng.normal(0.5, 3.0, 14)
    found = welch(np.append(champion, np.nan), challenger)
    theirs = stats.ttest_ind(champion, challenger, equal_var=False, alternative="greater")
    assert t_value(found) == pytest.approx(theirs.statistic)
    assert found.df == pytest.approx(theirs.df)
    assert one_sided_p(found) == pytest.approx(theirs.pvalue)


def test_welch_of_a_single_vehicle_is_unknown() -> None:
    assert np.isnan(welch([1.0], [1.0, 2.0, 3.0]).se)
    assert np.isnan(welch([], [1.0, 2.0]).effect)
    assert welch([1.0, 1.0], [2.0, 2.0]).se == 0.0


def test_holms_procedure_is_that_of_the_textbook_example() -> None:
    # at 5 percent the first and the last are rejected (Holm's method, example with four tests)
    adjusted = holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, np.nan, 0.7]).tolist() == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)
    assert holm([]).size == 0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert (adjusted >= np.asarray(ps) - 1e-15).all()
    assert (np.diff(adjusted[np.argsort(ps, kind="stable")]) >= 0).all()


def test_the_sample_ratio_is_pearsons_chi_square() -> None:
    assert sample_ratio_p(130, 80, 0.3) == pytest.approx(
        stats.chisquare([130, 80], [147, 63]).pvalue
    )
    # Kohavi, Tang and Xu, Trustworthy Online Controlled Experiments, 2020, chapter 21
    assert sample_ratio_p(821_588, 815_482, 0.5) == pytest.approx(1.8e-6, rel=0.05)


def test_a_sample_ratio_without_vehicles_or_with_an_impossible_share_is_refused() -> None:
    with pytest.raises(DataError, match="no vehicle"):
        sample_ratio_p(0, 0, 0.5)
    with pytest.raises(DataError, match="above 0, below 1"):
        sample_ratio_p(3, 3, 1.0)


def test_paired_differences_see_what_the_two_sample_test_does_not() -> None:
    rng = np.random.default_rng(0)
    runs, vehicles, answers = 400, 25, 20
    hard = rng.normal(0.0, 0.01, (runs, vehicles, 1))  # lasting, both models' alike
    shared = rng.normal(0.0, 0.02, (runs, vehicles, answers))
    own = rng.normal(0.0, 0.006, (2, runs, vehicles, answers))
    champion = np.abs(hard + shared + own[0])
    challenger = 0.93 * np.abs(hard + shared + own[1])
    paired = clustered_mean((champion - challenger).sum(axis=2), np.full(vehicles, answers))
    flat = (runs, vehicles * answers)
    theirs = stats.ttest_ind(
        champion.reshape(flat), challenger.reshape(flat), axis=1, alternative="greater"
    )
    powers = [float((p < 0.05).mean()) for p in (one_sided_p(paired), theirs.pvalue)]
    assert powers[0] > 0.9
    assert powers[1] < 0.5


def test_answers_of_one_vehicle_are_no_independent_news_and_welch_by_vehicle_knows() -> None:
    rng = np.random.default_rng(1)
    runs, vehicles, answers = 600, 15, 20
    lasting = rng.normal(0.0, 1.0, (2, runs, vehicles, 1))
    errors = lasting + rng.normal(0.0, 1.0, (2, runs, vehicles, answers))  # neither is better
    by_vehicle = one_sided_p(welch(errors[0].mean(axis=2), errors[1].mean(axis=2)))
    flat = errors.reshape(2, runs, -1)
    by_answer = stats.ttest_ind(flat[0], flat[1], axis=1, alternative="greater").pvalue
    assert 0.02 < (by_vehicle < 0.05).mean() < 0.08
    assert (by_answer < 0.05).mean() > 0.25


def test_few_unequal_vehicles_keep_the_level_at_one_look() -> None:
    rng = np.random.default_rng(2)
    runs, vehicles = 4000, 8
    counts = rng.integers(1, 60, (runs, vehicles))
    for lasting in (0.0, 1.0):
        sums = counts * rng.normal(0.0, lasting, (runs, vehicles)) + np.sqrt(counts) * rng.normal(
            size=(runs, vehicles)
        )
        assert (one_sided_p(clustered_mean(sums, counts)) < 0.05).mean() < 0.065

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from batteryops.errors import DataError
from batteryops.evaluation.association import (
    associate,
    at_equal_load,
    partial_rank_correlation,
)


def test_both_correlations_are_those_of_scipy_and_ignore_rows_that_lack_a_number() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    y = np.exp(x) + rng.normal(size=60)
    found = associate(np.append(x, [np.nan, 1.0]), np.append(y, [1.0, np.inf]))
    assert found.pearson == pytest.approx(pearsonr(x, y).statistic)
    assert found.spearman == pytest.approx(spearmanr(x, y).statistic)
    assert found.n == 60


def test_a_number_that_does_not_vary_has_no_correlation() -> None:
    found = associate([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    assert math.isnan(found.pearson)
    assert found.to_json() == {"pearson": None, "spearman": None, "n": 3}


def test_two_rows_say_nothing() -> None:
    found = associate([1.0, 2.0, np.nan], [1.0, 2.0, 3.0])
    assert math.isnan(found.spearman)
    assert found.n == 2
    assert associate([np.nan], [1.0]).n == 0


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(DataError, match="expected n numbers of each"):
        associate([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="expected n rows of each"):
        partial_rank_correlation([1.0, 2.0], [1.0, 2.0], np.zeros((3, 1)))


def test_with_one_other_it_is_the_textbook_formula_on_ranks() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=80)
    x, y = z + rng.normal(size=80), z + rng.normal(size=80)
    xy, xz, yz = (spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    textbook = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_rank_correlation(x, y, z[:, None]) == pytest.approx(textbook)


def test_without_others_it_is_spearmans() -> None:
    x, y = np.array([1.0, 5.0, 2.0, 8.0, 3.0]), np.array([2.0, 1.0, 4.0, 9.0, 3.0])
    assert partial_rank_correlation(x, y, np.empty((5, 0))) == pytest.approx(spearmanr(x, y)[0])


def test_nothing_is_said_where_the_others_explain_age_or_rows_are_few() -> None:
    age = np.arange(20.0)
    rise = np.random.default_rng(0).normal(size=20)
    assert math.isnan(partial_rank_correlation(age, rise, 2.0 * age[:, None]))
    assert math.isnan(partial_rank_correlation(age[:3], rise[:3], age[:3, None]))


def test_the_effect_of_load_is_taken_out_and_that_of_age_stays() -> None:
    rng = np.random.default_rng(2)
    age = np.linspace(0, 12, 50)
    load = np.column_stack([5.0 * age + rng.normal(size=50), rng.uniform(0, 1e5, 50)])
    values = 3.0 + 0.7 * age + load @ np.array([0.4, 2e-4])
    left = at_equal_load(values, age, load)
    assert np.polyfit(age, left, 1)[0] == pytest.approx(0.7)
    assert left.mean() == pytest.approx(values.mean())


def test_a_row_that_lacks_a_load_is_left_out_and_too_few_rows_give_nothing() -> None:
    age, load = np.arange(6.0), np.array([1.0, 3.0, 2.0, np.nan, 5.0, 1.0])
    left = at_equal_load(2 * age + load, age, load[:, None])
    assert np.isnan(left).tolist() == [False, False, False, True, False, False]
    assert np.isnan(at_equal_load(age[:3], age[:3], load[:3, None])).all()


def test_ranks_make_it_blind_to_how_a_number_is_scaled() -> None:
    rng = np.random.default_rng(7)
    x, y, z = rng.normal(size=(3, 40))
    plain = partial_rank_correlation(x, y, z[:, None])
    assert partial_rank_correlation(np.exp(x), rankdata(y), z[:, None] ** 3) == pytest.approx(plain)

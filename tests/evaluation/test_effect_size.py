import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from batteryops.evaluation.effect_size import paired_effect_size, split_effect_size

FIRST = np.array([9.0, 7, 8, 9, 8, 9, 9, 10, 9, 9])
SECOND = np.array([9.0, 6, 7, 8, 7, 9, 8, 8, 8, 7])
PEOPLE = np.arange(10)


def test_lakens_example_of_film_ratings_is_met_paired_and_split() -> None:
    # Lakens 2013, Front. Psychol. 4:863, table 1 and text: d_s = 1.13, d_z = 1.50
    paired = paired_effect_size(PEOPLE, FIRST, SECOND)
    split = split_effect_size((PEOPLE, FIRST), (PEOPLE, SECOND))
    assert paired.d == pytest.approx(1.13, abs=0.005)
    assert paired.dz == pytest.approx(1.50, abs=0.005)
    assert split.d == pytest.approx(1.13, abs=0.005)
    assert np.isnan(split.dz)
    assert stats.ttest_rel(FIRST, SECOND).statistic == pytest.approx(paired.dz * np.sqrt(10))


def test_bounds_of_independent_pairs_are_those_of_the_noncentral_t() -> None:
    rng = np.random.default_rng(0)
    n = 400
    first = rng.normal(0.3, 1.0, n)
    second = rng.normal(0.0, 1.0, n)
    found = paired_effect_size(np.arange(n), first, second)
    t = stats.ttest_rel(first, second).statistic

    def exact(tail: float) -> float:
        return float(brentq(lambda d: stats.nct.cdf(t, n - 1, d * np.sqrt(n)) - tail, -1.0, 2.0))

    assert found.dz_bounds.low == pytest.approx(exact(0.975), abs=0.01)
    assert found.dz_bounds.high == pytest.approx(exact(0.025), abs=0.01)


def test_bounds_of_independent_answers_are_those_of_hedges_and_olkin() -> None:
    rng = np.random.default_rng(1)
    n, m = 300, 500
    found = split_effect_size(
        (np.arange(n), rng.normal(0.5, 1.0, n)), (np.arange(m), rng.normal(0.0, 1.0, m))
    )
    # Hedges and Olkin 1985, Statistical Methods for Meta-Analysis, chapter 5, equation 14
    variance = (n + m) / (n * m) + found.d**2 / (2 * (n + m))
    assert found.d_bounds.high - found.d == pytest.approx(1.96 * np.sqrt(variance), rel=0.05)


def test_answers_that_repeat_each_other_do_not_narrow_the_bounds() -> None:
    once = paired_effect_size(PEOPLE, FIRST, SECOND)
    ten_times = paired_effect_size(
        np.repeat(PEOPLE, 10), np.repeat(FIRST, 10), np.repeat(SECOND, 10)
    )
    widths = [one.d_bounds.high - one.d_bounds.low for one in (once, ten_times)]
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def test_bounds_hold_the_true_size_as_often_as_they_promise() -> None:
    rng = np.random.default_rng(5)
    vehicles, answers, held = 20, 10, 0
    codes = np.repeat(np.arange(vehicles), answers)
    for _ in range(300):
        lasting = np.repeat(rng.normal(0.0, 0.5, vehicles), answers)
        first = rng.normal(0.3, 1.0, codes.size) + lasting
        second = rng.normal(0.0, 1.0, codes.size)
        found = paired_effect_size(codes, first, second)
        truth = 0.3 / np.sqrt((1.25 + 1.0) / 2)
        held += found.d_bounds.low <= truth <= found.d_bounds.high
    assert held / 300 == pytest.approx(0.95, abs=0.035)


@given(st.floats(0.001, 1000.0), st.integers(0, 2**32 - 1))
def test_the_unit_of_errors_does_not_matter(unit: float, seed: int) -> None:
    first, second = np.random.default_rng(seed).exponential(1.0, (2, 30))
    codes = np.arange(30) % 7
    found = paired_effect_size(codes, first, second)
    scaled = paired_effect_size(codes, unit * first, unit * second)
    assert scaled.d == pytest.approx(found.d)
    assert scaled.d_bounds.low == pytest.approx(found.d_bounds.low)
    assert scaled.sd == pytest.approx(unit * found.sd)


def test_the_same_errors_have_no_size_and_one_vehicle_no_bounds() -> None:
    same = paired_effect_size(PEOPLE, FIRST, FIRST)
    assert same.d == same.dz == 0.0
    alone = paired_effect_size(np.zeros(10, dtype=np.int64), FIRST, SECOND)
    assert np.isnan(alone.d_bounds.low)
    assert alone.to_json()["d_bounds"] == {"low": None, "high": None}

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.evaluation.trends import MAX_POINTS, robust_trend


def test_the_slope_is_the_median_of_the_slopes_of_all_pairs() -> None:
    age, values = np.array([0.0, 1.0, 3.0, 4.0, 7.0]), np.array([9.0, 7.0, 6.0, 2.0, 1.0])
    slopes = [
        (values[j] - values[i]) / (age[j] - age[i]) for i in range(5) for j in range(i + 1, 5)
    ]
    found = robust_trend(age, values)
    assert found is not None
    assert found.slope == pytest.approx(np.median(slopes))
    assert (found.span, found.n) == (7.0, 5)


def test_the_interval_is_that_of_sens_worked_example() -> None:
    # Sen 1968, section 6 (data of Graybill): slope 4, 93 percent limits 26/7 to 35/8
    age = [1, 2, 3, 4, 10, 12, 18]
    values = [9, 15, 19, 20, 45, 55, 78]
    found = robust_trend(age, values, confidence=0.93)
    assert found is not None
    assert found.slope == 4.0
    assert found.low == pytest.approx(26 / 7)
    assert found.high == pytest.approx(35 / 8)


@given(st.floats(-5, 5), st.floats(-100, 100), st.integers(0, 10_000), st.floats(0.5, 10))
def test_a_line_is_found_whatever_a_quarter_of_the_points_do(
    slope: float, start: float, seed: int, step: float
) -> None:
    rng = np.random.default_rng(seed)
    age = step * np.arange(40.0)
    values = start + slope * age
    values[rng.choice(40, 8, replace=False)] += 1e4
    found = robust_trend(age, values)
    assert found is not None
    assert found.slope == pytest.approx(slope, abs=1e-6)
    assert found.low - 1e-6 <= slope <= found.high + 1e-6


def test_many_points_are_replaced_by_medians_of_blocks_and_counted() -> None:
    rng = np.random.default_rng(3)
    age = rng.uniform(0, 24, 20 * MAX_POINTS)
    found = robust_trend(age, 95.0 - 0.5 * age + rng.normal(0, 2, age.size))
    assert found is not None
    assert found.n == 20 * MAX_POINTS
    assert found.slope == pytest.approx(-0.5, abs=0.02)
    assert found.falls
    assert not found.rises
    assert found.change == pytest.approx(found.slope * np.ptp(age))


def test_noise_about_no_trend_neither_falls_nor_rises() -> None:
    found = robust_trend(np.arange(50.0), np.random.default_rng(1).normal(size=50))
    assert found is not None
    assert not found.falls
    assert not found.rises
    assert found.to_json().keys() == {"slope", "low", "high", "span", "n"}


def test_too_few_points_or_one_age_give_no_trend() -> None:
    assert robust_trend([0.0, 1.0], [1.0, 2.0]) is None
    assert robust_trend([0.0, 1.0, 2.0], [1.0, float("nan"), 2.0]) is None
    assert robust_trend([2.0] * 9, list(range(9))) is None


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(DataError, match="expected n of each"):
        robust_trend([0.0, 1.0, 2.0], [1.0, 2.0])

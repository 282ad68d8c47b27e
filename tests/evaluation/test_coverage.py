"""What intervals are worth: share held, width, and what lies inside the training domain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.evaluation.coverage import Bounds, measure_coverage

NAMES = np.array(["a", "a", "b", "b"], dtype=object)


def bounds(low: list[float], high: list[float], inside: list[bool]) -> Bounds:
    return Bounds(np.array(low), np.array(high), np.array(inside))


def test_coverage_and_width_count_all_rows_and_those_inside_the_domain() -> None:
    found = measure_coverage(
        NAMES,
        np.array([1.0, 1.5, 2.0, 2.0]),
        bounds([0.9, 1.6, 0.0, 1.9], [1.1, 1.8, 2.5, 2.1], [True, True, False, True]),
    )
    assert found.interval_coverage == 0.75
    assert found.interval_width_ah == pytest.approx((0.2 + 0.2 + 2.5 + 0.2) / 4)
    assert found.in_domain_share == 0.75
    assert found.in_domain_coverage == pytest.approx(2 / 3)
    assert found.in_domain_width_ah == pytest.approx(0.2)
    assert found.per_asset["interval_coverage"].to_list() == [0.5, 1.0]
    assert found.asset_coverage == 0.75
    assert found.in_domain_asset_coverage == 0.75


def test_over_assets_one_of_long_life_weighs_as_much_as_any() -> None:
    found = measure_coverage(
        np.array(["long"] * 8 + ["short"] * 2, dtype=object),
        np.ones(10),
        bounds([0.9] * 8 + [1.1, 0.9], [1.2] * 10, [True] * 9 + [False]),
    )
    assert found.interval_coverage == 0.9
    assert found.asset_coverage == 0.75
    assert found.in_domain_coverage == pytest.approx(8 / 9)
    assert found.in_domain_asset_coverage == 0.5


def test_where_nothing_is_inside_the_domain_its_coverage_is_null() -> None:
    found = measure_coverage(NAMES, np.ones(4), bounds([0.0] * 4, [2.0] * 4, [False] * 4)).to_json()
    assert found["in_domain_coverage"] is None
    assert found["in_domain_asset_coverage"] is None
    assert found["interval_coverage"] == 1.0


@given(st.lists(st.floats(0.0, 2.5), min_size=1, max_size=30), st.floats(0.0, 1.0))
def test_wider_intervals_never_hold_less(actual: list[float], more: float) -> None:
    measured = np.array(actual)
    names = np.array(["a"] * len(actual), dtype=object)
    inside = np.ones(len(actual), dtype=np.bool_)
    centre = np.full(len(actual), 1.5)
    narrow = measure_coverage(names, measured, Bounds(centre - 0.1, centre + 0.1, inside))
    wide = measure_coverage(
        names, measured, Bounds(centre - 0.1 - more, centre + 0.1 + more, inside)
    )
    assert wide.interval_coverage >= narrow.interval_coverage
    assert wide.interval_width_ah == pytest.approx(narrow.interval_width_ah + 2 * more)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [([1.0], [0.5], "upside down"), ([1.0], [np.inf], "unbounded"), ([1.0, 1.0], [2.0], "one of")],
)
def test_bounds_that_are_none_are_refused(low: list[float], high: list[float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        bounds(low, high, [True])

"""Metrics against scikit-learn and SciPy, and what bootstrap intervals promise."""

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    mean_absolute_error,
    mean_absolute_percentage_error,
    r2_score,
    root_mean_squared_error,
)

from batteryops.errors import DataError, UnknownAssetError
from batteryops.evaluation.metrics import (
    Interval,
    Predictions,
    intervals,
    nominal_per_row,
    per_asset,
    score,
)


def made(n: int = 400, n_assets: int = 12, seed: int = 7) -> Predictions:
    """Assets of unequal length whose errors have a common part per asset."""
    rng = np.random.default_rng(seed)
    asset = rng.integers(0, n_assets, n)
    actual = rng.uniform(0.5, 2.0, n)
    error = rng.normal(0, 0.05, n_assets)[asset] + rng.normal(0, 0.02, n)
    names = np.array([f"A{i:02d}" for i in range(n_assets)], dtype=object)
    return Predictions(names[asset], actual, actual + error, np.full(n, 2.0))


def few(actual: list[float], predicted: list[float], assets: str = "") -> Predictions:
    names = np.array(list(assets or "a" * len(actual)), dtype=object)
    return Predictions(names, np.array(actual), np.array(predicted), np.full(len(actual), 2.0))


def test_metrics_equal_those_of_scikit_learn() -> None:
    given_ = made()
    found = score(given_)
    y, p = given_.actual_ah, given_.predicted_ah
    assert found.mae_ah == pytest.approx(mean_absolute_error(y, p), rel=1e-12)
    assert found.rmse_ah == pytest.approx(root_mean_squared_error(y, p), rel=1e-12)
    assert found.r2 == pytest.approx(r2_score(y, p), rel=1e-12)
    assert found.mape_pct == pytest.approx(100 * mean_absolute_percentage_error(y, p), rel=1e-12)
    assert found.mae_soh_points == pytest.approx(100 * mean_absolute_error(y, p) / 2.0, rel=1e-12)
    assert found.bias_ah == pytest.approx(float(np.mean(p - y)), rel=1e-12)
    assert (found.n, found.n_assets, found.mape_n) == (400, 12, 400)


def test_metrics_per_asset_equal_those_of_scikit_learn_and_name_the_worst() -> None:
    given_ = made()
    table = per_asset(given_)
    assert table["asset_id"].to_list() == sorted(set(given_.asset_id))
    for row in table.iter_rows(named=True):
        own = given_.take(given_.asset_id == row["asset_id"])
        assert row["n"] == own.actual_ah.size
        assert row["mae_ah"] == pytest.approx(mean_absolute_error(own.actual_ah, own.predicted_ah))
        assert row["r2"] == pytest.approx(r2_score(own.actual_ah, own.predicted_ah))
    worst = table.sort("mae_ah", descending=True).row(0, named=True)
    found = score(given_)
    assert (found.worst_asset, found.worst_asset_mae_ah) == (worst["asset_id"], worst["mae_ah"])


def test_soh_points_weigh_each_asset_by_its_own_nominal_capacity() -> None:
    given_ = Predictions(
        np.array(["cell", "pack"], dtype=object),
        np.array([1.8, 140.0]),
        np.array([1.7, 142.9]),
        np.array([2.0, 145.0]),
    )
    # 0.1 of 2 Ah are 5 points, 2.9 of 145 Ah are 2
    assert score(given_).mae_soh_points == pytest.approx(3.5)
    assert score(given_).soh_error_pct == pytest.approx(3.5)


def test_the_published_error_of_0_0172_ah_is_0_86_percent_of_2_ah() -> None:
    found = score(few([1.5, 1.6], [1.5172, 1.5828]))
    assert found.soh_error_pct == pytest.approx(0.86)


def test_labels_near_zero_stay_out_of_mape_and_are_counted() -> None:
    found = score(few([0.0, 0.09, 0.1, 1.0], [0.5, 0.5, 0.11, 0.9]))
    assert found.mape_n == 2
    assert found.mape_pct == pytest.approx((10.0 + 10.0) / 2)


def test_without_labels_above_the_floor_mape_is_undefined_and_null_in_json() -> None:
    found = score(few([0.0, 0.01], [0.1, 0.1]))
    assert math.isnan(found.mape_pct)
    assert found.to_json()["mape_pct"] is None


@pytest.mark.parametrize("labels", [[1.8], [1.8, 1.8, 1.8], [0.1 + 0.2, 0.3]])
def test_r2_of_constant_labels_is_undefined(labels: list[float]) -> None:
    found = score(few(labels, [1.0] * len(labels)))
    assert math.isnan(found.r2)
    json.dumps(found.to_json(), allow_nan=False)


def test_an_asset_with_constant_labels_has_null_r2_beside_others() -> None:
    table = per_asset(few([1.7, 1.7, 1.7, 1.2, 1.4], [1.6, 1.5, 1.7, 1.2, 1.4], "aaabb"))
    assert table["r2"].to_list() == [None, 1.0]


def test_bias_is_positive_when_predictions_are_too_optimistic() -> None:
    assert score(few([1.0, 1.0], [1.3, 1.1])).bias_ah == pytest.approx(0.2)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 2.5), st.floats(0, 2.5)),
        min_size=1,
        max_size=30,
    )
)
def test_order_and_names_of_assets_do_not_change_the_metrics(
    rows: list[tuple[str, float, float]],
) -> None:
    first, last = (
        score(few([r[1] for r in some], [r[2] for r in some], "".join(r[0] for r in some)))
        for some in (rows, sorted(rows))
    )
    assert first.mae_ah == pytest.approx(last.mae_ah)
    assert first.rmse_ah == pytest.approx(last.rmse_ah)
    assert first.mae_ah <= first.rmse_ah * (1 + 1e-9) + 1e-15  # tiny errors square to zero
    assert abs(first.bias_ah) <= first.mae_ah * (1 + 1e-9) + 1e-15
    assert first.worst_asset_mae_ah >= first.mae_ah * (1 - 1e-9)


def test_intervals_equal_those_of_resampling_rows_asset_by_asset() -> None:
    given_ = made(n=120, n_assets=5)
    found = intervals(given_, resamples=200, confidence=0.9, rng=np.random.default_rng(3))
    draws = np.random.default_rng(3).integers(0, 5, size=(200, 5))
    names = sorted(set(given_.asset_id))
    r2, mae, rmse = [], [], []
    for draw in draws:
        rows = np.concatenate([np.flatnonzero(given_.asset_id == names[i]) for i in draw])
        y, p = given_.actual_ah[rows], given_.predicted_ah[rows]
        r2.append(r2_score(y, p))
        mae.append(mean_absolute_error(y, p))
        rmse.append(root_mean_squared_error(y, p))
    for name, values in (("r2", r2), ("mae_ah", mae), ("rmse_ah", rmse)):
        low, high = np.percentile(values, [5, 95])
        assert found[name].low == pytest.approx(low, rel=1e-9)
        assert found[name].high == pytest.approx(high, rel=1e-9)


def test_intervals_of_single_cycle_assets_agree_with_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    error = rng.normal(0, 0.1, 60)
    given_ = Predictions(
        np.array([f"A{i}" for i in range(60)], dtype=object),
        np.full(60, 1.5),
        1.5 + error,
        np.full(60, 2.0),
    )
    found = intervals(given_, resamples=4000, confidence=0.95, rng=rng)["mae_ah"]
    reference = stats.bootstrap(
        (np.abs(error),), np.mean, n_resamples=4000, method="percentile", rng=1
    ).confidence_interval
    assert found.low == pytest.approx(reference.low, abs=0.002)
    assert found.high == pytest.approx(reference.high, abs=0.002)


def test_intervals_are_wider_over_assets_than_they_would_be_over_rows() -> None:
    given_ = made()
    by_row = Predictions(
        np.array([f"{i}" for i in range(400)], dtype=object),
        given_.actual_ah,
        given_.predicted_ah,
        given_.nominal_ah,
    )
    widths = []
    for each in (given_, by_row):
        found = intervals(each, resamples=500, confidence=0.95, rng=np.random.default_rng(1))
        widths.append(found["mae_ah"].high - found["mae_ah"].low)
    assert widths[0] > 2 * widths[1]


def test_intervals_depend_on_the_generator_alone() -> None:
    before = repr(np.random.get_state())  # noqa: NPY002  # the global state must not move
    once, again = (
        intervals(made(), resamples=50, confidence=0.9, rng=np.random.default_rng(5))
        for _ in range(2)
    )
    assert once == again
    assert repr(np.random.get_state()) == before  # noqa: NPY002  # as above


def test_one_asset_says_nothing_about_others() -> None:
    found = intervals(
        few([1.0, 1.2], [1.1, 1.2]), resamples=20, confidence=0.9, rng=np.random.default_rng(0)
    )
    assert found["mae_ah"].to_json() == {"low": None, "high": None}


def test_a_metric_undefined_in_most_resamples_has_no_interval() -> None:
    found = intervals(
        few([1.7, 1.7, 1.7, 1.2], [1.6, 1.5, 1.7, 1.2], "aabb"),
        resamples=30,
        confidence=0.9,
        rng=np.random.default_rng(0),
    )
    assert found["mae_ah"].low < found["mae_ah"].high
    nothing = intervals(
        few([0.0, 0.01, 0.02], [0.1, 0.1, 0.1], "abc"),
        resamples=30,
        confidence=0.9,
        rng=np.random.default_rng(0),
    )
    assert math.isnan(nothing["mape_pct"].low)
    assert math.isnan(nothing["mape_pct"].high)


def test_an_interval_is_two_numbers_in_json() -> None:
    assert Interval(0.1, 0.2).to_json() == {"low": 0.1, "high": 0.2}


def test_nominal_capacity_is_one_for_all_or_per_asset_or_per_row() -> None:
    assets = pl.Series(["a", "b", "a"])
    assert nominal_per_row(assets, 2.0).tolist() == [2.0, 2.0, 2.0]
    assert nominal_per_row(assets, {"a": 2.0, "b": 145.0}).tolist() == [2.0, 145.0, 2.0]
    assert nominal_per_row(assets, [1.0, 2.0, 3.0]).tolist() == [1.0, 2.0, 3.0]


def test_an_asset_without_nominal_capacity_is_refused_by_name() -> None:
    with pytest.raises(UnknownAssetError, match=r"no nominal capacity for b, .*given for a"):
        nominal_per_row(pl.Series(["a", "b"]), {"a": 2.0})


def test_nominal_capacities_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(2,\); expected one, or one for each of 3 rows"):
        nominal_per_row(pl.Series(["a", "b", "a"]), [1.0, 2.0])


@pytest.mark.parametrize(
    ("actual", "predicted", "nominal", "message"),
    [
        ([1.0, 2.0], [1.0], [2.0, 2.0], r"predicted_ah has shape \(1,\); expected .* 2 cycles"),
        ([1.0, math.nan], [1.0, 1.0], [2.0, 2.0], "actual_ah: 1 of 2 values are not finite"),
        ([1.0, 1.0], [1.0, math.inf], [2.0, 2.0], "predicted_ah: 1 of 2 values are not finite"),
        ([1.0, 1.0], [1.0, 1.0], [2.0, 0.0], "nominal capacity 0 Ah; expected above 0"),
        ([], [], [], "no predictions to judge"),
    ],
)
def test_predictions_that_cannot_be_judged_are_refused(
    actual: list[float], predicted: list[float], nominal: list[float], message: str
) -> None:
    names = np.array(["a"] * len(actual), dtype=object)
    with pytest.raises(DataError, match=message):
        Predictions(names, np.array(actual), np.array(predicted), np.array(nominal))

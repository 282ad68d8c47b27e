"""Boosting equals XGBRegressor, takes its parameters, and refuses what it would only warn of."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, SettingsError
from batteryops.models.boosting import PARAMETERS, fit, predict, read_parameters

SOURCE_SYSTEM: dict[str, float | int | str] = {
    "n_estimators": 300,
    "max_depth": 9,
    "learning_rate": 0.1,
    "subsample": 0.7,
    "colsample_bytree": 0.9,
    "tree_method": "hist",
    "n_jobs": 1,
}
NAMES = ("voltage_V_mean", "current_A_mean", "discharge_time_s")


def cycles(rows: int = 200) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Three features, one in twenty missing, and a capacity that depends on them."""
    rng = np.random.default_rng(7)
    features = rng.normal(size=(rows, 3)).astype(np.float32)
    labels = 1.6 + 0.2 * np.tanh(features @ np.array([1.0, -0.5, 0.25]))
    features[rng.random(features.shape) < 0.05] = np.nan
    return features, labels


@pytest.mark.parametrize(
    "parameters",
    [
        SOURCE_SYSTEM | {"n_estimators": 40},
        SOURCE_SYSTEM | {"n_estimators": 20, "tree_method": "exact"},
        SOURCE_SYSTEM | {"n_estimators": 20, "tree_method": "approx"},
        {"n_jobs": 1, "n_estimators": 10, "max_bin": 16, "reg_lambda": 2.0, "min_child_weight": 3},
        {"n_jobs": 1},
    ],
)
@pytest.mark.parametrize("seed", [0, 42])
def test_a_fit_equals_xgbregressor_to_the_bit(parameters: dict[str, Any], seed: int) -> None:
    features, labels = cycles()
    reference = xgb.XGBRegressor(**parameters, random_state=seed).fit(features, labels)

    booster = fit(features, labels, feature_names=NAMES, parameters=parameters, seed=seed)

    np.testing.assert_array_equal(predict(booster, features), reference.predict(features))
    assert booster.feature_names == list(NAMES)


@pytest.mark.data
def test_a_fit_on_the_source_systems_table_equals_xgbregressor_to_the_bit(
    data_folder: Path,
) -> None:
    table = pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv")
    names = [name for name in table.columns if name not in {"battery_id", "cycle", "capacity"}]
    features, labels = table.select(names).to_numpy(), table["capacity"].to_numpy()
    parameters = SOURCE_SYSTEM | {"n_estimators": 60}
    reference = xgb.XGBRegressor(**parameters, random_state=42).fit(features, labels)

    booster = fit(features, labels, feature_names=names, parameters=parameters, seed=42)

    np.testing.assert_array_equal(predict(booster, features), reference.predict(features))


def test_another_seed_gives_another_model() -> None:
    features, labels = cycles()
    models = [
        fit(
            features,
            labels,
            feature_names=NAMES,
            parameters={"n_jobs": 1, "subsample": 0.5},
            seed=seed,
        )
        for seed in (1, 2)
    ]

    assert (predict(models[0], features) != predict(models[1], features)).any()


def test_prediction_gives_float64_and_takes_no_rows() -> None:
    features, labels = cycles()
    booster = fit(
        features, labels, feature_names=NAMES, parameters={"n_jobs": 1, "n_estimators": 3}, seed=0
    )

    assert predict(booster, features).dtype == np.float64
    assert predict(booster, np.empty((0, 3))).shape == (0,)


def test_numbers_may_come_as_text_as_from_the_environment() -> None:
    assert read_parameters({"n_estimators": "300", "max_depth": 9.0, "learning_rate": "0.1"}) == {
        "n_estimators": 300,
        "max_depth": 9,
        "learning_rate": 0.1,
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_tree", 3, "'n_tree' is unknown; known are n_estimators, max_depth"),
        ("n_estimators", 0, "n_estimators is 0; expected a whole number of at least 1"),
        ("n_estimators", 1.5, "n_estimators is 1.5; expected a whole number"),
        ("n_estimators", float("inf"), "n_estimators is inf; expected a whole number"),
        ("learning_rate", 0, "learning_rate is 0; expected a number above 0 and at most 1"),
        ("learning_rate", "fast", "learning_rate is 'fast'; expected a number"),
        ("subsample", float("nan"), "subsample is nan; expected a number"),
        ("tree_method", "gpu_hist", "tree_method is 'gpu_hist'; expected one of auto, hist"),
    ],
)
def test_an_unknown_or_impossible_parameter_is_refused(
    name: str, value: float | str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        read_parameters({name: value})


@given(
    st.dictionaries(
        st.sampled_from(sorted(PARAMETERS)),
        st.one_of(st.floats(), st.integers(), st.text(max_size=3)),
        max_size=3,
    )
)
def test_parameters_are_read_or_refused_and_never_anything_else(
    parameters: dict[str, float | int | str],
) -> None:
    try:
        read = read_parameters(parameters)
    except SettingsError:
        return
    assert read.keys() == parameters.keys()
    assert read_parameters(read) == read


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((4, 2)), np.zeros(4), r"shape \(4, 2\); expected \(n, 3\)"),
        (np.zeros(3), np.zeros(1), r"shape \(3,\); expected \(n, 3\)"),
        (np.zeros((4, 3)), np.zeros(3), r"labels have shape \(3,\); expected \(4,\)"),
        (np.zeros((4, 3)), np.zeros((4, 1)), r"labels have shape \(4, 1\); expected \(4,\)"),
        (np.zeros((0, 3)), np.zeros(0), "no rows to fit"),
        (np.zeros((2, 3)), np.array([1.0, np.nan]), "1 of 2 labels are missing or infinite"),
        (np.zeros((2, 3)), np.array([np.inf, 1.0]), "1 of 2 labels are missing or infinite"),
        (np.array([[0, np.inf, 0]]), np.ones(1), "current_A_mean holds an infinite value"),
        (np.array([[0, 0, 1e39]]), np.ones(1), "discharge_time_s holds an infinite value"),
        ([["a", "b", "c"]], np.ones(1), "features are not numbers"),
        (np.zeros((1, 3)), ["full"], "labels are not numbers"),
    ],
)
def test_wrong_data_is_refused_with_what_was_expected(
    features: ArrayLike, labels: ArrayLike, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fit(features, labels, feature_names=NAMES, parameters={}, seed=0)


def test_what_xgboost_refuses_becomes_a_data_error() -> None:
    with pytest.raises(DataError, match="XGBoost cannot fit 2 rows"):
        fit(np.zeros((2, 1)), np.ones(2), feature_names=["a[0]"], parameters={}, seed=0)


def test_prediction_refuses_another_number_of_features() -> None:
    features, labels = cycles()
    booster = fit(
        features, labels, feature_names=NAMES, parameters={"n_jobs": 1, "n_estimators": 1}, seed=0
    )

    with pytest.raises(DataError, match=r"shape \(200, 2\); expected \(n, 3\)"):
        predict(booster, features[:, :2])


@settings(max_examples=20)
@given(st.floats(0.1, 200.0), st.integers(1, 30))
def test_a_constant_label_is_predicted_as_that_constant(capacity: float, rows: int) -> None:
    features = np.arange(rows, dtype=np.float32)[:, np.newaxis]

    booster = fit(
        features,
        np.full(rows, capacity),
        feature_names=["time_s"],
        parameters={"n_jobs": 1, "n_estimators": 5},
        seed=0,
    )

    np.testing.assert_allclose(predict(booster, features), capacity, rtol=1e-5)

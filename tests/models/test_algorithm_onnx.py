"""Every algorithm answers from one ONNX graph as it answers itself; so does any combination."""

import warnings
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RationalQuadratic
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Lasso
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from batteryops.errors import DataError, PackageError
from batteryops.evaluation.owners import Owners
from batteryops.features.views import FeatureView, get_view
from batteryops.models.algorithm_onnx import to_onnx_any
from batteryops.models.algorithms import (
    ALGORITHMS,
    Boosted,
    Combined,
    Matrix,
    Predict,
    Scikit,
    Task,
)
from batteryops.models.battery_process import fit_battery_process
from batteryops.models.onnx_twin import OnnxRow, max_difference_ah, to_onnx
from batteryops.models.process_recipes import RECIPES

VIEW = get_view("discharge_summary")
NAMES = VIEW.names
TASK = Task(
    VIEW.name,
    NAMES,
    VIEW.trends,
    {"n_estimators": 30, "max_depth": 4, "learning_rate": 0.1, "tree_method": "hist"},
    seed=1,
)
TOLERANCE_AH = 1e-5


def drawn(view: FeatureView, n_rows: int, seed: int, *, beyond: float = 0.0) -> Matrix:
    """Rows within the limits of a view's features, or so many widths beyond; a tenth missing."""
    random = np.random.default_rng(seed)
    low, high = (np.array([getattr(one, end) for one in view.features]) for end in ("low", "high"))
    share = random.uniform(-beyond, 1.0 + beyond, (n_rows, len(view.names)))
    features = low + share * (high - low)
    features[random.random(features.shape) < 0.1] = np.nan
    narrow: Matrix = features.astype(np.float32)
    return narrow


@cache
def rows() -> tuple[Matrix, NDArray[np.float64], Owners]:
    """250 rows of five cells; two rows have the same features and not the same capacity."""
    features = drawn(VIEW, 250, seed=3)
    known = np.nan_to_num(features[:, :2], nan=2.5)
    labels = 1.6 + 0.2 * np.tanh(known[:, 0] - 3.0) + 0.02 * known[:, 1]
    features[7] = features[8]
    names = np.array([f"cell {row // 50}" for row in range(250)], dtype=object)
    return features, labels, Owners(names, names)


@cache
def asked() -> Matrix:
    """Rows that were seen, rows that were not, rows far from all of them, and one of nothing."""
    nothing = np.full((1, len(NAMES)), np.nan, dtype=np.float32)
    return np.vstack([rows()[0][::3], drawn(VIEW, 40, 4), drawn(VIEW, 40, 5, beyond=3.0), nothing])


@cache
def fitted(name: str, factor: float = 1.0) -> Predict:
    features, labels, owners = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return ALGORITHMS[name].make(TASK, {})(features, factor * labels, owners)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_answers_from_its_graph_as_it_does_itself(name: str) -> None:
    twin = OnnxRow(to_onnx_any(fitted(name), len(NAMES)))

    assert max_difference_ah(fitted(name), twin, asked()) <= TOLERANCE_AH
    np.testing.assert_allclose(
        twin.batch(asked()), fitted(name)(asked()), rtol=0, atol=TOLERANCE_AH
    )


@pytest.mark.parametrize("name", ["nearest_neighbours", "extra_trees", "xgboost_on_trend"])
def test_a_pack_of_more_than_100_ah_keeps_the_tolerance(name: str) -> None:
    model = fitted(name, 80.0)

    assert max_difference_ah(model, to_onnx_any(model, len(NAMES)), asked()) <= TOLERANCE_AH


@pytest.mark.parametrize("name", RECIPES)
def test_a_battery_process_of_every_view_answers_from_its_graph(name: str) -> None:
    view = get_view(name)
    features = drawn(view, 90, seed=6)
    labels = np.random.default_rng(7).uniform(1.0, 2.0, 90)
    assets = [f"cell {row // 30}" for row in range(90)]
    process = fit_battery_process(features, labels, assets, view=name, names=view.names)
    twin = OnnxRow(to_onnx_any(process, len(view.names)))
    others = np.vstack([features, drawn(view, 40, 8, beyond=1.0)])
    others = others[np.isfinite(process(others))]  # no charge, no answer

    assert len(others) > 90
    assert max_difference_ah(process, twin, others) <= TOLERANCE_AH


def test_a_stack_of_stacks_answers_from_one_graph() -> None:
    inner = Combined((fitted("xgboost"), fitted("battery_process")), (0.4, 0.6))
    stack = Combined(
        (fitted("nearest_neighbours"), inner, fitted("xgboost_on_trend")), (0.2, 0.5, 0.3)
    )

    converted = to_onnx_any(stack, len(NAMES))

    assert max_difference_ah(stack, converted, asked()) <= TOLERANCE_AH
    onnx.checker.check_model(onnx.load_from_string(converted), full_check=True)


def test_the_same_model_gives_the_same_bytes() -> None:
    stack = Combined((fitted("support_vectors"), fitted("histogram_boosting")), (0.5, 0.5))

    assert to_onnx_any(stack, len(NAMES)) == to_onnx_any(stack, len(NAMES))


def test_a_booster_alone_has_the_twin_that_it_always_had() -> None:
    booster = fitted("xgboost")

    assert isinstance(booster, Boosted)
    assert to_onnx_any(booster, len(NAMES)) == to_onnx(booster.booster, len(NAMES))


def test_a_training_row_finds_itself_among_the_neighbours() -> None:
    features, labels, _ = rows()
    twin = OnnxRow(to_onnx_any(fitted("nearest_neighbours"), len(NAMES)))

    assert twin(features[20]) == pytest.approx(labels[20], abs=TOLERANCE_AH)
    assert twin(features[7]) == pytest.approx((labels[7] + labels[8]) / 2, abs=TOLERANCE_AH)


def test_batches_of_any_size_are_answered_and_wrong_shapes_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batteryops.models.onnx_twin.BATCH_ROWS", 100)
    twin = OnnxRow(to_onnx_any(fitted("ridge"), len(NAMES)))
    features = rows()[0]

    np.testing.assert_allclose(twin.batch(features), [twin(row) for row in features], atol=1e-6)
    assert twin.batch(features[:0]).shape == (0,)
    with pytest.raises(DataError, match=r"shape \(250, 6\); expected \(n, 7\)"):
        twin.batch(features[:, :6])


@pytest.mark.parametrize("name", ["ridge", "xgboost", "battery_process"])
def test_another_number_of_columns_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="fitted on 7 features, not on 6"):
        to_onnx_any(fitted(name), 6)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Lasso(alpha=0.1), "Lasso cannot be written as ONNX"),
        (KernelRidge(kernel="linear"), "KernelRidge with kernel 'linear' cannot be written"),
        (KNeighborsRegressor(), "KNeighborsRegressor with weights 'uniform'"),
        (GaussianProcessRegressor(RationalQuadratic(), optimizer=None), "Gaussian process with"),
    ],
)
def test_what_no_algorithm_fits_is_refused(estimator: object, message: str) -> None:
    features, labels, _ = rows()
    model = TransformedTargetRegressor(
        make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), estimator),
        transformer=StandardScaler(),
    ).fit(features[:60].astype(np.float64), labels[:60])

    with pytest.raises(PackageError, match=message):
        to_onnx_any(Scikit(model), len(NAMES))


def test_a_function_is_refused() -> None:
    with pytest.raises(PackageError, match="function cannot be written as ONNX; expected what an"):
        to_onnx_any(lambda given: np.zeros(len(given)), len(NAMES))

"""Contributions of features: exact Shapley values, which add up to the prediction."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batteryops.errors import DataError, PackageError
from batteryops.features.views import get_view
from batteryops.models.compact_trees import pack, unpack
from batteryops.models.domain_fit import fit_domain
from batteryops.models.explain import contributions, is_explainable
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.onnx_twin import to_onnx
from batteryops.models.package import ModelPackage
from batteryops.models.package_writing import write_package
from batteryops.settings import load_settings

VIEW = get_view("discharge_summary")
SETTINGS = load_settings()


def write(folder: Path, booster: xgb.Booster, features: NDArray[np.float32]) -> ModelPackage:
    """A package of a booster."""
    return write_package(
        folder,
        model=booster,
        onnx=to_onnx(booster, len(VIEW.names)),
        algorithm=ChosenAlgorithm(name="xgboost"),
        model_name="ev-soh-predictor",
        view=VIEW,
        profiles=[SETTINGS.profile("nasa_18650")],
        parameters={"n_estimators": 1},
        seed=1,
        features=features,
        training_assets=["B0005"],
        data_fingerprint="0" * 64,
        domain=fit_domain(features, [f"cell {n % 20}" for n in range(len(features))], VIEW.names),
        intervals=Intervals(0.9, 0.02, 0.5, 0.92, 20, len(features)),
    )


@cache
def training() -> NDArray[np.float32]:
    features = np.random.default_rng(5).normal(size=(300, len(VIEW.names))).astype(np.float32)
    features[::9, 2] = np.nan
    return features


def trained(folder: Path, *, trees: int, depth: int, scale: float = 1.0) -> ModelPackage:
    """A package of a model of all features, of capacities about `scale` Ah."""
    features = training()
    filled = np.nan_to_num(features).astype(np.float64)
    labels = scale * (1.6 + 0.2 * np.tanh(filled @ np.arange(1.0, 8.0) / 5))
    booster = xgb.train(
        {"max_depth": depth, "learning_rate": 0.2, "nthread": 1, "subsample": 0.8, "seed": 1},
        xgb.DMatrix(features, labels, feature_names=list(VIEW.names)),
        num_boost_round=trees,
    )
    return write(folder, booster, features)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return trained(tmp_path_factory.mktemp("explain") / "small", trees=5, depth=4)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Of a pack's capacities, which single precision holds to 1.5e-5 Ah."""
    return trained(tmp_path_factory.mktemp("explain") / "large", trees=300, depth=6, scale=100.0)


# An implementation of its own, from the definition: Lundberg et al. 2020, equation 1, with the
# value of a set of features as in their algorithm 1 (EXPVALUE).


def expected(tree: Mapping[str, Any], row: NDArray[np.float32], known: frozenset[int]) -> float:
    """A tree's mean answer where only the features `known` are."""

    def below(node: int) -> float:
        left, right = tree["left_children"][node], tree["right_children"][node]
        threshold = tree["split_conditions"][node]
        if left < 0:
            return float(threshold)
        feature = tree["split_indices"][node]
        if feature in known:
            value = row[feature]
            goes_left = tree["default_left"][node] if np.isnan(value) else value < threshold
            return below(left if goes_left else right)
        rows = tree["sum_hessian"]
        return float((rows[left] * below(left) + rows[right] * below(right)) / rows[node])

    return below(0)


def shapley(value: Callable[[frozenset[int]], float], n_features: int) -> list[float]:
    """Shapley values from all subsets."""
    found = []
    for feature in range(n_features):
        others = [other for other in range(n_features) if other != feature]
        total = 0.0
        for size in range(n_features):
            weight = factorial(size) * factorial(n_features - size - 1) / factorial(n_features)
            for subset in combinations(others, size):
                known = frozenset(subset)
                total += weight * (value(known | {feature}) - value(known))
        found.append(total)
    return found


def test_contributions_are_the_exact_shapley_values(package: ModelPackage) -> None:
    model = json.loads(package.booster.save_raw("json"))["learner"]
    trees = model["gradient_booster"]["model"]["trees"]
    base_score = float(model["learner_model_param"]["base_score"].strip("[]"))
    rows = training()[[0, 1, 9, 42]]  # rows 0 and 9 lack the third feature

    added, base = contributions(package, rows)

    for row, given_, start in zip(rows, added, base, strict=True):

        def value(known: frozenset[int], row: NDArray[np.float32] = row) -> float:
            return base_score + sum(expected(tree, row, known) for tree in trees)

        assert given_ == pytest.approx(shapley(value, len(row)), abs=1e-6)
        assert start == pytest.approx(value(frozenset()), abs=1e-6)


numbers = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))


@settings(max_examples=60)
@given(rows=st.lists(st.lists(numbers, min_size=7, max_size=7), min_size=1, max_size=4))
def test_contributions_and_base_add_up_to_the_prediction(
    large: ModelPackage, rows: list[list[float]]
) -> None:
    features = np.array(rows, dtype=np.float32)
    added, base = contributions(large, features)
    np.testing.assert_allclose(
        base + added.sum(axis=1), large.predict_batch(features), rtol=0, atol=1e-10
    )
    # what rounding leaves is put into the base: no more than that
    assert np.ptp(base) < 1e-3


def test_they_add_up_to_the_answer_that_was_given_where_one_is_named(
    package: ModelPackage,
) -> None:
    rows = training()[:50]
    answers = np.array([package.predict_one(row) for row in rows]) + 9e-6
    added, base = contributions(package, rows, answers)
    np.testing.assert_allclose(base + added.sum(axis=1), answers, rtol=0, atol=1e-12)


def test_an_answer_of_another_model_is_refused(package: ModelPackage) -> None:
    rows = training()[:2]
    answers = package.predict_batch(rows) + np.array([0.0, 0.01])
    with pytest.raises(PackageError, match="explain with the version that answered"):
        contributions(package, rows, answers)
    with pytest.raises(DataError, match=r"answers have shape \(1,\); expected \(2,\)"):
        contributions(package, rows, answers[:1])


def test_no_rows_have_no_contributions(package: ModelPackage) -> None:
    added, base = contributions(package, np.empty((0, 7)))
    assert (added.shape, base.shape) == ((0, 7), (0,))


def test_rows_of_another_width_are_refused(package: ModelPackage) -> None:
    with pytest.raises(DataError, match=r"expected \(n, 7\)"):
        contributions(package, [[1.0, 2.0]])


def test_a_model_that_is_not_one_booster_is_refused(package: ModelPackage) -> None:
    manifest = package.manifest.model_copy(update={"booster": False})
    other = ModelPackage(package.folder, manifest, package.view)
    assert is_explainable(package)
    assert not is_explainable(other)
    with pytest.raises(PackageError, match="contributions can be had of one XGBoost booster"):
        contributions(other, training()[:1])


def test_trees_that_do_not_know_how_many_rows_went_each_way_are_refused(
    tmp_path: Path, package: ModelPackage
) -> None:
    bare = write(tmp_path / "bare", unpack(pack(package.booster)), training())
    with pytest.raises(PackageError, match="how many training rows went each way: train again"):
        contributions(bare, training()[:1])

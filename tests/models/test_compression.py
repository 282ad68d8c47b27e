"""Smaller boosters: what was asked of them really holds, and rounding stays within its bound."""

import json
from functools import cache

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batteryops.errors import DataError, PackageError
from batteryops.models import compression
from batteryops.models.boosting import fit, predict
from batteryops.models.compression import (
    best_features,
    fit_on,
    half_leaf_bound_ah,
    half_leaves,
    shallower,
    shape_of,
)
from batteryops.models.compression_variants import VARIANTS, Fits, Variant
from batteryops.models.onnx_twin import max_difference_ah, to_onnx

NAMES = ("a", "b", "c", "d", "e", "f", "g")
DEEP = {"n_jobs": 1, "n_estimators": 20, "max_depth": 9, "learning_rate": 0.1, "subsample": 0.7}


@cache
def rows() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """500 rows with gaps; `b` and `f` say nothing of the label."""
    rng = np.random.default_rng(5)
    features = rng.normal(size=(500, 7)).astype(np.float32)
    labels = 1.6 + 0.2 * np.tanh(features @ np.array([1.0, 0.0, 0.8, 0.6, 0.5, 0.0, 0.7]))
    labels += 0.02 * rng.normal(size=500)
    features[rng.random(features.shape) < 0.1] = np.nan
    return features, labels


@cache
def booster(nominal_ah: float = 2.0) -> xgb.Booster:
    features, labels = rows()
    return fit(features, labels * nominal_ah / 2, feature_names=NAMES, parameters=DEEP, seed=42)


@cache
def variants() -> dict[Variant, compression.Slim]:
    return Fits(NAMES, DEEP, 42).every(*rows())


def leaves_reached(model: xgb.Booster) -> NDArray[np.float64]:
    """Value of the leaf that each row reaches in each tree, (n, trees), by XGBoost's own walk."""
    features, _ = rows()
    numbers = model.predict(xgb.DMatrix(features, feature_names=list(NAMES)), pred_leaf=True)
    trees = json.loads(model.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    columns = [
        np.array(tree["split_conditions"])[reached.astype(int)]
        for tree, reached in zip(trees, numbers.T, strict=True)
    ]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("nominal_ah", [2.0, 300.0])
def test_float16_leaves_move_a_prediction_by_at_most_half_a_unit_in_the_last_place_per_tree(
    nominal_ah: float,
) -> None:
    full = booster(nominal_ah)
    features, _ = rows()
    leaves = leaves_reached(full)
    exponents = np.floor(np.log2(np.abs(leaves)))
    # IEEE 754 binary16: ten bits after the point, exponents from -14 on
    half_units = 2.0 ** (np.maximum(exponents, -14) - 11)
    predicted = predict(full, features)
    # sums of float32: each of the additions rounds by at most 2^-24 of what it has
    sums = 2 * (leaves.shape[1] + 1) * 2.0**-24 * (predicted + np.abs(leaves).sum(axis=1))

    moved = np.abs(predict(half_leaves(full), features) - predicted)

    assert (moved <= half_units.sum(axis=1) + sums).all()
    assert moved.max() > 0
    assert (half_units.sum(axis=1) <= half_leaf_bound_ah(full)).all()


def test_float16_leaves_are_those_that_numpy_rounds_to_and_thresholds_stay() -> None:
    before, after = (
        json.loads(model.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
        for model in (booster(), half_leaves(booster()))
    )
    for one, other in zip(before, after, strict=True):
        leaf = np.array(one["left_children"]) == -1
        given, found = (np.array(tree["split_conditions"], np.float32) for tree in (one, other))
        np.testing.assert_array_equal(found[leaf], given[leaf].astype(np.float16))
        np.testing.assert_array_equal(found[~leaf], given[~leaf])
        assert one["split_indices"] == other["split_indices"]


def test_rounding_twice_is_rounding_once() -> None:
    once = half_leaves(booster())
    assert bytes(half_leaves(once).save_raw("ubj")) == bytes(once.save_raw("ubj"))


def test_float16_leaves_do_not_shorten_xgboosts_own_file() -> None:
    assert len(half_leaves(booster()).save_raw("ubj")) == len(booster().save_raw("ubj"))


def test_the_original_keeps_its_leaves() -> None:
    before = bytes(booster().save_raw("ubj"))
    half_leaves(booster())
    assert bytes(booster().save_raw("ubj")) == before


def test_a_leaf_beyond_float16_is_refused() -> None:
    features, labels = rows()
    far = fit(
        features,
        np.where(labels > 1.6, 1e7, 0.0),
        feature_names=NAMES,
        parameters={"n_jobs": 1, "n_estimators": 2, "learning_rate": 1.0},
        seed=0,
    )
    with pytest.raises(PackageError, match="expected at most 65504"):
        half_leaves(far)


@pytest.mark.parametrize(
    "parameters",
    [
        {"booster": "gblinear"},
        {"booster": "dart"},
        {"objective": "reg:gamma"},
        {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"},
    ],
)
def test_boosters_of_another_kind_are_refused(parameters: dict[str, str]) -> None:
    features, labels = rows()
    two = "multi_strategy" in parameters
    data = xgb.DMatrix(features, label=np.stack([labels, labels], axis=1) if two else labels)
    other = xgb.train({"nthread": 1, **parameters}, data, num_boost_round=2)
    with pytest.raises(PackageError, match="cannot be compressed"):
        half_leaves(other)


def test_trees_that_xgboost_reads_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    full = booster()
    monkeypatch.setattr(compression, "booster_from_bytes", lambda *_, **__: full)
    with pytest.raises(PackageError, match="changed the rounded trees"):
        half_leaves(full)


def test_a_booster_that_is_only_leaves_can_be_rounded_and_measured() -> None:
    features, labels = rows()
    flat = fit(
        features,
        labels,
        feature_names=NAMES,
        parameters={"n_jobs": 1, "n_estimators": 3, "gamma": 1e9},
        seed=0,
    )
    shape = shape_of(half_leaves(flat))
    assert (shape.trees, shape.leaves, shape.depth, shape.features) == (3, 3, 0, ())


def test_depth_seven_is_reached_and_not_passed() -> None:
    assert shape_of(booster()).depth == 9
    for variant, model in variants().items():
        assert shape_of(model.booster).depth == (7 if variant.shallow else 9)


def test_depth_as_xgboost_prints_it_is_the_same() -> None:
    def deepest(node: dict[str, object]) -> int:
        children = node.get("children", [])
        assert isinstance(children, list)
        return 1 + max(map(deepest, children)) if children else 0

    for model in variants().values():
        dumped = [json.loads(tree) for tree in model.booster.get_dump(dump_format="json")]
        assert max(map(deepest, dumped)) == shape_of(model.booster).depth


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 6), ({"max_depth": 0}, 7), ({"max_depth": "9"}, 7)]
)
def test_no_limit_and_no_word_on_depth_become_at_most_seven(
    given: dict[str, int | str], expected: int
) -> None:
    assert shallower(given)["max_depth"] == expected


def test_five_features_are_taken_and_all_five_are_split_on() -> None:
    for variant, model in variants().items():
        expected = ("a", "c", "d", "e", "g") if variant.few else NAMES
        assert model.names == expected
        assert shape_of(model.booster).features == expected
        assert model.booster.num_features() == len(expected)


def test_the_columns_that_were_not_chosen_have_no_say() -> None:
    features, _ = rows()
    other = features.copy()
    other[:, [1, 5]] = 1e6
    few = variants()[Variant(few=True)]
    np.testing.assert_array_equal(few.predict(other), few.predict(features))


def test_best_features_are_ranked_by_the_loss_that_all_their_splits_removed() -> None:
    totals = dict.fromkeys(NAMES, 0.0)
    for tree in json.loads(booster().save_raw("json"))["learner"]["gradient_booster"]["model"][
        "trees"
    ]:
        for column, gain, left in zip(
            tree["split_indices"], tree["loss_changes"], tree["left_children"], strict=True
        ):
            totals[NAMES[column]] += gain if left != -1 else 0.0
    ranked = sorted(NAMES, key=lambda name: -totals[name])

    for count in (1, 3, 5):
        assert set(best_features(booster(), count)) == set(ranked[:count])


def test_features_that_no_tree_splits_on_come_last_in_their_own_order() -> None:
    features, labels = rows()
    lone = features.copy()
    lone[:, 1:] = 0.0
    model = fit(lone, labels, feature_names=NAMES, parameters={"n_jobs": 1}, seed=0)
    assert best_features(model, 3) == ("a", "b", "c")
    assert best_features(model, 99) == NAMES


def test_a_booster_without_names_cannot_choose() -> None:
    nameless = booster().copy()
    nameless.feature_names = None
    with pytest.raises(DataError, match="no feature names"):
        best_features(nameless)


def test_a_name_that_is_no_column_is_refused() -> None:
    with pytest.raises(DataError, match="no feature z; expected some of a, b"):
        fit_on(*rows(), ["a", "z"], feature_names=NAMES, parameters=DEEP, seed=0)


def test_every_variants_onnx_twin_answers_the_same() -> None:
    features, _ = rows()
    for model in variants().values():
        twin = to_onnx(model.booster, len(model.names))
        assert max_difference_ah(model.booster, twin, model.narrow(features)) <= 1e-5


def test_variants_are_the_same_each_time_they_are_fitted() -> None:
    again = Fits(NAMES, DEEP, 42).every(*rows())
    for variant, model in variants().items():
        assert bytes(model.booster.save_raw("ubj")) == bytes(again[variant].booster.save_raw("ubj"))


def test_variants_are_all_combinations_of_three_ways_and_have_names_of_their_own() -> None:
    assert len({(one.shallow, one.few, one.half) for one in VARIANTS}) == 8
    assert [one.name for one in VARIANTS[:4]] == [
        "full",
        "depth_7",
        "five_features",
        "float16_leaves",
    ]
    assert VARIANTS[-1].name == "depth_7+five_features+float16_leaves"
    assert list(variants()) == list(VARIANTS)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=True), min_size=7, max_size=7))
def test_rounding_moves_no_row_whatever_beyond_the_bound(values: list[float]) -> None:
    row = np.array([values], dtype=np.float32)
    full = variants()[Variant()]
    moved = abs(variants()[Variant(half=True)].predict(row)[0] - full.predict(row)[0])
    assert moved <= half_leaf_bound_ah(full.booster) + 1e-5

"""The compact form keeps every prediction, is as short as it says, and refuses what is damaged."""

from functools import cache

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batteryops.errors import PackageError
from batteryops.models.boosting import fit, predict
from batteryops.models.compact_trees import MAX_FEATURES, pack, unpack
from batteryops.models.compression import half_leaves, shape_of
from batteryops.models.onnx_twin import max_difference_ah, to_onnx

NAMES = ("voltage_V_mean", "current_A_mean", "größe_µ")
HEADER_BYTES = 21


@cache
def rows() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rng = np.random.default_rng(8)
    features = rng.normal(size=(400, 3)).astype(np.float32)
    labels = 1.6 + 0.3 * np.tanh(features @ np.array([1.0, -0.5, 0.25]))
    missing = rng.random(features.shape) < 0.1
    labels = labels - 0.2 * missing[:, 0] + 0.2 * missing[:, 1]
    features[missing] = np.nan
    return features, labels


@cache
def booster(*, half: bool = False) -> xgb.Booster:
    parameters = {"n_jobs": 1, "n_estimators": 40, "max_depth": 7, "subsample": 0.7}
    full = fit(*rows(), feature_names=NAMES, parameters=parameters, seed=42)
    return half_leaves(full) if half else full


@cache
def read_back() -> xgb.Booster:
    return unpack(pack(booster()))


@pytest.mark.parametrize("half", [False, True])
def test_predictions_are_the_same_to_the_bit(half: bool) -> None:  # noqa: FBT001 - parametrised
    features, _ = rows()
    model = booster(half=half)
    np.testing.assert_array_equal(predict(unpack(pack(model)), features), predict(model, features))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=True), min_size=3, max_size=3))
def test_any_row_is_answered_the_same(values: list[float]) -> None:
    row = np.array([values], dtype=np.float32)
    assert predict(read_back(), row)[0] == predict(booster(), row)[0]


def test_a_booster_read_back_keeps_its_names_form_and_bytes() -> None:
    again = read_back()
    assert again.feature_names == list(NAMES)
    assert shape_of(again) == shape_of(booster())
    assert pack(again) == pack(booster())


def test_a_booster_read_back_has_an_onnx_twin() -> None:
    assert max_difference_ah(booster(), to_onnx(read_back(), 3), rows()[0]) <= 1e-5


@pytest.mark.parametrize(("half", "leaf_bytes"), [(False, 4), (True, 2)])
def test_the_length_is_that_of_the_format(half: bool, leaf_bytes: int) -> None:  # noqa: FBT001
    model = booster(half=half)
    shape = shape_of(model)
    splits = shape.leaves - shape.trees
    names = len("\n".join(NAMES).encode())
    assert len(pack(model)) == (
        HEADER_BYTES + names + (1 + leaf_bytes) * shape.leaves + (1 + 4) * splits
    )


def test_trees_of_one_leaf_are_kept() -> None:
    features, labels = rows()
    flat = fit(
        features,
        labels,
        feature_names=NAMES,
        parameters={"n_jobs": 1, "n_estimators": 3, "gamma": 1e9},
        seed=0,
    )
    np.testing.assert_array_equal(predict(unpack(pack(flat)), features), predict(flat, features))


def test_as_many_features_as_fit_in_a_byte_are_kept_and_one_more_is_refused() -> None:
    rng = np.random.default_rng(1)
    for count in (MAX_FEATURES, MAX_FEATURES + 1):
        features = np.zeros((60, count), dtype=np.float32)
        features[:, -1] = rng.normal(size=60)  # only the last one says anything
        features[::5, -1] = np.nan
        model = fit(
            features,
            np.nan_to_num(features[:, -1]).astype(np.float64),
            feature_names=[f"x{number}" for number in range(count)],
            parameters={"n_jobs": 1, "n_estimators": 5},
            seed=0,
        )
        if count > MAX_FEATURES:
            with pytest.raises(PackageError, match="at most 127"):
                pack(model)
        else:
            np.testing.assert_array_equal(
                predict(unpack(pack(model)), features), predict(model, features)
            )


def test_a_booster_without_names_is_refused() -> None:
    nameless = booster().copy()
    nameless.feature_names = None
    with pytest.raises(PackageError, match="without names"):
        pack(nameless)


def test_files_that_were_cut_off_extended_or_are_something_else_are_refused() -> None:
    whole = pack(booster())
    for damaged in (b"", b"BOT1", whole[:-1], whole + b"\0", b"UBJ1" + whole[4:], whole[:40]):
        with pytest.raises(PackageError, match="not a compact booster"):
            unpack(damaged)


def test_nodes_that_make_no_trees_are_refused() -> None:
    whole = bytearray(pack(booster()))
    start = HEADER_BYTES + len("\n".join(NAMES).encode())
    nodes = 2 * shape_of(booster()).leaves - shape_of(booster()).trees
    backwards = bytearray(whole)
    backwards[start : start + nodes] = whole[start : start + nodes][::-1]
    strange = bytearray(whole)
    strange[start] = 77  # there is no feature 77
    leaf = bytearray(whole)
    leaf[start] = 255
    infinite = bytearray(whole)
    infinite[-4:] = np.float32(np.inf).tobytes()
    for damaged in (backwards, strange, leaf, infinite):
        with pytest.raises(PackageError, match="not a compact booster"):
            unpack(bytes(damaged))

"""The ONNX twin gives what the booster gives: on data, missing values, thresholds, any row."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batteryops.errors import DataError, PackageError
from batteryops.models.boosting import fit, predict
from batteryops.models.onnx_twin import OnnxRow, max_difference_ah, to_onnx

NAMES = ("voltage_V_mean", "current_A_mean", "discharge_time_s")
TOLERANCE_AH = 1e-5


@cache
def cycles() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """400 rows; each feature is missing somewhere, so both default directions are learnt."""
    rng = np.random.default_rng(11)
    features = rng.normal(size=(400, 3)).astype(np.float32)
    labels = 1.6 + 0.3 * np.tanh(features @ np.array([1.0, -0.5, 0.25]))
    missing = rng.random(features.shape) < 0.1
    labels = labels - 0.2 * missing[:, 0] + 0.2 * missing[:, 1]
    features[missing] = np.nan
    return features, labels


@cache
def model(nominal_ah: float = 2.0) -> tuple[xgb.Booster, bytes]:
    features, labels = cycles()
    booster = fit(
        features,
        labels * nominal_ah / 2.0,
        feature_names=NAMES,
        parameters={
            "n_jobs": 1,
            "n_estimators": 80,
            "max_depth": 7,
            "learning_rate": 0.1,
            "subsample": 0.7,
        },
        seed=42,
    )
    return booster, to_onnx(booster, 3)


@cache
def twin() -> OnnxRow:
    return OnnxRow(model()[1])


def splits(booster: xgb.Booster) -> list[tuple[int, float, bool]]:
    """Feature, threshold and default direction of every split, from the model's own JSON."""
    learner = json.loads(booster.save_raw("json"))["learner"]
    return [
        (feature, threshold, bool(default_left))
        for tree in learner["gradient_booster"]["model"]["trees"]
        for feature, threshold, default_left, left in zip(
            tree["split_indices"],
            tree["split_conditions"],
            tree["default_left"],
            tree["left_children"],
            strict=True,
        )
        if left != -1
    ]


def test_twin_and_booster_agree_on_the_training_data() -> None:
    booster, converted = model()

    assert max_difference_ah(booster, converted, cycles()[0]) <= TOLERANCE_AH


def test_twin_and_booster_agree_at_the_scale_of_a_pack() -> None:
    booster, converted = model(nominal_ah=300.0)

    assert max_difference_ah(booster, converted, cycles()[0]) <= TOLERANCE_AH


def test_missing_values_go_both_ways_and_the_twin_follows() -> None:
    booster, converted = model()
    assert {default_left for _, _, default_left in splits(booster)} == {True, False}
    present = np.nan_to_num(cycles()[0][:8])
    rows = np.array(
        [
            np.where([(mask >> column) & 1 for column in range(3)], np.nan, row)
            for row in present
            for mask in range(8)
        ],
        dtype=np.float32,
    )

    assert max_difference_ah(booster, converted, rows) <= TOLERANCE_AH


def test_a_value_on_a_threshold_and_its_neighbours_take_the_same_branch() -> None:
    booster, converted = model()
    rng = np.random.default_rng(3)
    thresholds = [
        np.array([t for feature, t, _ in splits(booster) if feature == column], np.float32)
        for column in range(3)
    ]
    on = np.stack([rng.choice(values, 1000) for values in thresholds], axis=1)
    below, above = np.nextafter(on, np.float32(-np.inf)), np.nextafter(on, np.float32(np.inf))

    for rows in (on, below, above):
        assert max_difference_ah(booster, converted, rows) <= TOLERANCE_AH


@settings(max_examples=300)
@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=3, max_size=3))
def test_twin_and_booster_agree_on_any_row(values: list[float]) -> None:
    row = np.array(values, dtype=np.float32)

    assert twin()(row) == pytest.approx(predict(model()[0], row[np.newaxis])[0], abs=TOLERANCE_AH)


@pytest.mark.data
def test_twin_and_booster_agree_on_the_source_systems_table(data_folder: Path) -> None:
    table = pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv")
    names = [name for name in table.columns if name not in {"battery_id", "cycle", "capacity"}]
    features, labels = table.select(names).to_numpy(), table["capacity"].to_numpy()
    booster = fit(
        features,
        labels,
        feature_names=names,
        parameters={"n_jobs": 1, "n_estimators": 100, "max_depth": 9, "learning_rate": 0.1},
        seed=42,
    )

    assert max_difference_ah(booster, to_onnx(booster, len(names)), features) <= TOLERANCE_AH


def test_a_stump_and_a_lone_leaf_convert() -> None:
    features, labels = cycles()
    for booster in (
        fit(
            features,
            labels,
            feature_names=NAMES,
            parameters={"n_jobs": 1, "n_estimators": 1},
            seed=0,
        ),
        fit(
            features,
            np.ones(len(labels)),
            feature_names=NAMES,
            parameters={"n_jobs": 1, "n_estimators": 1},
            seed=0,
        ),
    ):
        assert max_difference_ah(booster, to_onnx(booster, 3), features) <= TOLERANCE_AH


def test_a_booster_read_back_from_its_bytes_converts_to_the_same_model() -> None:
    booster, converted = model()
    again = xgb.Booster(model_file=booster.save_raw("ubj"))

    assert to_onnx(again, 3) == converted
    assert booster.feature_names == list(NAMES)


def test_the_converted_model_passes_onnxs_own_checker_and_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    converted = to_onnx(model()[0], 3)
    OnnxRow(converted)

    onnx.checker.check_model(onnx.load_from_string(converted))
    assert capfd.readouterr() == ("", "")


def test_a_row_may_be_float64() -> None:
    row = np.nan_to_num(cycles()[0][0])

    assert twin()(row.astype(np.float64)) == twin()(row)


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(2,\); expected \(3,\)"):
        twin()(np.zeros(2, np.float32))


def test_the_wrong_number_of_features_is_refused() -> None:
    with pytest.raises(DataError, match="fitted on 3 features, not on 4"):
        to_onnx(model()[0], 4)


@pytest.mark.parametrize("objective", ["reg:absoluteerror", "reg:pseudohubererror"])
def test_other_objectives_without_a_link_convert(objective: str) -> None:
    features, labels = cycles()
    data = xgb.DMatrix(features, label=labels)
    booster = xgb.train(
        {"objective": objective, "max_depth": 4, "nthread": 1}, data, num_boost_round=20
    )

    assert max_difference_ah(booster, to_onnx(booster, 3), features) <= TOLERANCE_AH


@pytest.mark.parametrize(
    "parameters",
    [
        {"objective": "rank:pairwise"},
        {"objective": "binary:logistic"},
        {"objective": "reg:gamma"},
        {"booster": "dart"},
    ],
)
def test_a_booster_whose_trees_do_not_just_add_up_is_refused(parameters: dict[str, str]) -> None:
    data = xgb.DMatrix(np.arange(4.0)[:, np.newaxis], label=[1, 0.5, 1, 1])
    booster = xgb.train(parameters, data, num_boost_round=1)

    with pytest.raises(PackageError, match=r"cannot be converted to ONNX; expected gbtree"):
        to_onnx(booster, 1)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08"])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    with pytest.raises(PackageError, match="not a model that ONNX Runtime"):
        OnnxRow(content)


def test_an_onnx_model_of_another_form_is_refused() -> None:
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [value],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)

    with pytest.raises(PackageError, match="expected features"):
        OnnxRow(other.SerializeToString())


def test_no_rows_differ_by_nothing() -> None:
    booster, converted = model()

    assert max_difference_ah(booster, converted, np.empty((0, 3))) == 0.0

"""Boosters from files that others wrote: read, or refused without harm to the process."""

from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import xgboost as xgb
from numpy.typing import NDArray

from batteryops.errors import PackageError
from batteryops.models import boosting
from batteryops.models.boosting import booster_from_bytes, fit, predict, read_booster

NAMES = ("voltage_V_mean", "current_A_mean")


@cache
def training() -> tuple[NDArray[np.float32], xgb.Booster]:
    features = np.random.default_rng(5).normal(size=(100, 2)).astype(np.float32)
    labels = features.sum(axis=1).astype(np.float64)
    parameters = {"n_estimators": 3, "n_jobs": 1}
    return features, fit(features, labels, feature_names=NAMES, parameters=parameters, seed=1)


@pytest.mark.parametrize("name", ["model.ubj", "model.json"])
def test_a_booster_is_read_from_xgboosts_own_files(tmp_path: Path, name: str) -> None:
    features, booster = training()
    booster.save_model(tmp_path / name)

    read = read_booster(tmp_path / name, NAMES)

    np.testing.assert_array_equal(predict(read, features), predict(booster, features))


def test_a_booster_saved_without_names_takes_them() -> None:
    features, _ = training()
    model = cast("Any", xgb.XGBRegressor(n_estimators=2, n_jobs=1)).fit(features, features[:, 0])
    raw = bytes(model.get_booster().save_raw("ubj"))

    assert booster_from_bytes(raw, NAMES, what="it").feature_names == list(NAMES)


@pytest.mark.parametrize("names", [("time_s",), ("current_A_mean", "voltage_V_mean")])
def test_a_booster_for_other_features_is_refused(names: tuple[str, ...]) -> None:
    raw = bytes(training()[1].save_raw("ubj"))

    with pytest.raises(
        PackageError, match=rf"it was fitted on 2 .*expected {len(names)}: {names[0]}"
    ):
        booster_from_bytes(raw, names, what="it")


def test_bytes_that_are_another_document_are_refused() -> None:
    with pytest.raises(PackageError, match="it is not a model that XGBoost"):
        booster_from_bytes(b"{}", NAMES, what="it")


@pytest.mark.parametrize("content", [b"", b"{", b"not a booster", b"\x00" * 64, b"{}"])
def test_a_file_that_is_no_booster_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.ubj").write_bytes(content)

    with pytest.raises(PackageError, match=r"model\.ubj is not a model that XGBoost"):
        read_booster(tmp_path / "model.ubj", NAMES)


@pytest.mark.parametrize("form", ["ubj", "json"])
def test_a_truncated_booster_is_refused(tmp_path: Path, form: str) -> None:
    raw = bytes(training()[1].save_raw(form))
    for length in (10, 100, len(raw) // 2, len(raw) - 1):
        (tmp_path / "model").write_bytes(raw[:length])
        with pytest.raises(PackageError, match="is not a model that XGBoost"):
            read_booster(tmp_path / "model", NAMES)


def test_a_booster_that_never_finishes_loading_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boosting, "_LOADING_TIMEOUT_S", 0.01)
    training()[1].save_model(tmp_path / "model.ubj")

    with pytest.raises(PackageError, match="is not a model that XGBoost"):
        read_booster(tmp_path / "model.ubj", NAMES)


def test_a_booster_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"absent\.ubj cannot be read: No such file"):
        read_booster(tmp_path / "absent.ubj", NAMES)

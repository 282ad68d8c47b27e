"""What each feature adds to a prediction: SHAP contributions, by XGBoost's own TreeSHAP."""

from functools import lru_cache
from typing import Final

import numpy as np
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError
from batteryops.models.boosting import as_matrix, predict
from batteryops.models.package import PARITY_AH, ModelPackage

__all__ = ["contributions", "is_explainable"]

_BOOSTERS: Final = 4  # copies for one thread that are kept
_SINGLE: Final = float(np.finfo(np.float32).eps)  # 1.2e-7
_SUMMED: Final = 512  # single precision's steps that sums over hundreds of trees may be off by
_APART: Final = 4  # steps that two engines' answers may lie apart, where that is above PARITY_AH


def is_explainable(package: ModelPackage) -> bool:
    """Whether `contributions` can be had: the model is one booster."""
    return package.manifest.booster


def contributions(
    package: ModelPackage, rows: ArrayLike, answers_ah: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each feature moves a prediction away from the mean of the model's answers.

    These are Shapley values, exact ones, of the game in which a feature that is not known yet is
    averaged over: a split on it goes both ways, in the shares of the training rows that did
    (Lundberg et al., "From local explanations to global understanding with explainable AI for
    trees", Nature Machine Intelligence 2, 2020, algorithm 2). XGBoost computes and adds them up
    in single precision, so that with hundreds of trees contributions and base miss the prediction
    by some of its last digits: by 1e-6 Ah for a cell, 2e-4 Ah for a pack of 160 Ah. What is
    missing goes into the base, which makes the sum hold to double precision for every row, and
    the base of one row differ from another's by so much. A larger gap is not made up for, but
    refused.

    Safe from several threads at once.

    Args:
        package: its model must be one booster.
        rows: features (n, k) in the order of the view; NaN where missing.
        answers_ah: (n,) what was answered to them, which the contributions are to add up to; the
            ONNX twin's answers lie up to 1e-5 Ah from the booster's. Those of `predict_batch` when
            None.

    Returns:
        Contributions (n, k) and base (n,), in Ah.

    Raises:
        DataError: when rows are not (n, k) numbers, or answers not (n,).
        PackageError: when the model is not one booster, when its trees lack the shares of their
            training rows, or when the answers are not the model's.
    """
    if not is_explainable(package):
        raise PackageError(
            f"version trained at {package.manifest.created_at:%Y-%m-%d %H:%M} answers by "
            f"{package.manifest.algorithm}; contributions can be had of one XGBoost booster: "
            "`batteryops train` without --algorithm and --tournament makes it"
        )
    booster = _for_one_thread(package)
    matrix = as_matrix(rows, booster.num_features())
    answers = _answers(answers_ah, booster, matrix)
    if not len(matrix):
        return np.empty(matrix.shape), np.empty(0)
    data = xgb.DMatrix(matrix, feature_names=booster.feature_names, nthread=1)
    raw = booster.predict(data, pred_contribs=True).astype(np.float64)
    added, base = raw[:, :-1], raw[:, -1]
    remainder = answers - raw.sum(axis=1)
    allowed = PARITY_AH + _SUMMED * _SINGLE * np.maximum(np.abs(raw).max(axis=1), 1.0)
    off = ~(np.abs(remainder) <= allowed)  # written so that NaN counts as off
    if off.any():
        row = int(off.argmax())
        raise PackageError(
            f"package {package.folder}: contributions and base add up to "
            f"{raw[row].sum():.6f} Ah, the model answers {answers[row]:.6f} Ah; its trees lack "
            "what TreeSHAP needs, how many training rows went each way: train again"
        )
    return added, base + remainder


@lru_cache(_BOOSTERS)
def _for_one_thread(package: ModelPackage) -> xgb.Booster:
    """A copy of the booster: a team of threads takes longer to gather than a row to explain."""
    booster = package.booster.copy()
    booster.set_param({"nthread": 1})
    return booster


def _answers(
    given: ArrayLike | None, booster: xgb.Booster, matrix: NDArray[np.float32]
) -> NDArray[np.float64]:
    """What the contributions are to add up to, which must be the model's own answers."""
    predicted = predict(booster, matrix)
    if given is None:
        return predicted
    answers = np.asarray(given, dtype=np.float64)
    if answers.shape != predicted.shape:
        raise DataError(f"answers have shape {answers.shape}; expected {predicted.shape}")
    allowed = np.maximum(PARITY_AH, _APART * _SINGLE * np.abs(predicted))
    off = ~(np.abs(answers - predicted) <= allowed)
    if off.any():
        row = int(off.argmax())
        raise PackageError(
            f"the model predicts {predicted[row]:.6f} Ah, the answer to explain is "
            f"{answers[row]:.6f} Ah; explain with the version that answered"
        )
    return answers

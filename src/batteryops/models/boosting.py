"""Fit and predict with gradient-boosted trees, under the source system's parameter names."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError, SettingsError

Parameters = Mapping[str, float | int | str]


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers that XGBoost takes for a parameter; `above` excludes the lower end itself."""

    kind: type[int] | type[float]
    low: float
    high: float = float("inf")
    above: bool = False

    def read(self, value: float | str) -> float | int:
        number = float(value)
        if self.kind is int and not number.is_integer():
            raise ValueError
        if not self.low <= number <= self.high or (self.above and number == self.low):
            raise ValueError
        return self.kind(number)

    def __str__(self) -> str:
        noun = "a whole number" if self.kind is int else "a number"
        low = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        return f"{noun} {low}" + (f" and at most {self.high:g}" if np.isfinite(self.high) else "")


@dataclass(frozen=True, slots=True)
class _Words:
    """Words that XGBoost takes for a parameter."""

    words: tuple[str, ...]

    def read(self, value: float | str) -> str:
        if value not in self.words:
            raise ValueError
        return str(value)

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words)


_SHARE: Final = _Range(float, 0, 1, above=True)
_WEIGHT: Final = _Range(float, 0)

PARAMETERS: Final[Mapping[str, _Range | _Words]] = {
    # what the source system sets
    "n_estimators": _Range(int, 1),
    "max_depth": _Range(int, 0),  # 0: no limit
    "learning_rate": _SHARE,
    "subsample": _SHARE,
    "colsample_bytree": _SHARE,
    "tree_method": _Words(("auto", "hist", "approx", "exact")),
    "n_jobs": _Range(int, -1),  # 0 and -1: all cores
    # what a search may set besides
    "colsample_bylevel": _SHARE,
    "colsample_bynode": _SHARE,
    "min_child_weight": _WEIGHT,
    "gamma": _WEIGHT,
    "reg_alpha": _WEIGHT,
    "reg_lambda": _WEIGHT,
    "max_leaves": _Range(int, 0),
    "max_bin": _Range(int, 2),
    "grow_policy": _Words(("depthwise", "lossguide")),
    "device": _Words(("cpu", "cuda")),
}
"""Every parameter `fit` takes, with what it may be."""

DEFAULT_TREES: Final = 100
"""XGBRegressor's."""

_LOADING_TIMEOUT_S: Final = 30.0


def read_parameters(parameters: Parameters) -> dict[str, float | int | str]:
    """The parameters as XGBoost needs them: known names, numbers as numbers, values in range.

    XGBoost itself only warns of a name it does not know, and trains without it. Numbers may come
    as text, as they do from the environment.

    Raises:
        SettingsError: naming the parameter that is unknown or out of range.

    Examples:
        >>> read_parameters({"n_estimators": "300", "learning_rate": 0.1})
        {'n_estimators': 300, 'learning_rate': 0.1}
        >>> read_parameters({"n_trees": 300})
        Traceback (most recent call last):
        ...
        batteryops.errors.SettingsError: training parameter 'n_trees' is unknown; ...
    """
    read: dict[str, float | int | str] = {}
    for name, value in parameters.items():
        if name not in PARAMETERS:
            raise SettingsError(
                f"training parameter {name!r} is unknown; known are {', '.join(PARAMETERS)}"
            )
        try:
            read[name] = PARAMETERS[name].read(value)
        except (ValueError, TypeError, OverflowError):
            raise SettingsError(
                f"training parameter {name} is {value!r}; expected {PARAMETERS[name]}"
            ) from None
    return read


def fit(  # noqa: PLR0913 - data, and what XGBoost is told
    features: ArrayLike,
    labels: ArrayLike,
    *,
    feature_names: Sequence[str],
    parameters: Parameters,
    seed: int,
    trends: Sequence[int] = (),
) -> xgb.Booster:
    """Fit boosted trees to squared error; equal to `xgboost.XGBRegressor` to the bit.

    Args:
        features: (n, k), any unit; NaN where a feature is missing.
        labels: (n,), capacity in Ah.
        feature_names: k names, in the order of the columns.
        parameters: by XGBRegressor's names; `PARAMETERS` lists them. What is not given has
            XGBRegressor's default.
        seed: XGBRegressor's `random_state`.
        trends: k of +1, -1 and 0: predictions may only rise, or only fall, with that feature;
            none are held where it is empty.

    Returns:
        The booster, which knows its feature names.

    Raises:
        DataError: when shapes disagree, a feature is infinite, or a label is not a finite number.
        SettingsError: when a parameter is unknown or out of range.

    Examples:
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> parameters = {"n_estimators": 50, "min_child_weight": 0, "n_jobs": 1}
        >>> booster = fit(x, x[:, 0], feature_names=["time_s"], parameters=parameters, seed=0)
        >>> predict(booster, x).round(1)
        array([0., 1., 2., 3.])
    """
    matrix = as_matrix(features, len(feature_names))
    target = _labels(labels, len(matrix))
    if np.isinf(matrix).any():
        column = int(np.isinf(matrix).any(axis=0).argmax())
        raise DataError(
            f"feature {feature_names[column]} holds an infinite value; expected finite numbers, "
            "or NaN where the feature is missing"
        )
    settings: dict[str, Any] = {**read_parameters(parameters)}
    if trends:
        settings["monotone_constraints"] = tuple(trends)
    rounds = int(settings.pop("n_estimators", DEFAULT_TREES))
    names = list(feature_names)
    try:
        data = training_data(matrix, target, names, settings)
        return xgb.train(
            {"objective": "reg:squarederror", "random_state": seed, **settings},
            data,
            num_boost_round=rounds,
        )
    except (xgb.core.XGBoostError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"XGBoost cannot fit {len(matrix)} rows of {', '.join(names)}: {reason}"
        ) from error


def training_data(
    features: NDArray[np.float32],
    labels: NDArray[np.float64],
    feature_names: Sequence[str],
    settings: Mapping[str, Any],
) -> xgb.DMatrix:
    """The container that XGBRegressor picks: binned once for histograms, plain otherwise.

    Args:
        features: (n, k), NaN where missing.
        labels: (n,), Ah.
        feature_names: k names.
        settings: what `read_parameters` gave.
    """
    threads = int(settings.get("n_jobs", 0)) or None
    names = list(feature_names)
    if settings.get("tree_method", "auto") in {"auto", "hist"}:
        return xgb.QuantileDMatrix(
            features,
            label=labels,
            feature_names=names,
            nthread=threads,
            max_bin=settings.get("max_bin"),
        )
    return xgb.DMatrix(features, label=labels, feature_names=names, nthread=threads)


def read_booster(path: Path, feature_names: Sequence[str]) -> xgb.Booster:
    """A booster from a file in XGBoost's own format, UBJ or JSON, that anyone may have written.

    XGBoost aborts the process on some damaged files and never comes back from others, so the file
    is first loaded by another process, which takes a second or two.

    Args:
        path: what `Booster.save_model` wrote.
        feature_names: what the model must have been fitted on, in this order. A booster that was
            saved without names takes them.

    Raises:
        PackageError: when there is no such file, it is not a booster, or it is one for other
            features.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PackageError(
            f"{path} cannot be read: {error.strerror}; name a saved model"
        ) from error
    # both formats hold one object in braces; a file that was cut off lacks the last
    if not (raw.startswith(b"{") and raw.rstrip().endswith(b"}") and _loads_elsewhere(raw)):
        raise PackageError(
            f"{path} is not a model that XGBoost {xgb.__version__} can load; expected the UBJ or "
            "JSON that Booster.save_model writes: save it again"
        )
    return booster_from_bytes(raw, feature_names, what=str(path))


def booster_from_bytes(raw: bytes, feature_names: Sequence[str], *, what: str) -> xgb.Booster:
    """A booster from bytes that are known to be what XGBoost wrote.

    Args:
        raw: the booster as UBJ or JSON; damaged bytes can abort the process.
        feature_names: as for `read_booster`.
        what: names the booster in messages.

    Raises:
        PackageError: when it is not a booster, or one for other features.
    """
    try:
        booster = xgb.Booster(model_file=bytearray(raw))
        width = booster.num_features()
    except xgb.core.XGBoostError as error:
        raise PackageError(
            f"{what} is not a model that XGBoost {xgb.__version__} can load; train again"
        ) from error
    names = list(feature_names)
    if width != len(names) or (booster.feature_names or names) != names:
        given = ", ".join(booster.feature_names or ()) or "without names"
        raise PackageError(
            f"{what} was fitted on {width} features ({given}); expected {len(names)}: "
            f"{', '.join(names)}"
        )
    booster.feature_names = names
    return booster


def _loads_elsewhere(raw: bytes) -> bool:
    script = "import sys, xgboost; xgboost.Booster(model_file=bytearray(sys.stdin.buffer.read()))"
    try:
        loaded = subprocess.run(  # noqa: S603 - a fixed command, no text from outside
            [sys.executable, "-c", script],
            input=raw,
            capture_output=True,
            check=False,
            timeout=_LOADING_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return False
    return loaded.returncode == 0


def predict(booster: xgb.Booster, features: ArrayLike) -> NDArray[np.float64]:
    """Predicted capacities in Ah, (n,), for features (n, k); NaN where a feature is missing.

    Reads the array in place, without a DMatrix: safe from several threads at once.

    Raises:
        DataError: when the features are not (n, k) numbers for the booster's k.
    """
    matrix = as_matrix(features, booster.num_features())
    if not len(matrix):
        return np.empty(0)
    predicted: NDArray[np.float32] = booster.inplace_predict(matrix)
    return predicted.astype(np.float64)


def as_matrix(features: ArrayLike, width: int) -> NDArray[np.float32]:
    """Features as contiguous float32 (n, width).

    Raises:
        DataError: when they are not (n, width) numbers.
    """
    try:
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which `fit` refuses
            matrix = np.ascontiguousarray(features, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise DataError(f"features are not numbers: {error}; expected (n, {width})") from error
    if matrix.ndim != 2 or matrix.shape[1] != width:  # noqa: PLR2004 - rows and columns
        raise DataError(
            f"features have shape {matrix.shape}; expected (n, {width}), one column per feature "
            "in the order of the view"
        )
    return matrix


def _labels(labels: ArrayLike, rows: int) -> NDArray[np.float64]:
    try:
        target = np.asarray(labels, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(f"labels are not numbers: {error}; expected ({rows},) in Ah") from error
    if target.shape != (rows,):
        raise DataError(f"labels have shape {target.shape}; expected ({rows},), one per row")
    if rows == 0:
        raise DataError("no rows to fit; expected at least one labelled cycle")
    bad = int((~np.isfinite(target)).sum())
    if bad:
        raise DataError(
            f"{bad} of {rows} labels are missing or infinite; expected a capacity in Ah for every "
            "row: leave unlabelled cycles out"
        )
    return target

"""The algorithms that a tournament compares, each behind one way to fit and predict.

An algorithm is fitted to features (n, k), NaN where missing, capacities (n,) in Ah, and the owners
of the rows: assets, and groups of assets that were aged together. What holds rows out of its own
training, such as stacking, holds out whole groups. Each fit runs on one thread, so that folds can
run side by side. Defaults are the libraries' own where the remark beside them gives no reason.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import BayesianRidge, ElasticNet, HuberRegressor, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from batteryops.errors import SettingsError
from batteryops.evaluation.owners import Owners
from batteryops.models import boosting
from batteryops.models.process_fit import ProcessFit

if TYPE_CHECKING:
    import optuna

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Predict = Callable[[Matrix], Floats]
GroupedFit = Callable[[Matrix, Floats, Owners], Predict]
"""Fits features (n, k) to capacities (n,) in Ah, told the rows' owners, and gives what predicts."""

Values = dict[str, Any]
"""Of what a search may set, by name."""

PROCESS_ROWS: Final = 500
"""Rows that a Gaussian process keeps, spread evenly: its time grows with their cube."""


@dataclass(frozen=True, slots=True)
class Task:
    """What an algorithm is told besides the data.

    Args:
        view: name of the feature view.
        names: of the k features.
        trends: one per feature: +1 where capacity can only rise with it, -1 where only fall, 0
            where physics does not say.
        boosting: XGBoost's parameters as configured.
        seed: of whatever is random.
    """

    view: str
    names: tuple[str, ...]
    trends: tuple[int, ...]
    boosting: Mapping[str, Any]
    seed: int


@dataclass(frozen=True, slots=True)
class Scikit:
    """A fitted estimator of scikit-learn; answers rows (n, k) with capacities (n,) in Ah."""

    estimator: TransformedTargetRegressor

    def __call__(self, rows: Matrix) -> Floats:
        """Predicted capacities in Ah."""
        return np.asarray(self.estimator.predict(rows.astype(np.float64)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Boosted:
    """A fitted booster; answers rows (n, k) with capacities (n,) in Ah."""

    booster: xgb.Booster

    def __call__(self, rows: Matrix) -> Floats:
        """Predicted capacities in Ah."""
        return boosting.predict(self.booster, rows)


@dataclass(frozen=True, slots=True)
class Combined:
    """A weighted sum of fitted models; answers rows (n, k) with capacities (n,) in Ah."""

    members: tuple[Predict, ...]
    weights: tuple[float, ...]

    def __call__(self, rows: Matrix) -> Floats:
        """Predicted capacities in Ah."""
        total = np.zeros(len(rows))
        for member, weight in zip(self.members, self.weights, strict=True):
            total += weight * member(rows)
        return total


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One entrant.

    Args:
        name: in tables and on the command line.
        family: what sort of method it is.
        meaning: one line for people.
        make: from a task and the values that a search found to what fits; without values, the
            defaults.
        space: what a search may set, drawn from a trial of Optuna.
    """

    name: str
    family: str
    meaning: str
    make: Callable[[Task, Values], GroupedFit]
    space: Callable[["optuna.Trial"], Values]


def get_algorithm(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        SettingsError: when there is none.

    Examples:
        >>> get_algorithm("ridge").family
        'linear'
    """
    if name not in ALGORITHMS:
        raise SettingsError(
            f"there is no algorithm {name!r}; expected one of {', '.join(ALGORITHMS)}"
        )
    return ALGORITHMS[name]


def _scikit(kind: type[BaseEstimator], **defaults: Any) -> Callable[[Task, Values], GroupedFit]:  # noqa: ANN401 - the estimator's own
    """What fits a scikit-learn estimator behind imputation by the median and scaling."""
    seeded = "random_state" in signature(kind).parameters

    def make(task: Task, values: Values) -> GroupedFit:
        given: Values = {**defaults, **({"random_state": task.seed} if seeded else {}), **values}

        def fit(features: Matrix, labels: Floats, owners: Owners) -> Predict:
            del owners
            model = TransformedTargetRegressor(
                make_pipeline(
                    SimpleImputer(strategy="median", keep_empty_features=True),
                    StandardScaler(),
                    kind(**given),
                ),
                transformer=StandardScaler(),
            )
            return Scikit(model.fit(features.astype(np.float64), labels))

        return fit

    return make


def boosted(task: Task, values: Values, trends: tuple[int, ...] = ()) -> GroupedFit:
    """XGBoost with the configured parameters, under the constraints of `trends`."""

    def fit(features: Matrix, labels: Floats, owners: Owners) -> Predict:
        del owners
        booster = boosting.fit(
            features,
            labels,
            feature_names=task.names,
            parameters={**task.boosting, "n_jobs": 1, **values},
            seed=task.seed,
            trends=trends,
        )
        return Boosted(booster)

    return fit


def boosted_on_trend(task: Task, values: Values) -> GroupedFit:
    """XGBoost on what a ridge leaves: trees cannot extrapolate, the ridge can."""
    trend = ALGORITHMS["ridge"].make(
        task, {name: values[name] for name in ("alpha",) if name in values}
    )
    rest = boosted(task, {name: value for name, value in values.items() if name != "alpha"})

    def fit(features: Matrix, labels: Floats, owners: Owners) -> Predict:
        line = trend(features, labels, owners)
        trees = rest(features, labels - line(features), owners)
        return Combined((line, trees), (1.0, 1.0))

    return fit


def _gaussian_process(task: Task, values: Values) -> GroupedFit:
    """A Gaussian process on a part of the rows: its time grows with the cube of their number."""
    kernel = DotProduct() + RBF(float(values.get("length", 5.0))) + WhiteKernel(0.1)
    inner = _scikit(GaussianProcessRegressor, kernel=kernel)(task, {})

    def fit(features: Matrix, labels: Floats, owners: Owners) -> Predict:
        kept = np.unique(np.linspace(0, len(labels) - 1, PROCESS_ROWS).astype(int))
        return inner(features[kept], labels[kept], owners[kept])

    return fit


def _battery_process(task: Task, values: Values) -> GroupedFit:
    """Gaussian processes on what physics says to compare, with effects of each asset."""
    del values
    return ProcessFit(task.view, task.names)


def _boosting_space(trial: "optuna.Trial") -> Values:
    return {
        "n_estimators": trial.suggest_int("n_estimators", 50, 600, log=True),
        "max_depth": trial.suggest_int("max_depth", 2, 10),
        "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
        "min_child_weight": trial.suggest_float("min_child_weight", 0.5, 30.0, log=True),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 30.0, log=True),
    }


def _monotone(task: Task, values: Values) -> GroupedFit:
    return boosted(task, values, task.trends)


def _alpha(trial: "optuna.Trial") -> Values:
    return {"alpha": trial.suggest_float("alpha", 1e-3, 1e3, log=True)}


def _leaves(trial: "optuna.Trial") -> Values:
    return {
        "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 30, log=True),
        "max_features": trial.suggest_float("max_features", 0.2, 1.0),
    }


ENTRANTS: Final = (
    Algorithm(
        "ridge",
        "linear",
        "a line through standardised features, with a penalty on its slopes",
        _scikit(Ridge),
        _alpha,
    ),
    Algorithm(
        "elastic_net",
        "linear",
        "a line that leaves features out",
        _scikit(ElasticNet, alpha=0.01, max_iter=10_000, tol=1e-3),  # 1.0 leaves all of them out
        lambda trial: {
            "alpha": trial.suggest_float("alpha", 1e-3, 1.0, log=True),
            "l1_ratio": trial.suggest_float("l1_ratio", 0.05, 0.95),
        },
    ),
    Algorithm(
        "bayesian_ridge",
        "linear",
        "a line whose penalty the data decides",
        _scikit(BayesianRidge),
        lambda trial: {"lambda_1": trial.suggest_float("lambda_1", 1e-7, 1e-1, log=True)},
    ),
    Algorithm(
        "huber",
        "linear",
        "a line that outliers pull less",
        _scikit(HuberRegressor, max_iter=2_000, tol=1e-3),  # slow on features that agree
        lambda trial: {
            "alpha": trial.suggest_float("alpha", 1e-4, 1e2, log=True),
            "epsilon": trial.suggest_float("epsilon", 1.05, 3.0),
        },
    ),
    Algorithm(
        "kernel_ridge",
        "kernel",
        "a ridge on similarity to the training rows",
        _scikit(KernelRidge, kernel="rbf"),  # the default is a line, which is there already
        lambda trial: {
            "alpha": trial.suggest_float("alpha", 1e-3, 10.0, log=True),
            "gamma": trial.suggest_float("gamma", 1e-4, 0.3, log=True),
        },
    ),
    Algorithm(
        "support_vectors",
        "kernel",
        "support vector regression with a smooth kernel",
        _scikit(SVR),
        lambda trial: {
            "C": trial.suggest_float("C", 0.1, 100.0, log=True),
            "epsilon": trial.suggest_float("epsilon", 0.01, 0.3, log=True),
            "gamma": trial.suggest_float("gamma", 1e-4, 0.3, log=True),
        },
    ),
    Algorithm(
        "nearest_neighbours",
        "neighbours",
        "the mean of the most similar training rows",
        _scikit(KNeighborsRegressor, weights="distance"),
        lambda trial: {"n_neighbors": trial.suggest_int("n_neighbors", 2, 100, log=True)},
    ),
    Algorithm(
        "random_forest",
        "forest",
        "the mean of trees on resampled rows",
        _scikit(RandomForestRegressor),
        _leaves,
    ),
    Algorithm(
        "extra_trees",
        "forest",
        "the mean of trees with random thresholds",
        _scikit(ExtraTreesRegressor),
        _leaves,
    ),
    Algorithm(
        "histogram_boosting",
        "boosting",
        "scikit-learn's boosted trees",
        _scikit(HistGradientBoostingRegressor),
        lambda trial: {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
            "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 4, 63, log=True),
            "l2_regularization": trial.suggest_float("l2_regularization", 1e-3, 30.0, log=True),
        },
    ),
    Algorithm(
        "neural_network",
        "network",
        "a perceptron with two hidden layers",
        _scikit(  # a few thousand rows: L-BFGS, small layers, a penalty
            MLPRegressor,
            hidden_layer_sizes=(32, 16),
            alpha=1.0,
            solver="lbfgs",
            max_iter=300,
            max_fun=100_000,
            tol=1e-3,
        ),
        lambda trial: {"alpha": trial.suggest_float("alpha", 1e-2, 1e2, log=True)},
    ),
    Algorithm(
        "gaussian_process",
        "gaussian process",
        f"a smooth function and a line, on {PROCESS_ROWS} rows spread evenly",
        _gaussian_process,
        lambda trial: {"length": trial.suggest_float("length", 1.0, 30.0, log=True)},
    ),
    Algorithm(
        "battery_process",
        "gaussian process",
        "Gaussian processes on what physics says to compare, with effects of each battery",
        _battery_process,
        lambda trial: {},  # noqa: ARG005 - it searches its own values, by the evidence
    ),
    Algorithm("xgboost", "boosting", "XGBoost as configured", boosted, _boosting_space),
    Algorithm(
        "xgboost_monotone",
        "boosting",
        "XGBoost that may only rise, or only fall, where physics says so",
        _monotone,
        _boosting_space,
    ),
    Algorithm(
        "xgboost_on_trend",
        "boosting",
        "XGBoost on what a ridge leaves: trees cannot extrapolate, a line can",
        boosted_on_trend,
        lambda trial: {**_alpha(trial), **_boosting_space(trial)},
    ),
)

ALGORITHMS: Final[Mapping[str, Algorithm]] = {entrant.name: entrant for entrant in ENTRANTS}

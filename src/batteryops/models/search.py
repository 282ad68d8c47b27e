"""Search for an algorithm's values on groups held out of the training rows, within a time budget.

Trials stand in a database, in a study whose name says which rows, algorithm and folds it is for: a
search that was stopped, or killed, goes on where it was. Only the rows that it is given are looked
at, so that a protocol which calls it on a fold's training rows keeps its test groups out of it.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Final, Self

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState

from batteryops.errors import DataError, RecordsError
from batteryops.evaluation.owners import Owners
from batteryops.models.algorithms import (
    Algorithm,
    Floats,
    Matrix,
    Task,
    Values,
)
from batteryops.models.held_out import fold_numbers, group_codes, group_weights

_TABLES: Final = Lock()
"""Two threads that find no tables would both make them, and one would fail."""

STARTUP_TRIALS: Final = 8
"""Trials drawn at random before the sampler models, and the pruner compares."""

Told = Callable[[int, float], None]
"""Told after each trial: how many there are, and the least error so far in Ah."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a search may look at.

    Args:
        features: (n, k), NaN where missing.
        labels: (n,), Ah.
        owners: of the n rows.
    """

    features: Matrix
    labels: Floats
    owners: Owners


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to search, where trials stand, and how rows are held out.

    Args:
        seconds: of one search; a trial at work is ended at its next fold, and counts for nothing.
        url: SQLAlchemy URL of the database.
        folds: of groups, at most.
    """

    seconds: float
    url: str
    folds: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Args:
        values: the best; empty where nothing was better than the defaults.
        mae_ah: theirs, mean over groups held out, Ah.
        default_mae_ah: that of the defaults.
        trials: ever finished in this study.
        pruned: given up early because others were better by then.
    """

    values: Values
    mae_ah: float
    default_mae_ah: float
    trials: int
    pruned: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return asdict(self)


def search(
    algorithm: Algorithm, task: Task, rows: Rows, budget: Budget, *, told: Told | None = None
) -> Found:
    """Search until the budget is spent; goes on with an earlier search of the same.

    Args:
        algorithm: whose values are searched.
        task: what it is told besides.
        rows: what may be looked at.
        budget: how long, and where trials stand.
        told: called after each trial.

    Raises:
        DataError: when there is only one group.
        RecordsError: when the database is out of reach.
    """
    deadline = time.monotonic() + budget.seconds
    held_out = _HeldOut.of(algorithm, task, rows, budget.folds)
    study = _study(f"{algorithm.name}-{held_out.fingerprint}", task.seed, budget.url)
    default = study.user_attrs.get("default_mae_ah")
    if default is None:
        default = held_out.error_ah({})
        study.set_user_attr("default_mae_ah", default)

    def objective(trial: optuna.Trial) -> float:
        values = algorithm.space(trial)
        trial.set_user_attr("values", values)
        return held_out.error_ah(values, trial, deadline)

    def after(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if told is not None:
            told(trial.number + 1, _found(study, default).mae_ah)

    left = deadline - time.monotonic()
    if left > 0:
        study.optimize(objective, timeout=left, callbacks=[after], catch=_OutOfTimeError)
    return _found(study, default)


def is_searchable(algorithm: Algorithm) -> bool:
    """Whether there is anything to set.

    Examples:
        >>> from batteryops.models.algorithms import get_algorithm
        >>> is_searchable(get_algorithm("ridge")), is_searchable(get_algorithm("battery_process"))
        (True, False)
    """
    try:
        asked = optuna.trial.FixedTrial({})
        return bool(algorithm.space(asked))  # type: ignore[arg-type] # Optuna's stand-in for one
    except ValueError:  # it asked for a value
        return True


class _OutOfTimeError(Exception):
    """The budget was spent in the middle of a trial, which says nothing of its values."""


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOut:
    """Judges values on groups held out."""

    algorithm: Algorithm
    task: Task
    rows: Rows
    fold_of: NDArray[np.intp]
    weights: Floats

    @classmethod
    def of(cls, algorithm: Algorithm, task: Task, rows: Rows, folds: int) -> Self:
        codes = group_codes(rows.owners.groups, rows.labels.size)
        fold_of = fold_numbers(codes, folds)
        if not fold_of.any():
            raise DataError(
                f"all {rows.labels.size} rows are of one group of assets; a search holds out "
                "groups and needs two or more"
            )
        return cls(algorithm, task, rows, fold_of, group_weights(codes))

    @property
    def fingerprint(self) -> str:
        """Of the rows and how they are held out, and of what the algorithm is told."""
        content = hashlib.sha256(repr(self.task).encode())
        for array in (self.rows.features, self.rows.labels, self.fold_of):
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()[:16]

    def error_ah(
        self, values: Values, trial: optuna.Trial | None = None, deadline: float = np.inf
    ) -> float:
        """Mean absolute error over groups, each weighing the same."""
        features, labels, owners = self.rows.features, self.rows.labels, self.rows.owners
        fit = self.algorithm.make(self.task, values)
        total, share = 0.0, 0.0
        # the largest folds first: they tell the most
        for step, fold in enumerate(np.argsort(-np.bincount(self.fold_of), kind="stable").tolist()):
            if time.monotonic() > deadline:
                raise _OutOfTimeError
            out = self.fold_of == fold
            given = fit(features[~out], labels[~out], owners[~out])(features[out])
            total += float(self.weights[out] @ np.abs(given - labels[out]))
            share += float(self.weights[out].sum())
            if trial is not None:
                trial.report(total / share, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return total


def _study(name: str, seed: int, url: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with _TABLES:
            study = optuna.create_study(
                storage=optuna.storages.RDBStorage(url),
                study_name=name,
                load_if_exists=True,
                direction="minimize",
                sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
            )
    except Exception as error:  # SQLAlchemy's and Optuna's own types have no common base
        raise RecordsError(
            f"the database of searches is out of reach ({type(error).__name__}); check "
            "records.predictions_url, or search later"
        ) from error
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)  # of a process that was killed
    return study


def _found(study: optuna.Study, default: float) -> Found:
    trials = study.get_trials(deepcopy=False)
    scores = {trial.number: trial.value for trial in trials if trial.value is not None}
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = min(done, key=lambda trial: scores[trial.number], default=None)
    better = best if best is not None and scores[best.number] < default else None
    return Found(
        values=dict(better.user_attrs["values"]) if better is not None else {},
        mae_ah=scores[better.number] if better is not None else default,
        default_mae_ah=default,
        trials=len(done),
        pruned=sum(trial.state is TrialState.PRUNED for trial in trials),
    )

"""Run one protocol: fit on each split, predict what was held out, set baselines beside it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError
from batteryops.evaluation.baselines import (
    LAST_MEASURED,
    MEAN,
    RIDGE,
    last_measured_baseline,
    mean_baseline,
    ridge_baseline,
)
from batteryops.evaluation.coverage import Bounds, Coverage, FitBounds, measure_coverage
from batteryops.evaluation.metrics import (
    Floats,
    Interval,
    Metrics,
    Predictions,
    intervals,
    nominal_per_row,
    per_asset,
    score,
)
from batteryops.evaluation.owners import Names, Owners
from batteryops.evaluation.protocols import (
    CLOCK,
    Split,
    SplitPlan,
    check_key,
    held_out_groups,
    make_splits,
)
from batteryops.schema import LABEL

if TYPE_CHECKING:
    from batteryops.settings import EvaluationSettings

Matrix = NDArray[np.float32]
Predict = Callable[[Matrix], Floats]
Fit = Callable[[Matrix, Floats, Owners], Predict]
"""Fits features (n, k), NaN where missing, to capacities (n,) in Ah; gives what predicts.

It is told the owners of the n rows: assets that were aged together, as the protocol has it, are one
group.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Cycles:
    """Measured or asked cycles: whose, when, and what the model says of them.

    Args:
        assets: (n,).
        op_index: (n,), positions in their assets' lives.
        predicted_ah: (n,).
        measured_ah: (n,); None where they are asked about.
    """

    assets: Names
    op_index: NDArray[np.int64]
    predicted_ah: Floats
    measured_ah: Floats | None = None


Correct = Callable[[Cycles, Cycles], Floats]
"""From known cycles and asked cycles to corrected capacities of the asked, in Ah."""

FitCorrection = Callable[[Matrix, Floats, Owners, NDArray[np.int64]], Correct]
"""From training's features, labels, owners and `op_index`, nothing else, to what corrects."""

Progress = Callable[[int, int], None]

_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Fold:
    """One split of a protocol, by its name and its sizes in rows."""

    name: str
    n_train: int
    n_test: int


@dataclass(frozen=True, slots=True, eq=False)
class ProtocolResult:
    """What a model achieved under one protocol.

    Args:
        protocol: which one.
        n_train: rows that trained; over several folds their mean, rounded.
        n_test: rows tested, over all folds; each row at most once.
        n_unlabelled: rows of the table left out for want of a label.
        folds: the splits.
        metrics: over all tested rows together, each predicted by the model that had not seen it.
        intervals: bootstrap over assets, by metric.
        baselines: the same metrics, on the same rows, of what needs no model.
        baseline_coverage: share of tested rows that a baseline could answer by itself; the
            others it answers by the mean of the training labels.
        per_asset: one row per asset, see `batteryops.evaluation.metrics.per_asset`.
        predictions: columns `asset_id`, `op_index`, `capacity_ah`, `predicted_ah`, `nominal_ah`,
            `fold`; one row per tested row. With intervals also `capacity_low_ah`,
            `capacity_high_ah`, `in_domain`.
        coverage: what the prediction intervals are worth; None when none were made.
    """

    protocol: str
    n_train: int
    n_test: int
    n_unlabelled: int
    folds: tuple[Fold, ...]
    metrics: Metrics
    intervals: Mapping[str, Interval]
    baselines: Mapping[str, Metrics]
    baseline_coverage: Mapping[str, float]
    per_asset: pl.DataFrame
    predictions: pl.DataFrame
    coverage: Coverage | None = None

    def facts(self) -> dict[str, float]:
        """The metrics by name, as gates look them up; those of intervals among them."""
        return self.metrics.facts() | (self.coverage.facts() if self.coverage else {})

    def baseline_facts(self) -> dict[str, dict[str, float]]:
        """The metrics of each baseline by name, as gates look them up."""
        return {name: found.facts() for name, found in self.baselines.items()}

    def to_json(self) -> dict[str, object]:
        """Everything but the predictions, ready for `json.dumps`; metrics on the first level."""
        return {
            "protocol": self.protocol,
            **self.metrics.to_json(),
            **(self.coverage.to_json() if self.coverage else {}),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "n_unlabelled": self.n_unlabelled,
            "intervals": {name: found.to_json() for name, found in self.intervals.items()},
            "baselines": {name: found.to_json() for name, found in self.baselines.items()},
            "baseline_coverage": dict(self.baseline_coverage),
            "folds": [
                {"name": fold.name, "n_train": fold.n_train, "n_test": fold.n_test}
                for fold in self.folds
            ],
            "per_asset": self.per_asset.to_dicts(),
        }


def evaluate_protocol(  # noqa: PLR0913  # what is evaluated, how, and on what: all by name
    table: pl.DataFrame,
    feature_names: Sequence[str],
    protocol: str,
    fit: Fit,
    *,
    settings: "EvaluationSettings",
    nominal_ah: float | Mapping[str, float] | ArrayLike,
    seed: int,
    progress: Progress | None = None,
    workers: int = 1,
    clock: str = CLOCK,
    fit_bounds: FitBounds | None = None,
    splits: Sequence[Split] | None = None,
    fit_correction: FitCorrection | None = None,
) -> ProtocolResult:
    """Evaluate whatever `fit` gives, and the baselines, under one protocol.

    Args:
        table: `asset_id`, `op_index`, the features (null or NaN where not computable) and
            `capacity_ah` (null where unlabelled; such rows are left out and counted).
        feature_names: columns handed to `fit`, in this order.
        protocol: one of `batteryops.evaluation.protocols.PROTOCOLS`; with `splits` any name.
        fit: called once per fold with (features f32, capacity f64, owners) of the training rows;
            what it returns is called once with the features of the fold's test rows.
        settings: shares, groups, bootstrap.
        nominal_ah: nominal capacity in Ah: one, one per asset, or one per row of `table`.
        seed: of the `random` split and of the bootstrap.
        progress: called with (folds done, folds in all), at the start and after each.
        workers: how many folds are fitted at a time, each in a thread of its own; the result does
            not depend on it.
        clock: column in which `unseen_schedules` looks for shared schedules.
        fit_bounds: called once per fold with features, labels and owners of the training rows,
            the groups being those that the protocol knows; what it returns is called once with
            features, predictions and assets of the fold's test rows. No intervals when None.
        splits: rows of the labelled table, where they are not for the protocol to choose.
        fit_correction: called once per fold that has known rows; what it returns corrects the
            predictions of the fold's test rows by measurements of the same assets.

    Raises:
        SettingsError: when there is no such protocol.
        DataError: when the table breaks its contract, is too small for the protocol, or the model
            answers with another number of values than rows, or with NaN.
    """
    labelled, nominal = _labelled(table, nominal_ah)
    features = _features(labelled, feature_names)
    labels = labelled[LABEL].to_numpy()
    assets = labelled["asset_id"].to_numpy().astype(object)
    cycles = labelled["op_index"].cast(pl.Int64).to_numpy()
    plan = SplitPlan.from_settings(settings, seed, clock)
    splits = make_splits(labelled, protocol, plan) if splits is None else splits

    matrix = features.astype(np.float32)
    bounds: dict[str, Bounds] = {}
    group_of = held_out_groups(labelled, protocol, plan)
    owners = Owners(assets, np.array([group_of[asset] for asset in assets], dtype=object))

    def answers(split: Split) -> dict[str, Floats]:
        known, asked = (np.ascontiguousarray(matrix[rows]) for rows in (split.train, split.test))
        training = known, labels[split.train], owners[split.train]
        predict = fit(*training)
        given = _checked(predict(asked), split.test.size, split.name)
        if fit_correction is not None and split.known.size:
            said = predict(np.ascontiguousarray(matrix[split.known]))
            given = fit_correction(*training, cycles[split.train])(
                Cycles(assets[split.known], cycles[split.known], said, labels[split.known]),
                Cycles(assets[split.test], cycles[split.test], given),
            )
        if fit_bounds is not None:
            make_bounds = fit_bounds(*training)
            bounds[split.name] = make_bounds(asked, given, assets[split.test])
        return {
            "model": given,
            MEAN: mean_baseline(labels, split),
            RIDGE: ridge_baseline(features, labels, split),
            LAST_MEASURED: last_measured_baseline(assets, cycles, labels, split),
        }

    answered = _in_threads(answers, splits, workers, progress)
    tested = np.concatenate([split.test for split in splits])
    pooled = {name: np.concatenate([one[name] for one in answered]) for name in answered[0]}
    known = np.isfinite(pooled[LAST_MEASURED])
    coverage = {MEAN: 1.0, RIDGE: 1.0, LAST_MEASURED: float(known.mean())}
    if known.any():
        pooled[LAST_MEASURED] = np.where(known, pooled[LAST_MEASURED], pooled[MEAN])
    else:  # the protocol provides no earlier measurement
        del pooled[LAST_MEASURED], coverage[LAST_MEASURED]

    judged = {
        name: Predictions(assets[tested], labels[tested], values, nominal[tested])
        for name, values in pooled.items()
    }
    model = judged.pop("model")
    made = _joined([bounds[split.name] for split in splits]) if bounds else None
    covered = measure_coverage(model.asset_id, model.actual_ah, made) if made else None
    by_asset = per_asset(model)
    folds = tuple(Fold(split.name, split.train.size, split.test.size) for split in splits)
    return ProtocolResult(
        protocol=protocol,
        n_train=round(float(np.mean([fold.n_train for fold in folds]))),
        n_test=tested.size,
        n_unlabelled=table.height - labelled.height,
        folds=folds,
        metrics=score(model),
        intervals=intervals(
            model,
            resamples=settings.bootstrap_resamples,
            confidence=settings.confidence,
            rng=np.random.default_rng(seed),
        ),
        baselines={name: score(found) for name, found in judged.items()},
        baseline_coverage=coverage,
        per_asset=by_asset.join(covered.per_asset, on="asset_id") if covered else by_asset,
        predictions=labelled[tested].select(
            "asset_id",
            "op_index",
            LABEL,
            predicted_ah=pl.Series(model.predicted_ah),
            nominal_ah=pl.Series(model.nominal_ah),
            fold=pl.Series([fold.name for fold in folds for _ in range(fold.n_test)]),
            **_columns(made),
        ),
        coverage=covered,
    )


def _joined(bounds: Sequence[Bounds]) -> Bounds:
    return Bounds(
        np.concatenate([one.low_ah for one in bounds]),
        np.concatenate([one.high_ah for one in bounds]),
        np.concatenate([one.inside for one in bounds]),
    )


def _columns(bounds: Bounds | None) -> dict[str, pl.Series]:
    if bounds is None:
        return {}
    return {
        "capacity_low_ah": pl.Series(bounds.low_ah),
        "capacity_high_ah": pl.Series(bounds.high_ah),
        "in_domain": pl.Series(bounds.inside),
    }


def _in_threads(
    answers: Callable[[Split], dict[str, Floats]],
    splits: Sequence[Split],
    workers: int,
    progress: Progress | None,
) -> list[dict[str, Floats]]:
    """What `answers` gives for each split, in their order."""
    tell = progress or (lambda done, total: None)  # noqa: ARG005 - nobody listens
    tell(0, len(splits))
    gathered = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for one in pool.map(answers, splits):
                gathered.append(one)
                tell(len(gathered), len(splits))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return gathered


def _labelled(
    table: pl.DataFrame, nominal_ah: float | Mapping[str, float] | ArrayLike
) -> tuple[pl.DataFrame, Floats]:
    """Rows that have a label, and their nominal capacities."""
    if LABEL not in table.columns or not table.schema[LABEL].is_numeric():
        raise DataError(
            f"the feature table needs a numeric column {LABEL}, the label; "
            f"given {', '.join(f'{name} {dtype}' for name, dtype in table.schema.items())}"
        )
    rows = table.with_row_index("__row").filter(pl.col(LABEL).is_not_null())
    labelled = rows.drop("__row").with_columns(pl.col(LABEL).cast(pl.Float64))
    if bad := labelled.filter(~pl.col(LABEL).is_finite()).height:
        raise DataError(
            f"column {LABEL}: {bad} of {labelled.height} labels are NaN or infinite; expected "
            "Ah, and null where no capacity was measured"
        )
    check_key(labelled)
    if isinstance(nominal_ah, Mapping) or np.ndim(nominal_ah) == 0:
        return labelled, nominal_per_row(labelled["asset_id"], nominal_ah)
    every = nominal_per_row(table["asset_id"], nominal_ah)
    return labelled, every[rows["__row"].to_numpy()]


def _features(table: pl.DataFrame, names: Sequence[str]) -> Floats:
    """Matrix (n, k) of float64, NaN where missing."""
    if not names:
        raise DataError("no feature is named; expected at least one column to learn from")
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"the feature table lacks {', '.join(missing)}; given {', '.join(table.columns)}"
        )
    wrong = [f"{name} {table.schema[name]}" for name in names if not _is_number(table, name)]
    if wrong:
        raise DataError(f"features must be numbers; given {', '.join(wrong)}")
    columns = [table[name].cast(pl.Float64).to_numpy() for name in names]
    for name, values in zip(names, columns, strict=True):
        if bad := int(np.count_nonzero(np.abs(values) > _LARGEST)):
            raise DataError(
                f"column {name}: {bad} of {values.size} values are infinite or beyond "
                "single precision; expected numbers, and null where not computable"
            )
    return np.column_stack(columns)


def _is_number(table: pl.DataFrame, name: str) -> bool:
    dtype = table.schema[name]
    return dtype.is_numeric() or dtype == pl.Null  # Null: nowhere computable


def _checked(given: object, expected: int, fold: str) -> Floats:
    values = np.asarray(given, dtype=np.float64)
    if values.shape != (expected,):
        raise DataError(
            f"fold {fold}: the model answered with shape {values.shape}; "
            f"expected one capacity for each of {expected} rows"
        )
    if bad := int(np.count_nonzero(~np.isfinite(values))):
        raise DataError(f"fold {fold}: {bad} of {expected} predictions are NaN or infinite")
    return values

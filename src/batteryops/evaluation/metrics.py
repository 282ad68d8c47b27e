"""How good predictions are: metrics with units, per asset, with bootstrap intervals over assets.

All metrics are functions of a few sums per asset, so that the same formulas serve for one asset,
for all of them, and for every bootstrap resample at once.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, UnknownAssetError

Floats = NDArray[np.float64]

MAPE_FLOOR: Final = 0.05
"""Labels below this share of nominal capacity stay out of MAPE, which is undefined at zero."""

CONSTANT: Final = 1e-6
"""Labels that vary by less than this share of the largest are constant: R2 is undefined."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions beside what was measured; all of one length, at least 1.

    Args:
        asset_id: whose cycle it was.
        actual_ah: measured capacity, Ah.
        predicted_ah: predicted capacity, Ah.
        nominal_ah: nominal capacity of the asset, Ah, above 0.

    Raises:
        DataError: when lengths differ, nothing is given, or a number is not finite.
    """

    asset_id: NDArray[np.object_]
    actual_ah: Floats
    predicted_ah: Floats
    nominal_ah: Floats

    def __post_init__(self) -> None:
        """Hold the arrays to their contract."""
        columns = {
            "actual_ah": self.actual_ah,
            "predicted_ah": self.predicted_ah,
            "nominal_ah": self.nominal_ah,
        }
        for name, values in columns.items():
            if values.shape != (len(self.asset_id),):
                raise DataError(
                    f"{name} has shape {values.shape}; expected one value for each of "
                    f"{len(self.asset_id)} cycles"
                )
            if bad := int(np.count_nonzero(~np.isfinite(values))):
                raise DataError(f"{name}: {bad} of {values.size} values are not finite numbers")
        if not len(self.asset_id):
            raise DataError("no predictions to judge; expected at least one")
        if self.nominal_ah.min() <= 0:
            raise DataError(f"nominal capacity {self.nominal_ah.min():g} Ah; expected above 0")

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Predictions":
        """Those of some rows."""
        return Predictions(
            self.asset_id[rows],
            self.actual_ah[rows],
            self.predicted_ah[rows],
            self.nominal_ah[rows],
        )


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval; both ends NaN where the data cannot give one."""

    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """`low` and `high`; null where undefined."""
        return {"low": _number(self.low), "high": _number(self.high)}


@dataclass(frozen=True, slots=True)
class Metrics:
    """How far predictions are from measured capacities, over all cycles alike.

    Args:
        mae_ah: mean absolute error, Ah.
        mae_soh_points: mean absolute error of SoH in percentage points, 100 |error| / nominal.
        rmse_ah: root mean square error, Ah.
        r2: 1 - SSE / SST, at most 1; NaN when the labels are constant.
        mape_pct: mean of 100 |error| / label, over the `mape_n` cycles whose label is at least 5
            percent of nominal; NaN when there are none. Crashed runs have labels of zero.
        mape_n: cycles that entered MAPE.
        bias_ah: mean of predicted - measured, Ah; positive = too optimistic.
        worst_asset: the asset with the largest MAE.
        worst_asset_mae_ah: its MAE, Ah.
        n: cycles.
        n_assets: assets.
    """

    mae_ah: float
    mae_soh_points: float
    rmse_ah: float
    r2: float
    mape_pct: float
    mape_n: int
    bias_ah: float
    worst_asset: str
    worst_asset_mae_ah: float
    n: int
    n_assets: int

    @property
    def soh_error_pct(self) -> float:
        """The source system's name for `mae_soh_points`.

        It publishes its MAE also as a percentage of nominal capacity. The error is relative to
        nominal capacity and not to the asset's own SoH; that would be MAPE.
        """
        return self.mae_soh_points

    def facts(self) -> dict[str, float]:
        """Every number by its name, as gates look them up."""
        return {
            "mae_ah": self.mae_ah,
            "mae_soh_points": self.mae_soh_points,
            "soh_error_pct": self.soh_error_pct,
            "rmse_ah": self.rmse_ah,
            "r2": self.r2,
            "mape_pct": self.mape_pct,
            "bias_ah": self.bias_ah,
            "worst_asset_mae_ah": self.worst_asset_mae_ah,
        }

    def to_json(self) -> dict[str, float | int | str | None]:
        """All metrics by name; null where undefined."""
        return {
            **{name: _number(value) for name, value in self.facts().items()},
            "mape_n": self.mape_n,
            "worst_asset": self.worst_asset,
            "n": self.n,
            "n_assets": self.n_assets,
        }


def score(predictions: Predictions) -> Metrics:
    """Judge predictions; each cycle weighs the same.

    Examples:
        >>> found = score(Predictions(
        ...     asset_id=np.array(["B0005", "B0005", "B0018"], dtype=object),
        ...     actual_ah=np.array([1.8, 1.6, 1.4]),
        ...     predicted_ah=np.array([1.8, 1.7, 1.6]),
        ...     nominal_ah=np.array([2.0, 2.0, 2.0]),
        ... ))
        >>> round(found.mae_ah, 6), round(found.mae_soh_points, 6), found.worst_asset
        (0.1, 5.0, 'B0018')
    """
    sums = _Sums.of(predictions)
    overall = sums.metrics(sums.table.sum(axis=0, keepdims=True))
    mae = sums.metrics(sums.table)["mae_ah"]
    worst = int(np.argmax(mae))  # of equals, the first by name
    return Metrics(
        **{name: float(values[0]) for name, values in overall.items()},
        mape_n=int(sums.table[:, _MAPE_N].sum()),
        worst_asset=sums.assets[worst],
        worst_asset_mae_ah=float(mae[worst]),
        n=len(predictions.asset_id),
        n_assets=len(sums.assets),
    )


def per_asset(predictions: Predictions) -> pl.DataFrame:
    """One row per asset, sorted: `asset_id`, `n`, and its metrics (null where undefined)."""
    sums = _Sums.of(predictions)
    return pl.DataFrame(
        {"asset_id": sums.assets, "n": sums.table[:, _N].astype(np.int64)}
        | sums.metrics(sums.table),
        schema_overrides={"asset_id": pl.String},
        nan_to_null=True,
    )


def intervals(
    predictions: Predictions,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, Interval]:
    """Percentile bootstrap over assets.

    Cycles of one asset resemble each other, so whole assets are drawn with replacement, as many
    as there are, and the metrics computed anew on their cycles (the cluster bootstrap: Davison
    and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8; percentile limits:
    section 5.3). With few assets such intervals are too narrow; with one asset nothing is known
    about others, and both ends are NaN. `worst_asset_mae_ah` cannot exceed the worst asset seen.

    Args:
        predictions: what to judge.
        resamples: how many times assets are drawn.
        confidence: share of resamples inside, such as 0.95.
        rng: where randomness comes from; advanced by this call.

    Returns:
        An interval for each of `mae_ah`, `mae_soh_points`, `rmse_ah`, `r2`, `mape_pct`, `bias_ah`
        and `worst_asset_mae_ah`.
    """
    sums = _Sums.of(predictions)
    n_assets = len(sums.assets)
    times = times_drawn(n_assets, resamples, rng)
    drawn = sums.metrics(times @ sums.table)
    mae = sums.metrics(sums.table)["mae_ah"]
    drawn["worst_asset_mae_ah"] = np.where(times > 0, mae, -math.inf).max(axis=1)
    if n_assets == 1:
        return dict.fromkeys(drawn, Interval(math.nan, math.nan))
    return {name: percentiles(values, confidence) for name, values in drawn.items()}


def times_drawn(n_assets: int, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each asset is drawn, (resamples, assets): as many draws as there are assets.

    Times a table of sums per asset (assets, k) it gives the sums of each resample (resamples, k).

    Examples:
        >>> times_drawn(3, 2, np.random.default_rng(0)).sum(axis=1)
        array([3., 3.])
    """
    draws = rng.integers(0, n_assets, size=(resamples, n_assets))
    cells = draws + n_assets * np.arange(resamples)[:, None]
    times = np.bincount(cells.ravel(), minlength=resamples * n_assets)
    return times.reshape(resamples, n_assets).astype(np.float64)


def nominal_per_row(
    asset_ids: pl.Series, nominal_ah: float | Mapping[str, float] | ArrayLike
) -> Floats:
    """Nominal capacity (Ah) for each row.

    Args:
        asset_ids: whose row it is, n of them.
        nominal_ah: one number for all, one per asset, or n numbers.

    Raises:
        UnknownAssetError: when an asset is not in the mapping.
        DataError: when the number of values is not n.
    """
    if isinstance(nominal_ah, Mapping):
        unknown = sorted(set(asset_ids) - set(nominal_ah))
        if unknown:
            raise UnknownAssetError(
                f"no nominal capacity for {', '.join(unknown)}, so SoH cannot be stated; "
                f"given for {', '.join(sorted(nominal_ah)) or 'none'}"
            )
        return np.array([nominal_ah[asset] for asset in asset_ids], dtype=np.float64)
    values = np.asarray(nominal_ah, dtype=np.float64)
    if values.shape not in {(), (1,), (len(asset_ids),)}:
        raise DataError(
            f"nominal capacity of shape {values.shape}; expected one, or one for each of "
            f"{len(asset_ids)} rows"
        )
    return np.broadcast_to(values, (len(asset_ids),)).copy()


# columns of the table of sums
_N, _ABS, _SQUARE, _ERROR, _SOH, _Y, _YY, _APE, _MAPE_N = range(9)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sums over each asset's cycles, from which all metrics follow."""

    assets: list[str]
    table: Floats  # (assets, 9)
    scale: float  # largest absolute label

    @classmethod
    def of(cls, given: Predictions) -> "_Sums":
        assets, codes = np.unique(given.asset_id.astype(str), return_inverse=True)
        error = given.predicted_ah - given.actual_ah
        absolute = np.abs(error)
        centred = given.actual_ah - given.actual_ah.mean()  # keeps SST from cancelling
        in_mape = (given.actual_ah >= MAPE_FLOOR * given.nominal_ah).astype(np.float64)
        label = np.where(in_mape > 0, given.actual_ah, 1.0)
        terms = (
            np.ones_like(error),
            absolute,
            error**2,
            error,
            absolute / given.nominal_ah,
            centred,
            centred**2,
            in_mape * absolute / label,
            in_mape,
        )
        sums = [np.bincount(codes, weights=term, minlength=assets.size) for term in terms]
        return cls(assets.tolist(), np.column_stack(sums), float(np.abs(given.actual_ah).max()))

    def metrics(self, table: Floats) -> dict[str, Floats]:
        """Metrics of each row of sums, shape (rows, 9)."""
        n = table[:, _N]
        total = table[:, _YY] - table[:, _Y] ** 2 / n
        varies = total > n * (CONSTANT * self.scale) ** 2
        in_mape = table[:, _MAPE_N]
        return {
            "mae_ah": table[:, _ABS] / n,
            "mae_soh_points": 100.0 * table[:, _SOH] / n,
            "rmse_ah": np.sqrt(table[:, _SQUARE] / n),
            "r2": 1.0 - _ratio(table[:, _SQUARE], total, varies),
            "mape_pct": 100.0 * _ratio(table[:, _APE], in_mape, in_mape > 0),
            "bias_ah": table[:, _ERROR] / n,
        }


def _ratio(above: Floats, below: Floats, defined: NDArray[np.bool_]) -> Floats:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=defined)


def percentiles(values: Floats, confidence: float) -> Interval:
    """The interval that holds a share of resampled values; both ends NaN where most are."""
    finite = values[np.isfinite(values)]
    if 2 * finite.size < values.size:  # mostly undefined, so the rest would mislead
        return Interval(math.nan, math.nan)
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(finite, [tail, 100.0 - tail])
    return Interval(float(low), float(high))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

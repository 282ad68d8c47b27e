"""How far answers are probably off while no label has come: an estimate, and always called one.

What a model says of itself is the wrong witness, and so is drift, which says that inputs are new
and not what that costs. What is known is how wrong answers about unseen batteries were, when whole
groups of batteries were held out of training: from that,

    expected |error| / nominal capacity  =  g(distance) * b(band of the predicted SoH)

* **g**, of the distance to training (`models.domain`), is isotonic: further away is not better. It
  is fitted to means in bins of distance, in which each group weighs the same (pool adjacent
  violators: Barlow, Bartholomew, Bremner and Brunk, Statistical Inference under Order Restrictions,
  1972). Constant, linear, in proportion to the interval's width, a power and quartiles were tried
  on the data below too; none was as near on all three views.
* **b**, of the band, is the ratio of errors seen to errors expected in it, drawn towards 1 as if
  `SHRINKAGE` more groups had been as expected.
* **Calibrated**: each group's error is estimated from the other groups alone, and the whole scaled
  such that the estimates of held-out groups and their true errors have one mean.
* **Bounds**: the ratios of true to estimated error of the groups held out are ranked, and those of
  ranks a (K + 1) and (1 - a)(K + 1) bound the ratio of one more group as conformal prediction does
  (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005). The whole fleet counts
  as *one* unseen group: its vehicles share climate, chemistry and use, so that many vehicles do not
  make the bounds narrower. With fewer than nine groups there are none.

Measured on NASA's cells: 27 of them, in 10 groups of one schedule each. For each group, the model,
the distances and the estimator are fitted without it. Mean absolute error of the held-out cells in
Ah, true and estimated; by how much the estimate of a cell is off typically (median), in brackets
what saying the mean of the other groups would be off by; of how many cells the true error is within
twice and half the estimate; the correlation of ranks; how many groups the bounds hold, which are
made for 8 of 10:

    view, model                          true    estimated   off by        half to twice  rank  held
    discharge_physics, battery process   0.0155  0.0161      1.50 (2.14)   23 (11) of 27  0.73  8
    partial_window, battery process      0.1551  0.1475      1.68 (2.24)   18 (13) of 27  0.77  9
    discharge_summary, XGBoost           0.2358  0.2268      1.65 (1.71)   19 (16) of 27  0.53  8

The mean over many different batteries is right to a tenth; the estimate of a single one is off by
half to two thirds, and at worst sixfold, where one is answered well though it is far from training.

It sees what is unlike training. What is not in the features, such as a label's own bias, or a
change of the cells that no feature shows, it cannot see.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from batteryops.errors import DataError, PackageError
from batteryops.models.held_out import Floats, fold_numbers, group_codes, group_weights
from batteryops.models.intervals import Intervals

ERROR_ESTIMATE: Final = "error_estimate"
"""Name of the document in a model package."""

NOMINAL: Final = 0.8
"""Share of unseen groups whose true error the bounds are made to hold."""

SOH_BANDS: Final = (0.7, 0.8, 0.9)
"""Where predicted SoH is divided."""

SHRINKAGE: Final = 5.0
"""Groups that a band's ratio is drawn towards 1 by."""

METHOD: Final = (
    "estimated without labels, from the errors of batteries held out of training at like distance "
    "and SoH"
)

_BINS: Final = 32  # of distance
_FOLDS: Final = 50  # groups are left out one by one, or in so many folds
_NUMBERS: Final = ("distances", "shares", "bands", "factors", "ratios")


@dataclass(frozen=True, slots=True, eq=False)
class ErrorEstimator:
    """What errors are to be expected; `fit_error_estimator` yields it.

    Args:
        distances: (m,), rising.
        shares: (m,), expected |error| / nominal capacity at these distances, not falling; between
            them on a line, beyond them as at the ends.
        bands: where predicted SoH is divided, rising.
        factors: one more than bands: what the expectation is multiplied by.
        ratios: of true to estimated error, of each group held out, rising; empty before they are
            known.
        n_rows: rows that were held out.
    """

    distances: Floats
    shares: Floats
    bands: Floats
    factors: Floats
    ratios: Floats
    n_rows: int

    def expected_share(self, distances: ArrayLike, predicted_soh: ArrayLike) -> Floats:
        """Expected |error| as a share of nominal capacity, (n,); NaN where a distance is."""
        along = np.interp(np.asarray(distances, dtype=np.float64), self.distances, self.shares)
        band = np.searchsorted(self.bands, np.asarray(predicted_soh, np.float64), side="right")
        expected: Floats = along * self.factors[band]
        return expected

    def bounds(self, nominal: float = NOMINAL) -> tuple[float, float] | None:
        """Ratios of true to estimated error that hold an unseen group's; None of too few groups.

        Examples:
            >>> ten = np.linspace(0.5, 1.4, 10)
            >>> one, two = np.ones(1), np.ones(2)
            >>> ErrorEstimator(one, one, one, two, ten, 100).bounds()
            (0.5, 1.4)
            >>> ErrorEstimator(one, one, one, two, ten[:8], 100).bounds() is None
            True
        """
        rank = math.floor((self.ratios.size + 1) * (1.0 - nominal) / 2.0 + 1e-9)
        if rank < 1:
            return None
        return float(self.ratios[rank - 1]), float(self.ratios[-rank])

    def to_json(self) -> dict[str, Any]:
        """As a package holds it, numbers to seven digits."""
        numbers = {
            name: [float(f"{value:.7g}") for value in getattr(self, name)] for name in _NUMBERS
        }
        return {"method": METHOD, **numbers, "n_rows": self.n_rows}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            PackageError: when it is something else.
        """
        try:
            numbers = {name: np.array(document[name], dtype=np.float64) for name in _NUMBERS}
            read = cls(**numbers, n_rows=int(document["n_rows"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PackageError(
                f"the estimate of errors cannot be read ({error!r}); train again"
            ) from error
        sound = (
            all(one.ndim == 1 and np.isfinite(one).all() for one in numbers.values())
            and read.distances.size == read.shares.size > 0
            and read.factors.size == read.bands.size + 1
            and (np.diff(read.distances) > 0).all()
            and all((numbers[name] >= 0).all() for name in ("shares", "factors", "ratios"))
        )
        if not sound:
            raise PackageError("the estimate of errors makes no sense; train again")
        return read


def fit_error_estimator(
    residuals_ah: ArrayLike,
    predicted_ah: ArrayLike,
    nominal_ah: ArrayLike,
    distances: ArrayLike,
    groups: ArrayLike,
) -> ErrorEstimator | None:
    """Learn from groups held out which errors are to be expected.

    Args:
        residuals_ah: (n,), measured minus predicted by a model that did not see the row's group.
        predicted_ah: (n,), what that model predicted.
        nominal_ah: (n,), nominal capacities, or one for all.
        distances: (n,), to training without the row's group, from `domain_fit.held_out_distances`.
        groups: (n,), whose row it is: assets that were aged together are one.

    Returns:
        None with one group, whose errors no model can be asked for.

    Raises:
        DataError: when shapes disagree, or a number is missing though there are groups.
    """
    residuals = np.asarray(residuals_ah, dtype=np.float64)
    codes = group_codes(groups, residuals.size)
    if codes.max() == 0:
        return None
    away = np.asarray(distances, dtype=np.float64)
    nominal = np.broadcast_to(np.asarray(nominal_ah, dtype=np.float64), residuals.shape)
    predicted = np.asarray(predicted_ah, dtype=np.float64)
    if not residuals.shape == away.shape == predicted.shape:
        raise DataError(
            f"{residuals.shape} residuals, {predicted.shape} predictions and {away.shape} "
            "distances; expected one of each per row"
        )
    soh, errors = predicted / nominal, np.abs(residuals) / nominal
    if not (np.isfinite(errors) & np.isfinite(soh) & np.isfinite(away)).all():
        raise DataError("a residual, prediction or distance is not a finite number")
    folds = fold_numbers(codes, _FOLDS)
    weights = group_weights(codes)
    held_out = np.empty_like(errors)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        others = _fit(errors[~out], soh[~out], away[~out], codes[~out])
        held_out[out] = others.expected_share(away[out], soh[out])
    true, estimated = (np.bincount(codes, weights * of) for of in (errors, held_out))
    scale = true.sum() / estimated.sum() if estimated.sum() > 0 else 1.0
    ratios = np.divide(true, scale * estimated, out=np.ones_like(true), where=scale * estimated > 0)
    fitted = _fit(errors, soh, away, codes)
    return replace(fitted, shares=scale * fitted.shares, ratios=np.sort(ratios))


def distances_from_widths(predictions: pl.DataFrame, intervals: Intervals) -> Floats:
    """Distance to training of logged answers, (n,), which the widths of their intervals tell.

    An interval that was cut off at one end of the asset's range is read at its other end; cut off
    at both, it gives the least distance that it can be. NaN where it tells nothing: out of the
    domain, corrected by the asset's own baseline, without an interval, or of a package whose
    intervals are unbounded.

    Args:
        predictions: rows as `PredictionLog.frames` yields them.
        intervals: of the package that answered them.
    """
    columns = ("capacity_ah", "capacity_low_ah", "capacity_high_ah")
    predicted, low, high = (
        predictions[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in columns
    )
    telling = (predictions["status"] != "out_of_domain") & predictions["baseline"].is_null()
    if not (math.isfinite(intervals.score_ah) and intervals.score_ah > 0):
        return np.full(predictions.height, math.nan)
    half = np.maximum(predicted - low, high - predicted)
    distances = np.maximum(half / intervals.score_ah - 1.0, 0.0) * intervals.mean_distance
    return np.where(telling.to_numpy(), distances, math.nan)


@dataclass(frozen=True, slots=True)
class ErrorEstimate:
    """How far answers are probably off; an estimate, not a measurement.

    Args:
        mae_ah: estimated mean absolute error, Ah.
        low_ah: lower bound of it, Ah; NaN where too few groups were held out.
        high_ah: upper bound, likewise.
        n: answers that it is about.
        covered_share: share they are of all answers that were asked about; nothing is known of the
            error of the others, such as those out of the training domain.
    """

    mae_ah: float
    low_ah: float
    high_ah: float
    n: int
    covered_share: float

    def to_json(self) -> dict[str, float | int | str | bool]:
        """As a monitoring run holds it; bounds are left out where there are none."""
        bounds = {} if math.isnan(self.low_ah) else {"low": self.low_ah, "high": self.high_ah}
        return {
            "estimate": True,
            "method": METHOD,
            "mae_ah": self.mae_ah,
            **bounds,
            "n": self.n,
            "covered_share": self.covered_share,
        }


@dataclass(frozen=True, slots=True)
class EstimateSums:
    """Expected errors summed over answers of one package; sums add.

    Args:
        total_ah: sum of the expected absolute errors, Ah.
        n: answers with an expectation.
        asked: answers at all.
    """

    total_ah: float = 0.0
    n: int = 0
    asked: int = 0

    @classmethod
    def of(
        cls, estimator: ErrorEstimator, predictions: pl.DataFrame, distances: NDArray[np.float64]
    ) -> Self:
        """The sums of a chunk of the log.

        Args:
            estimator: of the package that answered.
            predictions: rows as `PredictionLog.frames` yields them, all answered by that package;
                the caller chooses which (the champion's that went out, say).
            distances: (n,), of these rows; NaN where not known.

        Raises:
            DataError: when there is not one distance per row.
        """
        if distances.shape != (predictions.height,):
            raise DataError(
                f"distances have shape {distances.shape}; expected one for each of "
                f"{predictions.height} predictions"
            )
        capacity, soh = (
            predictions[name].cast(pl.Float64).fill_null(math.nan).to_numpy()
            for name in ("capacity_ah", "soh")
        )
        nominal = np.divide(capacity, soh, out=np.full_like(soh, math.nan), where=soh > 0)
        expected = estimator.expected_share(distances, soh) * nominal
        known = np.isfinite(expected)
        return cls(float(expected[known].sum()), int(known.sum()), predictions.height)

    def __add__(self, other: "EstimateSums") -> "EstimateSums":
        """The sums of both."""
        return EstimateSums(
            self.total_ah + other.total_ah, self.n + other.n, self.asked + other.asked
        )

    def estimate(self, estimator: ErrorEstimator) -> ErrorEstimate | None:
        """The estimate; None where no answer has an expectation."""
        if not self.n:
            return None
        mae = self.total_ah / self.n
        low, high = estimator.bounds() or (math.nan, math.nan)
        return ErrorEstimate(mae, low * mae, high * mae, self.n, self.n / self.asked)


def _fit(errors: Floats, soh: Floats, away: Floats, codes: NDArray[np.intp]) -> ErrorEstimator:
    """Fit distance, then bands; each group weighs the same."""
    present = np.unique(codes, return_inverse=True)[1]
    weights = group_weights(present)
    edges = np.unique(np.quantile(away, np.linspace(0.0, 1.0, _BINS + 1))[1:-1])
    place = np.searchsorted(edges, away)
    within = np.bincount(place, weights, edges.size + 1)
    filled = within > 0
    means = [
        (np.bincount(place, weights * of, edges.size + 1)[filled]) / within[filled]
        for of in (away, errors)
    ]
    distances, first = np.unique(means[0], return_index=True)
    shares = np.asarray(isotonic_regression(means[1][first], weights=within[filled][first]).x)
    bands = np.array(SOH_BANDS)
    expected = np.interp(away, distances, shares)
    band = np.searchsorted(bands, soh, side="right")
    n_groups = int(present.max()) + 1
    seen, due = (np.bincount(band, weights * of, bands.size + 1) for of in (errors, expected))
    ordinary = SHRINKAGE / n_groups * float(weights @ errors)
    factors = np.divide(
        seen + ordinary, due + ordinary, out=np.ones_like(due), where=due + ordinary > 0
    )
    return ErrorEstimator(distances, shares, bands, factors, np.empty(0), errors.size)

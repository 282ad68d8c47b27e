"""Prediction intervals for batteries never seen: conformal, calibrated on whole groups held out.

Each training row is predicted by a model that saw no row of its group. How far these predictions
were off, |y - f(x)| / s(x), is ranked, and the interval of a new row is f(x) -+ q s(x):

* **Groups, not rows.** Cycles of one battery resemble each other, so the distribution of scores is
  the mean of the groups' own distributions (pooling CDFs: Dunn, Wasserman and Ramdas,
  Distribution-free prediction sets for two-layer hierarchical models, JASA 2023, section 3).
* **The level is calibrated too.** Pooling is right only as groups become many. So the quantile is
  not taken at 90 percent but at the least level at which intervals made from all other groups cover
  90 percent of a left-out group, on average over groups (prepivoting: Beran, Biometrika 74, 1987).
  The group that is asked about counts as one more, of unbounded scores, as in conformal ranks.
  Where each group is covered wholly or not at all, that gives the ceil(0.9 (K + 1))-th of K groups;
  where groups are alike, the 90 percent quantile of all rows.
* **Out-of-group residuals** come from cross-fitting in folds of whole groups, centred on the model
  that is fitted on all (the jackknife, in folds and over groups: Barber, Candes, Ramdas and
  Tibshirani, Predictive inference with the jackknife+, Annals of Statistics 49, 2021, section 1;
  jackknife+ itself would have to answer with all the folds' models). The fold models saw fewer
  batteries and are a little worse, so intervals are a little too wide rather than too narrow.
  A fit that `HoldsOut` says by algebra what it would answer without each group.
* **Width adapts** (normalised scores: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman,
  Distribution-free predictive inference for regression, JASA 2018, section 5.2):
  s(x) = 1 + d(x) / mean d, with d the distance to the nearest training row from `models.domain`.
  Nothing in it is fitted, and the distance is known already when a row is looked at.

With too few groups to cover a left-out one, the width is unbounded: nothing is known about others.
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError
from batteryops.evaluation.owners import Owners
from batteryops.models.held_out import (
    Floats,
    fold_numbers,
    group_codes,
    group_weights,
    place_of_share,
    weighted_quantile,
)
from batteryops.models.offers import Fit, HoldsOut

NOMINAL: Final = 0.9
"""Share of unseen batteries' measured capacities that intervals are made to hold."""

_LEFT_OUT_FOLDS: Final = 50  # more groups than that are left out several at a time
_LEVEL_STEPS: Final = 16  # of bisection: the level is found to 1 / 2^16
_ROUNDING: Final = 1e-9  # 0.1 added nine times is not 0.9


@dataclass(frozen=True, slots=True)
class Intervals:
    """How wide intervals are; `calibrate` yields it.

    Args:
        nominal: share of measured capacities that they are made to hold.
        score_ah: half the width at distance zero, Ah; inf where groups are too few to know.
        mean_distance: distance of an ordinary row of a group held out, above 0.
        level: share of pooled scores at or below `score_ah`; 1 where that is unbounded.
        n_groups: groups that were held out.
        n_rows: rows of them.
    """

    nominal: float
    score_ah: float
    mean_distance: float
    level: float
    n_groups: int
    n_rows: int

    def half_width_ah(self, distance: float) -> float:
        """Half the width in Ah for a row at that distance from training.

        Examples:
            >>> Intervals(0.9, 0.02, 0.5, 0.92, 25, 1694).half_width_ah(0.25)
            0.03
        """
        return self.score_ah * (1.0 + distance / self.mean_distance)

    def around(
        self,
        capacity_ah: float,
        distance: float,
        range_ah: tuple[float, float],
        at_most_ah: float = math.inf,
    ) -> tuple[float, float]:
        """The interval in Ah around a prediction, inside the range that is possible at all.

        Args:
            capacity_ah: predicted.
            distance: of the row to training, from `Domain.look`.
            range_ah: least and largest capacity that the asset can have.
            at_most_ah: half the width, where more is known than was calibrated, Ah.
        """
        half = min(self.half_width_ah(distance), at_most_ah)
        least, largest = range_ah
        low, high = capacity_ah - half, capacity_ah + half
        return min(max(low, least), largest), max(min(high, largest), least)

    def to_json(self) -> dict[str, float | int | None]:
        """As a package holds it; the score is null where it is unbounded."""
        return asdict(self) | {"score_ah": self.score_ah if math.isfinite(self.score_ah) else None}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            PackageError: when it is something else.
        """
        try:
            score = document["score_ah"]
            read = cls(
                nominal=float(document["nominal"]),
                score_ah=math.inf if score is None else float(score),
                mean_distance=float(document["mean_distance"]),
                level=float(document["level"]),
                n_groups=int(document["n_groups"]),
                n_rows=int(document["n_rows"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PackageError(
                f"the calibrated intervals cannot be read ({error!r}); train again"
            ) from error
        if not (0 < read.nominal < 1 and read.score_ah >= 0 and read.mean_distance > 0):
            raise PackageError(f"the calibrated intervals make no sense: {read}; train again")
        return read


def out_of_group_predictions(  # noqa: PLR0913 - data, and how to hold out
    fit: Fit,
    features: ArrayLike,
    labels: ArrayLike,
    owners: Owners,
    *,
    folds: int,
    workers: int = 1,
) -> Floats:
    """Each row predicted by a model that saw no row of its group, (n,) in Ah.

    With one group, no model can be fitted without it, and all predictions are NaN.

    Args:
        fit: called once per fold, in threads when `workers` says so; or one that `HoldsOut`.
        features: (n, k), NaN where missing.
        labels: (n,), Ah.
        owners: of the n rows; whole groups are held out.
        folds: groups are left out one by one, or in so many folds of about equal size.
        workers: folds fitted at a time.

    Raises:
        DataError: when shapes disagree.
    """
    matrix = np.asarray(features, dtype=np.float32)
    target = np.asarray(labels, dtype=np.float64)
    fold_of = fold_numbers(group_codes(owners.groups, len(matrix)), folds)
    predicted = np.full(len(matrix), math.nan)
    if fold_of.max() == 0:
        return predicted
    if isinstance(fit, HoldsOut):
        return fit.held_out(matrix, target, owners, folds=folds, workers=workers)

    def fill(fold: int) -> None:
        out = fold_of == fold
        predicted[out] = fit(matrix[~out], target[~out], owners[~out])(matrix[out])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(fill, range(int(fold_of.max()) + 1)))
    return predicted


def calibrate(
    residuals_ah: ArrayLike,
    distances: ArrayLike,
    groups: ArrayLike,
    *,
    nominal: float = NOMINAL,
) -> Intervals:
    """Find how wide intervals must be.

    Args:
        residuals_ah: (n,), measured minus predicted by a model that did not see the row's group.
        distances: (n,), to training without the row's group, from `domain_fit.held_out_distances`.
        groups: (n,), whose row it is: assets that were aged together are one.
        nominal: share of measured capacities to hold, between 0 and 1.

    Raises:
        DataError: when shapes disagree, or a residual is missing though there are groups to learn
            it from.

    Examples:
        >>> rng = np.random.default_rng(1)
        >>> groups = np.arange(3000) % 100
        >>> found = calibrate(rng.normal(0, 0.02, 3000), np.zeros(3000), groups)
        >>> round(found.score_ah, 3)  # 1.645 standard deviations of a normal variable
        0.033
        >>> calibrate([0.1, 0.2], [1.0, 1.0], ["B0005", "B0005"]).score_ah
        inf
    """
    residuals = np.asarray(residuals_ah, dtype=np.float64)
    away = np.asarray(distances, dtype=np.float64)
    codes = group_codes(groups, residuals.size)
    if residuals.shape != away.shape or residuals.ndim != 1:
        raise DataError(
            f"residuals have shape {residuals.shape} and distances {away.shape}; "
            "expected one of each per row"
        )
    n_groups = int(codes.max()) + 1
    if n_groups == 1:
        return Intervals(nominal, math.inf, 1.0, 1.0, 1, residuals.size)
    if not (np.isfinite(residuals).all() and np.isfinite(away).all()):
        raise DataError("a residual or a distance is not a finite number; expected one per row")
    weights = group_weights(codes)
    mean_distance = float(weights @ away) or 1.0  # all rows alike: then distance says nothing
    scores = np.abs(residuals) / (1.0 + away / mean_distance)
    level = _level(scores, codes, weights, nominal)
    if level is None:
        return Intervals(nominal, math.inf, mean_distance, 1.0, n_groups, scores.size)
    score = weighted_quantile(scores, weights, level)
    return Intervals(nominal, score, mean_distance, level, n_groups, scores.size)


def _level(
    scores: Floats, codes: NDArray[np.intp], weights: Floats, nominal: float
) -> float | None:
    """Share of pooled scores to take in, that left-out groups are covered; None if none is enough.

    What is searched is a share of all groups and the one that is asked about, whose scores are not
    known: of K groups, (K + 1) / K times that is taken of theirs.
    """
    folds = fold_numbers(codes, _LEFT_OUT_FOLDS)
    n_groups = int(codes.max()) + 1
    others = n_groups - max(np.unique(codes[folds == fold]).size for fold in np.unique(folds))
    most = others / (others + 1)  # above it, some left-out group would have no bound

    left_out = _left_out(scores, codes, folds, weights)

    def coverage(share: float) -> float:
        return sum(one.covered(share) for one in left_out)

    if coverage(most) < nominal - _ROUNDING:
        return None
    least = _boundary(lambda share: coverage(share) >= nominal - _ROUNDING, 0.0, most)
    reached = coverage(least) + _ROUNDING
    # all shares up to where more would be covered say the same of the groups: take the widest
    widest = _boundary(lambda share: coverage(share) > reached, least, most)
    share = widest if coverage(widest) <= reached else widest - most / 2**_LEVEL_STEPS
    return max(least, share) * (n_groups + 1) / n_groups


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where `holds` turns from False to True between two shares; `high` where it never does."""
    for _ in range(_LEVEL_STEPS):
        middle = 0.5 * (low + high)
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True, eq=False)
class _LeftOut:
    """A fold of groups, and all others.

    Args:
        scores: of its rows.
        weights: of its rows.
        others: scores of all other rows, from the least on.
        cumulative: their weights, added up.
        known: groups among the others.
    """

    scores: Floats
    weights: Floats
    others: Floats
    cumulative: Floats
    known: int

    def covered(self, share: float) -> float:
        """Weight of the rows whose score is below the quantile of the others'."""
        level = min(1.0, share * (self.known + 1) / self.known)
        place = place_of_share(self.cumulative, level)
        return float(self.weights @ (self.scores <= self.others[place]))


def _left_out(
    scores: Floats, codes: NDArray[np.intp], folds: NDArray[np.intp], weights: Floats
) -> list[_LeftOut]:
    """Each fold beside the others; all is sorted once."""
    order = np.argsort(scores, kind="stable")
    ranked, weighed, fold_of = scores[order], weights[order], folds[order]
    found = []
    for fold in range(int(folds.max()) + 1):
        out, own = folds == fold, fold_of == fold
        found.append(
            _LeftOut(
                scores[out],
                weights[out],
                ranked[~own],
                np.cumsum(weighed[~own]),
                np.unique(codes[~out]).size,
            )
        )
    return found

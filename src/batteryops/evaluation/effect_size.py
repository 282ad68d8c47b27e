"""How large a difference of two models is, in standard deviations of their errors: Cohen's d."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from batteryops.evaluation.metrics import Floats, Interval

_TWO: Final = 2
_NOWHERE: Final = Interval(np.nan, np.nan)


@dataclass(frozen=True, slots=True)
class EffectSize:
    """Cohen's d: an improvement in standard deviations; positive where the challenger errs less.

    Args:
        d: over the pooled standard deviation of both models' errors: Cohen 1988 (Statistical Power
            Analysis, equation 2.5.1), for pairs Lakens 2013 (Front. Psychol. 4:863, equation 10,
            with variances pooled). It means the same whether answers are paired or split.
        d_bounds: of d.
        dz: over the standard deviation of the paired differences (Lakens' equation 6): how plainly
            an improvement shows. The more the two models agree, the larger. NaN where split.
        dz_bounds: of dz.
        sd: the pooled standard deviation, in the unit of the errors.
    """

    d: float
    d_bounds: Interval
    dz: float
    dz_bounds: Interval
    sd: float

    def to_json(self) -> dict[str, object]:
        """By name; null where undefined."""
        numbers = {"d": self.d, "dz": self.dz, "sd": self.sd}
        bounds = {"d_bounds": self.d_bounds, "dz_bounds": self.dz_bounds}
        return {name: None if np.isnan(value) else value for name, value in numbers.items()} | {
            name: one.to_json() for name, one in bounds.items()
        }


def paired_effect_size(
    vehicle: NDArray[np.int64], champion: Floats, challenger: Floats, confidence: float = 0.95
) -> EffectSize:
    """Cohen's d of pairs, with bounds that let answers of one vehicle agree.

    Bounds come from leaving out each vehicle (the delete-one-group jackknife: Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993, equation 11.5) and Student's t with one degree of
    freedom fewer than vehicles.

    Args:
        vehicle: (n,), numbers of vehicles from 0 on.
        champion: (n,), its errors.
        challenger: (n,), errors on the same answers.
        confidence: that the bounds hold.

    Examples:
        Ratings of two films by ten people (Lakens 2013, table 1).

        >>> first = np.array([9.0, 7, 8, 9, 8, 9, 9, 10, 9, 9])
        >>> second = np.array([9.0, 6, 7, 8, 7, 9, 8, 8, 8, 7])
        >>> found = paired_effect_size(np.arange(10), first, second)
        >>> round(found.d, 2), round(found.dz, 2)
        (1.13, 1.5)
    """
    by_vehicle = _moment_sums(vehicle, champion, challenger, champion - challenger)
    left, totals = _left_out(by_vehicle), by_vehicle.sum(axis=0)
    d, d_bounds = _jackknifed(_paired_d(totals), [_paired_d(left)], confidence)
    dz, dz_bounds = _jackknifed(_dz(totals), [_dz(left)], confidence)
    sd = float(np.sqrt((_variance(totals, 0) + _variance(totals, 1)) / 2))
    return EffectSize(d, d_bounds, dz, dz_bounds, sd)


def split_effect_size(
    champion: tuple[NDArray[np.int64], Floats],
    challenger: tuple[NDArray[np.int64], Floats],
    confidence: float = 0.95,
) -> EffectSize:
    """Cohen's d of two groups of vehicles: the difference of mean errors over the pooled deviation.

    The difference is that of `welch`, of vehicles' means; the deviation is that of answers, pooled
    by their number (Cohen 1988, equation 2.5.2). Bounds as for pairs, by leaving out each vehicle
    of either group.

    Args:
        champion: numbers of vehicles from 0 on (n,), and their answers' errors (n,).
        challenger: likewise (m,).
        confidence: that the bounds hold.
    """
    sums = [_moment_sums(vehicle, errors) for vehicle, errors in (champion, challenger)]
    means = [_vehicle_means(one) for one in sums]
    whole = [one.sum(axis=0) for one in sums]
    average = [float(one.mean()) for one in means]
    lefts = []
    for at in range(_TWO):
        away = _left_out(sums[at])
        g = means[at].size
        others = (means[at].sum() - means[at]) / max(g - 1, 1)
        lefts.append(
            _split_d(away, others, whole[1], average[1])
            if at == 0
            else _split_d(whole[0], average[0], away, others)
        )
    d, bounds = _jackknifed(_split_d(whole[0], average[0], whole[1], average[1]), lefts, confidence)
    return EffectSize(d, bounds, np.nan, _NOWHERE, float(np.sqrt(_pooled(whole[0], whole[1]))))


def _moment_sums(vehicle: NDArray[np.int64], *columns: Floats) -> Floats:
    """(vehicles, 1 + 2 k): answers, then the sum and the sum of squares of each column."""
    present, codes = np.unique(vehicle, return_inverse=True)
    terms = [np.ones(len(vehicle))]
    for column in columns:
        terms += [column, column**2]
    return np.column_stack(
        [np.bincount(codes, weights=term, minlength=present.size) for term in terms]
    )


def _left_out(by_vehicle: Floats) -> Floats:
    left: Floats = by_vehicle.sum(axis=0) - by_vehicle
    return left


def _mean(sums: Floats, column: int) -> Floats:
    return np.asarray(sums[..., 1 + 2 * column] / np.maximum(sums[..., 0], 1))


def _variance(sums: Floats, column: int) -> Floats:
    """Of answers, unbiased."""
    n = sums[..., 0]
    about = sums[..., 2 + 2 * column] - n * _mean(sums, column) ** 2
    return np.where(n >= _TWO, np.maximum(about, 0.0) / np.maximum(n - 1, 1), np.nan)


def _vehicle_means(by_vehicle: Floats) -> Floats:
    return np.asarray(by_vehicle[:, 1] / by_vehicle[:, 0])


def _paired_d(sums: Floats) -> Floats:
    return _over(_mean(sums, 2), (_variance(sums, 0) + _variance(sums, 1)) / 2)


def _dz(sums: Floats) -> Floats:
    return _over(_mean(sums, 2), _variance(sums, 2))


def _pooled(champion: Floats, challenger: Floats) -> Floats:
    first, second = champion[..., 0] - 1, challenger[..., 0] - 1
    both = _variance(champion, 0) * first + _variance(challenger, 0) * second
    return np.asarray(both / np.maximum(first + second, 1))


def _split_d(
    champion: Floats, champion_mean: ArrayLike, challenger: Floats, challenger_mean: ArrayLike
) -> Floats:
    off = np.asarray(champion_mean, dtype=np.float64) - np.asarray(challenger_mean)
    return _over(off, _pooled(champion, challenger))


def _over(mean: Floats, variance: Floats) -> Floats:
    """A mean in standard deviations; 0 of 0 is 0."""
    nothing = np.where(mean == 0.0, 0.0, np.nan)
    sd = np.sqrt(variance)
    return np.asarray(np.divide(mean, sd, out=nothing, where=sd > 0.0))


def _jackknifed(value: Floats, left_out: list[Floats], confidence: float) -> tuple[float, Interval]:
    """A number, and its bounds from the values without each vehicle of each group."""
    groups = [values.size for values in left_out]
    if min(groups) < _TWO:
        return float(value), _NOWHERE
    variance = sum(
        (values.size - 1) / values.size * float(((values - values.mean()) ** 2).sum())
        for values in left_out
    )
    margin = float(stdtrit(sum(groups) - len(groups), 0.5 + confidence / 2)) * np.sqrt(variance)
    return float(value), Interval(float(value - margin), float(value + margin))

"""Bounds that hold at every look at once, so that a trial may be looked at every hour.

A test at level 5 percent that is repeated every hour until it says yes says yes far more often than
that. What follows is valid at all looks together, however many there are and whenever one stops.

Why it may be used on estimates: in the order of time an efficient estimate t with standard error
se has cov(t_s, t_t) = var(t_t) for s <= t (Jennison and Turnbull 1997, J. Am. Stat. Assoc. 92:1330;
Scharfstein, Tsiatis and Robins 1997, same volume, 1342), whatever is lasting in a vehicle. So
t / se^2 moves as a Brownian motion W(v) does with v = 1 / se^2, and a bound that Brownian motion
crosses with probability alpha at any time ever holds for the estimate asymptotically (an asymptotic
confidence sequence: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024, Ann. Stat. 52:2613).

The bound is Robbins' (1970, Ann. Math. Stat. 41:1397), one-sided: exp(x W - x^2 v / 2) is a
martingale with mean 1 for every x; mixed over a half-normal x with scale s it stays one,

    M = 2 / sqrt(1 + r) * exp(z^2 r / (2 (1 + r))) * Phi(z sqrt(r / (1 + r))),  r = s^2 / se^2,

with z = W / sqrt(v) (Howard, Ramdas, McAuliffe and Sekhon 2021, Ann. Stat. 49:1055, Proposition 6),
and by Ville's inequality it ever passes 1 / alpha with probability at most alpha. The scale s is
the effect that matters; any is valid, and the bound is tightest for effects like it.

Few vehicles: the standard error is itself uncertain. A value of Student's t is taken for the normal
value with the same tail, which Pocock (1977, Biometrika 64:191) found to keep the level of repeated
tests with few degrees of freedom.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, log_ndtr, ndtr, ndtri, stdtr

from batteryops.evaluation.ab_statistics import Estimate, t_value
from batteryops.evaluation.metrics import Floats

_FARTHEST: Final = 35.0  # normal deviates beyond have tails that no float holds
_STEPS: Final = 12
_LOG_2: Final = float(np.log(2.0))


def log_evidence(z: ArrayLike, information: ArrayLike) -> Floats:
    """Log M: how much more an improvement explains what was seen than none does.

    Args:
        z: standardised improvement, signed.
        information: r, squared scale of the mixture over the squared standard error, 0 or more.

    Examples:
        The first value is that of the authors' software, `confseq`, in its tests.

        >>> rho = 100 / (2 * np.log(10) + np.log(1 + 2 * np.log(10)))
        >>> round(float(log_evidence(1.0, 100 / rho)), 8), float(log_evidence(3.0, 0.0))
        (-0.06502391, 0.0)
    """
    value, r = np.asarray(z, dtype=np.float64), np.asarray(information, dtype=np.float64)
    share = r / (1.0 + r)
    found: Floats = (
        _LOG_2 - 0.5 * np.log1p(r) + 0.5 * value**2 * share + log_ndtr(value * np.sqrt(share))
    )
    return found


def boundary(information: ArrayLike, level: float = 0.05) -> Floats:
    """The z at which M is 1 / level: ever passed with probability at most `level`.

    By Newton's steps from a bound above (Howard et al. 2021, Proposition 6):
    z^2 <= 2 (1 + r) / r * log(1 + sqrt(1 + r) / (2 level)). Infinite where nothing is known.

    Examples:
        >>> boundary([1.0, 10.0, 100.0, 1e4]).round(3).tolist()
        [3.262, 2.777, 3.052, 3.717]
    """
    given = np.asarray(information, dtype=np.float64)
    known = given > 0.0
    r = np.where(known, given, 1.0)
    share = r / (1.0 + r)
    z = np.sqrt(2.0 / share * np.log1p(np.sqrt(1.0 + r) / (2.0 * level)))
    root = np.sqrt(share)
    for _ in range(_STEPS):  # log M is convex and rises: steps from above never overshoot
        over = log_evidence(z, r) + np.log(level)
        hazard = np.exp(-0.5 * (z * root) ** 2 - log_ndtr(z * root)) / np.sqrt(2.0 * np.pi)
        z = z - over / (z * share + root * hazard)
    return np.where(known, z, np.inf)


def anytime_p(estimate: Estimate, scale: ArrayLike, null: ArrayLike = 0.0) -> Floats:
    """One-sided p of an improvement beyond `null`, valid at every look; 1 where nothing is known.

    Where the improvement is not beyond, P(p ever falls to alpha or below) is at most alpha
    (Johari, Koomen, Pekelis and Walsh 2022, Oper. Res. 70:1806).

    Args:
        estimate: what is known at this look.
        scale: the effect that matters, in the unit of the effect, above 0.
        null: what must be exceeded.
    """
    tail = stdtr(estimate.df, -t_value(estimate, null))
    z = np.clip(-ndtri(tail), -_FARTHEST, _FARTHEST)
    p = np.exp(np.minimum(0.0, -log_evidence(z, _information(estimate, scale))))
    return np.where(np.isnan(p), 1.0, p)


def anytime_bounds(
    estimate: Estimate, scale: ArrayLike, level: float = 0.05
) -> tuple[Floats, Floats]:
    """Lower and upper bound, each of which holds at all looks together with 1 - level.

    The lower bound is above `null` exactly where `anytime_p` of it is below the level.
    Infinite where nothing is known.
    """
    z = np.minimum(boundary(_information(estimate, scale), level), _FARTHEST)
    steps = _students(z, estimate.df)
    known = np.isfinite(estimate.se)
    margin = np.where(known, steps * np.where(known, estimate.se, 1.0), np.inf)
    centre = np.where(np.isfinite(margin), estimate.effect, 0.0)
    return centre - margin, centre + margin


def _students(z: Floats, df: Floats) -> Floats:
    """The value of Student's t with the upper tail of a normal z, 0 or more.

    By the incomplete beta function: `stdtrit` gives minus infinity in some tails as far as these.
    """
    cosine = betaincinv(df / 2.0, 0.5, 2.0 * ndtr(-z))
    far = np.full(np.shape(cosine), np.inf)
    squared = np.divide(1.0, cosine, out=far, where=cosine > 0.0) - 1.0
    found: Floats = np.sqrt(df * squared)
    return found


def _information(estimate: Estimate, scale: ArrayLike) -> Floats:
    """r; of vehicles that do not differ at all, as much as can be told from infinite."""
    smallest = np.asarray(scale, dtype=np.float64) * 1e-6
    information: Floats = (np.asarray(scale) / np.maximum(estimate.se, smallest)) ** 2
    return information

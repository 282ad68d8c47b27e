"""Is one model's error smaller than another's? Estimates whose unit is the vehicle, and tests.

Answers about one vehicle resemble each other, so that their number says little; vehicles are what
was drawn. Everything here counts an improvement as positive: the champion's error less the
challenger's. All functions take any number of leading axes, so that a simulation can look at
thousands of trials at once.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc, stdtr, stdtrit

from batteryops.errors import DataError
from batteryops.evaluation.metrics import Floats, Interval

_TWO: Final = 2


class Estimate(NamedTuple):
    """A mean improvement and what is known of its error; each (...).

    Args:
        effect: positive where the challenger errs less; NaN where there is nothing to compare.
        se: standard error; NaN with fewer than two vehicles, which say nothing of others.
        df: degrees of freedom of `se`, as Student's t needs them; likewise.
    """

    effect: Floats
    se: Floats
    df: Floats


def clustered_mean(sums: ArrayLike, counts: ArrayLike) -> Estimate:
    """The mean over answers, with a standard error that lets answers of one vehicle agree.

    Bell and McCaffrey's bias-reduced linearization (2002, Survey Methodology 28:169; "CR2" in
    Pustejovsky and Tipton 2018, J. Bus. Econ. Stat. 36:672, section 2.2) of a regression on nothing
    but a constant, where its matrices (I - H_ii)^(-1/2) become numbers: with N answers, a vehicle's
    share of them w_i = n_i / N and its mean residual e_i,

    (1)  V = sum_i w_i^2 e_i^2 / (1 - w_i).

    Degrees of freedom are Satterthwaite's (the latter, section 3.1), from the vectors p_i of the
    quadratic form V = sum_i (p_i' y)^2, with the covariance W of the answers y:

    (2)  df = (sum_i p_i' W p_i)^2 / sum_ij (p_i' W p_j)^2.

    Bell and McCaffrey take W = I, independent answers; Imbens and Kolesar (2016, Rev. Econ. Stat.
    98:701) one in which answers of a vehicle agree as strongly as seems. That is badly known from
    few vehicles, so the fewer degrees of the two extremes are taken: W = I, and complete agreement.
    With equally many answers for each of G vehicles both are G - 1, and the test is Student's on
    the vehicles' means.

    Args:
        sums: (..., vehicles), sums of the paired differences of a vehicle's answers.
        counts: (..., vehicles), how many answers; a vehicle with none counts for nothing.

    Examples:
        >>> found = clustered_mean([3.0, 8.0, 4.0], [2, 2, 2])
        >>> float(found.effect), round(float(found.se), 4), round(float(found.df), 6)
        (2.5, 0.7638, 2.0)
    """
    total, n = np.broadcast_arrays(np.asarray(sums, np.float64), np.asarray(counts, np.float64))
    answers = n.sum(axis=-1, keepdims=True)
    known = answers > 0
    share = np.divide(n, answers, out=np.zeros_like(n), where=known)
    effect = np.divide(
        total.sum(axis=-1, keepdims=True),
        answers,
        out=np.full(answers.shape, np.nan),
        where=known,
    )
    alone = (share >= 1.0).any(axis=-1) | ~known[..., 0]
    room = np.where(share < 1.0, 1.0 - share, 1.0)
    scaled = np.divide(total - n * effect, answers, out=np.zeros_like(n), where=known)
    variance = (scaled**2 / room).sum(axis=-1)
    freedom = np.minimum(_freedom_if_independent(share, room), _freedom_if_agreed(share, room))
    return Estimate(
        effect[..., 0],
        np.where(alone, np.nan, np.sqrt(variance)),
        np.where(alone, np.nan, freedom),
    )


def _freedom_if_independent(share: Floats, room: Floats) -> Floats:
    """Satterthwaite's where p_i' p_j is a_i a_j (n_i [i = j] - w_i n_j), a_i^2 = 1 / (1 - w_i)."""
    own = ((share**2 - 2 * share**3) / room**2).sum(axis=-1)
    return _inverse(own + (share**2 / room).sum(axis=-1) ** 2)


def _freedom_if_agreed(share: Floats, room: Floats) -> Floats:
    """The same where all answers of a vehicle are alike.

    p_i' W p_j, W one block of ones for each vehicle, is a_i a_j ([i = j] w_i^2 - w_i w_j (w_i + w_j
    - S)) with S the sum of squared shares.
    """
    squares = (share**2).sum(axis=-1)
    spread = squares[..., None]
    trace = ((share**2 - 2 * share**3 + share**2 * spread) / room).sum(axis=-1)
    own = ((share**4 - 2 * share**4 * (2 * share - spread)) / room**2).sum(axis=-1)
    weight = share**2 / room
    zeroth, first, second = ((weight * share**power).sum(axis=-1) for power in range(3))
    mixed = (
        2 * zeroth * second + squares**2 * zeroth**2 + 2 * first**2 - 4 * squares * zeroth * first
    )
    freedom: Floats = trace**2 * _inverse(own + mixed)
    return freedom


def welch(champion: ArrayLike, challenger: ArrayLike) -> Estimate:
    """The difference of two groups of vehicles that need not vary alike.

    Welch 1947 (Biometrika 34:28) on the vehicles' mean errors, each weighing the same, with
    Satterthwaite's degrees of freedom (1946, Biometrics Bulletin 2:110): of variances of means u
    and v of g and h vehicles, (u + v)^2 / (u^2 / (g - 1) + v^2 / (h - 1)).

    Args:
        champion: (..., vehicles), mean error of each vehicle that the champion answered; NaN where
            a vehicle has none.
        challenger: (..., others), likewise.

    Examples:
        >>> found = welch([3.0, 4.0, 5.0], [1.0, 1.0, 4.0])
        >>> float(found.effect), round(float(found.se), 4), round(float(found.df), 4)
        (2.0, 1.1547, 3.2)
    """
    means, variances, groups = zip(_moments(champion), _moments(challenger), strict=True)
    of_means = [variance / n for variance, n in zip(variances, groups, strict=True)]
    both = of_means[0] + of_means[1]
    spread = sum(one**2 / np.maximum(n - 1, 1) for one, n in zip(of_means, groups, strict=True))
    freedom = np.where(both > 0, both**2 * _inverse(spread), groups[0] + groups[1] - 2)
    return Estimate(means[0] - means[1], np.sqrt(both), np.where(np.isnan(both), np.nan, freedom))


def _moments(means: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Mean, variance and number of what is known; NaN where too few are."""
    values = np.asarray(means, dtype=np.float64)
    known = np.isfinite(values)
    n = known.sum(axis=-1).astype(np.float64)
    filled = np.where(known, values, 0.0)
    mean = np.where(n > 0, filled.sum(axis=-1) / np.maximum(n, 1), np.nan)
    off = np.where(known, filled - np.where(n > 0, mean, 0.0)[..., None], 0.0)
    variance = np.where(n >= _TWO, (off**2).sum(axis=-1) / np.maximum(n - 1, 1), np.nan)
    return mean, variance, np.maximum(n, 1)


def t_value(estimate: Estimate, null: ArrayLike = 0.0) -> Floats:
    """(effect - null) / se; infinite, or 0, where vehicles do not differ at all."""
    off = estimate.effect - np.asarray(null, dtype=np.float64)
    certain = np.where(off == 0.0, 0.0, np.copysign(np.inf, off))
    found: Floats = np.divide(off, estimate.se, out=certain, where=estimate.se != 0.0)
    return found


def one_sided_p(estimate: Estimate, null: ArrayLike = 0.0) -> Floats:
    """How often chance shows an improvement at least as large, at ONE look planned beforehand.

    The upper tail of Student's t at the value's own sign: a challenger that errs more has p above
    one half. NaN where the standard error is not known.

    Examples:
        >>> round(float(one_sided_p(clustered_mean([3.0, 8.0, 4.0], [2, 2, 2]))), 4)
        0.041
    """
    p: Floats = stdtr(estimate.df, -t_value(estimate, null))
    return p


def interval(estimate: Estimate, confidence: float = 0.95) -> Interval:
    """Two-sided, for one look planned beforehand; for one estimate."""
    margin = float(stdtrit(estimate.df, 0.5 + confidence / 2) * estimate.se)
    return Interval(float(estimate.effect) - margin, float(estimate.effect) + margin)


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p-values: comparing each with a level keeps ANY false claim at that level.

    Holm 1979 (Scand. J. Stat. 6:65): the i-th smallest of k is multiplied by k - i + 1, and none is
    below the one before it. NaN is no test.

    Examples:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(4).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    given = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(given.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(given))
    order = tests[np.argsort(given[tests], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return adjusted


def sample_ratio_p(champion: int, challenger: int, challenger_share: float) -> float:
    """How often chance deals vehicles out at least as unevenly: Pearson's chi-square.

    A small p means that something other than chance decides who is answered by whom, and that no
    comparison can be trusted (Fabijan et al. 2019, KDD, "Diagnosing sample ratio mismatch").

    Args:
        champion: vehicles that the champion answered.
        challenger: vehicles that the challenger answered.
        challenger_share: of the vehicles that it was to answer, above 0 and below 1.

    Raises:
        DataError: when the share is not one, or there is no vehicle.

    Examples:
        >>> round(sample_ratio_p(580, 420, 0.5), 9), round(sample_ratio_p(90, 10, 0.1), 3)
        (4.2e-07, 1.0)
    """
    if not 0.0 < challenger_share < 1.0:
        raise DataError(f"the challenger's share is {challenger_share}; expected above 0, below 1")
    vehicles = champion + challenger
    if vehicles < 1:
        raise DataError("no vehicle was answered; expected at least one")
    off = challenger - vehicles * challenger_share
    statistic = off**2 / (vehicles * challenger_share * (1 - challenger_share))
    return float(chdtrc(1, statistic))


def _inverse(values: ArrayLike) -> Floats:
    given = np.asarray(values, dtype=np.float64)
    return np.asarray(np.divide(1.0, given, out=np.full(given.shape, np.nan), where=given > 0.0))

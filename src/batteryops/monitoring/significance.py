"""Could a difference be chance? Bounds for PSI, p-values for Kolmogorov's distance, many tests.

Cycles of one asset resemble each other, so that a thousand cycles of fifty vehicles say less than a
thousand vehicles would. How much less is estimated from how the assets differ (the linearised
variance of clusters), and the textbook distributions are corrected for it: Rao and Scott's second
correction of chi-square (1984, Ann. Statist. 12:46), with Satterthwaite's degrees of freedom, and
an effective number of rows for Kolmogorov's distance. Where few assets are there to estimate it
from, the reference distributions are those of an estimated variance, as Student's t is to the
normal. With one row per asset, or no assets given, what remains are the textbook forms.

A handful of assets compared with themselves is another question: not whether a fleet has changed,
but whether these have. Nothing can be learned from how they differ; their cycles are taken to
depend on each other as strongly as an autoregression of 0.9.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtri, fdtri, gammaincinv, kolmogorov, ndtr, stdtr

from batteryops.monitoring.cells import Floats, Integers

_TAIL: Final = np.logspace(-12, 0, 241)
_FEWEST: Final = 2
_MANY: Final = 10_000.0

FEW_ASSETS: Final = 10
"""With fewer, and the same ones on both sides, assets are compared with themselves."""

ASSUMED_CORRELATION: Final = 0.9
"""Between one cycle and the next of an asset, where nothing tells how large it is."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far two samples of the same kind differ by chance.

    Args:
        psi_mean: what PSI is on average by chance.
        psi_freedom: its degrees of freedom, one fewer than bins where rows are independent.
        rows: effective number of rows, harmonic over both samples: n m / (n + m) where all are
            independent.
        missing_variance: of the difference of the shares of missing values.
        freedom: of the estimate of all these; infinite where rows are taken to be independent.
        design_effect: how many times fewer rows would say as much, if they were independent.
    """

    psi_mean: float
    psi_freedom: float
    rows: float
    missing_variance: float
    freedom: float
    design_effect: float


def psi_critical(bins: int, n: float, m: float, level: float = 0.05) -> float:
    """What PSI of two like samples of independent rows exceeds with probability `level`.

    PSI is then distributed as chi-square with one degree of freedom fewer than bins, times
    1/n + 1/m (Yurdakul and Naranjo 2020, J. Risk Model Validation 14(4)).

    Args:
        bins: that hold any row.
        n: rows of the reference.
        m: rows of the other sample.
        level: 0 to 1.

    Examples:
        >>> round(psi_critical(10, 100, 100), 5), round(psi_critical(10, 10_000, 1_000), 5)
        (0.33838, 0.01861)
    """
    return float(chdtri(bins - 1, level)) * (1 / n + 1 / m) if bins > 1 else 0.0


def psi_bound(spread: Spread, level: float) -> float:
    """The same for rows that may depend on each other."""
    if not spread.psi_freedom:
        return 0.0
    if np.isinf(spread.freedom):
        return spread.psi_mean * float(chdtri(spread.psi_freedom, level)) / spread.psi_freedom
    return spread.psi_mean * float(fdtri(spread.psi_freedom, spread.freedom, 1 - level))


def ks_p_value(distance: float, rows: float, freedom: float = np.inf) -> float:
    """How often Kolmogorov's distance of two like samples is at least as large.

    By the limiting distribution with Stephens' correction for small samples (1970, J. R. Stat.
    Soc. B 32:115); a little too large where values repeat.

    Args:
        distance: 0 to 1.
        rows: n m / (n + m), effective.
        freedom: of the estimate of `rows`; infinite where it is known.

    Examples:
        >>> round(ks_p_value(0.0607, 500), 3)
        0.048
    """
    root = np.sqrt(rows)
    statistic = distance * (root + 0.12 + 0.11 / root)
    if freedom >= _MANY:
        return float(kolmogorov(statistic))
    nodes, weights = _estimated_variance(round(max(freedom, 1.0), 1))
    return float(min(1.0, kolmogorov(statistic * nodes) @ weights))


@lru_cache(maxsize=4096)
def _estimated_variance(freedom: float) -> tuple[Floats, Floats]:
    """Roots of a variance's estimates over its truth, and how probable each is.

    Small estimates, which make a chance difference look large, are laid out finely.
    """
    shares = np.concatenate([[0.0], _TAIL])
    middles = (shares[1:] + shares[:-1]) / 2
    ratios = gammaincinv(freedom / 2, middles) * 2 / freedom
    return np.sqrt(ratios), np.diff(shares)


def share_p_value(difference: float, variance: float, freedom: float) -> float:
    """How often two shares of like samples differ at least so much."""
    if difference == 0.0:
        return 1.0
    if variance <= 0.0:
        return 0.0
    z = abs(difference) / np.sqrt(variance)
    return float(2 * (ndtr(-z) if freedom >= _MANY else stdtr(freedom, -z)))


def benjamini_hochberg(p_values: ArrayLike, level: float = 0.05) -> NDArray[np.bool_]:
    """Which of many tests are significant, such that at most a share `level` of them is by chance.

    Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57:289. NaN is never significant, and counts as
    no test.

    Args:
        p_values: (k,).
        level: 0 to 1.

    Examples:
        >>> benjamini_hochberg([0.01, 0.9, 0.02]).tolist()
        [True, False, True]
    """
    given = np.asarray(p_values, dtype=np.float64)
    ordered = np.sort(given[~np.isnan(given)])
    passing = np.flatnonzero(ordered <= level * np.arange(1, ordered.size + 1) / ordered.size)
    if not passing.size:
        return np.zeros(given.shape, dtype=np.bool_)
    significant: NDArray[np.bool_] = given <= ordered[passing[-1]]
    return significant


def spread_of(
    reference: Integers,
    current: Integers,
    reference_groups: Integers | None = None,
    current_groups: Integers | None = None,
) -> Spread:
    """How far two samples differ by chance, from their bins.

    Args:
        reference: (bins,) rows; the last bin is that of missing values.
        current: likewise.
        reference_groups: (groups, bins) rows by group of assets; None: rows are independent.
        current_groups: likewise; the same group is the same asset.
    """
    n, m = int(reference.sum()), int(current.sum())
    occupied = (reference + current) > 0
    known = reference[:-1].sum(), current[:-1].sum()
    both = 1 / n + 1 / m
    missing = (reference[-1] + current[-1]) / (n + m)
    independent = Spread(
        psi_mean=both * max(int(occupied.sum()) - 1, 0),
        psi_freedom=max(int(occupied.sum()) - 1, 0),
        rows=float(known[0] * known[1] / (known[0] + known[1])) if min(known) else 0.0,
        missing_variance=float(missing * (1 - missing) * both),
        freedom=np.inf,
        design_effect=1.0,
    )
    if reference_groups is None or current_groups is None:
        return independent
    if _same_few(reference_groups, current_groups):
        return _assumed(independent, reference_groups, current_groups)
    found = _differences(reference_groups, current_groups)
    if found is None:  # one asset in each: nothing tells how assets differ
        return independent
    by_asset, freedom = found
    # of both together: by the reference's alone, values that begin to go missing, or lie in a bin
    # that it lacks, would have so large a variance that they always looked like chance
    shares = (reference + current + 0.5) / (n + m + 0.5 * occupied.sum())
    scaled = by_asset[:, occupied] / np.sqrt(shares[occupied])
    products = scaled.T @ scaled
    trace, squares = float(np.trace(products)), float((products**2).sum())
    more = trace > independent.psi_mean
    effect = 1.0
    if min(known):
        pair = _differences(reference_groups[:, :-1], current_groups[:, :-1])
        if pair is not None:
            effect = _design_effect(reference[:-1], current[:-1], pair[0])
    return Spread(
        psi_mean=max(trace, independent.psi_mean),
        psi_freedom=min(trace**2 / squares, independent.psi_freedom)
        if more
        else independent.psi_freedom,
        rows=independent.rows / effect,
        missing_variance=max(float((by_asset[:, -1] ** 2).sum()), independent.missing_variance),
        freedom=freedom,
        design_effect=effect,
    )


def _same_few(reference_groups: Integers, current_groups: Integers) -> bool:
    before, after = reference_groups.any(axis=1), current_groups.any(axis=1)
    return bool((before == after).all()) and int(before.sum()) < FEW_ASSETS


def _assumed(independent: Spread, reference_groups: Integers, current_groups: Integers) -> Spread:
    """The spread of rows that depend on each other as strongly as is assumed."""
    sides = [
        groups[groups.any(axis=1)].sum(axis=1) for groups in (reference_groups, current_groups)
    ]
    once = sum(1 / int(sizes.sum()) for sizes in sides)
    effect = (
        sum(autoregressive_effect(float(sizes.mean())) / int(sizes.sum()) for sizes in sides) / once
    )
    return replace(
        independent,
        psi_mean=independent.psi_mean * effect,
        rows=independent.rows / effect,
        missing_variance=independent.missing_variance * effect,
        design_effect=effect,
    )


def autoregressive_effect(cycles: float, correlation: float = ASSUMED_CORRELATION) -> float:
    """Variance of the mean of so many consecutive cycles, over that of independent ones.

    Args:
        cycles: of one asset, 1 or more.
        correlation: between one cycle and the next, 0 to below 1.

    Examples:
        >>> round(autoregressive_effect(1), 6), round(autoregressive_effect(1e9), 6)
        (1.0, 19.0)
    """
    lost = 2 * correlation * (1 - correlation**cycles) / (cycles * (1 - correlation) ** 2)
    return float((1 + correlation) / (1 - correlation) - lost)


def _design_effect(reference: Integers, current: Integers, by_asset: Floats) -> float:
    """Variance of the distribution's difference over that of independent rows, at least 1."""
    n, m = reference.sum(), current.sum()
    a, b = np.cumsum(reference)[:-1] / n, np.cumsum(current)[:-1] / m
    textbook = float((a * (1 - a)).sum() / n + (b * (1 - b)).sum() / m)
    actual = float((np.cumsum(by_asset, axis=1)[:, :-1] ** 2).sum())
    return max(1.0, actual / textbook) if textbook > 0.0 else 1.0


def _differences(
    reference_groups: Integers, current_groups: Integers
) -> tuple[Floats, float] | None:
    """What each group of assets adds to the difference of shares, and the degrees of freedom.

    The sum of its outer products is the covariance of the difference. An asset of both samples
    counts once, with what it adds to both: what is lasting in it cancels.

    Returns:
        (groups, bins), and Satterthwaite's degrees of freedom; None where both samples are of one
        group each.
    """
    sizes = reference_groups.sum(axis=1), current_groups.sum(axis=1)
    present = (sizes[0] > 0) | (sizes[1] > 0)
    groups = int((sizes[0] > 0).sum()), int((sizes[1] > 0).sum())
    if max(groups) < _FEWEST or min(groups) == 0:
        return None
    first = _influence(reference_groups[present])
    second = _influence(current_groups[present])
    if min(groups) < _FEWEST:  # an only asset varies as one of the other sample does
        many = first if groups[0] > 1 else second
        return many * np.sqrt(1.0 + max(groups)), max(groups) - 1.0
    traces = float((first**2).sum()), float((second**2).sum())
    noise = traces[0] ** 2 / (groups[0] - 1) + traces[1] ** 2 / (groups[1] - 1)
    freedom = sum(traces) ** 2 / noise if noise > 0.0 else sum(groups) - 2.0
    return first - second, min(freedom, int(present.sum()) - 1.0)


def _influence(groups: Integers) -> Floats:
    """What each group (g, bins) adds to the shares of its sample."""
    sizes = groups.sum(axis=1)
    total = sizes.sum()
    of = int((sizes > 0).sum())
    shares = groups.sum(axis=0) / total
    scale = np.sqrt(of / (of - 1)) if of > 1 else 1.0
    added: Floats = (groups - sizes[:, None] * shares) * (scale / total)
    return added

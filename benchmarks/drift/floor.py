"""Plain NumPy: PSI and Kolmogorov's distance of every feature, exact, one sort per feature."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[np.float64]]
Found = dict[str, tuple[float, float]]
"""PSI and Kolmogorov's distance by feature."""


def plain(reference: Columns, current: Columns) -> Found:
    """As SciPy's `ks_2samp` looks at it: both distributions at every value of either sample."""
    found = {}
    for name, values in reference.items():
        before, after = np.sort(values), np.sort(current[name])
        every = np.concatenate([before, after])
        apart = (
            before.searchsorted(every, side="right") / before.size
            - after.searchsorted(every, side="right") / after.size
        )
        found[name] = _psi(before, after), float(np.abs(apart).max())
    return found


def lean(reference: Columns, current: Columns) -> Found:
    """Only at the reference's values, from both sides: there the distance is largest."""
    found = {}
    for name, values in reference.items():
        before, after = np.sort(values), np.sort(current[name])
        up_to = np.arange(1, before.size + 1) / before.size
        ahead = up_to - after.searchsorted(before, side="right") / after.size
        behind = after.searchsorted(before, side="left") / after.size - (up_to - 1 / before.size)
        found[name] = _psi(before, after), float(max(ahead.max(), behind.max()))
    return found


def _psi(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    deciles = before[before.size * np.arange(1, 10) // 10 - 1]
    p, q = (
        np.diff(ordered.searchsorted(deciles, side="right"), prepend=0, append=ordered.size)
        for ordered in (before, after)
    )
    p, q = (p + 0.5) / (p + 0.5).sum(), (q + 0.5) / (q + 0.5).sum()
    return float(((q - p) * np.log(q / p)).sum())

"""Hold out whole groups of assets, and let each group weigh the same."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError

Floats = NDArray[np.float64]


def group_codes(groups: ArrayLike, rows: int) -> NDArray[np.intp]:
    """Number of each row's group, from 0, in the order of the groups' names.

    Raises:
        DataError: when there is not one group per row, or there are no rows.
    """
    names = np.asarray(groups).astype(str)
    if names.shape != (rows,) or not rows:
        raise DataError(
            f"groups have shape {names.shape}; expected one for each of {rows} rows, and at "
            "least one row"
        )
    codes: NDArray[np.intp] = np.unique(names, return_inverse=True)[1]
    return codes


def fold_numbers(codes: NDArray[np.intp], n_folds: int) -> NDArray[np.intp]:
    """Fold of each row: every group in one fold, folds of about equal size.

    The largest group goes first, each to the fold that has the fewest rows so far. With no more
    groups than folds, each group is a fold.

    Args:
        codes: (n,), from `group_codes`.
        n_folds: at most so many, 1 or more.

    Examples:
        >>> fold_numbers(np.array([0, 0, 0, 1, 2, 2]), 2).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    sizes = np.bincount(codes)
    if sizes.size <= n_folds:
        return codes
    rows = np.zeros(n_folds, dtype=np.intp)
    fold_of = np.empty(sizes.size, dtype=np.intp)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of[group] = rows.argmin()
        rows[fold_of[group]] += sizes[group]
    return fold_of[codes]


def group_weights(codes: NDArray[np.intp]) -> Floats:
    """Weight of each row, such that all groups weigh the same and all rows together 1."""
    sizes = np.bincount(codes)
    return 1.0 / (np.count_nonzero(sizes) * sizes[codes])


def weighted_quantile(values: Floats, weights: Floats, share: float) -> float:
    """The least value that, with all values below it, has at least `share` of the weight.

    Args:
        values: (n,), at least one.
        weights: (n,), 0 or more, not all 0.
        share: 0 to 1.

    Examples:
        >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.array([0.25, 0.25, 0.5]), 0.75)
        2.0
    """
    order = np.argsort(values, kind="stable")
    return float(values[order[place_of_share(np.cumsum(weights[order]), share)]])


def place_of_share(cumulative: Floats, share: float) -> int:
    """Where, along weights (n,) that were added up, the sum reaches a share of all, 0 to n - 1."""
    # relative to the last sum, and a little less: 0.1 added ten times is not 1
    place = int(np.searchsorted(cumulative, (share - 1e-12) * cumulative[-1]))
    return min(place, cumulative.size - 1)

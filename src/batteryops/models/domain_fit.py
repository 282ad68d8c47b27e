"""Learns what training covered: a `Domain` of training rows, and its limit from held-out groups."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError
from batteryops.models.domain import Domain, as_matrix, squash
from batteryops.models.held_out import (
    Floats,
    fold_numbers,
    group_codes,
    group_weights,
    weighted_quantile,
)

MARGIN: Final = 0.1
"""How far beyond training's range a feature may lie, as a share of its 5 to 95 percent spread."""

CONSTANT_MARGIN: Final = 0.01
"""The same, at least, as a share of the largest absolute value: constants need some room too."""

SHARE: Final = 0.99
"""Share of the rows of held-out groups whose distance is inside the limit."""

MAX_ROWS: Final = 512
"""Training rows that are kept to measure distances to: some microseconds' worth."""

FOLDS: Final = 25
"""Groups are held out one by one, or in so many folds."""

_NORMAL_SPREAD: Final = 3.2897  # of a normal variable from 5 to 95 percent, standard deviations
_EIGENVALUE_FLOOR: Final = 0.03  # of the mean one: bounds how much a direction of no spread weighs


def fit_domain(  # noqa: PLR0913 - rows, and what is known of them
    features: ArrayLike,
    groups: ArrayLike,
    names: Sequence[str],
    *,
    distances: Floats | None = None,
    checked: Collection[str] | None = None,
    max_rows: int = MAX_ROWS,
) -> Domain:
    """Learn from training rows what is inside.

    Args:
        features: (n, k), NaN where missing; rows of a group in the order of its life.
        groups: (n,), whose row it is: assets that were aged together are one.
        names: k of them.
        distances: what `held_out_distances` gave for the same rows; computed when None.
        checked: the features that are looked at, one at least: those that the model depends on;
            all when None.
        max_rows: how many rows are kept at most, though one of each group always.

    Raises:
        DataError: when shapes disagree or there is nothing to learn from.
    """
    looked_at = _places(names, checked)
    matrix = as_matrix(features, len(names), looked_at)
    codes = group_codes(groups, len(matrix))
    domain = _cover(matrix, codes, tuple(names), looked_at, max_rows)
    if codes.max() == 0:
        return domain
    if distances is None:
        distances = held_out_distances(matrix, codes, names, checked=checked, max_rows=max_rows)
    limit = weighted_quantile(distances, group_weights(codes), SHARE)
    return replace(domain, limit=limit)


def held_out_distances(
    features: ArrayLike,
    groups: ArrayLike,
    names: Sequence[str],
    *,
    checked: Collection[str] | None = None,
    max_rows: int = MAX_ROWS,
) -> Floats:
    """Distance (n,) of each row to what is covered without the row's whole group.

    Args:
        features: as `fit_domain` takes them.
        groups: likewise; at least two different ones, or all distances are infinite.
        names: likewise.
        checked: likewise.
        max_rows: likewise.
    """
    looked_at = _places(names, checked)
    matrix = as_matrix(features, len(names), looked_at)
    codes = group_codes(groups, len(matrix))
    folds = fold_numbers(codes, FOLDS)
    distances = np.full(len(matrix), math.inf)
    if folds.max() == 0:
        return distances
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        others = _cover(matrix[~out], codes[~out], tuple(names), looked_at, max_rows)
        squashed = squash(matrix[out], others.centre, others.weight)
        distances[out] = others.nearest(squashed)[0]
    return distances


def _cover(
    matrix: Floats,
    codes: NDArray[np.intp],
    names: tuple[str, ...],
    checked: NDArray[np.bool_],
    max_rows: int,
) -> Domain:
    """What rows cover; no distance is limited yet."""
    width = matrix.shape[1]
    low, high = np.full(width, -math.inf), np.full(width, math.inf)
    centre, weight = np.zeros(width), np.zeros(width)
    for column in range(width):
        known = matrix[np.isfinite(matrix[:, column]), column]
        if not known.size:  # no tree can have split on it
            continue
        least, lower, middle, upper, largest = np.quantile(known, [0.0, 0.05, 0.5, 0.95, 1.0])
        room = max(MARGIN * (upper - lower), CONSTANT_MARGIN * max(abs(least), abs(largest)))
        low[column], high[column], centre[column] = least - room, largest + room, middle
        # a few odd values among equal ones have no quantile spread, but they vary
        spread = (upper - lower) / _NORMAL_SPREAD or float(known.std())
        if spread > 1e-6 * max(abs(least), abs(largest)):  # otherwise the last bits of a constant
            weight[column] = 1.0 / spread
    squashed = squash(matrix, centre, weight)
    centred = squashed - squashed.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    floor = _EIGENVALUE_FLOOR * float(values.sum()) / int(checked.sum())
    mixing = vectors / np.sqrt(np.maximum(values, floor)) if floor > 0 else np.eye(width)
    return Domain(
        names=names,
        low=low,
        high=high,
        may_lack=np.any(np.isnan(matrix), axis=0),
        most_lacking=int(np.isnan(matrix[:, checked]).sum(axis=1).max()),
        centre=centre,
        weight=weight,
        mixing=mixing,
        rows=squashed[_spread_over_lives(codes, max_rows)],
        limit=math.inf,
        checked=checked,
    )


def _spread_over_lives(codes: NDArray[np.intp], max_rows: int) -> NDArray[np.intp]:
    """Rows to keep: as many of each group, evenly from its first to its last."""
    present = np.unique(codes)
    each = max(1, max_rows // present.size)
    kept = []
    for code in present:
        own = np.flatnonzero(codes == code)
        places = np.linspace(0, own.size - 1, min(each, own.size)).round().astype(np.intp)
        kept.append(own[places])
    return np.concatenate(kept)


def _places(names: Sequence[str], checked: Collection[str] | None) -> NDArray[np.bool_]:
    """Which features are looked at, (k,).

    Raises:
        DataError: when none is.
    """
    given = np.array([checked is None or name in checked for name in names], dtype=np.bool_)
    if not given.any():
        raise DataError(f"none of {', '.join(names)} is checked; name one feature at least")
    return given

"""How features hang together in a reference, and what follows when one of them moves."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy.spatial import cKDTree

from batteryops.monitoring.cells import Floats

_NEIGHBOURS: Final = 25
_RIDGE: Final = 1e-3
_CLIP: Final = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Puts features on one scale: distance from the reference's median in its robust deviations.

    Args:
        centre: (k,) medians.
        width: (k,) quartile ranges over 1.349, that of a normal distribution's deviation.
    """

    centre: Floats
    width: Floats

    @classmethod
    def of(cls, values: Floats) -> Self:
        """The scale of a reference's values (n, k)."""
        centre, width = np.zeros(values.shape[1]), np.ones(values.shape[1])
        for place, column in enumerate(values.T):
            known = column[np.isfinite(column)]
            if not known.size:
                continue
            low, centre[place], high = np.quantile(known, (0.25, 0.5, 0.75))
            spread = (high - low) / 1.349 or float(known.std())
            width[place] = spread or max(abs(centre[place]), 1.0) * 1e-3
        return cls(centre, width)

    def __call__(self, values: Floats) -> Floats:
        """Values (n, k) on the scale; what lies very far out counts as far out."""
        scaled: Floats = np.clip((values - self.centre) / self.width, -_CLIP, _CLIP)
        return scaled


def means(values: Floats, weights: Floats) -> Floats:
    """Weighted means (k,) of the known values (n, k); NaN without any."""
    known = np.isfinite(values)
    total = (weights[:, None] * known).sum(axis=0)
    added = (weights[:, None] * np.where(known, values, 0.0)).sum(axis=0)
    found: Floats = np.divide(added, total, out=np.full(total.shape, np.nan), where=total > 0)
    return found


def followed(
    reference: Floats, current: Floats, axes: list[int], *, weights: tuple[Floats, Floats]
) -> Floats:
    """By how much every feature would have moved, if it had followed the axes as it used to.

    Each feature is a straight line of the axes, and what it lies above or below the line where
    such rows were in the reference: the line alone counts where there were none.

    Args:
        reference: (n, k) scaled values.
        current: (m, k) likewise.
        axes: columns that others may follow.
        weights: what each row counts, of the reference and of the current ones.

    Returns:
        (k,) differences of means; zero where nothing can be said.
    """
    before, after = reference[:, axes], current[:, axes]
    ours, theirs = np.isfinite(before).all(axis=1), np.isfinite(after).all(axis=1)
    moved = np.zeros(reference.shape[1])
    if ours.sum() <= len(axes) + 2 or not theirs.any():
        return moved
    before, after = before[ours], after[theirs]
    target, known = reference[ours], np.isfinite(reference[ours])
    design = np.column_stack([np.ones(len(before)), before])
    heights = np.column_stack([np.ones(len(after)), after])
    tree = cKDTree(before)
    neighbours = min(_NEIGHBOURS, len(before))
    near = [
        tree.query(points, k=neighbours, workers=-1)[1].reshape(len(points), -1)
        for points in (before, after)
    ]
    mass = weights[0][ours] / weights[0][ours].sum(), weights[1][theirs] / weights[1][theirs].sum()
    for place in range(reference.shape[1]):
        have = known[:, place]
        if have.sum() <= len(axes) + 2:
            continue
        x, y = design[have], target[have, place]
        penalty = _RIDGE * len(y) * np.diag([0.0, *np.ones(len(axes))])
        slopes = np.linalg.solve(x.T @ x + penalty, x.T @ y)
        rest = np.where(have, target[:, place] - design @ slopes, 0.0)
        there = mass[1] @ (heights @ slopes + rest[near[1]].mean(axis=1))
        here = mass[0] @ (design @ slopes + rest[near[0]].mean(axis=1))
        moved[place] = there - here
    return moved

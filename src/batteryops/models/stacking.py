"""Stack the best algorithms: chosen and weighed by predictions of groups that they did not see.

Wolpert, Stacked generalization, Neural Networks 5, 1992. Weights are not negative and sum to one:
Breiman, Stacked regressions, Machine Learning 24, 1996; a mean stays in the range of its members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from batteryops.errors import DataError
from batteryops.evaluation.owners import Names, Owners
from batteryops.models.algorithms import Combined, Floats, GroupedFit, Matrix
from batteryops.models.held_out import fold_numbers, group_codes, group_weights
from batteryops.models.intervals import out_of_group_predictions
from batteryops.models.offers import features_used

TOP: Final = 3
"""How many algorithms are combined."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Which algorithms, in which shares.

    Args:
        members: names, the best first.
        weights: one per member, 0 or more, 1 together.
    """

    members: tuple[str, ...]
    weights: tuple[float, ...]

    def __str__(self) -> str:
        """The shares in words."""
        return " + ".join(
            f"{weight:.2f} {name}" for name, weight in zip(self.members, self.weights, strict=True)
        )


def choose(
    held_out: Mapping[str, Floats], labels: Floats, groups: Names, *, top: int = TOP
) -> Stack:
    """The best few by mean absolute error, each group weighing the same, and their shares.

    Args:
        held_out: by algorithm, predictions (n,) in Ah by models that did not see the row's group.
        labels: (n,), measured, Ah.
        groups: (n,), whose row it is.
        top: how many to combine, at most.

    Raises:
        DataError: when there is no algorithm.

    Examples:
        >>> y = np.array([1.0, 2.0, 3.0, 4.0])
        >>> found = choose(
        ...     {"high": y + 0.1, "low": y - 0.1, "far": y + 3.0}, y, np.array(list("aabb")), top=2)
        >>> str(found)
        '0.50 high + 0.50 low'
    """
    if not held_out:
        raise DataError("no algorithm to choose from; name at least one")
    row_weights = group_weights(group_codes(groups, labels.size))
    errors = {name: float(row_weights @ np.abs(given - labels)) for name, given in held_out.items()}
    members = tuple(sorted(errors, key=lambda name: errors[name])[:top])
    weights = _shares(np.column_stack([held_out[name] for name in members]), labels, row_weights)
    return Stack(members, tuple(weights.tolist()))


def _shares(given: NDArray[np.float64], labels: Floats, row_weights: Floats) -> Floats:
    """Shares that sum to one, 0 or more, of least squared error: with them, sum of w (y - Xb)^2."""
    root = np.sqrt(row_weights)
    scale = 1e3 * np.abs(labels).max()  # one more equation, heavy enough to hold: sum b = 1
    matrix = np.vstack([given * root[:, None], np.full(given.shape[1], scale)])
    found, _ = nnls(matrix, np.append(labels * root, scale))
    return np.asarray(found / found.sum(), dtype=np.float64)


def out_of_group(
    fits: Mapping[str, GroupedFit],
    features: Matrix,
    labels: Floats,
    owners: Owners,
    *,
    folds: int,
) -> dict[str, Floats]:
    """Each row predicted by models that saw no row of its group, by algorithm.

    Args:
        fits: by name.
        features: (n, k), NaN where missing.
        labels: (n,), Ah.
        owners: of the n rows.
        folds: groups are left out in at most so many folds.

    Raises:
        DataError: when there is only one group.
    """
    fold_of = fold_numbers(group_codes(owners.groups, labels.size), folds)
    if not fold_of.any():
        raise DataError(
            f"all {labels.size} rows are of one group of assets; stacking holds out groups and "
            "needs two or more"
        )
    held_out = {name: np.full(labels.size, np.nan) for name in fits}
    for fold in range(int(fold_of.max()) + 1):
        out = fold_of == fold
        for name, fit in fits.items():
            predict = fit(features[~out], labels[~out], owners[~out])
            held_out[name][out] = predict(features[out])
    return held_out


@dataclass(frozen=True, slots=True, eq=False)
class StackFit:
    """Fits the members of a stack that have a share.

    Args:
        stack: members and shares.
        fits: by name; of the members that have a share at least.
    """

    stack: Stack
    fits: Mapping[str, GroupedFit]

    def __call__(self, features: Matrix, labels: Floats, owners: Owners) -> Combined:
        """Fit them on all rows."""
        held = self._held()
        return Combined(
            tuple(fit(features, labels, owners) for fit, _ in held),
            tuple(share for _, share in held),
        )

    def held_out(
        self, features: Matrix, labels: Floats, owners: Owners, *, folds: int, workers: int
    ) -> Floats:
        """Each row as if its group had not trained, (n,) in Ah, each member in its own way."""
        total = np.zeros(labels.size)
        for fit, share in self._held():
            total += share * out_of_group_predictions(
                fit, features, labels, owners, folds=folds, workers=workers
            )
        return total

    def looks_at(self, names: Sequence[str]) -> frozenset[str]:
        """Those of the features that one member or more looks at."""
        return frozenset[str]().union(*(features_used(fit, names) for fit, _ in self._held()))

    def _held(self) -> list[tuple[GroupedFit, float]]:
        shares = zip(self.stack.members, self.stack.weights, strict=True)
        return [(self.fits[name], share) for name, share in shares if share]

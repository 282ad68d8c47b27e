"""What a fit may offer besides fitting, so that others need not find it out the long way."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from batteryops.evaluation.owners import Owners

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Predict = Callable[[Matrix], Floats]
Fit = Callable[[Matrix, Floats, Owners], Predict]
"""Fits features (n, k) to capacities (n,) in Ah, told the rows' owners, and gives what predicts."""


@runtime_checkable
class HoldsOut(Protocol):
    """A fit that answers for groups left out by less than one more fit for each of them."""

    def __call__(self, features: Matrix, labels: Floats, owners: Owners) -> Predict:
        """Fit, as any `Fit`."""

    def held_out(
        self, features: Matrix, labels: Floats, owners: Owners, *, folds: int, workers: int
    ) -> Floats:
        """As `intervals.out_of_group_predictions`, of two groups or more."""


@runtime_checkable
class LooksAt(Protocol):
    """A fit of what looks at some of the features only."""

    def __call__(self, features: Matrix, labels: Floats, owners: Owners) -> Predict:
        """Fit, as any `Fit`."""

    def looks_at(self, names: Sequence[str]) -> frozenset[str]:
        """Those of the named features that a prediction can depend on."""


def features_used(fit: Fit, names: Sequence[str]) -> frozenset[str]:
    """Those of the features that its predictions can depend on: all, where it does not say.

    Args:
        fit: any.
        names: of the features that it is given.
    """
    return fit.looks_at(names) if isinstance(fit, LooksAt) else frozenset(names)

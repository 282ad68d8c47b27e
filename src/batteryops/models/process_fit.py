"""The battery process as a fit that also answers for groups left out, and says what it looks at."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batteryops.evaluation.owners import Owners
from batteryops.models.battery_process import BatteryProcess, fit_battery_process
from batteryops.models.process_recipes import used_features
from batteryops.models.remembering import once_per_rows

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

PROCESSES_KEPT: Final = 3
"""Fits that are kept for a second use: tens of megabytes each."""


class ProcessFit:
    """Fits `battery_process`; the same fit predicts its rows with each group left out.

    The last `PROCESSES_KEPT` fits are kept: whoever fits a fold's model and then calibrates its
    intervals on the same rows waits for it once.

    Args:
        view: that has a recipe.
        names: of its features.
    """

    def __init__(self, view: str, names: Sequence[str]) -> None:
        def fit(features: Matrix, labels: Floats, owners: Owners) -> BatteryProcess:
            return fit_battery_process(features, labels, owners.assets, view=view, names=names)

        self._fit = once_per_rows(fit, keep=PROCESSES_KEPT)
        self._view = view

    def looks_at(self, names: Sequence[str]) -> frozenset[str]:
        """Those of the features that the recipe of the view asks for."""
        return used_features(self._view, names)

    def __call__(self, features: Matrix, labels: Floats, owners: Owners) -> BatteryProcess:
        """Fit it."""
        return self._fit(features, labels, owners)

    def held_out(
        self, features: Matrix, labels: Floats, owners: Owners, *, folds: int, workers: int
    ) -> Floats:
        """Each row as if its group had not trained, (n,) in Ah: one by one, however many folds."""
        del folds, workers
        process = self._fit(features, labels, owners)
        return process.without_groups(features, labels, owners.assets, owners.groups)[0]

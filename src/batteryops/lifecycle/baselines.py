"""Measured capacities of tested batteries correct the model, under the protocols."""

import numpy as np
from numpy.typing import NDArray

from batteryops.evaluation.owners import Owners
from batteryops.evaluation.protocol_run import Correct, Cycles, Fit, FitCorrection
from batteryops.models.asset_baseline import fit_baseline, fit_residual_process
from batteryops.models.intervals import out_of_group_predictions

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]


def correction_fit(fit: Fit, *, folds: int) -> FitCorrection:
    """What corrects predictions by measurements of the same battery, for the protocols.

    How far residuals are to be believed is learned from training rows alone, each predicted by a
    model that had not seen its group.

    Args:
        fit: the model.
        folds: of groups, in which training rows are held out.
    """

    def fit_correction(
        features: Matrix, labels: Floats, owners: Owners, op_index: NDArray[np.int64]
    ) -> Correct:
        predicted = out_of_group_predictions(fit, features, labels, owners, folds=folds)
        process = fit_residual_process(labels - predicted, op_index, owners.assets)

        def correct(known: Cycles, asked: Cycles) -> Floats:
            if known.measured_ah is None:
                return asked.predicted_ah
            corrected = asked.predicted_ah.copy()
            for asset in set(known.assets):
                mine, theirs = known.assets == asset, asked.assets == asset
                baseline = fit_baseline(
                    asset,
                    model="",
                    op_index=known.op_index[mine].tolist(),
                    measured_ah=known.measured_ah[mine].tolist(),
                    predicted_ah=known.predicted_ah[mine].tolist(),
                )
                corrected[theirs], _ = baseline.corrected(
                    process, asked.op_index[theirs], asked.predicted_ah[theirs]
                )
            return corrected

        return correct

    return fit_correction

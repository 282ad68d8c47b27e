"""How far to believe answers: intervals, domain and residuals, for a package and for folds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.evaluation.coverage import Bounds, FitBounds, MakeBounds
from batteryops.evaluation.owners import Owners
from batteryops.evaluation.protocol_run import Fit
from batteryops.evaluation.protocols import CLOCK, SplitPlan, held_out_groups
from batteryops.models.asset_baseline import ResidualProcess, fit_residual_process
from batteryops.models.domain import Domain
from batteryops.models.domain_fit import fit_domain, held_out_distances
from batteryops.models.intervals import (
    Intervals,
    calibrate,
    out_of_group_predictions,
)
from batteryops.models.offers import HoldsOut, features_used
from batteryops.models.remembering import once_per_rows
from batteryops.monitoring.error_estimate import ErrorEstimator, fit_error_estimator
from batteryops.settings import Settings

STRICTEST: Final = "unseen_schedules"
"""The protocol whose groups calibrate a package, where the table can tell them."""


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """What a package carries besides its model.

    Args:
        domain: what the training rows cover.
        intervals: how wide prediction intervals are.
        residuals: how an unseen asset's residuals behave, which its own measurements are believed
            by; None where it was not asked for, or there is but one group.
        held_out_ah: (n,) capacities predicted without the row's group, NaN without any, Ah.
        errors: which errors are to be expected of unseen assets, for the time before labels come;
            None where it was not asked for, or there is but one group.
    """

    domain: Domain
    intervals: Intervals
    residuals: ResidualProcess | None
    held_out_ah: NDArray[np.float64] = field(compare=False, repr=False)
    errors: ErrorEstimator | None = field(default=None, compare=False, repr=False)


def fit_uncertainty(  # noqa: PLR0913 - data, and how to hold out
    fit: Fit,
    features: NDArray[np.float32],
    labels: NDArray[np.float64],
    owners: Owners,
    names: Sequence[str],
    *,
    folds: int,
    workers: int = 1,
    op_index: NDArray[np.int64] | None = None,
    nominal_ah: NDArray[np.float64] | None = None,
) -> Uncertainty:
    """Calibrate on groups held out from `features`; nothing else is looked at.

    The domain checks what the model looks at: a battery is not strange by what nobody asks of it.

    Args:
        fit: the model; called once per fold of groups.
        features: (n, k), in the order of each group's life.
        labels: (n,), Ah.
        owners: of the n rows; whole groups are held out.
        names: k features.
        folds: groups are held out in at most so many folds.
        workers: folds fitted at a time.
        op_index: (n,) positions in the assets' lives: with them, the residuals of the same held-out
            predictions are learned too.
        nominal_ah: (n,) nominal capacities: with them, which errors are to be expected is learned.
    """
    predicted = out_of_group_predictions(
        fit, features, labels, owners, folds=folds, workers=workers
    )
    checked = features_used(fit, names)
    distances = held_out_distances(features, owners.groups, names, checked=checked)
    residuals = labels - predicted
    return Uncertainty(
        fit_domain(features, owners.groups, names, distances=distances, checked=checked),
        calibrate(residuals, distances, owners.groups),
        None
        if op_index is None or np.isnan(residuals).all()
        else fit_residual_process(residuals, op_index, owners.assets),
        predicted,
        None
        if nominal_ah is None
        else fit_error_estimator(residuals, predicted, nominal_ah, distances, owners.groups),
    )


def bounds_fit(
    fit: Fit,
    names: Sequence[str],
    settings: Settings,
    profile: str | None = None,
) -> FitBounds:
    """Intervals for the protocols, as a package trained on the fold's rows would answer them.

    The model without the groups A and B is asked for twice: for A by the fold that tests B, and
    for B by the fold that tests A. It is fitted once; one that `HoldsOut` by itself, once for all.

    Args:
        fit: the model, one thread each.
        names: of the features.
        settings: folds, and which asset has which profile.
        profile: take every asset to have this profile.
    """
    folds = settings.evaluation.calibration_folds
    if not isinstance(fit, HoldsOut):
        fit = once_per_rows(fit)

    def fit_bounds(
        features: NDArray[np.float32], labels: NDArray[np.float64], owners: Owners
    ) -> MakeBounds:
        found = fit_uncertainty(fit, features, labels, owners, names, folds=folds)

        def make_bounds(
            asked: NDArray[np.float32],
            predicted_ah: NDArray[np.float64],
            assets: NDArray[np.object_],
        ) -> Bounds:
            profiles = {
                asset: settings.profile(profile) if profile else settings.profile_of(asset)
                for asset in set(assets)
            }
            ranges = [profiles[asset].capacity_range_ah for asset in assets]
            positions = found.domain.look_all(asked)
            ends = np.array(
                [
                    found.intervals.around(capacity, position.distance, possible)
                    if position.inside
                    else possible
                    for capacity, position, possible in zip(
                        predicted_ah.tolist(), positions, ranges, strict=True
                    )
                ]
            ).reshape(-1, 2)
            inside = np.array([position.inside for position in positions], dtype=np.bool_)
            return Bounds(ends[:, 0], ends[:, 1], inside)

        return make_bounds

    return fit_bounds


def package_owners(table: pl.DataFrame, settings: Settings) -> Owners:
    """The owners of the rows of a training table, for the calibration of a package.

    A battery in service has no companion in training that was aged on its very schedule, so that
    companions are one group, found as `unseen_schedules` finds them. A table without the clock of
    its records has the configured groups only.

    Args:
        table: `asset_id`, `op_index`, the features.
        settings: the configured groups.
    """
    protocol = STRICTEST if CLOCK in table.columns else "unseen_assets"
    plan = SplitPlan.from_settings(settings.evaluation, settings.training.seed)
    group_of = held_out_groups(table, protocol, plan)
    assets = table["asset_id"].to_numpy().astype(object)
    return Owners(assets, np.array([group_of[asset] for asset in assets], dtype=object))

"""Drift: how far current rows are from a reference, and whether that is more than chance.

PSI and Kolmogorov's distance are effect sizes, and they set the level: a difference that is too
small to matter raises no alarm, however many rows there are. Significance only vetoes: a difference
that chance can make raises none either, however large it looks. Where so few assets are there that
no difference at all could pass, that is not called well either: they are too few.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from batteryops.errors import DataError
from batteryops.monitoring.cells import Integers
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.reference import PREDICTION, ColumnReference, Reference
from batteryops.monitoring.significance import (
    Spread,
    benjamini_hochberg,
    ks_p_value,
    psi_bound,
    share_p_value,
    spread_of,
)
from batteryops.monitoring.tallies import Tally
from batteryops.settings.sections import MonitoringSettings

Status = Literal["ok", "warning", "alert", "too_few", "missing"]
Verdict = Literal["OK", "WARNING", "ALERT", "TOO_FEW"]

AGEING: Final = "ageing"
"""The cause that raises no alert."""

_VERDICTS: Final[Mapping[Status, Verdict]] = MappingProxyType(
    # the worst first; a feature that does not come at all is no less than one that is all NaN
    {
        "alert": "ALERT",
        "missing": "ALERT",
        "warning": "WARNING",
        "too_few": "TOO_FEW",
        "ok": "OK",
    }
)


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """From where on a difference matters.

    Args:
        psi_warning: least PSI of a warning.
        psi_alert: least PSI of an alert.
        ks_warning: least Kolmogorov distance of a warning: that of two normal distributions whose
            shift has `psi_warning`.
        ks_alert: likewise of an alert.
        level: probability of a false alarm on any column, where nothing changed.
        min_expected_per_bin: with fewer rows per bin nothing is said.
        critical_features: whose alert asks for a new model.
    """

    psi_warning: float = 0.10
    psi_alert: float = 0.25
    ks_warning: float = 0.128
    ks_alert: float = 0.202
    level: float = 0.05
    min_expected_per_bin: float = 10.0
    critical_features: tuple[str, ...] = ("discharge_time_s", "voltage_drop_time_s")

    @classmethod
    def from_settings(cls, settings: MonitoringSettings) -> Self:
        """The configured limits."""
        return cls(
            psi_warning=settings.psi_warning,
            psi_alert=settings.psi_alert,
            ks_warning=settings.ks_warning,
            ks_alert=settings.ks_alert,
            level=settings.level,
            min_expected_per_bin=settings.min_expected_per_bin,
            critical_features=settings.critical_features,
        )


DEFAULT_LIMITS: Final = DriftLimits()


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """What was found of one column.

    Args:
        psi: population stability index; None where nothing can be said.
        ks: Kolmogorov's distance of the known values, 0 to 1; None without any.
        p_value: how often chance alone gives as large a distance, or as different a share of
            missing values, with assets as wholes where they are known.
        status: what follows.
        effective_bins: bins that hold any row, of the reference or the current ones.
        n: current rows, those without a value too.
        missing_share: of the current rows.
        infinite: how many current values were infinite.
        psi_critical: what PSI must exceed to be more than chance.
        design_effect: how many times fewer rows would say as much if they were independent.
        cause: why, where it was looked for and found.
        evidence: what speaks for that cause, for people.
        detail: what else there is to say of the column, for people.
    """

    psi: float | None
    ks: float | None
    p_value: float | None
    status: Status
    effective_bins: int
    n: int
    missing_share: float
    infinite: int
    psi_critical: float | None = None
    design_effect: float | None = None
    cause: str | None = None
    evidence: str = ""
    detail: str = ""

    @property
    def expected(self) -> bool:
        """Whether it is no reason to do anything."""
        return self.cause == AGEING

    def to_json(self) -> dict[str, Any]:
        """For `--json` and the monitoring run."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What was found of all columns.

    Args:
        features: by name.
        prediction: of the predictions; None where there were none, of either side.
        reference_rows: that the reference was fitted on.
        rows: current ones.
        critical_features: whose alert asks for a new model.
    """

    features: Mapping[str, FeatureDrift]
    prediction: FeatureDrift | None
    reference_rows: int
    rows: int
    critical_features: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        """The worst of all; that batteries age is as expected, and raises nothing."""
        found = {feature.status for feature in self.features.values() if not feature.expected}
        if self.prediction is not None and not self.prediction.expected:
            found.add(self.prediction.status)
        return next((verdict for status, verdict in _VERDICTS.items() if status in found), "OK")

    @property
    def retraining_wanted(self) -> tuple[str, ...]:
        """The critical features in alert; a broken sensor is mended, and ageing is expected."""
        return tuple(
            name
            for name in self.critical_features
            if name in self.features
            and self.features[name].status == "alert"
            and not self.features[name].expected
            and not (self.features[name].cause or "").startswith("sensor_fault")
        )

    def to_json(self) -> dict[str, Any]:
        """For `--json` and the monitoring run."""
        return {
            "verdict": self.verdict,
            "retraining_wanted": list(self.retraining_wanted),
            "reference_rows": self.reference_rows,
            "rows": self.rows,
            "features": {name: found.to_json() for name, found in self.features.items()},
            "prediction": None if self.prediction is None else self.prediction.to_json(),
        }


def psi(reference: ArrayLike, current: ArrayLike) -> float:
    """The population stability index of two samples, from their rows in the same bins.

    The sum over bins of (q - p) ln(q / p). Half a row is added to every bin that holds any, so
    that a bin which one side lacks counts much, but not infinitely (Jeffreys' prior).

    Args:
        reference: (bins,) rows.
        current: (bins,) rows.

    Raises:
        DataError: when a side has no rows, or they have not the same bins.

    Examples:
        >>> round(psi([500, 500], [300, 700]), 3)
        0.169
    """
    before, after = np.asarray(reference), np.asarray(current)
    if before.shape != after.shape or before.ndim != 1:
        raise DataError(f"bins of shape {before.shape} and {after.shape}; expected the same bins")
    if not before.sum() or not after.sum():
        raise DataError("PSI of no rows is not defined; expected one on each side at least")
    occupied = (before > 0) | (after > 0)
    p, q = before[occupied] + 0.5, after[occupied] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def ks(reference: ArrayLike, current: ArrayLike) -> float:
    """Kolmogorov's distance of two samples, from their rows in the same fine cells.

    Args:
        reference: (cells,) rows with a value, in the order of the values.
        current: likewise.

    Raises:
        DataError: when a side has no rows, or they have not the same cells.

    Examples:
        >>> ks([1, 1, 0, 0], [0, 0, 1, 1])
        1.0
    """
    before, after = np.asarray(reference), np.asarray(current)
    if before.shape != after.shape or before.ndim != 1:
        raise DataError(f"cells of shape {before.shape} and {after.shape}; expected the same")
    if not before.sum() or not after.sum():
        raise DataError("a distance to no rows is not defined; expected one on each side at least")
    apart = np.cumsum(before) / before.sum() - np.cumsum(after) / after.sum()
    return float(np.abs(apart).max())


def detect(
    reference: Reference, counts: Counts, limits: DriftLimits = DEFAULT_LIMITS
) -> DriftReport:
    """Judge every column, and all together.

    Args:
        reference: what is compared with.
        counts: of the current rows, in its cells.
        limits: from where on a difference matters.

    Raises:
        DataError: when the counts are of another reference, or of no rows.
    """
    if counts.fingerprint != reference.fingerprint:
        raise DataError(
            f"counts of reference {counts.fingerprint[:12]} cannot be compared with "
            f"{reference.fingerprint[:12]}; count against the one that is compared with"
        )
    if not counts.rows:
        raise DataError("there are no current rows; expected one at least")
    # a package that has answered nothing yet has no predictions to compare
    columns = {
        name: column
        for name, column in reference.columns.items()
        if name != PREDICTION or counts.tallies[name].cells.any()
    }
    spreads = {name: _spread(column, counts.tallies[name]) for name, column in columns.items()}
    measured = {
        name: _measure(column, counts.tallies[name], spreads[name], limits)
        for name, column in columns.items()
    }
    tested = [
        name for name, found in measured.items() if found.status not in {"too_few", "missing"}
    ]
    more_than_chance = benjamini_hochberg(
        [p if (p := measured[name].p_value) is not None else np.nan for name in tested],
        limits.level,
    )
    for name, significant in zip(tested, more_than_chance.tolist(), strict=True):
        measured[name] = _judged(measured[name], spreads[name], limits, significant=significant)
    prediction = measured.pop(PREDICTION, None)
    if prediction is not None and prediction.status == "missing":
        prediction = None  # predictions need not be at hand; features must
    return DriftReport(measured, prediction, reference.rows, counts.rows, limits.critical_features)


def _spread(column: ColumnReference, tally: Tally) -> Spread:
    bins = column.grid.to_bins
    return spread_of(bins(column.counts), bins(tally.cells), column.tally.groups, tally.groups)


def _measure(
    column: ColumnReference, tally: Tally, spread: Spread, limits: DriftLimits
) -> FeatureDrift:
    """Effect sizes and chances of one column; its status is `ok` until it is judged."""
    grid = column.grid
    before, after = grid.to_bins(column.counts), grid.to_bins(tally.cells)
    n, m = int(before.sum()), int(after.sum())
    found = FeatureDrift(
        psi=None,
        ks=None,
        p_value=None,
        status="missing",
        effective_bins=int(((before > 0) | (after > 0)).sum()),
        n=m,
        missing_share=tally.missing / m,
        infinite=tally.infinite,
        detail="the rows do not have this column",
    )
    if tally.absent == m:
        return found
    known = min(n - int(before[-1]), m - tally.missing) > 0
    distance = ks(column.counts[:-1], tally.cells[:-1]) if known else None
    found = replace(found, psi=psi(before, after), ks=distance)
    per_bin = min(n, m) / int((before > 0).sum())
    if per_bin < limits.min_expected_per_bin:
        side = "current" if m <= n else "reference"
        few = (
            f"{min(n, m)} {side} rows are {per_bin:.1f} per bin, expected "
            f"{limits.min_expected_per_bin:g} at least"
        )
        return replace(found, status="too_few", detail=few)
    chances = []
    if distance is not None:
        chances.append(ks_p_value(distance, spread.rows, spread.freedom))
    if before[-1] or after[-1]:
        apart = float(before[-1] / n - after[-1] / m)
        chances.append(share_p_value(apart, spread.missing_variance, spread.freedom))
    return replace(
        found,
        p_value=min(1.0, len(chances) * min(chances)),  # Bonferroni's, where there are two
        status="ok",
        psi_critical=psi_bound(spread, limits.level),
        design_effect=spread.design_effect,
        detail=_told(before, after, tally),
    )


def _judged(
    found: FeatureDrift, spread: Spread, limits: DriftLimits, *, significant: bool
) -> FeatureDrift:
    value, distance = found.psi or 0.0, found.ks or 0.0
    beyond = significant and value > (found.psi_critical or 0.0)
    if value < limits.psi_warning and distance < limits.ks_warning:
        return found
    if not beyond:
        hopeless = not spread.rows or ks_p_value(1.0, spread.rows, spread.freedom) > limits.level
        chance = (
            "large, but from so few assets no difference could be told from chance"
            if hopeless
            else "large, but chance alone makes such differences"
        )
        return replace(
            found,
            status="too_few" if hopeless else "ok",
            detail="; ".join(filter(None, [chance, found.detail])),
        )
    alert = value >= limits.psi_alert or distance >= limits.ks_alert
    return replace(found, status="alert" if alert else "warning")


def _told(before: Integers, after: Integers, tally: Tally) -> str:
    told = []
    if tally.infinite:
        told.append(f"{tally.infinite} infinite values, counted at the ends")
    if tally.absent:
        told.append(f"{tally.absent} rows do not have this column")
    if not before[:-1].any():
        told.append("the reference has no values")
    elif not after[:-1].any():
        told.append("no values at all")
    if np.count_nonzero(before) == 1 and before[:-1].any():
        told.append("constant in the reference")
    return "; ".join(told)

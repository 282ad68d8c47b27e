"""One look at the window of the prediction log: all that a monitoring run counts, in one pass.

The log is read in chunks, and what each adds up to is kept: memory grows with labels and vehicles,
and never with the rows of the log.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self

import polars as pl

from batteryops.features.view import FeatureView
from batteryops.lifecycle.drift import RECENT_ROWS, count
from batteryops.lifecycle.drift_references import profile_names
from batteryops.models.package import ModelPackage
from batteryops.monitoring.context import ORDER
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.error_estimate import (
    ErrorEstimator,
    EstimateSums,
    distances_from_widths,
)
from batteryops.monitoring.error_sums import ErrorSums
from batteryops.monitoring.label_join import LabelTable
from batteryops.monitoring.production_quality import QualityCounts, Watched
from batteryops.monitoring.reference import PREDICTION, Reference
from batteryops.schema import Profile
from batteryops.settings import Settings

_MOST_FRAMES: Final = 64  # of recent rows that are kept apart until they are joined


@dataclass(frozen=True, slots=True)
class Looked:
    """What is looked for.

    Args:
        package: in service; None where there is none, and answers are only joined to labels.
        reference: of the package; None where it has none.
        estimator: of the package's errors, likewise.
        labels: that answers are joined to.
        profile_of: the profile of a vehicle.
        old_before: answers before this time should have a label.
    """

    package: ModelPackage | None
    reference: Reference | None
    estimator: ErrorEstimator | None
    labels: LabelTable
    profile_of: Callable[[str], Profile]
    old_before: datetime

    @property
    def view(self) -> FeatureView | None:
        """Whose features are looked at."""
        return None if self.package is None else self.package.view

    @property
    def features(self) -> tuple[str, ...]:
        """Their names."""
        return () if self.view is None else self.view.names


@dataclass(frozen=True, slots=True, eq=False)
class WindowSums:
    """What the window of the log adds up to.

    Args:
        rows: answers that went out.
        other_views: those of them whose question was that of another view, which other versions
            answer: they are in `errors` and nowhere else.
        drift: in the cells of the reference.
        errors: beside labels.
        estimates: of errors without labels.
        quality: of what was asked and answered.
        recent: the last rows, at most `RECENT_ROWS`: `asset_id`, `op_index` (when
            it was answered) and the features.
    """

    rows: int
    other_views: int
    drift: Counts | None
    errors: ErrorSums
    estimates: EstimateSums
    quality: QualityCounts | None
    recent: pl.DataFrame

    @classmethod
    def of(
        cls,
        looked: Looked,
        frames: Iterable[pl.DataFrame],
        settings: Settings,
    ) -> Self:
        """Add up the frames of a window, in the order of the log.

        Args:
            looked: what is looked for.
            frames: as `PredictionLog.frames` yields them, with the features of the view.
            settings: bands of temperature.
        """
        profiles = profile_names(settings)
        rows, others = 0, 0
        drift: Counts | None = None
        errors = ErrorSums.scan(looked.labels, (), old_before=looked.old_before)
        estimates = EstimateSums()
        watched = None if looked.view is None else Watched(looked.view.features, looked.profile_of)
        quality = QualityCounts.scan(watched, ()) if watched else None
        recent: list[pl.DataFrame] = []
        for frame in frames:
            errors += ErrorSums.of(looked.labels, frame, old_before=looked.old_before)
            served = frame.filter("served")
            rows += served.height
            if looked.package is not None and watched is not None and quality is not None:
                asked = _of_view(served, looked.package)
                others += served.height - asked.height
                quality += QualityCounts.of(watched, asked)
                own = asked.filter(pl.col("package_fingerprint") == looked.package.fingerprint)
                if looked.estimator is not None:
                    away = distances_from_widths(own, looked.package.intervals)
                    estimates += EstimateSums.of(looked.estimator, own, away)
                if looked.reference is not None and asked.height:
                    by = looked.package.fingerprint
                    found = _counted(looked.reference, asked, by, settings, profiles)
                    drift = found if drift is None else drift + found
                recent = _latest([*recent, _inputs(asked, looked.features)])
        kept = pl.concat(recent).tail(RECENT_ROWS) if recent else pl.DataFrame()
        return cls(rows, others, drift, errors, estimates, quality, kept)


def _of_view(served: pl.DataFrame, package: ModelPackage) -> pl.DataFrame:
    """The rows whose question was that of the package's view: it has what the view requires."""
    complete = pl.all_horizontal(pl.col(package.view.required).is_not_null())
    own = pl.col("package_fingerprint") == package.fingerprint
    return served.filter(own | complete)


def _counted(
    reference: Reference,
    asked: pl.DataFrame,
    fingerprint: str,
    settings: Settings,
    profiles: Callable[[pl.DataFrame], Mapping[str, str]],
) -> Counts:
    """Features of all that was asked; predictions where this very package answered."""
    by_it = pl.col("package_fingerprint") == fingerprint
    told = asked.with_columns(pl.when(by_it).then("capacity_ah").alias(PREDICTION))
    counts, of_own = (
        count(
            reference,
            _inputs(rows, [*reference.features, PREDICTION]),
            settings,
            profiles,
            prediction=PREDICTION,
        )
        for rows in (told, told.filter(by_it))
    )
    if reference.prediction is None:
        return counts
    # others' answers are no missing ones
    return replace(counts, tallies={**counts.tallies, PREDICTION: of_own.tallies[PREDICTION]})


def _inputs(rows: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    keys = (pl.col("vehicle_id").alias("asset_id"), pl.col("answered_at").alias(ORDER))
    return rows.select(*keys, *features)


def _latest(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """The end of all, in as few frames as hold it."""
    if sum(frame.height for frame in frames[1:]) >= RECENT_ROWS:
        frames = frames[1:]
    if sum(frame.height for frame in frames) > 2 * RECENT_ROWS or len(frames) > _MOST_FRAMES:
        return [pl.concat(frames).tail(RECENT_ROWS)]
    return frames

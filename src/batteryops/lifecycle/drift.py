"""Drift of current rows from a reference, each of which is named in one of several ways."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from batteryops.errors import DataError
from batteryops.lifecycle.drift_references import NamedReference, profile_names
from batteryops.lifecycle.drift_tables import ASSET, TableFiles, features_in, listed, renamings
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.progress import Progress
from batteryops.monitoring.causes import explain
from batteryops.monitoring.cells import Grid, Integers
from batteryops.monitoring.columns import column_values
from batteryops.monitoring.context import ORDER
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import (
    DriftLimits,
    DriftReport,
    FeatureDrift,
    Status,
    detect,
)
from batteryops.monitoring.reference import PREDICTION, Reference
from batteryops.monitoring.self_test import SelfTest, run_self_test
from batteryops.monitoring.strata import TEMPERATURES, strata_of
from batteryops.records.predictions import PredictionLog
from batteryops.settings import Settings

LOG: Final = "log"
"""Names the recent window of the prediction log as current rows."""

RECENT_ROWS: Final = 20_000
"""Rows of recent traffic that the self-test takes, at most."""

Standing = Status | Literal["expected"]

SEVERITY: Final[tuple[Standing, ...]] = (
    "alert",
    "missing",
    "warning",
    "too_few",
    "expected",
    "ok",
)
"""In the order in which features are listed."""

_NEARLY_ALL: Final = 0.99


@dataclass(frozen=True)
class Comparison:
    """Current rows beside a reference.

    Args:
        reference: what was compared with.
        reference_name: in words.
        current_name: in words.
        counts: of the current rows.
        report: what was found.
        limits: from where on a difference matters.
        notes: for whoever reads the results.
    """

    reference: Reference
    reference_name: str
    current_name: str
    counts: Counts
    report: DriftReport
    limits: DriftLimits
    notes: tuple[str, ...]

    @cached_property
    def ordered(self) -> Mapping[str, FeatureDrift]:
        """Features, and predictions where there are any: the worst first, then by PSI."""
        return by_severity(self.report)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        told = self.report.to_json()
        return told | {
            "features": {
                name: found.to_json()
                for name, found in self.ordered.items()
                if name in self.report.features
            },
            "reference": self.reference_name,
            "current": self.current_name,
            "notes": list(self.notes),
        }


def standing(found: FeatureDrift) -> Standing:
    """The status of a column, or that its drift is as expected and no reason to do anything."""
    return "expected" if found.expected and found.status in {"alert", "warning"} else found.status


def by_severity(report: DriftReport) -> dict[str, FeatureDrift]:
    """Features, and predictions where there are any: the worst first, then by PSI."""
    found = dict(report.features)
    if report.prediction is not None:
        found[PREDICTION] = report.prediction

    def rank(name: str) -> tuple[int, float, str]:
        return SEVERITY.index(standing(found[name])), -(found[name].psi or 0.0), name

    return {name: found[name] for name in sorted(found, key=rank)}


def compare(
    named: NamedReference,
    current: str,
    settings: Settings,
    progress: Progress,
    *,
    prediction: str | None = None,
) -> Comparison:
    """Count current rows in the cells of a reference, and judge.

    Args:
        named: what is compared with.
        current: a table in a `.csv` or `.parquet` file, a folder of them, or `log`: what went out
            in the window of the prediction log.
        settings: limits, profiles, bands of temperature, where the log is.
        progress: told what is being done.
        prediction: the column of a table that holds a model's predictions.

    Raises:
        DataError: a table that cannot be read or compared, or no rows at all.
        RecordsError: the prediction log is out of reach.
    """
    reference, notes = named.reference, list(named.notes)
    profiles = profile_names(settings)
    limits = DriftLimits.from_settings(settings.monitoring)
    if current == LOG:
        name = f"last {settings.monitoring.window_days:g} days of the prediction log"
        progress.step(f"count the {name}")
        pieces = _logged([*reference.features], settings)
        predicted: str | None = PREDICTION
    else:
        table = TableFiles.open(Path(current))
        name, predicted = table.path.name, prediction
        notes += renamings(table)
        if prediction is not None and prediction not in table.names:
            raise DataError(f"{current} has no column {prediction}; it has {listed(table.names)}")
        if not set(reference.features) & set(table.names):
            raise DataError(
                f"{current} has none of the features {listed([*reference.features])}; it has "
                f"{listed(table.names)}"
            )
        progress.step(f"count {name}")
        keys = [ASSET, ORDER, *filter(None, [prediction])]
        wanted = [*reference.features, *TEMPERATURES, *keys]
        pieces = table.pieces(wanted, progress)
    counts: Counts | None = None
    for piece in pieces:
        try:
            found = count(reference, piece, settings, profiles, prediction=predicted)
        except DataError as error:
            raise DataError(f"{current}: {error}") from error
        counts = found if counts is None else counts + found
    if counts is None:
        raise DataError(f"{name} has no rows; expected one at least")
    progress.step("judge")
    report = judge_drift(reference, counts, settings)
    return Comparison(reference, named.name, name, counts, report, limits, tuple(notes))


def count(
    reference: Reference,
    rows: pl.DataFrame,
    settings: Settings,
    profiles: Callable[[pl.DataFrame], Mapping[str, str]],
    *,
    prediction: str | None,
) -> Counts:
    """Count rows in the cells of a reference, by stratum where it has any.

    Raises:
        DataError: when a feature or the predictions are no numbers.
    """
    bands = settings.monitoring.temperature_bands_c
    strata = strata_of(rows, profiles(rows), bands) if reference.strata else None
    predicted = (
        column_values(rows, prediction)
        if prediction is not None and prediction in rows.columns
        else None
    )
    return Counts.of(reference, rows, asset=ASSET, strata=strata, predictions=predicted)


def judge_drift(reference: Reference, counts: Counts, settings: Settings) -> DriftReport:
    """What the counts say by the configured limits, with the cause of what drifts."""
    limits = DriftLimits.from_settings(settings.monitoring)
    return explain(
        reference,
        counts,
        detect(reference, counts, limits),
        limits=limits,
        sentinels=settings.quality.sentinels,
    )


def look_for_planted(traffic: str, settings: Settings, progress: Progress) -> SelfTest:
    """Plant known shifts into a copy of recent traffic, and see how soon they are found.

    Args:
        traffic: as `current` of `compare`. Of the log, the last `RECENT_ROWS` rows are taken, with
            the features of the champion.
        settings: limits, and where everything is.
        progress: told what is being done.

    Raises:
        DataError: a table that cannot be read, or too few rows.
        RecordsError, RegistryError, PackageError: the log or the model cannot be had.
    """
    if traffic == LOG:
        progress.step("read the log")
        features = load_model("champion", settings).package.view.names
        rows = pl.DataFrame()
        for frame in _logged(features, settings):
            rows = pl.concat([rows, frame.drop(PREDICTION).drop_nulls(ASSET)], how="diagonal")
            rows = rows.tail(RECENT_ROWS)
    else:
        table = TableFiles.open(Path(traffic))
        progress.step(f"read {table.path.name}")
        rows = pl.concat([*table.pieces(table.names, progress)], how="diagonal_relaxed")
        features, _ = features_in(rows.columns, dict(rows.schema), (), traffic)
    progress.step("plant shifts")
    return self_test_of(rows, features, settings, progress)


def self_test_of(
    rows: pl.DataFrame, features: Sequence[str], settings: Settings, progress: Progress
) -> SelfTest:
    """The self-test on rows, by the configured limits.

    Raises:
        DataError: too few rows.
    """
    return run_self_test(
        rows,
        features,
        limits=DriftLimits.from_settings(settings.monitoring),
        sentinels=settings.quality.sentinels,
        progress=progress.within,
    )


def quantile_of(grid: Grid, cells: Integers, share: float) -> float:
    """The least cut with at least this share of counted values up to it.

    Infinite where it lies beyond all that the grid was made of; NaN where no value was counted.

    Args:
        grid: of the reference.
        cells: (n_cells,) rows in it, of the reference or of others.
        share: 0 to 1.
    """
    up_to = cells[:-1].cumsum()
    if not grid.cuts.size or not up_to[-1]:
        return float("nan")
    place = int(up_to.searchsorted(max(share * up_to[-1], 1)))
    if place == 0:
        return float("-inf")
    return float(grid.cuts[place]) if place < grid.cuts.size else float("inf")


def meaning(comparison: Comparison, name: str) -> str:
    """What was found of a column, in a sentence or two for people."""
    found, column = comparison.ordered[name], comparison.reference.columns[name]
    tally = comparison.counts.tallies[name]
    told = []
    if found.status in {"alert", "warning"}:
        told.append(_moved(column.grid, column.counts, tally.cells))
        before = int(column.counts[-1]) / max(int(column.counts.sum()), 1)
        if abs(found.missing_share - before) >= 0.005:  # noqa: PLR2004 - what one decimal shows
            told.append(f"missing in {found.missing_share:.1%} of the rows, was {before:.1%}")
    elif found.status == "ok" and not found.detail:
        told.append("as in the reference")
    if found.detail:
        told.append(found.detail)
    return "; ".join(told)


def causes_of(comparison: Comparison) -> list[tuple[str, tuple[str, ...], str]]:
    """Each cause that was found, the columns it is found in, and what speaks for it."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, found in comparison.ordered.items():
        if found.cause is not None and found.evidence:
            alike.setdefault((found.cause.replace("_", " "), found.evidence), []).append(name)
    return [(cause, tuple(names), evidence) for (cause, evidence), names in alike.items()]


def _moved(grid: Grid, before: Integers, after: Integers) -> str:
    """Where the middle of the values went."""
    was, now = quantile_of(grid, before, 0.5), quantile_of(grid, after, 0.5)
    if now == float("inf"):
        return f"most values lie above all of the reference, whose median is {was:.4g}"
    if now == float("-inf"):
        return f"most values lie below all of the reference, whose median is {was:.4g}"
    if after[:-1].max() >= _NEARLY_ALL * after[:-1].sum():
        return f"nearly all values are {now:.4g}, the median was {was:.4g}"
    if now == was:
        return f"the median stays at {was:.4g}, the values lie otherwise about it"
    return f"the median is {now:.4g}, was {was:.4g}"


def _logged(features: Sequence[str], settings: Settings) -> Iterator[pl.DataFrame]:
    """What went out in the window of the log."""
    until = datetime.now(UTC)
    since = until - timedelta(days=settings.monitoring.window_days)
    with closing(PredictionLog(settings.predictions_url)) as log:
        for frame in log.frames(since, until, features=features):
            yield frame.filter("served").select(
                *features,
                pl.col("vehicle_id").alias(ASSET),
                pl.col("answered_at").alias(ORDER),
                pl.col("capacity_ah").alias(PREDICTION),
            )

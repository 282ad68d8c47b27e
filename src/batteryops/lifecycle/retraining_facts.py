"""The facts of a moment that the decision to retrain is made from, gathered from the records.

What the champion's error is, is asked of the labels that it has not learned: what it says to their
questions, beside them. While its features drift, these are the labels of questions that were asked
since: those of before say nothing of what came. Questions of before a software update that the
champion has learned of are put to it as they would be asked now.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from batteryops.evaluation.ab_statistics import clustered_mean, interval
from batteryops.features.views import matrix
from batteryops.lifecycle.loading import LoadedModel
from batteryops.lifecycle.new_labels import fresh_labels
from batteryops.lifecycle.realignment import realign
from batteryops.lifecycle.trigger_facts import Facts, FeatureFact, Trigger, TriggerRules
from batteryops.lifecycle.update_package import labels_until, realignments
from batteryops.monitoring.drift_detection import AGEING
from batteryops.records.monitoring_runs import MonitoringRun, MonitoringRuns
from batteryops.records.predictions import PredictionLog
from batteryops.records.retraining_runs import PROBATION, Request, RetrainingRun, RetrainingRuns
from batteryops.schema import LABEL
from batteryops.settings import Settings

DECISION: Final = "decision"
"""Kind of the run on record that keeps what was decided, and from which facts."""

WEEKLY: Final[Trigger] = "weekly"

_FAULT: Final = "sensor_fault"
_WEEK: Final = timedelta(days=7)
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FEWEST: Final = 2


@dataclass(frozen=True, slots=True)
class Observed:
    """What was there to look at.

    Args:
        champion: the model in service.
        document: of the newest monitoring run.
        requests: for a retraining, that no run has answered.
    """

    champion: LoadedModel
    document: Mapping[str, Any]
    requests: tuple[Request, ...]


def gather(settings: Settings, runs: RetrainingRuns, seen: Observed, *, now: datetime) -> Facts:
    """Look everything up.

    Args:
        settings: where it is, and which features are critical.
        runs: the retrainings.
        seen: what the caller looked at already.
        now: the moment, UTC.

    Raises:
        RecordsError, PackageError: a store or a package cannot be read.
    """
    package = seen.champion.package
    decisions = MonitoringRuns.beside(runs).since(DECISION, now - _since(settings))
    drift = _drift(seen.document)
    drift_since = _drift_since(drift, decisions, seen, settings, now)
    fresh = fresh_labels(settings, package.view, since=labels_until(package), until=now)
    rows = realign(fresh.table, realignments(package))
    if drift_since is not None:
        rows = rows.filter(pl.col("answered_at") >= drift_since)
    started = runs.since(_EVER)
    last_started = started[-1].started_at if started else None
    model_since = package.manifest.created_at
    begun = model_since if last_started is None else max(last_started, model_since)
    return Facts(
        now=now,
        model_since=model_since,
        last_started_at=last_started,
        last_ended_at=_last_ended(started),
        last_weekly_at=_newest(decisions, _fired_weekly),
        runs_in_week=sum(now - _WEEK < run.started_at <= now for run in started),
        open_run=runs.open(),
        requests=seen.requests,
        **_errors(seen.champion, rows),
        drift=drift,
        drift_since=drift_since,
        fresh_labels=rows.height,
        fresh_label_vehicles=int(rows["asset_id"].n_unique()),
        new_trips=PredictionLog.beside(runs).answered_since(begun),
        last_asked_at=_newest(decisions, lambda found: found["action"] == "ask_for_labels"),
    )


def _errors(champion: LoadedModel, rows: pl.DataFrame) -> dict[str, Any]:
    """How far off the champion is on labels that it has not learned; nothing where it is not known.

    Vehicles are what was drawn: the bound is that of a mean whose answers agree within one.
    """
    vehicles = int(rows["asset_id"].n_unique())
    if vehicles < _FEWEST:
        return {}
    said = champion.package.predict_batch(matrix(champion.package.view, rows))
    off = np.abs(said - rows[LABEL].to_numpy())
    sums = (
        rows.select("asset_id")
        .with_columns(off=pl.Series(off))
        .group_by("asset_id")
        .agg(pl.col("off").sum(), n=pl.len())
    )
    found = clustered_mean(sums["off"].to_numpy(), sums["n"].to_numpy())
    return {
        "mae_ah": float(found.effect),
        "mae_low_ah": interval(found).low,
        "n_labels": rows.height,
        "n_vehicles": vehicles,
    }


def _drift(document: Mapping[str, Any]) -> dict[str, FeatureFact]:
    features: Mapping[str, Mapping[str, Any]] = document["drift"].get("features", {})
    return {
        name: FeatureFact(found["psi"], found["status"], found["cause"])
        for name, found in features.items()
    }


def _drift_since(
    drift: Mapping[str, FeatureFact],
    decisions: Sequence[MonitoringRun],
    seen: Observed,
    settings: Settings,
    now: datetime,
) -> datetime | None:
    """Since when critical features have been drifting, also under another champion before."""
    critical = set(TriggerRules.of(settings).critical_features)
    alarmed = any(
        found.status == "alert" and found.cause != AGEING and not _is_fault(found.cause)
        for name, found in drift.items()
        if name in critical
    )
    if not alarmed:
        return None
    before = decisions[-1].document if decisions else {}
    if since := before.get("facts", {}).get("drift_since"):
        return datetime.fromisoformat(since)
    at = datetime.fromisoformat(seen.document["at"])
    return min(at, now)


def _is_fault(cause: str | None) -> bool:
    return cause is not None and cause.startswith(_FAULT)


def _since(settings: Settings) -> timedelta:
    """How far back decisions matter."""
    return _WEEK + timedelta(days=settings.retraining.ask_again_days)


def _newest(
    decisions: Sequence[MonitoringRun], wanted: Callable[[Mapping[str, Any]], bool]
) -> datetime | None:
    times = (found.at for found in reversed(decisions) if wanted(found.document))
    return next(times, None)


def _fired_weekly(decision: Mapping[str, Any]) -> bool:
    return any(fired["trigger"] == WEEKLY for fired in decision["fired"])


def _last_ended(started: Sequence[RetrainingRun]) -> datetime | None:
    """When the run that is over and began last was; one that was promoted was then."""
    for run in reversed(started):
        if run.ended or run.state == PROBATION:
            promoted = run.document.get("promoted_at")
            return run.updated_at if promoted is None else datetime.fromisoformat(promoted)
    return None

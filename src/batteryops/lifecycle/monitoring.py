"""One monitoring run: what the log, the labels and the ledger say of the model in service.

A run reads, adds up, judges and puts one document on record. What it cannot say it leaves out or
refuses with a reason; it never writes a zero that was not measured.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from batteryops.errors import DataError, PackageError, RegistryError
from batteryops.lifecycle import run_verdicts
from batteryops.lifecycle.drift import judge_drift, self_test_of
from batteryops.lifecycle.loading import LoadedModel, load_model
from batteryops.lifecycle.log_window import Looked, WindowSums
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.run_verdicts import Part, Word, worst
from batteryops.models.package import ModelPackage
from batteryops.monitoring.drift_detection import DriftReport
from batteryops.monitoring.error_estimate import ERROR_ESTIMATE, ErrorEstimator
from batteryops.monitoring.label_join import LabelTable, label_table
from batteryops.monitoring.performance import Judging, Performance, judge
from batteryops.monitoring.production_quality import REPEATING, ProductionQuality
from batteryops.monitoring.reference import Reference, reference_of
from batteryops.records.labels import CLOCKS_DIFFER, Labels
from batteryops.records.ledger import Ledger
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns
from batteryops.records.predictions import PredictionLog
from batteryops.records.retraining_runs import RetrainingRuns
from batteryops.settings import Settings

NO_ROWS: Final = "nothing was answered in the window"

_AHEAD: Final = timedelta(days=366)  # so far in the future answers of a wrong clock are looked for
_LEAST: Final = timedelta(microseconds=1)
_KNOWN_VEHICLES: Final = 65_536  # that are looked up once


@dataclass(frozen=True, slots=True)
class Monitored:
    """What one run found.

    Args:
        document: as it is on record.
        parts: judged, in the order in which they are shown.
        drift: None where it could not be judged.
    """

    document: Mapping[str, Any]
    parts: tuple[Part, ...]
    drift: DriftReport | None

    @property
    def verdict(self) -> Word:
        """The worst of all parts."""
        return worst(self.parts)


def run_monitoring(
    settings: Settings,
    progress: Progress,
    *,
    model: str = "champion",
    self_test: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Monitored:
    """Look at the window of the log that ends now, and put what was found on record.

    Args:
        settings: window, limits, and where everything is.
        progress: told what is being done.
        model: in service: a version, an alias or the folder of a package. Where there is none, or
            it cannot be loaded, the run says so, and judges what can be judged without it.
        self_test: also plant known shifts into a copy of the last rows, and tell how soon they are
            found.
        now: the clock.

    Raises:
        RecordsError: the prediction log or the ledger is out of reach. Nothing is on record then.
    """
    started, until = time.perf_counter(), now()
    since = until - timedelta(days=settings.monitoring.window_days)
    progress.step("load the model in service")
    loaded, refused = _load(model, settings)
    package = None if loaded is None else loaded.package
    reference, refused = _reference(package, refused)
    with closing(PredictionLog(settings.predictions_url)) as log:
        progress.step("read the labels")
        looked = Looked(
            package=package,
            reference=reference,
            estimator=_estimator(package),
            labels=_labels(Labels.beside(log), settings, since),
            profile_of=lru_cache(_KNOWN_VEHICLES)(settings.profile_of),
            old_before=until - timedelta(days=settings.monitoring.label_lag_alert_days),
        )
        progress.step("read the log")
        # servers whose clocks are ahead by no more than clocks differ are answered for too
        last = until + CLOCKS_DIFFER
        frames = log.frames(since, last, features=looked.features)
        sums = WindowSums.of(looked, frames, settings)
        ahead = sum(frame.height for frame in log.frames(last, last + _AHEAD))
        tested = _self_test(sums, looked, settings, progress) if self_test else {}
        progress.step("verify the ledger")
        with Ledger(settings.ledger_url) as ledger:
            check = ledger.verify()
        progress.step("judge, and put it on record")
        performance = _performance(sums, looked, settings, since, until)
        drift = None
        if reference is not None and sums.drift is not None:
            drift = judge_drift(reference, sums.drift, settings)
        quality = _quality(sums, package, settings)
        estimate = None if looked.estimator is None else sums.estimates.estimate(looked.estimator)
        parts = (
            run_verdicts.of_drift(drift, refused),
            run_verdicts.of_predictions(drift),
            run_verdicts.of_performance(performance, estimate, settings),
            run_verdicts.of_quality(quality, settings),
            run_verdicts.of_ledger(check),
        )
        runs = MonitoringRuns.beside(log)
        newest = runs.newest(MONITOR)
        retraining = RetrainingRuns.beside(log).counts()
        back = None if newest is None or newest.at < until else newest.at - until
        document: dict[str, Any] = {
            "at": until.isoformat(),
            "seconds": round(time.perf_counter() - started, 3),
            "window_days": settings.monitoring.window_days,
            **_model(loaded),
            "rows": sums.rows,
            "verdict": worst(parts),
            "verdicts": {part.name: part.to_json() for part in parts},
            "drift": {"refused": refused} if drift is None else drift.to_json(),
            "performance": performance.to_json(),
            **({} if estimate is None else {"error_estimate": estimate.to_json()}),
            **({} if quality is None or not quality.rows else {"quality": quality.to_json()}),
            **tested,
            "ledger": {"entries": check.length, "intact": check.intact, "head": check.head},
            **({"retraining": retraining} if retraining else {}),
            **({"rows_of_other_views": sums.other_views} if sums.other_views else {}),
            **({"rows_from_the_future": ahead} if ahead else {}),
            **({"clock_went_back_s": back.total_seconds()} if back is not None else {}),
        }
        # the newest by time is told: a run before a clock went back must not hide those after it
        at = until if newest is None or back is None else newest.at + _LEAST
        run = runs.add(MONITOR, at, document)
    return Monitored(run.document, parts, drift)


def notes_of(document: Mapping[str, Any]) -> list[str]:
    """What a run says beside its verdicts, in sentences."""
    told = []
    if self_test := document.get("self_test"):
        told.append(f"self-test: {_planted(self_test)}")
    if rows := document.get("rows_of_other_views"):
        told.append(f"{rows} answers are to questions of another view, and only joined to labels")
    if rows := document.get("rows_from_the_future"):
        told.append(f"{rows} answers are dated in the future: look at the clocks of the servers")
    if (back := document.get("clock_went_back_s")) is not None:
        told.append(
            f"the run before is dated {back:.0f} s later than this one: the clock went back"
        )
    return told


def _planted(self_test: Mapping[str, Any]) -> str:
    """What came of planted shifts, in a sentence."""
    if "refused" in self_test:
        return str(self_test["refused"])
    delays: Mapping[str, int | None] = self_test["delay_rows"]
    found = [f"{shift} after {rows} rows" for shift, rows in delays.items() if rows is not None]
    unseen = [shift for shift, rows in delays.items() if rows is None]
    told = [
        f"found {', '.join(found) or 'nothing'}",
        f"not found in {self_test['rows']} rows: {', '.join(unseen)}" if unseen else "",
        f"false alarms in {self_test['false_alarm_share']:.1%} of {self_test['runs']} draws",
    ]
    return "; ".join(filter(None, told))


def _load(model: str, settings: Settings) -> tuple[LoadedModel | None, str]:
    try:
        return load_model(model, settings), NO_ROWS
    except (PackageError, RegistryError) as error:
        return None, f"no model in service: {error}"


def _reference(package: ModelPackage | None, refused: str) -> tuple[Reference | None, str]:
    """The package's reference, or why there is none."""
    if package is None:
        return None, refused
    try:
        reference = reference_of(package)
        reference.require_view(package.view)
    except (PackageError, DataError) as error:
        return None, str(error)
    return reference, refused


def _estimator(package: ModelPackage | None) -> ErrorEstimator | None:
    if package is None or f"{ERROR_ESTIMATE}.json" not in package.manifest.files:
        return None
    return ErrorEstimator.from_json(package.document(ERROR_ESTIMATE))


def _labels(labels: Labels, settings: Settings, since: datetime) -> LabelTable:
    """The labels that may belong to answers of the window: none arrived before it was measured."""
    tolerance = timedelta(days=settings.monitoring.label_tolerance_days)
    return label_table(
        labels.frame(since - tolerance - CLOCKS_DIFFER, corrected=True), tolerance=tolerance
    )


def _performance(
    sums: WindowSums, looked: Looked, settings: Settings, since: datetime, until: datetime
) -> Performance:
    return judge(
        sums.errors,
        profile_of=looked.profile_of,
        since=since,
        until=until,
        judging=Judging(
            min_labels=settings.monitoring.min_labels,
            resamples=settings.evaluation.bootstrap_resamples,
            confidence=settings.evaluation.confidence,
            seed=settings.training.seed,
        ),
    )


def _self_test(
    sums: WindowSums, looked: Looked, settings: Settings, progress: Progress
) -> dict[str, Any]:
    progress.step("plant shifts into the last rows")
    if looked.package is None or sums.recent.is_empty():
        return {"self_test": {"refused": NO_ROWS}}
    try:
        found = self_test_of(sums.recent, looked.features, settings, progress)
    except DataError as error:
        return {"self_test": {"refused": str(error)}}
    return {"self_test": found.to_json()}


def _quality(
    sums: WindowSums, package: ModelPackage | None, settings: Settings
) -> ProductionQuality | None:
    if sums.quality is None or package is None:
        return None
    known = f"{REPEATING}.json" in package.manifest.files  # not of older packages
    return sums.quality.quality(
        repeating=package.document(REPEATING) if known else (),
        max_out_of_range_share=settings.monitoring.max_out_of_range_share,
    )


def _model(loaded: LoadedModel | None) -> dict[str, dict[str, str]]:
    if loaded is None:
        return {}
    return {"model": {"version": loaded.version, "fingerprint": loaded.package.fingerprint}}

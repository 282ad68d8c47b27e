"""The newest monitoring run as metrics: for the server's /metrics, and as a text file."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from batteryops.errors import BatteryOpsError
from batteryops.files import replacing
from batteryops.monitoring.drift_detection import AGEING
from batteryops.monitoring.metric_names import BY_NAME, RUN_METRICS, STATUS

logger = logging.getLogger(__name__)

Document = Mapping[str, Any]
Read = Callable[[], Document | None]
Sample = tuple[str, tuple[str, ...], float]

READ_EVERY_S: Final = 15.0
"""At most so often the database is asked, however many scrape."""

_WAIT_S: Final = 0.5  # a scrape waits so long for a fresh document, then tells the one it knows
_CLOSE_S: Final = 5.0  # for a database that does not answer
_LABEL_AGES: Final = {"newest": "0", "p50": "0.5", "p90": "0.9"}
_OF_ALL: Final = {
    "mae_ah": "model_mae",
    "mae_low_ah": "model_mae_low",
    "mae_high_ah": "model_mae_high",
    "r2": "model_r2",
    "bias_ah": "model_bias_ah",
    "interval_coverage": "model_interval_coverage",
    "n": "model_predictions_joined",
}
_BY_FEATURE: Final = {
    "missing": "feature_missing_share",
    "out_of_range": "feature_out_of_range_share",
    "stuck": "feature_stuck_share",
}
_OF_PREDICTIONS: Final = {
    "duplicates": "predictions_duplicate_share",
    "cycle_count_back": "cycle_count_back",
    "out_of_physical_range": "predictions_out_of_range_share",
    "out_of_domain": "predictions_out_of_domain_share",
    "refused": "predictions_refused_share",
}
_NOT_BY: Final = "vehicle"  # a series each would be as many as there are vehicles


class NewestRun:
    """The newest document, read at most every few seconds, in a thread of its own.

    Whoever asks never waits longer than half a second, and never sees a failure: while the
    database is away, the document that was known stays, and `readable` says so. Safe between
    threads.

    Args:
        read: gives the newest document; None where there is none yet.
        every_s: at most so often.
        wait_s: how long a caller waits for a fresh one.
    """

    def __init__(self, read: Read, every_s: float = READ_EVERY_S, wait_s: float = _WAIT_S) -> None:
        self._read = read
        self._every_s = every_s
        self._wait_s = wait_s
        self._known: Document | None = None
        self._read_at = -math.inf
        self._done: threading.Event | None = None
        self._closed = False
        self._turn = threading.Lock()
        self.readable = True
        """Whether the last attempt to read succeeded."""

    def __call__(self) -> Document | None:
        """The newest document that is known."""
        with self._turn:
            due = not self._closed and time.monotonic() - self._read_at >= self._every_s
            if due and self._done is None:
                self._done = threading.Event()
                threading.Thread(target=self._refresh, name="monitoring", daemon=True).start()
            done = self._done
        if done is not None:
            done.wait(self._wait_s)
        return self._known

    def close(self, wait_s: float = _CLOSE_S) -> None:
        """Read no more, and let a reading that is under way end: it uses the database.

        Args:
            wait_s: at most so long.
        """
        with self._turn:
            self._closed = True
            done = self._done
        if done is not None:
            done.wait(wait_s)

    def _refresh(self) -> None:
        try:
            self._known = self._read()
        except Exception as error:
            if self.readable:
                expected = isinstance(error, BatteryOpsError)
                logger.warning(
                    "the newest monitoring run cannot be read: %s",
                    error,
                    exc_info=None if expected else error,
                )
            self.readable = False
        else:
            self.readable = True
        with self._turn:
            self._read_at = time.monotonic()
            done, self._done = self._done, None
        if done is not None:
            done.set()


class MonitoringCollector(Collector):
    """Tells the newest monitoring run to Prometheus.

    What the document does not hold has no sample, and a document that is not what it should be
    fails no scrape: what can be told of it is.

    Args:
        read: gives the newest document; None where there is none.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The metrics of `RUN_METRICS` that the document speaks of."""
        document = self._read()
        samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        for name, labels, value in () if document is None else samples_of(document):
            samples.setdefault(name, []).append((labels, value))
        for metric in RUN_METRICS:
            if metric.name not in samples:
                continue
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in samples[metric.name]:
                family.add_metric(labels, value)
            yield family

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is, is known only when it is read."""
        return ()


def write_textfile(document: Document, path: Path) -> None:
    """Write a run's metrics for the textfile collector of Prometheus' node exporter.

    So the scheduled job is seen where no server runs. The file appears in one step.

    Args:
        document: of the run.
        path: a file in the collector's folder, whose name has to end in `.prom`.

    Raises:
        DataError: where it cannot be written.
    """
    registry = CollectorRegistry()
    registry.register(MonitoringCollector(lambda: document))
    with replacing(path) as beside:
        beside.write_bytes(generate_latest(registry))
        beside.chmod(0o644)  # another user's exporter reads it


def samples_of(document: Document) -> Iterator[Sample]:
    """Every sample of a run's document: metric, values of its labels, value.

    Examples:
        >>> list(samples_of({"rows": 12, "ledger": {"entries": 3, "intact": True}}))
        [('monitoring_window_rows', (), 12.0), ('ledger_entries', (), 3.0),
         ('ledger_intact', (), 1.0)]
    """
    for name, labels, value in _told(document):
        number = _number(value)
        if number is not None and all(labels) and len(labels) == len(BY_NAME[name].labels):
            yield name, labels, number


def _told(document: Document) -> Iterator[tuple[str, tuple[str, ...], object]]:
    """What a document says, sound or not."""
    yield "monitoring_last_run_timestamp_seconds", (), _unix(document.get("at"))
    yield "monitoring_run_duration_seconds", (), document.get("seconds")
    yield "monitoring_window_rows", (), document.get("rows")
    yield from _drift(_part(document, "drift"))
    yield from _performance(_part(document, "performance"))
    yield "model_mae_estimate", (), _part(document, "error_estimate").get("mae_ah")
    yield from _quality(_part(document, "quality"))
    self_test = _part(document, "self_test")
    for shift, rows in _part(self_test, "delay_rows").items():
        yield "drift_self_test_delay_rows", (str(shift),), rows
    yield "drift_self_test_false_alarm_share", (), self_test.get("false_alarm_share")
    ledger = _part(document, "ledger")
    yield "ledger_entries", (), ledger.get("entries")
    yield "ledger_intact", (), ledger.get("intact")
    yield "backup_age_seconds", (), _part(document, "backup").get("age_s")
    for run in _list(document, "retraining"):
        labels = (str(run.get("reason", "")), str(run.get("outcome", "")))
        yield "retraining_runs_total", labels, run.get("runs")


def _drift(drift: Document) -> Iterator[tuple[str, tuple[str, ...], object]]:
    if not drift:
        return
    yield "drift_refused", (), "refused" in drift
    if "retraining_wanted" in drift:
        yield "retraining_wanted", (), bool(drift["retraining_wanted"])
    for feature in _part(drift, "features"):
        found = _part(_part(drift, "features"), feature)
        status = found.get("status")
        yield "feature_psi", (feature,), found.get("psi")
        yield "feature_ks", (feature,), found.get("ks")
        yield "feature_drift_status", (feature,), _status(found)
        if status == "alert":
            yield "drift_cause", (feature, str(found.get("cause") or "unknown")), 1
    found = _part(drift, "prediction")
    yield "prediction_psi", (), found.get("psi")
    yield "prediction_ks", (), found.get("ks")
    yield "prediction_drift_status", (), _status(found)


def _status(found: Document) -> int | None:
    """How bad a drift is; that batteries age is expected, and raises no alert."""
    status = STATUS.get(str(found.get("status")))
    return STATUS["ok"] if status is not None and found.get("cause") == AGEING else status


def _performance(performance: Document) -> Iterator[tuple[str, tuple[str, ...], object]]:
    overall = _part(performance, "overall")
    for key, name in _OF_ALL.items():
        yield name, (), overall.get(key)
    for by, groups in _part(performance, "by").items():
        if by != _NOT_BY and isinstance(groups, Mapping):
            for group in groups:
                yield "model_mae_by_group", (by, str(group)), _part(groups, group).get("mae_ah")
    ages = _part(performance, "label_age_s")
    for key, quantile in _LABEL_AGES.items():
        yield "label_age_seconds", (quantile,), ages.get(key)
    yield "label_coverage", (), performance.get("label_coverage")


def _quality(quality: Document) -> Iterator[tuple[str, tuple[str, ...], object]]:
    for key, name in _BY_FEATURE.items():
        for feature, share in _part(quality, key).items():
            yield name, (feature,), share
    for key, name in _OF_PREDICTIONS.items():
        yield name, (), quality.get(key)


def _part(document: Document, name: str) -> Document:
    """A part of a document; an empty one where it is absent, or is something else."""
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(document: Document, name: str) -> list[Document]:
    found = document.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _number(value: object) -> float | None:
    """A number that can be told; None for everything else."""
    if not isinstance(value, int | float):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _unix(at: object) -> float | None:
    """Seconds since 1970 of an ISO time."""
    if not isinstance(at, str):
        return None
    try:
        return datetime.fromisoformat(at).timestamp()
    except (ValueError, OverflowError):
        return None

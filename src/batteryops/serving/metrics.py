"""What the server counts and times, for Prometheus; over all workers where there are several."""

import os
import time
from collections.abc import Iterable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from batteryops.serving.live_model import LiveModel
from batteryops.serving.machine import OwnUse
from batteryops.serving.tally import Tally

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: where workers count together."""

_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
_SOH_BUCKETS: Final = (
    0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25,
)  # fmt: skip
_PREDICT: Final = ("POST", "/predict")


class Metrics:
    """The metrics of one app, in a registry of its own.

    Attributes:
        registry: where they are registered.
        duration: seconds from a request's arrival to the end of its answer, by method, path
            template and status.
        in_flight: requests that wait for their answer.
        predictions: answers given, by model version and role.
        shadows: answers of a challenger that shadows, by its version.
        not_shadowed: rows of batches that a challenger was not shown.
        lost: answers that were given but could not be put on record, in `async` mode.
        explained: answers whose contributions followed them into the log.
        unexplained: answers whose contributions should have, and did not.
        soh: what the models said, by version; counted when `observe` is called.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shared = SHARED_FOLDER in os.environ
        if not self._shared:  # of one of several workers it says nothing
            ProcessCollector(registry=self.registry)
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            ("method", "path", "status"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = self._gauge(
            "http_requests_in_flight", "Requests that wait for their answer."
        )
        self.predictions = Counter(
            "predictions",
            "Predictions given and on record.",
            ("version", "role"),
            registry=self.registry,
        )
        self.hits = Counter(
            "prediction_cache_hits",
            "Predictions that were known from the very same features.",
            ("version", "role"),
            registry=self.registry,
        )
        self.shadows = Counter(
            "shadow_predictions",
            "Predictions of a challenger that were put on record and not given.",
            ("version",),
            registry=self.registry,
        )
        self.not_shadowed = Counter(
            "shadow_predictions_dropped",
            "Rows of batches that a challenger that shadows was not shown, as it was too slow.",
            ("version",),
            registry=self.registry,
        )
        self.lost = Counter(
            "predictions_lost",
            "Predictions given that could not be put on record (log mode async).",
            registry=self.registry,
        )
        self.explained = Counter(
            "explanation_samples",
            "Predictions whose contributions were put on record afterwards (explain_share).",
            registry=self.registry,
        )
        self.unexplained = Counter(
            "explanation_samples_dropped",
            "Predictions that were to be explained afterwards and were not.",
            registry=self.registry,
        )
        self.queue_rows = self._gauge(
            "prediction_log_queue_rows", "Predictions that wait for the log."
        )
        self.commit = Histogram(
            "prediction_log_commit_seconds",
            "Time of one transaction of the prediction log.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.committed = Counter(
            "prediction_log_rows", "Rows written to the prediction log.", registry=self.registry
        )
        self.log_lag = self._gauge(
            "prediction_log_lag_seconds", "How long the oldest prediction has waited for the log."
        )
        self.model = Gauge(
            "model_info",
            "The models in service: 1 for each.",
            ("name", "version", "role", "view", "fingerprint"),
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.registry_reachable = self._gauge(
            "registry_reachable", "1 while the model registry answers.", "livemin"
        )
        self.soh = Histogram(
            "predicted_soh",
            "State of health that the models said, 1 is nominal, whether it was given or withheld.",
            ("version",),
            buckets=_SOH_BUCKETS,
            registry=self.registry,
        )
        self._own_use = OwnUse(
            Counter(
                "server_cpu_seconds",
                "Processor time of the server's workers, s.",
                registry=self.registry,
            ),
            self._gauge("server_memory_bytes", "Resident memory of the server's workers."),
        )
        self._gauge("server_workers", "Workers that are alive.").set(1)
        self._gauge(
            "server_start_time_seconds",
            "When the longest-lived worker started, Unix time.",
            "livemin",
        ).set(time.time())
        self._tallies: dict[str, Tally] = {}
        self._beside: list[Collector] = []
        self._in_service: list[Gauge] = []
        self._predict_ok = self.duration.labels(*_PREDICT, 200)

    def _gauge(
        self, name: str, documentation: str, mode: Literal["livesum", "livemin"] = "livesum"
    ) -> Gauge:
        return Gauge(name, documentation, registry=self.registry, multiprocess_mode=mode)

    def answered_in(self, seconds: float) -> None:
        """One prediction went the short way."""
        self._predict_ok.observe(seconds)
        self.in_flight.dec()

    def refused_in(self, status: int, seconds: float) -> None:
        """One prediction was refused on the short way."""
        self.duration.labels(*_PREDICT, int(status)).observe(seconds)
        self.in_flight.dec()

    def wrote(self, n_rows: int, seconds: float) -> None:
        """The log's writer has put rows on disk, in one transaction."""
        self.commit.observe(seconds)
        self.committed.inc(n_rows)

    def tell_also(self, collector: Collector) -> None:
        """Have a collector's metrics told beside; whoever answers the scrape asks it."""
        self._beside.append(collector)
        if not self._shared:
            self.registry.register(collector)

    def observe(self) -> None:
        """Count what waits to be counted, and what this worker uses; a few times a second."""
        for tally in list(self._tallies.values()):
            tally.flush()
        self._own_use.note()

    def exposed(self) -> CollectorRegistry:
        """What `/metrics` prints: this process's, or those of all workers together."""
        if not self._shared:
            return self.registry
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call] # the library's own
        for collector in self._beside:
            together.register(collector)
        return together

    def said(self, model: LiveModel, soh: Iterable[float]) -> None:
        """A model has said these states of health."""
        self._tally(model).add(soh)

    def said_column(self, model: LiveModel, soh: NDArray[np.float64]) -> None:
        """A model has said these to a batch."""
        self._tally(model).add_column(soh)

    def _tally(self, model: LiveModel) -> Tally:
        found = self._tallies.get(model.version)
        if found is None:
            made = Tally(self.soh.labels(model.version), _SOH_BUCKETS)
            found = self._tallies.setdefault(model.version, made)
        return found

    def answered(self, model: LiveModel) -> Counter:
        """Answers of a model."""
        return self.predictions.labels(model.version, model.role)

    def cache_hits(self, model: LiveModel) -> Counter:
        """Those of them that were known."""
        return self.hits.labels(model.version, model.role)

    def shadowed(self, model: LiveModel) -> Counter:
        """Answers of a challenger that are on record only."""
        return self.shadows.labels(model.version)

    def in_service(self, models: list[LiveModel]) -> None:
        """Say which models are in service from now on, and no others."""
        for former in self._in_service:
            former.set(0)
        if not self._shared:  # what workers count together cannot be taken back
            self.model.clear()
        self._in_service = [
            self.model.labels(
                model.model_name,
                model.version,
                model.role,
                f"{model.view.name} v{model.view.version}",
                model.fingerprint,
            )
            for model in models
        ]
        for model, info in zip(models, self._in_service, strict=True):
            info.set(1)
            self.answered(model)  # counts from 0, so that a rate has a beginning
            self.cache_hits(model)
            self.soh.labels(model.version)

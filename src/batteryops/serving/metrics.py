"""What the server counts and times, for Prometheus; over all workers where there are several."""

import os
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector

from batteryops.serving.live_model import LiveModel

SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client: where workers count together."""

_BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
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

    def exposed(self) -> CollectorRegistry:
        """What `/metrics` prints: this process's, or those of all workers together."""
        if not self._shared:
            return self.registry
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call] # the library's own
        return together

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

"""What the server counts and times, for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The metrics of one app, in a registry of its own.

    Attributes:
        registry: what `/metrics` prints.
        duration: seconds from a request's arrival to the end of its answer, by method, path
            template and status.
        in_flight: requests that wait for their answer.
        predictions: answers given, by model version and role.
        model: which model is in service.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.duration = Histogram(
            "http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            ("method", "path", "status"),
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "http_requests_in_flight",
            "Requests that wait for their answer.",
            registry=self.registry,
        )
        self.predictions = Counter(
            "predictions",
            "Predictions given and on record.",
            ("version", "role"),
            registry=self.registry,
        )
        self.model = Info("model", "The model in service.", registry=self.registry)

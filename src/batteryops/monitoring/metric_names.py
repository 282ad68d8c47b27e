"""Every metric that Prometheus finds here, declared once: exposition, rules, panels and guide."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
Layer = Literal["infrastructure", "application", "model"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: as it is asked for: a counter's ends in `_total`; a histogram is asked for by
            `_bucket`, `_sum` and `_count` behind it.
        kind: Prometheus' type.
        help: what it says, with its unit.
        labels: that tell its series apart.
        layer: of what: the machine, the server, the model.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    layer: Layer = "model"


def _application(name: str, kind: Kind, told: str, *labels: str) -> Metric:
    return Metric(name, kind, told, labels, "application")


def _infrastructure(name: str, kind: Kind, told: str, *labels: str) -> Metric:
    return Metric(name, kind, told, labels, "infrastructure")


RUN_METRICS: Final = (
    Metric("model_mae", "gauge", "Mean absolute error of answers that have a label, Ah."),
    Metric("model_mae_low", "gauge", "Lower bootstrap bound of model_mae over vehicles, Ah."),
    Metric("model_mae_high", "gauge", "Upper bootstrap bound of model_mae over vehicles, Ah."),
    Metric("model_r2", "gauge", "Coefficient of determination of answers that have a label."),
    Metric("model_bias_ah", "gauge", "Mean of prediction less label, Ah."),
    Metric("model_interval_coverage", "gauge", "Share of labels inside their answer's interval."),
    Metric("model_mae_estimate", "gauge", "Estimate of the current error without labels, Ah."),
    Metric(
        "model_mae_by_group",
        "gauge",
        "Mean absolute error of a group of answers, Ah; vehicles are in the run's document.",
        ("by", "group"),
    ),
    Metric("model_predictions_joined", "gauge", "Answers that a label was joined to."),
    Metric("label_coverage", "gauge", "Share of the window's answers that have a label."),
    Metric(
        "label_age_seconds",
        "gauge",
        "How late labels came, s, by quantile; quantile 0: how long ago the newest one did.",
        ("quantile",),
    ),
    Metric("feature_psi", "gauge", "Population stability index of a feature.", ("feature",)),
    Metric("feature_ks", "gauge", "Kolmogorov-Smirnov distance of a feature.", ("feature",)),
    Metric(
        "feature_drift_status",
        "gauge",
        "What drift says of a feature: 0 ok, 1 warning, 2 alert.",
        ("feature",),
    ),
    Metric("drift_cause", "gauge", "1 for the cause of a feature's alert.", ("feature", "cause")),
    Metric("drift_refused", "gauge", "1 where the run could not judge drift at all."),
    Metric("prediction_psi", "gauge", "Population stability index of the predictions."),
    Metric("prediction_ks", "gauge", "Kolmogorov-Smirnov distance of the predictions."),
    Metric(
        "prediction_drift_status",
        "gauge",
        "What drift says of the predictions: 0 ok, 1 warning, 2 alert.",
    ),
    Metric("retraining_wanted", "gauge", "1 while a critical feature is in alert."),
    Metric(
        "retraining_runs_total",
        "counter",
        "Retraining runs, by what asked for them and what became of them.",
        ("reason", "outcome"),
    ),
    Metric(
        "feature_missing_share", "gauge", "Share of a feature's values that are null.", ("feature",)
    ),
    Metric(
        "feature_out_of_range_share",
        "gauge",
        "Share of a feature's values outside of its plausible range.",
        ("feature",),
    ),
    Metric(
        "feature_stuck_share",
        "gauge",
        "Share of a feature's values that stand still where they should move.",
        ("feature",),
    ),
    Metric(
        "predictions_out_of_range_share",
        "gauge",
        "Share of predictions that no battery of the profile can have.",
    ),
    Metric(
        "predictions_out_of_domain_share",
        "gauge",
        "Share of predictions whose features are unlike anything in training.",
    ),
    Metric("predictions_duplicate_share", "gauge", "Share of predictions asked for twice."),
    Metric("predictions_refused_share", "gauge", "Share of requests that were refused."),
    Metric("cycle_count_back", "gauge", "Vehicles whose count of cycles went back."),
    Metric("monitoring_last_run_timestamp_seconds", "gauge", "When the newest run looked."),
    Metric("monitoring_run_duration_seconds", "gauge", "How long the newest run took, s."),
    Metric("monitoring_window_rows", "gauge", "Predictions that the newest run looked at."),
    Metric("ledger_entries", "gauge", "Entries of the ledger."),
    Metric("ledger_intact", "gauge", "1 where the ledger's chain is whole."),
    Metric("backup_age_seconds", "gauge", "Age of the newest backup when the run looked, s."),
    Metric(
        "drift_self_test_delay_rows",
        "gauge",
        "Rows until the planted shift of a self-test raises an alarm.",
        ("shift",),
    ),
    Metric(
        "drift_self_test_false_alarm_share",
        "gauge",
        "Share of the self-test's draws without a shift that raise an alarm.",
    ),
)
"""Told of the newest monitoring run, by the server and in the textfile alike."""

SERVER_METRICS: Final = (
    _application(
        "http_request_duration_seconds",
        "histogram",
        "Time from a request's arrival to the end of its answer, s.",
        *("method", "path", "status"),
    ),
    _application("http_requests_in_flight", "gauge", "Requests that wait for their answer."),
    _application(
        "predictions_total", "counter", "Predictions given and on record.", "version", "role"
    ),
    _application(
        "prediction_cache_hits_total",
        "counter",
        "Predictions that were known from the very same features.",
        *("version", "role"),
    ),
    _application(
        "shadow_predictions_total",
        "counter",
        "Predictions of a challenger that were put on record and not given.",
        "version",
    ),
    _application(
        "shadow_predictions_dropped_total",
        "counter",
        "Rows of batches that a challenger that shadows was not shown, as it was too slow.",
        "version",
    ),
    _application(
        "predictions_lost_total",
        "counter",
        "Predictions given that could not be put on record (log mode async).",
    ),
    _application(
        "explanation_samples_total",
        "counter",
        "Predictions whose contributions were put on record afterwards (explain_share).",
    ),
    _application(
        "explanation_samples_dropped_total",
        "counter",
        "Predictions that were to be explained afterwards and were not.",
    ),
    _application("prediction_log_queue_rows", "gauge", "Predictions that wait for the log."),
    _application(
        "prediction_log_commit_seconds",
        "histogram",
        "Time of one transaction of the prediction log, s.",
    ),
    _application("prediction_log_rows_total", "counter", "Rows written to the prediction log."),
    _application(
        "prediction_log_lag_seconds",
        "gauge",
        "How long the oldest prediction has waited for the log, s.",
    ),
    _application("registry_reachable", "gauge", "1 while the model registry answers."),
    Metric(
        "model_info",
        "gauge",
        "The models in service: 1 for each.",
        ("name", "version", "role", "view", "fingerprint"),
    ),
    Metric(
        "predicted_soh",
        "histogram",
        "State of health that the models said, 1 is nominal, whether it was given or withheld.",
        ("version",),
    ),
    _application(
        "monitoring_readable",
        "gauge",
        "1 where the newest monitoring run could be read from the database.",
    ),
    _infrastructure(
        "server_cpu_seconds_total", "counter", "Processor time of the server's workers, s."
    ),
    _infrastructure("server_memory_bytes", "gauge", "Resident memory of the server's workers."),
    _infrastructure("server_workers", "gauge", "Workers that are alive."),
    _infrastructure(
        "server_start_time_seconds", "gauge", "When the longest-lived worker started, Unix time."
    ),
    _infrastructure(
        "host_cpu_seconds_total", "counter", "Processor time of the machine, s.", "mode"
    ),
    _infrastructure("host_memory_size_bytes", "gauge", "Memory of the machine."),
    _infrastructure(
        "host_memory_available_bytes", "gauge", "Memory that programs could have without swapping."
    ),
    _infrastructure("home_disk_size_bytes", "gauge", "Size of the disk that holds home."),
    _infrastructure("home_disk_free_bytes", "gauge", "What is free on the disk that holds home."),
)
"""Told by the server of itself."""

METRICS: Final = (*RUN_METRICS, *SERVER_METRICS)
"""All of them."""

BY_NAME: Final = {metric.name: metric for metric in METRICS}
"""The declarations by name."""

STATUS: Final = {"ok": 0, "warning": 1, "alert": 2}
"""Drift's words as numbers; of a feature with too few rows, or none, there is no sample."""

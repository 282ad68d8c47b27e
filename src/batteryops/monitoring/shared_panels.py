"""Panels that several dashboards have."""

from typing import Final, Literal

from batteryops.monitoring.panels import GREEN, RED, Panel, Query, Step, falling, rising
from batteryops.settings import Settings

RATE: Final = "$__rate_interval"
"""Grafana's own variable: at least four scrapes."""

REQUESTS: Final = "http_request_duration_seconds_count"
UP: Final = (Step(RED), Step(GREEN, 1))

_BUCKETS: Final = "http_request_duration_seconds_bucket"


def request_rate_panel() -> Panel:
    """Requests a second."""
    return Panel(
        "Request rate",
        "timeseries",
        (Query(f"sum(rate({REQUESTS}[{RATE}]))", "requests"),),
        "Requests a second, of all paths. A sudden zero is an outage of clients or of the network.",
        unit="reqps",
        low=0,
    )


def latency_panel(settings: Settings) -> Panel:
    """How long predictions take."""
    limit_s = settings.monitoring.latency_p95_alert_s
    of_predict = f'sum by (le) (rate({_BUCKETS}{{path="/predict"}}[{RATE}]))'
    return Panel(
        "Latency of predictions",
        "timeseries",
        (
            Query(f"histogram_quantile(0.95, {of_predict})", "p95"),
            Query(f"histogram_quantile(0.5, {of_predict})", "median"),
        ),
        "Of POST /predict, over all servers. The 95th percentile above "
        f"{1000 * limit_s:g} ms is an alert.",
        unit="s",
        steps=rising(limit_s / 2, limit_s),
        low=0,
    )


def error_rate_panel(settings: Settings) -> Panel:
    """How many requests the server fails at."""
    limit = settings.monitoring.alerts.error_share
    errors = f'sum(rate({REQUESTS}{{status=~"5.."}}[{RATE}]))'
    return Panel(
        "Error rate",
        "timeseries",
        (
            Query(
                f"({errors} or vector(0)) / clamp_min(sum(rate({REQUESTS}[{RATE}])), 1e-9)",
                "server errors",
            ),
        ),
        "Share of requests that were answered with a server error. Faulty requests do not count.",
        unit="percentunit",
        steps=rising(limit / 2, limit),
        low=0,
    )


def mae_panel(settings: Settings, kind: Literal["gauge", "stat"]) -> Panel:
    """The error that labels show."""
    limit = settings.monitoring.mae_alert_ah
    return Panel(
        "MAE",
        kind,
        (Query("max(model_mae)", "MAE"),),
        f"Mean absolute error on answers that have a label, Ah. Above {limit:g} Ah is an alert.",
        steps=rising(0.8 * limit, limit),
        low=0,
        high=2 * limit,
    )


def r2_panel(settings: Settings, kind: Literal["gauge", "stat"]) -> Panel:
    """How much of the labels' spread the model explains."""
    limit = settings.monitoring.r2_alert
    return Panel(
        "R2",
        kind,
        (Query("min(model_r2)", "R2"),),
        "Coefficient of determination on answers that have a label. It is low for batteries of "
        "one age at any error: read it beside MAE.",
        steps=falling(limit, (1 + limit) / 2),
        low=0,
        high=1,
    )


def worst_psi_panel(settings: Settings) -> Panel:
    """The feature that drifts most."""
    monitoring = settings.monitoring
    return Panel(
        "Worst PSI",
        "gauge",
        (Query("max(feature_psi)", "PSI"),),
        f"The largest PSI of any feature: below {monitoring.psi_warning:g} all is well, from "
        f"{monitoring.psi_alert:g} on it is an alert where it is more than chance.",
        steps=rising(monitoring.psi_warning, monitoring.psi_alert),
        low=0,
        high=2 * monitoring.psi_alert,
    )


def coverage_panel() -> Panel:
    """Whether intervals hold what they promise."""
    return Panel(
        "Labels inside their interval",
        "stat",
        (Query("max(model_interval_coverage)", "coverage"),),
        "Intervals promise 90 percent. Well below it, they are too narrow for this fleet.",
        unit="percentunit",
        steps=falling(0.8, 0.88),
    )


def distribution_panel() -> Panel:
    """What the model says of the fleet."""
    return Panel(
        "Predicted SoH",
        "bars",
        (Query(f"sum by (le) (increase(predicted_soh_bucket[{RATE}]))", "{{le}}", buckets=True),),
        "How predictions are distributed over state of health. The hump moves left as the fleet "
        "ages; a second hump is another fleet, or another model.",
        low=0,
    )


def drift_causes_panel() -> Panel:
    """What alerts of features look like."""
    return Panel(
        "Causes of drift",
        "table",
        (
            Query("max by (feature, cause) (drift_cause)", "{{feature}}: {{cause}}"),
            Query("count(max by (feature, cause) (drift_cause)) or vector(0)", "alerts"),
        ),
        "What each feature's alert looks like: ageing, climate, operating mode, new chemistry, "
        "another cooling or software, a sensor fault, or unknown. Empty where no feature is in "
        "alert.",
    )


def prediction_drift_panel(settings: Settings) -> Panel:
    """Whether what the model says has moved."""
    monitoring = settings.monitoring
    return Panel(
        "Drift of predictions",
        "timeseries",
        (
            Query("max(prediction_psi)", "PSI"),
            Query("max(prediction_ks)", "KS"),
            Query("max(prediction_drift_status)", "status"),
        ),
        "What the model says, against what it said at training; status 2 is an alert.",
        steps=rising(monitoring.ks_warning, monitoring.ks_alert),
        low=0,
    )


def share_panel(title: str, metric: str, what: str, limit: float) -> Panel:
    """A share of each feature's values, with its limit."""
    return Panel(
        title,
        "timeseries",
        (Query(f"max by (feature) ({metric})", "{{feature}}"),),
        f"Share of each feature's values that are {what}; above {limit:.0%} is an alert.",
        unit="percentunit",
        steps=rising(limit / 2, limit),
        low=0,
    )

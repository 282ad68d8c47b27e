"""The five dashboards as plain data; `dashboards.py` makes Grafana's JSON of them."""

from typing import Final, Literal

from batteryops.monitoring.alert_rule import JOB
from batteryops.monitoring.panels import (
    GREEN,
    RED,
    DashboardPlan,
    Panel,
    Query,
    Step,
    falling,
    rising,
)
from batteryops.settings import Settings

_RATE: Final = "$__rate_interval"
_REQUESTS: Final = "http_request_duration_seconds_count"
_BUCKETS: Final = "http_request_duration_seconds_bucket"
_UP: Final = (Step(RED), Step(GREEN, 1))


def plans(settings: Settings) -> tuple[DashboardPlan, ...]:
    """All dashboards, with the thresholds of these settings."""
    return (
        _overview(settings),
        _performance(settings),
        _api(settings),
        _quality(settings),
        _health(settings),
    )


def _overview(settings: Settings) -> DashboardPlan:
    """The source system's grid, four rows of three."""
    monitoring = settings.monitoring
    return DashboardPlan(
        "grafana-dashboard.json",
        "batteryops",
        "BatteryOps",
        "Everything at one look: the server, the model, what it is asked, and what was done.",
        (
            (_request_rate(), _latency(settings), _error_rate(settings)),
            (_mae(settings, "gauge"), _r2(settings, "gauge"), _worst_psi(settings)),
            (
                Panel(
                    "Feature drift",
                    "heatmap",
                    (Query("max by (feature) (feature_psi)", "{{feature}}"),),
                    "PSI of each feature over time, a row each. A row that turns dark and stays so "
                    "is drift; all rows at once are a new fleet or a broken source.",
                    steps=rising(monitoring.psi_warning, monitoring.psi_alert),
                    low=0,
                ),
                _distribution(),
                Panel(
                    "Versions in service",
                    "timeline",
                    (Query("max by (version, role) (model_info)", "{{role}} {{version}}"),),
                    "Which version answered as what, and since when. A change of accuracy or drift "
                    "that begins with one of these is its doing.",
                    steps=(Step("text"), Step(GREEN, 1)),
                ),
            ),
            (
                Panel(
                    "Alerts",
                    "table",
                    (
                        Query('ALERTS{alertstate="firing"}', "{{alertname}}", quiet=True),
                        Query("count by (alertstate) (ALERTS) or vector(0)", "alerts"),
                    ),
                    "What fires now. The incidents behind: `batteryops incidents list`.",
                ),
                Panel(
                    "Retraining",
                    "timeseries",
                    (
                        Query(
                            "max by (reason, outcome) (retraining_runs_total)",
                            "{{reason}}: {{outcome}}",
                        ),
                        Query("max(retraining_wanted)", "wanted"),
                    ),
                    "Runs by what asked for them and what became of them. `wanted` stays at 1 "
                    "while critical features are in alert.",
                    low=0,
                ),
                Panel(
                    "System",
                    "stat",
                    (
                        Query(f'sum(up{{job="{JOB}"}})', "servers"),
                        Query("sum(server_workers)", "workers"),
                        Query("min(ledger_intact)", "ledger intact"),
                        Query("min(registry_reachable)", "registry"),
                    ),
                    "Servers and workers that are alive, whether the ledger's chain holds, whether "
                    "the registry answers. 0 of any is red.",
                    steps=_UP,
                ),
            ),
        ),
    )


def _performance(settings: Settings) -> DashboardPlan:
    monitoring = settings.monitoring
    return DashboardPlan(
        "ml_model_performance.json",
        "batteryops-model",
        "BatteryOps: model performance",
        "How good answers are, as far as late labels tell, and what is estimated meanwhile.",
        (
            (_mae(settings, "stat"), _r2(settings, "stat"), _coverage()),
            (
                Panel(
                    "Error with its bounds",
                    "timeseries",
                    (
                        Query("max(model_mae)", "MAE"),
                        Query("max(model_mae_low)", "low"),
                        Query("max(model_mae_high)", "high"),
                        Query("max(model_mae_estimate)", "estimate without labels"),
                    ),
                    "MAE in Ah with its bootstrap bounds over vehicles, and the estimate of the "
                    "current error, which needs no labels. Wide bounds: few vehicles have labels. "
                    "An estimate that leaves the bounds says where MAE will go.",
                    steps=rising(monitoring.mae_alert_ah * 0.8, monitoring.mae_alert_ah),
                    low=0,
                ),
                Panel(
                    "Bias",
                    "timeseries",
                    (Query("max(model_bias_ah)", "bias"),),
                    "Mean of prediction less label, Ah. Away from zero on one side, answers are "
                    "all too high or all too low.",
                ),
                Panel(
                    "Error by group",
                    "bars",
                    (Query("max by (by, group) (model_mae_by_group)", "{{by}} {{group}}"),),
                    "MAE in Ah by version, profile and band of SoH. One long bar says where to "
                    "look first.",
                    steps=rising(monitoring.mae_alert_ah * 0.8, monitoring.mae_alert_ah),
                    low=0,
                ),
            ),
            (
                Panel(
                    "Labels",
                    "timeseries",
                    (
                        Query("max(model_predictions_joined)", "answers with a label"),
                        Query("max(monitoring_window_rows)", "answers of the window"),
                    ),
                    "How many answers the numbers above stand on.",
                    low=0,
                ),
                Panel(
                    "Share of answers with a label",
                    "timeseries",
                    (Query("max(label_coverage)", "share"),),
                    "It is never high for the days just passed: labels are late.",
                    unit="percentunit",
                    low=0,
                    high=1,
                ),
                Panel(
                    "Age of labels",
                    "timeseries",
                    (Query("max by (quantile) (label_age_seconds)", "quantile {{quantile}}"),),
                    "Quantile 0 is the newest label. When it grows day by day, none come.",
                    unit="s",
                    low=0,
                ),
            ),
            (_distribution(), _drift_causes(), _prediction_drift(settings)),
        ),
    )


def _api(settings: Settings) -> DashboardPlan:
    return DashboardPlan(
        "api_monitoring.json",
        "batteryops-api",
        "BatteryOps: API",
        "Requests: how many, how fast, how they ended, and the log that they wait for.",
        (
            (_request_rate(), _latency(settings), _error_rate(settings)),
            (
                Panel(
                    "Requests by path",
                    "timeseries",
                    (Query(f"sum by (path) (rate({_REQUESTS}[{_RATE}]))", "{{path}}"),),
                    "Requests a second by path.",
                    unit="reqps",
                    low=0,
                ),
                Panel(
                    "Answers by status",
                    "timeseries",
                    (Query(f"sum by (status) (rate({_REQUESTS}[{_RATE}]))", "{{status}}"),),
                    "422 are requests with faults, 401 and 403 keys, 429 a rate limit, 503 the "
                    "log. Only 5xx are the server's.",
                    unit="reqps",
                    low=0,
                ),
                Panel(
                    "In flight",
                    "timeseries",
                    (Query("sum(http_requests_in_flight)", "requests"),),
                    "Requests that wait for their answer. Growing without end: see the commit.",
                    low=0,
                ),
            ),
            (
                Panel(
                    "Predictions by version",
                    "timeseries",
                    (
                        Query(
                            f"sum by (version, role) (rate(predictions_total[{_RATE}]))",
                            "{{role}} {{version}}",
                        ),
                    ),
                    "Predictions given a second, the rows of batches among them. With a challenger "
                    "beside, its share is `serving.routing.share` of the vehicles.",
                    low=0,
                ),
                Panel(
                    "Answers from the cache",
                    "timeseries",
                    (
                        Query(
                            f"sum(rate(prediction_cache_hits_total[{_RATE}])) / "
                            f"clamp_min(sum(rate(predictions_total[{_RATE}])), 1e-9)",
                            "share",
                        ),
                    ),
                    "Share of predictions that were known from the very same features. Near 1, "
                    "somebody asks the same again and again.",
                    unit="percentunit",
                    low=0,
                    high=1,
                ),
                Panel(
                    "Beside the answers",
                    "timeseries",
                    (
                        Query(f"sum(rate(shadow_predictions_total[{_RATE}]))", "shadows", True),
                        Query(f"sum(rate(explanation_samples_total[{_RATE}]))", "explained"),
                        Query(f"sum(rate(predictions_lost_total[{_RATE}]))", "lost"),
                    ),
                    "Answers of a challenger that shadows, samples explained afterwards, and "
                    "predictions that could not be written, which should be none.",
                    low=0,
                ),
            ),
            (
                Panel(
                    "Queue of the log",
                    "timeseries",
                    (Query("max(prediction_log_queue_rows)", "rows"),),
                    "Predictions that wait for the log; a worker refuses at "
                    f"{settings.serving.log.queue_rows}.",
                    low=0,
                ),
                Panel(
                    "Commit of the log",
                    "timeseries",
                    (
                        Query(
                            "histogram_quantile(0.95, sum by (le) (rate("
                            f"prediction_log_commit_seconds_bucket[{_RATE}])))",
                            "p95",
                        ),
                    ),
                    "Time of one transaction. Answers wait for it: a slow disk shows here first.",
                    unit="s",
                    low=0,
                ),
                Panel(
                    "Lag of the log",
                    "timeseries",
                    (Query("max(prediction_log_lag_seconds)", "oldest"),),
                    "How long the oldest prediction has waited for the log.",
                    unit="s",
                    steps=rising(
                        settings.monitoring.alerts.log_lag_s / 5,
                        settings.monitoring.alerts.log_lag_s,
                    ),
                    low=0,
                ),
            ),
        ),
    )


def _quality(settings: Settings) -> DashboardPlan:
    limits = settings.monitoring.alerts
    return DashboardPlan(
        "data_quality.json",
        "batteryops-data",
        "BatteryOps: data quality and drift",
        "What the model is asked: is it like training, is it complete, is it plausible?",
        (
            (_worst_psi(settings), _drift_causes(), _prediction_drift(settings)),
            (
                Panel(
                    "PSI by feature",
                    "timeseries",
                    (Query("max by (feature) (feature_psi)", "{{feature}}"),),
                    "Population stability index of each feature against the reference that was "
                    "fitted at training.",
                    steps=rising(settings.monitoring.psi_warning, settings.monitoring.psi_alert),
                    low=0,
                ),
                Panel(
                    "KS distance by feature",
                    "timeseries",
                    (Query("max by (feature) (feature_ks)", "{{feature}}"),),
                    "Largest distance of the two distribution functions.",
                    steps=rising(settings.monitoring.ks_warning, settings.monitoring.ks_alert),
                    low=0,
                ),
                Panel(
                    "Status by feature",
                    "bars",
                    (Query("max by (feature) (feature_drift_status)", "{{feature}}"),),
                    "0 ok, 1 warning, 2 alert: the effect is large enough and more than chance.",
                    steps=rising(1, 2),
                    low=0,
                    high=2,
                ),
            ),
            (
                _share("Missing", "feature_missing_share", "null", limits.missing_share),
                _share(
                    "Out of range",
                    "feature_out_of_range_share",
                    "outside of the feature's range",
                    limits.feature_out_of_range_share,
                ),
                _share(
                    "Stuck",
                    "feature_stuck_share",
                    "the same as the vehicle's value before",
                    limits.stuck_share,
                ),
            ),
            (
                Panel(
                    "Predictions that cannot be",
                    "timeseries",
                    (
                        Query("max(predictions_out_of_range_share)", "out of physical range"),
                        Query("max(predictions_out_of_domain_share)", "out of the domain"),
                        Query("max(predictions_duplicate_share)", "asked twice"),
                        Query("max(predictions_refused_share)", "refused"),
                    ),
                    "Shares of the window's predictions. Out of physical range above "
                    f"{settings.monitoring.max_out_of_range_share:.0%} is an incident.",
                    unit="percentunit",
                    low=0,
                ),
                Panel(
                    "Cycle counts that went back",
                    "timeseries",
                    (Query("max(cycle_count_back)", "vehicles"),),
                    "A battery was swapped, a counter was reset, or rows came in another order.",
                    low=0,
                ),
                Panel(
                    "Self-test of drift",
                    "bars",
                    (
                        Query("max by (shift) (drift_self_test_delay_rows)", "{{shift}}"),
                        Query("max(drift_self_test_false_alarm_share)", "false alarms"),
                    ),
                    "Rows of recent traffic until each planted shift is an alert, and how often "
                    "there is one without a shift. Long delays: too little traffic to see much.",
                    low=0,
                ),
            ),
        ),
    )


def _health(settings: Settings) -> DashboardPlan:
    limits = settings.monitoring.alerts
    return DashboardPlan(
        "system_health.json",
        "batteryops-system",
        "BatteryOps: system health",
        "The machine, the server's processes, and what keeps the record.",
        (
            (
                Panel(
                    "Processor",
                    "timeseries",
                    (
                        Query(
                            "1 - sum by (instance) (rate(host_cpu_seconds_total"
                            f'{{mode=~"idle|iowait"}}[{_RATE}])) / '
                            f"sum by (instance) (rate(host_cpu_seconds_total[{_RATE}]))",
                            "machine {{instance}}",
                        ),
                        Query(f"sum(rate(server_cpu_seconds_total[{_RATE}]))", "server, cores"),
                    ),
                    "Share of the machine that is busy, and cores that the server's workers use.",
                    low=0,
                ),
                Panel(
                    "Memory",
                    "timeseries",
                    (
                        Query("sum(server_memory_bytes)", "server"),
                        Query(
                            "host_memory_size_bytes - host_memory_available_bytes",
                            "in use {{instance}}",
                        ),
                        Query("host_memory_size_bytes", "machine {{instance}}"),
                    ),
                    "Resident memory of all workers, and what is in use of the machine's.",
                    unit="bytes",
                    low=0,
                ),
                Panel(
                    "Disk of home",
                    "timeseries",
                    (
                        Query("home_disk_free_bytes", "free {{instance}}"),
                        Query("home_disk_size_bytes", "size {{instance}}"),
                    ),
                    f"Below {limits.disk_free_share:.0%} free is an alert: a full disk stops "
                    "every answer.",
                    unit="bytes",
                    low=0,
                ),
            ),
            (
                Panel(
                    "Servers",
                    "timeline",
                    (Query(f'up{{job="{JOB}"}}', "{{instance}}"),),
                    "Which servers answered Prometheus, and since when.",
                    steps=_UP,
                ),
                Panel(
                    "Workers",
                    "timeseries",
                    (Query("sum by (instance) (server_workers)", "{{instance}}"),),
                    "Workers that are alive; one that died is started again within seconds.",
                    low=0,
                ),
                Panel(
                    "Uptime",
                    "stat",
                    (Query("time() - server_start_time_seconds", "{{instance}}"),),
                    "Since the longest-lived worker started.",
                    unit="s",
                ),
            ),
            (
                Panel(
                    "Ledger",
                    "stat",
                    (
                        Query("max(ledger_entries)", "entries"),
                        Query("min(ledger_intact)", "intact"),
                    ),
                    "Entries at the newest run, and whether the chain holds: 0 is red, and an "
                    "incident.",
                    steps=_UP,
                ),
                Panel(
                    "Age of the backup",
                    "stat",
                    (
                        Query(
                            "max(backup_age_seconds) + "
                            "(time() - max(monitoring_last_run_timestamp_seconds))",
                            "backup",
                        ),
                    ),
                    f"Above {limits.backup_age_hours:g} hours is an alert.",
                    unit="s",
                    steps=rising(
                        0.9 * limits.backup_age_hours * 3600, limits.backup_age_hours * 3600
                    ),
                ),
                Panel(
                    "Registry",
                    "stat",
                    (Query("min(registry_reachable)", "reachable"),),
                    "Without it predictions are answered, and promotions do not arrive.",
                    steps=_UP,
                ),
            ),
            (
                Panel(
                    "Monitoring run",
                    "stat",
                    (
                        Query("time() - max(monitoring_last_run_timestamp_seconds)", "age"),
                        Query("max(monitoring_run_duration_seconds)", "took"),
                    ),
                    "How old what is shown of the model is, and how long the run took.",
                    unit="s",
                    steps=rising(0.9 * limits.run_age_hours * 3600, limits.run_age_hours * 3600),
                ),
                Panel(
                    "Monitoring readable",
                    "stat",
                    (Query("min(monitoring_readable)", "readable"),),
                    "0: the server cannot read the monitoring runs from the database.",
                    steps=_UP,
                ),
                Panel(
                    "Drift judged",
                    "stat",
                    (Query("1 - max(drift_refused)", "judged"),),
                    "0: the newest run refused to judge drift; its document says why.",
                    steps=_UP,
                ),
            ),
        ),
    )


def _request_rate() -> Panel:
    return Panel(
        "Request rate",
        "timeseries",
        (Query(f"sum(rate({_REQUESTS}[{_RATE}]))", "requests"),),
        "Requests a second, of all paths. A sudden zero is an outage of clients or of the network.",
        unit="reqps",
        low=0,
    )


def _latency(settings: Settings) -> Panel:
    limit_s = settings.monitoring.latency_p95_alert_s
    of_predict = f'sum by (le) (rate({_BUCKETS}{{path="/predict"}}[{_RATE}]))'
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


def _error_rate(settings: Settings) -> Panel:
    limit = settings.monitoring.alerts.error_share
    errors = f'sum(rate({_REQUESTS}{{status=~"5.."}}[{_RATE}]))'
    return Panel(
        "Error rate",
        "timeseries",
        (
            Query(
                f"({errors} or vector(0)) / clamp_min(sum(rate({_REQUESTS}[{_RATE}])), 1e-9)",
                "server errors",
            ),
        ),
        "Share of requests that were answered with a server error. Faulty requests do not count.",
        unit="percentunit",
        steps=rising(limit / 2, limit),
        low=0,
    )


def _mae(settings: Settings, kind: Literal["gauge", "stat"]) -> Panel:
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


def _r2(settings: Settings, kind: Literal["gauge", "stat"]) -> Panel:
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


def _worst_psi(settings: Settings) -> Panel:
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


def _coverage() -> Panel:
    return Panel(
        "Labels inside their interval",
        "stat",
        (Query("max(model_interval_coverage)", "coverage"),),
        "Intervals promise 90 percent. Well below it, they are too narrow for this fleet.",
        unit="percentunit",
        steps=falling(0.8, 0.88),
    )


def _distribution() -> Panel:
    return Panel(
        "Predicted SoH",
        "bars",
        (Query(f"sum by (le) (increase(predicted_soh_bucket[{_RATE}]))", "{{le}}", buckets=True),),
        "How predictions are distributed over state of health. The hump moves left as the fleet "
        "ages; a second hump is another fleet, or another model.",
        low=0,
    )


def _drift_causes() -> Panel:
    return Panel(
        "Causes of drift",
        "table",
        (
            Query("max by (feature, cause) (drift_cause)", "{{feature}}: {{cause}}", quiet=True),
            Query("count(max by (feature, cause) (drift_cause)) or vector(0)", "alerts"),
        ),
        "What each feature's alert looks like: ageing, climate, operating mode, new chemistry, a "
        "sensor fault, or unknown. Empty where no feature is in alert.",
    )


def _prediction_drift(settings: Settings) -> Panel:
    monitoring = settings.monitoring
    return Panel(
        "Drift of predictions",
        "timeseries",
        (Query("max(prediction_psi)", "PSI"), Query("max(prediction_ks)", "KS")),
        "What the model says, against what it said at training.",
        steps=rising(monitoring.ks_warning, monitoring.ks_alert),
        low=0,
    )


def _share(title: str, metric: str, what: str, limit: float) -> Panel:
    return Panel(
        title,
        "timeseries",
        (Query(f"max by (feature) ({metric})", "{{feature}}"),),
        f"Share of each feature's values that are {what}; above {limit:.0%} is an alert.",
        unit="percentunit",
        steps=rising(limit / 2, limit),
        low=0,
    )

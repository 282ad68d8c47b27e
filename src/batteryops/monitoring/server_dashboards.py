"""Dashboards of the server: requests, the log, the machine."""

from batteryops.monitoring.alert_rule import JOB
from batteryops.monitoring.panels import (
    DashboardPlan,
    Panel,
    Query,
    rising,
)
from batteryops.monitoring.shared_panels import (
    RATE,
    REQUESTS,
    UP,
    error_rate_panel,
    latency_panel,
    request_rate_panel,
)
from batteryops.settings import Settings


def api_dashboard(settings: Settings) -> DashboardPlan:
    """Requests and the log."""
    return DashboardPlan(
        "api_monitoring.json",
        "batteryops-api",
        "BatteryOps: API",
        "Requests: how many, how fast, how they ended, and the log that they wait for.",
        (
            (request_rate_panel(), latency_panel(settings), error_rate_panel(settings)),
            (
                Panel(
                    "Requests by path",
                    "timeseries",
                    (Query(f"sum by (path) (rate({REQUESTS}[{RATE}]))", "{{path}}"),),
                    "Requests a second by path.",
                    unit="reqps",
                    low=0,
                ),
                Panel(
                    "Answers by status",
                    "timeseries",
                    (Query(f"sum by (status) (rate({REQUESTS}[{RATE}]))", "{{status}}"),),
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
                            f"sum by (version, role) (rate(predictions_total[{RATE}]))",
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
                            f"sum(rate(prediction_cache_hits_total[{RATE}])) / "
                            f"clamp_min(sum(rate(predictions_total[{RATE}])), 1e-9)",
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
                        Query(
                            f"sum(rate(shadow_predictions_total[{RATE}])) or vector(0)", "shadows"
                        ),
                        Query(f"sum(rate(explanation_samples_total[{RATE}]))", "explained"),
                        Query(f"sum(rate(predictions_lost_total[{RATE}]))", "lost"),
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
                            f"prediction_log_commit_seconds_bucket[{RATE}])))",
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


def health_dashboard(settings: Settings) -> DashboardPlan:
    """The machine, the processes, the record."""
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
                            f'{{mode=~"idle|iowait"}}[{RATE}])) / '
                            f"sum by (instance) (rate(host_cpu_seconds_total[{RATE}]))",
                            "machine {{instance}}",
                        ),
                        Query(f"sum(rate(server_cpu_seconds_total[{RATE}]))", "server, cores"),
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
                    steps=UP,
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
                    steps=UP,
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
                    steps=UP,
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
                    steps=UP,
                ),
                Panel(
                    "Drift judged",
                    "stat",
                    (Query("1 - max(drift_refused)", "judged"),),
                    "0: the newest run refused to judge drift; its document says why.",
                    steps=UP,
                ),
            ),
        ),
    )

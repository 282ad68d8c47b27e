"""Alerts on the server: is it there, does it answer in time, does the log keep up?"""

from batteryops.monitoring.alert_rule import JOB, Rule
from batteryops.settings import Settings


def server_alerts(settings: Settings) -> tuple[Rule, ...]:
    """The server, its log and its disk."""
    limits = settings.monitoring.alerts
    latency_s = settings.monitoring.latency_p95_alert_s
    half_queue = settings.serving.log.queue_rows // 2
    return (
        Rule(
            name="ServerDown",
            expr=f'absent(up{{job="{JOB}"}} == 1)',
            wait="1m",
            severity="critical",
            cause="outage",
            summary="No prediction server answers",
            description=f"Prometheus has reached no target of job {JOB} for a minute.",
            meaning="Every server of the job is away, or none is configured. While this fires, "
            "all other alerts are silenced: they say nothing that can be acted on first.",
            remedy=(
                (
                    "Look whether the processes live (`systemctl status`, `kubectl get pods`) and "
                    "what their log says last."
                ),
                (
                    "Start one: `batteryops serve`. It refuses to start with a clear message where "
                    "the registry, the package or the prediction log is the reason."
                ),
                "Where the newest version does not load: `batteryops promote` the one before it.",
                (
                    "The webhook stands in that very server: Alertmanager keeps trying, and the "
                    "incident is opened when it is back. Have a second receiver page somebody."
                ),
            ),
        ),
        Rule(
            name="InstanceDown",
            expr=f'up{{job="{JOB}"}} == 0',
            wait="2m",
            severity="warning",
            cause="instance",
            summary="Server {{ $labels.instance }} does not answer",
            description="Prometheus has not reached {{ $labels.instance }} for two minutes; "
            "others still answer.",
            meaning="One of several servers is away; clients are answered by the others.",
            remedy=("As for ServerDown, on that machine; nothing is lost meanwhile.",),
            keep="5m",
        ),
        Rule(
            name="HighLatency",
            expr="histogram_quantile(0.95, sum by (le) (rate("
            'http_request_duration_seconds_bucket{path="/predict"}[5m]))) > '
            f"{latency_s:g}",
            wait="5m",
            severity="warning",
            cause="latency",
            summary=f"One prediction in twenty takes longer than {1000 * latency_s:g} ms",
            description="The 95th percentile of POST /predict is "
            "{{ $value | humanizeDuration }} over five minutes, expected at most "
            f"{1000 * latency_s:g} ms.",
            meaning="Single predictions are slow. Batches are not looked at here: a batch of "
            "100,000 rows may take longer.",
            remedy=(
                (
                    "See the panels of api_monitoring: does the rate stand above what it usually "
                    "is, does the commit of the log take long, is the machine's CPU used up?"
                ),
                (
                    "A slow commit is a slow disk or database. A used-up CPU: more workers "
                    "(`serving.workers`), or more servers."
                ),
            ),
            keep="5m",
        ),
        Rule(
            name="HighErrorRate",
            expr='sum(rate(http_request_duration_seconds_count{status=~"5.."}[5m])) / '
            f"sum(rate(http_request_duration_seconds_count[5m])) > {limits.error_share:g}",
            wait="5m",
            severity="critical",
            cause="errors",
            summary="The server fails at more requests than it may",
            description="{{ $value | humanizePercentage }} of the requests of five minutes were "
            f"answered with a server error, expected at most {limits.error_share:.0%}.",
            meaning="Requests that were sound are not answered. 503 means that the prediction log "
            "cannot be written or its queue is full; 500 is a fault of ours.",
            remedy=(
                "`GET /readyz` says which part fails.",
                (
                    "Look up a failed request by its identifier (`instance` of the problem "
                    "document) in the server's log."
                ),
            ),
            keep="5m",
        ),
        Rule(
            name="LogLag",
            expr=f"max(prediction_log_lag_seconds) > {limits.log_lag_s:g}",
            wait="2m",
            severity="critical",
            cause="prediction_log",
            summary="Predictions wait for the log",
            description="The oldest prediction has waited {{ $value | humanizeDuration }} for the "
            f"log, expected at most {limits.log_lag_s:g} s.",
            meaning="Answers are given once they are on disk: clients wait as long.",
            remedy=(
                "Is the disk full (`df`), or slow? Is PostgreSQL up, and does anything hold locks?",
                "`batteryops doctor` tries the log.",
            ),
            keep="2m",
        ),
        Rule(
            name="LogQueueLong",
            expr=f"max(prediction_log_queue_rows) > {half_queue}",
            wait="2m",
            severity="warning",
            cause="prediction_log",
            summary="The queue of the prediction log is half full",
            description="{{ $value }} predictions wait for the log; at "
            f"{settings.serving.log.queue_rows} a worker refuses with 503.",
            meaning="More predictions come in than the log takes.",
            remedy=("As for LogLag; or let fewer clients in (`serving.limits.rate_per_s`).",),
            keep="2m",
        ),
        Rule(
            name="PredictionsLost",
            expr="sum(increase(predictions_lost_total[10m])) > 0",
            wait="",
            severity="critical",
            cause="prediction_log",
            summary="Predictions were given that are not on record",
            description="{{ $value | humanize }} predictions of ten minutes could not be written.",
            meaning="In log mode `async` answers go out before they are on disk; these were lost.",
            remedy=(
                "As for LogLag.",
                "Where that must not happen: `serving.log.mode: sync`.",
            ),
        ),
        Rule(
            name="RegistryUnreachable",
            expr="min(registry_reachable) == 0",
            wait="5m",
            severity="warning",
            cause="registry",
            summary="The model registry does not answer",
            description="For five minutes; what was known is served on, promotions do not arrive.",
            meaning="Predictions are answered. A promotion or a rollback would not reach them.",
            remedy=("`batteryops doctor` tries the registry; look after MLflow and its database.",),
            keep="5m",
        ),
        Rule(
            name="DiskFull",
            expr=f"min(home_disk_free_bytes / home_disk_size_bytes) < {limits.disk_free_share:g}",
            wait="10m",
            severity="critical",
            cause="disk",
            summary="The disk that holds home is nearly full",
            description="{{ $value | humanizePercentage }} of it is free, expected at least "
            f"{limits.disk_free_share:.0%}.",
            meaning="A full disk stops the prediction log, and with it every answer.",
            remedy=("Make room, or move the databases (`records.predictions_url`).",),
            keep="10m",
        ),
    )

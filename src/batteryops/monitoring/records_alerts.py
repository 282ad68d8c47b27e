"""Alerts on what is measured and kept: labels, features, monitoring, ledger, backup."""

from batteryops.monitoring.alert_rule import HOUR_S, SINCE_RUN, Rule
from batteryops.settings import Settings


def data_alerts(settings: Settings) -> tuple[Rule, ...]:
    """Labels and features."""
    monitoring = settings.monitoring
    limits = monitoring.alerts
    lag_s = monitoring.label_lag_alert_days * 24 * HOUR_S
    return (
        Rule(
            name="LabelsLate",
            expr=f'max(label_age_seconds{{quantile="0"}}) + {SINCE_RUN} > {lag_s:.0f}',
            wait="15m",
            severity="warning",
            cause="labels",
            summary="No label has come for a long time",
            description="The newest label is {{ $value | humanizeDuration }} old, expected at "
            f"most {monitoring.label_lag_alert_days:g} days.",
            meaning="Without labels nobody knows the model's error; model_mae is about the past.",
            remedy=(
                "Does the workshop still measure, and does its system still send `POST /labels`?",
                "Read model_mae_estimate meanwhile; it is an estimate.",
            ),
            keep="1h",
        ),
        Rule(
            name="FeatureMissing",
            expr=f"max by (feature) (feature_missing_share) > {limits.missing_share:g}",
            wait="10m",
            severity="warning",
            cause="data_quality",
            summary="{{ $labels.feature }} is often missing",
            description="{{ $value | humanizePercentage }} of the values of "
            f"{{{{ $labels.feature }}}} are null, expected at most {limits.missing_share:.0%}.",
            meaning="A model sees the value as missing, or the request is refused.",
            remedy=("Which vehicles, since when? Look at the source, then at its firmware.",),
            keep="30m",
        ),
        Rule(
            name="FeatureOutOfRange",
            expr="max by (feature) (feature_out_of_range_share) > "
            f"{limits.feature_out_of_range_share:g}",
            wait="10m",
            severity="warning",
            cause="data_quality",
            summary="{{ $labels.feature }} is often outside of what is plausible",
            description="{{ $value | humanizePercentage }} of the values of "
            "{{ $labels.feature }} are outside of its range, expected at most "
            f"{limits.feature_out_of_range_share:.0%}.",
            meaning="Usually a unit or a sentinel. docs/FEATURES.md has the ranges.",
            remedy=("Compare some rows with their source; mend the conversion there.",),
            keep="30m",
        ),
        Rule(
            name="FeatureStuck",
            expr=f"max by (feature) (feature_stuck_share) > {limits.stuck_share:g}",
            wait="10m",
            severity="warning",
            cause="data_quality",
            summary="{{ $labels.feature }} repeats itself",
            description="{{ $value | humanizePercentage }} of the values of "
            "{{ $labels.feature }} stand still, expected at most "
            f"{limits.stuck_share:.0%}.",
            meaning="A sensor that is stuck, or a source that sends its last value again.",
            remedy=("Which vehicles? Look at the sensor, then at what buffers its values.",),
            keep="30m",
        ),
    )


def records_alerts(settings: Settings) -> tuple[Rule, ...]:
    """Monitoring itself, the ledger, the backup."""
    limits = settings.monitoring.alerts
    run_age_s = limits.run_age_hours * HOUR_S
    backup_age_s = limits.backup_age_hours * HOUR_S
    return (
        Rule(
            name="MonitoringStale",
            expr="time() - max(monitoring_last_run_timestamp_seconds) > "
            f"{run_age_s:.0f} or absent(monitoring_last_run_timestamp_seconds)",
            wait="15m",
            severity="warning",
            cause="monitoring",
            summary="Monitoring has not run for too long",
            description="No run is known, or the newest is older than "
            f"{limits.run_age_hours:g} hours.",
            meaning="What is shown of the model is old, and no alert about it can come.",
            remedy=(
                "Is `batteryops monitor` still scheduled, and how did it end last?",
                "`monitoring_readable` is 0: the server cannot read the database.",
            ),
            keep="5m",
        ),
        Rule(
            name="LedgerBroken",
            expr="min(ledger_intact) == 0",
            wait="",
            severity="critical",
            cause="ledger",
            summary="The ledger was changed",
            description="Its chain does not hold: an entry was changed or taken out.",
            meaning="The record of decisions cannot be trusted from the broken entry on.",
            remedy=(
                "`batteryops audit` names the entry.",
                "Stop writing; compare with the newest backup; find out who had access.",
            ),
        ),
        Rule(
            name="BackupTooOld",
            expr=f"max(backup_age_seconds) + {SINCE_RUN} > {backup_age_s:.0f}",
            wait="15m",
            severity="warning",
            cause="backup",
            summary="The newest backup is too old",
            description="It is {{ $value | humanizeDuration }} old, expected at most "
            f"{limits.backup_age_hours:g} hours.",
            meaning="A lost disk would lose more than was agreed.",
            remedy=("Is the backup still scheduled, and how did it end last?",),
            keep="5m",
        ),
    )

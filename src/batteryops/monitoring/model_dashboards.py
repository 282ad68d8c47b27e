"""Dashboards of the model: how good its answers are, and what it is asked."""

from batteryops.monitoring.panels import DashboardPlan, Panel, Query, rising
from batteryops.monitoring.shared_panels import (
    coverage_panel,
    distribution_panel,
    drift_causes_panel,
    mae_panel,
    prediction_drift_panel,
    r2_panel,
    share_panel,
    worst_psi_panel,
)
from batteryops.settings import Settings


def performance_dashboard(settings: Settings) -> DashboardPlan:
    """How good answers are."""
    monitoring = settings.monitoring
    return DashboardPlan(
        "ml_model_performance.json",
        "batteryops-model",
        "BatteryOps: model performance",
        "How good answers are, as far as late labels tell, and what is estimated meanwhile.",
        (
            (mae_panel(settings, "stat"), r2_panel(settings, "stat"), coverage_panel()),
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
                    "Quantile 0 is the time since the newest label. When it grows day by day, "
                    "none come.",
                    unit="s",
                    low=0,
                ),
            ),
            (distribution_panel(), drift_causes_panel(), prediction_drift_panel(settings)),
        ),
    )


def quality_dashboard(settings: Settings) -> DashboardPlan:
    """What the model is asked."""
    limits = settings.monitoring.alerts
    return DashboardPlan(
        "data_quality.json",
        "batteryops-data",
        "BatteryOps: data quality and drift",
        "What the model is asked: is it like training, is it complete, is it plausible?",
        (
            (worst_psi_panel(settings), drift_causes_panel(), prediction_drift_panel(settings)),
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
                share_panel("Missing", "feature_missing_share", "null", limits.missing_share),
                share_panel(
                    "Out of range",
                    "feature_out_of_range_share",
                    "outside of the feature's range",
                    limits.feature_out_of_range_share,
                ),
                share_panel(
                    "Stuck",
                    "feature_stuck_share",
                    "standing still",
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
                        Query(
                            '(sum(rate(http_request_duration_seconds_count{path="/predict",'
                            'status=~"4.."}[1h])) or vector(0)) / '
                            'sum(rate(http_request_duration_seconds_count{path="/predict"}[1h]))',
                            "refused within the hour",
                        ),
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

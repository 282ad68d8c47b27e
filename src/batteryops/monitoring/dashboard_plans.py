"""The five dashboards as plain data; `dashboards.py` makes Grafana's JSON of them."""

from batteryops.monitoring.alert_rule import JOB
from batteryops.monitoring.model_dashboards import performance_dashboard, quality_dashboard
from batteryops.monitoring.panels import (
    GREEN,
    DashboardPlan,
    Panel,
    Query,
    Step,
    rising,
)
from batteryops.monitoring.server_dashboards import api_dashboard, health_dashboard
from batteryops.monitoring.shared_panels import (
    UP,
    distribution_panel,
    error_rate_panel,
    latency_panel,
    mae_panel,
    r2_panel,
    request_rate_panel,
    worst_psi_panel,
)
from batteryops.settings import Settings


def plans(settings: Settings) -> tuple[DashboardPlan, ...]:
    """All dashboards, with the thresholds of these settings."""
    return (
        _overview(settings),
        performance_dashboard(settings),
        api_dashboard(settings),
        quality_dashboard(settings),
        health_dashboard(settings),
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
            (request_rate_panel(), latency_panel(settings), error_rate_panel(settings)),
            (mae_panel(settings, "gauge"), r2_panel(settings, "gauge"), worst_psi_panel(settings)),
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
                distribution_panel(),
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
                        Query('ALERTS{alertstate="firing"}', "{{alertname}}"),
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
                    steps=UP,
                ),
            ),
        ),
    )

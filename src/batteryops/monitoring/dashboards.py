"""Grafana's JSON of the dashboards, by Grafana's own library of types (a tool of development)."""

import json
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

from batteryops.errors import SettingsError
from batteryops.monitoring.dashboard_plans import plans
from batteryops.monitoring.panels import GREEN, DashboardPlan, Panel, Query, Step
from batteryops.settings import Settings

_COLUMNS: Final = 24  # of Grafana's grid
_HEIGHT: Final = 8
_BUILDERS: Final = {
    "timeseries": "timeseries",
    "gauge": "gauge",
    "stat": "stat",
    "heatmap": "heatmap",
    "bars": "bargauge",
    "timeline": "statetimeline",
    "table": "table",
}
_AT_ONCE: Final = ("gauge", "stat", "bars", "table")  # kinds that show the newest value


def pages(settings: Settings) -> dict[str, str]:
    """The JSON of every dashboard, by the name of its file.

    Raises:
        SettingsError: where grafana-foundation-sdk is not installed.
    """
    sdk = _sdk()
    return {plan.file: _page(sdk, plan) for plan in plans(settings)}


def _sdk() -> Any:  # noqa: ANN401  # modules of an optional library
    """The library's modules; it is needed only to write the files."""
    names = ("common", "dashboard", "prometheus", *_BUILDERS.values())
    try:
        return SimpleNamespace(
            **{name: import_module(f"grafana_foundation_sdk.builders.{name}") for name in names},
            encoder=import_module("grafana_foundation_sdk.cog.encoder").JSONEncoder,
            types=import_module("grafana_foundation_sdk.models.dashboard"),
            formats=import_module("grafana_foundation_sdk.models.prometheus").PromQueryFormat,
        )
    except ImportError as error:
        raise SettingsError(
            "dashboards are written with grafana-foundation-sdk, which is not installed; install "
            "the locked dependencies of development (make setup)"
        ) from error


def _page(sdk: Any, plan: DashboardPlan) -> str:  # noqa: ANN401  # of an optional library
    dashboard = (
        sdk.dashboard.Dashboard(plan.title)
        .uid(plan.uid)
        .description(plan.about)
        .tags(["batteryops"])
        .refresh("30s")
        .time("now-24h", "now")
        .timezone("utc")
        .readonly()
        .with_variable(
            sdk.dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .link(
            sdk.dashboard.DashboardLink("BatteryOps")
            .type(sdk.types.DashboardLinkType.DASHBOARDS)
            .tags(["batteryops"])
            .keep_time(True)
        )
    )
    number = 0
    for line, row in enumerate(plan.rows):
        width = _COLUMNS // len(row)
        for column, panel in enumerate(row):
            number += 1
            place = sdk.types.GridPos(h=_HEIGHT, w=width, x=width * column, y=_HEIGHT * line)
            dashboard.with_panel(_panel(sdk, panel).id(number).grid_pos(place))
    document = json.loads(json.dumps(dashboard.build(), cls=sdk.encoder))
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _panel(sdk: Any, panel: Panel) -> Any:  # noqa: ANN401  # of an optional library
    built = (
        getattr(sdk, _BUILDERS[panel.kind])
        .Panel()
        .title(panel.title)
        .description(panel.meaning)
        .unit(panel.unit)
        .datasource(_datasource(sdk))
        .thresholds(_thresholds(sdk, panel.steps or (Step(GREEN),)))
    )
    if panel.low is not None:
        built.min(panel.low)
    if panel.high is not None:
        built.max(panel.high)
    mode = sdk.types.FieldColorModeId
    if panel.kind == "timeseries":
        built.color_scheme(sdk.dashboard.FieldColor().mode(mode.PALETTE_CLASSIC)).fill_opacity(8)
    else:
        built.color_scheme(sdk.dashboard.FieldColor().mode(mode.THRESHOLDS))
    if panel.kind == "heatmap":  # a row for each series, not one for each band of values
        built.calculate(False)
    for at, query in enumerate(panel.queries):
        built.with_target(_query(sdk, panel, query).ref_id(chr(ord("A") + at)))
    return built


def _query(sdk: Any, panel: Panel, query: Query) -> Any:  # noqa: ANN401  # of an optional library
    form = sdk.formats.TIME_SERIES
    if query.buckets:
        form = sdk.formats.HEATMAP
    elif panel.kind == "table":
        form = sdk.formats.TABLE
    built = sdk.prometheus.Dataquery().expr(query.expr).format(form).datasource(_datasource(sdk))
    if query.legend:
        built.legend_format(query.legend)
    return built.instant() if panel.kind in _AT_ONCE else built.range()


def _datasource(sdk: Any) -> Any:  # noqa: ANN401  # of an optional library
    return sdk.types.DataSourceRef(type_val="prometheus", uid="${datasource}")


def _thresholds(sdk: Any, steps: tuple[Step, ...]) -> Any:  # noqa: ANN401  # of an optional library
    return (
        sdk.dashboard.ThresholdsConfig()
        .mode(sdk.types.ThresholdsMode.ABSOLUTE)
        .steps([sdk.types.Threshold(color=step.colour, value=step.value) for step in steps])
    )

"""What a dashboard shows, as plain data: panels, their queries, and what each means."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["timeseries", "gauge", "stat", "heatmap", "bars", "timeline", "table"]

RED: Final = "red"
AMBER: Final = "orange"
GREEN: Final = "green"


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL query.

    Args:
        expr: what is asked.
        legend: names its series; Grafana fills in `{{label}}`.
        buckets: it yields a histogram's, which count upwards; Grafana takes them apart.
    """

    expr: str
    legend: str = ""
    buckets: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """From a value on, a colour."""

    colour: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Args:
        title: short.
        kind: how it is drawn.
        queries: at least one.
        meaning: what it says and what to look for; shown in Grafana and in the guide.
        unit: Grafana's name of the unit.
        steps: colours by value, the first one without a value.
        low: least value of a scale.
        high: greatest value of a scale.
    """

    title: str
    kind: Kind
    queries: tuple[Query, ...]
    meaning: str
    unit: str = "short"
    steps: tuple[Step, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class DashboardPlan:
    """One dashboard: rows of panels of equal width.

    Args:
        file: its name in the folder of dashboards.
        uid: by which Grafana knows it.
        title: shown.
        about: one sentence.
        rows: from the top.
    """

    file: str
    uid: str
    title: str
    about: str
    rows: tuple[tuple[Panel, ...], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, row by row."""
        return tuple(panel for row in self.rows for panel in row)


def rising(warning: float, alert: float) -> tuple[Step, ...]:
    """Green, amber and red for what should stay small."""
    return Step(GREEN), Step(AMBER, warning), Step(RED, alert)


def falling(alert: float, warning: float) -> tuple[Step, ...]:
    """Red, amber and green for what should stay large."""
    return Step(RED), Step(AMBER, alert), Step(GREEN, warning)

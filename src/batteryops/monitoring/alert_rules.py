"""The alerts, in one place: thresholds from the settings; `alert-rules.yml` is written from here.

A rule's label `cause` is what Alertmanager groups by, so that what has one cause is one incident.
Rules look at the worst series over all that tell of the same run (several servers, the textfile):
`max by (feature)` and the like.
"""

from dataclasses import dataclass
from typing import Any, Final

import yaml

from batteryops.monitoring.alert_rule import Rule
from batteryops.monitoring.model_alerts import drift_alerts, performance_alerts
from batteryops.monitoring.records_alerts import data_alerts, records_alerts
from batteryops.monitoring.server_alerts import server_alerts
from batteryops.settings import Settings

GUIDE: Final = "docs/MONITORING_GUIDE.md"
"""Where `runbook_url` points, in the repository; each alert has a heading of its own there."""

_HEAD: Final = """\
# Written by `make docs` from src/batteryops/monitoring/alert_rules.py, which has the reasons;
# thresholds are those of config/production.yaml. docs/MONITORING_GUIDE.md says what to do.
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are looked at together."""

    name: str
    rules: tuple[Rule, ...]


def groups(settings: Settings) -> tuple[Group, ...]:
    """All alerts, with the thresholds of these settings."""
    return (
        Group("batteryops-server", server_alerts(settings)),
        Group("batteryops-model", (*performance_alerts(settings), *drift_alerts(settings))),
        Group("batteryops-data", data_alerts(settings)),
        Group("batteryops-records", records_alerts(settings)),
    )


def rules(settings: Settings) -> tuple[Rule, ...]:
    """All alerts, without their groups."""
    return tuple(rule for group in groups(settings) for rule in group.rules)


def page(settings: Settings) -> str:
    """The content of `alert-rules.yml`."""
    document = {
        "groups": [
            {"name": group.name, "rules": [_entry(rule) for rule in group.rules]}
            for group in groups(settings)
        ]
    }
    return _HEAD + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100)


def _entry(rule: Rule) -> dict[str, Any]:
    labels = {"severity": rule.severity} | ({"cause": rule.cause} if rule.cause else {})
    durations = {"for": rule.wait, "keep_firing_for": rule.keep}
    return {
        "alert": rule.name,
        "expr": rule.expr,
        **{name: value for name, value in durations.items() if value},
        "labels": labels,
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{GUIDE}#{rule.anchor}",
        },
    }


class _Dumper(yaml.SafeDumper):
    """Indents lists, as people do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  # the library's signature
        super().increase_indent(flow, False)

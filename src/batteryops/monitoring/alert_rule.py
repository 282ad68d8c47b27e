"""One alert: what Prometheus looks at, and what it means to a person."""

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["info", "warning", "critical"]

JOB: Final = "batteryops"
"""The server's job in prometheus.yml."""

HOUR_S: Final = 3600

SINCE_RUN: Final = "(time() - max(monitoring_last_run_timestamp_seconds))"
"""Seconds since the newest monitoring run: what it called so old is older by now."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert.

    Args:
        name: in CamelCase.
        expr: PromQL; a series that it yields fires.
        wait: for how long it has to hold, as Prometheus writes durations; empty: no time.
        severity: `critical`: somebody should look now; `info`: opens no incident.
        cause: the label that incidents are grouped by; empty where the expression carries one.
        summary: one line; Prometheus' templates are filled in.
        description: with the value.
        meaning: what it means, for the guide.
        remedy: what to do, for the guide: steps.
        keep: for how long it goes on firing after it held last, so that it does not flap.
    """

    name: str
    expr: str
    wait: str
    severity: Severity
    cause: str
    summary: str
    description: str
    meaning: str
    remedy: tuple[str, ...]
    keep: str = ""

    @property
    def anchor(self) -> str:
        """Of its heading in the guide."""
        return self.name.lower()

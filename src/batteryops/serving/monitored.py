"""Puts what is known beyond the workers on /metrics: the newest monitoring run, the machine."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from batteryops.monitoring.exposition import MonitoringCollector, NewestRun
from batteryops.monitoring.metric_names import BY_NAME
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns
from batteryops.records.predictions import PredictionLog
from batteryops.serving.machine import MachineCollector
from batteryops.serving.service import Service

_READABLE = BY_NAME["monitoring_readable"]


def add_monitoring(service: Service) -> None:
    """Have the service's metrics tell the newest monitoring run and the machine.

    Whichever worker answers the scrape reads both itself, so that nothing is counted twice.
    """
    newest = newest_run(service.log)
    service.metrics.tell_also(MonitoringCollector(newest))
    service.metrics.tell_also(_Readable(newest))
    service.metrics.tell_also(MachineCollector(service.settings.home))
    service.end_first(newest.close)


def newest_run(log: PredictionLog) -> NewestRun:
    """The newest run in the database of the log."""
    runs = MonitoringRuns.beside(log)

    def read() -> Mapping[str, Any] | None:
        run = runs.newest(MONITOR)
        return None if run is None else run.document

    return NewestRun(read)


class _Readable(Collector):
    """Says whether the monitoring runs can be read."""

    def __init__(self, newest: NewestRun) -> None:
        self._newest = newest

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(_READABLE.name, _READABLE.help, value=self._newest.readable)

    def describe(self) -> Iterable[Metric]:
        return ()

"""What the machine and the server's processes use: CPU, memory, disk; read from Linux' /proc."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from batteryops.monitoring.metric_names import BY_NAME

_PROC: Final = Path("/proc")
_MODES: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_EVERY_S: Final = 1.0
_KIB: Final = 1024


class OwnUse:
    """What this worker uses, added to what the others do.

    Args:
        cpu: counts processor time.
        memory: says resident memory.
    """

    def __init__(self, cpu: Counter, memory: Gauge) -> None:
        self._cpu = cpu
        self._memory = memory
        self._counted_s = 0.0
        self._looked_at = -_EVERY_S
        self._page = os.sysconf("SC_PAGE_SIZE")

    def note(self) -> None:
        """Look, at most once a second."""
        now = time.monotonic()
        if now - self._looked_at < _EVERY_S:
            return
        self._looked_at = now
        used_s = time.process_time()
        self._cpu.inc(used_s - self._counted_s)
        self._counted_s = used_s
        try:
            resident = int((_PROC / "self/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return
        self._memory.set(resident * self._page)


class MachineCollector(Collector):
    """Tells of the machine whatever can be read at the time; what cannot has no sample.

    Args:
        home: a folder on the disk that is told of.
        proc: where the kernel tells.
    """

    def __init__(self, home: Path, proc: Path = _PROC) -> None:
        self._home = home
        self._proc = proc

    def collect(self) -> Iterator[Metric]:
        """The machine's metrics."""
        yield from self._cpu()
        memory = self._memory()
        if "MemTotal" in memory and "MemAvailable" in memory:
            yield _gauge("host_memory_size_bytes", memory["MemTotal"])
            yield _gauge("host_memory_available_bytes", memory["MemAvailable"])
        try:
            disk = shutil.disk_usage(self._home)
        except OSError:
            return
        yield _gauge("home_disk_size_bytes", disk.total)
        yield _gauge("home_disk_free_bytes", disk.free)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is, is known only when it is read."""
        return ()

    def _cpu(self) -> Iterator[Metric]:
        declared = BY_NAME["host_cpu_seconds_total"]
        try:
            fields = (self._proc / "stat").read_text().split("\n", 1)[0].split()
            ticks = [int(field) for field in fields[1:]]
        except (OSError, ValueError):
            return
        family = CounterMetricFamily(declared.name, declared.help, labels=declared.labels)
        for mode, count in zip(_MODES, ticks, strict=False):  # newer kernels tell more
            family.add_metric((mode,), count / os.sysconf("SC_CLK_TCK"))
        yield family

    def _memory(self) -> Mapping[str, int]:
        """Bytes by the kernel's names."""
        found = {}
        try:
            for line in (self._proc / "meminfo").read_text().splitlines():
                name, _, amount = line.partition(":")
                found[name] = int(amount.split()[0]) * _KIB
        except (OSError, ValueError, IndexError):
            return {}
        return found


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, BY_NAME[name].help, value=value)

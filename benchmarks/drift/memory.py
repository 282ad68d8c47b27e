"""Memory of counting a file, in a process of its own: `memory.py FILE` prints it as JSON."""

import json
import re
import sys
import time
from pathlib import Path

from benchmarks.drift.data import FEATURES, REFERENCE_ROWS, table

from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import detect
from batteryops.monitoring.reference import Reference


def resident_mb(what: str) -> float:
    """Memory of this process as Linux counts it: `VmRSS` now, `VmHWM` at most."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {what}; this needs Linux")
    return int(found[1]) / 1024


def main() -> None:
    """Fit a reference, then count and judge the file."""
    reference = Reference.fit(table(REFERENCE_ROWS, 1, moved=False), FEATURES)
    # what is counted is what comes on top of a process that has started
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mb("VmRSS")
    started = time.perf_counter()
    counts = Counts.scan(reference, Path(sys.argv[1]))
    seconds = time.perf_counter() - started
    report = detect(reference, counts)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "rows": report.rows,
                "start_mb": before,
                "peak_mb": resident_mb("VmHWM") - before,
            }
        )
    )


if __name__ == "__main__":
    main()

"""Drift, measured beside others in one run: a plain NumPy floor, Evidently, memory, growth."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from benchmarks.drift import floor
from benchmarks.drift.data import CURRENT_ROWS, FEATURES, REFERENCE_ROWS, columns, table, write

from batteryops.monitoring.cells import SHARES
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import DriftReport, detect
from batteryops.monitoring.reference import Reference

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
EVIDENTLY: Final = ROOT / ".bench" / "environments" / "evidently"
FILE_ROWS: Final = 10_000_000
GROWTH_MILLIONS: Final = (1, 3, 10, 30)

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Args:
        what: that was measured.
        value: seconds, megabytes or a ratio; None where it could not be.
        unit: of the value.
        ours_is: how many times faster ours is.
        floor: what it must be at least, or at most.
        goal: what it should be.
        more_is_better: which of the two.
    """

    what: str
    value: float | None
    unit: str
    ours_is: float | None = None
    floor: float | None = None
    goal: float | None = None
    more_is_better: bool = True

    @property
    def verdict(self) -> str:
        """Whether floor and goal are met."""
        judged = self.ours_is if self.unit == "s" else self.value
        if judged is None or self.goal is None or self.floor is None:
            return ""
        sign = 1 if self.more_is_better else -1
        if sign * judged >= sign * self.goal:
            return "goal met"
        return "floor met" if sign * judged >= sign * self.floor else "MISSED"


@dataclass
class _Turns:
    """Seconds of several ways that take turns, so that a noisy machine is noisy for all."""

    ways: dict[str, Callable[[], object]]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, rounds: int) -> None:
        for way in self.ways.values():
            way()  # the first one pays for fresh memory
        names = list(self.ways)
        for number in range(rounds):
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                started = time.perf_counter()
                self.ways[name]()
                self.seconds.setdefault(name, []).append(time.perf_counter() - started)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, ours: str) -> float:
        """The median of the rounds' ratios."""
        pairs = zip(self.seconds[name], self.seconds[ours], strict=True)
        return statistics.median(theirs / own for theirs, own in pairs)


def measure(tell: Tell, *, rounds: int = 5, largest_millions: int = 30) -> list[Line]:
    """All of it.

    Args:
        tell: what is being done.
        rounds: of those that take turns.
        largest_millions: rows of the longest run, in millions.
    """
    tell("drift: reference and current rows")
    before, after = columns(REFERENCE_ROWS, 1, moved=False), columns(CURRENT_ROWS, 2, moved=True)
    old, new = pl.DataFrame(before), pl.DataFrame(after)

    def ours() -> DriftReport:
        reference = Reference.fit(old, FEATURES)
        return detect(reference, Counts.of(reference, new))

    fitted = Reference.fit(old, FEATURES)
    vehicles = new.with_columns(asset_id=pl.Series(np.arange(CURRENT_ROWS) % 500).cast(pl.String))
    fleet = Reference.fit(
        old.with_columns(asset_id=pl.Series(np.arange(REFERENCE_ROWS) % 500).cast(pl.String)),
        FEATURES,
    )
    _check(ours(), floor.plain(before, after))
    tell("drift: ours and plain NumPy, in turns")
    turns = _Turns(
        {
            "ours": ours,
            "fitted": lambda: detect(fitted, Counts.of(fitted, new)),
            "fleet": lambda: detect(fleet, Counts.of(fleet, vehicles)),
            "plain": lambda: floor.plain(before, after),
            "lean": lambda: floor.lean(before, after),
        }
    )
    turns.run(rounds)
    lines = [
        Line("ours: fit 100k, count 1M x 20, judge", turns.median("ours"), "s", 1.0),
        Line("  fitted before, as in service", turns.median("fitted"), "s"),
        Line("  the same by vehicle, 500 of them", turns.median("fleet"), "s"),
        Line(
            "NumPy floor: one sort, exact, as SciPy looks at it",
            turns.median("plain"),
            "s",
            turns.ratio("plain", "ours"),
            floor=1.0,
            goal=3.0,
        ),
        Line(
            "  leaner: looks at the reference's values only",
            turns.median("lean"),
            "s",
            turns.ratio("lean", "ours"),
        ),
        _evidently(tell, old, new, turns.median("ours")),
    ]
    lines.append(_memory(tell))
    return lines + _growth(tell, fitted, largest_millions)


def _check(report: DriftReport, exact: floor.Found) -> None:
    """Refuse to time an answer that is not right."""
    for name, (value, distance) in exact.items():
        found = report.features[name]
        if abs((found.psi or 0.0) - value) > 1e-9:
            raise ValueError(f"{name}: PSI {found.psi}, plain NumPy says {value}")
        if not distance - 1 / SHARES <= (found.ks or 0.0) <= distance + 1e-12:
            raise ValueError(f"{name}: distance {found.ks}, plain NumPy says {distance}")


def _evidently(tell: Tell, old: pl.DataFrame, new: pl.DataFrame, ours_s: float) -> Line:
    what = "Evidently: PSI and KS of the same rows"
    if not (EVIDENTLY / "ready").is_file():
        return Line(f"{what} (make bench-peers installs it)", None, "s")
    tell("drift: Evidently")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "reference.parquet", Path(folder) / "current.parquet"
        for rows, file in zip((old, new), files, strict=True):
            rows.write_parquet(file)
        found = _printed([EVIDENTLY / "bin" / "python", HERE / "evidently_peer.py", *files])
    seconds = float(found["seconds"])
    return Line(what, seconds, "s", seconds / ours_s, floor=15.0, goal=40.0)


def _memory(tell: Tell) -> Line:
    tell("drift: ten million rows from Parquet")
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        file = Path(folder) / "current.parquet"
        write(file, FILE_ROWS)
        found = _printed([sys.executable, "-m", "benchmarks.drift.memory", file])
    return Line(
        f"10M x 20 from Parquet in {found['seconds']:.1f} s: peak memory over the start",
        float(found["peak_mb"]),
        "MB",
        floor=600.0,
        goal=200.0,
        more_is_better=False,
    )


def _growth(tell: Tell, reference: Reference, largest_millions: int) -> list[Line]:
    """Seconds per million rows as the rows become more."""
    pieces = [table(CURRENT_ROWS, seed, moved=True) for seed in range(3, 6)]
    lines = []
    for millions in (*GROWTH_MILLIONS, 100):
        if millions > largest_millions:
            break
        tell(f"drift: {millions} million rows")
        started = time.perf_counter()
        total = Counts.of(reference, pieces[0])
        for number in range(1, millions):
            total += Counts.of(reference, pieces[number % len(pieces)])
        detect(reference, total)
        each = (time.perf_counter() - started) / millions
        lines.append(Line(f"{millions}M rows, for each million", each, "s"))
    return lines


def _scratch() -> Path:
    folder = ROOT / ".bench"
    folder.mkdir(exist_ok=True)
    return folder


def _printed(command: Sequence[str | Path]) -> dict[str, Any]:
    """The JSON that a program prints last."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(  # noqa: S603 - ours
        [str(word) for word in command],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def install() -> None:
    """Make Evidently's environment, or make it anew.

    Raises:
        subprocess.CalledProcessError: when pip cannot install it; it has said why.
    """
    shutil.rmtree(EVIDENTLY, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(EVIDENTLY)], check=True)  # noqa: S603 - ours
    pip = [str(EVIDENTLY / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement"]
    subprocess.run([*pip, str(HERE / "evidently.txt")], check=True)  # noqa: S603 - ours
    (EVIDENTLY / "ready").touch()

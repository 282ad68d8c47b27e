"""Measure what the README claims: `make bench`. Everything side by side, in one run.

Machines are noisy, so each figure is the median of several repetitions, and what can be compared
is given as a ratio to a plain implementation that ran in between.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pandas as pd
import polars as pl
from benchmarks.drift import report as drift_report
from benchmarks.drift.run import measure as measure_drift
from benchmarks.serving import closed_loop, report
from benchmarks.serving.run import Plan, measure

from batteryops.cli.terminal import console, print_json, say, table
from batteryops.features.views import complete_rows, feature_table, get_view, matrix
from batteryops.lifecycle.sources import open_source
from batteryops.models import boosting
from batteryops.schema import LABEL, Kind, Recording
from batteryops.settings import Settings, load_settings
from batteryops.telemetry.canonical import write_canonical
from benchmarks import continuing

DISCHARGES: Final[tuple[Kind, ...]] = ("discharge",)
BATTERYOPS: Final = Path(sys.executable).with_name("batteryops")


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    what: str
    median_s: float
    goal_s: float | None
    repetitions: int
    times_ours: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the goal is met."""
        if self.goal_s is None:
            return "for comparison"
        return "met" if self.median_s < self.goal_s else "MISSED"


def median_s(run: Callable[[], object], repetitions: int) -> float:
    """Median wall time of `run` in seconds."""
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def command(*words: str) -> Callable[[], object]:
    """A run of the command line in a process of its own."""
    return lambda: subprocess.run(  # noqa: S603 - our own command
        [BATTERYOPS, *words], check=True, capture_output=True
    )


def plain_polars(files: str) -> pl.DataFrame:
    """The seven features in the plainest Polars group-by; the floor that ours is held against."""
    volts, time_s = pl.col("voltage_measured_v"), pl.col("time_s")
    celsius = pl.col("temperature_measured_c")
    return (
        pl.scan_parquet(files, include_file_paths="file")
        .group_by("file", "op_index")
        .agg(
            voltage_V_mean=volts.mean(),
            current_A_mean=pl.col("current_measured_a").mean(),
            temperature_C_mean=celsius.mean(),
            temperature_C_max=celsius.max(),
            discharge_time_s=time_s.max(),
            delta_T_C=celsius.max() - celsius.min(),
            voltage_drop_time_s=time_s.filter(volts <= 3.4).first()
            - time_s.filter(volts <= 3.9).first(),
        )
        .collect()
    )


def pandas_loop(files: list[Path]) -> pd.DataFrame:
    """The seven features one cycle at a time in pandas, as the source system computes them."""
    rows = []
    for file in files:
        columns = {column.name: column.to_numpy() for column in pl.read_parquet(file)}
        for cycle, one in pd.DataFrame(columns).groupby("op_index"):
            volts, celsius = one["voltage_measured_v"], one["temperature_measured_c"]
            below_34 = one.loc[volts <= 3.4, "time_s"]
            below_39 = one.loc[volts <= 3.9, "time_s"]
            rows.append(
                {
                    "asset_id": file.name.partition("_")[0],
                    "op_index": cycle,
                    "voltage_V_mean": volts.mean(),
                    "current_A_mean": one["current_measured_a"].mean(),
                    "temperature_C_mean": celsius.mean(),
                    "temperature_C_max": celsius.max(),
                    "discharge_time_s": one["time_s"].iloc[-1],
                    "delta_T_C": celsius.max() - celsius.min(),
                    "voltage_drop_time_s": below_34.iloc[0] - below_39.iloc[0]
                    if len(below_34) and len(below_39)
                    else None,
                }
            )
    return pd.DataFrame(rows)


def features_on_nasa(settings: Settings) -> list[Measured]:
    """Tidy Parquet of the 27 cells to the seven features, against two other ways."""
    assert settings.data is not None  # noqa: S101 - the caller looked
    tidy = settings.data / "nasa" / "tidy"
    files = sorted(tidy.glob("*_discharge.parquet"))
    view = get_view("discharge_summary")
    physics = get_view("discharge_physics")

    def ours() -> Recording:
        recording = open_source("nasa", settings, kinds=DISCHARGES)
        feature_table(view, recording)
        return recording

    every = str(tidy / "*_discharge.parquet")
    ours()
    plain_polars(every)
    rows = pl.scan_parquet(files).select(pl.len()).collect().item()
    ours_s = median_s(ours, 9)
    plain_s = median_s(lambda: plain_polars(every), 9)
    pandas_s = median_s(lambda: pandas_loop(files), 1)
    physics_s = median_s(
        lambda: feature_table(physics, open_source("nasa", settings, kinds=DISCHARGES)), 5
    )
    return [
        Measured(f"discharge_summary from tidy Parquet, {rows:,} samples", ours_s, 0.4, 9, 1.0),
        Measured("  plain Polars group-by", plain_s, None, 9, plain_s / ours_s),
        Measured("  pandas loop over cycles", pandas_s, None, 1, pandas_s / ours_s),
        Measured("discharge_physics from tidy Parquet", physics_s, None, 5, physics_s / ours_s),
    ]


def features_on_simulated(settings: Settings) -> list[Measured]:
    """The same on a simulated fleet, when there are no real measurements."""
    view = get_view("discharge_summary")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fleet.parquet"
        recording = open_source("simulated", settings)
        write_canonical(recording, file)
        return [
            Measured(
                f"discharge_summary from Parquet, {recording.samples.height:,} simulated samples",
                median_s(
                    lambda: feature_table(view, open_source(str(file), settings, kinds=DISCHARGES)),
                    5,
                ),
                0.4,
                5,
            )
        ]


def fit(settings: Settings, source: str) -> Measured:
    """A full fit with the configured parameters."""
    view = get_view(settings.training.view)
    rows, _ = complete_rows(
        feature_table(view, open_source(source, settings, kinds=DISCHARGES)), view
    )
    features, labels = matrix(view, rows), rows[LABEL].to_numpy()
    training = settings.training

    def run() -> object:
        return boosting.fit(
            features,
            labels,
            feature_names=view.names,
            parameters=training.parameters,
            seed=training.seed,
        )

    run()
    return Measured(
        f"full fit, {len(labels):,} rows of {len(view.names)}", median_s(run, 5), 5.0, 5
    )


def pipeline(settings: Settings, tell: Callable[[str], None]) -> list[Measured]:
    """Cycles to features, fits and the demo."""
    has_nasa = settings.data is not None and (settings.data / "nasa" / "tidy").is_dir()
    tell("batteryops --help")
    measured = [Measured("batteryops --help", median_s(command("--help"), 15), 0.4, 15)]
    tell("features")
    measured += features_on_nasa(settings) if has_nasa else features_on_simulated(settings)
    tell("fit")
    measured.append(fit(settings, "nasa" if has_nasa else "simulated"))
    tell("demo")
    with tempfile.TemporaryDirectory() as home:
        demo = command("demo", "--home", home, "--json")
        measured.append(
            Measured(
                f"batteryops demo on {'NASA cells' if has_nasa else 'a simulated fleet'}",
                median_s(demo, 1),
                60.0,
                1,
            )
        )
    return measured


def show(measured: Sequence[Measured]) -> None:
    """The pipeline's table."""
    table(
        f"measured on {os.cpu_count()} cores",
        ["what", "median s", "goal s", "", "times ours", "repetitions"],
        [
            [
                line.what,
                f"{line.median_s:.3f}",
                "" if line.goal_s is None else f"{line.goal_s:g}",
                line.verdict,
                "" if line.times_ours is None else f"{line.times_ours:.2f}",
                line.repetitions,
            ]
            for line in measured
        ],
    )


def main() -> None:
    """Run all and print tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    as_json = parser.parse_args().json
    can_load = closed_loop.is_installed()
    plan = Plan()
    with console(stderr=True).status("") as status:
        measured = pipeline(load_settings(), status.update)
        drift = measure_drift(status.update)
        continued = continuing.measure(status.update)
        served = measure(plan, status.update) if can_load else None
    if as_json:
        print_json(
            {
                "pipeline": [asdict(line) | {"verdict": line.verdict} for line in measured],
                "drift": drift_report.to_json(drift),
                "continuing": continuing.to_json(continued),
                "serving": report.to_json(served, plan) if served else None,
            }
        )
    else:
        show(measured)
        drift_report.show(drift)
        continuing.show(continued)
        if served:
            report.show(served)
    if not can_load:
        say(f"serving was not measured: {closed_loop.INSTALL}", label="note", style="yellow")


if __name__ == "__main__":
    main()

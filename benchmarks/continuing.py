"""Bringing a model up to date against fitting it anew: `python -m benchmarks.continuing`."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
import polars as pl
import xgboost as xgb
from benchmarks.drift.run import Line, Tell

from batteryops.cli.terminal import console, print_json, table
from batteryops.features.views import complete_rows, feature_table, get_view
from batteryops.models.acceptance import Judges
from batteryops.models.boosting import fit, predict, training_data
from batteryops.models.combining import ensemble
from batteryops.models.continuing import ROUNDS, warm_start
from batteryops.models.labelled import LabelledRows
from batteryops.models.online_learning import online_learning_update
from batteryops.models.refitting import fine_tune
from batteryops.models.replay import replay_sample
from batteryops.settings import load_settings
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.simulator import simulate_chunks

OLD_ROWS: Final = 200_000
NEW_ROWS: Final = 200
CYCLES: Final = 500
FULL_FITS: Final = 3


def measure(tell: Tell, *, rows: int = OLD_ROWS, rounds: int = 9) -> list[Line]:
    """All of it, with the configured parameters.

    Args:
        tell: what is being done.
        rows: that the model is fitted on, simulated.
        rounds: of what takes milliseconds; its median counts.
    """
    tell(f"continuing: {rows:,} simulated rows")
    old = fleet("NMC", rows, 1)
    new, judging = (fleet("LFP", NEW_ROWS, seed) for seed in (2, 3))
    settings = load_settings().training
    parameters, seed = settings.parameters, settings.seed
    tell(f"continuing: full fit of {rows:,} rows")

    def full() -> xgb.Booster:
        return fit(
            old.features, old.labels, feature_names=old.names, parameters=parameters, seed=seed
        )

    booster = full()
    full_s = median_s(full, FULL_FITS)
    replay = replay_sample(old, 2 * len(new), seed=seed)
    judges = Judges(judging, fleet("NMC", 5_000, 4))

    other_seed = seed + 1  # with the booster's own, `xgboost.train` goes on with what was drawn

    def with_xgboost_alone() -> xgb.Booster:
        data = training_data(new.features, new.labels, new.names, parameters)
        own = {name: value for name, value in parameters.items() if name != "n_estimators"}
        return xgb.train({**own, "random_state": other_seed}, data, ROUNDS, xgb_model=booster)

    def warm() -> xgb.Booster:
        return warm_start(booster, new, parameters=parameters, seed=other_seed)

    _check(warm(), with_xgboost_alone(), new)
    ways: dict[str, Callable[[], object]] = {
        f"warm start, {ROUNDS} rounds on {NEW_ROWS} new rows": warm,
        "  the same by xgboost.train": with_xgboost_alone,
        f"  with {len(replay)} rows of replay": lambda: warm_start(
            booster, new, parameters=parameters, seed=seed, replay=replay
        ),
        "online update: replay drawn, continued, judged": lambda: online_learning_update(
            booster, new, old, parameters=parameters, seed=seed, judges=judges
        ),
        "fine tuning of 30 trees, with replay": lambda: fine_tune(
            booster, new, parameters=parameters, replay=replay
        ),
        "ensemble of 0.7 and 0.3, with replay": lambda: ensemble(
            booster, new, parameters=parameters, seed=seed, replay=replay
        ),
    }
    lines = [Line(f"full fit of {rows:,} rows, {parameters['n_estimators']} trees", full_s, "s")]
    for what, way in ways.items():
        tell(f"continuing: {what.strip()}")
        seconds = median_s(way, rounds)
        line = Line(what, seconds, "s", full_s / seconds)
        lines.append(replace(line, floor=50.0, goal=100.0) if way is warm else line)
    return lines


def fleet(chemistry: str, rows: int, seed: int) -> LabelledRows:
    """Cycles of a simulated fleet of one chemistry."""
    view = get_view("discharge_summary")
    vehicles = max(4, -(-rows // CYCLES))
    plan = FleetPlan(
        n_vehicles=vehicles,
        n_cycles=-(-rows // vehicles),
        seed=seed,
        chemistry_shares={chemistry: 1.0},
        sample_interval_s=120.0,
        age_days=(0.0, 900.0),
        mean_days_between=2.0,
    )
    parts = [complete_rows(feature_table(view, part), view)[0] for part in simulate_chunks(plan)]
    found = pl.concat(parts).with_columns(asset_id=pl.col("asset_id") + f"/{seed}").head(rows)
    return LabelledRows.of(
        view,
        found,
        profiles=dict.fromkeys(found["asset_id"].unique(), chemistry),
        nominal_ah={chemistry: 2.0},
    )


def median_s(run: Callable[[], object], repetitions: int) -> float:
    """Median wall time in seconds, after a first run that pays for fresh memory."""
    run()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _check(ours: xgb.Booster, theirs: xgb.Booster, rows: LabelledRows) -> None:
    """Refuse to time what is not the same."""
    apart = np.abs(predict(ours, rows.features) - predict(theirs, rows.features)).max()
    if apart > 1e-6:
        raise ValueError(f"a warm start differs from XGBoost's own by {apart} Ah")


def show(lines: Sequence[Line]) -> None:
    """For people."""
    table(
        "bringing a model up to date",
        ["what", "median s", "full fit takes", "floor", "goal", ""],
        [
            [
                line.what,
                f"{line.value:.3g}",
                "" if line.ours_is is None else f"{line.ours_is:.0f}x",
                "" if line.floor is None else f"{line.floor:g}",
                "" if line.goal is None else f"{line.goal:g}",
                line.verdict,
            ]
            for line in lines
        ],
    )


def to_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """For programs."""
    return [asdict(line) | {"verdict": line.verdict} for line in lines]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=OLD_ROWS, help="that the model is fitted on")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args()
    with console(stderr=True).status("") as status:
        lines = measure(status.update, rows=given.rows)
    if given.json:
        print_json({"continuing": to_json(lines)})
    else:
        show(lines)


if __name__ == "__main__":
    main()

"""The self-test: sees what is planted, and is quiet where nothing is."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.features.views import feature_table, get_view
from batteryops.monitoring.planted_shifts import shifts_of
from batteryops.monitoring.self_test import run_self_test
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.simulator import simulate_fleet

NAMES = list(get_view("discharge_summary").names)
SHIFTS = ["0.25 sigma", "0.5 sigma", "1 sigma", "stuck sensor", "new chemistry", "winter"]


@pytest.fixture(scope="module")
def traffic() -> pl.DataFrame:
    """Rows of sixty vehicles in an order that knows no season, as in a month of traffic."""
    plan = FleetPlan(n_vehicles=60, n_cycles=60, seed=3)
    rows = feature_table(get_view("discharge_summary"), simulate_fleet(plan))
    return rows.drop("op_index").sample(fraction=1.0, shuffle=True, seed=4)


def test_every_planted_shift_is_found_and_most_are_named(traffic: pl.DataFrame) -> None:
    found = run_self_test(traffic, NAMES)
    assert [*found.delay_rows] == SHIFTS
    delays = [found.delay_rows[name] for name in SHIFTS[1:]]
    assert all(rows is not None and rows <= found.rows for rows in delays)
    assert found.named["1 sigma"] == "sensor_fault: offset"
    assert found.named["stuck sensor"] == "sensor_fault: stuck"
    assert found.named["new chemistry"] == "new_chemistry"
    assert found.named["winter"] == "climate"
    assert found.right["winter"]
    assert found.false_alarm_share <= 0.1


def test_it_is_the_same_each_time_and_another_by_another_seed(traffic: pl.DataFrame) -> None:
    one, again, other = (run_self_test(traffic, NAMES, runs=2, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_its_document_is_that_of_a_monitoring_run(traffic: pl.DataFrame) -> None:
    steps: list[tuple[int, int]] = []
    found = run_self_test(
        traffic, NAMES, runs=3, progress=lambda done, total: steps.append((done, total))
    )
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["runs"] == 3
    assert told["delay_rows"].keys() == {*SHIFTS}
    assert {*told["named"]} == {name for name, rows in told["delay_rows"].items() if rows}
    assert 0.0 <= told["false_alarm_share"] <= 1.0
    assert steps == [(done, 9) for done in range(1, 10)]


def test_a_shift_that_is_too_small_to_matter_is_not_found() -> None:
    # PSI of a quarter of a sigma is 0.06; that of half a one 0.24
    rng = np.random.default_rng(5)
    rows = pl.DataFrame({name: rng.normal(size=20_000) for name in ("x", "y")})
    found = run_self_test(rows, ["x", "y"], runs=10)
    assert found.delay_rows["0.25 sigma"] is None
    assert "0.25 sigma" not in found.named
    half, whole = found.delay_rows["0.5 sigma"], found.delay_rows["1 sigma"]
    assert half is not None
    assert whole is not None
    assert whole <= half <= 1000
    assert found.right == {"0.5 sigma": True, "1 sigma": True, "stuck sensor": True}
    assert found.false_alarm_share <= 0.1
    assert "winter" not in found.delay_rows  # nothing there that could be cold


def test_drift_that_is_there_anyway_is_no_finding() -> None:
    # the first rows are unlike the others whether anything is planted or not
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.normal(9.0, size=1500), rng.normal(size=3500)])
    found = run_self_test(pl.DataFrame({"x": x}), ["x"], runs=1)
    rows = found.delay_rows["0.25 sigma"]
    assert rows is None or rows > 1000


def test_planting_changes_what_it_says_and_nothing_else(traffic: pl.DataFrame) -> None:
    for shift in shifts_of(NAMES, "discharge_time_s", 100.0, asset="asset_id"):
        planted = shift.plant(traffic)
        changed = {name for name in traffic.columns if not planted[name].equals(traffic[name])}
        assert changed >= {*shift.features}
        assert planted.shape == traffic.shape
        if "sigma" in shift.name:
            assert changed == {"discharge_time_s"}


def test_too_little_to_test_with_is_refused(traffic: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="399 rows and 40 runs; expected 400"):
        run_self_test(traffic[:399], NAMES)
    with pytest.raises(DataError, match="0 runs"):
        run_self_test(traffic, NAMES, runs=0)
    with pytest.raises(DataError, match="needs pressure; the traffic has"):
        run_self_test(traffic, [*NAMES, "pressure"])
    with pytest.raises(DataError, match="needs features"):
        run_self_test(traffic, [])


@pytest.mark.data
def test_real_cells_can_be_tested_with(data_folder: Path) -> None:
    cells = pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv").rename(
        {"battery_id": "asset_id", "cycle": "op_index"}
    )
    found = run_self_test(cells, NAMES, runs=20)
    assert found.delay_rows["1 sigma"] is not None
    assert found.false_alarm_share <= 0.1

"""The leak-free view: windows by hand, what is dropped, and that it does not hold the label."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batteryops.features.views import feature_table, get_view
from batteryops.schema import CYCLES, SAMPLES, Recording
from batteryops.telemetry import read

VIEW = get_view("partial_window")
Row = tuple[float, float, float, float]

START = datetime(2008, 4, 2, 12, 0)  # noqa: DTZ001, the publisher's local time

# 1 V/h upwards at 1.5 A; then a time constant of 900 s at 4.2 V
RISE_V_PER_S = 1.0 / 3600
TAU_S = 900.0


def charge(from_v: float = 3.7, *, tail_s: float = 2000.0) -> list[Row]:
    """A charge every 5 s that begins with the charger's spike, then climbs as a line."""
    to_limit_s = round((4.2 - from_v) / RISE_V_PER_S)
    rise = [
        (float(t), from_v + RISE_V_PER_S * t, 1.5, 25.0 + t / 1000) for t in range(5, to_limit_s, 5)
    ]
    decay = [
        (float(to_limit_s + t), 4.2, 1.5 * math.exp(-t / TAU_S), 27.0)
        for t in range(0, round(tail_s), 5)
    ]
    return [(0.0, 3.3, 0.0, 25.0), (2.5, 3.0, -3.4, 25.0), *rise, *decay]


def discharge(volts_per_s: float = 1e-4, *, load_a: float = -2.0, until_s: int = 3000) -> list[Row]:
    """A load every 10 s that begins at 3.95 V after two samples of rest, and falls as a line."""
    load = [
        (20.0 + t, 3.95 - volts_per_s * t, load_a, 24.0 + t / 60) for t in range(0, until_s, 10)
    ]
    return [(0.0, 4.19, 0.0, 24.0), (10.0, 4.19, 0.0, 24.0), *load]


def recording(*cycles: tuple[str, Sequence[Row]], asset: str = "A") -> Recording:
    """Operations of one asset, three hours apart, numbered from 1."""
    keys = [
        {
            "asset_id": asset,
            "cycle_index": index,
            "kind": kind,
            "started_at": START + timedelta(hours=3 * index),
        }
        for index, (kind, _) in enumerate(cycles, 1)
    ]
    samples = [
        key | dict(zip(("time_s", "voltage_v", "current_a", "temperature_c"), row, strict=True))
        for key, (_, rows) in zip(keys, cycles, strict=True)
        for row in rows
    ]
    listed = [
        key | {"ambient_temperature_c": 24.0, "n_samples": len(rows), "capacity_ah": 1.8}
        for key, (_, rows) in zip(keys, cycles, strict=True)
    ]
    return Recording(
        pl.DataFrame(samples, schema=SAMPLES), pl.DataFrame(listed, schema=CYCLES), "a test"
    )


def features(*cycles: tuple[str, Sequence[Row]]) -> dict[str, float]:
    """Features of the last discharge; NaN where null."""
    row = feature_table(VIEW, recording(*cycles)).fill_null(float("nan")).row(-1, named=True)
    return {name: row[name] for name in VIEW.names}


def present(found: dict[str, float]) -> set[str]:
    return {name for name, value in found.items() if not math.isnan(value)}


def test_windows_of_a_charge_equal_what_its_slope_says() -> None:
    found = features(("charge", charge()), ("discharge", discharge()))

    seconds = 0.2 / RISE_V_PER_S
    for low in (3.80, 3.95):
        name = f"charge_{low:.2f}_to_{low + 0.2:.2f}_V"
        assert found[f"{name}_s"] == pytest.approx(seconds)
        assert found[f"{name}_Ah"] == pytest.approx(1.5 * seconds / 3600)
        assert found[f"{name}_Wh"] == pytest.approx(1.5 * seconds / 3600 * (low + 0.1), rel=1e-6)
    assert found["charge_current_A"] == 1.5
    assert found["charge_temperature_rise_K"] == pytest.approx(seconds / 1000)


def test_the_decay_of_the_current_has_its_time_constant_charge_and_time() -> None:
    found = features(("charge", charge()), ("discharge", discharge()))

    # the part starts with the first sample below 95 % of 1.5 A: 50 s, as exp(-50 / 900) = 0.946
    assert found["cv_time_constant_s"] == pytest.approx(TAU_S, rel=1e-4)
    assert found["cv_to_half_s"] == pytest.approx(TAU_S * math.log(2) - 50, rel=1e-4)
    assert found["cv_to_fifth_s"] == pytest.approx(TAU_S * math.log(5) - 50, rel=1e-4)
    decayed = math.exp(-50 / TAU_S) - 0.2
    assert found["cv_to_fifth_Ah"] == pytest.approx(1.5 * TAU_S * decayed / 3600, rel=1e-4)


def test_a_current_that_is_switched_off_did_not_decay() -> None:
    stopped = [*charge(tail_s=800.0), (5000.0, 4.18, 0.0, 27.0), (5005.0, 4.18, 0.0, 27.0)]

    found = features(("charge", stopped), ("discharge", discharge()))

    assert found["cv_to_half_s"] == pytest.approx(TAU_S * math.log(2) - 50, rel=1e-4)
    assert math.isnan(found["cv_to_fifth_s"])
    assert math.isnan(found["cv_time_constant_s"])


def test_the_incremental_capacity_peak_lies_where_the_voltage_rises_slowest() -> None:
    # 0.1 mV/s, but a fifth of it within 30 mV of 4.0 V: (1.5 A / 3600) / slope
    rows, volts = charge()[:2], 3.7
    for t in range(5, 9000, 5):
        volts += 5 * (2e-5 if 3.97 <= volts < 4.03 else 1e-4)
        if volts < 4.2:
            rows.append((float(t), volts, 1.5, 25.0))

    found = features(("charge", rows), ("discharge", discharge()))

    assert found["ic_peak_V"] == pytest.approx(4.0, abs=0.011)
    assert found["ic_peak_Ah_per_V"] == pytest.approx(1.5 / 3600 / 2e-5, rel=0.02)
    area = 1.5 / 3600 * (0.06 / 2e-5 + 0.03 / 1e-4)
    assert found["ic_peak_area_Ah"] == pytest.approx(area, rel=0.02)


def test_a_charge_that_begins_within_a_window_has_not_that_window() -> None:
    found = features(("charge", charge(from_v=3.9)), ("discharge", discharge()))

    assert math.isnan(found["charge_3.80_to_4.00_V_Ah"])
    assert found["charge_3.95_to_4.15_V_s"] == pytest.approx(0.2 / RISE_V_PER_S)


@pytest.mark.parametrize(
    "useless",
    [
        pytest.param([(0.0, 4.99, 0.0, 24.0), (12.7, 4.2, 0.0, 24.0)], id="a stub of two samples"),
        pytest.param(
            [(5.0 * i, 8.39 if i < 60 else 4.2, 1.4 * 0.9 ** (i / 9), 24.0) for i in range(300)],
            id="a topping-up with impossible voltages",
        ),
    ],
)
def test_a_useless_charge_is_passed_over_for_the_one_before(useless: list[Row]) -> None:
    whole, load = ("charge", charge()), ("discharge", discharge())

    with_useless = features(whole, ("charge", useless), load)

    alone = features(whole, load)
    alone["rest_before_h"] = alone["rest_before_h"] + 3.0
    assert with_useless == pytest.approx(alone, nan_ok=True)
    assert math.isnan(features(("charge", useless), load)["charge_current_A"])


def test_a_charge_before_the_previous_discharge_is_not_this_ones() -> None:
    load = ("discharge", discharge())

    found = features(("charge", charge()), load, load)

    assert present(found).isdisjoint(
        name
        for name in VIEW.names
        if name.startswith(("charge_", "cv_", "ic_", "re", "rest_b")) and name != "rest_voltage_V"
    )


def test_the_previous_discharge_counts_even_where_it_has_no_record() -> None:
    found = features(("charge", charge()), ("discharge", []), ("discharge", discharge()))

    assert math.isnan(found["charge_current_A"])


def test_rest_and_relaxation_are_between_the_charge_and_the_load() -> None:
    rows = charge()

    found = features(("charge", rows), ("discharge", discharge()))

    assert found["rest_before_h"] == pytest.approx(3.0 - rows[-1][0] / 3600)
    assert found["relaxation_V"] == pytest.approx(4.2 - 4.19)
    assert found["rest_voltage_V"] == 4.19


def test_windows_of_a_load_equal_what_its_slope_says() -> None:
    found = features(("discharge", discharge(volts_per_s=4e-4)))

    assert found["discharge_3.90_to_3.80_V_s"] == pytest.approx(250.0)
    assert found["discharge_3.80_to_3.60_V_s"] == pytest.approx(500.0)
    assert found["discharge_3.80_to_3.60_V_Ah"] == pytest.approx(2.0 * 500 / 3600)
    assert found["discharge_to_3.80_V_Ah"] == pytest.approx(2.0 * 375 / 3600)
    assert found["voltage_V_300s"] == pytest.approx(3.95 - 0.12)
    assert found["voltage_V_900s"] == pytest.approx(3.95 - 0.36)
    assert found["warming_300s_K_per_min"] == pytest.approx(1.0)
    assert found["ohmic_step_ohm"] == pytest.approx(0.24 / 2.0)
    assert found["load_current_A"] == found["load_current_A_mean"] == pytest.approx(-2.0)
    assert math.isnan(found["discharge_3.60_to_3.40_V_s"])  # 3.60 V is reached after 875 s


def test_a_pulsed_load_has_the_charge_of_its_mean_current() -> None:
    rows = discharge(volts_per_s=4e-4)
    pulsed = [
        (t, v if i % 2 == 0 else 4.1, a if i % 2 == 0 else 0.0, c)
        for i, (t, v, a, c) in enumerate(rows)
    ]

    found = features(("discharge", pulsed))

    assert found["load_current_A"] == pytest.approx(-2.0)
    assert found["load_current_A_mean"] == pytest.approx(-1.0)
    assert found["discharge_3.80_to_3.60_V_Ah"] == pytest.approx(500 / 3600, rel=0.02)


def test_nothing_after_the_first_fifteen_minutes_changes_a_feature() -> None:
    rows = discharge(until_s=1200)
    other = [row if row[0] <= 20 + 900 else (row[0], row[1] - 0.5, -4.0, 60.0) for row in rows]

    assert features(("discharge", other)) == pytest.approx(
        features(("discharge", rows)), nan_ok=True
    )


def test_nothing_from_the_fall_below_the_floor_on_changes_a_feature() -> None:
    rows = discharge(volts_per_s=2e-3)  # 3.2 V after 375 s
    other = [row for row in rows if row[1] >= 3.2]
    other.append((405.0, 2.0, -9.0, 80.0))

    found = features(("discharge", rows))

    assert features(("discharge", other)) == pytest.approx(found, nan_ok=True)
    assert math.isnan(found["voltage_V_600s"])
    assert found["discharge_3.60_to_3.40_V_s"] == pytest.approx(100.0)


def test_a_weak_cell_that_starts_below_the_floor_tells_of_its_rest_alone() -> None:
    rows = [(0.0, 4.19, 0.0, 5.0), (10.0, 3.1, -4.0, 5.0), (20.0, 2.6, -4.0, 6.0)]

    assert present(features(("discharge", rows))) == {"ambient_temperature_C"}


def test_a_recording_without_charges_has_the_features_of_the_load() -> None:
    found = features(("discharge", discharge(volts_per_s=4e-4)))

    assert {"voltage_V_900s", "discharge_3.90_to_3.70_V_Ah"} <= present(found)
    assert "charge_current_A" not in present(found)


def test_charges_in_any_order_and_among_others_give_the_same_to_the_last_bit() -> None:
    pair = [("charge", charge()), ("discharge", discharge(volts_per_s=4e-4))]
    other = [("charge", charge(from_v=3.75)), ("discharge", discharge(volts_per_s=3e-4))]
    alone = recording(*pair)
    among = recording(*pair, *other, *pair)

    table = VIEW.compute(among.samples, among.cycles)

    assert table.head(1).equals(VIEW.compute(alone.samples, alone.cycles))
    shuffled = among.samples.sample(fraction=1.0, shuffle=True, seed=7)
    assert VIEW.compute(shuffled, among.cycles.reverse()).equals(table)


@pytest.fixture(scope="module")
def nasa_tables(data_folder: Path) -> tuple[Recording, pl.DataFrame]:
    """NASA's cells with their charges, and the view's table of them."""
    recorded = read(data_folder / "nasa", kinds=VIEW.kinds)
    return recorded, feature_table(VIEW, recorded)


@pytest.mark.data
def test_real_cells_have_the_windows_that_their_records_allow(
    nasa_tables: tuple[Recording, pl.DataFrame],
) -> None:
    _, table = nasa_tables
    known = {
        asset: rows["charge_3.95_to_4.15_V_Ah"].count()
        for (asset,), rows in table.group_by("asset_id")
    }

    assert table.height == 1915
    # the first charge of each begins above 3.95 V or there is none, and once in the three a
    # discharge follows a discharge
    assert {asset: n for asset, n in known.items() if n} == {
        "B0005": 166,
        "B0006": 166,
        "B0007": 166,
        "B0018": 131,
    }
    for view_feature in VIEW.features:
        values = table[view_feature.name].drop_nulls()
        assert values.is_between(view_feature.low, view_feature.high).all(), view_feature.name


@pytest.mark.data
def test_real_charges_alone_equal_the_batch_to_the_last_bit(
    nasa_tables: tuple[Recording, pl.DataFrame],
) -> None:
    recorded, table = nasa_tables
    samples = recorded.samples.filter(pl.col("asset_id") == "B0018")
    for index in table.filter(asset_id="B0018")["op_index"][::40]:
        history = samples.filter(pl.col("cycle_index").is_between(index - 3, index))

        alone = VIEW.compute(history, recorded.cycles)

        assert alone.filter(op_index=index).equals(
            table.filter(asset_id="B0018", op_index=index).drop("capacity_ah")
        )


@pytest.mark.data
def test_no_feature_product_or_ratio_is_a_line_of_the_capacity(
    nasa_tables: tuple[Recording, pl.DataFrame],
) -> None:
    _, table = nasa_tables
    for (asset,), rows in table.filter(pl.col("capacity_ah") > 0.1).group_by("asset_id"):
        label = rows["capacity_ah"].to_numpy()
        values = {name: rows[name].to_numpy() for name in VIEW.names}
        combined = {
            **values,
            **{f"{a} * {b}": values[a] * values[b] for a, b in combinations(values, 2)},
            **{f"{a} / {b}": values[a] / values[b] for a, b in permutations(values, 2)},
        }
        for name, value in combined.items():
            known = np.isfinite(value)
            if known.sum() >= 20 and np.std(value[known]) > 0:  # fewer fit a line by chance
                line = np.corrcoef(value[known], label[known])[0, 1] ** 2
                assert line < 0.999, (asset, name)

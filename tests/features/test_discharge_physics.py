"""The physics features: by hand, and on records that crashed, pulse, rest or never move."""

import math
from collections.abc import Callable

import pytest

from batteryops.features.views import feature_table, get_view
from batteryops.schema import Recording

MakeRecording = Callable[..., Recording]
PHYSICS = get_view("discharge_physics")
SUMMARY = get_view("discharge_summary")
OWN = PHYSICS.names[len(SUMMARY.names) :]


def features(recording: Recording) -> dict[str, float | None]:
    return feature_table(PHYSICS, recording).select(OWN).row(0, named=True)


def test_begins_with_the_seven_and_has_twenty(hand_worked: Recording) -> None:
    table = feature_table(PHYSICS, hand_worked)

    assert PHYSICS.names[:7] == SUMMARY.names
    assert len(PHYSICS.names) == 20
    assert table.select(SUMMARY.names).equals(
        feature_table(SUMMARY, hand_worked).select(SUMMARY.names)
    )


def test_equals_the_features_worked_by_hand(hand_worked: Recording) -> None:
    # seconds since the first loaded sample (20 s): 0, 60, 280, 320, 620, 900, 1220, 1480;
    # their voltages 4.0 3.9 3.8 3.7 3.5 3.4 3.3 2.6 sum to 28.2, their squares to 100.8
    mean_v = 28.2 / 8
    # trapezoids of the power 2 A * V: 10 s at 4.0 W, 60 at 7.9, 220 at 7.7, 40 at 7.5,
    # 300 at 7.2, 280 at 6.9, 320 at 6.7, 260 at 5.9
    energy_ws = 40 + 474 + 1694 + 300 + 2160 + 1932 + 2144 + 1534
    # least squares about the windows' means (220 s, 3.8 V) and (1055 s, 3.2 V)
    early = (-160 * 0.1 + 60 * 0.0 + 100 * -0.1) / (160**2 + 60**2 + 100**2)
    late = (-435 * 0.3 - 155 * 0.2 + 165 * 0.1 + 425 * -0.6) / (435**2 + 155**2 + 165**2 + 425**2)

    assert features(hand_worked) == pytest.approx(
        {
            "time_to_cutoff_s": 1480.0,
            "energy_to_cutoff_Wh": energy_ws / 3600,
            "power_W_mean": 2.0 * mean_v,
            "current_A_std": 0.0,
            "voltage_V_std": math.sqrt(100.8 / 8 - mean_v**2),
            "voltage_V_60s": 3.9,
            "voltage_V_300s": (3.8 + 3.7) / 2,
            "voltage_V_900s": 3.4,
            "ohmic_step_ohm": 0.2 / 2.0,
            "temperature_rise_C_per_min": 7.0 / (1480 / 60),
            "voltage_slope_early_mV_per_min": early * 1000 * 60,
            "voltage_slope_late_mV_per_min": late * 1000 * 60,
            "ambient_temperature_C": 24.0,
        }
    )
    assert energy_ws / 3600 == pytest.approx(2.855)


def test_a_crashed_run_of_three_samples_has_what_its_one_loaded_sample_tells(
    make_recording: MakeRecording,
) -> None:
    # B0053, operation 137
    rows = [
        (0.0, 4.190425, -0.002086, 6.582626),
        (9.36, 4.190597, -0.001539, 6.072575),
        (23.0, 3.801348, -2.011883, 5.839076),
    ]

    computed = features(make_recording({("B0053", 137): rows}))

    assert {name for name, value in computed.items() if value is not None} == {
        "power_W_mean",
        "current_A_std",
        "voltage_V_std",
        "ohmic_step_ohm",
        "ambient_temperature_C",
    }
    assert computed["power_W_mean"] == pytest.approx(3.801348 * 2.011883)
    assert computed["ohmic_step_ohm"] == pytest.approx(
        (4.190597 - 3.801348) / (2.011883 - 0.001539)
    )
    assert computed["current_A_std"] == computed["voltage_V_std"] == 0.0


def test_a_single_sample_under_load_has_power_and_no_deviation(
    make_recording: MakeRecording,
) -> None:
    computed = features(make_recording({("A", 1): [(0.0, 3.5, -2.0, 24.0)]}))

    assert {name: value for name, value in computed.items() if value is not None} == {
        "power_W_mean": 7.0,
        "current_A_std": 0.0,
        "voltage_V_std": 0.0,
        "ambient_temperature_C": 24.0,
    }


def test_a_single_sample_below_the_cutoff_is_there_at_once_with_no_energy(
    make_recording: MakeRecording,
) -> None:
    computed = features(make_recording({("A", 1): [(0.0, 2.5, -2.0, 24.0)]}))

    assert (computed["time_to_cutoff_s"], computed["energy_to_cutoff_Wh"]) == (0.0, 0.0)


def test_a_record_without_load_has_no_feature_of_the_load(make_recording: MakeRecording) -> None:
    rows = [(10.0 * i, 0.33, 0.0017, 6.0) for i in range(20)]  # as the dead cell B0052

    computed = features(make_recording({("A", 1): rows}))

    assert {name for name, value in computed.items() if value is not None} == {
        "ambient_temperature_C"
    }


def test_constant_voltage_has_no_slope_no_deviation_and_no_cutoff(
    make_recording: MakeRecording,
) -> None:
    rows = [(20.0 * i, 3.6, -2.0, 25.0) for i in range(60)]

    computed = features(make_recording({("A", 1): rows}))

    assert computed["voltage_slope_early_mV_per_min"] == pytest.approx(0.0, abs=1e-9)
    assert computed["voltage_slope_late_mV_per_min"] == pytest.approx(0.0, abs=1e-9)
    assert computed["voltage_V_std"] == pytest.approx(0.0, abs=1e-9)
    assert computed["voltage_V_60s"] == computed["voltage_V_900s"] == 3.6
    assert computed["temperature_rise_C_per_min"] == 0.0
    assert computed["time_to_cutoff_s"] is None
    assert computed["energy_to_cutoff_Wh"] is None
    assert computed["ohmic_step_ohm"] is None  # nothing is known from before the load


def test_a_pulsed_load_is_described_by_its_pulses(make_recording: MakeRecording) -> None:
    # every second sample rests at 4.1 V; loaded voltage falls 1 mV/s from 3.8 V
    rows = [
        (10.0 * i, 3.8 - 0.01 * i if i % 2 == 0 else 4.1, -4.0 if i % 2 == 0 else 0.0, 24.0)
        for i in range(80)
    ]

    computed = features(make_recording({("A", 1): rows}))

    assert computed["voltage_V_300s"] == pytest.approx(3.5)
    assert computed["voltage_slope_early_mV_per_min"] == pytest.approx(-60.0)
    assert computed["current_A_std"] == 0.0


def test_no_voltage_is_interpolated_across_a_long_gap_or_beyond_the_load(
    make_recording: MakeRecording,
) -> None:
    rows = [
        (0.0, 4.0, -2.0, 24.0),
        (50.0, 3.9, -2.0, 24.0),
        (111.0, 3.8, -2.0, 24.0),  # 61 s later
        (295.0, 3.7, -2.0, 24.0),
        (305.0, 3.6, -2.0, 24.0),
        (1000.0, 3.9, 0.0, 24.0),
    ]

    computed = features(make_recording({("A", 1): rows}))

    assert computed["voltage_V_60s"] is None
    assert computed["voltage_V_300s"] == pytest.approx(3.65)
    assert computed["voltage_V_900s"] is None


def test_a_last_loaded_sample_at_the_fixed_time_counts(make_recording: MakeRecording) -> None:
    rows = [(0.0, 4.0, -2.0, 24.0), (60.0, 3.9, -2.0, 24.0), (70.0, 4.1, 0.0, 24.0)]

    assert features(make_recording({("A", 1): rows}))["voltage_V_60s"] == 3.9


def test_a_sample_without_voltage_is_bridged(make_recording: MakeRecording) -> None:
    whole = [(0.0, 4.0, -2.0, 24.0), (20.0, 3.0, -2.0, 24.0), (30.0, 2.6, -2.0, 24.0)]
    holed = [*whole[:1], (10.0, None, -2.0, 24.0), *whole[1:]]

    computed = features(make_recording({("A", 1): holed}))

    assert computed["energy_to_cutoff_Wh"] == pytest.approx((7.0 * 20 + 5.6 * 10) / 3600)
    assert computed == features(make_recording({("A", 1): whole}))


def test_a_cycle_without_a_temperature_sensor_has_the_other_features(
    make_recording: MakeRecording,
) -> None:
    rows = [(0.0, 4.0, -2.0, None), (60.0, 3.9, -2.0, None)]

    computed = features(make_recording({("A", 1): rows}))

    assert computed["temperature_rise_C_per_min"] is None
    assert computed["voltage_V_60s"] == 3.9

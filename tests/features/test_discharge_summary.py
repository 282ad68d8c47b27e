"""The seven features: by hand, on bad samples, and against the published matrix."""

from collections.abc import Callable

import polars as pl
import pytest

from batteryops.features.views import feature_table, get_view
from batteryops.schema import Recording

MakeRecording = Callable[..., Recording]
SUMMARY = get_view("discharge_summary")


def test_equals_the_seven_worked_by_hand(hand_worked: Recording) -> None:
    row = feature_table(SUMMARY, hand_worked).row(0, named=True)

    assert row == {
        "asset_id": "A",
        "op_index": 2,
        "voltage_V_mean": pytest.approx(39.8 / 11),
        "current_A_mean": pytest.approx(-16 / 11),
        "temperature_C_mean": pytest.approx(298 / 11),
        "temperature_C_max": 31.0,
        "discharge_time_s": 1560.0,
        "delta_T_C": 31.0 - 24.0,
        "voltage_drop_time_s": 920.0 - 80.0,
        "capacity_ah": 1.5,
    }


def test_a_record_that_never_falls_to_the_lower_voltage_has_no_drop_time(
    make_recording: MakeRecording,
) -> None:
    recording = make_recording({("A", 1): [(0.0, 3.8, -2.0, 24.0), (9.0, 3.41, -2.0, 24.0)]})

    assert feature_table(SUMMARY, recording)["voltage_drop_time_s"].to_list() == [None]


def test_a_record_below_both_voltages_from_the_start_drops_in_no_time(
    make_recording: MakeRecording,
) -> None:
    recording = make_recording({("A", 1): [(0.0, 3.4, -2.0, 24.0), (9.0, 3.3, -2.0, 24.0)]})

    assert feature_table(SUMMARY, recording)["voltage_drop_time_s"].to_list() == [0.0]


def test_null_and_nan_samples_are_left_out_of_their_channel_alone(
    make_recording: MakeRecording,
) -> None:
    rows = [
        (0.0, 4.0, -1.0, 20.0),
        (1.0, None, -2.0, 22.0),
        (2.0, float("nan"), -3.0, float("nan")),
        (3.0, 3.0, None, 24.0),
    ]

    row = feature_table(SUMMARY, make_recording({("A", 1): rows})).row(0, named=True)

    assert row["voltage_V_mean"] == (4.0 + 3.0) / 2
    assert row["current_A_mean"] == (-1.0 - 2.0 - 3.0) / 3
    assert row["temperature_C_mean"] == (20.0 + 22.0 + 24.0) / 3
    assert row["delta_T_C"] == 4.0


def test_a_channel_without_any_value_gives_null(make_recording: MakeRecording) -> None:
    recording = make_recording({("A", 1): [(0.0, 4.0, -1.0, None), (1.0, 3.0, -1.0, None)]})

    row = feature_table(SUMMARY, recording).row(0, named=True)

    assert (row["temperature_C_mean"], row["temperature_C_max"], row["delta_T_C"]) == (None,) * 3


@pytest.mark.data
def test_equals_all_rows_of_the_published_matrix(nasa: Recording, published: pl.DataFrame) -> None:
    table = feature_table(SUMMARY, nasa)

    same_rows = published.select("asset_id", "op_index").join(
        table, on=["asset_id", "op_index"], how="left", maintain_order="left"
    )

    assert published.height == 1886
    for name in (*SUMMARY.names, "capacity_ah"):
        difference = (same_rows[name] - published[name]).abs()
        assert difference.null_count() == 0
        assert difference.max() <= 1e-9  # type: ignore[operator]  # a column's max has a wide type


@pytest.mark.data
def test_the_matrix_leaves_out_25_unlabelled_discharges_and_4_that_never_fall_to_3_4_v(
    nasa: Recording, published: pl.DataFrame
) -> None:
    table = feature_table(SUMMARY, nasa)

    left_out = table.join(published, on=["asset_id", "op_index"], how="anti")
    never_fall = left_out.filter(pl.col("voltage_drop_time_s").is_null())

    assert (table.height, left_out.height) == (1915, 29)
    assert left_out["capacity_ah"].null_count() == 25
    assert never_fall.select("asset_id", "op_index", "capacity_ah").rows() == [
        ("B0049", 41, 0.0),
        ("B0051", 41, 0.0),
        ("B0053", 137, 0.0),
        ("B0054", 253, 0.0),
    ]


@pytest.mark.data
def test_mean_current_times_record_length_rebuilds_the_label_as_declared(
    published: pl.DataFrame,
) -> None:
    cells = published.filter(pl.col("asset_id").is_in(["B0005", "B0006", "B0007", "B0018"]))
    charge_ah = -cells["current_A_mean"] * cells["discharge_time_s"] / 3600

    declared = {feature.name for feature in SUMMARY.features if feature.leaks_label is not None}
    assert {"current_A_mean", "discharge_time_s"} <= declared
    error_ah = (charge_ah - cells["capacity_ah"]).abs().mean()
    assert error_ah == pytest.approx(0.01136, abs=1e-5)

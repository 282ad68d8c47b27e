"""A fleet's scorecard: one action per vehicle, each with its reasons."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import ArrayLike

from batteryops.errors import DataError, SettingsError, UnknownAssetError
from batteryops.lifecycle.fleet_lives import (
    DAYS_PER_MONTH,
    Life,
    life_of_discharges,
    life_of_months,
    life_of_trips,
    read_life,
)
from batteryops.lifecycle.fleet_page import VEHICLE_COLUMNS, render_scorecard, vehicle_row
from batteryops.lifecycle.fleet_plots import draw_scorecard
from batteryops.lifecycle.scorecard import Scorecard, VehicleScore, score_fleet
from batteryops.schema import CYCLES, SAMPLES, Recording
from batteryops.settings import Settings, load_settings
from batteryops.telemetry.trips import trips as read_trips

MONTHS = np.arange(25.0)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings()


def life(
    soh: ArrayLike | None = None,
    rise: ArrayLike | None = None,
    usable: ArrayLike | None = None,
    asset: str = "EU500-01",
) -> Life:
    """25 months of one vehicle at varying load."""
    table = pl.DataFrame(
        {
            "asset_id": [asset] * 25,
            "age": MONTHS,
            "soh": np.full(25, np.nan) if soh is None else np.asarray(soh),
            "rise_k": np.full(25, np.nan) if rise is None else np.asarray(rise),
            "usable": np.full(25, fill_value=True) if usable is None else np.asarray(usable),
            "load": np.tile([1.0, 5.0, 2.0, 4.0, 3.0], 5),
        }
    ).with_columns(pl.col("soh", "rise_k").fill_nan(None))
    return Life(table, "months", ("load",), "rise of a trip", "test")


def only(given: Life, settings: Settings) -> VehicleScore:
    (score,) = score_fleet(given, settings).vehicles
    return score


def told(score: VehicleScore, subject: str) -> tuple[str, str]:
    reason = next(reason for reason in score.reasons if reason.subject == subject)
    return reason.action, reason.text


def test_a_vehicle_far_from_the_limit_is_healthy(settings: Settings) -> None:
    score = only(life(soh=0.98 - 0.001 * MONTHS, rise=7.0 + 0.0 * MONTHS), settings)
    assert score.action == "healthy"
    assert score.soh == pytest.approx(0.957)  # the median of the last three
    assert score.trend is not None
    assert score.trend.slope == pytest.approx(-0.1)
    assert score.units_to_limit == pytest.approx((95.7 - 80) / 0.1)
    assert score.deciding == score.reasons


def test_health_below_the_limit_is_a_priority(settings: Settings) -> None:
    score = only(life(soh=0.82 - 0.002 * MONTHS), settings)
    assert told(score, "health") == (
        "priority",
        "SoH 77.4%, median of the last 3 measurements, is below 80%",
    )
    assert score.units_to_limit == 0.0


def test_health_near_the_limit_is_to_be_monitored(settings: Settings) -> None:
    score = only(life(soh=0.86 - 0.001 * MONTHS), settings)
    assert told(score, "health")[0] == score.action == "monitor"


@pytest.mark.parametrize(
    ("fall", "action"), [(0.020, "priority"), (0.005, "monitor"), (0.002, "healthy")]
)
def test_a_fall_counts_by_when_it_reaches_the_limit(
    settings: Settings, fall: float, action: str
) -> None:
    score = only(life(soh=0.90 + fall * (24 - MONTHS)), settings)
    latest = 0.90 + fall  # the median of the last three
    assert score.units_to_limit == pytest.approx((latest - 0.80) / fall)  # 6, 21 and 51 months
    assert told(score, "trend")[0] == action


def test_one_wild_measurement_changes_neither_health_nor_trend(settings: Settings) -> None:
    soh = 0.98 - 0.001 * MONTHS
    soh[-1] = 0.30
    score = only(life(soh=soh), settings)
    assert score.action == "healthy"
    assert score.trend is not None
    assert score.trend.slope == pytest.approx(-0.1)


def test_a_rise_is_judged_at_equal_load(settings: Settings) -> None:
    load = np.tile([1.0, 5.0, 2.0, 4.0, 3.0], 5)
    score = only(life(soh=np.full(25, 0.95), rise=4.0 + 3.0 * load + 0.25 * MONTHS), settings)
    assert score.temperature is not None
    assert score.temperature.trend is not None
    assert score.temperature.trend.change == pytest.approx(6.0)
    assert told(score, "temperature")[0] == score.action == "priority"
    mild = only(life(soh=np.full(25, 0.95), rise=4.0 + 3.0 * load + 0.1 * MONTHS), settings)
    assert told(mild, "temperature")[0] == "monitor"
    slight = only(life(soh=np.full(25, 0.95), rise=4.0 + 3.0 * load + 0.01 * MONTHS), settings)
    assert told(slight, "temperature")[0] == slight.action == "healthy"
    assert told(slight, "temperature")[1].endswith("below 2 K")
    falling = only(life(soh=np.full(25, 0.95), rise=20.0 + load - 0.25 * MONTHS), settings)
    assert told(falling, "temperature")[1].endswith("no clear rise with age")


def test_a_rise_that_load_explains_is_none(settings: Settings) -> None:
    given = life(soh=np.full(25, 0.95), rise=4.0 + 0.5 * MONTHS)
    explained = replace(given, table=given.table.with_columns(load=2.0 * pl.col("age")))
    score = only(explained, settings)
    assert score.action == "healthy"
    assert [reason.subject for reason in score.reasons] == ["health", "trend"]


def test_health_that_was_never_measured_is_said_to_be_unknown(settings: Settings) -> None:
    score = only(life(rise=np.full(25, 5.0)), settings)
    assert score.action == "monitor"
    assert score.soh is None
    assert score.trend is None
    assert told(score, "health")[1] == "health not known: no capacity was measured"


def test_records_that_are_not_sound_ask_for_a_look_at_the_sensors(settings: Settings) -> None:
    score = only(life(soh=np.full(25, 0.95), usable=MONTHS < 20), settings)
    assert score.unusable_share == pytest.approx(0.2)
    assert told(score, "data") == (
        "monitor",
        "5 of 25 cycles (20%) have no sound record, more than 10%: look at the sensors",
    )


def test_few_cycles_conclude_nothing(settings: Settings) -> None:
    given = life(soh=np.full(25, 0.95))
    score = only(replace(given, table=given.table.head(4)), settings)
    assert score.action == "monitor"
    assert told(score, "data")[1] == "4 cycles, fewer than 10: too few to conclude"


def test_without_dates_no_month_is_promised(settings: Settings) -> None:
    score = only(replace(life(soh=0.90 - 0.002 * MONTHS), unit="100 cycles"), settings)
    assert told(score, "trend")[0] == "healthy"
    assert told(score, "trend")[1].endswith("without dates that is not judged")


def test_two_measurements_give_health_but_no_trend(settings: Settings) -> None:
    soh = np.full(25, np.nan)
    soh[[3, 9]] = 0.95, 0.93
    score = only(life(soh=soh), settings)
    assert score.soh == pytest.approx(0.94)
    assert told(score, "trend") == (
        "monitor",
        "trend not known: 3 measurements or more are needed",
    )


def test_no_vehicles_and_single_cycles_are_refused(settings: Settings) -> None:
    given = life(soh=np.full(25, 0.95))
    with pytest.raises(DataError, match="no vehicles"):
        score_fleet(replace(given, table=given.table.clear()), settings)
    with pytest.raises(DataError, match="no vehicle has more than 1 cycle;"):
        score_fleet(replace(given, table=given.table.head(1)), settings)


def test_the_most_urgent_vehicles_come_first_on_the_page_too(settings: Settings) -> None:
    fleet = [
        life(soh=np.full(25, 0.95), asset="EU500-01"),
        life(soh=np.full(25, 0.84), asset="EU500-02"),
        life(soh=np.full(25, 0.75), rise=4.0 + 0.3 * MONTHS, asset="EU500-03"),
    ]
    card = score_fleet(replace(fleet[0], table=pl.concat([each.table for each in fleet])), settings)
    assert [(v.asset_id, v.action) for v in card.vehicles] == [
        ("EU500-03", "priority"),
        ("EU500-02", "monitor"),
        ("EU500-01", "healthy"),
    ]
    assert card.counts == {"priority": 1, "monitor": 1, "healthy": 1}
    document = card.to_json()
    assert document["limits"]["min_soh"] == 0.8
    assert document["vehicles"][0]["reasons"][0]["action"] == "priority"
    assert document["vehicles"][0]["temperature"]["change_k"] == pytest.approx(7.2)
    page = render_scorecard(card)
    assert page.index("EU500-03") < page.index("EU500-02")
    assert "data:image/png;base64," in page
    assert {len(vehicle_row(v, card.unit)) for v in card.vehicles} == {len(VEHICLE_COLUMNS)}


def test_one_panel_is_drawn_as_wide_as_two(settings: Settings) -> None:
    # a page stretches every plot to its own width: a narrow one would shout
    health, signal = 0.98 - 0.001 * MONTHS, 7.0 + 0.2 * MONTHS
    widths = set()
    for each in (life(soh=health, rise=signal), life(soh=health), life(rise=signal)):
        png = draw_scorecard(score_fleet(each, settings))
        assert png is not None
        widths.add(int.from_bytes(png[16:20], "big"))  # of the PNG's header
    assert len(widths) == 1


def test_where_nothing_is_known_nothing_is_drawn(settings: Settings) -> None:
    card = score_fleet(replace(life(), rise=""), settings)
    assert draw_scorecard(card) is None
    assert "data:image" not in render_scorecard(card)


def recording(months: int = 24) -> Recording:
    """One cell, a discharge a month: 1 % lost and 0.1 K warmer each; at changing load."""
    start = datetime(2024, 1, 1)  # noqa: DTZ001 - the canonical table has the publisher's local time
    rows, cycles = [], []
    for month in range(months):
        at = start + timedelta(days=DAYS_PER_MONTH * month)
        amps = -2.0 - 0.5 * (month % 3)
        ah = 2.0 * (0.95 - 0.005 * month)
        key = ("EV-0001", 2 * month + 1, "discharge")
        end_s = 3600.0 * ah / -amps
        for step in range(40):
            share = step / 39
            voltage_v, celsius = 4.1 - 1.45 * share, 24.0 + (5.0 + 0.1 * month) * share
            at_s = share * end_s
            rows.append((*key, at, at_s, voltage_v, amps, celsius))
        cycles.append((*key, at, 24.0, 40, ah, None, None))
    return Recording(
        pl.DataFrame(rows, schema=SAMPLES, orient="row"),
        pl.DataFrame(cycles, schema=CYCLES, orient="row"),
        "made",
    )


def test_discharges_give_health_per_month_and_the_rise_above_the_start(settings: Settings) -> None:
    found = life_of_discharges(recording(), settings)
    assert found.unit == "months"
    assert found.loads == ("effective_a", "start_c")
    assert found.table["age"].to_list() == pytest.approx(list(range(24)), abs=1e-4)
    assert found.table["soh"].to_list() == pytest.approx([0.95 - 0.005 * m for m in range(24)])
    assert found.table["rise_k"].to_list() == pytest.approx([5.0 + 0.1 * m for m in range(24)])
    assert found.table["effective_a"].to_list()[:3] == pytest.approx([2.0, 2.5, 3.0])
    score = only(found, settings)
    assert score.trend is not None
    assert score.trend.slope == pytest.approx(-0.5, abs=1e-4)


def test_a_label_that_cannot_be_believed_is_no_health_but_its_record_may_be_sound(
    settings: Settings,
) -> None:
    given = recording()
    false = given.cycles.with_columns(
        capacity_ah=pl.when(pl.col("cycle_index") == 47).then(0.1).otherwise("capacity_ah"),
        started_at=pl.lit(None, pl.Datetime("us")),
    )
    found = life_of_discharges(Recording(given.samples, false, "made"), settings)
    assert found.unit == "100 cycles"
    assert found.table["age"].to_list() == pytest.approx([m / 100 for m in range(24)])
    assert found.table["soh"].to_list()[-1] is None


def test_an_asset_without_a_profile_is_refused(settings: Settings) -> None:
    given = recording()
    stranger = pl.lit("Stranger").alias("asset_id")
    with pytest.raises(UnknownAssetError, match="Stranger"):
        life_of_discharges(
            Recording(
                given.samples.with_columns(stranger), given.cycles.with_columns(stranger), "made"
            ),
            settings,
        )


def trip_rows() -> pl.DataFrame:
    n = 12
    return pl.DataFrame(
        {
            "vehicle_id": ["Vehicle 5"] * n,
            "trip_id": list(range(1, n + 1)),
            "dod": [10.0, 14.0, 9.0] * 4,
            "duration_s": [900.0, 1500.0, 800.0, 1100.0] * 3,
            "voltage_mean": [586.0] * n,
            "voltage_std": [3.0] * n,
            "voltage_drop_time_s": [None] * n,
            "current_mean": [20.0, 18.0, 25.0, 22.0, 19.0, 21.0] * 2,
            "current_max": [200.0] * n,
            "current_min": [-1000.0, *([-80.0] * (n - 1))],
            "delta_temp": [7.0, 8.0] * 6,
            "mean_max_temp": [30.0, 31.0, 29.0] * 4,
            "max_temp": [30.0, 31.0, 29.0] * 4,
        },
        schema_overrides={"voltage_drop_time_s": pl.Float64},
    )


def test_trips_have_no_health_and_a_sentinel_makes_a_record_unsound(settings: Settings) -> None:
    found = life_of_trips(read_trips(trip_rows(), source="trips"), settings)
    assert found.unit == "100 cycles"
    assert found.table["soh"].null_count() == 12
    assert found.table["usable"].to_list() == [False] + [True] * 11
    assert any("no dates" in note for note in found.notes)
    assert only(found, settings).action == "monitor"


def test_trips_that_lack_a_column_and_other_recordings_are_refused(settings: Settings) -> None:
    given = read_trips(trip_rows(), source="trips")
    lacking = Recording(given.samples, given.cycles.drop("dod_pct"), "trips")
    with pytest.raises(DataError, match="missing column dod_pct"):
        life_of_trips(lacking, settings)
    with pytest.raises(DataError, match="neither discharges nor trips"):
        life_of_discharges(given, settings)


def test_months_of_a_trip_table_are_taken_from_beside_it(
    settings: Settings, tmp_path: Path
) -> None:
    trip_rows().write_parquet(tmp_path / "trips.parquet")
    halves = [trip_rows().head(6), trip_rows().tail(6)]
    pl.DataFrame(
        {
            "vehicle_id": ["Vehicle 5"] * 2,
            "month": ["2022-01", "2022-02"],
            "avg_dod": [half["dod"].mean() for half in halves],
            "avg_delta_temp": [half["delta_temp"].mean() for half in halves],
            "avg_voltage_std": [3.0, 3.0],
            "trip_count": [6, 6],
        }
    ).write_csv(tmp_path / "chengdu_monthly_features.csv")
    found = read_life(str(tmp_path / "trips.parquet"), settings)
    assert found.unit == "months"
    assert found.table["age"].to_list() == pytest.approx([0.0] * 6 + [31 / DAYS_PER_MONTH] * 6)


def test_monthly_capacities_leave_out_what_was_not_drawn(settings: Settings) -> None:
    months = pl.DataFrame(
        {
            "asset_id": ["EU500-01"] * 4,
            "month": [datetime(2020, m, 1).date() for m in (1, 2, 3, 4)],  # noqa: DTZ001 - dates
            "capacity_ah": [134.0, 133.0, 132.0, 131.0],
            "drawn": [True, False, True, True],
        }
    )
    found = life_of_months(months, settings, source="figure")
    assert found.table["soh"].to_list() == pytest.approx([134 / 145, 132 / 145, 131 / 145])
    assert found.notes[0].startswith("1 of 4 months")
    with pytest.raises(DataError, match="no month of any vehicle is drawn"):
        life_of_months(months.with_columns(drawn=pl.lit(value=False)), settings, source="figure")


def test_the_published_fleet_needs_the_data_folder(settings: Settings) -> None:
    with pytest.raises(DataError, match="BATTERYOPS_DATA, which is not set"):
        read_life("eu500", settings.model_copy(update={"data": None}))


@pytest.mark.parametrize(
    ("name", "value"), [("MONITOR_SOH", "0.7"), ("MONITOR_MONTHS", "1"), ("PRIORITY_RISE_K", "1")]
)
def test_thresholds_out_of_order_are_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"BATTERYOPS_FLEET__{name}", value)
    with pytest.raises(SettingsError, match="a priority is worse than to monitor"):
        load_settings()


def score_of(source: str, folder: Path) -> Scorecard:
    settings = load_settings(data=folder)
    return score_fleet(read_life(source, settings), settings)


@pytest.mark.data
def test_the_chengdu_fleet_has_one_priority_and_no_known_health(data_folder: Path) -> None:
    card = score_of("chengdu", data_folder)
    assert card.unit == "months"
    assert card.counts == {"priority": 1, "monitor": 4, "healthy": 0}
    worst = card.vehicles[0]
    assert worst.asset_id == "Vehicle 2"
    assert worst.temperature is not None
    assert worst.temperature.trend is not None
    assert worst.temperature.trend.change > 5.0
    fifth = next(vehicle for vehicle in card.vehicles if vehicle.asset_id == "Vehicle 5")
    assert fifth.unusable_share == pytest.approx(141 / 761)
    assert all(vehicle.soh is None for vehicle in card.vehicles)


@pytest.mark.data
def test_the_eu500_lose_what_their_publisher_says(data_folder: Path) -> None:
    card = score_of("eu500", data_folder)
    assert len(card.vehicles) == 17
    for vehicle in card.vehicles:
        assert vehicle.trend is not None
        lost_ah = -vehicle.trend.slope * 28 * 145 / 100  # over the 28 steps of 29 months
        assert 13 < lost_ah < 31  # published: 16 to 27 Ah between first and last month


@pytest.mark.data
def test_the_cells_of_one_schedule_warm_more_as_they_age(data_folder: Path) -> None:
    card = score_of("nasa", data_folder)
    for vehicle in card.vehicles:
        if vehicle.asset_id in {"B0005", "B0006", "B0007", "B0018"}:
            assert vehicle.temperature is not None
            assert vehicle.temperature.correlation > 0.8

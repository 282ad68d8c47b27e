from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.features.pack_segment import (
    PACK_FEATURE_NAMES,
    PACK_FEATURES,
    SEGMENT_V,
    segment_table,
)

STEP_S = 10.0
RATED_AH = 100.0


def linear_pack(
    *, capacity_ah: float = 80.0, ohm: float = 0.001, spread_v: float = 0.02, rate_a: float = 30.0
) -> pl.DataFrame:
    """A pack whose open-circuit voltage rises from 3.4 by 1 V over its capacity.

    Charged in pulses of 20 minutes with 20 minutes of rest, as the published tests are.
    """
    on = np.tile(np.repeat([1.0, 0.0], 120), 8)
    current = rate_a * np.concatenate([[0.0], on])
    full = np.cumsum(current) * STEP_S / 3600.0 / capacity_ah
    volts = 3.4 + full + ohm * current
    return pl.DataFrame(
        {
            "segment": 1,
            "time_s": STEP_S * np.arange(len(current)),
            "current_a": current,
            "cell_mean_v": volts,
            "cell_max_v": volts + spread_v,
        }
    )


def features(samples: pl.DataFrame, start_v: float = 3.6) -> dict[str, float | None]:
    table = segment_table(samples, rated_capacity_ah=RATED_AH, starts_v=[start_v])
    row: dict[str, float | None] = table.row(0, named=True)
    return row


def test_a_tenth_of_a_volt_of_a_linear_cell_takes_a_tenth_of_its_capacity() -> None:
    assert features(linear_pack())["segment_charge_pct"] == pytest.approx(8.0, rel=1e-9)
    assert features(linear_pack(capacity_ah=95.0))["segment_charge_pct"] == pytest.approx(9.5)


def test_resistance_is_the_rise_of_three_minutes_at_one_c() -> None:
    # 180 s at 30 A: 30 mV over 1 mOhm and 1.5 Ah of 80 Ah at 1 V; 30 A are 0.3 C
    expected = (30.0 + 1000.0 * 1.5 / 80.0) / 0.3

    assert features(linear_pack())["segment_resistance_mV_per_C"] == pytest.approx(expected)


def test_a_charger_that_reaches_its_current_slowly_does_not_change_the_resistance() -> None:
    at_once = linear_pack()
    current = at_once["current_a"].to_numpy()
    begins = np.flatnonzero(np.diff(current) > 0) + 1
    ramped, ohm = current.copy(), 0.001
    ramped[begins] = 9.0  # for one sample below what counts as charging
    volts = at_once["cell_mean_v"].to_numpy() - ohm * (current - ramped)

    slow = at_once.with_columns(
        current_a=pl.Series(ramped), cell_mean_v=pl.Series(volts), cell_max_v=pl.Series(volts)
    )

    # the voltage stays that of a pack charged at once, 190 s of it: 10 s before it counts
    expected = (30.0 + 1000.0 * 30.0 * 190.0 / 3600.0 / 80.0) / 0.3
    assert features(slow)["segment_resistance_mV_per_C"] == pytest.approx(expected)


def test_a_record_of_one_sample_a_minute_can_be_read() -> None:
    sparse = linear_pack().gather_every(6)

    row = features(sparse)

    assert row["segment_charge_pct"] == pytest.approx(8.0, abs=0.5)
    assert row["segment_resistance_mV_per_C"] is not None


def test_spread_is_how_far_the_highest_cell_stands_above_the_mean() -> None:
    assert features(linear_pack())["segment_spread_mV"] == pytest.approx(20.0)
    # a sensor that reads the highest cell below the mean tells of no spread
    assert features(linear_pack(spread_v=-0.003))["segment_spread_mV"] == 0.0


def test_without_the_highest_cell_only_the_spread_is_missing() -> None:
    row = features(linear_pack().with_columns(cell_max_v=pl.lit(None, pl.Float64)))

    assert row["segment_spread_mV"] is None
    assert row["segment_charge_pct"] == pytest.approx(8.0)


def test_a_segment_in_which_charging_does_not_begin_has_no_resistance() -> None:
    steady = linear_pack().with_columns(segment=pl.int_range(pl.len()) // 120)  # cut at each rest
    short = steady.filter(pl.col("segment") == 4)  # one pulse: 3.9 to 4.025 V and a little more

    row = features(short, start_v=short["cell_mean_v"][60])

    assert row["segment_resistance_mV_per_C"] is None


@pytest.mark.parametrize("start_v", [3.0, 3.40, 5.0])
def test_a_segment_that_the_record_does_not_cover_has_nothing(start_v: float) -> None:
    row = features(linear_pack(), start_v=start_v)

    assert [row[name] for name in PACK_FEATURE_NAMES] == [None, None, None]


def test_charge_that_flows_out_within_the_segment_does_not_count_as_taken() -> None:
    pack = linear_pack()
    resting = pack["current_a"] == 0.0
    inside = pack["cell_mean_v"].is_between(3.64, 3.66) & resting  # one whole rest
    assert inside.sum() == 120
    drained = pack.with_columns(current_a=pl.when(inside).then(-3.6).otherwise("current_a"))

    lost = float(inside.sum()) * 3.6 * STEP_S / 3600.0  # percent of 100 Ah
    taken = features(drained, start_v=3.62)["segment_charge_pct"]
    assert taken == pytest.approx(8.0 - lost)


def test_a_gap_in_the_record_counts_for_no_longer_than_a_minute() -> None:
    pack = linear_pack()
    volts = pack["cell_mean_v"]
    charging = (pack["current_a"] > 0).to_numpy()
    at = int(np.flatnonzero((volts.to_numpy() > 3.65) & charging)[0])
    gap = pack.with_columns(
        time_s=pl.col("time_s") + pl.when(pl.int_range(pl.len()) >= at).then(3600.0).otherwise(0.0)
    )

    # the one sample after the gap stands for 60 s in place of 10 s
    more = 30.0 * 50.0 / 3600.0
    assert features(gap)["segment_charge_pct"] == pytest.approx(8.0 + more)


@given(
    factor=st.floats(0.5, 3.0),
    offset=st.floats(-0.2, 0.0),
    after=st.floats(0.0, 0.5),
)
def test_what_lies_before_and_after_the_segment_changes_nothing(
    factor: float, offset: float, after: float
) -> None:
    # so the features cannot hold the label, which is the charge of the whole test
    pack = linear_pack()
    volts = pack["cell_mean_v"].to_numpy()
    outside_before = pl.int_range(pl.len()) < int(np.flatnonzero(volts > 3.55)[0])
    outside_after = pl.int_range(pl.len()) > int(np.flatnonzero(volts > 3.85)[0])
    current = pl.col("current_a")
    changed = pack.with_columns(
        current_a=pl.when(outside_before | outside_after).then(current * factor).otherwise(current),
        cell_mean_v=pl.col("cell_mean_v")
        + pl.when(outside_before).then(offset).when(outside_after).then(after).otherwise(0.0),
    )

    before, now = features(pack), features(changed)

    for name in PACK_FEATURE_NAMES:
        assert now[name] == pytest.approx(before[name], abs=1e-9)


def test_packs_of_different_size_compare() -> None:
    small = linear_pack()
    large = small.with_columns(pl.col("current_a") * 2.0)

    twice = segment_table(large, rated_capacity_ah=2 * RATED_AH, starts_v=[3.6])

    assert twice.row(0) == pytest.approx(tuple(features(small).values()))


def test_a_record_that_cannot_be_used_is_refused() -> None:
    pack = linear_pack()
    with pytest.raises(DataError, match="missing column cell_max_v"):
        features(pack.drop("cell_max_v"))
    with pytest.raises(DataError, match="no rows"):
        features(pack.clear())
    with pytest.raises(DataError, match="expected above 0"):
        segment_table(pack, rated_capacity_ah=float("nan"), starts_v=[3.6])


def test_a_pack_that_never_charges_has_nothing() -> None:
    resting = linear_pack().with_columns(current_a=pl.lit(0.0))

    assert features(resting)["segment_charge_pct"] is None


def test_each_feature_says_why_the_label_is_not_in_it() -> None:
    assert all(feature.why_safe for feature in PACK_FEATURES)


@pytest.mark.data
def test_published_packs_have_plausible_features_that_only_the_segment_decides(
    data_folder: Path,
) -> None:
    folder = data_folder / "fleet" / "deng2024_inservice"
    ratings = pl.read_csv(folder / "vehicles.csv").select("vehicle", "rated_capacity_ah")
    for vehicle, rated in ratings.rows():
        recorded = pl.read_parquet(folder / f"{vehicle}.parquet").select(
            "segment",
            pl.col("sample").cast(pl.Float64).alias("time_s"),
            (-pl.col("i_load_a")).alias("current_a"),
            pl.col("v_cell_mean").alias("cell_mean_v"),
            pl.col("v_cell_max").alias("cell_max_v"),
        )
        start_v = 3.65
        volts, charging = recorded["cell_mean_v"], recorded["current_a"] > 0.1 * rated
        last = int((charging & (volts >= start_v + SEGMENT_V)).arg_max() or 0) + 1500
        whole = segment_table(recorded, rated_capacity_ah=rated, starts_v=[start_v])
        cut = segment_table(recorded.head(last), rated_capacity_ah=rated, starts_v=[start_v])
        assert whole.equals(cut)
        for feature in PACK_FEATURES:
            assert feature.low <= whole[feature.name].item() <= feature.high

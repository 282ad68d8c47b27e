"""Each check over raw cycles fires on its fault and is silent on sound records."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteryops.errors import DataError, UnknownAssetError
from batteryops.quality.checks import check_recording
from batteryops.quality.report import CheckResult, QualityReport
from batteryops.schema import CYCLES, SAMPLES, Kind, Profile, Recording
from batteryops.settings import QualitySettings, load_settings

SETTINGS = load_settings(Path(__file__).parents[2] / "config" / "production.yaml")
LIMITS: QualitySettings = SETTINGS.quality
profile_of: Callable[[str], Profile] = SETTINGS.profile_of

STEP_S = 180.0


def discharge(
    asset_id: str = "B0005", cycle_index: int = 2, hours: float = 0.9, current_a: float = -2.0
) -> pl.DataFrame:
    """A constant-current discharge to below 2.7 V; capacity is hours * 2 A."""
    n = round(hours * 3600 / STEP_S) + 1
    # each cycle a little different, as measurements are
    voltages = [4.1 - 1.3 * i / (n - 1) + cycle_index * 1e-6 for i in range(n - 1)] + [2.65]
    return samples(
        asset_id,
        cycle_index,
        "discharge",
        time_s=[STEP_S * i for i in range(n)],
        voltage_v=voltages,
        current_a=[current_a] * n,
        temperature_c=[24.0 + 10.0 * i / n for i in range(n)],
    )


def charge(asset_id: str = "B0005", cycle_index: int = 1, n: int = 20) -> pl.DataFrame:
    """A constant-current charge from 3.5 V."""
    return samples(
        asset_id,
        cycle_index,
        "charge",
        time_s=[STEP_S * i for i in range(n)],
        voltage_v=[3.5 + 0.7 * i / n for i in range(n)],
        current_a=[1.5] * n,
        temperature_c=[24.0 + 0.1 * i for i in range(n)],
    )


def samples(
    asset_id: str, cycle_index: int, kind: Kind, **measured: list[float] | list[float | None]
) -> pl.DataFrame:
    """Rows of the canonical table from the four measured columns."""
    n = len(measured["time_s"])
    return pl.DataFrame(
        {
            "asset_id": [asset_id] * n,
            "cycle_index": [cycle_index] * n,
            "kind": [kind] * n,
            "started_at": [None] * n,
            **measured,
        },
        schema=SAMPLES,
    )


def recording(*records: pl.DataFrame, labels: dict[int, float | None] | None = None) -> Recording:
    """Records of cycles; a discharge's label is 1.8 Ah unless `labels` says otherwise by index."""
    given = labels or {}
    table = pl.concat(records)
    cycles = table.group_by("asset_id", "cycle_index", "kind", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n_samples")
    )
    capacities = [
        given.get(index, 1.8) if kind == "discharge" else None
        for index, kind in cycles.select("cycle_index", "kind").iter_rows()
    ]
    missing = [
        pl.lit(None, dtype).alias(name) for name, dtype in CYCLES.items() if name not in cycles
    ]
    cycles = cycles.with_columns(missing).with_columns(
        pl.Series("capacity_ah", capacities, dtype=pl.Float64)
    )
    return Recording(table, cycles.select(list(CYCLES)), source="a test")


def set_value(table: pl.DataFrame, row: int, column: str, value: float | None) -> pl.DataFrame:
    """The table with one value changed."""
    at = pl.int_range(pl.len()) == row
    changed = pl.when(at).then(pl.lit(value, table.schema[column])).otherwise(column)
    return table.with_columns(changed.alias(column))


def check(*records: pl.DataFrame, labels: dict[int, float | None] | None = None) -> QualityReport:
    return check_recording(recording(*records, labels=labels), profile_of, LIMITS)


def found(report: QualityReport) -> set[tuple[int, str]]:
    return set(report.quarantine.select("op_index", "check").iter_rows())


def warned(report: QualityReport) -> set[tuple[str, str | None]]:
    return {(c.name, c.column) for c in report.checks if c.status == "warn"}


def result(report: QualityReport, name: str, column: str | None = None) -> CheckResult:
    (only,) = [c for c in report.checks if (c.name, c.column) == (name, column)]
    return only


def test_sound_records_pass_every_check() -> None:
    report = check(charge(cycle_index=1), discharge(cycle_index=2), discharge(cycle_index=4))
    assert report.quarantine.is_empty()
    assert {c.status for c in report.checks} == {"pass"}
    assert report.accepted
    assert report.n_rows == 3


def test_an_unknown_asset_is_refused_by_name() -> None:
    with pytest.raises(UnknownAssetError, match="Z1"):
        check(discharge(asset_id="Z1"))


def test_samples_of_an_unknown_asset_are_refused_even_when_no_cycle_names_it() -> None:
    known = recording(discharge())
    both = Recording(pl.concat([known.samples, discharge("Z1", 9)]), known.cycles, source="a test")
    with pytest.raises(UnknownAssetError, match="Z1"):
        check_recording(both, profile_of, LIMITS)


def test_a_recording_without_cycles_is_refused() -> None:
    empty = Recording(pl.DataFrame(schema=SAMPLES), pl.DataFrame(schema=CYCLES), source="nothing")
    with pytest.raises(DataError, match="nothing holds no cycles"):
        check_recording(empty, profile_of, LIMITS)


def test_a_record_of_four_samples_is_a_stub() -> None:
    report = check(charge(cycle_index=1, n=4), charge(cycle_index=3, n=5))
    assert found(report) == {(1, "stub")}
    assert report.quarantine["value"].to_list() == [4.0]
    assert report.quarantine["limit"].to_list() == [5.0]


def test_a_listed_discharge_without_samples_is_a_stub_where_others_have_samples() -> None:
    full = recording(discharge(cycle_index=2), discharge(cycle_index=4))
    without = Recording(full.samples.filter(pl.col("cycle_index") != 4), full.cycles, "a test")
    assert found(check_recording(without, profile_of, LIMITS)) == {(4, "stub")}


def test_charges_listed_without_any_record_are_reported_and_not_set_aside() -> None:
    full = recording(charge(cycle_index=1), discharge(cycle_index=2))
    bare = Recording(full.samples.filter(kind="discharge"), full.cycles, "a test")
    report = check_recording(bare, profile_of, LIMITS)
    assert report.quarantine.is_empty()
    assert warned(report) == {("no_record", None)}
    assert report.n_rows == 1


def test_samples_of_an_unlisted_cycle_are_set_aside() -> None:
    full = recording(discharge(cycle_index=2), discharge(cycle_index=4))
    unlisted = Recording(full.samples, full.cycles.filter(cycle_index=2), "a test")
    assert found(check_recording(unlisted, profile_of, LIMITS)) == {(4, "unlisted_cycle")}


def test_a_discharge_that_never_got_under_load_is_a_crashed_run() -> None:
    resting = discharge(current_a=-0.003).with_columns(
        voltage_v=pl.lit(0.33) + pl.col("time_s") / 1e6
    )
    report = check(resting, labels={2: None})
    assert found(report) == {(2, "crashed_run"), (2, "label")}
    reason = report.quarantine.filter(check="crashed_run")["reason"].item()
    assert reason == "never got under load: the discharge current reached 0.003 A"


def test_a_discharge_whose_load_was_cut_at_once_is_a_crashed_run() -> None:
    cut = discharge().with_columns(
        current_a=pl.when(pl.col("time_s") <= 180).then(-2.0).otherwise(0.0)
    )
    report = check(cut, labels={2: 0.06})
    assert found(report) == {(2, "crashed_run")}
    # 2 A for 180 s, and the trapezoid down to zero over the next 180 s: 0.1 + 0.05 Ah
    assert report.quarantine["value"].item() == pytest.approx(0.15)
    assert report.quarantine["limit"].item() == pytest.approx(0.2)


def test_a_label_cut_short_by_a_cold_dip_is_false_but_the_record_is_sound() -> None:
    dip = set_value(discharge(), 1, "voltage_v", 2.5)  # under 2.7 V after 180 s, then recovers
    report = check(dip, labels={2: 0.1})
    assert found(report) == {(2, "false_label")}
    assert "recovered under load" in report.quarantine["reason"].item()
    table = recording(dip).cycles
    assert report.kept(table, "training").is_empty()
    assert report.kept(table, "prediction").equals(table)


def test_a_zero_label_of_a_record_that_ends_under_load_is_false() -> None:
    whole = discharge()
    cut = whole.head(whole.height // 2)
    report = check(cut, labels={2: 0.0})
    assert found(report) == {(2, "false_label")}
    assert "ends under load" in report.quarantine["reason"].item()
    assert ("interrupted", None) in warned(report)


@pytest.mark.parametrize("label", [2.64, -1.0])
def test_a_label_that_the_cell_cannot_have_is_false(label: float) -> None:
    assert found(check(discharge(), labels={2: label})) == {(2, "false_label")}


def test_a_discharge_without_a_label_is_set_aside_for_training_only() -> None:
    report = check(discharge(), labels={2: None})
    assert found(report) == {(2, "label")}
    cycles = recording(discharge()).cycles
    assert report.kept(cycles).is_empty()
    assert report.kept(cycles, "prediction").height == 1
    assert report.accepted  # a fleet in service has no labels


def test_a_label_that_is_not_the_charge_up_to_the_cutoff_is_worth_a_look() -> None:
    report = check(discharge(hours=0.9), labels={2: 1.5})
    assert report.quarantine.is_empty()
    assert warned(report) == {("label_disagrees", "capacity_ah")}


@pytest.mark.parametrize(("volts", "limit"), [(8.39, 4.5), (-0.1, 0.0)])
def test_one_impossible_voltage_sets_a_record_aside(volts: float, limit: float) -> None:
    report = check(set_value(charge(cycle_index=1), 3, "voltage_v", volts))
    assert found(report) == {(1, "impossible_voltage")}
    assert report.quarantine.select("value", "limit").row(0) == (volts, limit)


@pytest.mark.parametrize("value", [-1000.0, 1000.0, 511.0, 65535.0])
@pytest.mark.parametrize("column", ["current_a", "temperature_c"])
def test_a_sentinel_of_either_sign_sets_a_record_aside(value: float, column: str) -> None:
    report = check(set_value(charge(cycle_index=1), 3, column, value))
    assert (1, "sentinel") in found(report)


def test_a_voltage_that_a_pack_can_have_is_no_sentinel() -> None:
    trip = samples(
        "Vehicle 5", 1, "trip", time_s=[511.0], voltage_v=[511.0], current_a=[-20.0],
        temperature_c=[25.0],
    )  # fmt: skip
    assert check(trip).quarantine.is_empty()


def test_a_sentinel_beside_the_samples_is_reported_and_sets_nothing_aside() -> None:
    trip = samples(
        "Vehicle 5", 1, "trip", time_s=[900.0], voltage_v=[580.0], current_a=[-20.0],
        temperature_c=[25.0],
    )  # fmt: skip
    plain = recording(trip)
    marked = Recording(
        plain.samples, plain.cycles.with_columns(current_max_a=-1000.0), source="a test"
    )
    report = check_recording(marked, profile_of, LIMITS)
    assert report.quarantine.is_empty()
    assert warned(report) == {("sentinel", "current_max_a")}


def test_time_that_runs_backwards_sets_a_record_aside() -> None:
    back = set_value(charge(cycle_index=1), 5, "time_s", 100.0)
    report = check(back)
    assert found(report) == {(1, "time_order")}
    assert report.quarantine["value"].item() == 100.0 - 4 * 180.0


def test_a_repeated_time_is_worth_a_look() -> None:
    report = check(set_value(charge(cycle_index=1), 5, "time_s", 4 * 180.0))
    assert report.quarantine.is_empty()
    assert warned(report) == {("repeated_time", "time_s")}


@pytest.mark.parametrize("column", ["time_s", "voltage_v", "current_a", "temperature_c"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_missing_sample_sets_the_record_aside(column: str, value: float | None) -> None:
    sound = [charge(cycle_index=i, n=30 + i) for i in (3, 5, 7)]
    report = check(set_value(charge(cycle_index=1), 3, column, value), *sound)
    assert found(report) == {(1, "missing")}
    assert result(report, "missing", column).rows == 1
    assert report.accepted


def test_too_many_missing_samples_refuse_the_whole_recording() -> None:
    half = charge(cycle_index=1).with_columns(
        voltage_v=pl.when(pl.col("time_s") < 1800).then("voltage_v")
    )
    report = check(half)
    assert result(report, "missing", "voltage_v").value == 0.5
    assert result(report, "missing", "voltage_v").exceeded
    assert not report.accepted


def test_millivolts_are_named_with_what_to_divide_by() -> None:
    report = check(discharge().with_columns(pl.col("voltage_v") * 1000))
    unit = result(report, "unit", "voltage_v")
    assert unit.exceeded
    assert "millivolts; divide by 1000" in unit.message
    assert found(report) == {(2, "unit")}  # not an impossible voltage as well


def test_milliamperes_are_named_with_what_to_divide_by() -> None:
    report = check(discharge().with_columns(pl.col("current_a") * 1000))
    assert "milliamperes; divide by 1000" in result(report, "unit", "current_a").message
    assert not report.accepted


def test_kelvin_is_named_with_what_to_subtract() -> None:
    report = check(discharge().with_columns(pl.col("temperature_c") + 273.15))
    assert "kelvin; subtract 273.15" in result(report, "unit", "temperature_c").message
    assert not report.accepted


def test_discharges_recorded_as_positive_are_named() -> None:
    report = check(discharge(current_a=2.0))
    assert "multiply by -1" in result(report, "unit", "current_a").message
    assert not report.accepted


def test_positive_discharges_are_named_despite_noise_and_a_failed_run() -> None:
    noisy = [
        discharge(cycle_index=index, current_a=2.0).with_columns(
            current_a=pl.when(pl.col("time_s") == 0).then(-0.003).otherwise("current_a")
        )
        for index in (2, 4)
    ]
    failed = discharge(cycle_index=6, current_a=0.001)
    report = check(*noisy, failed)
    assert "multiply by -1" in result(report, "unit", "current_a").message


def test_a_cycle_that_is_listed_twice_is_set_aside() -> None:
    once = recording(discharge())
    twice = Recording(once.samples, pl.concat([once.cycles, once.cycles]), source="a test")
    report = check_recording(twice, profile_of, LIMITS)
    assert found(report) == {(2, "duplicate_cycle")}
    assert not report.accepted  # 100 % of cycles


def test_the_copy_of_a_record_under_another_index_is_set_aside_and_the_first_stays() -> None:
    first = discharge(cycle_index=2)
    copy = first.with_columns(cycle_index=pl.lit(4, pl.Int32))
    report = check(copy, first)
    assert found(report) == {(4, "duplicate_cycle")}
    assert report.quarantine["reason"].item() == "same record as B0005 2"


@pytest.mark.parametrize("column", ["voltage_v", "temperature_c"])
def test_a_sensor_that_never_moves_is_worth_a_look(column: str) -> None:
    report = check(charge(cycle_index=1).with_columns(pl.lit(4.0).alias(column)))
    assert report.quarantine.is_empty()
    assert warned(report) == {("stale_sensor", column)}


def test_a_spurious_first_sample_of_a_charge_is_worth_a_look() -> None:
    report = check(set_value(charge(cycle_index=1), 1, "current_a", -4.03))
    assert report.quarantine.is_empty()
    assert warned(report) == {("spurious_start", "current_a")}


def test_too_many_cycles_set_aside_refuse_the_recording() -> None:
    stubs = [charge(cycle_index=i, n=i) for i in (2, 3)]
    report = check(*stubs, charge(cycle_index=5), charge(cycle_index=7, n=30))
    assert report.quarantined_rows == 2
    assert result(report, "quarantined_share").value == 0.5
    assert not report.accepted


FAULTS: dict[str, Callable[[int], pl.DataFrame]] = {
    "sound": lambda i: discharge(cycle_index=i),
    "stub": lambda i: discharge(cycle_index=i).head(3),
    "idle": lambda i: discharge(cycle_index=i, current_a=-0.001),
    "impossible": lambda i: discharge(cycle_index=i).with_columns(voltage_v=pl.lit(9.0)),
    "gap": lambda i: set_value(discharge(cycle_index=i), 3, "current_a", float("nan")),
}


@settings(max_examples=25)
@given(st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=8), st.integers(0, 1000))
def test_kept_and_set_aside_are_all_rows_and_the_order_of_records_is_irrelevant(
    faults: list[str], seed: int
) -> None:
    records = [FAULTS[fault](i + 1) for i, fault in enumerate(faults)]
    report = check(*records)
    order = np.random.default_rng(seed).permutation(len(records))
    shuffled = [records[i] for i in order]
    assert check(*shuffled).quarantine.equals(report.quarantine)
    for table in (recording(*records).samples, recording(*records).cycles):
        kept, aside = report.kept(table), report.set_aside(table)
        assert pl.concat([kept, aside]).sort(table.columns).equals(table.sort(table.columns))
    sound = {i + 1 for i, fault in enumerate(faults) if fault == "sound"}
    kept_cycles = set(report.kept(recording(*records).cycles)["cycle_index"].to_list())
    assert kept_cycles == sound


@pytest.mark.data
def test_the_nasa_cells_are_judged_by_what_their_records_show(data_folder: Path) -> None:
    nasa = nasa_discharges(data_folder)
    report = check_recording(nasa, profile_of, LIMITS)
    counts = {(check, asset): cycles for check, asset, cycles in report.summary().iter_rows()}
    assert report.accepted
    assert counts == {
        # voltage below the cutoff after 55 to 90 s, load cut, 0.05 to 0.12 Ah delivered
        ("crashed_run", "B0041"): 42,
        ("crashed_run", "B0042"): 6,
        ("crashed_run", "B0043"): 46,
        ("crashed_run", "B0044"): 46,
        # three of the crashed experiment end after 24 samples, two after 3
        ("crashed_run", "B0049"): 1,
        ("crashed_run", "B0051"): 1,
        ("crashed_run", "B0053"): 1,
        ("crashed_run", "B0054"): 1,
        ("stub", "B0053"): 1,
        ("stub", "B0054"): 1,
        # 0.3 V and no current at all: 21 of B0052, 4 of B0050
        ("crashed_run", "B0050"): 9,
        ("crashed_run", "B0052"): 21,
        ("label", "B0050"): 4,
        ("label", "B0052"): 21,
        # cold cells that dip below 2.7 V, warm up, recover, and deliver 0.6 to 1.2 Ah
        ("false_label", "B0042"): 41,
        ("false_label", "B0039"): 2,
        # zero capacity of records that were cut short at 3.4 V after 1.45 Ah
        ("false_label", "B0043"): 1,
        ("false_label", "B0044"): 1,
        # a label of 2.64 Ah on a 2 Ah cell, and a dip
        ("false_label", "B0050"): 2,
        ("impossible_voltage", "B0050"): 2,
    }
    assert result(report, "label_disagrees", "capacity_ah").rows == 0  # 1,694 labels confirmed
    assert report.kept(nasa.cycles).height == 1915 - 221


@pytest.mark.data
def test_the_quirks_of_nasa_charges_are_found(data_folder: Path) -> None:
    charges = nasa_charges(data_folder, "B0005")
    report = check_recording(charges, profile_of, LIMITS)
    # charge no. 33 and the stub no. 170, as the data's description says
    numbers = charges.cycles["cycle_index"].to_list()
    assert found(report) == {
        (numbers[32], "impossible_voltage"),
        (numbers[169], "impossible_voltage"),
    }
    assert result(report, "spurious_start", "current_a").rows == 169


def nasa_discharges(data: Path) -> Recording:
    return _nasa(data, sorted((data / "nasa" / "tidy").glob("*_discharge.parquet")), "discharge")


def nasa_charges(data: Path, cell: str) -> Recording:
    return _nasa(data, [data / "nasa" / "tidy" / f"{cell}_charge.parquet"], "charge")


def _nasa(data: Path, files: list[Path], kind: str) -> Recording:
    """Canonical frames straight from the files: a second way beside the readers."""
    names = {
        "op_index": "cycle_index",
        "voltage_measured_v": "voltage_v",
        "current_measured_a": "current_a",
        "temperature_measured_c": "temperature_c",
    }
    table = pl.concat(
        pl.read_parquet(file)
        .rename(names)
        .select(
            pl.lit(file.name[:5]).alias("asset_id"),
            pl.col("cycle_index").cast(pl.Int32),
            pl.lit(kind).alias("kind"),
            pl.lit(None, pl.Datetime("us")).alias("started_at"),
            pl.col("time_s", "voltage_v", "current_a", "temperature_c").cast(pl.Float64),
        )
        for file in files
    )
    listed = pl.read_csv(data / "nasa" / "cycles.csv", infer_schema=False).select(
        pl.col("cell").alias("asset_id"),
        pl.col("op_index").cast(pl.Int32).alias("cycle_index"),
        pl.col("capacity_ah").cast(pl.Float64),
    )
    cycles = (
        table.group_by("asset_id", "cycle_index", "kind", "started_at", maintain_order=True)
        .agg(pl.len().cast(pl.Int64).alias("n_samples"))
        .join(listed, on=["asset_id", "cycle_index"], how="left", maintain_order="left")
        .with_columns(
            pl.lit(None, pl.Float64).alias(name)
            for name in ("ambient_temperature_c", "re_ohm", "rct_ohm")
        )
        .select(list(CYCLES))
    )
    return Recording(table.select(list(SAMPLES)), cycles, source="nasa")


def test_settings_name_the_sentinel_of_the_chengdu_trips() -> None:
    assert -1000.0 in SETTINGS.quality.sentinels

from pathlib import Path

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.telemetry.charging_tests import read_charging_tests

VEHICLES = "vehicle,rated_capacity_ah,cells_in_series,chemistry,soh_measured,capacity_measured_ah\n"


def record(**changed: pl.Series) -> pl.DataFrame:
    """Four samples in two stretches, the last of them a discharge."""
    table = pl.DataFrame(
        {
            "segment": pl.Series([1, 1, 2, 2], dtype=pl.Int16),
            "segment_label": ["0-19", "0-19", "17-19", "17-19"],
            "sample": pl.Series([0, 1, 0, 1], dtype=pl.Int32),
            "i_load_a": [-20.0, -20.0, -10.0, 5.0],
            "v_cell_mean": [3.5, 3.6, 3.55, 3.5],
            "v_cell_max": [3.51, 3.62, 3.58, 3.52],
            "q_ah": [0.1, 0.2, 0.1, 0.0],
        }
    )
    return table.with_columns(**changed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vehicles.csv").write_text(VEHICLES + "van_1,100.0,90,NCM,0.95,95.0\n")
    record().write_parquet(tmp_path / "van_1.parquet")
    return tmp_path


def test_current_is_turned_so_that_charging_is_positive_and_voltages_are_kept(folder: Path) -> None:
    (test,) = read_charging_tests(folder).tests

    assert test.samples.rows() == [
        (1, 0.0, 20.0, 3.5, 3.51),
        (1, 1.0, 20.0, 3.6, 3.62),
        (2, 0.0, 10.0, 3.55, 3.58),
        (2, 1.0, -5.0, 3.5, 3.52),  # a discharge within the test
    ]
    assert test.asset_id == "van_1"
    assert test.soh_points == pytest.approx(95.0)


def test_columns_that_hold_the_label_are_not_read(folder: Path) -> None:
    record().drop("q_ah", "segment_label").write_parquet(folder / "van_1.parquet")
    (folder / "van_1_soc_ocv.csv").write_text("not a curve")

    (test,) = read_charging_tests(folder).tests

    assert test.samples.columns == [
        "segment",
        "time_s",
        "current_a",
        "cell_mean_v",
        "cell_max_v",
    ]


def test_samples_out_of_order_are_put_in_order(folder: Path) -> None:
    before = read_charging_tests(folder).tests[0].samples
    record().reverse().write_parquet(folder / "van_1.parquet")

    assert read_charging_tests(folder).tests[0].samples.equals(before)


def test_stretches_that_overlap_in_charge_follow_each_other_in_time(folder: Path) -> None:
    # 17-19 percent lies inside 0-19: the labels are no order, the numbers are
    samples = read_charging_tests(folder).tests[0].samples

    assert samples["segment"].to_list() == [1, 1, 2, 2]


def test_without_the_highest_cell_its_column_is_null(folder: Path) -> None:
    record().drop("v_cell_max").write_parquet(folder / "van_1.parquet")

    assert read_charging_tests(folder).tests[0].samples["cell_max_v"].null_count() == 4


def test_a_few_impossible_samples_are_left_out_and_counted(folder: Path) -> None:
    many = pl.concat(
        record().with_columns(pl.col("segment") + 2 * n) for n in range(10)
    ).with_columns(
        v_cell_mean=pl.when(pl.int_range(pl.len()) == 7).then(511.0).otherwise("v_cell_mean"),
        v_cell_max=pl.when(pl.int_range(pl.len()) == 8).then(65535.0).otherwise("v_cell_max"),
    )
    many.write_parquet(folder / "van_1.parquet")

    (test,) = read_charging_tests(folder).tests

    assert (test.samples.height, test.left_out) == (39, 1)
    assert test.samples["cell_max_v"].null_count() == 1


def test_the_label_is_the_measured_capacity_or_else_soh_times_rating(folder: Path) -> None:
    (folder / "vehicles.csv").write_text(
        "vehicle,rated_capacity_ah,soh_measured\nvan_1,200,0.9\nvan_2,100,\n"
    )
    record().write_parquet(folder / "van_2.parquet")

    first, second = read_charging_tests(folder).tests

    assert first.capacity_ah == pytest.approx(180.0)
    assert second.capacity_ah is None
    assert second.soh_points is None
    assert (first.chemistry, first.cells_in_series) == ("not published", None)


def test_the_profile_of_a_pack_is_that_of_a_cell_times_cells_in_series(folder: Path) -> None:
    profile = read_charging_tests(folder).tests[0].profile

    assert (profile.level, profile.cells_in_series, profile.nominal_ah) == ("pack", 90, 100.0)
    assert profile.voltage_sample_v == pytest.approx((180.0, 405.0))  # 2.0 and 4.5 V times 90
    assert profile.soh(95.0) == pytest.approx(0.95)


def test_without_cells_in_series_there_is_no_profile(folder: Path) -> None:
    (folder / "vehicles.csv").write_text("vehicle,rated_capacity_ah\nvan_1,100\n")

    with pytest.raises(DataError, match="number of cells in series is not known"):
        _ = read_charging_tests(folder).tests[0].profile


def test_a_listed_vehicle_without_a_record_is_named(folder: Path) -> None:
    with (folder / "vehicles.csv").open("a") as file:
        file.write("van_9,100.0,90,NCM,0.9,90.0\n")

    assert read_charging_tests(folder).without_record == ("van_9",)


@pytest.mark.parametrize("column", ["segment", "sample", "i_load_a", "v_cell_mean"])
def test_a_record_without_a_column_is_refused(folder: Path, column: str) -> None:
    record().drop(column).write_parquet(folder / "van_1.parquet")

    with pytest.raises(DataError, match=column):
        read_charging_tests(folder)


@pytest.mark.parametrize("column", ["vehicle", "rated_capacity_ah"])
def test_a_list_without_a_column_is_refused(folder: Path, column: str) -> None:
    table = pl.read_csv(folder / "vehicles.csv").drop(column)
    table.write_csv(folder / "vehicles.csv")

    with pytest.raises(DataError, match=column):
        read_charging_tests(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("van_1,0,90,NCM,0.95,95", "no rated capacity above 0"),
        ("van_1,NaN,90,NCM,0.95,95", "no rated capacity above 0"),
        ("van_1,100,90,NCM,0.95,-95", "measured capacity that is not above 0"),
        ("van_1,100,90.5,NCM,0.95,95", "no whole number above 0"),
        (",100,90,NCM,0.95,95", "has no name"),
        ("van_1,100,90,NCM,0.9,90\nvan_1,100,90,NCM,0.9,90", "occurs twice"),
    ],
)
def test_an_unsound_row_of_the_list_is_refused(folder: Path, row: str, message: str) -> None:
    (folder / "vehicles.csv").write_text(VEHICLES + row + "\n")

    with pytest.raises(DataError, match=message):
        read_charging_tests(folder)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (record(v_cell_mean=pl.Series([3500.0] * 4)), "are current in A and voltage in V"),
        (record(i_load_a=pl.Series([-20_000.0] * 4)), "are current in A and voltage in V"),
        (record(v_cell_mean=pl.Series([float("nan")] * 4)), "are current in A and voltage in V"),
        (record(i_load_a=pl.Series([None] * 4, dtype=pl.Float64)), "have no current"),
        (record(sample=pl.Series([0, 0, 0, 1], dtype=pl.Int32)), "occurs twice"),
        (record(sample=pl.Series([0, None, 0, 1], dtype=pl.Int32)), "is not numbered"),
        (record().clear(), "no rows"),
        (record(v_cell_mean=pl.Series(["a"] * 4)), "v_cell_mean"),
    ],
)
def test_an_unsound_record_is_refused(folder: Path, broken: pl.DataFrame, message: str) -> None:
    broken.write_parquet(folder / "van_1.parquet")

    with pytest.raises(DataError, match=message):
        read_charging_tests(folder)


def test_files_that_are_missing_empty_or_no_parquet_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_charging_tests(folder / "elsewhere")
    (folder / "van_1.parquet").write_bytes(b"not Parquet")
    with pytest.raises(DataError, match=r"van_1\.parquet"):
        read_charging_tests(folder)
    (folder / "van_1.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"van_1\.parquet"):
        read_charging_tests(folder)
    (folder / "van_1.parquet").unlink()
    with pytest.raises(DataError, match="no record files"):
        read_charging_tests(folder)
    (folder / "vehicles.csv").unlink()
    with pytest.raises(DataError, match=r"vehicles\.csv"):
        read_charging_tests(folder)


def test_a_record_of_a_vehicle_that_is_not_listed_is_refused(folder: Path) -> None:
    record().write_parquet(folder / "van_2.parquet")

    with pytest.raises(DataError, match=r"van_2 is not in vehicles\.csv"):
        read_charging_tests(folder)


@pytest.mark.data
def test_the_published_packs_have_their_published_soh(data_folder: Path) -> None:
    read = read_charging_tests(data_folder / "fleet" / "deng2024_inservice")

    soh = {test.asset_id: round(test.soh_points or 0.0, 2) for test in read.tests}
    assert soh == {
        "vehicle_01": 94.30,
        "vehicle_02": 93.85,
        "vehicle_04": 87.77,
        "vehicle_05": 97.31,
        "vehicle_06": 92.87,
        "vehicle_09": 101.71,
        "vehicle_10": 99.08,
    }
    for test in read.tests:  # the whole test is the label: that is why only a segment may be used
        charged = float(test.samples["current_a"].sum()) / 3600.0
        assert charged == pytest.approx(test.capacity_ah, abs=0.02)


@pytest.mark.data
def test_the_published_curves_of_open_circuit_voltage_hold_the_label(data_folder: Path) -> None:
    # their state of charge is charge over measured capacity, so capacity is charge over it
    folder = data_folder / "fleet" / "deng2024_inservice"
    (test,) = (t for t in read_charging_tests(folder).tests if t.asset_id == "vehicle_01")
    soc = pl.read_csv(folder / "vehicle_01_soc_ocv.csv")["soc"]
    by_stretch = test.samples.group_by("segment", maintain_order=True).agg(
        pl.col("current_a").sum() / 3600.0
    )
    charged = by_stretch["current_a"].cum_sum()

    for stretch in range(8):
        rebuilt = charged[stretch] / soc[stretch + 2]
        assert rebuilt == pytest.approx(test.capacity_ah, rel=1e-4)

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batteryops.errors import DataError
from batteryops.telemetry.nasa_tidy import read_nasa_tidy


def test_every_operation_is_a_cycle_and_samples_keep_their_values(tidy_folder: Path) -> None:
    recording = read_nasa_tidy(tidy_folder)

    assert recording.cycles.select(
        "asset_id", "cycle_index", "kind", "n_samples", "capacity_ah", "re_ohm", "rct_ohm"
    ).rows() == [
        ("B0901", 1, "charge", 3, None, None, None),
        ("B0901", 2, "discharge", 4, 1.8564874208181574, None, None),
        ("B0901", 3, "impedance", 0, None, 0.0625, 0.125),
        ("B0901", 4, "discharge", 2, None, None, None),
        ("B0901", 5, "impedance", 0, None, None, None),  # its resistances are complex
        ("B0902", 1, "discharge", 3, 1.75, None, None),
    ]
    second = recording.samples.filter(asset_id="B0901", cycle_index=2)
    assert second["voltage_v"].to_list() == [4.25, 4.0, 3.5, 2.625]
    assert second["time_s"].to_list() == [0.0, 16.75, 35.5, 53.25]
    assert second["current_a"].to_list() == [0.0, -2.0, -2.0, -2.0]
    assert second["temperature_c"].to_list() == [24.5, 24.75, 25.5, 26.0]
    assert second["started_at"].unique().to_list() == [
        datetime(2008, 4, 2, 15, 25, 41, 593000)  # noqa: DTZ001, published without a zone
    ]
    assert recording.cycles["ambient_temperature_c"].to_list() == [24.0] * 5 + [43.0]


def test_asking_for_discharges_does_not_open_charge_files(tidy_folder: Path) -> None:
    (tidy_folder / "tidy" / "B0901_charge.parquet").write_bytes(b"not Parquet")

    recording = read_nasa_tidy(tidy_folder, kinds={"discharge"})

    assert recording.cycles["kind"].unique().to_list() == ["discharge"]
    assert recording.samples.height == 4 + 2 + 3


def test_impedance_alone_has_cycles_and_no_samples(tidy_folder: Path) -> None:
    recording = read_nasa_tidy(tidy_folder, kinds={"impedance"})

    assert recording.cycles["cycle_index"].to_list() == [3, 5]
    assert recording.samples.is_empty()


def test_an_operation_without_a_record_keeps_its_row_with_no_samples(tidy_folder: Path) -> None:
    (tidy_folder / "tidy" / "B0901_charge.parquet").unlink()

    cycles = read_nasa_tidy(tidy_folder).cycles

    assert cycles.filter(kind="charge")["n_samples"].to_list() == [0]


def test_rows_out_of_order_are_put_in_order(tidy_folder: Path) -> None:
    whole = read_nasa_tidy(tidy_folder)
    path = tidy_folder / "tidy" / "B0901_discharge.parquet"
    pl.read_parquet(path).sample(fraction=1.0, shuffle=True, seed=3).write_parquet(path)

    assert_frame_equal(read_nasa_tidy(tidy_folder).samples, whole.samples)


def test_a_relative_path_reads_the_same(tidy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_nasa_tidy(tidy_folder)
    (tidy_folder.parent / "elsewhere").mkdir()
    monkeypatch.chdir(tidy_folder.parent / "elsewhere")

    relative = read_nasa_tidy(Path("..") / tidy_folder.name)

    assert_frame_equal(relative.samples, whole.samples)


def test_a_bracket_in_the_folders_name_is_just_a_bracket(tidy_folder: Path) -> None:
    odd = tidy_folder.rename(tidy_folder.with_name("data [2024]*"))

    assert read_nasa_tidy(odd).samples.height == 12


@pytest.mark.parametrize("content", [b"", b"PAR1 this is no Parquet PAR1"])
def test_a_corrupt_file_is_named(tidy_folder: Path, content: bytes) -> None:
    (tidy_folder / "tidy" / "B0902_discharge.parquet").write_bytes(content)

    with pytest.raises(DataError, match=r"B0902_discharge\.parquet"):
        read_nasa_tidy(tidy_folder)


def test_a_truncated_file_is_named(tidy_folder: Path) -> None:
    path = tidy_folder / "tidy" / "B0901_discharge.parquet"
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(DataError, match=r"B0901_discharge\.parquet.*Parquet"):
        read_nasa_tidy(tidy_folder)


def test_a_missing_column_is_named_with_its_file(tidy_folder: Path) -> None:
    path = tidy_folder / "tidy" / "B0902_discharge.parquet"
    pl.read_parquet(path).drop("voltage_measured_v").write_parquet(path)

    with pytest.raises(DataError, match=r"B0902_discharge\.parquet.*voltage_measured_v"):
        read_nasa_tidy(tidy_folder)


def test_strings_in_a_numeric_column_are_refused(tidy_folder: Path) -> None:
    path = tidy_folder / "tidy" / "B0902_discharge.parquet"
    pl.read_parquet(path).with_columns(voltage_measured_v=pl.lit("high")).write_parquet(path)

    with pytest.raises(DataError, match=r"B0902_discharge\.parquet"):
        read_nasa_tidy(tidy_folder)


def test_a_record_that_the_operations_do_not_know_is_refused(tidy_folder: Path) -> None:
    path = tidy_folder / "cycles.csv"
    pl.read_csv(path, infer_schema=False).filter(
        ~((pl.col("cell") == "B0901") & (pl.col("op_index") == "4"))
    ).write_csv(path)

    with pytest.raises(DataError, match=r"op_index 4 is no discharge of B0901 in cycles\.csv"):
        read_nasa_tidy(tidy_folder)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("op_index", "first", "op_index holds values that are no whole numbers"),
        ("start_time", "yesterday", "start_time holds values that are no dates"),
        ("type", "rest", "kind 'rest'"),
    ],
)
def test_operations_that_make_no_sense_are_refused(
    tidy_folder: Path, column: str, value: str, message: str
) -> None:
    path = tidy_folder / "cycles.csv"
    table = pl.read_csv(path, infer_schema=False)
    last = pl.int_range(pl.len()) == 2
    table.with_columns(
        pl.when(last).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    ).write_csv(path)

    with pytest.raises(DataError, match=message):
        read_nasa_tidy(tidy_folder)


def test_an_operation_listed_twice_is_refused(tidy_folder: Path) -> None:
    path = tidy_folder / "cycles.csv"
    table = pl.read_csv(path, infer_schema=False)
    pl.concat([table, table[2:3]]).write_csv(path)

    with pytest.raises(DataError, match="cycle 3 of B0901 occurs twice"):
        read_nasa_tidy(tidy_folder)


def test_a_folder_without_records_is_refused(tidy_folder: Path) -> None:
    for path in (tidy_folder / "tidy").iterdir():
        path.unlink()

    with pytest.raises(DataError, match="no record files"):
        read_nasa_tidy(tidy_folder)


def test_operations_without_a_needed_column_or_rows_are_refused(tidy_folder: Path) -> None:
    path = tidy_folder / "cycles.csv"
    table = pl.read_csv(path, infer_schema=False)

    table.drop("capacity_ah").write_csv(path)
    with pytest.raises(DataError, match=r"cycles\.csv: missing column capacity_ah"):
        read_nasa_tidy(tidy_folder)

    table.clear().write_csv(path)
    with pytest.raises(DataError, match=r"cycles\.csv: no rows"):
        read_nasa_tidy(tidy_folder)

    path.unlink()
    with pytest.raises(DataError, match=r"cycles\.csv does not exist"):
        read_nasa_tidy(tidy_folder)


@pytest.mark.data
def test_the_real_cells_have_the_published_numbers_of_cycles_and_samples(
    data_folder: Path,
) -> None:
    recording = read_nasa_tidy(data_folder / "nasa", kinds={"discharge"})
    published = pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv")

    assert len(recording.asset_ids) == 27
    assert recording.samples.height == 530_799
    of_b0005 = recording.cycles.filter(asset_id="B0005")
    assert (of_b0005.height, of_b0005["n_samples"].sum()) == (168, 50_285)
    labels = published.join(
        recording.cycles,
        left_on=["battery_id", pl.col("cycle").cast(pl.Int32)],
        right_on=["asset_id", "cycle_index"],
        how="left",
    )
    assert labels["capacity"].equals(labels["capacity_ah"])


@pytest.mark.data
def test_the_real_charges_are_read_where_they_are_there(data_folder: Path) -> None:
    recording = read_nasa_tidy(data_folder / "nasa", kinds={"charge"})

    per_cell = recording.samples.group_by("asset_id").len().sort("asset_id")
    assert per_cell.rows() == [
        ("B0005", 541_173),
        ("B0006", 541_173),
        ("B0007", 541_173),
        ("B0018", 279_810),
    ]
    assert recording.cycles.filter(asset_id="B0029")["n_samples"].unique().to_list() == [0]

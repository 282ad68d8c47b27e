"""Feature tables in files: published names, row order, and every way a file can be wrong."""

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.features.files import read_feature_table, write_feature_table

FEATURES = ("voltage_V_mean", "discharge_time_s")


def _published() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "cycle": [4, 2],
            "capacity": [1.8, 1.9],
            "voltage_V_mean": [3.5, 3.6],
            "discharge_time_s": [3600, 3700],  # whole numbers, as CSV writers leave them
            "battery_id": ["B0005", "B0005"],
            "remark": ["x", "y"],
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_published_names_are_read_under_ours_in_the_order_of_the_file(
    tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"table{suffix}"
    write_feature_table(_published(), file)

    table = read_feature_table(file, FEATURES, labelled=True)

    assert table.columns == ["asset_id", "op_index", *FEATURES, "capacity_ah"]
    assert table["op_index"].to_list() == [4, 2]
    assert table["capacity_ah"].to_list() == [1.8, 1.9]
    assert table.schema["discharge_time_s"] == pl.Float64


def test_what_is_written_is_read_back_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "table.parquet"
    table = _published().select(
        asset_id="battery_id",
        op_index=pl.col("cycle").cast(pl.Int32),
        voltage_V_mean="voltage_V_mean",
        discharge_time_s=pl.col("discharge_time_s").cast(pl.Float64),
        capacity_ah="capacity",
    )
    write_feature_table(table, file)
    assert read_feature_table(file, FEATURES, labelled=True).equals(table)
    assert [path.name for path in file.parent.iterdir()] == ["table.parquet"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_nothing_is_a_column_of_missing_numbers(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"table{suffix}"
    empty = pl.lit(None, pl.Float64)
    write_feature_table(_published().with_columns(voltage_V_mean=empty), file)
    table = read_feature_table(file, FEATURES, labelled=True)
    assert table["voltage_V_mean"].to_list() == [None, None]
    assert table.schema["voltage_V_mean"] == pl.Float64


def test_further_columns_are_read_where_the_file_has_them(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    write_feature_table(_published(), file)
    one = read_feature_table(
        file, ["voltage_V_mean"], labelled=True, further=("discharge_time_s", "absent")
    )
    assert one.columns[-2:] == ["capacity_ah", "discharge_time_s"]


def test_rows_are_counted_per_asset_where_the_file_has_no_cycle(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(
        "vehicle_id,voltage_V_mean,discharge_time_s\nEV-1,3.5,10\nEV-2,3.5,10\nEV-1,3.4,9\n"
    )
    table = read_feature_table(file, FEATURES, labelled=False)
    assert table["op_index"].to_list() == [1, 1, 2]
    assert table["capacity_ah"].null_count() == 3


def test_our_name_wins_where_a_file_has_both(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    _published().with_columns(capacity_ah=pl.lit(1.0)).write_parquet(file)
    assert read_feature_table(file, FEATURES, labelled=True)["capacity_ah"].to_list() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"battery_id,voltage_V_mean,discharge_time_s,capacity\n", "no rows"),
        (b"battery_id,voltage_V_mean,capacity\nB1,3.5,1.8\n", "missing column discharge_time_s"),
        (b"battery_id,voltage_V_mean,discharge_time_s\nB1,3.5,1\n", "missing column capacity_ah"),
        (
            b"battery_id,voltage_V_mean,discharge_time_s,capacity\nB1,three,1,1.8\n",
            "column voltage_V_mean is String, expected numbers",
        ),
        (
            b"battery_id,cycle,voltage_V_mean,discharge_time_s,capacity\nB1,99999999999,3,1,1\n",
            "column op_index does not fit Int32",
        ),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=told):
        read_feature_table(file, FEATURES, labelled=True)


def test_a_corrupt_parquet_is_named(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    _published().write_parquet(file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"table\.parquet: cannot be read as Parquet"):
        read_feature_table(file, FEATURES, labelled=True)


def test_a_missing_file_and_another_suffix_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_feature_table(tmp_path / "absent.csv", FEATURES, labelled=True)
    with pytest.raises(DataError, match=r"ends in \.csv or \.parquet"):
        read_feature_table(tmp_path / "table.xlsx", FEATURES, labelled=True)
    with pytest.raises(DataError, match=r"is written to \.csv or \.parquet"):
        write_feature_table(_published(), tmp_path / "table.xlsx")


def test_a_folder_that_cannot_be_made_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be made"):
        write_feature_table(_published(), tmp_path / "file" / "table.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"asset_id": ["B1", None]}, "asset_id is empty in 1 of 2 rows"),
        ({"asset_id": ["B1", "  "]}, "asset_id is empty in 1 of 2 rows"),
        ({"asset_id": [1.0, float("nan")]}, "asset_id is empty in 1 of 2 rows"),
        ({"asset_id": [["B1"], ["B2"]]}, r"asset_id is List\(String\) in all 2 rows"),
        ({"asset_id": [b"B1", b"B2"]}, "asset_id is Binary"),
        (
            {"op_index": [1.0, 1.5]},
            "op_index is no whole number from 1 in 1 of 2 rows, such as 1.5",
        ),
        ({"op_index": [Decimal("1.0"), Decimal("1.5")]}, "no whole number from 1 in 1 of 2 rows"),
        ({"op_index": [1, None]}, "no whole number from 1 in 1 of 2 rows, such as None"),
        ({"op_index": [0, 1]}, "no whole number from 1 in 1 of 2 rows, such as 0"),
        ({"op_index": [1.0, float("nan")]}, "op_index does not fit Int32"),
        ({"op_index": [1.0, float("inf")]}, "op_index does not fit Int32"),
    ],
)
def test_a_row_without_its_asset_or_a_counted_cycle_is_refused(
    tmp_path: Path, columns: dict[str, list[object]], told: str
) -> None:
    file = tmp_path / "table.parquet"
    rest = {"asset_id": ["B1", "B1"], "voltage_V_mean": [3.5, 3.4], "discharge_time_s": [9, 8]}
    pl.DataFrame(rest | columns).write_parquet(file)
    with pytest.raises(DataError, match=told):
        read_feature_table(file, FEATURES, labelled=False)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_path_is_read_literally_and_a_column_without_a_name_is_left_out(
    tmp_path: Path, suffix: str
) -> None:
    table = pl.DataFrame({"": [0], "asset_id": ["B1"], **{name: [3.0] for name in FEATURES}})
    write_feature_table(table, tmp_path / f"a[b]*?{suffix}")
    write_feature_table(table.with_columns(asset_id=pl.lit("other")), tmp_path / f"ab{suffix}")
    read = read_feature_table(tmp_path / f"a[b]*?{suffix}", FEATURES, labelled=False)
    assert read.columns == ["asset_id", "op_index", *FEATURES, "capacity_ah"]
    assert read["asset_id"].to_list() == ["B1"]


def test_a_folder_and_a_name_too_long_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(DataError, match="is a folder or a device"):
        read_feature_table(tmp_path / "table.csv", FEATURES, labelled=False)
    with pytest.raises(DataError, match="cannot be looked at"):
        read_feature_table(tmp_path / f"{'x' * 300}.csv", FEATURES, labelled=False)

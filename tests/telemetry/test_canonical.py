import contextlib
import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batteryops.errors import DataError
from batteryops.schema import SAMPLES, Recording
from batteryops.telemetry.canonical import looks_like, read_canonical, write_canonical
from batteryops.telemetry.nasa_tidy import read_nasa_tidy

START = datetime(2024, 5, 1, 8, 30, 0, 250000)  # noqa: DTZ001, the publisher's local time


def samples(**columns: list[Any]) -> pl.DataFrame:
    three: dict[str, object] = {
        "asset_id": ["EV-1", "EV-1", "EV-2"],
        "cycle_index": [2, 2, 1],
        "kind": ["discharge", "discharge", "charge"],
        "started_at": [START, START, None],
        "time_s": [0.0, 10.0, 0.0],
        "voltage_v": [4.0, 3.5, 3.75],
        "current_a": [-2.0, -2.0, 1.5],
        "temperature_c": [24.0, 24.5, 20.0],
    }
    frame = pl.DataFrame(three, schema_overrides={"cycle_index": pl.Int32})
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def write(table: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)
    return path


@pytest.mark.parametrize("name", ["cycles.parquet", "cycles.csv"])
def test_samples_are_read_and_cycles_gathered_from_them(tmp_path: Path, name: str) -> None:
    path = write(samples(capacity_ah=[1.8, 1.8, None], ambient_temperature_c=[24, 24, 20]),
                 tmp_path / name)  # fmt: skip

    recording = read_canonical(path)

    assert_frame_equal(recording.samples, samples())
    assert recording.cycles.rows() == [
        ("EV-1", 2, "discharge", START, 24.0, 2, 1.8, None, None),
        ("EV-2", 1, "charge", None, 20.0, 1, None, None, None),
    ]


def test_without_a_label_column_the_label_is_unknown(tmp_path: Path) -> None:
    recording = read_canonical(write(samples(), tmp_path / "cycles.parquet"))

    assert recording.cycles["capacity_ah"].to_list() == [None, None]


def test_a_label_that_is_nan_is_unknown(tmp_path: Path) -> None:
    nan = float("nan")
    path = write(samples(capacity_ah=[nan, nan, 1.5]), tmp_path / "cycles.csv")

    assert read_canonical(path).cycles["capacity_ah"].to_list() == [None, 1.5]


def test_rows_in_any_order_are_put_in_order(tmp_path: Path) -> None:
    mixed = samples()[[1, 2, 0]]

    assert_frame_equal(read_canonical(write(mixed, tmp_path / "c.csv")).samples, samples())


def test_only_the_kinds_asked_for_are_kept(tmp_path: Path) -> None:
    path = write(samples(), tmp_path / "cycles.parquet")

    assert read_canonical(path, kinds={"charge"}).asset_ids == ["EV-2"]


def test_wider_and_narrower_number_types_are_taken(tmp_path: Path) -> None:
    path = write(
        samples().with_columns(
            pl.col("cycle_index").cast(pl.Int64),
            pl.col("voltage_v").cast(pl.Float32),
            pl.col("time_s").cast(pl.Int32),
            pl.lit(None).alias("capacity_ah"),
        ),
        tmp_path / "cycles.parquet",
    )

    assert_frame_equal(read_canonical(path).samples, samples())


def test_dates_with_a_space_a_zone_or_no_clock_are_taken(tmp_path: Path) -> None:
    text = write(samples(started_at=["2024-05-01 08:30:00.25"] * 2 + [None]), tmp_path / "a.csv")
    zoned = write(samples(started_at=[START.replace(tzinfo=UTC)] * 2 + [None]),
                  tmp_path / "b.parquet")  # fmt: skip
    days = write(samples(started_at=[date(2024, 5, 1)] * 2 + [None]), tmp_path / "c.parquet")

    assert read_canonical(text).samples["started_at"][0] == START
    assert read_canonical(zoned).samples["started_at"][0] == START
    assert read_canonical(days).samples["started_at"][0] == datetime(2024, 5, 1)  # noqa: DTZ001, local time


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
def test_what_is_written_is_read_again(tmp_path: Path, tidy_folder: Path, name: str) -> None:
    recording = read_nasa_tidy(tidy_folder, kinds={"discharge", "charge"})
    path = tmp_path / "made" / name

    write_canonical(recording, path)
    again = read_canonical(path)

    assert_frame_equal(again.samples, recording.samples, check_exact=True)
    assert_frame_equal(again.cycles, recording.cycles, check_exact=True)
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_writing_replaces_what_stood_there(tmp_path: Path) -> None:
    path = write(samples(), tmp_path / "cycles.parquet")
    one = read_canonical(path, kinds={"charge"})

    write_canonical(one, path)

    assert read_canonical(path).asset_ids == ["EV-2"]


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    recording = read_canonical(write(samples(), tmp_path / "cycles.parquet"))

    with pytest.raises(DataError, match=r"\.parquet or \.csv"):
        write_canonical(recording, tmp_path / "cycles.xlsx")
    with pytest.raises(DataError, match="cannot be written"):
        write_canonical(recording, tmp_path / "cycles.parquet" / "below.parquet")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("voltage_v", ["4.0", "3.5", "x"], "column voltage_v is String, expected Float64"),
        ("voltage_v", [True, False, True], "column voltage_v is Boolean, expected Float64"),
        ("cycle_index", [1.0, 1.0, 2.0], "column cycle_index is Float64, expected Int32"),
        ("cycle_index", [0, 0, 1], "cycle_index is missing or below 1"),
        ("cycle_index", [1, 1, None], "cycle_index is missing or below 1"),
        ("cycle_index", [1, 1, 2**40], "column cycle_index holds 1099511627776 in row 3"),
        ("asset_id", [1, 1, 2], "column asset_id is Int64, expected String"),
        ("asset_id", ["a", "a", None], "cycles have no asset_id"),
        ("asset_id", ["a", "a", ""], "cycles have no asset_id"),
        ("kind", ["rest", "rest", "charge"], "kind 'rest'"),
        ("kind", ["charge", "charge", None], "kind None"),
        ("kind", ["charge", "discharge", "charge"], "kind varies within cycle 2 of EV-1"),
        ("started_at", [1, 2, 3], "column started_at is Int64, expected Datetime"),
        ("started_at", ["soon", None, None], "started_at holds 'soon' in row 1"),
        ("started_at", [START, None, None], "started_at varies within cycle 2 of EV-1"),
        ("capacity_ah", [1.8, 1.7, None], "capacity_ah varies within cycle 2 of EV-1"),
        ("ambient_temperature_c", [1.0, None, 2.0], "ambient_temperature_c varies within cycle 2"),
    ],
)
def test_a_column_that_breaks_the_contract_is_named(
    tmp_path: Path, column: str, values: list[object], message: str
) -> None:
    path = write(samples(**{column: values}), tmp_path / "cycles.parquet")

    with pytest.raises(DataError, match=rf"cycles\.parquet: .*{message}"):
        read_canonical(path)


def test_text_in_a_numeric_column_of_a_csv_is_shown_with_its_row(tmp_path: Path) -> None:
    path = write(samples(voltage_v=["4.0", "3,5", "n/a"]), tmp_path / "cycles.csv")

    with pytest.raises(DataError, match=r"voltage_v holds '3,5' in row 2 \(of 2 such\)"):
        read_canonical(path)


@pytest.mark.parametrize("name", ["cycles.parquet", "cycles.csv"])
def test_an_empty_file_or_one_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    path.touch()
    with pytest.raises(DataError, match=f"{name}: the file is empty"):
        read_canonical(path)

    write(samples().clear(), path)
    with pytest.raises(DataError, match=f"{name}: no rows"):
        read_canonical(path)

    path.unlink()
    with pytest.raises(DataError, match=f"{name} does not exist"):
        read_canonical(path)


def test_corrupt_files_are_refused(tmp_path: Path) -> None:
    parquet = write(samples(), tmp_path / "cycles.parquet")
    content = bytearray(parquet.read_bytes())
    parquet.write_bytes(bytes(content[:-30]))
    with pytest.raises(DataError, match=r"cycles\.parquet: cannot be read as Parquet"):
        read_canonical(parquet)

    csv = tmp_path / "cycles.csv"
    csv.write_bytes(b"\xff\xfe\x00binary\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"cycles\.csv"):
        read_canonical(csv)


@pytest.mark.parametrize("seed", [*range(20), 101, 148, 590])  # some make Polars panic
def test_no_damage_escapes_as_anything_but_a_refusal(tmp_path: Path, seed: int) -> None:
    n = 400
    table = pl.DataFrame(
        {
            "asset_id": ["EV-1"] * n,
            "cycle_index": [1] * n,
            "kind": ["charge"] * n,
            "started_at": [None] * n,
            "time_s": [float(second) for second in range(n)],
            "voltage_v": [3 + second / n for second in range(n)],
            "current_a": [1.5] * n,
            "temperature_c": [24 + (second % 7) / 8 for second in range(n)],
        },
        schema=SAMPLES,
    )
    path = write(table, tmp_path / "cycles.parquet")
    content = bytearray(path.read_bytes())
    dice = random.Random(seed)  # noqa: S311, repeatable damage, no secret
    for _ in range(3):
        content[dice.randrange(len(content))] = dice.randrange(256)
    path.write_bytes(bytes(content))

    with contextlib.suppress(DataError):  # damage to a value alone cannot be seen
        read_canonical(path)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.parquet or \.csv"):
        read_canonical(tmp_path / "cycles.feather")


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        (["op_index", "voltage_measured_v", "time_s"], "tidy NASA record"),
        (["cell", "op_index", "type", "type_index"], "operations of tidy NASA records"),
        (["Voltage_measured", "Time"], "one NASA operation"),
        (["battery_id", "test_id", "filename"], "metadata of NASA operations"),
        (["asset_id", "voltage_V_mean", "current_A_mean"], "feature table"),
        (["vehicle_id", "trip_id"], "trip table"),
        (["tboxTime", "BMSBatteryVoltage"], "cloud telemetry"),
    ],
)
def test_a_file_of_another_form_is_recognised(
    tmp_path: Path, columns: list[str], form: str
) -> None:
    path = write(pl.DataFrame({name: [1.0] for name in columns}), tmp_path / "other.parquet")

    with pytest.raises(DataError, match=r"missing column") as told:
        read_canonical(path)
    assert f"It looks like {looks_like(columns)}" in str(told.value)
    assert form in str(told.value)


def test_a_file_of_no_known_form_is_told_the_columns_expected(tmp_path: Path) -> None:
    path = write(samples().drop("voltage_v"), tmp_path / "cycles.parquet")

    with pytest.raises(DataError, match=r"missing column voltage_v; given .*, expected as") as told:
        read_canonical(path)
    assert "looks like" not in str(told.value)


def test_the_recording_conforms_to_the_contract(tmp_path: Path) -> None:
    recording = read_canonical(write(samples(), tmp_path / "cycles.csv"))

    assert isinstance(recording, Recording)
    assert recording.samples.schema == SAMPLES
    assert recording.source.endswith("cycles.csv")

import re
import zipfile
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batteryops.errors import DataError
from batteryops.telemetry.nasa_csv import (
    date_vector_text,
    is_nasa_zip,
    read_nasa_csv,
    read_nasa_zips,
)
from batteryops.telemetry.nasa_tidy import read_nasa_tidy


def test_operations_as_csv_equal_the_tidy_form_of_the_same_cells(
    csv_folder: Path, tidy_folder: Path
) -> None:
    single = read_nasa_csv(csv_folder)
    tidy = read_nasa_tidy(tidy_folder)

    assert_frame_equal(single.samples, tidy.samples, check_exact=True)
    assert_frame_equal(single.cycles, tidy.cycles, check_exact=True)


def test_zipped_operations_equal_the_tidy_form_where_there_is_a_zip(
    zip_folder: Path, tidy_folder: Path
) -> None:
    zipped = read_nasa_zips(zip_folder, kinds={"discharge"})
    tidy = read_nasa_tidy(tidy_folder, kinds={"discharge"})

    assert zipped.asset_ids == ["B0901"]  # B0902 has no zip
    assert_frame_equal(zipped.samples, tidy.samples.filter(asset_id="B0901"), check_exact=True)
    assert_frame_equal(zipped.cycles, tidy.cycles.filter(asset_id="B0901"), check_exact=True)


def test_an_operation_without_a_file_keeps_its_row_with_no_samples(zip_folder: Path) -> None:
    cycles = read_nasa_zips(zip_folder).cycles

    assert cycles.select("kind", "n_samples").rows() == [
        ("charge", 0),
        ("discharge", 4),
        ("impedance", 0),
        ("discharge", 2),
        ("impedance", 0),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[2009.       4.       7.      15.      59.      18.718]",
        "[2.0090e+03 4.0000e+00 7.0000e+00 1.5000e+01 5.9000e+01 1.8718e+01]",
    ],
)
def test_both_text_forms_of_a_date_vector_are_understood(text: str) -> None:
    assert date_vector_text(text) == datetime(2009, 4, 7, 15, 59, 18, 718000)  # noqa: DTZ001, published without a zone


def test_sixty_seconds_roll_over_into_the_next_minute() -> None:
    text = "[2009. 4. 7. 23. 59. 59.9999999]"

    assert date_vector_text(text) == datetime(2009, 4, 8, 0, 0)  # noqa: DTZ001, published without a zone


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("start_time", "[2009. 4. 7.]", "is no MATLAB date vector"),
        ("start_time", "[2009. 13. 7. 1. 1. 1.]", "is no MATLAB date vector"),
        ("start_time", "[1e300 4. 7. 1. 1. 1.]", "is no MATLAB date vector"),
        ("start_time", "[2009. 4. 7. 1. 1. 1e400]", "is no MATLAB date vector"),
        ("start_time", None, "start_time None is no MATLAB date vector"),
        ("test_id", "one", "test_id holds values that are no whole numbers"),
        ("type", "rest", "kind 'rest' of B0901"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(
    csv_folder: Path, column: str, value: str | None, message: str
) -> None:
    path = csv_folder / "metadata.csv"
    table = pl.read_csv(path, infer_schema=False)
    table.with_columns(pl.lit(value, pl.String).alias(column)).write_csv(path)

    with pytest.raises(DataError, match=message):
        read_nasa_csv(csv_folder)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "Voltage_measured,Current_measured,Temperature_measured\n4.0,-2.0,24.0\n",
        "Voltage_measured,Current_measured,Temperature_measured,Time\nhigh,-2.0,24.0,0.0\n",
    ],
)
def test_a_record_that_cannot_be_read_is_named(csv_folder: Path, content: str) -> None:
    (csv_folder / "data" / "00002.csv").write_text(content)

    with pytest.raises(DataError, match=r"00002\.csv of B0901: cannot be read as CSV"):
        read_nasa_csv(csv_folder)


def test_a_record_with_only_a_header_is_a_cycle_of_no_samples(csv_folder: Path) -> None:
    (csv_folder / "data" / "00002.csv").write_text(
        "Voltage_measured,Current_measured,Temperature_measured,Current_load,Time\n"
    )

    assert read_nasa_csv(csv_folder).cycles["n_samples"].to_list() == [3, 0, 0, 2, 0, 3]


def test_zips_need_exactly_one_metadata_file(zip_folder: Path) -> None:
    (zip_folder / "metadata_shared_cells.csv").unlink()

    with pytest.raises(DataError, match=r"0 files metadata\*\.csv beside the zips"):
        read_nasa_zips(zip_folder)


def test_a_file_that_is_no_zip_is_named(zip_folder: Path) -> None:
    (zip_folder / "B0901_discharge_csv.zip").write_bytes(b"no zip")

    with pytest.raises(DataError, match=r"B0901_discharge_csv\.zip: cannot be opened as a zip"):
        read_nasa_zips(zip_folder)


def test_a_damaged_zip_is_named(zip_folder: Path) -> None:
    path = zip_folder / "B0901_discharge_csv.zip"
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(bytes(content))

    with pytest.raises(DataError, match=r"B0901_discharge_csv\.zip: .*cannot be unpacked"):
        read_nasa_zips(zip_folder)


def test_an_encrypted_zip_is_named(zip_folder: Path) -> None:
    path = zip_folder / "B0901_discharge_csv.zip"
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(re.escape(signature), bytes(content)):
            content[found.start() + flags] |= 1
    path.write_bytes(bytes(content))

    with pytest.raises(DataError, match=r"discharge_csv\.zip: .*encrypted.*without a password"):
        read_nasa_zips(zip_folder)


def test_a_zip_cut_short_is_named(zip_folder: Path) -> None:
    path = zip_folder / "B0901_discharge_csv.zip"
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(DataError, match=r"B0901_discharge_csv\.zip: cannot be opened as a zip"):
        read_nasa_zips(zip_folder)


def test_a_member_that_unpacks_to_more_than_any_record_is_refused(zip_folder: Path) -> None:
    path = zip_folder / "B0901_discharge_csv.zip"
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes((1 << 26) + 1))

    with pytest.raises(DataError, match=r"discharge_csv\.zip: .* unpacks to more than 67108864"):
        read_nasa_zips(zip_folder)


def test_a_record_that_a_zip_holds_twice_is_refused(zip_folder: Path) -> None:
    path = zip_folder / "B0901_discharge_csv.zip"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"again/{Path(archive.namelist()[0]).name}", "other")

    with pytest.raises(DataError, match="is in the zips of B0901 twice"):
        read_nasa_zips(zip_folder)


def test_a_folder_in_a_records_place_is_named(csv_folder: Path) -> None:
    (csv_folder / "data" / "00002.csv").unlink()
    (csv_folder / "data" / "00002.csv").mkdir()

    with pytest.raises(DataError, match=r"00002\.csv: cannot be read \(Is a directory\)"):
        read_nasa_csv(csv_folder)


def test_other_zips_in_the_folder_are_left_alone(zip_folder: Path) -> None:
    with zipfile.ZipFile(zip_folder / "notes_csv.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing of ours")

    assert not is_nasa_zip(zip_folder / "notes_csv.zip")
    assert read_nasa_zips(zip_folder).asset_ids == ["B0901"]


@pytest.mark.data
def test_the_genuine_csv_of_b0005_equals_the_tidy_records_to_the_bit(data_folder: Path) -> None:
    zipped = read_nasa_zips(data_folder / "nasa" / "raw", kinds={"discharge"})
    tidy = read_nasa_tidy(data_folder / "nasa", kinds={"discharge"})

    assert zipped.asset_ids == ["B0005", "B0006", "B0007", "B0018"]
    for table, other in ((zipped.samples, tidy.samples), (zipped.cycles, tidy.cycles)):
        ours, theirs = table.filter(asset_id="B0005"), other.filter(asset_id="B0005")
        assert ours.drop("started_at").equals(theirs.drop("started_at"))
        # the tidy form cut milliseconds off where this one rounds
        late = (ours["started_at"] - theirs["started_at"]).dt.total_milliseconds()
        assert late.is_between(0, 1).all()

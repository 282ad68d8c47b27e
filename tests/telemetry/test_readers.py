import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from batteryops.errors import DataError
from batteryops.schema import Kind
from batteryops.telemetry import Lake, read


@pytest.fixture(params=["tidy_folder", "csv_folder", "mat_folder"])
def any_form(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_every_form_of_the_same_cells_reads_the_same(any_form: Path, tidy_folder: Path) -> None:
    one, other = read(any_form), read(tidy_folder)

    assert_frame_equal(one.samples, other.samples, check_exact=True)
    assert_frame_equal(one.cycles, other.cycles, check_exact=True)
    assert one.source == str(any_form)


@pytest.mark.parametrize("kind", ["discharge", "charge", "impedance"])
def test_kinds_are_chosen_in_every_form(any_form: Path, kind: Kind) -> None:
    recording = read(any_form, kinds=[kind])

    assert set(recording.cycles["kind"]) == {kind}
    assert set(recording.samples["kind"]) <= {kind}


def test_a_single_mat_file_is_one_cell(mat_folder: Path) -> None:
    assert read(mat_folder / "B0902.mat").asset_ids == ["B0902"]


def test_zips_and_mat_files_in_one_folder_are_read_together(
    zip_folder: Path, mat_folder: Path
) -> None:
    shutil.copy(mat_folder / "B0902.mat", zip_folder)
    recording = read(zip_folder)
    both = read(mat_folder, kinds={"discharge"})

    assert recording.asset_ids == ["B0901", "B0902"]
    assert_frame_equal(recording.samples, both.samples)


def test_a_mat_file_outranks_a_zip_of_the_same_cell(zip_folder: Path, mat_folder: Path) -> None:
    shutil.copy(mat_folder / "B0901.mat", zip_folder)

    cycles = read(zip_folder).cycles

    assert cycles["n_samples"].to_list() == [3, 4, 0, 2, 0]  # the zips hold no charge


def test_zips_alone_are_read(zip_folder: Path) -> None:
    assert read(zip_folder).asset_ids == ["B0901"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_trip_table_is_recognised(tmp_path: Path, suffix: str) -> None:
    names = ["dod", "duration_s", "voltage_mean", "voltage_std", "voltage_drop_time_s",
             "current_mean", "current_max", "current_min", "delta_temp", "mean_max_temp",
             "max_temp"]  # fmt: skip
    table = pl.DataFrame({"vehicle_id": ["V"], "trip_id": [3], **{name: [7.5] for name in names}})
    path = tmp_path / f"trips{suffix}"
    table.write_parquet(path) if suffix == ".parquet" else table.write_csv(path)

    recording = read(path)

    assert recording.cycles.select("asset_id", "cycle_index", "kind").row(0) == ("V", 3, "trip")


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_canonical_file_is_recognised(tmp_path: Path, tidy_folder: Path, suffix: str) -> None:
    samples = read(tidy_folder, kinds={"discharge"}).samples
    path = tmp_path / f"cycles{suffix}"
    samples.write_parquet(path) if suffix == ".parquet" else samples.write_csv(path)

    assert_frame_equal(read(path).samples, samples)


def test_nothing_there_is_refused_with_the_forms_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder; expected a folder with cycles"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match="nothing in this folder that is known; expected a folder"):
        read(tmp_path)
    (tmp_path / "cycles.xlsx").write_text("?")
    with pytest.raises(DataError, match=r"no reader for files that end in '\.xlsx'"):
        read(tmp_path / "cycles.xlsx")


@pytest.mark.parametrize("name", ["cycles.parquet", "cycles.csv", "B0005.mat"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01 neither \xff", b"PAR1PAR1"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=name):
        read(tmp_path / name)


def test_a_corrupt_trip_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trips.csv"
    path.write_text("vehicle_id,trip_id,voltage_mean,current_mean\nV,1,2,3\nV,1,2,3,4,5\n")

    with pytest.raises(DataError, match=r"trips\.csv: cannot be read"):
        read(path)


def test_a_kind_that_nobody_knows_is_refused(tidy_folder: Path) -> None:
    with pytest.raises(DataError, match="'rest' is not among discharge, charge, impedance, trip"):
        read(tidy_folder, kinds=["rest"])  # type: ignore[list-item]  # what a user may type


def test_importing_the_room_does_not_import_what_only_some_forms_need() -> None:
    code = (
        "import sys, batteryops.telemetry; "
        "print(sorted({'scipy', 'requests', 'pandas'} & set(sys.modules)))"
    )
    told = subprocess.run(  # noqa: S603, this interpreter and the text above
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    assert told.stdout.strip() == "[]"


@pytest.mark.data
def test_the_published_folder_of_originals_is_read(data_folder: Path) -> None:
    recording = read(data_folder / "nasa" / "raw", kinds={"discharge"})

    assert recording.asset_ids == [
        "B0005", "B0006", "B0007", "B0018", "B0029", "B0030", "B0031", "B0032"
    ]  # fmt: skip
    tidy = read(data_folder / "nasa", kinds={"discharge"})
    of_eight = tidy.samples.filter(pl.col("asset_id").is_in(recording.asset_ids))
    assert recording.samples.drop("started_at").equals(of_eight.drop("started_at"))


@pytest.mark.data
def test_the_real_cells_survive_the_lake(data_folder: Path, tmp_path: Path) -> None:
    recording = read(data_folder / "nasa", kinds={"discharge"})
    trips = read(data_folder / "source_system" / "chengdu_trip_features.parquet")
    lake = Lake(tmp_path / "lake")

    lake.write(recording)
    lake.write(trips)

    again = lake.read(recording.asset_ids)
    assert again.samples.equals(recording.samples)
    assert again.cycles.select(recording.cycles.columns).equals(recording.cycles)
    assert lake.read(kinds={"trip"}).samples.equals(trips.samples)

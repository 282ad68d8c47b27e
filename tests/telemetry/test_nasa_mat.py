from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.io import savemat

from batteryops.errors import DataError
from batteryops.telemetry.nasa_mat import read_nasa_mat
from batteryops.telemetry.nasa_tidy import read_nasa_tidy


def operations(*rows: tuple[object, ...]) -> np.ndarray:
    names = ("type", "ambient_temperature", "time", "data")
    cycle = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for position, row in enumerate(rows):
        cycle[0, position] = row
    return cycle


WHEN = np.array([2008, 4, 2, 15, 25, 41])
RECORD = {
    "Voltage_measured": np.array([4.0, 3.0]),
    "Current_measured": np.array([-2.0, -2.0]),
    "Temperature_measured": np.array([24.0, 25.0]),
    "Time": np.array([0.0, 10.0]),
    "Capacity": 1.8,
}


def test_a_mat_file_equals_the_tidy_form_of_the_same_cells(
    mat_folder: Path, tidy_folder: Path
) -> None:
    genuine = read_nasa_mat(sorted(mat_folder.glob("*.mat")), source="mat")
    tidy = read_nasa_tidy(tidy_folder)

    assert_frame_equal(genuine.samples, tidy.samples, check_exact=True)
    assert_frame_equal(genuine.cycles, tidy.cycles, check_exact=True)


def test_only_the_kinds_asked_for_are_taken(mat_folder: Path) -> None:
    recording = read_nasa_mat([mat_folder / "B0901.mat"], kinds={"charge"}, source="mat")

    assert recording.cycles.select("cycle_index", "kind", "n_samples").rows() == [(1, "charge", 3)]


def test_a_kind_that_is_not_there_is_a_refusal(mat_folder: Path) -> None:
    with pytest.raises(DataError, match="no cycle of the kinds asked for"):
        read_nasa_mat([mat_folder / "B0902.mat"], kinds={"charge"}, source="B0902.mat")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_gives_one_clear_refusal(mat_folder: Path, share: float) -> None:
    path = mat_folder / "B0901.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(DataError, match=r"B0901\.mat"):
        read_nasa_mat([path], source="mat")


@pytest.mark.parametrize(
    "content", [b"no MATLAB at all", b"\x89HDF\r\n\x1a\n" + bytes(600), bytes(4096)]
)
def test_a_file_that_is_no_matlab_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "B0901.mat"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"B0901\.mat.*(cannot be read|0 variables)"):
        read_nasa_mat([path], source="mat")


def test_a_matlab_file_of_the_later_form_is_named(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(116) + bytes(8) + b"\x00\x02IM"
    path = tmp_path / "B0901.mat"
    path.write_bytes(header + bytes(384) + b"\x89HDF\r\n\x1a\n" + bytes(600))

    with pytest.raises(DataError, match=r"B0901\.mat: .*v7\.3.*expected a MATLAB 5 file"):
        read_nasa_mat([path], source="mat")


def test_variables_without_a_cycle_are_listed(tmp_path: Path) -> None:
    savemat(tmp_path / "other.mat", {"speed": np.arange(3)})

    with pytest.raises(DataError, match=r"0 variables with a field cycle.*speed"):
        read_nasa_mat([tmp_path / "other.mat"], source="mat")


def test_a_cycle_of_another_structure_is_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "B1.mat", {"B1": {"cycle": {"kind": "discharge"}}})

    with pytest.raises(DataError, match=r"B1\.cycle lacks type, ambient_temperature, time, data"):
        read_nasa_mat([tmp_path / "B1.mat"], source="mat")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("discharge", 24, WHEN[:4], RECORD), "operation 1 of B1: its time is no MATLAB date"),
        (("rest", 24, WHEN, RECORD), "operation 1 of B1: its type 'rest' is not among"),
        (("discharge", 24, WHEN, 7.0), "its data is no struct"),
        (("discharge", 24, WHEN, np.empty(0)), "its data is no struct"),
        (("discharge", 24, WHEN, {"Time": np.arange(2.0)}), "no Voltage_measured"),
        (
            ("discharge", 24, WHEN, RECORD | {"Time": np.arange(3.0)}),
            r"vectors of one length; given float64\[3\], float64\[2\]",
        ),
        (
            ("discharge", 24, WHEN, RECORD | {"Voltage_measured": np.array([4.0, 3.0j])}),
            r"real vectors of one length.*complex128",
        ),
    ],
)
def test_an_operation_that_cannot_be_read_is_named(
    tmp_path: Path, row: tuple[object, ...], message: str
) -> None:
    savemat(tmp_path / "B1.mat", {"B1": {"cycle": operations(row)}})

    with pytest.raises(DataError, match=message):
        read_nasa_mat([tmp_path / "B1.mat"], source="mat")


def test_one_cell_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("one.mat", "two.mat"):
        cycle = operations(("discharge", 24, WHEN, RECORD))
        savemat(tmp_path / name, {"B1": {"cycle": cycle}})

    with pytest.raises(DataError, match="cycle 1 of B1 occurs twice"):
        read_nasa_mat([tmp_path / "one.mat", tmp_path / "two.mat"], source="folder")


def test_a_resistance_that_is_infinite_is_no_number(tmp_path: Path) -> None:
    cycle = operations(("impedance", 24, WHEN, {"Re": np.inf, "Rct": 0.1 + 0j}))
    savemat(tmp_path / "B1.mat", {"B1": {"cycle": cycle}})

    cycles = read_nasa_mat([tmp_path / "B1.mat"], source="mat").cycles

    assert cycles.select("re_ohm", "rct_ohm").row(0) == (None, 0.1)


@pytest.mark.data
@pytest.mark.parametrize("cell", ["B0029", "B0030", "B0031", "B0032"])
def test_genuine_files_equal_the_tidy_records_to_the_bit(data_folder: Path, cell: str) -> None:
    nasa = data_folder / "nasa"
    genuine = read_nasa_mat([nasa / "raw" / f"{cell}.mat"], source="mat")
    tidy = read_nasa_tidy(nasa, kinds={"discharge", "impedance"})
    times = pl.col("started_at")  # the tidy form cut milliseconds off, 1 ms at most

    discharges = genuine.samples.filter(kind="discharge")
    of_cell = tidy.samples.filter(asset_id=cell)
    assert_frame_equal(discharges.select(pl.exclude("started_at")), of_cell.drop("started_at"))
    assert discharges.drop("started_at").equals(of_cell.drop("started_at"))
    late = (discharges["started_at"] - of_cell["started_at"]).dt.total_milliseconds()
    assert late.is_between(0, 1).all()
    rows = genuine.cycles.filter(pl.col("kind") != "charge").select(pl.exclude("started_at"))
    assert rows.equals(tidy.cycles.filter(asset_id=cell).drop("started_at"))
    charges = genuine.cycles.filter(kind="charge")
    assert (charges.height, charges["n_samples"].sum()) == (40, 104_136)
    assert genuine.cycles.select(times.is_null().sum()).item() == 0


@pytest.mark.data
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_genuine_file_cut_short_gives_one_clear_refusal(
    data_folder: Path, tmp_path: Path, share: float
) -> None:
    content = (data_folder / "nasa" / "raw" / "B0029.mat").read_bytes()
    path = tmp_path / "B0029.mat"
    path.write_bytes(content[: int(share * len(content))])

    with pytest.raises(DataError, match=r"B0029\.mat: cannot be read"):
        read_nasa_mat([path], source="mat")

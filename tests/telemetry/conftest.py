"""Two small cells in each form that NASA's records come in."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.io import savemat


@dataclass(frozen=True)
class Operation:
    """One operation; measured values are exact in 32 bits, as tidy charge records need."""

    kind: str
    date_vector: tuple[float, ...]
    ambient_c: int
    time_s: Sequence[float] = ()
    voltage_v: Sequence[float] = ()
    current_a: Sequence[float] = ()
    temperature_c: Sequence[float] = ()
    capacity_ah: float | None = None
    re_ohm: complex | None = None
    rct_ohm: complex | None = None

    @property
    def started_at(self) -> str:
        year, month, day, hour, minute, second = self.date_vector
        return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:06.3f}"


Fleet = dict[str, list[Operation]]


@pytest.fixture
def fleet() -> Fleet:
    """B0901: charge, discharge, impedance, discharge without a capacity; B0902: one discharge."""
    return {
        "B0901": [
            Operation(
                "charge", (2008, 4, 2, 13, 8, 17.921), 24,
                (0.0, 2.5, 5.0), (3.75, 3.5, 4.0), (-0.25, 1.5, 1.5), (24.5, 24.75, 25.0),
            ),
            Operation(
                "discharge", (2008, 4, 2, 15, 25, 41.593), 24,
                (0.0, 16.75, 35.5, 53.25), (4.25, 4.0, 3.5, 2.625), (0.0, -2.0, -2.0, -2.0),
                (24.5, 24.75, 25.5, 26.0), capacity_ah=1.8564874208181574,
            ),
            Operation("impedance", (2008, 4, 2, 16, 37, 51.0), 24, re_ohm=0.0625, rct_ohm=0.125),
            Operation(
                "discharge", (2008, 4, 2, 19, 43, 48.406), 24,
                (0.0, 9.5), (4.125, 2.5), (-2.0, -2.0), (24.0, 24.25),
            ),
            Operation(
                "impedance", (2008, 4, 3, 1, 2, 3.5), 24,
                re_ohm=0.125 - 0.25j, rct_ohm=0.125 + 0.25j,
            ),
        ],
        "B0902": [
            Operation(
                "discharge", (2009, 4, 7, 16, 31, 1.89), 43,
                (0.0, 10.0, 20.0), (4.0, 3.5, 3.0), (-4.0, -4.0, -4.0), (43.0, 44.0, 45.5),
                capacity_ah=1.75,
            ),
        ],
    }  # fmt: skip


def _measured(operation: Operation) -> list[Sequence[float]]:
    return [
        operation.voltage_v, operation.current_a, operation.temperature_c, operation.time_s
    ]  # fmt: skip


@pytest.fixture
def tidy_folder(fleet: Fleet, tmp_path: Path) -> Path:
    folder = tmp_path / "tidy form"
    (folder / "tidy").mkdir(parents=True)
    rows = []
    for cell, operations in fleet.items():
        for kind, number in (("discharge", pl.Float64), ("charge", pl.Float32)):
            records = [
                pl.DataFrame(
                    _measured(operation),
                    schema=dict.fromkeys(
                        [
                            "voltage_measured_v",
                            "current_measured_a",
                            "temperature_measured_c",
                            "time_s",
                        ],
                        number,
                    ),
                ).with_columns(
                    pl.lit(index, pl.Int16).alias("op_index"),
                    pl.lit(1, pl.Int16).alias("cycle"),
                    pl.lit(0.0, number).alias("current_load_a"),
                )
                for index, operation in enumerate(operations, start=1)
                if operation.kind == kind
            ]
            if records:
                pl.concat(records).write_parquet(folder / "tidy" / f"{cell}_{kind}.parquet")
        rows += [
            {
                "cell": cell,
                "op_index": str(index),
                "type": operation.kind,
                "start_time": operation.started_at,
                "ambient_temperature_c": str(operation.ambient_c),
                "n_rows": "7",
                "capacity_ah": _text(operation.capacity_ah),
                "re_ohm": _text(operation.re_ohm),
                "rct_ohm": _text(operation.rct_ohm),
            }
            for index, operation in enumerate(operations, start=1)
        ]
    pl.DataFrame(rows).write_csv(folder / "cycles.csv")
    return folder


def _text(value: complex | None) -> str | None:
    return None if value is None else str(value)


def _operation_csv(operation: Operation) -> str:
    if operation.kind == "impedance":
        return "Sense_current,Battery_current\n(1+2j),(3+4j)\n"
    load = "load" if operation.kind == "discharge" else "charge"
    lines = [f"Voltage_measured,Current_measured,Temperature_measured,Current_{load},Time"]
    lines += [
        f"{voltage},{current},{temperature},0.0,{time}"
        for voltage, current, temperature, time in zip(*_measured(operation), strict=True)
    ]
    return "\n".join(lines) + "\n"


def _metadata(fleet: Fleet) -> pl.DataFrame:
    rows: list[dict[str, str | None]] = []
    for cell, operations in fleet.items():
        for test_id, operation in enumerate(operations):
            vector = np.array(operation.date_vector)
            rows.append(
                {
                    "type": operation.kind,
                    "start_time": str(vector),  # NumPy's text, fixed or scientific
                    "ambient_temperature": str(operation.ambient_c),
                    "battery_id": cell,
                    "test_id": str(test_id),
                    "uid": str(len(rows) + 1),
                    "filename": f"{len(rows) + 1:05}.csv",
                    "Capacity": "[]"
                    if operation.kind == "discharge" and operation.capacity_ah is None
                    else _text(operation.capacity_ah),
                    "Re": _text(operation.re_ohm),
                    "Rct": _text(operation.rct_ohm),
                }
            )
    return pl.DataFrame(rows)


@pytest.fixture
def csv_folder(fleet: Fleet, tmp_path: Path) -> Path:
    folder = tmp_path / "csv form"
    (folder / "data").mkdir(parents=True)
    metadata = _metadata(fleet)
    metadata.write_csv(folder / "metadata.csv")
    for row in metadata.iter_rows(named=True):
        operation = fleet[row["battery_id"]][int(row["test_id"])]
        (folder / "data" / row["filename"]).write_text(_operation_csv(operation))
    return folder


@pytest.fixture
def zip_folder(fleet: Fleet, tmp_path: Path) -> Path:
    """Zips of B0901's discharges and impedance; B0902 stands in the metadata only."""
    folder = tmp_path / "zip form"
    folder.mkdir()
    metadata = _metadata(fleet)
    metadata.write_csv(folder / "metadata_shared_cells.csv")
    for kind in ("discharge", "impedance"):
        with zipfile.ZipFile(folder / f"B0901_{kind}_csv.zip", "w") as archive:
            for row in metadata.filter(battery_id="B0901", type=kind).iter_rows(named=True):
                operation = fleet["B0901"][int(row["test_id"])]
                archive.writestr(f"B0901/{row['filename']}", _operation_csv(operation))
    return folder


def _mat_data(operation: Operation) -> dict[str, object]:
    if operation.kind == "impedance":
        return {"Sense_current": np.zeros(3), "Re": operation.re_ohm, "Rct": operation.rct_ohm}
    names = ("Voltage_measured", "Current_measured", "Temperature_measured", "Time")
    data: dict[str, object] = {
        name: np.array(values) for name, values in zip(names, _measured(operation), strict=True)
    }
    if operation.kind == "discharge":
        given = operation.capacity_ah
        data["Capacity"] = np.empty((0, 0)) if given is None else given
    return data


@pytest.fixture
def mat_folder(fleet: Fleet, tmp_path: Path) -> Path:
    """The struct array that NASA publishes: a 1x1 struct with a 1xN struct array `cycle`."""
    folder = tmp_path / "mat form"
    folder.mkdir()
    for cell, operations in fleet.items():
        cycle = np.empty(
            (1, len(operations)),
            dtype=[(name, object) for name in ("type", "ambient_temperature", "time", "data")],
        )
        for position, operation in enumerate(operations):
            cycle[0, position] = (
                operation.kind,
                np.uint8(operation.ambient_c),
                np.array(operation.date_vector),
                _mat_data(operation),
            )
        savemat(folder / f"{cell}.mat", {cell: {"cycle": cycle}})
    return folder

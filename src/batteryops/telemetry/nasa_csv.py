"""NASA's cells as one CSV per operation with a metadata file: a folder, or a folder of zips."""

import io
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.files import first_line
from batteryops.schema import Kind, Recording
from batteryops.telemetry.assembly import (
    assemble,
    csv_text,
    of_kinds,
    real_number,
    wanted_kinds,
)

METADATA_FILE: Final = "metadata.csv"
RECORDS_FOLDER: Final = "data"

MEASURED_FIELDS: Final = {
    "Time": "time_s",
    "Voltage_measured": "voltage_v",
    "Current_measured": "current_a",
    "Temperature_measured": "temperature_c",
}
"""NASA's names of what was measured at the cell, and the canonical ones."""

_METADATA: Final = (
    "type",
    "start_time",
    "ambient_temperature",
    "battery_id",
    "test_id",
    "filename",
    "Capacity",
    "Re",
    "Rct",
)
_RECORD: Final = dict.fromkeys(MEASURED_FIELDS, pl.Float64())
_ZIP_NAME: Final = re.compile(r"(?P<cell>.+)_(?P<kind>discharge|charge|impedance)_csv\.zip")
_MAX_RECORD_BYTES: Final = 1 << 26  # NASA's longest record is below 1 MB
_NUMBER: Final = re.compile(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?")

_Record = tuple[str, str]
"""A record's cell and file name, such as ("B0005", "05122.csv")."""


def date_vector(values: Sequence[float]) -> datetime:
    """A MATLAB date vector as a time: year, month, day, hour, minute, second with its fraction.

    Raises:
        ValueError: when there are not six values, or they are no date.

    Examples:
        >>> date_vector([2009, 4, 7, 15, 59, 18.718])
        datetime.datetime(2009, 4, 7, 15, 59, 18, 718000)
    """
    year, month, day, hour, minute, second = values
    try:
        start = datetime(int(year), int(month), int(day), int(hour), int(minute))  # noqa: DTZ001, the publisher gives local time without a zone
        return start + timedelta(microseconds=round(float(second) * 1e6))
    except OverflowError as error:
        raise ValueError(f"{list(values)} is beyond any date") from error


def date_vector_text(text: str) -> datetime:
    """A MATLAB date vector as NumPy prints it, in fixed or in scientific notation.

    Raises:
        ValueError: when it is no date.

    Examples:
        >>> date_vector_text("[2.009e+03 4.000e+00 7.000e+00 1.600e+01 3.100e+01 1.890e+00]")
        datetime.datetime(2009, 4, 7, 16, 31, 1, 890000)
    """
    return date_vector([float(number) for number in _NUMBER.findall(text)])


def read_nasa_csv(folder: Path, *, kinds: Collection[Kind] | None = None) -> Recording:
    """Read a folder with `metadata.csv` and the operations' files under `data/`.

    Cells without any file are left out; of the others, an operation without one has 0 samples.

    Args:
        folder: holds `metadata.csv` and the folder `data`.
        kinds: kinds of cycle to read, all when None; files of other kinds are not opened.

    Raises:
        DataError: a file that cannot be read, or lacks a column.
    """
    metadata = folder / METADATA_FILE
    operations = _operations(metadata)
    there = {path.name for path in (folder / RECORDS_FOLDER).glob("*.csv")}
    records = {
        (cell, name): _reading(folder / RECORDS_FOLDER / name)
        for cell, name in operations.select("asset_id", "filename").iter_rows()
        if name in there
    }
    return _recording(operations, records, wanted_kinds(kinds), source=folder)


def is_nasa_zip(path: Path) -> bool:
    """Whether a file is named as zipped operations are, `<cell>_discharge_csv.zip`."""
    return _ZIP_NAME.fullmatch(path.name) is not None


def read_nasa_zips(folder: Path, *, kinds: Collection[Kind] | None = None) -> Recording:
    """Read a folder with `metadata*.csv` and `<cell>_<kind>_csv.zip` of the operations' files.

    Cells without a zip are left out; of the others, an operation without a file has 0 samples.

    Args:
        folder: holds one metadata file and the zips.
        kinds: kinds of cycle to read, all when None; operations of other kinds are not unpacked.

    Raises:
        DataError: a file that cannot be read, or lacks a column.
    """
    found = sorted(folder.glob("metadata*.csv"))
    if len(found) != 1:
        raise DataError(
            f"{folder}: {len(found)} files metadata*.csv beside the zips; expected exactly one"
        )
    operations = _operations(found[0])
    records: dict[_Record, Callable[[], bytes]] = {}
    with ExitStack() as opened:
        for path in sorted(folder.glob("*_csv.zip")):
            name = _ZIP_NAME.fullmatch(path.name)
            if name is None:
                continue
            try:
                archive = opened.enter_context(zipfile.ZipFile(path))
            except Exception as error:  # a damaged directory trips zipfile in many ways
                raise DataError(
                    f"{path}: cannot be opened as a zip ({first_line(error)})"
                ) from error
            for member in archive.infolist():
                record = name["cell"], Path(member.filename).name
                if record in records and not member.is_dir():
                    raise DataError(
                        f"{path}: {record[1]} is in the zips of {record[0]} twice; expected once"
                    )
                records[record] = _unzipping(archive, member)
        return _recording(operations, records, wanted_kinds(kinds), source=folder)


def _reading(path: Path) -> Callable[[], bytes]:
    def content() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror}); expected one operation's CSV file"
            ) from error

    return content


def _unzipping(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Callable[[], bytes]:
    """Content of a member on demand, never more than a record can be, whatever it claims."""

    def content() -> bytes:
        try:
            with archive.open(member) as opened:
                unpacked = opened.read(_MAX_RECORD_BYTES + 1)
        except Exception as error:  # encrypted, of an unknown compression, or damaged
            raise DataError(
                f"{archive.filename}: {member.filename} cannot be unpacked ({first_line(error)}); "
                "take the zip from its source again, without a password"
            ) from error
        if len(unpacked) > _MAX_RECORD_BYTES:
            raise DataError(
                f"{archive.filename}: {member.filename} unpacks to more than "
                f"{_MAX_RECORD_BYTES} bytes, which no record of a cycle is; "
                "take the zip from its source again"
            )
        return unpacked

    return content


def _operations(path: Path) -> pl.DataFrame:
    texts = csv_text(path, required=_METADATA)
    table = texts.select(
        pl.col("battery_id").alias("asset_id"),
        # test_id counts operations from 0
        (pl.col("test_id").cast(pl.Int32, strict=False) + 1).alias("cycle_index"),
        pl.col("type").alias("kind"),
        pl.col("start_time"),
        real_number("ambient_temperature").alias("ambient_temperature_c"),
        real_number("Capacity").alias("capacity_ah"),
        real_number("Re").alias("re_ohm"),
        real_number("Rct").alias("rct_ohm"),
        pl.col("filename"),
    )
    if table["cycle_index"].has_nulls():
        raise DataError(f"{path}: column test_id holds values that are no whole numbers")
    started_at = []
    for text in table["start_time"]:
        try:
            started_at.append(date_vector_text(text or ""))
        except ValueError as error:
            raise DataError(
                f"{path}: start_time {text!r} is no MATLAB date vector; "
                "expected [year month day hour minute second]"
            ) from error
    return table.with_columns(
        pl.Series("started_at", started_at, dtype=pl.Datetime("us")),
    ).drop("start_time")


def _recording(
    operations: pl.DataFrame,
    records: Mapping[_Record, Callable[[], bytes]],
    wanted: frozenset[str],
    *,
    source: Path,
) -> Recording:
    cells = {cell for cell, _ in records}
    cycles = operations.filter(pl.col("asset_id").is_in(cells), of_kinds(wanted))
    lengths = np.zeros(cycles.height, dtype=np.int64)
    measured = [pl.DataFrame(schema=dict.fromkeys(MEASURED_FIELDS.values(), pl.Float64()))]
    named = cycles.select("asset_id", "kind", "filename").iter_rows()
    for position, (cell, kind, name) in enumerate(named):
        if kind not in ("discharge", "charge") or (cell, name) not in records:
            continue
        record = _record(records[cell, name](), what=f"{source}: {name} of {cell}")
        lengths[position] = record.height
        measured.append(record)
    return assemble(cycles.drop("filename"), lengths, pl.concat(measured), source=str(source))


def _record(content: bytes, *, what: str) -> pl.DataFrame:
    try:
        table = pl.read_csv(
            io.BytesIO(content), columns=list(MEASURED_FIELDS), schema_overrides=_RECORD
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{what}: cannot be read as CSV with numbers in the columns "
            f"{', '.join(MEASURED_FIELDS)} ({first_line(error)})"
        ) from error
    return table.select(pl.col(name).alias(to) for name, to in MEASURED_FIELDS.items())

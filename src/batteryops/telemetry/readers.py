"""One door for measurements in any known form: look at the path, choose the reader."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.files import read_table, table_columns
from batteryops.schema import CYCLE_KEY, Kind, Recording
from batteryops.telemetry import canonical, nasa_csv, nasa_tidy, trips

FORMS: Final = (
    "a folder with cycles.csv and tidy/*.parquet, a folder with metadata.csv and data/*.csv, "
    "a folder of <cell>_discharge_csv.zip with metadata*.csv, a NASA .mat or a folder of them, "
    "a trip table, or a canonical cycle table as .parquet or .csv"
)


def read(path: Path, *, kinds: Collection[Kind] | None = None) -> Recording:
    """Read measurements of whatever known form stands at `path`.

    Forms: a folder of tidy NASA records, a folder of NASA operations as CSV (or zipped, beside
    which `.mat` files may stand), a NASA `.mat` or a folder of them, a trip table, a canonical
    cycle table. Where a folder has a cell both zipped and as `.mat`, the `.mat` is taken.

    Args:
        path: file or folder.
        kinds: kinds of cycle to read, all when None; what is not asked for is not read where the
            form allows it.

    Raises:
        DataError: nothing there, a form that is not known, a file that cannot be read, or no
            cycle of the kinds asked for.
    """
    if path.is_dir():
        return _read_folder(path, kinds)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected {FORMS}")
    if path.suffix == ".mat":
        return _read_mat([path], kinds, source=str(path))
    if path.suffix in canonical.SUFFIXES:
        if trips.looks_like_trips(table_columns(path)):
            return trips.trips(read_table(path), source=str(path), kinds=kinds)
        return canonical.read_canonical(path, kinds=kinds)
    raise DataError(f"{path}: no reader for files that end in {path.suffix!r}; expected {FORMS}")


def _read_folder(folder: Path, kinds: Collection[Kind] | None) -> Recording:
    if (folder / nasa_tidy.CYCLES_FILE).is_file() and (folder / nasa_tidy.RECORDS_FOLDER).is_dir():
        return nasa_tidy.read_nasa_tidy(folder, kinds=kinds)
    if (folder / nasa_csv.METADATA_FILE).is_file() and (folder / nasa_csv.RECORDS_FOLDER).is_dir():
        return nasa_csv.read_nasa_csv(folder, kinds=kinds)
    mats = sorted(folder.glob("*.mat"))
    zips = any(nasa_csv.is_nasa_zip(path) for path in folder.glob("*.zip"))
    if mats and zips:
        return _united(
            _read_mat(mats, kinds, source=str(folder)),
            nasa_csv.read_nasa_zips(folder, kinds=kinds),
        )
    if mats:
        return _read_mat(mats, kinds, source=str(folder))
    if zips:
        return nasa_csv.read_nasa_zips(folder, kinds=kinds)
    raise DataError(f"{folder}: nothing in this folder that is known; expected {FORMS}")


def _read_mat(paths: list[Path], kinds: Collection[Kind] | None, *, source: str) -> Recording:
    from batteryops.telemetry.nasa_mat import (  # noqa: PLC0415, SciPy is slow to import and only this form needs it
        read_nasa_mat,
    )

    return read_nasa_mat(paths, kinds=kinds, source=source)


def _united(first: Recording, second: Recording) -> Recording:
    """Both recordings as one; an asset that both have is taken from the first."""
    others = ~pl.col("asset_id").is_in(first.asset_ids)
    return Recording(
        samples=pl.concat([first.samples, second.samples.filter(others)]).sort(
            *CYCLE_KEY, "time_s", maintain_order=True
        ),
        cycles=pl.concat([first.cycles, second.cycles.filter(others)]).sort(CYCLE_KEY),
        source=first.source,
    )

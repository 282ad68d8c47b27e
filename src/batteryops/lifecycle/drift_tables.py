"""Tables that are compared for drift: one file or a folder of them, under our names, in pieces."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import polars as pl

from batteryops.errors import DataError
from batteryops.features.files import ALIASES, SUFFIXES
from batteryops.features.views import VIEWS, FeatureView
from batteryops.files import UNREADABLE, first_line, table_columns
from batteryops.lifecycle.progress import Progress
from batteryops.monitoring.counts import table_pieces
from batteryops.schema import FEATURE_KEY, LABEL

ASSET: Final = "asset_id"
"""The column that says whose row it is, under whatever name a table has it."""

TRIP_NAMES: Final[Mapping[str, str]] = {
    "trip_id": "op_index",
    "voltage_mean": "voltage_V_mean",
    "current_mean": "current_A_mean",
    "mean_max_temp": "temperature_C_mean",
    "max_temp": "temperature_C_max",
    "duration_s": "discharge_time_s",
    "delta_temp": "delta_T_C",
}
"""Columns of published trip tables, and what stands for them elsewhere. Values stay as they are,
pack volts and a current that is positive while discharging: drift is to show that."""

_KEYS: Final = {*FEATURE_KEY, LABEL}
_KNOWN: Final = tuple(dict.fromkeys(name for view in VIEWS.values() for name in view.names))


@dataclass(frozen=True, slots=True)
class TableFiles:
    """A table in one or several files.

    Args:
        path: a file, or a folder of files.
        columns: of each file, by the name that each column has here.
    """

    path: Path
    columns: Mapping[Path, Mapping[str, str]]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Look at the columns of a `.csv` or `.parquet` file, or of all of them in a folder.

        Raises:
            DataError: when there is none, or one cannot be read.
        """
        if path.is_dir():
            files = sorted(found for found in path.rglob("*") if found.suffix in SUFFIXES)
            if not files:
                raise DataError(f"folder {path} holds no {' or '.join(SUFFIXES)} file")
        elif path.suffix in SUFFIXES:
            files = [path]
        else:
            raise DataError(f"{path}: expected a table in {' or '.join(SUFFIXES)}, or a folder")
        return cls(path, {file: _names(table_columns(file)) for file in files})

    @property
    def names(self) -> tuple[str, ...]:
        """Every column of any of the files, as it is called here."""
        return tuple(dict.fromkeys(name for own in self.columns.values() for name in own))

    @property
    def renamed(self) -> dict[str, str]:
        """Trip columns that are read as features, by what they are called in the files."""
        return {
            theirs: ours
            for own in self.columns.values()
            for ours, theirs in own.items()
            if theirs in TRIP_NAMES and ours != theirs
        }

    def pieces(self, wanted: Sequence[str], progress: Progress) -> Iterator[pl.DataFrame]:
        """The rows, as many columns of `wanted` as there are, a piece at a time.

        Args:
            wanted: names as they are here; each piece has those that its file has.
            progress: told how many rows are done.

        Raises:
            DataError: when a file cannot be read, or all of them have no rows.
        """
        total, done = sum(map(_height, self.columns)), 0
        for file, own in self.columns.items():
            names = {theirs: ours for ours, theirs in own.items() if ours in set(wanted)}
            for piece in table_pieces(file, [*names]) if names else ():
                done += piece.height
                progress.within(done, max(total, done))
                yield piece.rename(names)
        if not done:
            raise DataError(f"{self.path} has no rows; expected one at least")


def features_in(
    names: Sequence[str], kinds: Mapping[str, pl.DataType], asked: Sequence[str], where: str
) -> tuple[tuple[str, ...], FeatureView | None]:
    """Which columns of a table are features to be compared, and of which view they are.

    Args:
        names: of its columns.
        kinds: of its columns.
        asked: features that were named; none: those of the largest view that is there as a whole,
            else all that any view has, else every numeric column that is no key and no label.
        where: names the table in messages.

    Raises:
        DataError: when one that was named is not there, or there is none at all.
    """
    if asked:
        if absent := [name for name in asked if name not in names]:
            raise DataError(f"{where} has no column {', '.join(absent)}; it has {listed(names)}")
        return tuple(asked), None
    whole = [view for view in VIEWS.values() if set(view.names) <= set(names)]
    if whole:
        view = max(whole, key=lambda one: len(one.names))
        return view.names, view
    found = tuple(name for name in _KNOWN if name in names) or tuple(
        name for name in names if name not in _KEYS and kinds[name].is_numeric()
    )
    if not found:
        raise DataError(
            f"{where} has no features: none of a view, and no numeric column but keys and labels; "
            f"it has {listed(names)}"
        )
    return found, None


def _names(columns: Sequence[str]) -> dict[str, str]:
    """What each column is called here, and in the file; published names where ours is not there."""
    names = {name: name for name in columns}
    for theirs, ours in {**ALIASES, **TRIP_NAMES}.items():
        if theirs in columns and ours not in names:
            del names[theirs]
            names[ours] = theirs
    return names


def _height(file: Path) -> int:
    try:
        table = (
            pl.scan_csv(file, infer_schema=False, glob=False)
            if file.suffix == ".csv"
            else pl.scan_parquet(file, glob=False, hive_partitioning=False)
        )
        return int(table.select(pl.len()).collect().item())
    except UNREADABLE as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)})") from error


def renamings(table: TableFiles) -> list[str]:
    """Which of its columns are read under other names, for people."""
    return [
        f"{table.path.name}: {', '.join(f'{theirs} is read as {ours}' for theirs, ours in names)}"
        for names in [table.renamed.items()]
        if names
    ]


def listed(names: Sequence[str]) -> str:
    """Names in a message."""
    return ", ".join(names) or "no columns"

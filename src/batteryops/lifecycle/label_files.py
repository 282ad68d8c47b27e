"""Labels that come in a file: checked as a whole, and put on record all or none."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from batteryops.errors import DataError, RecordsError
from batteryops.features.files import ALIASES, SUFFIXES
from batteryops.files import read_table
from batteryops.records.labels import Label, Labels
from batteryops.schema import LABEL
from batteryops.settings import Settings

COLUMNS: Final = ("asset_id", "measured_at", LABEL)

_SOURCE: Final = "source"
_MOST_NAMED: Final = 5
_ISO: Final = "such as 2026-03-01T12:30:00Z"


def read_labels(path: Path, settings: Settings) -> list[Label]:
    """The labels of a `.csv` or `.parquet` file, in its order.

    Args:
        path: a table with `asset_id` (or `vehicle_id`), `measured_at` with its time zone,
            `capacity_ah` in Ah, and perhaps `source`: how or by whom it was measured.
        settings: profiles say which capacities an asset can have.

    Raises:
        DataError: with the first faults and how many there are; a file of which one label is
            wrong is wrong as a whole.
    """
    table = _table(path)
    found, faults = [], []
    for place, row in enumerate(table.iter_rows(named=True), start=1):
        try:
            found.append(_label(row, path.name, settings))
        except (DataError, RecordsError) as error:
            faults.append(f"row {place}: {error}")
    if faults:
        more = f"; and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        raise DataError(
            f"{path}: {len(faults)} of {table.height} labels have faults, and none was put on "
            f"record: {'; '.join(faults[:_MOST_NAMED])}{more}"
        )
    return found


def add_labels(path: Path, settings: Settings) -> Mapping[str, int]:
    """Put the labels of a file on record, all or none.

    Returns:
        How many were `new`, `known` already, or a `correction` of another capacity.
    """
    labels = read_labels(path, settings)
    with Labels(settings.predictions_url) as store:
        outcomes = Counter(store.add(labels))
    return {what: outcomes[what] for what in ("new", "known", "correction")}


def _label(row: Mapping[str, object], source: str, settings: Settings) -> Label:
    """One label.

    Raises:
        DataError, RecordsError: saying what is wrong with it.
    """
    asset, capacity = row["asset_id"], row[LABEL]
    if asset is None or not str(asset).strip():
        raise DataError("asset_id is empty")
    if not isinstance(capacity, float):
        raise DataError(f"{LABEL} is empty")
    label = Label(str(asset), _time(row["measured_at"]), capacity, str(row.get(_SOURCE) or source))
    profile = settings.profile_of(label.asset_id)
    if profile.nominal_capacity_ah is not None:
        low, high = profile.capacity_range_ah
        if not low <= capacity <= high:
            raise DataError(
                f"{capacity:.6g} Ah, expected {low:g} to {high:g} Ah by profile {profile.name}"
            )
    return label


def _time(given: object) -> datetime:
    """A time with its zone, as UTC."""
    try:
        at = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        at = None
    if not isinstance(at, datetime):
        raise DataError(f"measured_at is {given!r}, expected a time, {_ISO}")
    if at.utcoffset() is None:
        raise DataError(f"measured_at {given} has no time zone; give one, {_ISO}")
    return at.astimezone(UTC)


def _table(path: Path) -> pl.DataFrame:
    """The file, with the columns that it must have under our names.

    Raises:
        DataError: a file that cannot be read, or lacks one.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: labels come in {' or '.join(SUFFIXES)}")
    table = read_table(path)
    for theirs, ours in ALIASES.items():
        if theirs in table.columns and ours not in table.columns:
            table = table.rename({theirs: ours})
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(
            f"{path}: missing column {', '.join(missing)}; given {', '.join(table.columns)}, "
            f"expected {', '.join(COLUMNS)} and perhaps {_SOURCE}"
        )
    if table.is_empty():
        raise DataError(f"{path}: no rows; expected one per label")
    if not table[LABEL].dtype.is_numeric():
        raise DataError(f"{path}: column {LABEL} is {table[LABEL].dtype}, expected numbers of Ah")
    return table.with_columns(pl.col(LABEL).cast(pl.Float64))

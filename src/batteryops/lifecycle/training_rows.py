"""The rows that packages were trained on, kept under the fingerprint that a package names.

A package says what it was trained on by a fingerprint alone. Whoever brings it up to date needs the
rows themselves: to remember the past, to judge what forgets it, to calibrate what says how far to
believe the next one.
"""

from pathlib import Path

import polars as pl

from batteryops.errors import DataError
from batteryops.features.views import FeatureView
from batteryops.files import read_table, write_table
from batteryops.models.package import ModelPackage
from batteryops.schema import FEATURE_KEY, LABEL, fingerprint
from batteryops.settings import Settings

_REMEDY = "train again: `batteryops train` keeps the rows that it trains on"


def keep_rows(table: pl.DataFrame, settings: Settings, *, partial: str | None = None) -> str:
    """Keep the rows of a training; those that are kept already are not written again.

    Args:
        table: `asset_id`, `op_index`, the view's features, `capacity_ah`, and what else there is.
        settings: say where.
        partial: name of the file that they are first written to; None makes one.

    Returns:
        Their fingerprint, by which `rows_of` finds them.

    Raises:
        DataError: they cannot be written.
    """
    name = fingerprint(table)
    path = _path(settings, name)
    if not _holds(path, name):
        write_table(table, path, partial=partial)
    return name


def rows_of(package: ModelPackage, settings: Settings) -> pl.DataFrame:
    """The rows that a package was trained on, as they were.

    Raises:
        DataError: they are not here, or were changed since.
    """
    name = package.manifest.data_fingerprint
    path = _path(settings, name)
    if not path.exists():
        raise DataError(
            f"the rows that this model was trained on are not in {path.parent} (fingerprint "
            f"{name}), so that it cannot be brought up to date; {_REMEDY}"
        )
    table = read_table(path, remedy=_REMEDY)
    if (given := fingerprint(table)) != name:
        raise DataError(f"{path} has fingerprint {given}, so it was changed; {_REMEDY}")
    _expect(table, package.view, path)
    return table


def _expect(table: pl.DataFrame, view: FeatureView, path: Path) -> None:
    """See that rows under a right fingerprint are rows of the view at all.

    Raises:
        DataError: naming what is missing.
    """
    needed = (*FEATURE_KEY, *view.names, LABEL)
    if missing := [name for name in needed if name not in table.columns]:
        raise DataError(f"{path} has no column {', '.join(missing)}; {_REMEDY}")


def _holds(path: Path, name: str) -> bool:
    """Whether the very rows are there; a file that was damaged since is written anew."""
    if not path.exists():
        return False
    try:
        return fingerprint(read_table(path)) == name
    except DataError:
        return False


def _path(settings: Settings, name: str) -> Path:
    return settings.training_rows / f"{name}.parquet"

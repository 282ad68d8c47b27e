"""Where quarantined cycles are kept with their reasons: one Parquet file per data set."""

from pathlib import Path
from urllib.parse import quote, unquote

import polars as pl

from batteryops.errors import DataError
from batteryops.files import read_table, write_table
from batteryops.quality.report import QUARANTINE, sort_quarantine
from batteryops.schema import conform


class QuarantineStore:
    """A folder of quarantine tables.

    Args:
        root: the folder; made at the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, name: str, quarantine: pl.DataFrame) -> Path:
        """Keep a data set's quarantine, in place of what was kept under that name.

        Args:
            name: of the data set; what a file name cannot hold is written as %xx.
            quarantine: rows as `batteryops.quality.report.QUARANTINE` declares them.

        Returns:
            The file written.

        Raises:
            DataError: for an empty name, a table of another form, or a folder that cannot be
                written; what stood there before still stands.
        """
        conform(quarantine, QUARANTINE, what=f"quarantine of {name}", exact=True)
        path = self._path(name)
        write_table(sort_quarantine(quarantine), path)
        return path

    def names(self) -> list[str]:
        """The data sets whose quarantine is kept, sorted."""
        return sorted(unquote(path.stem) for path in self._root.glob("[!.]*.parquet"))

    def list(self, asset: str | None = None, check: str | None = None) -> pl.DataFrame:
        """Quarantined cycles of all data sets with their reasons.

        Args:
            asset: only this asset's.
            check: only those that this check set aside.

        Returns:
            `data_set`, then the columns of `QUARANTINE`; one row per cycle and reason.

        Raises:
            DataError: when a file cannot be read.
        """
        tables = [self._read(name) for name in self.names()]
        rows = pl.concat([pl.DataFrame(schema={"data_set": pl.String(), **QUARANTINE}), *tables])
        if asset is not None:
            rows = rows.filter(pl.col("asset_id") == asset)
        if check is not None:
            rows = rows.filter(pl.col("check") == check)
        return rows

    def _read(self, name: str) -> pl.DataFrame:
        path = self._path(name)
        table = read_table(path, remedy="remove it and check the data again")
        conform(table, QUARANTINE, what=str(path), exact=True)
        return table.select(pl.lit(name).alias("data_set"), pl.all())

    def _path(self, name: str) -> Path:
        if not name:
            raise DataError("a quarantine needs the name of its data set; given an empty one")
        quoted = quote(name, safe=" ")
        if quoted.startswith("."):  # would be hidden, or another folder
            quoted = "%2E" + quoted[1:]
        return self._root / f"{quoted}.parquet"

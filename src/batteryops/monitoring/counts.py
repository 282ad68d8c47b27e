"""Counts of current rows in the cells of a reference: they add up exactly, in any order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import polars as pl
from numpy.typing import ArrayLike

from batteryops.errors import DataError
from batteryops.files import UNREADABLE, first_line, table_columns
from batteryops.monitoring.columns import column_values, each, prediction_values
from batteryops.monitoring.context import ORDER, Context
from batteryops.monitoring.reference import PREDICTION, Reference
from batteryops.monitoring.tallies import Rows, Tally

CHUNK_ROWS: Final = 65_536
"""Rows of a file that are in memory at a time: a quarter of a row group as Polars writes them."""

Strata = Callable[[pl.DataFrame], pl.Series]


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What was counted of current rows.

    Args:
        fingerprint: of the reference whose cells these are.
        rows: that were counted.
        tallies: by column of the reference, `prediction` among them where it has one.
        context: a sample of the rows, where the reference keeps one too.
    """

    fingerprint: str
    rows: int
    tallies: Mapping[str, Tally]
    context: Context | None = None

    @classmethod
    def of(
        cls,
        reference: Reference,
        table: pl.DataFrame,
        *,
        asset: str = "asset_id",
        strata: pl.Series | None = None,
        predictions: ArrayLike | None = None,
    ) -> Self:
        """Count a table's rows.

        Args:
            reference: whose features are looked at, by name; further columns are passed over.
            table: numeric columns, null or NaN where missing. A feature that it does not have is
                counted as missing in all rows.
            asset: the column that says whose row it is, if the table has it.
            strata: (n,) labels.
            predictions: (n,) of the model.

        Raises:
            DataError: when the table has none of the features, a column does not hold numbers, or
                strata or predictions are not one per row.
        """
        _refuse_strange(reference, table.columns, "the table")
        if strata is not None and len(strata) != table.height:
            raise DataError(
                f"given {len(strata)} strata for {table.height} rows; expected one per row"
            )
        values = {
            name: column_values(table, name) if name in table.columns else None
            for name in reference.features
        }
        if reference.prediction is not None:
            values[PREDICTION] = (
                None if predictions is None else prediction_values(predictions, table.height)
            )
        assets = table[asset] if asset in table.columns else None
        rows = Rows.of(table.height, assets, strata)
        grids = {name: column.grid for name, column in reference.columns.items()}
        found = each(lambda name: rows.tally(grids[name], values[name]), [*values], rows=rows.n)
        context = None
        if reference.context is not None:
            order = table[ORDER] if ORDER in table.columns else None
            context = Context.of(values, rows.n, assets=assets, order=order)
        tallies = dict(zip(values, found, strict=True))
        return cls(reference.fingerprint, table.height, tallies, context)

    @classmethod
    def scan(  # noqa: PLR0913 - what is known of a file's columns
        cls,
        reference: Reference,
        path: Path,
        *,
        asset: str = "asset_id",
        strata: Strata | None = None,
        prediction: str | None = None,
        chunk_rows: int = CHUNK_ROWS,
    ) -> Self:
        """Count a table in a file, a piece at a time: memory does not grow with its rows.

        Args:
            reference: whose features are looked at.
            path: CSV where its name ends in `.csv`, Parquet otherwise.
            asset: the column that says whose row it is, if the table has it.
            strata: gives the labels of a piece.
            prediction: the column of the model's predictions.
            chunk_rows: of a piece.

        Raises:
            DataError: when the file cannot be read, has no rows, or a column is not numeric.
        """
        present = table_columns(path)
        _refuse_strange(reference, present, str(path))
        wanted = {*reference.features, asset, ORDER, prediction}
        columns = [name for name in present if strata or name in wanted]
        pieces = (
            cls.of(
                reference,
                piece,
                asset=asset,
                strata=None if strata is None else strata(piece),
                predictions=None
                if prediction is None or prediction not in piece.columns
                else column_values(piece, prediction),
            )
            for piece in table_pieces(path, columns, chunk_rows)
        )
        total = next(pieces, None)
        if total is None:
            raise DataError(f"{path} has no rows; expected one at least")
        for piece in pieces:
            total += piece
        return total

    def __add__(self, other: Self) -> Self:
        """Both together.

        Raises:
            DataError: when they were counted in the cells of different references.
        """
        if self.fingerprint != other.fingerprint:
            raise DataError(
                f"counts of reference {self.fingerprint[:12]} and of {other.fingerprint[:12]} do "
                "not add up; count both against one reference"
            )
        return type(self)(
            self.fingerprint,
            self.rows + other.rows,
            {name: tally + other.tallies[name] for name, tally in self.tallies.items()},
            None if self.context is None or other.context is None else self.context + other.context,
        )

    def to_json(self) -> dict[str, Any]:
        """Exactly this, to be kept or sent."""
        return {
            "reference": self.fingerprint,
            "rows": self.rows,
            "columns": {name: tally.to_json() for name, tally in self.tallies.items()},
            "context": None if self.context is None else self.context.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], reference: Reference) -> Self:
        """What `to_json` gave.

        Raises:
            DataError: when it is something else, or of another reference.
        """
        try:
            if document["reference"] != reference.fingerprint:
                raise DataError(
                    f"these are counts of reference {document['reference'][:12]}, not of "
                    f"{reference.fingerprint[:12]}; count again"
                )
            context = document.get("context")
            return cls(
                reference.fingerprint,
                int(document["rows"]),
                {
                    name: Tally.from_json(document["columns"][name], column.grid)
                    for name, column in reference.columns.items()
                },
                None if context is None else Context.from_json(context),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(f"these are no counts ({error!r}); count again") from error


def _refuse_strange(reference: Reference, columns: Sequence[str], what: str) -> None:
    if not set(columns) & set(reference.features):
        raise DataError(
            f"{what} has none of the features {', '.join(reference.features)}; it has "
            f"{', '.join(columns) or 'no columns'}"
        )


def table_pieces(
    path: Path, columns: Sequence[str], rows: int = CHUNK_ROWS
) -> Iterator[pl.DataFrame]:
    """Some columns of a table in a file, a piece at a time.

    Args:
        path: CSV where its name ends in `.csv`, Parquet otherwise.
        columns: which the table has.
        rows: of a piece, at most.

    Raises:
        DataError: when the file cannot be read.
    """
    try:
        if path.suffix == ".csv":
            lines = pl.scan_csv(path, infer_schema_length=None, glob=False).select(columns)
            yield from (piece for piece in lines.collect_batches(chunk_size=rows) if piece.height)
            return
        # a query for each piece holds a third of the memory of one that runs through the file
        table = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(columns)
        height = table.select(pl.len()).collect().item()
        for first in range(0, height, rows):
            yield table.slice(first, rows).collect(engine="streaming")
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from error

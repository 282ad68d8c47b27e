"""The declared part of a feature table: types, keys, windows; pandera applies it, eagerly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandera.errors
import pandera.polars as pa
import polars as pl

from batteryops.errors import DataError
from batteryops.schema import FEATURE_KEY

ROW: Final = "row"
"""Number of a row in the table as judged; what pandera reports is traced back through it."""

FAILURES: Final = pl.Schema({ROW: pl.UInt32(), "column": pl.String(), "check": pl.String()})


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """What a feature table of assets of one profile must be.

    Args:
        values: names of the columns that hold numbers; null may stand in them.
        windows: low and high bound of some of them, both allowed.
    """

    values: Sequence[str]
    windows: Mapping[str, tuple[float, float]]

    def failures(self, table: pl.DataFrame) -> pl.DataFrame:
        """Rows of `table` that break the declaration.

        Args:
            table: an eager frame (pandera lets bad values of a lazy one pass) with `asset_id`,
                `op_index`, the columns `values` as Float64, and `row`.

        Returns:
            `row`, `column`, and `check`: `range`, `finite`, or `key` for a key that occurs twice.

        Raises:
            DataError: when columns are missing, of another type, or the key has nulls.

        Examples:
            >>> schema = FeatureSchema(["v_mean"], {"v_mean": (2.5, 4.5)})
            >>> table = pl.DataFrame(
            ...     {"asset_id": ["B0005"] * 3, "op_index": [2, 4, 6], "v_mean": [3.5, None, 9.9]},
            ...     schema_overrides={"op_index": pl.Int32},
            ... )
            >>> schema.failures(table.with_row_index("row")).rows()
            [(2, 'v_mean', 'range')]
        """
        try:
            self._declare().validate(table, lazy=True)
        except pandera.errors.SchemaErrors as error:
            cases: pl.DataFrame = error.failure_cases
        else:
            return pl.DataFrame(schema=FAILURES)
        structural = cases.filter(pl.col("index").is_null() | (pl.col("check") == "not_nullable"))
        if not structural.is_empty():
            raise DataError(_structure(structural))
        return cases.select(
            pl.Series(ROW, table[ROW].gather(cases["index"].cast(pl.UInt32)), pl.UInt32()),
            pl.col("column").fill_null(", ".join(FEATURE_KEY)).cast(pl.String),
            pl.col("check").replace("multiple_fields_uniqueness", "key").cast(pl.String),
        )

    def _declare(self) -> pa.DataFrameSchema:
        return pa.DataFrameSchema(
            {
                "asset_id": pa.Column(pl.String, nullable=False),
                "op_index": pa.Column(pl.Int32, nullable=False),
                **{name: self._number(name) for name in self.values},
            },
            unique=list(FEATURE_KEY),
        )

    def _number(self, name: str) -> pa.Column:
        checks = [pa.Check(_is_finite, name="finite", error="finite")]
        if name in self.windows:
            low, high = self.windows[name]
            checks.append(pa.Check.in_range(low, high, error="range"))
        return pa.Column(pl.Float64, checks, nullable=True)


def _is_finite(data: pa.PolarsData) -> pl.LazyFrame:
    frame: pl.LazyFrame = data.lazyframe
    return frame.select(pl.col(data.key).is_finite())


def _structure(cases: pl.DataFrame) -> str:
    """One sentence per fault of the table's form."""
    faults = set()
    for case, column, check in cases.select("failure_case", "column", "check").iter_rows():
        if check == "column_in_dataframe":
            faults.add(f"missing column {case}")
        elif check == "not_nullable":
            faults.add(f"column {column} has nulls")
        elif check.startswith("dtype"):
            expected = check.removeprefix("dtype").strip("(')")
            faults.add(f"column {column} is {case}, expected {expected}")
    return f"feature table: {'; '.join(sorted(faults))}"

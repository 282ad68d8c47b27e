"""Errors of answers that have a label, summed per label: chunks of a log become sums that add."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.monitoring.label_join import LabelTable, counted, join_labels

KEY: Final = ("label", "model_version", "champion", "in_domain")
"""What tells cells apart."""

SUMS: Final = ("n", "absolute", "error", "square", "held", "bounded")
"""What is summed in each."""


@dataclass(frozen=True, slots=True, eq=False)
class ErrorSums:
    """Errors of joined answers, summed per label; sums of the same labels add.

    Args:
        labels: what was joined.
        cells: per `label`, `model_version`, whether the champion gave it (`champion`) and whether
            its features lay in the training domain (`in_domain`): how many answers `n`, sums of
            their errors in Ah, `absolute`, `error` (predicted - measured) and `square`, how many
            had an interval (`bounded`), and how many of these `held` the label.
        matched: (labels,), which labels have an answer.
        seen: (labels,), whose asset was asked about at all.
        old: the champion's answers that went out long enough ago to have a label.
        old_labelled: those of them that have one.
    """

    labels: LabelTable
    cells: pl.DataFrame
    matched: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    old: int
    old_labelled: int

    @classmethod
    def of(cls, labels: LabelTable, predictions: pl.DataFrame, *, old_before: datetime) -> Self:
        """The sums of one chunk of the log.

        Args:
            labels: those that count.
            predictions: rows as `PredictionLog.frames` yields them.
            old_before: answers before this time are old enough to have a label.

        Raises:
            DataError: when a column is missing.
        """
        if old_before.utcoffset() is None:
            raise DataError(f"old_before {old_before} has no time zone; give an aware time")
        joined = join_labels(labels, predictions)
        old = counted(predictions).filter(
            pl.col("role") == "champion", pl.col("answered_at") < old_before
        )
        rows = joined.rows.with_columns(
            champion=pl.col("role") == "champion",
            in_domain=pl.col("status") != "out_of_domain",
            off=pl.col("capacity_ah") - pl.col("label_ah"),
            bounds=pl.col("capacity_low_ah").is_not_null()
            & pl.col("capacity_high_ah").is_not_null(),
            holds=pl.col("label_ah").is_between("capacity_low_ah", "capacity_high_ah"),
        )
        cells = rows.group_by(KEY).agg(
            n=pl.len().cast(pl.Int64),
            absolute=pl.col("off").abs().sum(),
            error=pl.col("off").sum(),
            square=(pl.col("off") ** 2).sum(),
            held=pl.col("holds").sum().cast(pl.Int64),
            bounded=pl.col("bounds").sum().cast(pl.Int64),
        )
        labelled = rows.filter("champion", pl.col("answered_at") < old_before).height
        return cls(labels, cells, joined.matched, joined.seen, old.height, labelled)

    def __add__(self, other: "ErrorSums") -> "ErrorSums":
        """The sums of both.

        Raises:
            DataError: when they were joined to different labels.
        """
        if self.labels is not other.labels and not self.labels.table.equals(other.labels.table):
            raise DataError(
                f"sums over {self.labels.n} labels and over {other.labels.n} others do not add; "
                "join both to the same labels"
            )
        cells = pl.concat([self.cells, other.cells]).group_by(KEY).agg(pl.col(SUMS).sum())
        return ErrorSums(
            self.labels,
            cells,
            self.matched | other.matched,
            self.seen | other.seen,
            self.old + other.old,
            self.old_labelled + other.old_labelled,
        )

    @classmethod
    def scan(
        cls, labels: LabelTable, frames: Iterable[pl.DataFrame], *, old_before: datetime
    ) -> "ErrorSums":
        """The sums of a log that is read in chunks; none has no answers."""
        nothing = np.zeros(labels.n, dtype=np.bool_)
        total = ErrorSums(labels, _no_cells(), nothing, nothing, 0, 0)
        for frame in frames:
            total += cls.of(labels, frame, old_before=old_before)
        return total


def _no_cells() -> pl.DataFrame:
    keys = zip(KEY, (pl.UInt32(), pl.String(), pl.Boolean(), pl.Boolean()), strict=True)
    kinds = (pl.Int64(), pl.Float64(), pl.Float64(), pl.Float64(), pl.Int64(), pl.Int64())
    return pl.DataFrame(schema=dict(keys) | dict(zip(SUMS, kinds, strict=True)))

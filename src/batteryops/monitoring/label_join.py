"""Labels that come days or weeks later, joined to the answers they say the truth about.

Labels are few and stay in memory; the log is read in chunks and never whole. What a label answers
for is settled before the first chunk: around each label lies a span of time in which it is the
nearest one of its asset and not further away than the tolerance. A prediction belongs to the label
whose span holds it, whatever the order of predictions.

Which labels count:

* Of several capacities for one asset and the very same time, the last received, as in the log's
  own records: who sends one measurement again corrects it.
* Two measurements of one asset less than `SAME_MEASUREMENT` apart are one: a capacity is measured
  by a full discharge, and there is no time for another. Where they agree within `NOISE_SHARE`, the
  last received counts and the others are repeats.
* Where they do not agree, nothing says which is wrong, and what came last is no better for that:
  all of them are left out, counted and listed. An error of the model must not be judged by a label
  that may be the error itself.
* A label that was measured after it was received is a clock that jumped: left out and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.records.labels import CLOCKS_DIFFER, LABEL_FRAME

SAME_MEASUREMENT: Final = timedelta(minutes=30)
"""Full discharges of one asset do not end closer together than this."""

NOISE_SHARE: Final = 0.02
"""Capacities of one measurement differ by no more than this share of the largest: a test bench's
current is right to some tenths of a percent, and a pack's in the field to one or two."""

JOINED: Final[dict[str, Any]] = {
    "label": pl.UInt32(),
    "vehicle_id": pl.String(),
    "answered_at": pl.Datetime("us", "UTC"),
    "model_version": pl.String(),
    "role": pl.String(),
    "served": pl.Boolean(),
    "status": pl.String(),
    "capacity_ah": pl.Float64(),
    "capacity_low_ah": pl.Float64(),
    "capacity_high_ah": pl.Float64(),
    "label_ah": pl.Float64(),
}
"""Columns of `Joined.rows`; `label` is the row of `LabelTable.table`."""

_ANSWERED: Final = tuple(name for name in JOINED if not name.startswith("label"))
_TIME: Final = JOINED["answered_at"]
_ONE_US: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """The labels that count; `label_table` yields it.

    Args:
        table: `asset_id`, `measured_at`, `received_at`, `capacity_ah`, and from when to when (both
            ends inside) predictions belong to it, `from_at` and `to_at`; by asset and time.
        tolerance: how far from its predictions a label may lie.
        repeated: labels that said again what another one says.
        corrected: labels for which a later one came, for the same asset and time.
        contradicting: those left out because another one contradicts them: `asset_id`,
            `measured_at`, `received_at`, `capacity_ah`, by asset and time.
        unusable: rows without asset, time, or a capacity above 0.
        clock_jumps: labels that were measured after they were received.
    """

    table: pl.DataFrame
    tolerance: timedelta
    repeated: int
    corrected: int
    contradicting: pl.DataFrame
    unusable: int
    clock_jumps: int

    @property
    def n(self) -> int:
        """How many labels count."""
        return self.table.height


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A chunk of the log beside its labels.

    Args:
        rows: the predictions that have one, as `JOINED` says, and further columns asked for.
        matched: (labels,), which labels have a prediction in this chunk.
        seen: (labels,), those whose asset has any prediction in this chunk, near in time or not.
    """

    rows: pl.DataFrame
    matched: NDArray[np.bool_]
    seen: NDArray[np.bool_]


def label_table(
    labels: pl.DataFrame,
    *,
    tolerance: timedelta,
    same_measurement: timedelta = SAME_MEASUREMENT,
    noise_share: float = NOISE_SHARE,
) -> LabelTable:
    """Settle which labels count and what each answers for.

    Args:
        labels: rows as `records.labels.LABEL_FRAME` has them, corrected ones among them or not;
            `label_id` is the order of arrival.
        tolerance: a label belongs to predictions no further away in time.
        same_measurement: labels of one asset no further apart are one measurement.
        noise_share: by how much labels of one measurement may differ, as a share of the largest.

    Raises:
        DataError: when a column is missing or of another type, or the tolerance is negative.
    """
    _check(labels, tuple(LABEL_FRAME), LABEL_FRAME, what="labels")
    if tolerance < timedelta(0):
        raise DataError(f"label tolerance is {tolerance}, expected 0 or more")
    capacity = pl.col("capacity_ah")
    usable = labels.filter(
        pl.all_horizontal(pl.col("asset_id", "measured_at", "received_at").is_not_null()),
        capacity.is_finite() & (capacity > 0),
    )
    timely = usable.filter(pl.col("measured_at") <= pl.col("received_at") + CLOCKS_DIFFER)
    place = ["asset_id", "measured_at"]
    in_order = timely.sort("label_id", maintain_order=True)
    told_once = in_order.unique([*place, "capacity_ah"], keep="first", maintain_order=True)
    last = told_once.unique(place, keep="last", maintain_order=True)
    measured = (
        last.with_row_index("arrival")
        .sort(place)
        .with_columns(
            begins=(
                (pl.col("measured_at") - pl.col("measured_at").shift() > same_measurement)
                | (pl.col("asset_id") != pl.col("asset_id").shift())
            ).fill_null(value=True)
        )
        .with_columns(measurement=pl.col("begins").cum_sum())
        .with_columns(
            agrees=(capacity.max() - capacity.min() <= noise_share * capacity.max()).over(
                "measurement"
            ),
            newest=(pl.col("arrival") == pl.col("arrival").max()).over("measurement"),
        )
    )
    kept = ["asset_id", "measured_at", "received_at", "capacity_ah"]
    agreeing = measured.filter("agrees")
    counting = agreeing.filter("newest").select(kept)
    return LabelTable(
        table=_with_spans(counting, tolerance),
        tolerance=tolerance,
        repeated=in_order.height - told_once.height + agreeing.height - counting.height,
        corrected=told_once.height - last.height,
        contradicting=measured.filter(~pl.col("agrees")).select(kept),
        unusable=labels.height - usable.height,
        clock_jumps=usable.height - timely.height,
    )


def counted(predictions: pl.DataFrame) -> pl.DataFrame:
    """The answers that are judged: those that went out, and a challenger's that only shadowed.

    Raises:
        DataError: when a column of `records.frames.FRAME` that is needed is missing.
    """
    _check(predictions, _ANSWERED, {}, what="predictions")
    return predictions.filter(
        pl.col("served") | (pl.col("role") == "challenger"),
        pl.col("capacity_ah").is_finite(),
    )


def join_labels(
    labels: LabelTable, predictions: pl.DataFrame, *, further: Sequence[str] = ()
) -> Joined:
    """Join a chunk of the log to the labels.

    Args:
        labels: those that count.
        predictions: rows as `PredictionLog.frames` yields them, in any order. Answers that are not
            `counted` are passed over.
        further: columns of the predictions that the joined rows have too.

    Raises:
        DataError: when a column is missing.
    """
    answers = counted(predictions).with_columns(pl.col("answered_at").cast(_TIME))
    spans = labels.table.with_row_index("label").select(
        "label", "asset_id", "from_at", "to_at", label_ah="capacity_ah"
    )
    found = (
        answers.sort("answered_at")
        .join_asof(
            spans.sort("from_at"),
            left_on="answered_at",
            right_on="from_at",
            by_left="vehicle_id",
            by_right="asset_id",
            check_sortedness=False,  # sorted as a whole, so within each asset
        )
        .filter(pl.col("answered_at") <= pl.col("to_at"))
        .select(*(pl.col(name).cast(kind) for name, kind in JOINED.items()), *further)
    )
    matched = np.zeros(labels.n, dtype=np.bool_)
    matched[found["label"].unique().to_numpy()] = True
    here = answers["vehicle_id"].unique()
    return Joined(found, matched, labels.table["asset_id"].is_in(here.implode()).to_numpy())


def _with_spans(labels: pl.DataFrame, tolerance: timedelta) -> pl.DataFrame:
    """From when to when each label is the nearest; halfway between two, the earlier one is."""
    at = pl.col("measured_at")
    before = at.shift().over("asset_id")
    after = at.shift(-1).over("asset_id")
    # durations are whole microseconds: halves are rounded down on both sides of a middle
    return labels.with_columns(
        from_at=pl.max_horizontal(at - tolerance, before + _half(at - before) + _ONE_US),
        to_at=pl.min_horizontal(at + tolerance, at + _half(after - at)),
    )


def _half(span: pl.Expr) -> pl.Expr:
    return (span.dt.total_microseconds() // 2).cast(pl.Duration("us"))


def _check(
    table: pl.DataFrame, names: tuple[str, ...], kinds: dict[str, Any], *, what: str
) -> None:
    """Hold a frame to the columns that it must have.

    Raises:
        DataError: naming what is missing or of another type.
    """
    if missing := [name for name in names if name not in table.columns]:
        raise DataError(
            f"{what} have no column {', '.join(missing)}; given "
            f"{', '.join(table.columns) or 'none'}; take them as the prediction log gives them"
        )
    for name, kind in kinds.items():
        if table.schema[name] != kind:
            raise DataError(f"{what}: column {name} is {table.schema[name]}, expected {kind}")

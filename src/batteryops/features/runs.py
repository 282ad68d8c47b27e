"""Brings samples into runs: each cycle's samples together, in time, numbered by an integer.

Grouping by a sorted integer is several times faster in Polars than by asset and cycle, and makes
each group a contiguous slice. A slice's sum depends on the slice alone, so that a cycle computed
by itself (serving) equals the same cycle computed among thousands (training) to the last bit.

The same promise forbids a view to divide by a constant: Polars does that to a column of one row by
division, to a longer one by multiplication with the reciprocal, and the last bits differ. Views
multiply by a constant factor instead.
"""

from dataclasses import dataclass

import polars as pl

from batteryops.schema import CYCLE_KEY, FEATURE_KEY, Kind

_CHANNELS = ("time_s", "voltage_v", "current_a", "temperature_c")


@dataclass(frozen=True, slots=True)
class Runs:
    """Samples of one kind of cycle, in runs.

    Args:
        samples: `run` (UInt32 from 0, ascending and flagged as sorted), `time_s`, `voltage_v`,
            `current_a`, `temperature_c`; ascending in time within a run; NaN is null.
        keys: one row per run, in the order of `run`: `run`, `asset_id`, `op_index`.
    """

    samples: pl.DataFrame
    keys: pl.DataFrame

    def table(self, *parts: pl.DataFrame) -> pl.DataFrame:
        """Join tables with one row per run onto the keys; a feature table in its order.

        Args:
            parts: tables with a column `run`; a run that is missing from one gets nulls.
        """
        table = self.keys
        for part in parts:
            table = table.join(part, on="run", how="left")
        return table.drop("run").sort(FEATURE_KEY)


def in_runs(samples: pl.DataFrame, kind: Kind) -> Runs:
    """The samples of cycles of one kind, in runs.

    Samples that already stand together by cycle and strictly ascend in time, as every reader
    yields them, are not sorted again. Others are sorted by asset, cycle and time, and by the
    measured values where times are equal, so that the result never depends on the given order.

    Args:
        samples: rows as `schema.SAMPLES` declares them, in any order.
        kind: the kind of cycle to keep.
    """
    rows = (
        samples.lazy()  # columns that nobody needs are not filtered
        .filter(pl.col("kind") == kind)
        .select(*CYCLE_KEY, pl.col(_CHANNELS).fill_nan(None))
        .collect()
        .rechunk()
    )
    runs = _number(rows)
    if not _stands_in_order(rows, runs):
        rows = rows.sort(*CYCLE_KEY, *_CHANNELS)
        runs = _number(rows)
    return runs


def _number(rows: pl.DataFrame) -> Runs:
    """Number the stretches of rows that belong to one cycle."""
    run = rows.select(run=pl.struct(CYCLE_KEY).rle_id()).to_series().set_sorted()
    first = rows.select(
        pl.col("asset_id"), pl.col("cycle_index").alias("op_index"), run=run
    ).filter(run.ne_missing(run.shift()))
    return Runs(
        samples=rows.select(run, *_CHANNELS),
        keys=first.select("run", *FEATURE_KEY),
    )


def _stands_in_order(rows: pl.DataFrame, runs: Runs) -> bool:
    """Whether each cycle is one stretch of rows whose times strictly ascend."""
    time, run = pl.col("time_s"), pl.col("run")
    ascends = (time > time.shift()) | run.ne_missing(run.shift())
    return (
        not runs.keys.select(FEATURE_KEY).is_duplicated().any()
        and rows["time_s"].null_count() == 0
        and bool(runs.samples.select(ascends.all()).item())
    )

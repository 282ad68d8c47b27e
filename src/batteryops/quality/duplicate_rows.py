"""Rows of a feature table that are there twice: by key, or by content under another key."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from batteryops.quality.feature_schema import ROW
from batteryops.quality.report import REPEATED_ROW, CheckResult
from batteryops.quality.verdicts import RowCheck, Verdict, nothing
from batteryops.schema import FEATURE_KEY, LABEL
from batteryops.settings import QualitySettings

KEY: Final = list(FEATURE_KEY)

MIN_CONTENT: Final = 3
"""Rows of fewer values than this can well be equal without being one record."""


def duplicate_verdicts(
    rows: pl.DataFrame, failures: pl.DataFrame, values: Sequence[str], limits: QualitySettings
) -> list[Verdict]:
    """Copies by key and by content; their joint share is held against the limit.

    Args:
        rows: key, values, and `row`, in an order of its own that does not depend on the source's.
        failures: what the schema found; its `key` rows occur more than once.
        values: the columns that hold numbers.
        limits: thresholds.
    """
    twice = failures.filter(pl.col("check") == "key").select(ROW, twice=True)
    marked = rows.join(twice, on=ROW, how="left").with_columns(
        versions=pl.struct(values).n_unique().over(KEY), times=pl.len().over(KEY)
    )
    repeated = RowCheck(
        REPEATED_ROW,
        hit=pl.col("twice") & (pl.col("versions") == 1) & ~pl.struct(KEY).is_first_distinct(),
        reason=pl.format("there {} times with equal values; the first one stays", "times"),
        says="rows that repeat another",
        value=pl.col("times"),
        limit=pl.lit(1.0),
    ).judge(marked)
    conflicting = RowCheck(
        "conflicting_rows",
        hit=pl.col("twice") & (pl.col("versions") > 1),
        reason=pl.format("there {} times with different values: none can be trusted", "times"),
        says="rows that contradict another of the same key",
        value=pl.col("times"),
        limit=pl.lit(1.0),
    ).judge(marked)
    contents = _same_content(rows, values)
    copies = int(marked.select(~pl.struct(KEY).is_first_distinct()).to_series().sum())
    share = (copies + contents.result.rows) / rows.height
    exceeded = share > 0 and share >= limits.max_duplicate_share
    total = CheckResult(
        "duplicates",
        None,
        "warn" if exceeded else "pass",
        share,
        limits.max_duplicate_share,
        copies + contents.result.rows,
        f"copies by key or content: {share:.2%} of rows (limit {limits.max_duplicate_share:.2%})",
        exceeded=exceeded,
    )
    return [repeated, conflicting, contents, Verdict(total, nothing())]


def _same_content(rows: pl.DataFrame, values: Sequence[str]) -> Verdict:
    features = [name for name in values if name != LABEL]
    filled = pl.sum_horizontal(pl.col(name).is_not_null() for name in features)
    first = (
        rows.filter(filled >= MIN_CONTENT)
        .with_columns(
            pl.col(name).first().over(features, order_by=ROW).alias(f"first_{name}") for name in KEY
        )
        .filter(
            (pl.col("first_asset_id") != pl.col("asset_id"))
            | (pl.col("first_op_index") != pl.col("op_index"))
        )
        .select(ROW, "first_asset_id", "first_op_index")
    )
    return RowCheck(
        "duplicate_content",
        hit=pl.col("first_asset_id").is_not_null(),
        reason=pl.format("all features equal those of {} {}", "first_asset_id", "first_op_index"),
        says="rows whose features all equal another row's",
    ).judge(rows.join(first, on=ROW, how="left"))

"""Did a discharge run to its end, and does its label say what the record says?"""

from collections.abc import Iterator
from typing import Final

import polars as pl

from batteryops.quality.report import FALSE_LABEL
from batteryops.quality.verdicts import RowCheck, rounded
from batteryops.schema import LABEL

IS_DISCHARGE: Final = pl.col("kind") == "discharge"

EARLY_END: Final = 1.25
"""A label is false when the voltage recovered and the record delivered this many times it."""

LABEL_TOLERANCE: Final = 0.02
"""Share by which a label may differ from the charge up to the cutoff; NASA's differ by 5e-5."""


def discharge_checks() -> Iterator[RowCheck]:
    """Checks on cycle facts: did the run fail, and can its label be true?

    A run failed when it never got under load, or when the load was cut before a usable charge was
    delivered. A label is false when the record itself says so: in the cold, a cell's voltage can
    dip below the cutoff at once and recover as the cell warms up, so that a capacity counted to
    the first dip is a tenth of what was delivered; and a record that was cut short above the
    cutoff has no capacity at all, though some publish zero.
    """
    unloaded = IS_DISCHARGE & (pl.col("current_a_min") >= -pl.col("load_a"))
    failed = IS_DISCHARGE & (pl.col("n") > 0) & (pl.col("delivered_ah") < pl.col("min_ah"))
    crashed = (unloaded | failed).fill_null(value=False)
    yield RowCheck(
        "crashed_run",
        hit=crashed,
        reason=pl.when(unloaded)
        .then(
            pl.format(
                "never got under load: the discharge current reached {} A",
                rounded(-pl.col("current_a_min"), 4),
            )
        )
        .otherwise(
            pl.format(
                "delivered {} Ah, then the load was off from {} s: no full discharge",
                rounded("delivered_ah", 4),
                rounded("load_end_s", 0),
            )
        ),
        says="discharges that failed before they delivered a usable charge",
        value=pl.when(unloaded).then(-pl.col("current_a_min")).otherwise("delivered_ah"),
        limit=pl.when(unloaded).then("load_a").otherwise("min_ah"),
    )
    label = pl.col("label_ah")
    early = pl.col("recovered") & (pl.col("delivered_ah") > EARLY_END * label)
    outside = ~label.is_between(pl.coalesce("min_ah", 0.0), pl.coalesce("max_ah", float("inf")))
    yield RowCheck(
        FALSE_LABEL,
        hit=IS_DISCHARGE & ~crashed & label.is_not_null() & (early | outside),
        reason=pl.when(early)
        .then(
            pl.format(
                "label {} Ah ends at {} s, where the voltage dipped below the cutoff; "
                "it recovered under load and the record delivered {} Ah",
                rounded(label, 4),
                rounded("cutoff_s", 0),
                rounded("delivered_ah", 4),
            )
        )
        .when(pl.col("ends_loaded") & ~pl.col("reached"))
        .then(
            pl.format(
                "label {} Ah of a record that ends under load at {} V, above the cutoff, "
                "with {} Ah delivered",
                rounded(label, 4),
                rounded("last_v", 3),
                rounded("delivered_ah", 4),
            )
        )
        .otherwise(
            pl.format(
                "label {} Ah is outside of what the asset can have; the record delivered {} Ah",
                rounded(label, 4),
                rounded(pl.col("delivered_ah").fill_null(0.0), 4),
            )
        ),
        says="labels that their own record contradicts",
        column=LABEL,
        value=label,
        limit=pl.when(early)
        .then("delivered_ah")
        .when(label > pl.col("max_ah"))
        .then("max_ah")
        .otherwise(pl.coalesce("min_ah", 0.0)),
    )
    yield RowCheck(
        "label_disagrees",
        hit=IS_DISCHARGE
        & pl.col("reached")
        & ~crashed
        & ~early
        & ~outside
        & ((pl.col("to_cutoff_ah") - label).abs() > LABEL_TOLERANCE * label),
        reason=pl.format(
            "label {} Ah, charge up to the cutoff {} Ah",
            rounded(label, 4),
            rounded("to_cutoff_ah", 4),
        ),
        says="labels that differ from the charge up to the cutoff",
        column=LABEL,
        status="warn",
    )

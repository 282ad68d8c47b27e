"""What raw cycles show, one row each: counts, extremes, charge delivered, how they ended."""

from collections.abc import Callable, Sequence
from typing import Final

import polars as pl

from batteryops.quality.units import largest_current_a
from batteryops.schema import Profile, Recording

MEASURED: Final = ("time_s", "voltage_v", "current_a", "temperature_c")
CHANNELS: Final = ("voltage_v", "current_a", "temperature_c")

LOAD_SHARE: Final = 0.01
"""Under load: more than this share of the largest mean current that the profile allows.

0.05 A for the 2 Ah cells, whose sensors read up to 0.006 A at rest and whose smallest load is 1 A.
"""
FIRST_SAMPLES: Final = 5  # where charge records hold their spurious sample
SECONDS_PER_HOUR: Final = 3600.0


def limits_of(asset_ids: Sequence[str], profile_of: Callable[[str], Profile]) -> pl.DataFrame:
    """What each asset's cycles are held against, one row per asset.

    Columns: `asset_id`, `load_a`, `cutoff_v`, `v_low`, `v_high`, `min_ah`, `max_ah` (the last two
    null where no nominal capacity is known).

    Raises:
        UnknownAssetError: for an asset without a profile.
    """
    rows = []
    for asset_id in asset_ids:
        profile = profile_of(asset_id)
        nominal = profile.nominal_capacity_ah
        rows.append(
            (
                asset_id,
                LOAD_SHARE * largest_current_a(profile),
                profile.cutoff_v,
                *profile.voltage_sample_v,
                None if nominal is None else profile.min_capacity_share * nominal,
                None if nominal is None else profile.capacity_range_share[1] * nominal,
            )
        )
    names = ("load_a", "cutoff_v", "v_low", "v_high", "min_ah", "max_ah")
    schema = {"asset_id": pl.String(), **dict.fromkeys(names, pl.Float64())}
    return pl.DataFrame(rows, schema=schema, orient="row")


def cycle_facts(recording: Recording, limits: pl.DataFrame) -> pl.DataFrame:
    """One row per cycle with what its samples show.

    The charge delivered is the trapezoidal integral of the discharge current over the record, and
    `to_cutoff_ah` the part of it up to the first sample under load below the cutoff voltage: NASA's
    capacity by definition. `recovered` says that the voltage rose above the cutoff again while
    still under load, so that this first sample was no end of discharge.

    Args:
        recording: raw cycles; samples of a cycle in the order they were taken.
        limits: as `limits_of` gives them.

    Returns:
        `asset_id`, `op_index`, `kind`, `capacity_ah`, the limits, and the facts; cycles that occur
        twice appear once, cycles without samples have n = 0 and null facts.
    """
    facts = (
        recording.samples.lazy()
        .join(limits.lazy(), on="asset_id", how="left", maintain_order="left")
        .with_columns(_flaws())
        .with_columns(_usable(name) for name in MEASURED)
        .with_columns(loaded=pl.col("current_a") < -pl.col("load_a"))
        .group_by("asset_id", "cycle_index")
        .agg(*_counts(), *_extremes(), *_discharge())
        .rename({"cycle_index": "op_index"})
        .collect()
    )
    cycles = recording.cycles.select(
        "asset_id",
        pl.col("cycle_index").alias("op_index"),
        "kind",
        pl.col("capacity_ah").alias("label_ah"),
    ).unique(("asset_id", "op_index"), keep="any")
    joined = cycles.join(facts, on=("asset_id", "op_index"), how="full", coalesce=True)
    return (
        joined.join(limits, on="asset_id", how="left")
        .with_columns(pl.col("n").fill_null(0), known=pl.col("kind").is_not_null())
        .with_columns(recorded=(pl.col("n") > 0).any().over("asset_id", "kind"))
        .sort("asset_id", "op_index")
    )


def _flaws() -> list[pl.Expr]:
    return [
        (~pl.col(name).is_finite().fill_null(value=False)).alias(f"{name}_missing")
        for name in MEASURED
    ]


def _usable(name: str) -> pl.Expr:
    return pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)


def _counts() -> list[pl.Expr]:
    step = pl.col("time_s").diff()
    content = pl.struct(MEASURED).hash(seed=0)
    return [
        pl.len().cast(pl.Int64).alias("n"),
        *(pl.col(f"{name}_missing").sum() for name in MEASURED),
        step.min().alias("step_min_s"),
        (step == 0).sum().alias("repeats"),
        content.sum().alias("content_sum"),
        content.min().alias("content_min"),
    ]


def _extremes() -> list[pl.Expr]:
    return [
        *(pl.col(name).min().alias(f"{name}_min") for name in CHANNELS),
        *(pl.col(name).max().alias(f"{name}_max") for name in CHANNELS),
        (~pl.col("voltage_v").is_between("v_low", "v_high")).sum().alias("impossible"),
        pl.col("current_a").head(FIRST_SAMPLES).min().alias("first_current_a"),
    ]


def _discharge() -> list[pl.Expr]:
    current = -(pl.col("current_a") + pl.col("current_a").shift()) / 2
    charge = current.clip(lower_bound=0) * pl.col("time_s").diff() / SECONDS_PER_HOUR
    under_load = pl.col("loaded").fill_null(value=False)
    below = (under_load & (pl.col("voltage_v") < pl.col("cutoff_v"))).fill_null(value=False)
    passed = below.cum_max()
    above = (under_load & (pl.col("voltage_v") >= pl.col("cutoff_v"))).fill_null(value=False)
    return [
        charge.sum().alias("delivered_ah"),
        charge.filter(~passed.shift(fill_value=False)).sum().alias("to_cutoff_ah"),
        below.any().alias("reached"),
        (passed & above).any().alias("recovered"),
        pl.col("time_s").filter(below).first().alias("cutoff_s"),
        pl.col("time_s").filter(under_load).last().alias("load_end_s"),
        under_load.last().alias("ends_loaded"),
        pl.col("voltage_v").last().alias("last_v"),
    ]

"""May these raw cycles be used? Checks over the records themselves, before any feature."""

from collections.abc import Callable, Iterator
from typing import Final

import polars as pl

from batteryops.errors import DataError
from batteryops.quality.cycle_facts import CHANNELS, MEASURED, cycle_facts, limits_of
from batteryops.quality.discharge_checks import IS_DISCHARGE, discharge_checks
from batteryops.quality.report import (
    NO_LABEL,
    NO_LABEL_REASON,
    QualityReport,
    build_report,
)
from batteryops.quality.sentinels import is_sentinel
from batteryops.quality.units import UnitSuspicion, suspect_units, turned_current
from batteryops.quality.verdicts import (
    RowCheck,
    Verdict,
    collect,
    rounded,
    unit_verdicts,
    with_share,
)
from batteryops.schema import CYCLE_KEY, CYCLES, LABEL, Profile, Recording
from batteryops.settings import QualitySettings

SERIES: Final = ("discharge", "charge")
"""Kinds whose record is a series of samples; impedance has none, a trip may be summarised."""

MOST: Final = 0.5  # of an asset's discharges; single runs may have failed
QUANTILE_IN_USE: Final = 0.9  # of the current's size: above the rests in a record

QUANTITY: Final = {"voltage_v": "voltage", "current_a": "current", "temperature_c": "temperature"}


def check_recording(
    recording: Recording, profile_of: Callable[[str], Profile], limits: QualitySettings
) -> QualityReport:
    """Judge raw cycles.

    | check | status | what it finds |
    |---|---|---|
    | `unit` | quarantine, refuses | all values of an asset in mV, mA or K, or discharge positive |
    | `missing` | quarantine, refuses | null, NaN or infinity in samples; the share of each column |
    | `duplicate_cycle` | quarantine, refuses | one index twice, or one record under two |
    | `unlisted_cycle` | quarantine | samples of a cycle that the table of cycles lacks |
    | `stub` | quarantine | a record with fewer than `min_samples` samples |
    | `time_order` | quarantine | time that runs backwards |
    | `sentinel` | quarantine | published numbers that mean "no measurement" |
    | `impossible_voltage` | quarantine | samples outside of the profile's window |
    | `crashed_run` | quarantine | a discharge never under load, or that delivered next to nothing |
    | `false_label` | quarantine for training | a label that the record itself contradicts |
    | `label` | quarantine for training | a discharge without a label |
    | `label_disagrees` | warn | a label that is not the charge up to the cutoff |
    | `interrupted` | warn | a discharge whose record ends under load, above the cutoff |
    | `repeated_time`, `stale_sensor`, `spurious_start`, `no_record` | warn | as they say |

    Args:
        recording: raw cycles; the samples of each cycle in the order they were taken.
        profile_of: the profile of an asset.
        limits: thresholds.

    Raises:
        UnknownAssetError: for an asset without a profile.
        DataError: when there is no cycle.
    """
    if recording.cycles.is_empty() and recording.samples.is_empty():
        raise DataError(f"{recording.source} holds no cycles; expected at least one")
    assets = sorted({*recording.cycles["asset_id"], *recording.samples["asset_id"]})
    facts = cycle_facts(recording, limits_of(assets, profile_of))
    judged = _judged(facts)
    wrong_units = suspect_units(_typical(recording), profile_of) + _positive_discharges(facts)
    verdicts = [
        *unit_verdicts(judged, wrong_units, QUANTITY),
        *_missing(judged, limits),
        _duplicates(recording, judged, limits),
        *(check.judge(judged) for check in _record_checks(limits)),
        *_sentinels(recording, judged, profile_of, limits),
        *(check.judge(_in_right_units(judged, wrong_units)) for check in _electrical_checks()),
        *(check.judge(judged) for check in _warnings(limits)),
        _no_record(facts),
    ]
    checks, quarantine = collect(verdicts)
    return build_report(checks, quarantine, judged.height, limits.max_quarantined_share)


def _judged(facts: pl.DataFrame) -> pl.DataFrame:
    """Cycles of the kinds that this recording holds records of; all when it holds none."""
    recorded = facts.filter(pl.col("recorded"))
    return facts if recorded.is_empty() else recorded


def _typical(recording: Recording) -> pl.DataFrame:
    finite = {name: pl.col(name).filter(pl.col(name).is_finite()) for name in CHANNELS}
    return recording.samples.group_by("asset_id").agg(
        voltage=finite["voltage_v"].median(),
        current=finite["current_a"].abs().quantile(QUANTILE_IN_USE),
        temperature=finite["temperature_c"].median(),
    )


def _positive_discharges(facts: pl.DataFrame) -> list[UnitSuspicion]:
    """Assets most of whose discharges only ever show a current that charges."""
    flipped = (
        facts.filter(IS_DISCHARGE & (pl.col("n") > 0))
        .group_by("asset_id")
        .agg(
            turned=(
                (pl.col("current_a_max") > pl.col("load_a"))
                & (pl.col("current_a_min") > -pl.col("load_a"))
            )
            .fill_null(value=False)
            .mean()
            > MOST,
            value=pl.col("current_a_max").median(),
        )
        .filter("turned")
        .sort("asset_id")
    )
    return [turned_current(*row) for row in flipped.select("asset_id", "value").iter_rows()]


def _in_right_units(judged: pl.DataFrame, suspicions: list[UnitSuspicion]) -> pl.DataFrame:
    """Cycles whose voltage and current can be held against limits."""
    wrong = {s.asset_id for s in suspicions if s.quantity != "temperature"}
    return judged.filter(~pl.col("asset_id").is_in(sorted(wrong)))


def _missing(judged: pl.DataFrame, limits: QualitySettings) -> Iterator[Verdict]:
    samples = int(judged["n"].sum())
    for column in MEASURED:
        count = pl.col(f"{column}_missing")
        check = RowCheck(
            "missing",
            hit=count > 0,
            reason=pl.format("{} of {} samples lack a finite " + column, count, "n"),
            says=f"cycles that lack values of {column}",
            column=column,
            value=count / pl.col("n"),
            limit=pl.lit(0.0),
        )
        missing = int(judged[f"{column}_missing"].sum())
        share = missing / samples if samples else 0.0
        yield with_share(check.judge(judged), share, limits.max_missing_share, "samples")


def _duplicates(recording: Recording, judged: pl.DataFrame, limits: QualitySettings) -> Verdict:
    key = ["asset_id", "op_index"]
    twice = (
        recording.cycles.rename({"cycle_index": "op_index"})
        .group_by(key)
        .agg(times=pl.len().cast(pl.Int64))
        .filter(pl.col("times") > 1)
    )
    content = ("kind", "n", "content_sum", "content_min")
    copies = (
        judged.filter(pl.col("n") >= limits.min_samples)
        .sort(key)
        .with_columns(pl.col(name).first().over(content).alias(f"first_{name}") for name in key)
        .filter(
            (pl.col("first_asset_id") != pl.col("asset_id"))
            | (pl.col("first_op_index") != pl.col("op_index"))
        )
        .select(*key, "first_asset_id", "first_op_index")
    )
    rows = judged.select(*key).join(twice, on=key, how="left").join(copies, on=key, how="left")
    verdict = RowCheck(
        "duplicate_cycle",
        hit=pl.col("times").is_not_null() | pl.col("first_asset_id").is_not_null(),
        reason=pl.coalesce(
            pl.format("listed {} times: its samples cannot be told apart", "times"),
            pl.format("same record as {} {}", "first_asset_id", "first_op_index"),
        ),
        says="cycles that are there twice",
        value=pl.col("times"),
        limit=pl.lit(1.0),
    ).judge(rows)
    share = verdict.result.rows / rows.height if rows.height else 0.0
    return with_share(verdict, share, limits.max_duplicate_share, "cycles")


def _record_checks(limits: QualitySettings) -> Iterator[RowCheck]:
    yield RowCheck(
        "unlisted_cycle",
        hit=~pl.col("known"),
        reason=pl.lit("samples of a cycle that is not in the table of cycles"),
        says="cycles with samples that the table of cycles lacks",
        value=pl.col("n"),
    )
    yield RowCheck(
        "stub",
        hit=pl.col("kind").is_in(SERIES) & (pl.col("n") < limits.min_samples),
        reason=pl.format("stub record of {} samples", "n"),
        says=f"records of fewer than {limits.min_samples} samples",
        value=pl.col("n"),
        limit=pl.lit(float(limits.min_samples)),
    )
    yield RowCheck(
        "time_order",
        hit=pl.col("step_min_s") < 0,
        reason=pl.format("time runs backwards by {} s", rounded(-pl.col("step_min_s"), 3)),
        says="records whose time runs backwards",
        column="time_s",
        value=pl.col("step_min_s"),
        limit=pl.lit(0.0),
    )


def _sentinels(
    recording: Recording,
    judged: pl.DataFrame,
    profile_of: Callable[[str], Profile],
    limits: QualitySettings,
) -> Iterator[Verdict]:
    cycles = recording.cycles
    further = [n for n, t in cycles.schema.items() if t.is_float() and n not in CYCLES]
    for table, column in [
        *((recording.samples, name) for name in CHANNELS),
        *((cycles, name) for name in (LABEL, "ambient_temperature_c", *further)),
    ]:
        in_samples = table is recording.samples
        found = _sentinel_cycles(table, column, profile_of, limits)
        rows = judged.select("asset_id", "op_index").join(
            found, on=("asset_id", "op_index"), how="left"
        )
        yield RowCheck(
            "sentinel",
            hit=pl.col("count").is_not_null(),
            reason=pl.format(
                "{} values of " + column + ' such as {} mean "no measurement"', "count", "mark"
            ),
            says=f'cycles with {column} values that mean "no measurement"',
            column=column,
            # what was measured is lost; a column beside it is just unknown for that cycle
            status="quarantine" if in_samples or column == LABEL else "warn",
            value=pl.col("mark"),
        ).judge(rows)


def _sentinel_cycles(
    table: pl.DataFrame,
    column: str,
    profile_of: Callable[[str], Profile],
    limits: QualitySettings,
) -> pl.DataFrame:
    """Cycles with such values: `asset_id`, `op_index`, `count`, and one of them as `mark`."""
    sizes = pl.Series(sorted({abs(value) for value in limits.sentinels}), dtype=pl.Float64)
    suspects = table.select(*CYCLE_KEY, pl.col(column).cast(pl.Float64)).filter(
        pl.col(column).abs().is_in(sizes.implode())
    )
    parts = [
        part.filter(is_sentinel(column, limits.sentinels, profile_of(str(asset))))
        for (asset,), part in suspects.partition_by("asset_id", as_dict=True).items()
    ]
    return (
        pl.concat([suspects.clear(), *parts])
        .rename({"cycle_index": "op_index"})
        .group_by("asset_id", "op_index")
        .agg(count=pl.len(), mark=pl.col(column).min())
    )


def _electrical_checks() -> Iterator[RowCheck]:
    worst = (
        pl.when(pl.col("voltage_v_max") > pl.col("v_high"))
        .then(pl.col("voltage_v_max"))
        .otherwise(pl.col("voltage_v_min"))
    )
    nearest = pl.when(worst > pl.col("v_high")).then(pl.col("v_high")).otherwise(pl.col("v_low"))
    yield RowCheck(
        "impossible_voltage",
        hit=pl.col("impossible") > 0,
        reason=pl.format(
            "{} of {} samples have an impossible voltage, the worst {} V",
            "impossible",
            "n",
            rounded(worst, 3),
        ),
        says="records with voltages that the asset cannot have",
        column="voltage_v",
        value=worst,
        limit=nearest,
    )
    yield from discharge_checks()


def _warnings(limits: QualitySettings) -> Iterator[RowCheck]:
    yield RowCheck(
        NO_LABEL,
        hit=IS_DISCHARGE & pl.col("label_ah").is_null(),
        reason=pl.lit(NO_LABEL_REASON),
        says="discharges without a label (they cannot train, but can be predicted)",
        column=LABEL,
    )
    yield RowCheck(
        "interrupted",
        hit=IS_DISCHARGE & pl.col("ends_loaded") & ~pl.col("reached"),
        reason=pl.format("ends under load at {} V", rounded("last_v", 3)),
        says="discharge records that end under load, above the cutoff",
        status="warn",
    )
    yield RowCheck(
        "repeated_time",
        hit=pl.col("repeats") > 0,
        reason=pl.format("{} samples repeat a time", "repeats"),
        says="records with several samples at one time",
        column="time_s",
        status="warn",
    )
    for column in ("voltage_v", "temperature_c"):
        low, high = pl.col(f"{column}_min"), pl.col(f"{column}_max")
        yield RowCheck(
            "stale_sensor",
            hit=pl.col("kind").is_in(SERIES) & (pl.col("n") >= limits.min_samples) & (low == high),
            reason=pl.format(column + " is {} throughout", low),
            says=f"records with one and the same {column} throughout",
            column=column,
            status="warn",
        )
    yield RowCheck(
        "spurious_start",
        hit=(pl.col("kind") == "charge") & (pl.col("first_current_a") < -pl.col("load_a")),
        reason=pl.format("discharge current {} A at the start", "first_current_a"),
        says="charge records that start with a discharge current (drop those samples)",
        column="current_a",
        status="warn",
    )


def _no_record(facts: pl.DataFrame) -> Verdict:
    """Cycles that are listed, of a kind that this recording holds no records of."""
    bare = pl.col("kind").is_in(SERIES) & ~pl.col("recorded")
    return RowCheck(
        "no_record",
        hit=bare,
        reason=pl.lit("listed without a record"),
        says="discharges or charges listed without a record in this source",
        status="warn",
    ).judge(facts)

"""What a source says of its vehicles' lives: one row per cycle, the same form for every source."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.files import read_table, table_columns
from batteryops.lifecycle.preparation import refuse_wrong_units
from batteryops.lifecycle.sources import PUBLISHED, open_source
from batteryops.quality.checks import check_recording
from batteryops.quality.report import TRAINING_ONLY
from batteryops.schema import LABEL, Kind, Recording
from batteryops.settings import Settings
from batteryops.telemetry.canonical import SUFFIXES
from batteryops.telemetry.monthly_capacity import looks_like_months, read_monthly_capacity
from batteryops.telemetry.trip_months import months_of_trips

Unit = Literal["months", "100 cycles"]

EU500: Final = "eu500"
"""Name of the published fleet of monthly capacities."""

FILES: Final = {EU500: Path("fleet") / "deng2023_eu500" / "monthly_capacity_digitised.csv"}
"""Named sources that only the scorecard reads, and where they stand under `Settings.data`."""

MONTHLY_NAME: Final = "chengdu_monthly_features.csv"
"""Beside a trip table: the published means that tell the month of each trip."""

KINDS_READ: Final[tuple[Kind, ...]] = ("discharge", "trip")
DAYS_PER_MONTH: Final = 30.4375
LOAD_SHARE: Final = 0.05  # of a cycle's largest current: below it the record rests

LIFE: Final = pl.Schema(
    {
        "asset_id": pl.String(),
        "age": pl.Float64(),  # since the asset's first cycle, in `Life.unit`
        "soh": pl.Float64(),  # measured; null where it was not, or cannot be believed
        "rise_k": pl.Float64(),  # as `Life.rise` says
        "usable": pl.Boolean(),  # nothing speaks against the record
    }
)


@dataclass(frozen=True, slots=True)
class Life:
    """Cycles of a fleet.

    Args:
        table: rows as `LIFE` declares them, and the columns `loads`; sorted by asset and age.
        unit: of the age.
        loads: what drives the temperature besides age.
        rise: what `rise_k` is, in words; empty where there is none.
        source: where it was read from.
        notes: what a reader must know.
    """

    table: pl.DataFrame
    unit: Unit
    loads: tuple[str, ...]
    rise: str
    source: str
    notes: tuple[str, ...] = ()


def read_life(source: str, settings: Settings, *, months: Path | None = None) -> Life:
    """Lives from a source by name or path.

    Args:
        source: `eu500`, a table of monthly capacities, or anything that `open_source` takes.
        settings: where data is, and which asset has which profile.
        months: published monthly means of a trip table; None takes the file of that name beside
            it, where there is one.

    Raises:
        DataError: the source cannot be read, or has neither discharges, trips nor capacities.
        UnknownAssetError: an asset without a profile.
    """
    file = Path(source)
    if source in FILES:
        if settings.data is None:
            raise DataError(f"source {source!r} stands under BATTERYOPS_DATA, which is not set")
        file = settings.data / FILES[source]
    if source in FILES or (
        file.suffix in SUFFIXES and file.is_file() and looks_like_months(table_columns(file))
    ):
        return life_of_months(read_monthly_capacity(file), settings, source=source)
    recording = open_source(source, settings, kinds=KINDS_READ)
    if (recording.cycles["kind"] == "discharge").any():  # they carry labels, trips do not
        return life_of_discharges(recording, settings)
    beside = months or _beside(source, settings)
    return life_of_trips(recording, settings, monthly=read_table(beside) if beside else None)


def life_of_discharges(recording: Recording, settings: Settings) -> Life:
    """Lives from discharges: health is the measured capacity, the rise that over the discharge.

    Loads are the effective current (heat grows with its square) and the temperature at the start.
    How long a discharge lasts is none: it is what ageing shortens.

    Raises:
        DataError: no discharges, or another unit than the canonical table's.
        UnknownAssetError: an asset without a profile.
    """
    cycles = recording.cycles.filter(pl.col("kind") == "discharge")
    if cycles.is_empty():
        raise DataError(f"{recording.source} has neither discharges nor trips to judge")
    report = check_recording(recording, settings.profile_of, settings.quality)
    refuse_wrong_units(report, recording.source)
    size = pl.col("current_a").abs()
    under_load = size > LOAD_SHARE * size.max()
    temperature = pl.col("temperature_c")
    facts = recording.samples.group_by("asset_id", "cycle_index", maintain_order=True).agg(
        rise_k=temperature.max() - temperature.first(),
        start_c=temperature.first(),
        effective_a=(pl.col("current_a").filter(under_load) ** 2).mean().sqrt(),
    )
    table = cycles.join(facts, on=["asset_id", "cycle_index"], how="left")
    untrue = report.quarantine.filter(pl.col("check") != "label")
    unsound = untrue.filter(~pl.col("check").is_in(sorted(TRAINING_ONLY)))
    table = table.with_columns(
        _nominal(recording.asset_ids, settings),
        true=~_among(table, untrue),
        usable=~_among(table, unsound),
    ).with_columns(soh=pl.when("true").then(pl.col(LABEL).fill_nan(None) / pl.col("nominal_ah")))
    return _life(
        table,
        loads=("effective_a", "start_c"),
        rise="highest temperature of a discharge above that at its start",
        source=recording.source,
        notes=(
            (
                "capacity as measured, at each discharge's own temperature and load: in the cold "
                "and under a high load the same battery gives less"
            ),
            *_unknown_nominal(recording.asset_ids, settings),
        ),
    )


def life_of_trips(
    recording: Recording, settings: Settings, *, monthly: pl.DataFrame | None = None
) -> Life:
    """Lives from trips: no capacity is measured, so that health and its trend are not known.

    Loads are depth, length and mean current of a trip, and how warm the pack was: trips of
    different seasons are not alike.

    Args:
        recording: of a trip table.
        settings: profiles and limits of quality.
        monthly: published monthly means; None takes the trips in their order, without dates.

    Raises:
        DataError: a column that trip tables have is missing, or the monthly means are of others.
    """
    cycles = recording.cycles.filter(pl.col("kind") == "trip")
    needed = ("delta_temperature_c", "dod_pct", "duration_s", "sentinel_columns")
    missing = [name for name in needed if name not in cycles.columns]
    if missing:
        raise DataError(
            f"{recording.source}: missing column {', '.join(missing)}; expected a trip table with "
            f"{', '.join(needed)}"
        )
    report = check_recording(recording, settings.profile_of, settings.quality)
    refuse_wrong_units(report, recording.source)
    means = recording.samples.group_by("asset_id", "cycle_index").agg(
        pl.col("current_a", "temperature_c").mean()
    )
    table = cycles.join(means, on=["asset_id", "cycle_index"], how="left")
    unsound = report.quarantine.filter(~pl.col("check").is_in(sorted(TRAINING_ONLY)))
    table = table.with_columns(
        soh=pl.lit(None, pl.Float64),
        rise_k="delta_temperature_c",
        usable=~_among(table, unsound) & pl.col("sentinel_columns").is_null(),
    )
    notes = ["no capacity is published for these trips: health and its trend are not known"]
    if monthly is None:
        notes.append("no dates: age is the order of the trips")
    else:
        dated = months_of_trips(cycles, monthly)
        table = table.drop("started_at").join(dated, on=["asset_id", "cycle_index"])
        table = table.with_columns(started_at=pl.col("month").cast(pl.Datetime("us")))
        notes.append(
            "trips have no date; dealt to months in the order of trip_id they repeat every "
            "published monthly mean, so that trip_id is chronological and the month is known"
        )
    notes.append(
        "the published temperature rise most likely is the difference between the hottest and the "
        "coolest probe; `fleet diagnose` says why"
    )
    return _life(
        table,
        loads=("dod_pct", "duration_s", "current_a", "temperature_c"),
        rise="published temperature rise of a trip, most likely the difference between probes",
        source=recording.source,
        notes=tuple(notes),
    )


def life_of_months(months: pl.DataFrame, settings: Settings, *, source: str) -> Life:
    """Lives from monthly capacities; nothing else is known of these vehicles.

    Months that the figure does not draw are left out: a straight line across a gap is no
    measurement.

    Args:
        months: as `read_monthly_capacity` yields them.
        settings: profiles.
        source: where they came from.

    Raises:
        DataError: no month is drawn.
        UnknownAssetError: an asset without a profile.
    """
    drawn = months.filter("drawn")
    if drawn.is_empty():
        raise DataError(f"{source}: no month of any vehicle is drawn, so nothing was measured")
    table = drawn.with_columns(
        _nominal(drawn["asset_id"].unique().sort().to_list(), settings)
    ).select(
        "asset_id",
        started_at=pl.col("month").cast(pl.Datetime("us")),
        cycle_index=pl.int_range(pl.len(), dtype=pl.Int32).over("asset_id"),
        soh=pl.col("capacity_ah") / pl.col("nominal_ah"),
        rise_k=pl.lit(None, pl.Float64),
        usable=pl.col("capacity_ah").is_not_null(),
    )
    first = table.group_by("asset_id").agg(pl.col("soh").drop_nulls().first())["soh"]
    notes = (
        (
            f"{months.height - drawn.height} of {months.height} months are points on a straight "
            "line of the published figure, and left out: a gap looks the same"
        ),
        (
            "SoH is a share of nominal capacity; the first measurements are already at "
            f"{np.nanmedian(first.to_numpy()):.0%} of it in the median vehicle"
        ),
    )
    return _life(table, loads=(), rise="", source=source, notes=notes)


def _life(
    table: pl.DataFrame, *, loads: tuple[str, ...], rise: str, source: str, notes: tuple[str, ...]
) -> Life:
    dated = table["started_at"].null_count() == 0
    unit: Unit = "months" if dated else "100 cycles"
    start = pl.col("started_at")
    age = (
        (start - start.min().over("asset_id")).dt.total_seconds() / (86_400 * DAYS_PER_MONTH)
        if dated
        else pl.col("cycle_index").rank("ordinal").over("asset_id").cast(pl.Float64) / 100 - 0.01
    )
    shaped = (
        table.with_columns(age=age)
        .select(
            *(pl.col(name).cast(dtype) for name, dtype in LIFE.items()),
            *(pl.col(name).cast(pl.Float64) for name in loads),
        )
        .sort("asset_id", "age", maintain_order=True)
    )
    return Life(shaped, unit, loads, rise, source, notes)


def _among(table: pl.DataFrame, rows: pl.DataFrame) -> pl.Series:
    """Whether each cycle stands among quarantine rows."""
    marked = rows.select("asset_id", cycle_index="op_index").unique().with_columns(found=True)
    return table.join(marked, on=["asset_id", "cycle_index"], how="left", maintain_order="left")[
        "found"
    ].fill_null(value=False)


def _nominal(assets: list[str], settings: Settings) -> pl.Expr:
    return (
        pl.col("asset_id")
        .replace_strict(_capacities(assets, settings), return_dtype=pl.Float64)
        .alias("nominal_ah")
    )


def _capacities(assets: list[str], settings: Settings) -> Mapping[str, float | None]:
    return {asset: settings.profile_of(asset).nominal_capacity_ah for asset in assets}


def _unknown_nominal(assets: list[str], settings: Settings) -> tuple[str, ...]:
    unknown = [name for name, ah in _capacities(assets, settings).items() if ah is None]
    if not unknown:
        return ()
    return (f"no nominal capacity, so no health, of {', '.join(unknown)}",)


def _beside(source: str, settings: Settings) -> Path | None:
    table = Path(source)
    if source in PUBLISHED and settings.data is not None:
        table = settings.data / PUBLISHED[source]
    beside = table.with_name(MONTHLY_NAME)
    return beside if table.is_file() and beside.is_file() else None

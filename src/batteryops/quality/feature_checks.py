"""May this feature table be used? The source system's checks on one row per cycle."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from batteryops.errors import DataError
from batteryops.quality.cycle_facts import LOAD_SHARE
from batteryops.quality.duplicate_rows import duplicate_verdicts
from batteryops.quality.feature_schema import ROW, FeatureSchema
from batteryops.quality.report import (
    FALSE_LABEL,
    NO_LABEL,
    NO_LABEL_REASON,
    CheckResult,
    QualityReport,
    build_report,
)
from batteryops.quality.sentinels import is_sentinel
from batteryops.quality.units import (
    UnitSuspicion,
    largest_current_a,
    suspect_units,
    turned_current,
)
from batteryops.quality.verdicts import (
    RowCheck,
    Verdict,
    collect,
    nothing,
    rounded,
    unit_verdicts,
    with_share,
)
from batteryops.schema import FEATURE_KEY, LABEL, Profile, conform
from batteryops.settings import QualitySettings


@dataclass(frozen=True, slots=True)
class MeanColumns:
    """The columns of a feature table that hold means over the cycle; None where it has none.

    Args:
        voltage: mean voltage of the asset in V.
        current: mean current in A, negative = discharge.
        temperature: mean temperature in degC.
    """

    voltage: str | None
    current: str | None
    temperature: str | None

    @property
    def quantities(self) -> dict[str, str]:
        """Column names and the quantities that they hold."""
        named = {
            self.voltage: "voltage",
            self.current: "current",
            self.temperature: "temperature",
        }
        return {column: quantity for column, quantity in named.items() if column is not None}

    def windows(self, profile: Profile) -> dict[str, tuple[float, float]]:
        """The profile's window of each column."""
        of = {
            "voltage": profile.voltage_mean_v,
            "current": profile.current_mean_a,
            "temperature": profile.temperature_mean_c,
        }
        return {column: of[quantity] for column, quantity in self.quantities.items()}


def check_features(
    table: pl.DataFrame,
    profile_of: Callable[[str], Profile],
    limits: QualitySettings,
    columns: MeanColumns,
    required: Sequence[str],
) -> QualityReport:
    """Judge a feature table.

    | check | status | what it finds |
    |---|---|---|
    | `unit` | quarantine, refuses | an asset's means in mV, mA, K, or discharge positive |
    | `missing` | quarantine, refuses | a required column or a mean without a value |
    | `missing` | warn | other columns of which too large a share is missing |
    | `finite` | quarantine | infinity |
    | `range` | quarantine | means outside of the windows of the asset's profile |
    | `sentinel` | quarantine, else warn | "no measurement" in required columns, in others |
    | `repeated_row` | quarantine | a key twice with equal values; the first row stays |
    | `conflicting_rows` | quarantine | a key twice with different values; none stays |
    | `duplicate_content` | quarantine | the features of another row under another key |
    | `duplicates` | refuses | the share of copies |
    | `outlier` | warn | share beyond `outlier_sigma`: the ends of ageing are real, nothing goes |
    | `label`, `false_label` | quarantine for training | no label, or one the asset cannot have |

    Args:
        table: one row per cycle: `asset_id`, `op_index` and numbers. Judged are floating-point
            columns, those in `columns` and those required; NaN counts as missing.
        profile_of: the profile of an asset.
        limits: thresholds.
        columns: which columns hold the means.
        required: columns without which a row is of no use. The label may be among them; rows
            without one are set aside for training, and their share has no limit.

    Raises:
        UnknownAssetError: for an asset without a profile.
        DataError: for an empty table, a missing column, or one of another type.
    """
    if table.is_empty():
        raise DataError("feature table has no rows; expected one per cycle")
    means = columns.quantities
    values = _values(table, (*means, *required))
    rows = _tidy(table, values)
    failures = FeatureSchema(values, {}).failures(rows)
    profiles = {asset: profile_of(asset) for asset in sorted(rows["asset_id"].unique())}
    suspicions = _suspicions(rows, columns, profiles)
    needed = {*means, *required}
    verdicts = [
        *unit_verdicts(rows, suspicions, means),
        *_missing(rows, values, needed, limits),
        _infinite(rows, failures),
        *_ranges(rows, columns, profiles, suspicions),
        *_sentinels(rows, values, needed, profiles, limits),
        *duplicate_verdicts(rows, failures, values, limits),
        *_outliers(rows, values, profiles, limits),
        *_labels(rows, profiles),
    ]
    checks, quarantine = collect(verdicts)
    return build_report(checks, quarantine.unique(), rows.height, limits.max_quarantined_share)


def _values(table: pl.DataFrame, named: Sequence[str]) -> list[str]:
    measured = [name for name, dtype in table.schema.items() if dtype.is_float()]
    return list(dict.fromkeys((*measured, *named)))


def _tidy(table: pl.DataFrame, values: Sequence[str]) -> pl.DataFrame:
    """Key and values in one order whatever the table's, NaN as null, rows numbered."""
    conform(table, pl.Schema({"asset_id": pl.String()}), what="feature table")
    schema = table.schema
    numbers = [name for name in values if name in schema and schema[name].is_numeric()]
    rows = table.select(name for name in (*FEATURE_KEY, *values) if name in schema).with_columns(
        pl.col(name).cast(pl.Float64).fill_nan(None) for name in numbers
    )
    if "op_index" in schema and schema["op_index"].is_integer():
        rows = rows.with_columns(pl.col("op_index").cast(pl.Int32))
    return rows.sort(rows.columns, nulls_last=True).with_row_index(ROW)


def _suspicions(
    rows: pl.DataFrame, columns: MeanColumns, profiles: Mapping[str, Profile]
) -> list[UnitSuspicion]:
    nothing = pl.lit(None, pl.Float64)
    typical = {quantity: pl.col(column).median() for column, quantity in columns.quantities.items()}
    medians = rows.group_by("asset_id").agg(
        typical.get(quantity, nothing).alias(quantity)
        for quantity in ("voltage", "current", "temperature")
    )
    found = suspect_units(medians, profiles.__getitem__)
    turned = [
        turned_current(asset, current)
        for asset, current in medians.sort("asset_id").select("asset_id", "current").iter_rows()
        if current is not None and _is_turned(current, profiles[asset])
    ]
    return found + turned


def _is_turned(current: float, profile: Profile) -> bool:
    """A mean current that the profile forbids, and whose opposite it allows."""
    low, high = profile.current_mean_a
    return current > max(high, LOAD_SHARE * largest_current_a(profile)) and low <= -current <= high


def _missing(
    rows: pl.DataFrame, values: Sequence[str], needed: Collection[str], limits: QualitySettings
) -> Iterator[Verdict]:
    """The label is left to `_labels`: most cycles of a running fleet have none."""
    for column in values:
        if column == LABEL:
            continue
        check = RowCheck(
            "missing",
            hit=pl.col(column).is_null(),
            reason=pl.lit(f"{column} has no value"),
            says=f"rows without {column}",
            column=column,
            status="quarantine" if column in needed else "warn",
        )
        verdict = check.judge(rows)
        share = verdict.result.rows / rows.height
        if column in needed:
            yield with_share(verdict, share, limits.max_missing_share, "rows")
        else:
            yield Verdict(_warning(verdict.result, share, limits.max_missing_share), nothing())


def _warning(result: CheckResult, share: float, limit: float) -> CheckResult:
    """A share that is worth a look when it reaches the limit, and refuses nothing."""
    return CheckResult(
        result.name,
        result.column,
        "warn" if share > 0 and share >= limit else "pass",
        share,
        limit,
        result.rows,
        f"{result.message}; {share:.2%} of rows (limit {limit:.2%})",
    )


def _infinite(rows: pl.DataFrame, failures: pl.DataFrame) -> Verdict:
    found = (
        failures.filter(pl.col("check") == "finite")
        .group_by(ROW)
        .agg(names=pl.col("column").sort().str.join(", "))
    )
    return RowCheck(
        "finite",
        hit=pl.col("names").is_not_null(),
        reason=pl.format("infinite: {}", "names"),
        says="rows with infinite values",
    ).judge(rows.join(found, on=ROW, how="left"))


def _ranges(
    rows: pl.DataFrame,
    columns: MeanColumns,
    profiles: Mapping[str, Profile],
    suspicions: Sequence[UnitSuspicion],
) -> Iterator[Verdict]:
    """Each asset's means against its own profile; a column in a wrong unit is not judged twice."""
    judged = rows
    for column, quantity in columns.quantities.items():
        wrong = [s.asset_id for s in suspicions if s.quantity == quantity]
        judged = judged.with_columns(
            pl.when(~pl.col("asset_id").is_in(wrong)).then(column).alias(column)
        )
    found = pl.concat(
        _out_of_window(judged.filter(pl.col("asset_id").is_in(assets)), columns.windows(profile))
        for profile, assets in _by_profile(profiles)
    )
    for column in columns.quantities:
        hits = found.filter(pl.col("column") == column).drop("column")
        value = pl.col(column)
        yield RowCheck(
            "range",
            hit=pl.col("low").is_not_null(),
            reason=pl.format(
                column + " is {}, outside of {} to {}", rounded(value, 4), "low", "high"
            ),
            says=f"rows with {column} outside of their profile's window",
            column=column,
            value=value,
            limit=pl.when(value > pl.col("high")).then("high").otherwise("low"),
        ).judge(rows.join(hits, on=ROW, how="left"))


def _by_profile(profiles: Mapping[str, Profile]) -> list[tuple[Profile, list[str]]]:
    distinct = {profile.name: profile for profile in profiles.values()}
    return [
        (profile, [asset for asset, its in profiles.items() if its.name == name])
        for name, profile in distinct.items()
    ]


def _out_of_window(rows: pl.DataFrame, windows: Mapping[str, tuple[float, float]]) -> pl.DataFrame:
    """`row`, `column`, `low`, `high` of each value outside of its window."""
    bounds = pl.DataFrame(
        [(column, *window) for column, window in windows.items()],
        schema={"column": pl.String, "low": pl.Float64, "high": pl.Float64},
        orient="row",
    )
    failures = FeatureSchema(list(windows), windows).failures(rows)
    return failures.filter(pl.col("check") == "range").drop("check").join(bounds, on="column")


def _sentinels(
    rows: pl.DataFrame,
    values: Sequence[str],
    needed: Collection[str],
    profiles: Mapping[str, Profile],
    limits: QualitySettings,
) -> Iterator[Verdict]:
    for column in values:
        hit = pl.any_horizontal(
            pl.col("asset_id").is_in(assets) & is_sentinel(column, limits.sentinels, profile)
            for profile, assets in _by_profile(profiles)
        )
        yield RowCheck(
            "sentinel",
            hit=hit,
            reason=pl.format(column + ' is {}, which means "no measurement"', column),
            says=f'rows with a {column} that means "no measurement"',
            column=column,
            status="quarantine" if column in needed else "warn",
            value=pl.col(column),
        ).judge(rows)


def _outliers(
    rows: pl.DataFrame,
    values: Sequence[str],
    profiles: Mapping[str, Profile],
    limits: QualitySettings,
) -> Iterator[Verdict]:
    """Distance from the mean in standard deviations, among assets of one profile."""
    of = {asset: profile.name for asset, profile in profiles.items()}
    profile = pl.col("asset_id").replace_strict(of, return_dtype=pl.String)
    grouped = rows.with_columns(profile=profile)
    for column in values:
        value = pl.when(pl.col(column).is_finite()).then(pl.col(column))
        far = (value - value.mean().over("profile")).abs() > (
            limits.outlier_sigma * value.std().over("profile")
        )
        check = RowCheck(
            "outlier",
            hit=far,
            reason=pl.lit("far from the mean"),
            says=f"rows with {column} beyond {limits.outlier_sigma:g} sigma",
            column=column,
            status="warn",
        )
        result = check.judge(grouped).result
        share = result.rows / rows.height
        yield Verdict(_warning(result, share, limits.max_outlier_share), nothing())


def _labels(rows: pl.DataFrame, profiles: Mapping[str, Profile]) -> Iterator[Verdict]:
    if LABEL not in rows.columns:
        return
    capacities = pl.DataFrame(
        [(asset, *_capacity_window(profile)) for asset, profile in profiles.items()],
        schema={"asset_id": pl.String, "min_ah": pl.Float64, "max_ah": pl.Float64},
        orient="row",
    )
    judged = rows.join(capacities, on="asset_id", how="left", maintain_order="left")
    label = pl.col(LABEL)
    yield RowCheck(
        NO_LABEL,
        hit=label.is_null(),
        reason=pl.lit(NO_LABEL_REASON),
        says="rows without a label (they cannot train, but can be predicted)",
        column=LABEL,
    ).judge(judged)
    yield RowCheck(
        FALSE_LABEL,
        hit=~label.is_between("min_ah", "max_ah"),
        reason=pl.format(
            "label {} Ah is outside of {} to {} Ah: a failed run, or no full discharge",
            rounded(label, 4),
            "min_ah",
            "max_ah",
        ),
        says="labels that the asset cannot have",
        column=LABEL,
        value=label,
        limit=pl.when(label > pl.col("max_ah")).then("max_ah").otherwise("min_ah"),
    ).judge(judged)


def _capacity_window(profile: Profile) -> tuple[float, float]:
    """Capacities that a full discharge can have; anything above zero where nothing is known."""
    nominal = profile.nominal_capacity_ah
    if nominal is None:
        return 0.0, float("inf")
    return profile.min_capacity_share * nominal, profile.capacity_range_share[1] * nominal

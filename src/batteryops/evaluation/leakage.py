"""Can the label be rebuilt from the features? Three checks, each finding with its number.

1. *Label*: a feature, or the product or ratio of two, is on a line with the label.
   `batteryops.evaluation.label_lines` says when that counts, and why.
2. *Later cycles*: a feature changes when the cycles after its own are taken away, so that it is not
   known when it is needed.
3. *Charge and SOC*: charge stands beside the change of the state of charge. One over the other is
   the capacity, as a vehicle's own computer estimates it.

Knows no feature view: takes tables, and a function that computes one from a history.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeVar, overload

import polars as pl

from batteryops.errors import DataError
from batteryops.evaluation.label_lines import R2_LIMIT, Line, assets_needed, label_lines
from batteryops.schema import FEATURE_KEY, LABEL, Recording

CUTS: Final = (0.25, 0.5, 0.75)
"""Shares of each asset's rows after which its history ends."""

TOLERANCE: Final = 1e-12
"""Up to this difference, relative to the feature's size, a recomputed feature is the same."""

CHARGE_UNITS: Final = frozenset({"ah", "mah", "as", "kah"})
DELTA_WORDS: Final = frozenset(
    {"delta", "d", "diff", "difference", "change", "span", "swing", "range", "used", "drop", "rise"}
)

N_CLOSEST: Final = 5

_WHOLE: Final = "\0whole"  # no feature is called so
_LAST: Final = "\0last"

FindingKind = Literal["feature", "product", "ratio", "later_cycles", "charge_and_soc"]

History = TypeVar("History", Recording, pl.DataFrame)


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which features give the label away.

    Args:
        kind: `feature`, `product` and `ratio` are on a line with the label; `later_cycles` is not
            known when its cycle ends; `charge_and_soc` stand together.
        features: the one or two; of a ratio, the numerator first.
        statistic: R2 of the line, see `Line.r2`; for `later_cycles` the share of the compared rows
            that changed; NaN where a pair was found by its names and units, and no R2 is known.
        limit: what the statistic may not exceed.
        assets: where it shows, sorted.
        message: one sentence.
    """

    kind: FindingKind
    features: tuple[str, ...]
    statistic: float
    limit: float
    assets: tuple[str, ...]
    message: str

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`; a statistic that is not known is null."""
        known = math.isfinite(self.statistic)
        return asdict(self) | {"statistic": self.statistic if known else None}


@dataclass(frozen=True, slots=True)
class LeakageReport:
    """What the checks found, and how far they could look.

    Args:
        findings: on a line with the label, single features first, as `minimal` picks; charge
            beside SOC; features that need later cycles.
        closest: the best lines that are no findings; how far the rest is from the label.
        n_lines: features, products and ratios that were compared with the label.
        n_recomputed: rows that were computed again on a truncated history.
        sparse: features with values, but too few in every asset to be compared with the label.
        unchecked: what could not be checked and why, one sentence each.
    """

    findings: tuple[Finding, ...]
    closest: tuple[Line, ...]
    n_lines: int
    n_recomputed: int
    sparse: tuple[str, ...]
    unchecked: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether everything was checked, and nothing found."""
        return not self.findings and not self.unchecked

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            "clean": self.clean,
            "findings": [finding.to_json() for finding in self.findings],
            "closest": [line.to_json() for line in self.closest],
            "n_lines": self.n_lines,
            "n_recomputed": self.n_recomputed,
            "sparse": list(self.sparse),
            "unchecked": list(self.unchecked),
        }


def check_leakage(  # noqa: PLR0913 - what is checked, and against what: all by name
    table: pl.DataFrame,
    names: Sequence[str],
    *,
    units: Mapping[str, str] | None = None,
    charge_and_soc: Collection[tuple[str, str]] = (),
    nominal_ah: Mapping[str, float] | None = None,
    later: "LaterCycles | None" = None,
    label: str = LABEL,
) -> LeakageReport:
    """All three checks.

    Args:
        table: `asset_id`, the features and the label; null or NaN where missing.
        names: the features.
        units: unit of each feature, by which charge is found; nothing is found by units without.
        charge_and_soc: pairs of features known to be charge and the change of SOC.
        nominal_ah: nominal capacity of every asset, see `label_lines`.
        later: what `changed_by_later_cycles` found; None when there is no history to truncate.
        label: column of the label.

    Raises:
        DataError: when a column is missing or not numeric.
        UnknownAssetError: when `nominal_ah` lacks an asset.
    """
    lines = label_lines(table, names, label, nominal_ah)
    pairs = find_charge_and_soc(names, units or {}, lines, declared=charge_and_soc)
    reported = {frozenset(finding.features) for finding in pairs}
    untold = {line.features[0] for line in lines if line.kind == "feature" and not line.judged}
    unchecked = []
    if not any(line.judged for line in lines):
        unchecked.append(
            "whether the label can be rebuilt was not checked: no asset has rows enough, and there "
            "are too few assets for one line through all of them"
        )
    if later is None:
        unchecked.append(
            "whether features need later cycles was not checked: that takes cycles, and a feature "
            "table was given"
        )
    telling = minimal(lines)
    return LeakageReport(
        findings=(
            *(_finding(line) for line in telling if frozenset(line.features) not in reported),
            *pairs,
            *(later.findings if later else ()),
        ),
        closest=tuple(_closest(lines, telling)),
        n_lines=len(lines),
        n_recomputed=later.n_rows if later else 0,
        sparse=tuple(name for name in names if name in untold and _has_values(table[name])),
        unchecked=tuple(unchecked),
    )


def _has_values(column: pl.Series) -> bool:
    return bool(column.cast(pl.Float64).is_finite().any())


def minimal(lines: Iterable[Line]) -> list[Line]:
    """The flagged lines, one for each leak.

    Without pairs of which one feature is flagged by itself, since a copy of the label makes one
    with whatever is almost constant; unless the pair tells of more than twice as many assets. And
    of two features only the best line: where their ratio is the label, its inverse is almost on a
    line with it.
    """
    flagged = [line for line in lines if line.flagged]
    alone = [line for line in flagged if line.kind == "feature"]
    told = {line.features[0]: len(line.assets) for line in alone}
    pairs: dict[frozenset[str], Line] = {}
    for line in sorted(flagged, key=lambda line: -line.r2):
        known = max(told.get(name, 0) for name in line.features)
        if line.kind != "feature" and len(line.assets) > 2 * known:
            pairs.setdefault(frozenset(line.features), line)
    return [*alone, *pairs.values()]


def _closest(lines: Iterable[Line], telling: Iterable[Line]) -> list[Line]:
    alone = {line.features[0] for line in telling if line.kind == "feature"}
    others = [
        line for line in lines if not line.flagged and line.r2 and alone.isdisjoint(line.features)
    ]
    return others[:N_CLOSEST]


def _finding(line: Line) -> Finding:
    if line.together:
        seen = f"by one line through all {len(line.assets)} assets: R2 {line.r2:.5f}"
    else:
        seen = (
            f"by a line per asset: R2 above {R2_LIMIT} in {len(line.assets)} of {line.n_assets} "
            f"assets, where {assets_needed(line.n_assets)} are a finding; median R2 "
            f"{line.median_r2:.5f}"
        )
    return Finding(
        kind=line.kind,
        features=line.features,
        statistic=line.r2,
        limit=R2_LIMIT,
        assets=line.assets,
        message=f"{line.formula} rebuilds the label {seen}",
    )


def find_charge_and_soc(
    names: Sequence[str],
    units: Mapping[str, str],
    lines: Iterable[Line] = (),
    *,
    declared: Collection[tuple[str, str]] = (),
) -> tuple[Finding, ...]:
    """Charge beside the change of the state of charge, found by unit and name.

    Charge is what is counted in Ah (or mAh, As). A change of SOC has SOC or DOD in its name or
    unit, and a word of change, of which DOD is one in itself. How exactly their ratio is the
    capacity depends on how well the vehicle knows its SOC; the pair is a finding whatever R2.

    Args:
        names: the features that stand together.
        units: unit by name; one that is not listed has none.
        lines: where the R2 of the ratio is looked up.
        declared: further pairs (charge, change of SOC), whatever their names and units.

    Raises:
        DataError: when a declared feature does not exist.

    Examples:
        >>> units = {"charge_window": "Ah", "soc_change": "% SOC", "soc_start": "% SOC"}
        >>> [found.features for found in find_charge_and_soc(list(units), units)]
        [('charge_window', 'soc_change')]
    """
    unknown = {name for pair in declared for name in pair} - set(names)
    if unknown:
        raise DataError(
            f"declared as charge or SOC, but not a feature: {', '.join(sorted(unknown))}; "
            f"expected some of {', '.join(names)}"
        )
    charges = [name for name in names if units.get(name, "").strip().lower() in CHARGE_UNITS]
    swings = [name for name in names if _is_soc_change(name, units.get(name, ""))]
    pairs = dict.fromkeys([*declared, *((one, other) for one in charges for other in swings)])
    ratios = {line.features: line for line in lines if line.kind == "ratio"}
    found = []
    for charge, swing in pairs:
        line = ratios.get((charge, swing))
        found.append(
            Finding(
                kind="charge_and_soc",
                features=(charge, swing),
                statistic=line.r2 if line else math.nan,
                limit=R2_LIMIT,
                assets=line.assets if line else (),
                message=(
                    f"{charge} is charge and {swing} the change of the state of charge: "
                    "one over the other is the capacity"
                    + (f" (R2 of a line {line.r2:.5f})" if line else "")
                ),
            )
        )
    return tuple(found)


def _is_soc_change(name: str, unit: str) -> bool:
    words = set(f"{name} {unit}".lower().replace("_", " ").replace("-", " ").split())
    return bool(words & {"dod", "dsoc"} or ("soc" in words and words & DELTA_WORDS))


@dataclass(frozen=True, slots=True)
class LaterCycles:
    """Which features change when later cycles are taken away, and how many rows were compared."""

    findings: tuple[Finding, ...]
    n_rows: int


def changed_by_later_cycles(
    history: History,
    compute: Callable[[History], pl.DataFrame],
    names: Sequence[str],
    *,
    cuts: Sequence[float] = CUTS,
    tolerance: float = TOLERANCE,
) -> LaterCycles:
    """Compute features again without later cycles, and compare the rows that remain.

    Each asset's history is cut after a share of its rows, all assets at once, so that a feature
    that looks at other assets' later cycles shows too. Earlier cycles are fair: a feature may look
    back. A missing value that was there before, or the other way round, is a change.

    Args:
        history: cycles of one or more assets; or a table with a row per cycle.
        compute: gives `asset_id`, `op_index` and the features, one row per cycle.
        names: the features to compare.
        cuts: shares of each asset's rows that remain, above 0 and below 1; at least one row does.
        tolerance: largest difference of values that are the same, relative to the larger of the
            two or to the feature's mean size.

    Raises:
        DataError: when nothing is computed from the whole history, or no row remains.

    Examples:
        >>> cycles = pl.DataFrame({
        ...     "asset_id": ["B0005"] * 4,
        ...     "op_index": [1, 2, 3, 4],
        ...     "capacity_ah": [1.9, 1.8, 1.7, 1.6],
        ... })
        >>> def compute(cycles: pl.DataFrame) -> pl.DataFrame:
        ...     capacity = pl.col("capacity_ah")
        ...     return cycles.with_columns(fade=capacity - capacity.first(), last=capacity.last())
        >>> changed = changed_by_later_cycles(cycles, compute, ["fade", "last"])
        >>> [(found.features, found.statistic) for found in changed.findings]
        [(('last',), 1.0)]
    """
    whole = _values(compute(history), names)
    if whole.is_empty():
        raise DataError("no features come from the whole history, so that nothing can be compared")
    parts = []
    for cut in cuts:
        last = _last_rows(whole, cut)
        remaining = _values(compute(_until(history, last)), names)
        parts.append(
            remaining.join(last, on="asset_id").filter(pl.col("op_index") <= pl.col(_LAST))
        )
    again = pl.concat(parts, how="vertical_relaxed")
    both = again.join(whole, on=FEATURE_KEY, suffix=_WHOLE, maintain_order="left")
    if both.is_empty():
        raise DataError("no row remains when histories are cut, so that nothing can be compared")
    findings = [_needs_later(both, name, tolerance) for name in names]
    return LaterCycles(tuple(found for found in findings if found), both.height)


def _values(table: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    return table.select(
        "asset_id",
        pl.col("op_index").cast(pl.Int64),
        pl.col(*names).cast(pl.Float64).fill_nan(None),
    )


def _last_rows(whole: pl.DataFrame, cut: float) -> pl.DataFrame:
    """The `op_index` after which each asset's history ends, as column `_LAST`."""
    kept = (pl.len() * cut).ceil().cast(pl.Int64).clip(1)
    return whole.group_by("asset_id", maintain_order=True).agg(
        pl.col("op_index").sort().get(kept - 1).alias(_LAST)
    )


@overload
def _until(history: Recording, last: pl.DataFrame) -> Recording: ...
@overload
def _until(history: pl.DataFrame, last: pl.DataFrame) -> pl.DataFrame: ...
def _until(history: Recording | pl.DataFrame, last: pl.DataFrame) -> Recording | pl.DataFrame:
    """The cycles up to each asset's last one; assets without one are left out."""
    if isinstance(history, pl.DataFrame):
        return _rows_until(history, "op_index", last)
    return Recording(
        _rows_until(history.samples, "cycle_index", last),
        _rows_until(history.cycles, "cycle_index", last),
        history.source,
    )


def _rows_until(table: pl.DataFrame, index: str, last: pl.DataFrame) -> pl.DataFrame:
    until = pl.col("asset_id").replace_strict(
        last["asset_id"], last[_LAST], default=None, return_dtype=pl.Int64
    )
    return table.filter(pl.col(index) <= until)


def _needs_later(both: pl.DataFrame, name: str, tolerance: float) -> Finding | None:
    again, whole = pl.col(name), pl.col(name + _WHOLE)
    size = pl.max_horizontal(again.abs(), whole.abs(), whole.abs().mean())
    near = ((again - whole).abs() <= tolerance * size) | (again == whole)
    same = near.fill_null(value=False) | (again.is_null() & whole.is_null())
    changed = both.filter(~same)
    if changed.is_empty():
        return None
    asset, index, with_all, without = changed.select(*FEATURE_KEY, whole, again).row(0)
    share = changed.height / both.height
    return Finding(
        kind="later_cycles",
        features=(name,),
        statistic=share,
        limit=0.0,
        assets=tuple(changed["asset_id"].unique().sort()),
        message=(
            f"{name} needs later cycles: {changed.height} of {both.height} rows change when these "
            f"are taken away; cycle {index} of {asset} has {_text(with_all)} with them, "
            f"{_text(without)} without"
        ),
    )


def _text(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"

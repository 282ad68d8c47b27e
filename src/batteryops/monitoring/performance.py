"""How good answers were, once their labels have come: by version, profile, SoH band and vehicle.

Chunks of the log become sums per label (and model version), which add: memory grows with the labels
and never with the rows of the log. Bounds come from drawing whole vehicles, whose answers resemble
each other, with replacement, as `evaluation.metrics` does for assets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from batteryops.errors import UnknownAssetError
from batteryops.evaluation.metrics import (
    CONSTANT,
    Floats,
    Interval,
    percentiles,
    times_drawn,
)
from batteryops.monitoring.error_sums import KEY, SUMS, ErrorSums
from batteryops.records.labels import CLOCKS_DIFFER
from batteryops.schema import Profile

SOH_BANDS: Final = (0.7, 0.8, 0.9)
"""Where measured SoH is divided: 0.8 is the usual end of a first life."""

MIN_LABELS: Final = 30
"""With fewer labels nothing is concluded: one odd vehicle would decide."""

MAX_VEHICLES: Final = 100
"""So many vehicles are listed, those with the largest errors first."""

UNKNOWN: Final = "unknown"
"""Profile and band of a vehicle that no profile is known of."""

_NO_BOUNDS: Final = Interval(math.nan, math.nan)
_DRAWN_AT_ONCE: Final = 4_000_000  # numbers of one block of resamples


@dataclass(frozen=True, slots=True)
class GroupPerformance:
    """How good a group's answers were. Numbers are NaN where the data cannot give one.

    Args:
        n: answers that have a label; each weighs the same.
        n_labels: labels that they have: many answers about one measurement are one piece of news.
        n_vehicles: vehicles that these are of.
        mae_ah: mean absolute error, Ah.
        mae_bounds_ah: of it, from drawing vehicles; likewise the next ones.
        r2: 1 - SSE / SST.
        r2_bounds: of it.
        bias_ah: mean of predicted - measured, Ah; positive = too optimistic.
        bias_bounds_ah: of it.
        interval_coverage: share of the answers with an interval that held the label.
        coverage_bounds: of it.
        refused: why nothing is concluded; None where something is.
    """

    n: int
    n_labels: int
    n_vehicles: int
    mae_ah: float = math.nan
    mae_bounds_ah: Interval = _NO_BOUNDS
    r2: float = math.nan
    r2_bounds: Interval = _NO_BOUNDS
    bias_ah: float = math.nan
    bias_bounds_ah: Interval = _NO_BOUNDS
    interval_coverage: float = math.nan
    coverage_bounds: Interval = _NO_BOUNDS
    refused: str | None = None

    def to_json(self) -> dict[str, float | int | str]:
        """By name; what is not known is left out."""
        numbers = {
            "mae_ah": self.mae_ah,
            "mae_low_ah": self.mae_bounds_ah.low,
            "mae_high_ah": self.mae_bounds_ah.high,
            "r2": self.r2,
            "r2_low": self.r2_bounds.low,
            "r2_high": self.r2_bounds.high,
            "bias_ah": self.bias_ah,
            "bias_low_ah": self.bias_bounds_ah.low,
            "bias_high_ah": self.bias_bounds_ah.high,
            "interval_coverage": self.interval_coverage,
            "interval_coverage_low": self.coverage_bounds.low,
            "interval_coverage_high": self.coverage_bounds.high,
        }
        counts = {"n": self.n, "n_labels": self.n_labels, "n_vehicles": self.n_vehicles}
        told = {"refused": self.refused} if self.refused else {}
        return {name: at for name, at in numbers.items() if math.isfinite(at)} | counts | told


@dataclass(frozen=True, slots=True)
class LabelNews:
    """What is known of the labels themselves.

    Args:
        coverage: share of the champion's answers, old enough to have a label, that have one; NaN
            where none is old enough.
        age_s: quantiles 0.5 and 0.9 of arrival minus measurement, in s, and under `newest` how long
            ago the newest label was measured; empty without labels.
        unmatched: labels in the span of the log that no answer belongs to.
        of_unknown_assets: those of them whose asset was not asked about.
        outside: labels that were measured outside of the span of the log.
        contradicting: labels left out because another one contradicts them.
        corrected: labels for which a later one came.
        repeated: labels that say again what another one says.
        clock_jumps: labels left out that were measured after they were received.
        unusable: rows that hold no measurement.
    """

    coverage: float
    age_s: Mapping[str, float]
    unmatched: int
    of_unknown_assets: int
    outside: int
    contradicting: int
    corrected: int
    repeated: int
    clock_jumps: int
    unusable: int

    def to_json(self) -> dict[str, Any]:
        """As a monitoring run holds it; what is not known is left out."""
        known = {} if math.isnan(self.coverage) else {"label_coverage": self.coverage}
        ages = {"label_age_s": dict(self.age_s)} if self.age_s else {}
        return {
            **known,
            **ages,
            "labels_unmatched": self.unmatched,
            "labels_of_unknown_assets": self.of_unknown_assets,
            "labels_outside_window": self.outside,
            "labels_contradicting": self.contradicting,
            "labels_corrected": self.corrected,
            "labels_repeated": self.repeated,
            "labels_clock_jumps": self.clock_jumps,
            "labels_unusable": self.unusable,
        }


@dataclass(frozen=True, slots=True)
class Performance:
    """How good answers were, as far as labels tell.

    Args:
        overall: of the champion's answers inside the training domain: outside no number is given.
        by: the same by `profile`, `soh_band` and `vehicle`; by `status` with those out of the
            domain beside; by `version` of all that a version answered inside the domain, a
            challenger's shadow answers among them.
        vehicles_left_out: vehicles that are not listed, whose errors are smaller.
        labels: what is known of the labels.
    """

    overall: GroupPerformance
    by: Mapping[str, Mapping[str, GroupPerformance]]
    vehicles_left_out: int
    labels: LabelNews

    def to_json(self) -> dict[str, Any]:
        """As a monitoring run holds it."""
        return {
            "overall": self.overall.to_json(),
            "by": {
                kind: {name: group.to_json() for name, group in groups.items()}
                for kind, groups in self.by.items()
            },
            "vehicles_left_out": self.vehicles_left_out,
            **self.labels.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Judging:
    """How performance is judged.

    Args:
        min_labels: with fewer nothing is concluded of a group. Of single vehicles, which have few,
            errors are told without bounds.
        soh_bands: where measured SoH is divided, rising.
        resamples: how many times vehicles are drawn.
        confidence: share of resamples within bounds.
        seed: of the draws.
        max_vehicles: so many are listed.
    """

    min_labels: int = MIN_LABELS
    soh_bands: Sequence[float] = SOH_BANDS
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    max_vehicles: int = MAX_VEHICLES


def judge(
    sums: ErrorSums,
    *,
    profile_of: Callable[[str], Profile],
    since: datetime,
    until: datetime,
    judging: Judging | None = None,
) -> Performance:
    """Judge what was answered in a span of the log.

    Args:
        sums: of all its chunks.
        profile_of: the profile of a vehicle; raises `UnknownAssetError` where there is none.
        since: where the log began, with a time zone.
        until: where it ended, which is now.
        judging: how.
    """
    how = judging or Judging()
    rows = _with_facts(sums, profile_of, how.soh_bands)
    champion = rows.filter("champion")
    sound = champion.filter("in_domain")
    rng = np.random.default_rng(how.seed)

    def split(given: pl.DataFrame, column: str) -> dict[str, GroupPerformance]:
        return {
            str(name): _group(part, how, rng)
            for (name,), part in sorted(given.group_by(column), key=lambda group: str(group[0][0]))
        }

    vehicles = _vehicles(sound)
    listed = dict(list(vehicles.items())[: how.max_vehicles])
    return Performance(
        overall=_group(sound, how, rng),
        by={
            "version": split(rows.filter("in_domain"), "model_version"),
            "profile": split(sound, "profile"),
            "soh_band": split(sound, "soh_band"),
            "status": split(
                champion.with_columns(
                    status=pl.when("in_domain")
                    .then(pl.lit("ok"))
                    .otherwise(pl.lit("out_of_domain"))
                ),
                "status",
            ),
            "vehicle": listed,
        },
        vehicles_left_out=len(vehicles) - len(listed),
        labels=_news(sums, since, until),
    )


def band_name(soh: float, bands: Sequence[float] = SOH_BANDS) -> str:
    """The band that a SoH lies in.

    Examples:
        >>> band_name(0.65), band_name(0.8), band_name(1.02)
        ('below 0.7', '0.8 to 0.9', '0.9 and above')
    """
    place = int(np.searchsorted(bands, soh, side="right"))
    if place == 0:
        return f"below {bands[0]:g}"
    if place == len(bands):
        return f"{bands[-1]:g} and above"
    return f"{bands[place - 1]:g} to {bands[place]:g}"


def _with_facts(
    sums: ErrorSums, profile_of: Callable[[str], Profile], bands: Sequence[float]
) -> pl.DataFrame:
    """The cells beside vehicle, label, profile and SoH band, in an order of their own."""
    labels = sums.labels.table.with_row_index("label").filter(pl.Series(sums.matched))
    profiles: dict[str, Profile | None] = {}
    for asset in labels["asset_id"].unique(maintain_order=True):
        try:
            profiles[asset] = profile_of(asset)
        except UnknownAssetError:
            profiles[asset] = None
    found = [profiles[asset] for asset in labels["asset_id"]]
    soh = [
        math.nan
        if profile is None or profile.nominal_capacity_ah is None
        else measured / profile.nominal_capacity_ah
        for profile, measured in zip(found, labels["capacity_ah"], strict=True)
    ]
    facts = labels.select(
        "label",
        vehicle="asset_id",
        label_ah="capacity_ah",
        profile=pl.Series([UNKNOWN if one is None else one.name for one in found], dtype=pl.String),
        soh_band=pl.Series(
            [UNKNOWN if math.isnan(one) else band_name(one, bands) for one in soh], dtype=pl.String
        ),
    )
    return sums.cells.join(facts, on="label").sort(KEY)


def _per_vehicle(rows: pl.DataFrame) -> pl.DataFrame:
    """Sums of each vehicle; labels are centred, which keeps their squares from cancelling."""
    centred = pl.col("label_ah") - pl.col("label_ah").mean()
    return (
        rows.with_columns(y=centred * pl.col("n"), yy=centred**2 * pl.col("n"))
        .group_by("vehicle", maintain_order=True)
        .agg(pl.col(*SUMS, "y", "yy").sum(), pl.col("label").n_unique().alias("labels"))
        .sort("vehicle")
    )


def _group(rows: pl.DataFrame, how: Judging, rng: np.random.Generator) -> GroupPerformance:
    """Judge a group, if there is enough to judge it by."""
    vehicles = _per_vehicle(rows)
    n, n_labels = int(vehicles["n"].sum()), int(vehicles["labels"].sum())
    counts = (n, n_labels, vehicles.height)
    if n_labels < how.min_labels or not n:
        return GroupPerformance(
            *counts, refused=f"{n_labels} labels, expected at least {how.min_labels}"
        )
    table = vehicles.select(*SUMS, "y", "yy").to_numpy().astype(np.float64)
    scale = float(rows["label_ah"].to_numpy().max())
    found = {name: float(at[0]) for name, at in _metrics(table.sum(0)[None, :], scale).items()}
    bounds = _bounds(table, scale, how, rng)
    return GroupPerformance(
        *counts,
        found["mae"],
        bounds["mae"],
        found["r2"],
        bounds["r2"],
        found["bias"],
        bounds["bias"],
        found["coverage"],
        bounds["coverage"],
    )


def _bounds(
    table: Floats, scale: float, how: Judging, rng: np.random.Generator
) -> dict[str, Interval]:
    """Percentiles over draws of whole vehicles, a block of draws at a time."""
    n_vehicles = len(table)
    if n_vehicles == 1:  # nothing is known about others
        return dict.fromkeys(_metrics(table, scale), _NO_BOUNDS)
    at_once = max(1, _DRAWN_AT_ONCE // n_vehicles)
    drawn = np.concatenate(
        [
            times_drawn(n_vehicles, min(at_once, how.resamples - start), rng) @ table
            for start in range(0, how.resamples, at_once)
        ]
    )
    return {
        name: percentiles(values, how.confidence) for name, values in _metrics(drawn, scale).items()
    }


def _metrics(table: Floats, scale: float) -> dict[str, Floats]:
    """Metrics of each row of sums, (rows, 8)."""
    n, absolute, error, square, held, bounded, y, yy = table.T
    total = yy - y**2 / n
    varies = total > n * (CONSTANT * scale) ** 2
    return {
        "mae": absolute / n,
        "r2": 1.0 - np.divide(square, total, out=np.full_like(n, math.nan), where=varies),
        "bias": error / n,
        "coverage": np.divide(held, bounded, out=np.full_like(n, math.nan), where=bounded > 0),
    }


def _vehicles(rows: pl.DataFrame) -> dict[str, GroupPerformance]:
    """Errors of each vehicle, the largest first."""
    found = (
        _per_vehicle(rows)
        .with_columns(mae=pl.col("absolute") / pl.col("n"))
        .sort("mae", "vehicle", descending=[True, False])
    )
    return {
        row["vehicle"]: GroupPerformance(
            row["n"],
            row["labels"],
            1,
            mae_ah=row["mae"],
            bias_ah=row["error"] / row["n"],
            interval_coverage=row["held"] / row["bounded"] if row["bounded"] else math.nan,
        )
        for row in found.iter_rows(named=True)
    }


def _news(sums: ErrorSums, since: datetime, until: datetime) -> LabelNews:
    labels = sums.labels
    at = labels.table["measured_at"]
    within = at.is_between(since - labels.tolerance, until + labels.tolerance).to_numpy()
    unmatched = within & ~sums.matched
    return LabelNews(
        coverage=sums.old_labelled / sums.old if sums.old else math.nan,
        age_s=_ages(labels.table, until),
        unmatched=int(unmatched.sum()),
        of_unknown_assets=int((unmatched & ~sums.seen).sum()),
        outside=int((~within).sum()),
        contradicting=labels.contradicting.height,
        corrected=labels.corrected,
        repeated=labels.repeated,
        clock_jumps=labels.clock_jumps,
        unusable=labels.unusable,
    )


def _ages(labels: pl.DataFrame, now: datetime) -> dict[str, float]:
    """How long labels took to arrive, and how old the newest is; at least 0, as clocks differ."""
    if labels.is_empty():
        return {}
    took = (labels["received_at"] - labels["measured_at"]).dt.total_microseconds().to_numpy() / 1e6
    half, most = np.quantile(np.maximum(took, 0.0), [0.5, 0.9])
    ages = {"p50": float(half), "p90": float(most)}
    past = labels["measured_at"].filter(labels["measured_at"] <= now + CLOCKS_DIFFER)
    newest = past.max()
    if isinstance(newest, datetime):
        ages["newest"] = max(0.0, (now - newest) / timedelta(seconds=1))
    return ages

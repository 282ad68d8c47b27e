"""A fleet's scorecard: health, trend, temperature signal and data quality of each vehicle.

Each vehicle gets one action, the most urgent that any of its reasons asks for. What is not known is
said to be not known: a vehicle without a measured capacity is to be monitored, never healthy.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.evaluation.association import at_equal_load, partial_rank_correlation
from batteryops.evaluation.trends import MIN_POINTS, Trend, robust_trend
from batteryops.lifecycle.fleet_lives import Life, Unit
from batteryops.settings import FleetSettings, Settings

Action = Literal["healthy", "monitor", "priority"]
Subject = Literal["health", "trend", "temperature", "data"]

URGENCY: Final[tuple[Action, ...]] = ("healthy", "monitor", "priority")

LATEST: Final = 3
"""Health is the median of so many latest measurements: a rest lifts a single one by points."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing found, and what it asks for; `healthy` asks for nothing."""

    subject: Subject
    action: Action
    text: str

    def to_json(self) -> dict[str, str]:
        """The fields by name."""
        return {"subject": self.subject, "action": self.action, "text": self.text}


@dataclass(frozen=True, slots=True)
class TemperatureSignal:
    """Whether a vehicle warms more as it ages, at equal load.

    Args:
        correlation: rank correlation of temperature rise with age, load accounted for; NaN where
            load explains age altogether.
        trend: K per unit of age at equal load; None where no slope can be given.
    """

    correlation: float
    trend: Trend | None

    def to_json(self) -> dict[str, Any]:
        """By name; null where undefined."""
        return {
            "correlation": self.correlation if math.isfinite(self.correlation) else None,
            "k_per_unit": self.trend.to_json() if self.trend else None,
            "change_k": self.trend.change if self.trend else None,
        }


@dataclass(frozen=True, slots=True)
class VehicleScore:
    """One vehicle.

    Args:
        asset_id: its name.
        profile: name of its profile.
        cycles: how many are known.
        usable: how many of them have a sound record.
        soh: median of the latest measurements, a share of nominal; None where none is known.
        measurements: of the capacity, that can be believed.
        trend: SoH percentage points per unit of age; None where it is not known.
        units_to_limit: until `min_soh` at this trend; None where it does not fall, 0 where it is
            there.
        temperature: None where nothing is known of it.
        reasons: at least one; the most urgent first.
    """

    asset_id: str
    profile: str
    cycles: int
    usable: int
    soh: float | None
    measurements: int
    trend: Trend | None
    units_to_limit: float | None
    temperature: TemperatureSignal | None
    reasons: tuple[Reason, ...]

    @property
    def action(self) -> Action:
        """The most urgent that a reason asks for."""
        return self.reasons[0].action

    @property
    def deciding(self) -> tuple[Reason, ...]:
        """The reasons that ask for something; all of them where none does."""
        asking = tuple(reason for reason in self.reasons if reason.action != "healthy")
        return asking or self.reasons

    @property
    def unusable_share(self) -> float:
        """Share of cycles without a sound record."""
        return 1.0 - self.usable / self.cycles

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return {
            "asset_id": self.asset_id,
            "profile": self.profile,
            "action": self.action,
            "soh": self.soh,
            "measurements": self.measurements,
            "soh_points_per_unit": self.trend.to_json() if self.trend else None,
            "units_to_limit": self.units_to_limit,
            "temperature": self.temperature.to_json() if self.temperature else None,
            "cycles": self.cycles,
            "unusable_share": self.unusable_share,
            "reasons": [reason.to_json() for reason in self.reasons],
        }


@dataclass(frozen=True, slots=True)
class Scorecard:
    """A fleet, the most urgent vehicles first.

    Args:
        vehicles: one each.
        unit: of ages and trends.
        rise: what the temperature rise is; empty where there is none.
        source: where the cycles came from.
        notes: what a reader must know.
        limits: what was held against.
    """

    vehicles: tuple[VehicleScore, ...]
    unit: Unit
    rise: str
    source: str
    notes: tuple[str, ...]
    limits: FleetSettings

    @property
    def counts(self) -> dict[str, int]:
        """How many vehicles have which action."""
        return {
            action: sum(vehicle.action == action for vehicle in self.vehicles)
            for action in reversed(URGENCY)
        }

    def to_json(self) -> dict[str, Any]:
        """Everything by name."""
        return {
            "source": self.source,
            "unit_of_age": self.unit,
            "temperature_rise": self.rise or None,
            "notes": list(self.notes),
            "limits": self.limits.model_dump(),
            "counts": self.counts,
            "vehicles": [vehicle.to_json() for vehicle in self.vehicles],
        }


def score_fleet(life: Life, settings: Settings) -> Scorecard:
    """Judge every vehicle of a fleet.

    Args:
        life: its cycles.
        settings: thresholds (`fleet`), profiles, and the confidence of intervals.

    Raises:
        DataError: no vehicles, or none with three cycles.
    """
    if life.table.is_empty():
        raise DataError(f"{life.source}: no vehicles to judge")
    groups = life.table.partition_by("asset_id", as_dict=True, maintain_order=True)
    longest = max(own.height for own in groups.values())
    if longest < MIN_POINTS:
        raise DataError(
            f"{life.source}: no vehicle has more than {longest} cycle{'s' if longest > 1 else ''}; "
            f"a scorecard needs {MIN_POINTS} or more of at least one"
        )
    scores = [_score(str(asset), own, life, settings) for (asset,), own in groups.items()]
    scores.sort(
        key=lambda score: (
            -URGENCY.index(score.action),
            -sum(reason.action == score.action for reason in score.reasons),
            score.soh if score.soh is not None else math.inf,
            score.asset_id,
        )
    )
    return Scorecard(tuple(scores), life.unit, life.rise, life.source, life.notes, settings.fleet)


def _score(asset: str, own: pl.DataFrame, life: Life, settings: Settings) -> VehicleScore:
    limits, confidence = settings.fleet, settings.evaluation.confidence
    sound = own.filter("usable")
    measured = own.drop_nulls("soh")
    latest = measured["soh"].tail(LATEST).to_numpy()
    soh = float(np.median(latest)) if latest.size else None
    trend = robust_trend(measured["age"], 100.0 * measured["soh"], confidence=confidence)
    signal = _temperature(sound, life, confidence)
    left = _until(soh, trend, limits.min_soh)
    reasons = [
        _of_health(soh, measured.height, limits),
        *_of_trend(trend, left, life.unit, limits, soh),
        *_of_temperature(signal, life, limits),
        *_of_data(own.height, sound.height, limits),
    ]
    reasons.sort(key=lambda reason: -URGENCY.index(reason.action))
    return VehicleScore(
        asset_id=asset,
        profile=settings.profile_of(asset).name,
        cycles=own.height,
        usable=sound.height,
        soh=soh,
        measurements=measured.height,
        trend=trend,
        units_to_limit=left,
        temperature=signal,
        reasons=tuple(reasons),
    )


def _temperature(sound: pl.DataFrame, life: Life, confidence: float) -> TemperatureSignal | None:
    known = sound.drop_nulls(["rise_k", *life.loads])
    if not life.rise or known.height < MIN_POINTS + len(life.loads):
        return None
    age, rise = known["age"].to_numpy(), known["rise_k"].to_numpy()
    loads = known.select(life.loads).to_numpy()
    return TemperatureSignal(
        partial_rank_correlation(age, rise, loads),
        robust_trend(age, at_equal_load(rise, age, loads), confidence=confidence),
    )


def _until(soh: float | None, trend: Trend | None, limit: float) -> float | None:
    if soh is None:
        return None
    if soh <= limit:
        return 0.0
    if trend is None or not trend.falls:
        return None
    return 100.0 * (soh - limit) / -trend.slope


def _of_health(soh: float | None, measurements: int, limits: FleetSettings) -> Reason:
    if soh is None:
        return Reason("health", "monitor", "health not known: no capacity was measured")
    of = f"SoH {soh:.1%}, median of the last {min(LATEST, measurements)} measurements"
    if soh < limits.min_soh:
        return Reason("health", "priority", f"{of}, is below {limits.min_soh:.0%}")
    if soh < limits.monitor_soh:
        return Reason("health", "monitor", f"{of}, is below {limits.monitor_soh:.0%}")
    return Reason("health", "healthy", of)


def _of_trend(
    trend: Trend | None,
    left: float | None,
    unit: Unit,
    limits: FleetSettings,
    soh: float | None,
) -> list[Reason]:
    if soh is None:
        return []
    if trend is None:
        text = f"trend not known: {MIN_POINTS} measurements or more are needed"
        return [Reason("trend", "monitor", text)]
    told = f"{trend.slope:+.2f} points ({trend.low:+.2f} to {trend.high:+.2f}) per {_one(unit)}"
    if left is None:
        return [Reason("trend", "healthy", f"{told}: no fall that is beyond doubt")]
    action: Action = "healthy"
    if left > 0.0:  # otherwise health has said it
        told = f"{told}: {limits.min_soh:.0%} in {left:.1f} {unit}"
        if unit != "months":
            told = f"{told}; without dates that is not judged"
        elif left <= limits.priority_months:
            action, told = "priority", f"{told}, within {limits.priority_months:g}"
        elif left <= limits.monitor_months:
            action, told = "monitor", f"{told}, within {limits.monitor_months:g}"
    return [Reason("trend", action, told)]


def _of_temperature(
    signal: TemperatureSignal | None, life: Life, limits: FleetSettings
) -> list[Reason]:
    if signal is None or signal.trend is None or not math.isfinite(signal.correlation):
        return []
    trend = signal.trend
    what = (
        f"at equal load {trend.change:+.1f} K over {trend.span:.3g} {life.unit} "
        f"(rank correlation with age {signal.correlation:+.2f})"
    )
    if signal.correlation < limits.temperature_correlation or not trend.rises:
        return [Reason("temperature", "healthy", f"{what}: no clear rise with age")]
    if trend.change >= limits.priority_rise_k:
        text = f"{what}: {limits.priority_rise_k:g} K or more"
        return [Reason("temperature", "priority", text)]
    if trend.change >= limits.monitor_rise_k:
        text = f"{what}: {limits.monitor_rise_k:g} K or more"
        return [Reason("temperature", "monitor", text)]
    return [Reason("temperature", "healthy", f"{what}: below {limits.monitor_rise_k:g} K")]


def _of_data(cycles: int, usable: int, limits: FleetSettings) -> list[Reason]:
    found = []
    share = 1.0 - usable / cycles
    if share > limits.max_unusable_share:
        found.append(
            Reason(
                "data",
                "monitor",
                f"{cycles - usable} of {cycles} cycles ({share:.0%}) have no sound record, more "
                f"than {limits.max_unusable_share:.0%}: look at the sensors",
            )
        )
    if cycles < limits.min_cycles:
        text = f"{cycles} cycles, fewer than {limits.min_cycles}: too few to conclude"
        found.append(Reason("data", "monitor", text))
    return found


def _one(unit: Unit) -> str:
    return "month" if unit == "months" else unit

"""The plan of a simulated fleet: what a user asks for, refused at once when it makes no sense."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np

from batteryops.errors import DataError
from batteryops.telemetry.ageing import FloatArray
from batteryops.telemetry.chemistry import CHEMISTRIES

DAYS_PER_YEAR: Final = 365.25
MAX_VEHICLES: Final = 9999  # four digits in a name keep names in order


@dataclass(frozen=True, slots=True)
class Climate:
    """Air temperature around the cells: a yearly sine, the vehicle's place, and the day's weather.

    Args:
        mean_c: yearly mean, degC.
        seasonal_c: how far the warmest day lies above the mean, degC.
        warmest_day: day of the year, 1 to 366.
        vehicle_spread_c: standard deviation of a vehicle's own offset, degC.
        weather_spread_c: standard deviation from day to day, degC.
    """

    mean_c: float = 20.0
    seasonal_c: float = 7.0
    warmest_day: int = 200
    vehicle_spread_c: float = 2.0
    weather_spread_c: float = 2.0

    def season_c(self, day_of_year: FloatArray) -> FloatArray:
        """Expected air temperature on a day counted on from 1 January (day 1), degC.

        Examples:
            >>> import numpy as np
            >>> climate = Climate(mean_c=10.0, seasonal_c=8.0, warmest_day=200)
            >>> [round(float(t), 1) for t in climate.season_c(np.array([200.0, 200.0 + 182.625]))]
            [18.0, 2.0]
        """
        phase = 2.0 * np.pi * (day_of_year - self.warmest_day) / DAYS_PER_YEAR
        season: FloatArray = self.mean_c + self.seasonal_c * np.cos(phase)
        return season


@dataclass(frozen=True, slots=True)
class SensorNoise:
    """Measurement error: standard deviations, the steps of the converters, and the label's error.

    Args:
        voltage_v: standard deviation, V.
        current_a: standard deviation, A.
        temperature_c: standard deviation, degC.
        voltage_step_v: smallest step, V.
        current_step_a: smallest step, A.
        temperature_step_c: smallest step, degC.
        capacity_share: standard deviation of the measured capacity as a share of the true one; a
            tester's class is a limit, so errors beyond twice this do not occur.
    """

    voltage_v: float = 0.001
    current_a: float = 0.004
    temperature_c: float = 0.1
    voltage_step_v: float = 0.001
    current_step_a: float = 0.001
    temperature_step_c: float = 0.05
    capacity_share: float = 0.002


@dataclass(frozen=True, slots=True)
class Variation:
    """How cells of one make differ, as standard deviations relative to the mean (log-normal).

    Args:
        capacity: of the new cell.
        resistance: of the new cell.
        ageing: of the rates of capacity loss and, apart from them, of resistance growth.
    """

    capacity: float = 0.012
    resistance: float = 0.06
    ageing: float = 0.1


def _only_nmc() -> Mapping[str, float]:
    return {"NMC": 1.0}


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What to simulate. Equal plans give equal recordings, bit for bit.

    Vehicle k has the same life whatever the number of vehicles, and its first n cycles are the same
    whatever the number of cycles.

    Args:
        n_vehicles: vehicles, 1 to 9,999.
        n_cycles: full reference discharges recorded per vehicle, 1 or more.
        seed: of all randomness, 0 or more.
        chemistry_shares: share of the fleet per name in `CHEMISTRIES`; the shares sum to 1.
        climate: air temperature.
        c_rate: lowest and highest current of a reference discharge over nominal capacity, 1/h.
        start: day on which recording begins.
        mean_days_between: between reference discharges, at least 1; each gap is within half of it.
        age_days: range of a vehicle's age when recording begins, days.
        full_cycles_per_day: range of a vehicle's use, equivalent full cycles per day.
        depth_of_discharge: range of the depth of its daily cycles, 0 to 1.
        parked_soc: range of the state of charge around which it is used and parked, 0 to 1.
        driving_c_rate: range of its mean driving current over nominal capacity, 1/h.
        sample_interval_s: between samples, 2 to 120 s.
        rest_s: range of the rest that is recorded after a discharge, s.
        record_charges: record the charges before the discharges too.
        charge_c_rate: constant current of these charges over nominal capacity, 0.3 to 1 per hour.
        charge_interval_s: between samples of a charge, 2 to 120 s.
        noise: measurement error.
        variation: how cells differ.

    Raises:
        DataError: naming the field, what was given and what was expected.

    Examples:
        >>> FleetPlan(n_vehicles=0)
        Traceback (most recent call last):
        ...
        batteryops.errors.DataError: fleet plan: n_vehicles is 0, expected an integer from 1 to 9999
    """

    n_vehicles: int = 40
    n_cycles: int = 120
    seed: int = 42
    chemistry_shares: Mapping[str, float] = field(default_factory=_only_nmc)
    climate: Climate = field(default_factory=Climate)
    c_rate: tuple[float, float] = (0.5, 2.0)
    start: date = date(2023, 1, 2)
    mean_days_between: float = 7.0
    age_days: tuple[float, float] = (0.0, 2700.0)
    full_cycles_per_day: tuple[float, float] = (0.15, 0.45)
    depth_of_discharge: tuple[float, float] = (0.3, 0.7)
    parked_soc: tuple[float, float] = (0.45, 0.8)
    driving_c_rate: tuple[float, float] = (0.15, 0.6)
    sample_interval_s: float = 25.0
    rest_s: tuple[float, float] = (300.0, 600.0)
    record_charges: bool = False
    charge_c_rate: float = 0.5
    charge_interval_s: float = 60.0
    noise: SensorNoise = field(default_factory=SensorNoise)
    variation: Variation = field(default_factory=Variation)

    def __post_init__(self) -> None:
        """Refuse nonsense once, at the door."""
        _integer("n_vehicles", self.n_vehicles, 1, MAX_VEHICLES)
        _integer("n_cycles", self.n_cycles, 1, None)
        _integer("seed", self.seed, 0, None)
        _shares(self.chemistry_shares)
        _number("climate.mean_c", self.climate.mean_c, -30.0, 50.0)
        _number("climate.seasonal_c", self.climate.seasonal_c, 0.0, 30.0)
        _number("climate.warmest_day", self.climate.warmest_day, 1, 366)
        _number("climate.vehicle_spread_c", self.climate.vehicle_spread_c, 0.0, 10.0)
        _number("climate.weather_spread_c", self.climate.weather_spread_c, 0.0, 10.0)
        if not isinstance(self.start, date):
            raise _refuse("start", self.start, "a date")
        _range("c_rate", self.c_rate, 0.05, 5.0)
        _number("mean_days_between", self.mean_days_between, 1.0, 365.0)
        _range("age_days", self.age_days, 0.0, 20.0 * DAYS_PER_YEAR)
        _range("full_cycles_per_day", self.full_cycles_per_day, 0.0, 10.0)
        _range("depth_of_discharge", self.depth_of_discharge, 0.0, 1.0)
        _range("parked_soc", self.parked_soc, 0.0, 1.0)
        _range("driving_c_rate", self.driving_c_rate, 0.0, 5.0)
        _number("sample_interval_s", self.sample_interval_s, 2.0, 120.0)
        _range("rest_s", self.rest_s, 0.0, 86_400.0)
        _number("charge_c_rate", self.charge_c_rate, 0.3, 1.0)
        _number("charge_interval_s", self.charge_interval_s, 2.0, 120.0)
        for part, names in (
            (self.noise, ("voltage_v", "current_a", "temperature_c", "capacity_share")),
            (self.variation, ("capacity", "resistance", "ageing")),
        ):
            for name in names:
                _number(f"{_label(part)}.{name}", getattr(part, name), 0.0, 1.0)
        for name in ("voltage_step_v", "current_step_a", "temperature_step_c"):
            _number(f"noise.{name}", getattr(self.noise, name), 1e-6, 1.0)


def _label(part: SensorNoise | Variation) -> str:
    return "noise" if isinstance(part, SensorNoise) else "variation"


def _refuse(name: str, given: object, expected: str) -> DataError:
    return DataError(f"fleet plan: {name} is {given!r}, expected {expected}")


def _integer(name: str, given: object, low: int, high: int | None) -> None:
    if not isinstance(given, int) or isinstance(given, bool) or given < low:
        allowed = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise _refuse(name, given, f"an integer {allowed}")
    if high is not None and given > high:
        raise _refuse(name, given, f"an integer from {low} to {high}")


def _is_number(given: object, low: float, high: float) -> bool:
    is_real = isinstance(given, int | float) and not isinstance(given, bool)
    return is_real and low <= given <= high  # type: ignore[operator]  # is_real narrows it


def _number(name: str, given: object, low: float, high: float) -> None:
    if not _is_number(given, low, high):
        raise _refuse(name, given, f"a number from {low:g} to {high:g}")


def _range(name: str, given: object, low: float, high: float) -> None:
    ordered = (
        isinstance(given, tuple)
        and len(given) == 2  # noqa: PLR2004  # the two ends of a range
        and all(_is_number(end, low, high) for end in given)
        and given[0] <= given[1]
    )
    if not ordered:
        raise _refuse(name, given, f"a range (low, high) from {low:g} to {high:g}")


def _shares(given: Mapping[str, float]) -> None:
    known = ", ".join(CHEMISTRIES)
    if not isinstance(given, Mapping):
        raise _refuse("chemistry_shares", given, "a mapping of names to shares")
    for name, share in given.items():
        if name not in CHEMISTRIES:
            raise _refuse("chemistry_shares", dict(given), f"names among {known}")
        _number(f"chemistry_shares[{name}]", share, 0.0, 1.0)
    if not math.isclose(sum(given.values()), 1.0, abs_tol=1e-9):
        raise _refuse("chemistry_shares", dict(given), "shares that sum to 1")

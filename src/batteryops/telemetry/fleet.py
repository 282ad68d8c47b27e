"""The vehicles of a simulated fleet: who they are, and what life has made of their cells."""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray
from scipy.special import ndtri

from batteryops.telemetry.ageing import ZERO_CELSIUS_K, FloatArray, Stress, age
from batteryops.telemetry.cell_model import Cells
from batteryops.telemetry.chemistry import CHEMISTRIES, Chemistry
from batteryops.telemetry.fleet_plan import FleetPlan

LEAST_CAPACITY_SHARE: Final = 0.2
"""No cell falls below this share of its first capacity: the laws were fitted far above it."""

_YOUTH_SEGMENTS: Final = 24  # the life before the first record follows the seasons this finely
_LARGEST_CAPACITY_ERROR_SIGMA: Final = 2.0


class Streams(NamedTuple):
    """A vehicle's sources of randomness, apart so that more of one does not change another."""

    life: Generator
    schedule: Generator
    weather: Generator
    discharge_noise: Generator
    charge_noise: Generator


@dataclass(frozen=True, slots=True)
class Vehicle:
    """One vehicle's place in the fleet.

    Args:
        asset_id: its name.
        chemistry: its cell.
        number: position in the plan, from 0; it decides the vehicle's randomness.
    """

    asset_id: str
    chemistry: Chemistry
    number: int

    def streams(self, plan: FleetPlan) -> "Streams":
        """Its own randomness, whatever the other vehicles do.

        The same as `SeedSequence(plan.seed).spawn(n)[self.number].spawn(5)` for any n above it.
        """
        own = SeedSequence(plan.seed, spawn_key=(self.number,))
        return Streams(*(default_rng(child) for child in own.spawn(5)))


def vehicles(plan: FleetPlan) -> list[Vehicle]:
    """The fleet, sorted by name.

    Vehicle k takes the chemistry that is furthest behind its share of k + 1 vehicles, so that a
    larger fleet begins with the smaller one.

    Examples:
        >>> plan = FleetPlan(n_vehicles=4, chemistry_shares={"NMC": 0.75, "LFP": 0.25})
        >>> [vehicle.asset_id for vehicle in vehicles(plan)]
        ['EV-0001', 'EV-0002', 'EV-0003', 'EV-LFP-0001']
    """
    counts = dict.fromkeys(plan.chemistry_shares, 0)
    fleet = []
    for number in range(plan.n_vehicles):
        behind = {
            name: share * (number + 1) - counts[name]
            for name, share in plan.chemistry_shares.items()
        }
        name = max(behind, key=lambda name: behind[name])
        counts[name] += 1
        chemistry = CHEMISTRIES[name]
        fleet.append(Vehicle(f"{chemistry.asset_prefix}{counts[name]:04d}", chemistry, number))
    return sorted(fleet, key=lambda vehicle: vehicle.asset_id)


@dataclass(frozen=True, slots=True)
class Lives:
    """What has become of some vehicles at each reference discharge, arrays of (vehicles, cycles).

    Args:
        day: days since the plan's start.
        capacity_ah: charge between state of charge 1 and 0.
        r0_ohm: ohmic resistance at 25 degC.
        r1_ohm: resistance of the RC pair at 25 degC.
        ambient_c: air temperature.
        current_a: of the reference discharge.
        rest_s: recorded after it.
        arrival_soc: state of charge when the charge before it begins.
        capacity_error: measurement error of the label, as a share.
        cooling: heat transfer to the air over the chemistry's own.
        recorded: whether the discharge is on record.
    """

    day: FloatArray
    capacity_ah: FloatArray
    r0_ohm: FloatArray
    r1_ohm: FloatArray
    ambient_c: FloatArray
    current_a: FloatArray
    rest_s: FloatArray
    arrival_soc: FloatArray
    capacity_error: FloatArray
    cooling: FloatArray
    recorded: NDArray[np.bool_]

    def cells(self, chemistry: Chemistry) -> Cells:
        """The cells before each discharge, vehicle by vehicle."""
        return Cells(
            chemistry,
            capacity_ah=self.capacity_ah.ravel(),
            r0_ohm=self.r0_ohm.ravel(),
            r1_ohm=self.r1_ohm.ravel(),
            ambient_c=self.ambient_c.ravel(),
            cooling=self.cooling.ravel(),
        )


def live(plan: FleetPlan, group: list[Vehicle], chemistry: Chemistry) -> Lives:
    """Draw vehicles of one chemistry and age them up to each of their reference discharges.

    Between two of these a vehicle has driven: its full cycles per day times the days, and the
    reference cycle itself. Its cell has the season's temperature at its place. Both resistances
    grow alike, since the laws were measured on their sum.
    """
    n = plan.n_cycles
    streams = [vehicle.streams(plan) for vehicle in group]
    habits = np.stack([own.life.random(11) for own in streams])[:, :, np.newaxis]
    # one row per cycle, so that the first cycles do not depend on how many follow
    schedule = np.stack([own.schedule.random((n, 4)) for own in streams])
    weather = np.stack([own.weather.standard_normal((n, 2)) for own in streams])

    def between(ends: tuple[float, float], uniform: FloatArray) -> FloatArray:
        return ends[0] + (ends[1] - ends[0]) * uniform

    def spread(sigma: float, uniform: FloatArray) -> FloatArray:
        factor: FloatArray = np.exp(sigma * ndtri(uniform))
        return factor

    youth = between(plan.age_days, habits[:, 0])
    daily = between(plan.full_cycles_per_day, habits[:, 1])
    soc = between(plan.parked_soc, habits[:, 2])
    depth = between(plan.depth_of_discharge, habits[:, 3])
    driving = between(plan.driving_c_rate, habits[:, 4])
    place_c = plan.climate.vehicle_spread_c * ndtri(habits[:, 5])
    capacity_fade = spread(plan.variation.ageing, habits[:, 6])
    resistance_rise = spread(plan.variation.ageing, habits[:, 7])
    new_ah = chemistry.full_ah * spread(plan.variation.capacity, habits[:, 8])
    r0_factor = spread(plan.variation.resistance, habits[:, 9])
    r1_factor = spread(plan.variation.resistance, habits[:, 10])

    gaps = plan.mean_days_between * (0.5 + schedule[:, :, 0])
    day = np.cumsum(gaps, axis=1)
    # a life: its youth in even segments, then the gaps between reference discharges
    days = np.concatenate(
        [np.repeat((youth + gaps[:, :1]) / _YOUTH_SEGMENTS, _YOUTH_SEGMENTS, axis=1), gaps[:, 1:]],
        axis=1,
    )
    references = np.zeros(days.shape[1])
    references[_YOUTH_SEGMENTS:] = 1.0
    middle = np.cumsum(days, axis=1) - 0.5 * days - youth
    first_day = float(plan.start.timetuple().tm_yday)
    stress = Stress(
        temperature_k=plan.climate.season_c(first_day + middle) + place_c + ZERO_CELSIUS_K,
        soc=soc,
        voltage_v=chemistry.open_circuit(soc),
        depth=depth,
        c_rate=driving,
    )
    damage = age(chemistry.ageing, stress, days, daily * days + references)
    kept = 1.0 - capacity_fade * damage.capacity_loss[:, _YOUTH_SEGMENTS - 1 :]
    growth = 1.0 + resistance_rise * damage.resistance_growth[:, _YOUTH_SEGMENTS - 1 :]

    low, high = plan.c_rate
    error = np.clip(weather[:, :, 1], -_LARGEST_CAPACITY_ERROR_SIGMA, _LARGEST_CAPACITY_ERROR_SIGMA)
    return Lives(
        day=day,
        capacity_ah=new_ah * np.maximum(kept, LEAST_CAPACITY_SHARE),
        r0_ohm=chemistry.r0_ohm * r0_factor * growth,
        r1_ohm=chemistry.r1_ohm * r1_factor * growth,
        ambient_c=plan.climate.season_c(first_day + day)
        + place_c
        + plan.climate.weather_spread_c * weather[:, :, 0],
        current_a=chemistry.nominal_ah * low * (high / low) ** schedule[:, :, 1],
        rest_s=between(plan.rest_s, schedule[:, :, 2]),
        arrival_soc=between(plan.parked_soc, schedule[:, :, 3]) * 0.5,
        capacity_error=plan.noise.capacity_share * error,
        cooling=np.ones_like(day),
        recorded=np.ones(day.shape, dtype=np.bool_),
    )

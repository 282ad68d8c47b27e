"""What happens to a simulated fleet while it is on record, and when.

An event changes what is recorded from its day on, and nothing before: the vehicles, their ageing
and their randomness stay those of the plan, so that a fleet with an event and the same one without
are alike to the bit until that day. How batteries age after it is the plan's, too: a winter of some
weeks, or another route, matters little to years of ageing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.telemetry.ageing import FloatArray
from batteryops.telemetry.chemistry import CHEMISTRIES, Chemistry
from batteryops.telemetry.fleet import Lives
from batteryops.telemetry.fleet_plan import FleetPlan

_C_RATES: Final = (0.05, 5.0)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What vehicles of one chemistry would have recorded if nothing had happened."""

    lives: Lives
    plan: FleetPlan
    chemistry: Chemistry


class Event(Protocol):
    """Something that happens to a fleet."""

    def change(self, lives: Lives, drawn: Drawn) -> Lives:
        """The lives with it.

        Args:
            lives: with the events before it.
            drawn: without any.
        """
        ...


@dataclass(frozen=True, slots=True)
class NewChemistry:
    """Vehicles of a chemistry join the fleet: before that day none of them is on record.

    Args:
        day: since the plan's start, 0 or more.
        chemistry: which; the plan says how many vehicles have it.
    """

    day: float
    chemistry: str = "LFP"

    def __post_init__(self) -> None:
        """Refuse a chemistry that there is not."""
        _at_least(self.day, 0.0, "the day of a new chemistry")
        if self.chemistry not in CHEMISTRIES:
            raise DataError(
                f"new chemistry {self.chemistry!r} is not among {', '.join(CHEMISTRIES)}"
            )

    def change(self, lives: Lives, drawn: Drawn) -> Lives:
        """See `Event`."""
        if drawn.chemistry.name != self.chemistry:
            return lives
        return replace(lives, recorded=lives.recorded & (lives.day >= self.day))


@dataclass(frozen=True, slots=True)
class ThermalManagement:
    """Another cooling: from that day on heat passes to the air so many times as well.

    Args:
        day: since the plan's start, 0 or more.
        factor: on the heat transfer, above 0. Air that is blown over cells takes 2 to 4 times the
            heat that still air does.
    """

    day: float
    factor: float = 2.5

    def __post_init__(self) -> None:
        """Refuse what is no cooling."""
        _at_least(self.day, 0.0, "the day of another thermal management")
        if not self.factor > 0:
            raise DataError(f"factor on the heat transfer is {self.factor}, expected above 0")

    def change(self, lives: Lives, drawn: Drawn) -> Lives:
        """See `Event`."""
        del drawn
        return replace(
            lives, cooling=lives.cooling * np.where(_since(lives, self.day), self.factor, 1)
        )


@dataclass(frozen=True, slots=True)
class RouteChange:
    """Another kind of driving, from the city to the highway: other currents from that day on.

    Where a discharge lay between the plan's lowest and highest current it lies between these.

    Args:
        day: since the plan's start, 0 or more.
        c_rate: lowest and highest current over nominal capacity, 0.05 to 5 per hour.
    """

    day: float
    c_rate: tuple[float, float] = (1.3, 2.2)

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        _at_least(self.day, 0.0, "the day of a change of routes")
        low, high = self.c_rate
        if not _C_RATES[0] <= low <= high <= _C_RATES[1]:
            raise DataError(
                f"currents of a change of routes are {self.c_rate}, expected a range (low, high) "
                f"from {_C_RATES[0]:g} to {_C_RATES[1]:g}"
            )

    def change(self, lives: Lives, drawn: Drawn) -> Lives:
        """See `Event`."""
        nominal = drawn.chemistry.nominal_ah
        (low, high), (new_low, new_high) = drawn.plan.c_rate, self.c_rate
        place: FloatArray = np.zeros_like(lives.day)
        if high > low:
            place = np.log(drawn.lives.current_a / (nominal * low)) / np.log(high / low)
        changed = nominal * new_low * (new_high / new_low) ** place
        return replace(lives, current_a=np.where(_since(lives, self.day), changed, lives.current_a))


@dataclass(frozen=True, slots=True)
class Winter:
    """Cold air for some weeks: it falls over some days, stays, and rises as it fell.

    Args:
        day: since the plan's start on which the air begins to fall, 0 or more.
        days: until it is as warm as before, at least twice `onset_days`.
        fall_k: by how much it falls, above 0.
        onset_days: in which it falls, above 0.
    """

    day: float
    days: float = 56.0
    fall_k: float = 15.0
    onset_days: float = 7.0

    def __post_init__(self) -> None:
        """Refuse what is no winter."""
        _at_least(self.day, 0.0, "the day of a winter")
        if not (self.fall_k > 0 and self.onset_days > 0 and self.days >= 2 * self.onset_days):
            raise DataError(
                f"a winter of {self.days:g} days that falls by {self.fall_k:g} K in "
                f"{self.onset_days:g} days; expected both above 0, and time to rise again"
            )

    def fallen_k(self, day: FloatArray) -> FloatArray:
        """By how much the air is colder on these days.

        Examples:
            >>> winter = Winter(10.0, days=30.0, fall_k=12.0, onset_days=6.0)
            >>> winter.fallen_k(np.array([10.0, 13.0, 25.0, 37.0, 40.0])).tolist()
            [0.0, 6.0, 12.0, 6.0, 0.0]
        """
        ends = self.day, self.day + self.onset_days, self.day + self.days - self.onset_days
        fallen: FloatArray = np.interp(
            day, [*ends, self.day + self.days], [0.0, self.fall_k, self.fall_k, 0.0]
        )
        return fallen

    def change(self, lives: Lives, drawn: Drawn) -> Lives:
        """See `Event`."""
        del drawn
        return replace(lives, ambient_c=lives.ambient_c - self.fallen_k(lives.day))


def happen(events: Sequence[Event], lives: Lives, plan: FleetPlan, chemistry: Chemistry) -> Lives:
    """What vehicles of one chemistry record where these events happen to them.

    Args:
        events: in any order, but that of two changes of routes the one given last lasts.
        lives: as drawn from the plan.
        plan: that they were drawn from.
        chemistry: of the vehicles.
    """
    drawn = Drawn(lives, plan, chemistry)
    for event in events:
        lives = event.change(lives, drawn)
    return lives


def _since(lives: Lives, day: float) -> NDArray[np.bool_]:
    since: NDArray[np.bool_] = lives.day >= day
    return since


def _at_least(given: float, least: float, what: str) -> None:
    if not given >= least:
        raise DataError(f"{what} is {given}, expected {least:g} or more")

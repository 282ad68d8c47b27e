"""What the loop found of what was injected: when, under which name, and what it raised for nothing.

Only here do detections and the truth meet. A monitoring run names a cause for each feature in
alert; `ageing` is expected, and no alarm.

* A cause is newly named in a week if it was named in none of the `MEMORY_WEEKS` weeks before it.
* An injection is pending from its week on, until it is detected under its own name, the next one
  comes, or `HORIZON_WEEKS` have passed.
* Its detection is the first week, while it is pending, in which its own cause is named; else the
  first in which another cause is newly named, that with the most features: found, and misnamed. A
  cause that is still named from before detects nothing, but for that of the injection itself.
* A newly named cause is explained by an injection that is pending, whatever its name, and by any
  that showed before, under its own name: of what is over (winter) its going away is seen as well.
* A week in which a newly named cause is explained by nothing is a false alarm, one a week.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from batteryops.lifecycle.time_lapse.world import Injection

AGEING: Final = "ageing"
MEMORY_WEEKS: Final = 3
HORIZON_WEEKS: Final = 6

Week = Mapping[str, int]
"""Causes of the features in alert, and how many features each has."""


@dataclass(frozen=True, slots=True)
class Detection:
    """An injection that was found.

    Args:
        week: in whose end's run it was named.
        injection: what had been injected.
        named_cause: what it was called.
    """

    week: int
    injection: Injection
    named_cause: str

    @property
    def delay_weeks(self) -> int:
        """Weeks after the one from whose beginning on it showed: 0 is at that week's end."""
        return self.week - self.injection.week

    @property
    def is_right(self) -> bool:
        """Whether it was given its own name."""
        return self.named_cause == self.injection.cause

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "week": self.week,
            "cause": self.injection.cause,
            "named_cause": self.named_cause,
        }


@dataclass(frozen=True, slots=True)
class FalseAlarm:
    """A cause that was newly named where nothing had happened."""

    week: int
    named_cause: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {"week": self.week, "named_cause": self.named_cause}


@dataclass(frozen=True, slots=True)
class Score:
    """Detections in the order of their injections, and false alarms."""

    detected: tuple[Detection, ...]
    false_alarms: tuple[FalseAlarm, ...]


def score(weeks: Sequence[Week], injections: Sequence[Injection]) -> Score:
    """Hold what was named against what was injected, as the module says.

    Args:
        weeks: what each week's run named.
        injections: in the order of their weeks.

    Examples:
        >>> winter = Injection(2, "climate", until=9)
        >>> found = score([{}, {"unknown": 1}, {}, {"climate": 4}], [winter])
        >>> [(one.week, one.delay_weeks) for one in found.detected]
        [(3, 1)]
        >>> [one.week for one in found.false_alarms]
        [1]
    """
    named = [{cause: n for cause, n in week.items() if cause != AGEING} for week in weeks]
    new = [_new(named, week) for week in range(len(named))]
    pending = [_pending(injections, at, len(named)) for at in range(len(injections))]
    found = tuple(
        detection
        for injection, span in zip(injections, pending, strict=True)
        if (detection := _detection(injection, span, named, new)) is not None
    )
    ended = {one.injection: one.week for one in found if one.is_right}
    alarms = []
    for week, causes in enumerate(new):
        for injection, span in zip(injections, pending, strict=True):
            if injection.week <= week:
                causes.pop(injection.cause, None)
            if week in span and week <= ended.get(injection, week):
                causes.clear()
        if causes:
            alarms.append(FalseAlarm(week, _most(causes)))
    return Score(found, tuple(alarms))


def _new(named: Sequence[Week], week: int) -> dict[str, int]:
    """Causes that are named in a week, and were not for some weeks before it."""
    before = {cause for past in named[max(0, week - MEMORY_WEEKS) : week] for cause in past}
    return {cause: n for cause, n in named[week].items() if cause not in before}


def _pending(injections: Sequence[Injection], at: int, weeks: int) -> range:
    """The weeks in which an injection may be found, as long as it was not."""
    begin = injections[at].week
    following = injections[at + 1].week if at + 1 < len(injections) else weeks
    return range(begin, min(following, begin + HORIZON_WEEKS, weeks))


def _detection(
    injection: Injection, span: range, named: Sequence[Week], new: Sequence[Week]
) -> Detection | None:
    for week in span:
        if injection.cause in named[week]:
            return Detection(week, injection, injection.cause)
    for week in span:
        if new[week]:
            return Detection(week, injection, _most(new[week]))
    return None


def _most(causes: Week) -> str:
    """The cause of most features; of equals the first by name."""
    return min(causes, key=lambda cause: (-causes[cause], cause))

"""The year in one picture: errors of three fleets of models, and below it what happened."""

import math
from collections.abc import Callable, Iterable
from html import escape
from typing import Final, NamedTuple

from batteryops.lifecycle.time_lapse.drive import FLEETS, TimeLapse

NAMES: Final = {
    "new_chemistry": "a new chemistry joins",
    "thermal_management": "another cooling",
    "operating_mode": "city to highway",
    "climate": "winter",
    "software_update": "a library update",
}
"""What was injected, in words."""

LANES: Final = (
    "detected",
    "false alarm",
    "labels asked for",
    "retraining",
    "promotion",
    "rollback",
)

_WIDTH: Final = 1100.0
_LEFT, _RIGHT = 118.0, 1084.0
_TOP, _BOTTOM = 74.0, 330.0
_LANE: Final = 22.0
_LABEL_ROWS: Final = 3
_TICKS_AH: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_WEEK_TICKS: Final = 13

Scale = Callable[[float], float]
"""From what is measured to where it is drawn."""


class Mark(NamedTuple):
    """Something that happened in a week."""

    lane: str
    week: float
    told: str


def marks_of(year: TimeLapse) -> list[Mark]:
    """What happened, by lane. What a look at a week's end did is drawn at that end."""
    marks = [
        Mark("detected", found.week + 1, f"week {found.week}: named {found.named_cause}")
        for found in year.score.detected
    ]
    marks += [
        Mark("false alarm", alarm.week + 1, f"week {alarm.week}: {alarm.named_cause}")
        for alarm in year.score.false_alarms
    ]
    for seen in year.weeks:
        end = seen.week + 1
        if seen.loop.ask:
            told = f"week {seen.week}: of {len(seen.loop.ask)} vehicles"
            marks.append(Mark("labels asked for", end, told))
        for lane, done in (
            ("retraining", seen.loop.retrainings),
            ("promotion", seen.loop.promotions),
            ("rollback", seen.loop.rollbacks),
        ):
            marks += [Mark(lane, end, f"week {seen.week}: {one.reason}") for one in done]
    return marks


def draw_year(year: TimeLapse) -> str:
    """An `svg` element; its classes are the names of fleets and of lanes, `axis`, `injection`."""
    weeks = len(year.weeks)
    errors = {fleet: [seen.mae_ah[fleet] for seen in year.weeks] for fleet in FLEETS}
    known = [error for series in errors.values() for error in series if error > 0]
    low, high = (min(known) / 1.2, max(known) * 1.2) if known else (0.01, 1.0)

    def across(week: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * week / weeks

    def up(error: float) -> float:
        share = math.log(max(error, low) / low) / math.log(high / low)
        return _BOTTOM - (_BOTTOM - _TOP) * share

    height = _BOTTOM + 34.0 + _LANE * len(LANES) + 8.0
    title = "mean absolute error by week of three fleets of models, and what happened"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{title}">',
        f"<title>{title}</title>",
        *_grid(across, up, weeks, (low, high)),
        *_injections(year, across, height),
    ]
    for fleet, series in errors.items():
        points = " ".join(
            f"{across(week + 0.5):.1f},{up(error):.1f}" for week, error in enumerate(series)
        )
        parts.append(f'<polyline class="{fleet}" points="{points}"/>')
    for place, lane in enumerate(LANES):
        y = _BOTTOM + 34.0 + _LANE * (place + 0.5)
        parts += _lane(lane, y, (mark for mark in marks_of(year) if mark.lane == lane), across)
    return "".join([*parts, "</svg>"])


def _grid(across: Scale, up: Scale, weeks: int, span: tuple[float, float]) -> Iterable[str]:
    for tick in _TICKS_AH:
        if span[0] <= tick <= span[1]:
            y = up(tick)
            yield f'<line class="axis" x1="{_LEFT:g}" x2="{_RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield (
                f'<text class="axis" x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">'
                f"{tick:g} Ah</text>"
            )
    for week in range(0, weeks + 1, max(1, round(weeks / _WEEK_TICKS))):
        yield (
            f'<text class="axis" x="{across(week):.1f}" y="{_BOTTOM + 16:g}" '
            f'text-anchor="middle">{week}</text>'
        )


def _injections(year: TimeLapse, across: Scale, height: float) -> Iterable[str]:
    for number, injection in enumerate(year.truth.injections):
        x = across(injection.week)
        if injection.until is not None:
            width = across(min(injection.until, len(year.weeks))) - x
            yield (
                f'<rect class="lasting" x="{x:.1f}" y="{_TOP:g}" width="{width:.1f}" '
                f'height="{_BOTTOM - _TOP:g}"/>'
            )
        row = 18.0 + 17.0 * (number % _LABEL_ROWS)
        side, anchor = (4.0, "start") if x < (_LEFT + _RIGHT) / 2 else (-4.0, "end")
        yield (
            f'<line class="injection" x1="{x:.1f}" x2="{x:.1f}" y1="{row - 10:g}" '
            f'y2="{height - 6:g}"/>'
            f'<text class="injection" x="{x + side:.1f}" y="{row:g}" text-anchor="{anchor}">'
            f"{escape(NAMES[injection.cause])}, week {injection.week}</text>"
        )


def _lane(lane: str, y: float, marks: Iterable[Mark], across: Scale) -> Iterable[str]:
    yield f'<line class="axis" x1="{_LEFT:g}" x2="{_RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield f'<text class="axis" x="{_LEFT - 8:g}" y="{y + 4:.1f}" text-anchor="end">{lane}</text>'
    for mark in marks:
        yield (
            f'<circle class="{lane.replace(" ", "-")}" cx="{across(mark.week):.1f}" cy="{y:.1f}" '
            f'r="5"><title>{escape(mark.told)}</title></circle>'
        )

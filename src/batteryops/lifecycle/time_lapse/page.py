"""The page of a year: errors of three fleets of models, what was found of what, what was done."""

from typing import Final

import jinja2

from batteryops.lifecycle.time_lapse.drive import AT_ONCE, FROZEN, LOOP, WEEKLY, TimeLapse
from batteryops.lifecycle.time_lapse.figures import NAMES, draw_year

FLEET_WORDS: Final = {
    FROZEN: "frozen: the first model, for ever",
    WEEKLY: "weekly: refitted every Sunday on all labels, in service after seven days of trial",
    AT_ONCE: "weekly, in service at once and untried",
    LOOP: "the loop",
}


def render_year(year: TimeLapse) -> str:
    """The page as HTML; everything it needs is inside, it opens without a network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("batteryops.lifecycle"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    plan, mae = year.plan, year.mae_ah
    return environment.get_template("time_lapse.html").render(
        plan=plan,
        trips=sum(week.trips for week in year.weeks),
        labels=sum(week.labels for week in year.weeks),
        fleets=[(fleet, words, f"{mae[fleet]:.4f}") for fleet, words in FLEET_WORDS.items()],
        against_frozen=f"{mae[LOOP] / mae[FROZEN]:.2f}",
        against_weekly=f"{mae[LOOP] / mae[WEEKLY]:.2f}",
        against_at_once=f"{mae[LOOP] / mae[AT_ONCE]:.2f}",
        weekly_retrainings=year.weekly_retrainings,
        figure=draw_year(year),
        injections=injection_rows(year),
        retrainings=done_rows(year),
        alarms=[(alarm.week, alarm.named_cause) for alarm in year.score.false_alarms],
        seconds=sorted(year.seconds.items(), key=lambda part: -part[1]),
    )


def injection_rows(year: TimeLapse) -> list[list[str]]:
    """Week, cause, what it was named, after how many weeks, and whether that is right."""
    found = {one.injection: one for one in year.score.detected}
    rows = []
    for injection in year.truth.injections:
        detection = found.get(injection)
        rows.append(
            [
                str(injection.week),
                NAMES[injection.cause],
                injection.cause,
                "not found" if detection is None else detection.named_cause,
                "-" if detection is None else str(detection.delay_weeks),
                "missed" if detection is None else "right" if detection.is_right else "wrong",
            ]
        )
    return rows


def done_rows(year: TimeLapse) -> list[list[str]]:
    """Everything that the loop did, in order: week, what, version, trigger, reason, outcome."""
    rows = []
    for seen in year.weeks:
        for what, done in (
            ("retraining", seen.loop.retrainings),
            ("promotion", seen.loop.promotions),
            ("rollback", seen.loop.rollbacks),
        ):
            rows += [
                [
                    str(seen.week),
                    what,
                    "-" if one.version is None else str(one.version),
                    one.trigger,
                    one.reason,
                    one.outcome or "-",
                ]
                for one in done
            ]
    return rows

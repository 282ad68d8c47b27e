"""Whether to retrain now: five triggers and the judgement over them, from facts to one reason.

Nothing here looks at a clock or a store. Equal facts give equal decisions, so that a check may run
anywhere, as often as one likes, and what it decided can be repeated from the record.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from batteryops.lifecycle.trigger_facts import (
    TRIGGERS,
    Facts,
    FeatureFact,
    Trigger,
    TriggerRules,
)
from batteryops.monitoring.drift_detection import AGEING
from batteryops.records.retraining_runs import TRIAL, RetrainingRun

__all__ = [
    "TRIGGERS",
    "Action",
    "Decision",
    "Facts",
    "FeatureFact",
    "Fired",
    "Trigger",
    "TriggerRules",
    "decide",
    "overtakes",
]

Action = Literal["retrain", "ask_for_labels", "wait", "nothing"]

_FEWEST_VEHICLES: Final = 2  # with labels of one, nothing is left to judge what was learned
_WEEK: Final = timedelta(days=7)
_SENSOR_FAULT: Final = "sensor_fault"
_NAMED: Final = 5  # vehicles or profiles that a reason names
_ASKING: Final[frozenset[Trigger]] = frozenset({"manual", "error", "drift"})
_SUFFICIENT: Final[frozenset[Trigger]] = frozenset({"manual", "error"})


class Fired(NamedTuple):
    """A trigger that fired.

    Attributes:
        trigger: which.
        reason: a clause with its numbers.
    """

    trigger: Trigger
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    Args:
        action: `retrain`; `ask_for_labels`, for there are none or too few to learn from; `wait`,
            where something fired and something else holds it back; `nothing`, where nothing fired.
        trigger: that names the run or the question, or the strongest that has to wait; None where
            nothing fired.
        reason: one sentence with its numbers.
        fired: all that fired, the strongest first. Whoever carries this out remembers `now` as
            `last_weekly_at` where `weekly` is among them, whatever the action: a week has one
            weekly check, and one that was missed is made up for once.
        held_back: what kept a trigger from firing or a run from being started, a clause each.
    """

    action: Action
    trigger: Trigger | None
    reason: str
    fired: tuple[Fired, ...] = ()
    held_back: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            "action": self.action,
            "trigger": self.trigger,
            "reason": self.reason,
            "fired": [one._asdict() for one in self.fired],
            "held_back": list(self.held_back),
        }


def decide(facts: Facts, rules: TriggerRules) -> Decision:
    """What the facts ask for.

    A run that is open ends first. A request overrides cooldown and budget, and nothing overrides
    the need for labels: without any, or with those of one vehicle, there is nothing to learn from,
    or nothing to judge by what was learned. Drift says that batteries are unlike those of training,
    not how they are: it asks for labels until there are enough.

    Args:
        facts: what is known.
        rules: the limits.

    Examples:
        >>> from datetime import UTC
        >>> from batteryops.settings import load_settings
        >>> now = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
        >>> facts = Facts(
        ...     now=now,
        ...     last_weekly_at=datetime(2026, 3, 1, 2, 5, tzinfo=UTC),
        ...     mae_ah=0.041, mae_low_ah=0.034, n_labels=640, n_vehicles=52,
        ...     fresh_labels=812, fresh_label_vehicles=60,
        ... )
        >>> decided = decide(facts, TriggerRules.of(load_settings()))
        >>> decided.action, decided.trigger
        ('retrain', 'error')
        >>> print(decided.reason)
        Retrain, as the MAE is 0.0410 Ah and with its confidence bound at least 0.0340, above 0.03,
        by 640 labels of 52 vehicles; 812 fresh labels of 60 vehicles are there to learn from.
    """
    looks = {
        "manual": _manual,
        "error": _error,
        "drift": _drift,
        "new_trips": _new_trips,
        "weekly": _weekly,
    }
    fired: list[Fired] = []
    doubts: list[str] = []
    for trigger in TRIGGERS:
        if trigger not in rules.triggers:
            continue
        why, against = looks[trigger](facts, rules)
        doubts += against
        if why:
            fired.append(Fired(trigger, why))
    if not fired:
        return Decision("nothing", None, _quiet(facts, rules, doubts), (), tuple(doubts))
    return _judged(tuple(fired), tuple(doubts), facts, rules)


def overtakes(decision: Decision, run: RetrainingRun, facts: Facts, *, min_days: float) -> bool:
    """Whether what would be begun if a run on trial were not there is to end that trial.

    A challenger of every week must not hold up what an error, drift or a person asks for. Any other
    has the days of a trial for itself, and is overtaken then once there are twice as many fresh
    labels as it was begun with: a much better one can be made, and each trial in turn gets longer
    than the one before it.

    Args:
        decision: as `decide` gives it without the open run.
        run: on trial, and not ended by the look that was just taken; `fresh_labels` of its document
            says what there was when it was begun.
        facts: of now.
        min_days: that a trial takes.
    """
    if decision.action != "retrain" or run.state != TRIAL:
        return False
    presses, pressing = decision.trigger in _ASKING, run.trigger in _ASKING
    if pressing and not presses:
        return False
    if presses > pressing or decision.trigger == "manual":
        return True
    had = int(run.document.get("fresh_labels", 0))
    return facts.now - run.started_at >= timedelta(days=min_days) and facts.fresh_labels >= 2 * had


def _judged(
    fired: tuple[Fired, ...], doubts: tuple[str, ...], facts: Facts, rules: TriggerRules
) -> Decision:
    """What follows where something fired."""
    strongest = fired[0]
    if holding := _holding(strongest.trigger, facts, rules):
        return _waits(fired, (*holding, *doubts))
    too_few = _too_few(facts, rules)
    if _can_learn(facts):
        # an error is known by labels of its own number, and a person may ask for anything
        able = [one for one in fired if one.trigger in _SUFFICIENT or not too_few]
        if able:
            passed = () if strongest in able else (f"{strongest.trigger}: {too_few}",)
            return _retrains(able[0], fired, (*passed, *doubts), facts)
    if strongest.trigger not in _ASKING:
        return _waits(fired, (too_few, *doubts))
    asked = facts.last_asked_at
    if asked is not None and _within(asked, facts.now, rules.ask_again_days):
        already = (
            f"{too_few}, for which was asked on {_told(asked)} and is again after "
            f"{rules.ask_again_days:g} days"
        )
        return _waits(fired, (already, *doubts))
    reason = f"Ask for labels first, as {strongest.reason}, but {too_few}{_of_whom(facts)}."
    return Decision("ask_for_labels", strongest.trigger, reason, fired, (too_few, *doubts))


def _retrains(
    leading: Fired, fired: tuple[Fired, ...], held_back: tuple[str, ...], facts: Facts
) -> Decision:
    others = ", ".join(other.trigger for other in fired if other != leading)
    beside = f" (also: {others})" if others else ""
    reason = f"Retrain, as {leading.reason}{beside}; {_labels(facts)} are there to learn from."
    return Decision("retrain", leading.trigger, reason, fired, held_back)


def _waits(fired: tuple[Fired, ...], held_back: tuple[str, ...]) -> Decision:
    strongest, why = fired[0], held_back[0]
    reason = f"Wait, though {strongest.reason}: {why}."
    return Decision("wait", strongest.trigger, reason, fired, held_back)


def _holding(trigger: Trigger, facts: Facts, rules: TriggerRules) -> tuple[str, ...]:
    """What keeps any run from being started, whatever there is to learn from."""
    if (run := facts.open_run) is not None:
        return (f"run {run.run_id} of {_told(run.started_at)} is still open ({run.state})",)
    if trigger == "manual":
        return ()
    held = []
    ended = facts.last_ended_at
    if ended is not None and _within(ended, facts.now, rules.cooldown_days):
        held.append(
            f"the last run ended on {_told(ended)}, and the next may begin "
            f"{rules.cooldown_days:g} days later"
        )
    if facts.runs_in_week >= rules.max_runs_per_week:
        held.append(
            f"{facts.runs_in_week} runs were started in the last seven days, and at most "
            f"{rules.max_runs_per_week} may be"
        )
    return tuple(held)


def _can_learn(facts: Facts) -> bool:
    """Whether there is anything to learn from, and to judge by what was learned."""
    return facts.fresh_label_vehicles >= _FEWEST_VEHICLES


def _too_few(facts: Facts, rules: TriggerRules) -> str:
    """Why drift alone cannot be learned from what labels there are; empty where it can."""
    if not facts.fresh_labels:
        return "there is no fresh label to learn from"
    if facts.fresh_label_vehicles < _FEWEST_VEHICLES:
        return (
            f"one vehicle alone has all fresh labels ({facts.fresh_labels}), and "
            f"{_FEWEST_VEHICLES} are the least to learn from and to judge by"
        )
    if (
        facts.fresh_labels >= rules.min_labels
        and facts.fresh_label_vehicles >= rules.min_label_vehicles
    ):
        return ""
    return (
        f"there are {_labels(facts)}, and where no error is known it is learned from "
        f"{rules.min_labels} of {rules.min_label_vehicles}"
    )


def _labels(facts: Facts) -> str:
    return f"{facts.fresh_labels} fresh labels of {facts.fresh_label_vehicles} vehicles"


def _of_whom(facts: Facts) -> str:
    """Whose labels are wanted, where that is known."""
    if not facts.drifting:
        return ""
    more = len(facts.drifting) - _NAMED
    named = ", ".join(facts.drifting[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"; most wanted are those of {named}, which drift"


Look = tuple[str, list[str]]
"""Why a trigger fired, empty where it did not; and what spoke against it."""


def _manual(facts: Facts, _: TriggerRules) -> Look:
    if not facts.requests:
        return "", []
    first, *others = facts.requests
    more = f" and {len(others)} more" if others else ""
    return f"{first.by}{more} asked for it on {_told(first.at)} ({first.reason!r})", []


def _error(facts: Facts, rules: TriggerRules) -> Look:
    mae, low = facts.mae_ah, facts.mae_low_ah
    if mae is None or not mae > rules.mae_ah:
        return "", []
    if low is None or math.isnan(low):
        against = (
            f"error: the MAE is {mae:.4f} Ah, above {rules.mae_ah:g}, but its confidence bound is "
            "not known"
        )
        return "", [against]
    if not low > rules.mae_ah:
        against = (
            f"error: the MAE is {mae:.4f} Ah, above {rules.mae_ah:g}, but with its confidence "
            f"bound it may be {low:.4f}"
        )
        return "", [against]
    labels, vehicles = facts.n_labels or 0, facts.n_vehicles or 0
    told = (
        f"the MAE is {mae:.4f} Ah and with its confidence bound at least {low:.4f}, above "
        f"{rules.mae_ah:g}, by {labels} labels of {vehicles} vehicles"
    )
    if labels < rules.min_labels or vehicles < rules.min_label_vehicles:
        enough = f"{rules.min_labels} of {rules.min_label_vehicles}"
        return "", [f"error: {told}, and it is believed from {enough} on"]
    return told, []


def _drift(facts: Facts, rules: TriggerRules) -> Look:
    found, against = [], []
    large = [
        (psi, name, status, cause)
        for name in rules.critical_features
        if name in facts.drift
        for psi, status, cause in [facts.drift[name]]
        if psi is not None and psi > rules.psi
    ]
    for psi, name, status, cause in sorted(large, key=lambda one: (-one[0], one[1])):
        told = f"{name} drifts with PSI {psi:.2f}, above {rules.psi:g}"
        if status != "alert":
            against.append(f"drift: {told}, but that is no more than chance ({status})")
        elif cause == AGEING:
            against.append(f"drift: {told}, as batteries that age do, which is expected")
        elif cause is not None and cause.startswith(_SENSOR_FAULT):
            against.append(
                f"drift: {told}, but a sensor is at fault ({cause}), which opens an incident and "
                "is no reason to learn"
            )
        else:
            found.append(f"{told} (cause: {cause or 'unknown'})")
    return " and ".join(found), against


def _new_trips(facts: Facts, rules: TriggerRules) -> Look:
    if facts.new_trips < rules.new_trips:
        return "", []
    return (
        f"{facts.new_trips:,} trips came since the last retraining, at least {rules.new_trips:,}",
        [],
    )


def _weekly(facts: Facts, rules: TriggerRules) -> Look:
    due = _last_slot(facts.now, rules)
    known = (facts.last_weekly_at, facts.last_started_at, facts.model_since)
    # one that is further ahead than a week is of a clock that was wrong, and says nothing
    times = [at for at in known if at is not None and at - facts.now <= _WEEK]
    if times and max(times) >= due:
        return "", []
    last = f", and the last was on {_told(max(times))}" if times else ""
    return f"the weekly run of {due:%A}, {_told(due)}, is due{last}", []


def _last_slot(now: datetime, rules: TriggerRules) -> datetime:
    """When the weekly run was last due, at `now` or before."""
    today = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    slot = today.replace(hour=rules.hour_utc) - timedelta(
        days=(today.weekday() - rules.weekday) % 7
    )
    return slot if slot <= now else slot - _WEEK


def _within(at: datetime, now: datetime, days: float) -> bool:
    """Whether a time is less than so many days away.

    Also where it is ahead, as a clock went back; but not further than that, or a clock that was a
    year ahead would hold everything back for a year.
    """
    return abs(now - at) < timedelta(days=days)


def _quiet(facts: Facts, rules: TriggerRules, doubts: list[str]) -> str:
    """Why nothing is to be done."""
    if doubts:
        return f"Nothing to do: {'; '.join(doubts)}."
    psis = [
        (psi, name)
        for name in rules.critical_features
        if name in facts.drift
        and (psi := facts.drift[name].psi) is not None
        and not math.isnan(psi)
    ]
    mae = facts.mae_ah
    told: dict[Trigger, str] = {
        "manual": "nobody asked for it",
        "error": "the MAE is not known"
        if mae is None or math.isnan(mae)
        else f"the MAE is {mae:.4f} Ah, at most {rules.mae_ah:g}",
        "drift": "no drift of a critical feature is known"
        if not psis
        else "the largest PSI of a critical feature is {:.2f} ({}), at most {:g}".format(
            *max(psis), rules.psi
        ),
        "new_trips": f"{facts.new_trips:,} of {rules.new_trips:,} trips came since the last "
        "retraining",
        "weekly": f"the next weekly run is on {_told(_last_slot(facts.now, rules) + _WEEK)}",
    }
    return f"Nothing to do: {'; '.join(told[one] for one in TRIGGERS if one in rules.triggers)}."


def _told(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

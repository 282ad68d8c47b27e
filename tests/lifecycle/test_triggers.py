"""Five triggers, and the judgement over them: each way that facts can lead, and what never may."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.lifecycle.triggers import (
    TRIGGERS,
    Decision,
    Facts,
    FeatureFact,
    TriggerRules,
    decide,
    overtakes,
)
from batteryops.records.retraining_runs import Request, RetrainingRun
from batteryops.settings import load_settings

RULES = TriggerRules.of(load_settings())
SUNDAY = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)  # the Wednesday after
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

DRIFTS = {"discharge_time_s": FeatureFact(0.41, "alert", "climate")}
WORSE: dict[str, Any] = {"mae_ah": 0.041, "mae_low_ah": 0.034, "n_labels": 640, "n_vehicles": 52}
ASKED = Request("1", "a new chemistry", "ann", NOW - HOUR)
OPEN = RetrainingRun("run-1", "weekly", "due", "trial", NOW - DAY, NOW - DAY, {})
PLENTY = {"fresh_labels": 812, "fresh_label_vehicles": 60}
FEW = {"fresh_labels": 40, "fresh_label_vehicles": 5}
OF_ONE = {"fresh_labels": 400, "fresh_label_vehicles": 1}


def facts(**known: Any) -> Facts:  # noqa: ANN401 - any of its fields
    """Of a Wednesday after a weekly run, with many labels, where all is well."""
    usual: dict[str, Any] = {"now": NOW, "last_weekly_at": SUNDAY + HOUR, **PLENTY}
    return Facts(**(usual | known))


def test_the_rules_are_the_configured_ones_and_the_source_systems() -> None:
    assert (RULES.weekday, RULES.hour_utc, RULES.new_trips) == (6, 2, 1000)
    assert (RULES.mae_ah, RULES.psi) == (0.03, 0.25)
    assert RULES.critical_features == ("discharge_time_s", "voltage_drop_time_s")
    assert RULES.triggers == TRIGGERS


@pytest.mark.parametrize(
    ("known", "trigger", "said"),
    [
        (
            {"last_weekly_at": SUNDAY - 7 * DAY},
            "weekly",
            (
                "the weekly run of Sunday, 2026-03-01 02:00 UTC, is due, and the last was on "
                "2026-02-22 02:00 UTC"
            ),
        ),
        (
            WORSE,
            "error",
            (
                "the MAE is 0.0410 Ah and with its confidence bound at least 0.0340, above 0.03, "
                "by 640 labels of 52 vehicles"
            ),
        ),
        (
            {"drift": DRIFTS},
            "drift",
            "discharge_time_s drifts with PSI 0.41, above 0.25 (cause: climate)",
        ),
        (
            {"requests": (ASKED,)},
            "manual",
            "ann asked for it on 2026-03-04 11:00 UTC ('a new chemistry')",
        ),
        (
            {"new_trips": 1000},
            "new_trips",
            "1,000 trips came since the last retraining, at least 1,000",
        ),
    ],
)
def test_each_of_the_five_triggers_retrains_with_its_numbers(
    known: dict[str, Any], trigger: str, said: str
) -> None:
    decided = decide(facts(**known), RULES)
    assert (decided.action, decided.trigger) == ("retrain", trigger)
    assert decided.reason == (
        f"Retrain, as {said}; 812 fresh labels of 60 vehicles are there to learn from."
    )
    assert decided.fired == ((trigger, said),)
    alone = decide(facts(**known), replace(RULES, triggers=(trigger,)))  # type: ignore[arg-type]
    assert alone == decided
    others = tuple(one for one in TRIGGERS if one != trigger)
    assert decide(facts(**known), replace(RULES, triggers=others)).action == "nothing"


@pytest.mark.parametrize(
    "known",
    [
        {},
        {"new_trips": 999},
        {"mae_ah": None, "mae_low_ah": 0.05, "n_labels": 640, "n_vehicles": 52},
        WORSE | {"mae_low_ah": None},
        WORSE | {"mae_low_ah": float("nan")},
        WORSE | {"mae_ah": float("nan"), "mae_low_ah": float("nan")},
        WORSE | {"mae_low_ah": 0.03},
        WORSE | {"n_labels": 199},
        WORSE | {"n_vehicles": 9},
        WORSE | {"n_labels": None},
        {"drift": {"discharge_time_s": FeatureFact(0.25, "alert", "climate")}},
        {"drift": {"discharge_time_s": FeatureFact(None, "too_few", None)}},
        {"drift": {"discharge_time_s": FeatureFact(float("nan"), "alert", None)}},
        {"drift": {"discharge_time_s": FeatureFact(0.41, "warning", "climate")}},
        {"drift": {"discharge_time_s": FeatureFact(0.41, "alert", "ageing")}},
        {"drift": {"discharge_time_s": FeatureFact(0.41, "alert", "sensor_fault: stuck")}},
        {"drift": {"temperature_C_mean": FeatureFact(3.0, "alert", "climate")}},
        {"fresh_labels": 0, "fresh_label_vehicles": 0},
    ],
)
def test_what_is_short_of_a_trigger_does_nothing(known: dict[str, Any]) -> None:
    decided = decide(facts(**known), RULES)
    assert (decided.action, decided.trigger, decided.fired) == ("nothing", None, ())
    assert decided.reason.startswith("Nothing to do: ")
    assert decided.reason.endswith(".")


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (
            {"mae_ah": 0.018, "drift": {"voltage_drop_time_s": FeatureFact(0.083, "ok", None)}},
            (
                "Nothing to do: nobody asked for it; the MAE is 0.0180 Ah, at most 0.03; the "
                "largest PSI of a critical feature is 0.08 (voltage_drop_time_s), at most 0.25; "
                "320 of 1,000 trips came since the last retraining; the next weekly run is on "
                "2026-03-08 02:00 UTC."
            ),
        ),
        (
            {},
            (
                "Nothing to do: nobody asked for it; the MAE is not known; no drift of a critical "
                "feature is known; 320 of 1,000 trips came since the last retraining; the next "
                "weekly run is on 2026-03-08 02:00 UTC."
            ),
        ),
        (
            WORSE | {"mae_low_ah": 0.027},
            (
                "Nothing to do: error: the MAE is 0.0410 Ah, above 0.03, but with its confidence "
                "bound it may be 0.0270."
            ),
        ),
        (
            WORSE | {"n_labels": 12, "n_vehicles": 3},
            (
                "Nothing to do: error: the MAE is 0.0410 Ah and with its confidence bound at least "
                "0.0340, above 0.03, by 12 labels of 3 vehicles, and it is believed from 200 of 10 "
                "on."
            ),
        ),
        (
            {"drift": {"discharge_time_s": FeatureFact(0.41, "alert", "sensor_fault: stuck")}},
            (
                "Nothing to do: drift: discharge_time_s drifts with PSI 0.41, above 0.25, but a "
                "sensor is at fault (sensor_fault: stuck), which opens an incident and is no "
                "reason to learn."
            ),
        ),
    ],
)
def test_why_nothing_is_done_is_said_with_its_numbers(known: dict[str, Any], said: str) -> None:
    assert decide(facts(new_trips=320, **known), RULES).reason == said


def test_what_is_not_known_is_not_given_as_a_number() -> None:
    unbounded = decide(facts(**(WORSE | {"mae_low_ah": None})), RULES)
    assert unbounded.reason == (
        "Nothing to do: error: the MAE is 0.0410 Ah, above 0.03, but its confidence bound is not "
        "known."
    )
    nan = float("nan")
    drift = {"discharge_time_s": FeatureFact(nan, "too_few", None)}
    reason = decide(facts(mae_ah=nan, mae_low_ah=nan, drift=drift), RULES).reason
    assert "the MAE is not known; no drift of a critical feature is known;" in reason


def test_only_triggers_that_are_looked_at_are_spoken_of() -> None:
    weekly = decide(facts(**WORSE), replace(RULES, triggers=("weekly",)))
    assert weekly.reason == "Nothing to do: the next weekly run is on 2026-03-08 02:00 UTC."


def test_a_healthy_features_drift_counts_beside_a_sensors_fault() -> None:
    drift = {
        "discharge_time_s": FeatureFact(0.9, "alert", "sensor_fault: stuck"),
        "voltage_drop_time_s": FeatureFact(0.3, "alert", None),
    }
    decided = decide(facts(drift=drift), RULES)
    assert (decided.action, decided.trigger) == ("retrain", "drift")
    assert "voltage_drop_time_s drifts with PSI 0.30, above 0.25 (cause: unknown)" in decided.reason
    assert "sensor is at fault" in decided.held_back[0]


def test_of_several_that_fired_all_are_recorded_and_the_strongest_names_the_run() -> None:
    everything: dict[str, Any] = {
        "last_weekly_at": SUNDAY - DAY,
        "new_trips": 5000,
        "drift": DRIFTS,
        **WORSE,
        "requests": (ASKED, replace(ASKED, by="bob")),
    }
    decided = decide(facts(**everything), RULES)
    assert [one.trigger for one in decided.fired] == list(TRIGGERS)
    assert decided.trigger == "manual"
    assert "ann and 1 more asked for it" in decided.reason
    assert "(also: error, drift, new_trips, weekly)" in decided.reason
    for count in range(1, len(TRIGGERS)):
        weaker = decide(facts(**everything), replace(RULES, triggers=TRIGGERS[count:]))
        assert weaker.trigger == TRIGGERS[count]


# --- when the weekly run is due ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "last", "due"),
    [
        (SUNDAY - timedelta(seconds=1), SUNDAY - 7 * DAY, False),
        (SUNDAY, SUNDAY - 7 * DAY, True),
        (SUNDAY, SUNDAY, False),  # the check at two itself
        (SUNDAY + HOUR, SUNDAY, False),
        (SUNDAY + 6 * DAY, SUNDAY - HOUR, True),  # off on Sunday: it is made up for
        (SUNDAY + 6 * DAY, SUNDAY + 5 * DAY, False),  # and once
        (SUNDAY + 28 * DAY - HOUR, SUNDAY, True),  # off for weeks: once, not for each
        (SUNDAY + 28 * DAY - HOUR, SUNDAY + 28 * DAY - 2 * HOUR, False),
        (SUNDAY - HOUR, SUNDAY + HOUR, False),  # a clock set back over Sunday at two
        (SUNDAY, SUNDAY + 7 * DAY, False),  # by a week
        (
            SUNDAY,
            SUNDAY + 365 * DAY,
            True,
        ),  # a clock that was a year ahead hides nothing for a year
        (SUNDAY, None, True),
        (SUNDAY.astimezone(timezone(timedelta(hours=-5))), SUNDAY - HOUR, True),
    ],
)
@pytest.mark.parametrize("which", ["last_weekly_at", "last_started_at", "model_since"])
def test_the_weekly_run_is_due_once_a_week(
    now: datetime, last: datetime | None, which: str, *, due: bool
) -> None:
    known = {"last_weekly_at": None, which: last}
    decided = decide(facts(now=now, **known), RULES)
    assert (decided.action == "retrain") == due
    assert (decided.trigger == "weekly") == due


def test_a_year_of_hourly_checks_has_a_weekly_run_every_sunday_at_two() -> None:
    last, fired = SUNDAY, []
    for hour in range(24 * 364):
        now = SUNDAY + (hour + 1) * HOUR
        if decide(facts(now=now, last_weekly_at=last), RULES).trigger == "weekly":
            fired.append(now)
            last = now
    assert fired == [SUNDAY + (week + 1) * 7 * DAY for week in range(52)]


# --- judgement --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "labels", "action", "said"),
    [
        (WORSE, {}, "ask_for_labels", "but there is no fresh label to learn from."),
        (WORSE, OF_ONE, "ask_for_labels", "one vehicle alone has all fresh labels (400)"),
        (WORSE, FEW, "retrain", "40 fresh labels of 5 vehicles are there"),
        ({"requests": (ASKED,)}, {}, "ask_for_labels", "there is no fresh label"),
        ({"requests": (ASKED,)}, OF_ONE, "ask_for_labels", "one vehicle alone"),
        ({"requests": (ASKED,)}, FEW, "retrain", "40 fresh labels"),
        ({"drift": DRIFTS}, {}, "ask_for_labels", "there is no fresh label"),
        ({"drift": DRIFTS}, OF_ONE, "ask_for_labels", "one vehicle alone"),
        (
            {"drift": DRIFTS},
            FEW,
            "ask_for_labels",
            (
                "but there are 40 fresh labels of 5 vehicles, and where no error is known it is "
                "learned from 200 of 10."
            ),
        ),
        ({"drift": DRIFTS} | WORSE, FEW, "retrain", "(also: drift); 40 fresh labels"),
        ({"new_trips": 4000}, {}, "wait", "there is no fresh label"),
        ({"new_trips": 4000}, OF_ONE, "wait", "one vehicle alone"),
        ({"new_trips": 4000}, FEW, "wait", "there are 40 fresh labels"),
        ({"last_weekly_at": None}, {}, "wait", "there is no fresh label"),
        ({"last_weekly_at": None}, OF_ONE, "wait", "one vehicle alone"),
    ],
)
def test_without_enough_to_learn_from_labels_are_asked_for_or_waited_for(
    known: dict[str, Any], labels: dict[str, int], action: str, said: str
) -> None:
    none = {"fresh_labels": 0, "fresh_label_vehicles": 0}
    decided = decide(facts(**(none | labels), **known), RULES)
    assert decided.action == action
    assert said in decided.reason


@pytest.mark.parametrize(
    "enough",
    [
        {"fresh_labels": 199, "fresh_label_vehicles": 10},
        {"fresh_labels": 200, "fresh_label_vehicles": 9},
    ],
)
def test_drift_alone_needs_labels_enough_and_of_vehicles_enough(enough: dict[str, int]) -> None:
    assert decide(facts(drift=DRIFTS, **enough), RULES).action == "ask_for_labels"
    both = {"fresh_labels": 200, "fresh_label_vehicles": 10}
    assert decide(facts(drift=DRIFTS, **both), RULES).action == "retrain"


def test_labels_are_asked_for_once_in_so_many_days_and_then_waited_for() -> None:
    asked = facts(drift=DRIFTS, last_asked_at=NOW - 6 * DAY, **FEW)
    decided = decide(asked, RULES)
    assert (decided.action, decided.trigger) == ("wait", "drift")
    assert "was asked on 2026-02-26 12:00 UTC and is again after 7 days" in decided.reason
    assert decide(replace(asked, last_asked_at=NOW - 7 * DAY), RULES).action == "ask_for_labels"
    assert decide(replace(asked, last_asked_at=NOW + DAY), RULES).action == "wait"
    ahead = replace(asked, last_asked_at=NOW + 365 * DAY)  # a clock that was wrong
    assert decide(ahead, RULES).action == "ask_for_labels"


def test_whose_labels_are_wanted_is_said_where_it_is_known() -> None:
    vehicles = tuple(f"EV-{number}" for number in range(7))
    reason = decide(facts(drift=DRIFTS, drifting=vehicles, **FEW), RULES).reason
    assert reason.endswith(
        "; most wanted are those of EV-0, EV-1, EV-2, EV-3, EV-4 and 2 more, which drift."
    )


def test_drift_without_enough_labels_does_not_keep_an_error_from_its_own() -> None:
    decided = decide(facts(drift=DRIFTS, last_weekly_at=None, **(WORSE | FEW)), RULES)
    assert (decided.action, decided.trigger) == ("retrain", "error")
    assert [one.trigger for one in decided.fired] == ["error", "drift", "weekly"]


def test_the_weekly_run_waits_for_labels_as_drift_does() -> None:
    decided = decide(facts(last_weekly_at=None, **FEW), RULES)
    assert decided.action == "wait"
    assert "learned from 200 of 10" in decided.reason
    assert decide(facts(last_weekly_at=None), RULES).action == "retrain"


@pytest.mark.parametrize("known", [WORSE, {"drift": DRIFTS}, {"new_trips": 1000}])
def test_after_a_run_there_is_a_cooldown(known: dict[str, Any]) -> None:
    ended = decide(facts(last_ended_at=NOW - 3 * DAY + HOUR, **known), RULES)
    assert ended.action == "wait"
    assert ended.reason.endswith(
        "the last run ended on 2026-03-01 13:00 UTC, and the next may begin 3 days later."
    )
    assert decide(facts(last_ended_at=NOW - 3 * DAY, **known), RULES).action == "retrain"
    assert decide(facts(last_ended_at=NOW + HOUR, **known), RULES).action == "wait"
    # a clock that was a year ahead does not hold everything back for a year
    assert decide(facts(last_ended_at=NOW + 365 * DAY, **known), RULES).action == "retrain"


def test_a_week_has_a_budget_of_runs() -> None:
    spent = decide(facts(runs_in_week=2, **WORSE), RULES)
    assert spent.action == "wait"
    assert "2 runs were started in the last seven days, and at most 2 may be" in spent.reason
    assert decide(facts(runs_in_week=1, **WORSE), RULES).action == "retrain"


def test_a_request_overrides_cooldown_and_budget_but_not_the_need_for_labels() -> None:
    held: dict[str, Any] = {"last_ended_at": NOW - HOUR, "runs_in_week": 9, "requests": (ASKED,)}
    assert decide(facts(**held), RULES).action == "retrain"
    none = {"fresh_labels": 0, "fresh_label_vehicles": 0}
    assert decide(facts(**held, **none), RULES).action == "ask_for_labels"


@pytest.mark.parametrize("known", [{"requests": (ASKED,)}, WORSE, {"last_weekly_at": None}])
def test_while_a_run_is_open_everything_waits_for_it(known: dict[str, Any]) -> None:
    decided = decide(facts(open_run=OPEN, **known), RULES)
    assert decided.action == "wait"
    assert decided.reason.endswith("run run-1 of 2026-03-03 12:00 UTC is still open (trial).")


def test_every_hold_is_recorded_the_first_of_them_is_the_reason() -> None:
    decided = decide(facts(last_ended_at=NOW - HOUR, runs_in_week=3, **WORSE), RULES)
    assert [each.split(" ", 2)[:2] for each in decided.held_back] == [
        ["the", "last"],
        ["3", "runs"],
    ]


def trial(trigger: str = "error", *, days: float = 8.0, had: int = 100) -> RetrainingRun:
    """A run on trial that was begun so many days ago, with so many fresh labels."""
    at = NOW - timedelta(days=days)
    return RetrainingRun("run-1", trigger, "r", "trial", at, NOW, {"fresh_labels": had})


def overtaken(run: RetrainingRun, trigger: str, labels: int = 200, action: str = "retrain") -> bool:
    decision = Decision(action, trigger, "r")  # type: ignore[arg-type]  # one of each
    known = facts(fresh_labels=labels, fresh_label_vehicles=min(labels, 60))
    return overtakes(decision, run, known, min_days=7.0)


@pytest.mark.parametrize("trigger", ["error", "drift", "manual"])
@pytest.mark.parametrize("mine", ["weekly", "new_trips"])
def test_a_challenger_of_every_week_makes_room_at_once(mine: str, trigger: str) -> None:
    assert overtaken(trial(mine, days=0.1, had=1000), trigger, labels=1)


@pytest.mark.parametrize("trigger", ["error", "drift"])
@pytest.mark.parametrize("mine", ["error", "drift", "manual"])
@pytest.mark.parametrize(
    ("days", "labels", "expected"),
    [(6.9, 1000, False), (7.0, 200, True), (7.0, 199, False), (40.0, 199, False)],
)
def test_what_was_asked_for_has_its_days_and_is_overtaken_by_twice_the_labels(
    mine: str, trigger: str, days: float, labels: int, *, expected: bool
) -> None:
    assert overtaken(trial(mine, days=days, had=100), trigger, labels) is expected


def test_a_person_overtakes_any_trial() -> None:
    for mine in TRIGGERS:
        assert overtaken(trial(mine, days=0.1, had=1000), "manual", labels=2)


@pytest.mark.parametrize("mine", ["manual", "error", "drift"])
@pytest.mark.parametrize("trigger", ["weekly", "new_trips"])
def test_what_comes_by_itself_overtakes_nothing_that_was_asked_for(mine: str, trigger: str) -> None:
    assert not overtaken(trial(mine, days=50.0, had=0), trigger, labels=10_000)


@pytest.mark.parametrize("trigger", ["weekly", "new_trips"])
def test_what_comes_by_itself_overtakes_its_like_once_labels_have_doubled(trigger: str) -> None:
    assert overtaken(trial("weekly", days=7.0, had=100), trigger, labels=200)
    assert not overtaken(trial("weekly", days=7.0, had=100), trigger, labels=199)
    assert not overtaken(trial("weekly", days=6.9, had=100), trigger, labels=200)


@pytest.mark.parametrize("action", ["ask_for_labels", "wait", "nothing"])
def test_only_what_would_be_begun_overtakes(action: str) -> None:
    assert not overtaken(trial("weekly"), "error", action=action)


@pytest.mark.parametrize("state", ["decided", "candidate", "probation"])
def test_only_a_trial_is_overtaken(state: Any) -> None:  # noqa: ANN401 - any state
    assert not overtaken(replace(trial("weekly"), state=state), "manual")


def test_decision_and_facts_are_plain_json() -> None:
    known = facts(
        **(WORSE | {"mae_low_ah": float("nan")}),
        drift=DRIFTS,
        requests=(ASKED,),
        open_run=OPEN,
        drifting=("EV-1",),
    )
    told = json.loads(json.dumps(known.to_json(), allow_nan=False))
    assert told["now"] == "2026-03-04T12:00:00+00:00"
    assert (told["mae_ah"], told["mae_low_ah"], told["last_ended_at"]) == (0.041, None, None)
    assert told["drift"]["discharge_time_s"] == {"psi": 0.41, "status": "alert", "cause": "climate"}
    assert (told["requests"][0]["by"], told["open_run"]["run_id"]) == ("ann", "run-1")
    decided = json.loads(json.dumps(decide(known, RULES).to_json()))
    assert (decided["action"], decided["trigger"]) == ("wait", "manual")
    assert [one["trigger"] for one in decided["fired"]] == ["manual", "drift"]
    assert all(one["reason"] for one in decided["fired"])


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"now": NOW.replace(tzinfo=None)}, "now .* has no time zone"),
        ({"last_asked_at": NOW.replace(tzinfo=None)}, "last_asked_at .* has no time zone"),
        ({"new_trips": -1}, "new_trips is -1; expected 0 or more"),
        ({"fresh_labels": 3, "fresh_label_vehicles": 0}, "3 fresh labels cannot be of 0 vehicles"),
        ({"fresh_labels": 0, "fresh_label_vehicles": 1}, "0 fresh labels cannot be of 1 vehicles"),
    ],
)
def test_facts_that_cannot_be_are_refused(known: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        facts(**known)


# --- what holds for all facts -----------------------------------------------------------------

_times = st.none() | st.timedeltas(-400 * DAY, 20 * DAY).map(lambda away: NOW + away)
_errors = st.none() | st.floats(0.0, 0.08) | st.just(float("nan"))
_features = st.builds(
    FeatureFact,
    psi=st.none() | st.floats(0.0, 2.0) | st.just(float("nan")),
    status=st.sampled_from(["ok", "warning", "alert", "too_few", "missing"]),
    cause=st.sampled_from([None, "climate", "ageing", "sensor_fault: stuck"]),
)
_labels = st.integers(0, 400).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(min(n, 1), min(n, 30)))
)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    n, vehicles = draw(_labels)
    return Facts(
        now=NOW + draw(st.timedeltas(timedelta(0), 8 * DAY)),
        model_since=draw(_times),
        last_started_at=draw(_times),
        last_ended_at=draw(_times),
        last_weekly_at=draw(_times),
        runs_in_week=draw(st.integers(0, 4)),
        open_run=draw(st.sampled_from([None, None, None, OPEN])),
        requests=draw(st.sampled_from([(), (), (ASKED,)])),
        mae_ah=draw(_errors),
        mae_low_ah=draw(_errors),
        n_labels=draw(st.none() | st.integers(0, 400)),
        n_vehicles=draw(st.none() | st.integers(0, 30)),
        drift=draw(
            st.dictionaries(
                st.sampled_from(["discharge_time_s", "voltage_drop_time_s", "other"]), _features
            )
        ),
        drifting=draw(st.sampled_from([(), ("EV-1",)])),
        fresh_labels=n,
        fresh_label_vehicles=vehicles,
        new_trips=draw(st.integers(0, 2000)),
        last_asked_at=draw(_times),
    )


@given(any_facts())
def test_never_without_labels_of_two_vehicles_nor_while_one_is_open(known: Facts) -> None:
    decided = decide(known, RULES)
    if decided.action == "retrain":
        assert known.fresh_label_vehicles >= 2
        assert known.open_run is None
        assert decided.trigger in {one.trigger for one in decided.fired}


@given(any_facts())
def test_only_a_request_overrides_cooldown_and_budget(known: Facts) -> None:
    assume(not known.requests)
    decided = decide(known, RULES)
    ended = known.last_ended_at
    cools = ended is not None and timedelta(0) <= known.now - ended < 3 * DAY
    if cools or known.runs_in_week >= 2:
        assert decided.action in {"wait", "nothing"}


@given(any_facts())
def test_an_unknown_error_never_fires(known: Facts) -> None:
    unknown = replace(known, mae_ah=None)
    assert "error" not in {one.trigger for one in decide(unknown, RULES).fired}


@given(any_facts())
def test_a_sensors_fault_or_age_alone_is_never_learned(known: Facts) -> None:
    drift = {
        name: found._replace(cause="ageing" if found.cause in {None, "ageing"} else "sensor_fault")
        for name, found in known.drift.items()
    }
    assert "drift" not in {one.trigger for one in decide(replace(known, drift=drift), RULES).fired}


@given(any_facts())
def test_every_decision_has_a_reason_and_equal_facts_have_equal_decisions(known: Facts) -> None:
    decided = decide(known, RULES)
    assert decided == decide(replace(known), RULES) == decide(replace(known), replace(RULES))
    begins = {
        "retrain": "Retrain, as ",
        "ask_for_labels": "Ask for labels first, as ",
        "wait": "Wait, though ",
        "nothing": "Nothing to do: ",
    }
    assert decided.reason.startswith(begins[decided.action])
    assert decided.reason.endswith(".")
    assert (decided.trigger is None) == (decided.action == "nothing") == (not decided.fired)
    order = [TRIGGERS.index(one.trigger) for one in decided.fired]
    assert order == sorted(set(order))


@given(any_facts())
def test_what_was_carried_out_is_not_asked_for_again_at_the_same_time(known: Facts) -> None:
    decided = decide(known, RULES)
    at = known.now
    if any(one.trigger == "weekly" for one in decided.fired):
        known = replace(known, last_weekly_at=at)
        assert all(one.trigger != "weekly" for one in decide(known, RULES).fired)
    if decided.action == "ask_for_labels":
        again = decide(replace(known, last_asked_at=at), RULES)
        assert again.action in {"wait", "nothing"}
    if decided.action == "retrain":
        ended = replace(
            known, last_started_at=at, last_ended_at=at, requests=(), runs_in_week=1, open_run=None
        )
        assert decide(ended, RULES).action in {"wait", "nothing"}

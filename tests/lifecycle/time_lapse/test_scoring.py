"""Scoring: what counts as found, when, under which name, and what as a false alarm."""

import pytest

from batteryops.lifecycle.time_lapse.scoring import score
from batteryops.lifecycle.time_lapse.world import Injection

WINTER = Injection(4, "climate", until=10)
UPDATE = Injection(14, "software_update")


def named(**weeks: str) -> list[dict[str, int]]:
    """Weeks by number, `w4="climate"`; of several the first has most features."""
    last = max(int(week[1:]) for week in weeks)
    found: list[dict[str, int]] = [{} for _ in range(max(last + 1, 20))]
    for week, causes in weeks.items():
        found[int(week[1:])] = {
            cause: 9 - place for place, cause in enumerate(causes.replace("_", " ").split(", "))
        }
    return [{cause.replace(" ", "_"): n for cause, n in week.items()} for week in found]


def test_a_quiet_year_has_nothing() -> None:
    found = score([{}] * 20, [])
    assert (found.detected, found.false_alarms) == ((), ())


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_an_injection_is_found_in_the_first_week_that_names_it(delay: int) -> None:
    weeks = named(**{f"w{4 + delay}": "climate", f"w{5 + delay}": "climate"})
    (one,) = score(weeks, [WINTER]).detected
    assert (one.week, one.delay_weeks, one.is_right) == (4 + delay, delay, True)


def test_a_wrong_name_is_told_and_is_no_false_alarm() -> None:
    found = score(named(w5="unknown"), [WINTER])
    assert found.detected[0].to_json() == {"week": 5, "cause": "climate", "named_cause": "unknown"}
    assert found.false_alarms == ()


def test_the_right_name_after_a_wrong_one_counts_from_the_right_one() -> None:
    found = score(named(w4="unknown", w6="climate"), [WINTER])
    assert [(one.week, one.named_cause) for one in found.detected] == [(6, "climate")]
    assert found.false_alarms == ()


def test_a_cause_that_was_named_all_along_finds_no_other() -> None:
    weeks = named(**{f"w{week}": "climate" for week in range(4, 20)})
    found = score(weeks, [WINTER, UPDATE])
    assert [one.injection for one in found.detected] == [WINTER]


def test_of_several_new_causes_that_of_most_features_is_told() -> None:
    (one,) = score(named(w5="unknown, new_chemistry"), [WINTER]).detected
    assert one.named_cause == "unknown"


def test_ageing_is_expected_and_neither_finds_nor_alarms() -> None:
    found = score(named(w1="ageing", w5="ageing"), [WINTER])
    assert (found.detected, found.false_alarms) == ((), ())


def test_an_alarm_before_anything_happened_is_false_and_counted_once() -> None:
    found = score(named(w1="unknown", w2="unknown", w3="unknown"), [WINTER])
    assert [(alarm.week, alarm.named_cause) for alarm in found.false_alarms] == [(1, "unknown")]


def test_what_went_away_and_came_again_alarms_again() -> None:
    found = score(named(w8="new_chemistry", w13="new_chemistry"), [Injection(0, "climate")])
    assert [alarm.week for alarm in found.false_alarms] == [8, 13]


def test_the_end_of_a_winter_is_no_false_alarm() -> None:
    found = score(named(w4="climate", w10="climate"), [WINTER])
    assert found.false_alarms == ()


def test_another_cause_after_a_right_detection_is_a_false_alarm() -> None:
    found = score(named(w4="climate", w6="new_chemistry"), [WINTER])
    assert [alarm.to_json() for alarm in found.false_alarms] == [
        {"week": 6, "named_cause": "new_chemistry"}
    ]


def test_what_is_found_after_the_next_injection_is_found_of_that_one() -> None:
    found = score(named(w15="unknown"), [WINTER, UPDATE])
    assert [one.injection for one in found.detected] == [UPDATE]


def test_an_injection_that_nobody_sees_is_missing() -> None:
    assert score([{}] * 20, [WINTER, UPDATE]).detected == ()
    late = score(named(w11="unknown"), [WINTER, UPDATE])
    assert late.detected == ()
    assert [alarm.week for alarm in late.false_alarms] == [11]

"""The loop's looks: what each does, what is on record after it, and what it survives."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from batteryops.errors import BatteryOpsError, LeaseLostError, RecordsError, RegistryError
from batteryops.lifecycle import retraining_steps
from batteryops.lifecycle.controller import LEASE, Checked, check
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.monitoring import run_monitoring
from batteryops.lifecycle.online_learning import online_learning_update
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.retraining_facts import DECISION
from batteryops.lifecycle.rollback import rollback
from batteryops.records.leases import Leases
from batteryops.records.ledger import (
    LABELS_REQUESTED,
    MODEL_PROMOTED,
    MODEL_REGISTERED,
    RETRAINING_ENDED,
    RETRAINING_STARTED,
    Ledger,
)
from batteryops.records.monitoring_runs import MonitoringRuns
from batteryops.records.retraining_runs import RetrainingRun, RetrainingRuns
from batteryops.registry.mlflow_tracking import CHALLENGER, CHAMPION, ModelRegistry
from new_chemistry import DAY, LATER, START, Days, Saved

PATIENCE_S = 60.0
EVER = START - 1000 * DAY


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    made = Saved(tmp_path_factory.mktemp("course"))
    with time_machine.travel(START) as clock:
        made.take_course(clock)
    return made


@pytest.fixture
def at(saved: Saved) -> Iterator[Callable[[str], Days]]:
    """Gives the home as it was at a turn of its course, in a copy of the test's own."""
    with ExitStack() as copies:
        clock = copies.enter_context(time_machine.travel(START))
        yield lambda name: copies.enter_context(saved.days(name, clock))


class Doing(Silent):
    """A progress that does something at a step."""

    def __init__(self, step: str, do: Callable[[], None]) -> None:
        self._step, self._do = step, do

    def step(self, text: str) -> None:
        if text.startswith(self._step):
            self._do()


def runs(days: Days) -> list[RetrainingRun]:
    with closing(RetrainingRuns(days.settings.predictions_url)) as store:
        return store.since(EVER)


def the_run(days: Days) -> RetrainingRun:
    (run,) = runs(days)
    return run


def lines(days: Days, event: str) -> list[dict[str, Any]]:
    with Ledger(days.settings.ledger_url) as ledger:
        return [{"subject": one.subject, **one.details} for one in ledger.entries(event)]


def decisions(days: Days) -> list[dict[str, Any]]:
    with closing(MonitoringRuns(days.settings.predictions_url)) as store:
        return [dict(one.document) for one in store.since(DECISION, EVER)]


def statuses(days: Days) -> dict[int, str]:
    return {one.version: one.status for one in open_registry(days.settings).versions()}


def request(days: Days) -> None:
    with closing(RetrainingRuns(days.settings.predictions_url)) as store:
        store.request("the tester was repaired", by="a person", at=days.now)


def test_a_retraining_takes_its_course_and_every_look_is_on_record(
    at: Callable[[str], Days],
) -> None:
    days = at("new")
    days.drive()
    asked = days.check()
    assert asked.decision is not None
    assert (asked.decision.action, asked.runs) == ("ask_for_labels", ())
    assert len(lines(days, LABELS_REQUESTED)) == 1

    days.drive()
    begun = days.check()
    (run,) = begun.runs
    assert (run.trigger, run.state) == ("error", "trial")
    assert run.document["fresh_labels"] == 100  # 20 were of questions from before the drift
    assert run.document["labels"]["vehicles"] == 20
    assert run.document["comparison"]["candidates"]
    assert (run.document["champion"], run.document["version"]) == (1, 2)
    assert run.document["verdict"]["decision"] == "continue"
    assert statuses(days) == {1: "champion", 2: "challenger"}
    assert [line["trigger"] for line in lines(days, RETRAINING_STARTED)] == ["error"]
    assert not lines(days, RETRAINING_ENDED)

    days.drive()
    (run,) = days.check().runs
    assert (run.state, run.document["verdict"]["decision"]) == ("probation", "promote")
    assert statuses(days) == {1: "archived", 2: "champion"}

    days.drive()
    (run,) = days.check().runs
    assert run.state == "probation"

    days.drive()
    (run,) = days.check().runs
    assert run.state == "promoted"
    assert lines(days, RETRAINING_ENDED) == [
        {
            "subject": f"retraining {run.run_id}",
            "outcome": "promoted",
            "why": run.document["why"],
            "version": 2,
        }
    ]
    taken = [line["alias"] for line in lines(days, MODEL_PROMOTED) if line["subject"][-1] == "2"]
    assert taken == [CHALLENGER, CHAMPION]

    made = decisions(days)
    assert [one["action"] for one in made[:2]] == ["ask_for_labels", "retrain"]
    assert len(made) == 5
    assert all({"reason", "fired", "held_back", "facts", "champion"} <= set(one) for one in made)
    assert made[1]["facts"]["fresh_labels"] == 100
    counted = run_monitoring(days.settings, Silent()).document["retraining"]
    assert counted == [{"reason": "error", "outcome": "promoted", "runs": 1}]


def test_looking_twice_at_one_time_does_nothing_twice(at: Callable[[str], Days]) -> None:
    for turn, state in (("retrain", "trial"), ("trial", "probation"), ("good", "promoted")):
        days = at(turn)
        days.check()
        first = the_run(days), statuses(days), ledger_of(days)
        again = days.check()
        assert (the_run(days), statuses(days), ledger_of(days)) == first
        assert first[0].state == state
        assert again.busy is None


def ledger_of(days: Days) -> list[tuple[str, str]]:
    with Ledger(days.settings.ledger_url) as ledger:
        assert ledger.verify().intact
        return [(one.event, one.subject) for one in ledger.entries()]


def test_of_two_controllers_at_once_one_acts_and_the_other_says_busy(
    at: Callable[[str], Days],
) -> None:
    days = at("retrain")
    inside, go_on = threading.Event(), threading.Event()
    told: list[Checked] = []

    def wait() -> None:
        inside.set()
        assert go_on.wait(PATIENCE_S)

    first = threading.Thread(target=lambda: told.append(days.check(Doing("write", wait))))
    first.start()
    assert inside.wait(PATIENCE_S)
    second = check(days.settings, Silent())
    go_on.set()
    first.join(PATIENCE_S)
    assert second.busy is not None
    assert (second.decision, second.runs) == (None, ())
    assert [run.state for run in told[0].runs] == ["trial"]
    assert len(runs(days)) == 1
    assert check(days.settings, Silent()).busy is None


def test_who_lost_the_lease_writes_nothing_any_more(at: Callable[[str], Days]) -> None:
    days = at("retrain")

    def take_over() -> None:
        later = days.now + LATER + timedelta(seconds=days.settings.retraining.lease_s + 60)
        with closing(Leases(days.settings.predictions_url)) as leases:
            assert leases.take(LEASE, "another", seconds=60, now=later)

    with pytest.raises(LeaseLostError):
        days.check(Doing("log the run", take_over))
    assert the_run(days).state == "decided"
    assert statuses(days) == {1: "champion", 2: "candidate"}

    over = days.now + timedelta(hours=1)
    (run,) = check(days.settings, Silent(), now=lambda: over).runs
    assert (run.state, run.document["version"]) == ("trial", 2)
    assert statuses(days) == {1: "champion", 2: "challenger"}


@pytest.mark.parametrize(("labelled", "too_few"), [(0, "no fresh label"), (1, "one vehicle alone")])
def test_labels_that_nothing_can_be_learned_from_are_asked_for_once_a_week(
    at: Callable[[str], Days], labelled: int, too_few: str
) -> None:
    days = at("asked")
    for skipped in (0, 5, 0):
        days.driven += skipped
        days.drive(labelled=labelled)
        looked = days.check()
        assert looked.decision is not None
        assert not looked.runs
        assert too_few in looked.decision.reason
    made = [one["action"] for one in decisions(days)]
    assert made == ["ask_for_labels", "wait", "ask_for_labels", "wait"]
    assert len(lines(days, LABELS_REQUESTED)) == 2


@pytest.mark.parametrize(
    ("how", "end", "why"),
    [
        ({"failing": 1.0}, "harmful", "gave no number"),
        ({"off_ah": -1.0}, "harmful", "Ah more"),
        ({"slower": 2.0}, "rejected", "times as long"),
    ],
)
def test_a_challenger_that_fails_is_worse_or_slower_never_becomes_champion(
    at: Callable[[str], Days], how: dict[str, float], end: str, why: str
) -> None:
    days = at("tried")
    days.drive(**how)  # type: ignore[arg-type]  # all of them are numbers
    (run,) = days.check().runs
    assert run.state == end
    assert why in run.document["why"]
    assert statuses(days) == {1: "champion", 2: "archived"}
    assert [line["outcome"] for line in lines(days, RETRAINING_ENDED)] == [end]


def test_a_trial_that_is_overtaken_is_abandoned_and_its_version_archived(
    at: Callable[[str], Days],
) -> None:
    days = at("tried")
    days.drive(labelled=0)
    request(days)
    looked = days.check()
    first, second = runs(days)
    assert [run.state for run in looked.runs] == ["abandoned", "trial"]
    assert first.document["why"].startswith("overtaken: Retrain, as a person asked for it")
    assert (second.trigger, second.document["version"]) == ("manual", 3)
    assert statuses(days) == {1: "champion", 2: "archived", 3: "challenger"}
    days.check()
    assert len(runs(days)) == 2


def test_a_trial_ends_where_somebody_promotes_another_version(at: Callable[[str], Days]) -> None:
    days = at("trial")
    other = online_learning_update(days.settings, Silent()).registered
    assert other is not None
    promote(other.version.version, days.settings, reason="a person knows better")
    run = next(run for run in days.check().runs)
    assert run.state == "abandoned"
    assert "version 3 became champion" in run.document["why"]
    assert statuses(days) == {1: "archived", 2: "archived", 3: "champion"}


def test_a_challenger_that_somebody_promotes_is_watched(at: Callable[[str], Days]) -> None:
    days = at("tried")
    promote(2, days.settings, reason="a person cannot wait")
    (run,) = days.check().runs
    assert run.state == "probation"
    assert statuses(days) == {1: "archived", 2: "champion"}


def test_a_probation_ends_where_somebody_rolls_back(at: Callable[[str], Days]) -> None:
    days = at("probation")
    rollback(days.settings, reason="a person saw something")
    (run,) = days.check().runs
    assert (run.state, run.document["why"]) == ("rolled_back", "to version 1, by somebody else")
    assert statuses(days) == {1: "champion", 2: "archived"}


def test_a_champion_that_answers_what_no_battery_has_is_rolled_back(
    at: Callable[[str], Days],
) -> None:
    days = at("bad")
    (run,) = days.check().runs
    assert (run.state, run.document["rolled_back_to"]) == ("rolled_back", 1)
    assert "out of the physical range" in run.document["why"]
    assert statuses(days) == {1: "champion", 2: "archived"}


@pytest.mark.parametrize("turn", ["retrain", "trial", "bad"])
@pytest.mark.parametrize("calls", [2, 5, 9])
def test_a_registry_that_disappears_is_gone_on_with(
    at: Callable[[str], Days], monkeypatch: pytest.MonkeyPatch, turn: str, calls: int
) -> None:
    expected = {"retrain": "trial", "trial": "probation", "bad": "rolled_back"}[turn]
    days = at(turn)
    with monkeypatch.context() as broken:
        fail_after(broken, ModelRegistry, "find_alias", calls, RegistryError("out of reach"))
        fail_after(broken, ModelRegistry, "version", calls, RegistryError("out of reach"))
        look_in_vain(days, RegistryError)
    days.check()
    run = the_run(days)
    assert run.state == expected
    assert run.document["attempts"] <= 1  # what a store keeps from its end is no attempt
    assert len(statuses(days)) == 2


@pytest.mark.parametrize(("turn", "calls"), [("retrain", 1), ("retrain", 3), ("trial", 0)])
def test_a_ledger_that_disappears_is_gone_on_with(
    at: Callable[[str], Days], monkeypatch: pytest.MonkeyPatch, turn: str, calls: int
) -> None:
    days = at(turn)
    with monkeypatch.context() as broken:
        fail_after(broken, Ledger, "append", calls, RecordsError("out of reach"))
        look_in_vain(days, RecordsError)
    days.check()
    run = the_run(days)
    assert run.state == {"retrain": "trial", "trial": "probation"}[turn]
    assert run.document["attempts"] == 1
    assert len(lines(days, RETRAINING_STARTED)) == 1
    assert [line["subject"][-1] for line in lines(days, MODEL_REGISTERED)] == ["1", "2"]


def fail_after(
    patch: pytest.MonkeyPatch, owner: type, method: str, calls: int, error: BatteryOpsError
) -> None:
    """Let a method answer so many times, and never again."""
    real, left = getattr(owner, method), [calls]

    def answer(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - of any method
        if not left[0]:
            raise error
        left[0] -= 1
        return real(*given, **named)

    patch.setattr(owner, method, answer)


def look_in_vain(days: Days, error: type[BatteryOpsError]) -> None:
    """Look as often as a run may be begun, and once more; a store is away all the time."""
    for _ in range(retraining_steps.MAX_ATTEMPTS + 1):
        with pytest.raises(error, match="out of reach"):
            days.check()


def test_a_candidate_that_kills_whoever_makes_it_is_given_up(at: Callable[[str], Days]) -> None:
    class Killed(BaseException):
        """As sudden as a signal."""

    def kill() -> None:
        raise Killed

    days = at("retrain")
    for _ in range(3):
        with pytest.raises(Killed):
            days.check(Doing("calibrate", kill))
        assert the_run(days).state == "decided"
    (run,) = days.check().runs
    assert run.state == "failed"
    assert run.document["why"].startswith("begun 3 times and never finished")
    assert statuses(days) == {1: "champion"}
    assert [line["outcome"] for line in lines(days, RETRAINING_ENDED)] == ["failed"]


@pytest.mark.parametrize(
    ("turn", "days_back", "end"),
    [
        ("retrain", 365, "trial"),
        ("tried", 365, "abandoned"),
        ("tried", 20, "probation"),
        ("probation", 365, "probation"),
    ],
)
def test_a_clock_set_back_neither_blocks_nor_repeats(
    at: Callable[[str], Days], turn: str, days_back: int, end: str
) -> None:
    days = at(turn)
    before = len(runs(days))
    back = days.now - timedelta(days=days_back)
    check(days.settings, Silent(), now=lambda: back)
    left = len(runs(days)), statuses(days)
    check(days.settings, Silent(), now=lambda: back + LATER)
    assert (len(runs(days)), statuses(days)) == left
    assert left[0] == before
    days.drive()
    days.check()
    assert runs(days)[0].state == end


def test_a_candidate_that_forgets_what_was_known_is_not_taken(at: Callable[[str], Days]) -> None:
    days = at("new")
    days.begin(off_ah=-0.3)  # so that what is learned now is wrong for what was known
    days.drive(chemistry="NMC")
    (run,) = days.check().runs
    assert run.state == "kept"
    assert "it forgets: old MAE" in run.document["why"]
    assert statuses(days) == {1: "archived", 2: "champion"}
    assert [line["outcome"] for line in lines(days, RETRAINING_ENDED)] == ["kept"]

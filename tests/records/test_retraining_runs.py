"""Retraining runs: one at a time, moved only by who has the lease, and never where it cannot go."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from batteryops.errors import LeaseLostError, RecordsError
from batteryops.records.leases import Lease, Leases
from batteryops.records.retraining_runs import NEXT, Request, RetrainingRun, RetrainingRuns, State

SUNDAY = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENDS: list[State] = [
    "promoted",
    "kept",
    "rejected",
    "harmful",
    "rolled_back",
    "failed",
    "abandoned",
]
WAYS: dict[State, list[State]] = {
    "decided": [],
    "candidate": ["candidate"],
    "trial": ["candidate", "trial"],
    "probation": ["candidate", "trial", "probation"],
    "promoted": ["candidate", "trial", "probation", "promoted"],
    "kept": ["kept"],
    "rejected": ["candidate", "rejected"],
    "harmful": ["candidate", "trial", "harmful"],
    "rolled_back": ["candidate", "trial", "probation", "rolled_back"],
    "failed": ["failed"],
    "abandoned": ["abandoned"],
}
"""How a run comes to each state."""

START_AT_ONCE = """
import json, os, sys
from datetime import UTC, datetime
from batteryops.errors import RecordsError
from batteryops.records.leases import Leases
from batteryops.records.retraining_runs import RetrainingRuns
now = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
go_read, go_write = os.pipe()
children = []
for number in range(5):
    child = os.fork()
    if not child:
        os.close(go_write)
        with Leases(sys.argv[1]) as leases:
            runs = RetrainingRuns.beside(leases)
            lease = leases.take(f"of {number}", "p", seconds=60, now=now)
            os.read(go_read, 1)
            try:
                runs.start(trigger="weekly", reason="due", at=now, document={}, lease=lease)
            except RecordsError as error:
                os._exit(7 if "is still open" in str(error) else 8)
        os._exit(0)
    children.append(child)
os.close(go_write)
print(json.dumps(sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)))
"""


@pytest.fixture
def runs(url: str) -> Iterator[RetrainingRuns]:
    with RetrainingRuns(url) as opened:
        yield opened


@pytest.fixture
def lease(runs: RetrainingRuns) -> Lease:
    return take(runs)


def take(runs: RetrainingRuns, now: datetime = SUNDAY) -> Lease:
    lease = Leases.beside(runs).take("controller", "a", seconds=60, now=now)
    assert lease is not None
    return lease


def start(
    runs: RetrainingRuns,
    lease: Lease,
    at: datetime = SUNDAY,
    trigger: str = "weekly",
    document: dict[str, Any] | None = None,
) -> RetrainingRun:
    return runs.start(
        trigger=trigger, reason="it is due", at=at, document=document or {}, lease=lease
    )


def brought(
    runs: RetrainingRuns, lease: Lease, state: State, at: datetime = SUNDAY, trigger: str = "weekly"
) -> RetrainingRun:
    """A run that was brought to a state."""
    run = start(runs, lease, at, trigger)
    for number, each in enumerate(WAYS[state], start=1):
        run = runs.move(run, each, at=at + number * HOUR, lease=lease)
    return run


def test_a_run_is_read_back_as_it_was_started_with_its_time_in_utc(
    runs: RetrainingRuns, lease: Lease
) -> None:
    assert (runs.open(), runs.newest()) == (None, None)
    at = datetime(2026, 3, 1, 10, 0, tzinfo=timezone(timedelta(hours=8)))
    run = start(runs, lease, at, "drift", {"facts": {"psi": 0.1 + 0.2, "who": ["ä"]}})
    assert run == runs.open() == runs.newest() == runs.get(run.run_id)
    assert run.to_json() == {
        "run_id": run.run_id,
        "trigger": "drift",
        "reason": "it is due",
        "state": "decided",
        "ended": False,
        "started_at": "2026-03-01T02:00:00+00:00",
        "updated_at": "2026-03-01T02:00:00+00:00",
        "document": {"facts": {"psi": 0.1 + 0.2, "who": ["ä"]}},
    }


def test_the_states_are_all_reached_and_the_ends_end_it() -> None:
    assert set(WAYS) == {*NEXT, *ENDS}
    reached = {state for states in NEXT.values() for state in states}
    assert reached == set(WAYS) - {"decided"}


@pytest.mark.parametrize("state", WAYS)
def test_a_run_goes_where_its_state_allows_and_nowhere_else(
    runs: RetrainingRuns, lease: Lease, state: State
) -> None:
    run = brought(runs, lease, state)
    assert run.ended == (state in ENDS)
    assert run.updated_at == SUNDAY + len(WAYS[state]) * HOUR
    for target in WAYS:
        if target in NEXT.get(state, ()) or (target == state and not run.ended):
            continue
        said = "has ended" if run.ended else f"is {state}; it can be .* next, not '{target}'"
        with pytest.raises(RecordsError, match=said):
            runs.move(run, target, at=SUNDAY, document={"x": 1}, lease=lease)
    assert runs.get(run.run_id) == run


@pytest.mark.parametrize("state", ["decided", "candidate", "trial"])
def test_none_is_started_while_one_is_open(
    runs: RetrainingRuns, lease: Lease, state: State
) -> None:
    run = brought(runs, lease, state)
    with pytest.raises(RecordsError, match=rf"{run.run_id} of 2026-03-01 02:00 UTC .*\({state}\)"):
        start(runs, lease, SUNDAY + HOUR)
    assert runs.open() == run
    runs.move(run, "abandoned", at=SUNDAY, lease=lease)
    assert runs.open() is None
    start(runs, lease, SUNDAY + HOUR)


def test_of_processes_that_start_one_at_once_exactly_one_does(url: str) -> None:
    RetrainingRuns(url).close()  # tables are there
    done = subprocess.run(  # noqa: S603  # own code
        [sys.executable, "-c", START_AT_ONCE, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0, 7, 7, 7, 7]
    with RetrainingRuns(url) as runs:
        assert len(runs.since(SUNDAY)) == 1


def test_those_on_probation_are_watched_while_another_runs(
    runs: RetrainingRuns, lease: Lease
) -> None:
    first = brought(runs, lease, "probation")
    assert (runs.open(), runs.on_probation()) == (None, [first])
    second = brought(runs, lease, "probation", SUNDAY + 24 * HOUR)
    assert runs.on_probation() == [first, second]
    runs.move(first, "promoted", at=SUNDAY, lease=lease)
    assert runs.on_probation() == [second]


def test_a_run_cannot_be_moved_with_a_lease_that_was_taken_over(
    runs: RetrainingRuns, lease: Lease
) -> None:
    run = start(runs, lease)
    newer = take(runs, SUNDAY + HOUR)  # the first slept through its end
    attempts: list[Callable[[], object]] = [
        lambda: runs.move(run, "candidate", at=SUNDAY, document={"x": 1}, lease=lease),
        lambda: runs.move(run, "decided", at=SUNDAY, document={"x": 1}, lease=lease),
        lambda: start(runs, lease),
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLostError, match="a has it now, with token 2"):
            attempt()
    assert runs.open() == run
    moved = runs.move(run, "candidate", at=SUNDAY, lease=newer)
    Leases.beside(runs).release(newer)
    with pytest.raises(LeaseLostError, match="nobody has it now"):
        runs.move(moved, "trial", at=SUNDAY, lease=newer)


def test_a_run_that_was_moved_since_it_was_read_is_not_moved(
    runs: RetrainingRuns, lease: Lease
) -> None:
    read = start(runs, lease)
    runs.move(read, "candidate", at=SUNDAY, lease=lease)
    with pytest.raises(RecordsError, match="is candidate by now, not decided; read it again"):
        runs.move(read, "failed", at=SUNDAY, lease=lease)


def test_documents_merge_and_what_is_no_mapping_is_replaced(
    runs: RetrainingRuns, lease: Lease
) -> None:
    run = start(runs, lease, document={"facts": {"mae_ah": 0.03, "by": {"a": 1}}, "looks": [1]})
    run = runs.move(run, "decided", at=SUNDAY, document={"looks": [2], "version": 3}, lease=lease)
    run = runs.move(
        run,
        "candidate",
        at=SUNDAY,
        document={"facts": {"by": {"b": 2}}, "version": {"number": 4}},
        lease=lease,
    )
    assert run.document == {
        "facts": {"mae_ah": 0.03, "by": {"a": 1, "b": 2}},
        "looks": [2],
        "version": {"number": 4},
    }
    assert runs.move(run, "trial", at=SUNDAY, lease=lease).document == run.document


def test_the_newest_is_the_one_started_last_whatever_the_clock_said(
    runs: RetrainingRuns, lease: Lease
) -> None:
    brought(runs, lease, "kept", SUNDAY + timedelta(days=365))
    last = brought(runs, lease, "failed", SUNDAY)  # the clock went back
    assert runs.newest() == last
    assert [run.state for run in runs.since(SUNDAY)] == ["kept", "failed"]
    assert [run.state for run in runs.since(SUNDAY + HOUR)] == ["kept"]


def test_ends_are_counted_as_the_metrics_tell_them(runs: RetrainingRuns, lease: Lease) -> None:
    assert runs.counts() == []
    for trigger, state in [
        ("weekly", "kept"),
        ("drift", "promoted"),
        ("weekly", "kept"),
        ("drift", "rejected"),
        ("error", "probation"),
        ("manual", "decided"),
    ]:
        brought(runs, lease, state, trigger=trigger)  # type: ignore[arg-type]  # words of the list
    assert runs.counts() == [  # of those that go on nothing can be said, and a counter never falls
        {"reason": "drift", "outcome": "promoted", "runs": 1},
        {"reason": "drift", "outcome": "rejected", "runs": 1},
        {"reason": "weekly", "outcome": "kept", "runs": 2},
    ]


def test_two_requests_are_answered_by_one_run(runs: RetrainingRuns, lease: Lease) -> None:
    first = runs.request("new chemistry", by="ann", at=SUNDAY)
    second = runs.request("the same", by="bob", at=SUNDAY + HOUR)
    assert runs.requests() == (first, second)
    run = start(runs, lease)
    runs.answer(runs.requests(), run.run_id)
    assert runs.requests() == ()
    runs.answer([first, second], run.run_id)  # after a crash it is said again
    third = runs.request("once more", by="ann", at=SUNDAY)
    assert runs.requests() == (third,)
    assert third.to_json()["at"] == "2026-03-01T02:00:00+00:00"


def test_a_run_answers_requests_in_the_moment_in_which_it_starts(
    runs: RetrainingRuns, lease: Lease
) -> None:
    runs.request("new chemistry", by="ann", at=SUNDAY)
    unknown = Request("none", "x", "ann", SUNDAY)
    wanted: dict[str, Any] = {"trigger": "manual", "reason": "asked", "at": SUNDAY, "document": {}}
    with pytest.raises(RecordsError, match="there is no request 'none'"):
        runs.start(**wanted, lease=lease, requests=(*runs.requests(), unknown))
    assert (runs.open(), len(runs.requests())) == (None, 1)  # all of it or nothing
    run = runs.start(**wanted, lease=lease, requests=runs.requests())
    assert (runs.open(), runs.requests()) == (run, ())


def test_a_request_that_was_answered_needs_no_other_run(runs: RetrainingRuns, lease: Lease) -> None:
    asked = runs.request("new chemistry", by="ann", at=SUNDAY)
    first = brought(runs, lease, "kept")
    runs.answer([asked], first.run_id)
    second = start(runs, lease)
    other = runs.request("more", by="ann", at=SUNDAY)
    with pytest.raises(RecordsError, match=f"was answered by run {first.run_id}"):
        runs.answer([other, asked], second.run_id)
    assert runs.requests() == (other,)


def test_what_is_not_there_is_named(runs: RetrainingRuns, lease: Lease) -> None:
    with pytest.raises(RecordsError, match="there is no retraining run 'none'"):
        runs.get("none")
    with pytest.raises(RecordsError, match="there is no retraining run 'none'"):
        runs.answer([], "none")
    run = start(runs, lease)
    gone = RetrainingRun("gone", *(getattr(run, name) for name in run.__slots__[1:]))
    with pytest.raises(RecordsError, match="there is no retraining run 'gone'"):
        runs.move(gone, "failed", at=SUNDAY, lease=lease)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"document": {"a": [1.0, float("nan")]}}, r"document\.a\[1\] of the run is nan"),
        ({"document": {"a": {"b": float("inf")}}}, r"document\.a\.b of the run is inf"),
        ({"document": {"a": object()}}, "cannot be kept as JSON"),
        ({"at": SUNDAY.replace(tzinfo=None)}, "has no time zone"),
        ({"trigger": ""}, "trigger '' of a retraining: expected 1 to 32"),
        ({"trigger": "x" * 33}, "expected 1 to 32 printable"),
        ({"reason": " "}, "reason ' ' of a retraining"),
        ({"reason": "a\0b"}, "expected 1 to 10000 printable"),
        ({"reason": "\ud800"}, "expected 1 to 10000 printable"),
    ],
)
def test_what_could_not_be_read_back_is_refused(
    runs: RetrainingRuns, lease: Lease, given: dict[str, Any], said: str
) -> None:
    wanted: dict[str, Any] = {
        "trigger": "drift",
        "reason": "r",
        "at": SUNDAY,
        "document": {},
        "lease": lease,
    }
    with pytest.raises(RecordsError, match=said):
        runs.start(**(wanted | given))
    assert runs.newest() is None
    if moved := {name: given[name] for name in ("document", "at") if name in given}:
        run = start(runs, lease)
        kept: dict[str, Any] = {"at": SUNDAY, "lease": lease}
        with pytest.raises(RecordsError, match=said):
            runs.move(run, "candidate", **(kept | moved))
        assert runs.open() == run


def test_a_request_needs_words_and_a_time(runs: RetrainingRuns) -> None:
    for reason, by, at, said in [
        ("", "ann", SUNDAY, "reason ''"),
        ("r", "", SUNDAY, "by ''"),
        ("r", "ann", SUNDAY.replace(tzinfo=None), "has no time zone"),
    ]:
        with pytest.raises(RecordsError, match=said):
            runs.request(reason, by=by, at=at)
    with pytest.raises(RecordsError, match="has no time zone"):
        runs.since(SUNDAY.replace(tzinfo=None))
    assert runs.requests() == ()

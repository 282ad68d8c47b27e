"""Leases: one has it, whatever clocks say and whoever dies; who lost it cannot write."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batteryops.errors import LeaseLostError, RecordsError
from batteryops.records.identifiers import new_id
from batteryops.records.leases import Lease, Leases, require

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
YEAR = timedelta(days=365)

TAKE_AT_ONCE = """
import json, os, sys
from datetime import UTC, datetime
from batteryops.records.leases import Leases
now = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
ready_read, ready_write = os.pipe()
go_read, go_write = os.pipe()
children = []
for number in range(6):
    answer_read, answer_write = os.pipe()
    child = os.fork()
    if not child:
        os.close(go_write)
        with Leases(sys.argv[1]) as leases:
            os.write(ready_write, b"x")
            os.read(go_read, 1)  # until the parent lets all of them go at once
            had, tokens = [], []
            for name in range(8):
                if leases.take(f"once-{name}", f"p{number}", seconds=60, now=now):
                    had.append(name)
            while len(tokens) < 5:
                lease = leases.take("in turn", f"p{number}", seconds=60, now=now)
                if lease:
                    tokens.append(lease.token)
                    leases.release(lease)
        os.write(answer_write, json.dumps([had, tokens]).encode())
        os._exit(0)
    os.close(answer_write)
    children.append((child, answer_read))
for _ in children:
    os.read(ready_read, 1)
os.close(go_write)
answers = []
for child, answer_read in children:
    assert os.waitpid(child, 0)[1] == 0
    answers.append(json.loads(os.read(answer_read, 65536)))
print(json.dumps(answers))
"""

KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from batteryops.records.leases import Leases
leases = Leases(sys.argv[1])
now = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
assert leases.take("controller", "killed", seconds=60, now=now)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def leases(url: str) -> Iterator[Leases]:
    with Leases(url) as opened:
        yield opened


def take(leases: Leases, holder: str, now: datetime = NOW, seconds: float = 60.0) -> Lease | None:
    return leases.take("controller", holder, seconds=seconds, now=now)


def taken(leases: Leases, holder: str, now: datetime = NOW, seconds: float = 60.0) -> Lease:
    lease = take(leases, holder, now, seconds)
    assert lease is not None
    return lease


def holds(leases: Leases, lease: Lease) -> bool:
    """Whether what is written with a lease would be."""
    try:
        with leases._database.write(exclusive=True) as connection:  # noqa: SLF001 - as a store does
            require(connection, lease)
    except LeaseLostError:
        return False
    return True


def test_one_has_it_until_its_time_is_over(leases: Leases) -> None:
    first = taken(leases, "a")
    assert (first.token, first.expires_at) == (1, NOW + MINUTE)
    assert take(leases, "b", NOW + timedelta(seconds=59.999)) is None
    assert take(leases, "a", NOW) is None  # nor twice by whoever has the same name
    second = taken(leases, "b", NOW + MINUTE)
    assert (second.holder, second.token) == ("b", 2)
    assert (holds(leases, first), holds(leases, second)) == (False, True)


def test_leases_of_two_names_are_two(leases: Leases) -> None:
    taken(leases, "a")
    assert leases.take("monitoring", "b", seconds=60, now=NOW) is not None


def test_of_processes_that_take_one_at_once_exactly_one_has_it(url: str) -> None:
    Leases(url).close()  # tables are there
    done = subprocess.run(  # noqa: S603  # own code
        [sys.executable, "-c", TAKE_AT_ONCE, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert sorted(name for had, _ in answers for name in had) == list(range(8))
    # of a lease that was given back again and again, no two holders had one token
    assert sorted(token for _, tokens in answers for token in tokens) == list(range(1, 31))


def test_of_threads_that_take_one_at_once_exactly_one_has_it(leases: Leases) -> None:
    for turn in range(5):
        start = Barrier(8)

        def attempt(number: int, turn: int = turn, start: Barrier = start) -> Lease | None:
            start.wait()
            return leases.take(f"turn-{turn}", f"thread-{number}", seconds=60, now=NOW)

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(attempt, range(8)))
        assert len([lease for lease in got if lease is not None]) == 1


def test_the_lease_of_a_killed_holder_is_free_after_its_time(url: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, url], check=False)  # noqa: S603  # own
    assert killed.returncode < 0
    with Leases(url) as leases:
        assert take(leases, "next", NOW + timedelta(seconds=59)) is None
        assert taken(leases, "next", NOW + timedelta(seconds=60)).token == 2


def test_a_renewed_lease_goes_on_from_now_with_its_token(leases: Leases) -> None:
    lease = taken(leases, "a")
    renewed = leases.renew(lease, seconds=120, now=NOW + MINUTE / 2)
    assert (renewed.token, renewed.expires_at) == (1, NOW + 2.5 * MINUTE)
    assert take(leases, "b", NOW + 2 * MINUTE) is None
    assert holds(leases, lease)  # the token counts, not which copy of it


def test_a_lease_whose_time_is_over_is_renewed_while_nobody_took_it(leases: Leases) -> None:
    lease = taken(leases, "a")
    leases.renew(lease, seconds=60, now=NOW + 10 * MINUTE)
    assert take(leases, "b", NOW + 10 * MINUTE) is None


def test_a_lease_that_was_taken_over_is_lost_and_says_to_whom(leases: Leases) -> None:
    slept = taken(leases, "a")
    other = taken(leases, "b", NOW + MINUTE)
    with pytest.raises(LeaseLostError, match=r"of a, token 1, is lost: b has it now, with token 2"):
        leases.renew(slept, seconds=60, now=NOW + MINUTE)
    leases.release(slept)  # which is not its own to give back
    assert holds(leases, other)
    assert take(leases, "c", NOW + MINUTE) is None


def test_a_lease_that_was_given_back_is_free_at_once_and_lost_for_its_holder(
    leases: Leases,
) -> None:
    lease = taken(leases, "a")
    leases.release(lease)
    leases.release(lease)
    with pytest.raises(LeaseLostError, match="nobody has it now"):
        leases.renew(lease, seconds=60, now=NOW)
    assert taken(leases, "b").token == 2  # it goes on growing


def test_a_lease_that_nobody_took_is_nobodys(leases: Leases) -> None:
    with pytest.raises(LeaseLostError, match="nobody has it now"):
        leases.renew(Lease("controller", "a", 1, NOW), seconds=60, now=NOW)


def test_a_clock_set_back_by_a_year_does_not_give_the_lease_of_a_living_holder_away(
    leases: Leases,
) -> None:
    lease = taken(leases, "a", NOW + YEAR)
    for minute in range(10):
        assert take(leases, "b", NOW + minute * MINUTE / 2) is None
        lease = leases.renew(lease, seconds=60, now=NOW + minute * MINUTE / 2)
    assert holds(leases, lease)


def test_a_clock_set_back_by_a_year_does_not_block_for_ever(leases: Leases) -> None:
    dead = taken(leases, "a", NOW + YEAR)
    assert take(leases, "b", NOW) is None  # nobody knows yet that it is dead
    assert take(leases, "b", NOW + timedelta(seconds=59)) is None
    assert taken(leases, "b", NOW + MINUTE).token == 2
    assert not holds(leases, dead)


def test_a_clock_set_back_twice_does_not_block_for_ever_either(leases: Leases) -> None:
    taken(leases, "a", NOW + 2 * YEAR)
    assert take(leases, "b", NOW + YEAR) is None
    assert take(leases, "b", NOW) is None
    assert take(leases, "b", NOW + timedelta(seconds=59)) is None
    assert take(leases, "b", NOW + MINUTE) is not None


def test_one_wrong_clock_gives_no_lease_to_those_whose_clocks_are_right(leases: Leases) -> None:
    lease = taken(leases, "a")
    assert take(leases, "a year behind", NOW - YEAR) is None
    assert take(leases, "c", NOW + timedelta(seconds=59)) is None
    assert holds(leases, lease)


def test_a_wrong_clock_takes_no_lease_that_is_renewed_by_a_right_one(leases: Leases) -> None:
    lease = taken(leases, "a")
    for half in range(6):
        now = NOW + half * MINUTE / 2
        assert take(leases, "a year behind", now - YEAR) is None
        lease = leases.renew(lease, seconds=60, now=now)
    assert holds(leases, lease)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "renew", "release"])),
        max_size=15,
    ),
    jumps=st.lists(st.sampled_from([0, 30, 61, 3600, -30, -61, -31_536_000]), min_size=15),
)
def test_never_do_two_hold_a_lease_and_tokens_only_grow(
    leases: Leases, steps: list[tuple[str, str]], jumps: list[int]
) -> None:
    name = new_id()
    now, had, newest = NOW + YEAR, dict[str, Lease](), 0
    for (holder, what), jump in zip(steps, jumps, strict=False):
        now += timedelta(seconds=jump)
        if what == "take":
            lease = leases.take(name, holder, seconds=60, now=now)
            if lease is not None:
                assert lease.token == newest + 1
                newest, had[holder] = lease.token, lease
        elif holder in had and what == "release":
            leases.release(had.pop(holder))
        elif holder in had:
            try:
                leases.renew(had[holder], seconds=60, now=now)
            except LeaseLostError:
                del had[holder]
        holding = [one for one in had.values() if holds(leases, one)]
        assert len(holding) <= 1
        assert all(one.token == newest for one in holding)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("", "a", 60.0, NOW), "name '' of a lease"),
        (("x" * 65, "a", 60.0, NOW), "expected 1 to 64 printable"),
        (("x", "a\0", 60.0, NOW), "holder .* expected 1 to 128 printable"),
        (("x", "a", 0.0, NOW), "a lease of 0.0 s"),
        (("x", "a", float("nan"), NOW), "a lease of nan s"),
        (("x", "a", 86_401.0, NOW), "renew it to hold it for longer"),
        (("x", "a", 60.0, NOW.replace(tzinfo=None)), "has no time zone"),
    ],
)
def test_what_is_no_lease_is_refused(
    leases: Leases, asked: tuple[str, str, float, datetime], said: str
) -> None:
    name, holder, seconds, now = asked
    with pytest.raises(RecordsError, match=said):
        leases.take(name, holder, seconds=seconds, now=now)

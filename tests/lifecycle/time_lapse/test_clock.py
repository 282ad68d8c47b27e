"""One clock for several processes, which ticks on, and by which waits do not go."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from batteryops.lifecycle.time_lapse.clock import Clock
from batteryops.records import identifiers
from batteryops.records.identifiers import new_id

THEN = datetime(2025, 3, 9, 2, 0, tzinfo=UTC)
NEAR = timedelta(seconds=30)
ASKS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from batteryops.lifecycle.time_lapse.clock import Clock

with Clock(Path(sys.argv[1])).lived_by():
    for _ in sys.stdin:
        print(datetime.now(UTC).isoformat(), flush=True)
"""


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock.create(tmp_path / "clock", THEN)


def test_what_lives_by_it_has_its_time_and_goes_back_to_the_true_one(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identifiers, "_last_tick", 0)  # what was made before in this process
    true = datetime.now(UTC)
    with clock.lived_by():
        assert THEN <= datetime.now(UTC) < THEN + NEAR
        assert time.time() == pytest.approx(THEN.timestamp(), abs=30)
        assert time.time_ns() // 1_000_000 - int(new_id().replace("-", "")[:12], 16) == (
            pytest.approx(0, abs=30_000)
        )
        clock.set(THEN + timedelta(weeks=4))
        assert THEN + timedelta(weeks=4) <= datetime.now(UTC) < THEN + timedelta(weeks=4) + NEAR
    assert true <= datetime.now(UTC) < true + NEAR


def test_it_ticks_and_waits_go_by_another_one(clock: Clock) -> None:
    with clock.lived_by():
        before, steady = datetime.now(UTC), time.monotonic()
        time.sleep(0.01)
        assert datetime.now(UTC) - before >= timedelta(seconds=0.01)
        clock.set(THEN + timedelta(weeks=40))
        assert 0.01 <= time.monotonic() - steady < NEAR.total_seconds()


def test_another_process_sees_at_once_that_it_was_set(clock: Clock) -> None:
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", ASKS, str(clock.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for weeks in (0, 30, 3):  # it may also be set back
            clock.set(THEN + timedelta(weeks=weeks))
            other.stdin.write("?\n")
            other.stdin.flush()
            said = datetime.fromisoformat(other.stdout.readline().strip())
            assert THEN + timedelta(weeks=weeks) <= said < THEN + timedelta(weeks=weeks) + NEAR


def test_a_clock_that_is_made_again_says_the_new_time(clock: Clock) -> None:
    again = Clock.create(clock.path, THEN + timedelta(days=1))
    assert again.now() - THEN < timedelta(days=1) + NEAR
    assert Clock(clock.path).now() >= THEN + timedelta(days=1)

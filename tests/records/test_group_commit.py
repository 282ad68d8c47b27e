"""The fast path writes everything that waits in one transaction, and tells everybody the truth."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batteryops.errors import RecordsError
from batteryops.records import group_commit, prompt_write
from batteryops.records.database import Database
from batteryops.records.group_commit import (
    ROW_COLUMNS,
    BadRowsError,
    GroupCommit,
    QueueFullError,
    Row,
    encode_row,
)
from batteryops.records.identifiers import new_id
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.records.rows import insert_together
from batteryops.records.turns import Turn

WRITE_UNTIL_KILLED = """
import sys, threading
from datetime import UTC, datetime
from batteryops.records.group_commit import GroupCommit, encode_row
from batteryops.records.identifiers import new_id
from batteryops.records.predictions import PredictionRecord
group = GroupCommit(sys.argv[1], queue_rows=1000)
turn = threading.Lock()
room = threading.Semaphore(20)
def told(ids):
    def done(error):
        with turn:
            sys.stdout.write("".join(f"{one}\\n" for one in ids) if error is None else "failed\\n")
            sys.stdout.flush()
        room.release()
    return done
while True:
    room.acquire()
    records = [
        PredictionRecord(new_id(), "r", datetime.now(UTC), "B0005", "m", "1", "f", "champion",
                         {"a": 1.0}, 1.5, 0.75, 0.1, 1.4, 1.6, "ok")
        for _ in range(3)
    ]
    group.submit([encode_row(one) for one in records], told([one.prediction_id for one in records]))
"""


HOLD_THE_TURN = """
import sys, time
from pathlib import Path
from batteryops.records.turns import Turn
with Turn(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def record(**changes: object) -> PredictionRecord:
    """An answer like the server's."""
    base = PredictionRecord(
        prediction_id=new_id(),
        request_id="request-1",
        answered_at=datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC),
        vehicle_id="B0005",
        model_name="ev-soh-predictor",
        model_version="3",
        package_fingerprint="ab" * 32,
        role="champion",
        features={"voltage_V_mean": 3.53, "discharge_time_s": 3366.781, "missing": None},
        capacity_ah=1.8564874208181574,
        soh=0.9282437104090787,
        latency_ms=0.21,
        capacity_low_ah=1.7912,
        capacity_high_ah=1.9217,
        status="ok",
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # names and types as above


class Told:
    """What a caller of `submit` is told."""

    def __init__(self) -> None:
        self._heard = threading.Event()
        self.error: BaseException | None = None
        self.times = 0

    def __call__(self, error: BaseException | None) -> None:
        self.error = error
        self.times += 1
        self._heard.set()

    def wait(self) -> BaseException | None:
        assert self._heard.wait(20), "nobody told the caller"
        assert self.times == 1
        return self.error


def send(group: GroupCommit, *records: PredictionRecord) -> Told:
    told = Told()
    group.submit([encode_row(one) for one in records], told)
    return told


@pytest.fixture
def group(url: str) -> Iterator[GroupCommit]:
    opened = GroupCommit(url, queue_rows=1000)
    yield opened
    opened.close(5)


def held_up(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Transactions wait until the event is set."""
    go_on = threading.Event()
    write = GroupCommit._write  # noqa: SLF001  # the one place where time passes

    def later(self: GroupCommit, rows: list[Row]) -> dict[int, Exception]:
        assert go_on.wait(20)
        return write(self, rows)

    monkeypatch.setattr(GroupCommit, "_write", later)
    return go_on


def test_a_row_is_read_back_as_the_record_it_came_from(group: GroupCommit, url: str) -> None:
    written = [
        record(answered_at=datetime(2026, 3, 1, tzinfo=UTC)),
        record(
            status="out_of_domain",
            outside=("discharge_time_s",),
            outside_jointly=True,
            cached=True,
            served=False,
            baseline="3f2a91c0d4e5-v2",
            vehicle_id='Zoë\'s "car"',
        ),
        record(
            capacity_ah=1.5,
            contributions={"a": 0.3, "b": -0.1},
            base_ah=1.3,
            capacity_low_ah=None,
            capacity_high_ah=None,
        ),
    ]
    assert send(group, *written).wait() is None
    with PredictionLog(url) as log:
        assert [log.get(one.prediction_id) for one in written] == written
        log.append([replace(one, prediction_id=f"{one.prediction_id[:-1]}!") for one in written])
        # the two ways of writing leave the same: times in another form would not sort
        assert [one.answered_at for one in log.recent(6)] == [
            one.answered_at for one in reversed(written) for _ in range(2)
        ]


def test_both_ways_of_writing_leave_the_same_in_the_database(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    one = record(outside=("a",), outside_jointly=True, status="out_of_domain")
    other = replace(one, prediction_id=new_id())
    group = GroupCommit(f"sqlite:///{file}", queue_rows=10)
    assert send(group, one).wait() is None
    group.close(5)
    with PredictionLog(f"sqlite:///{file}") as log:
        log.append([other])
    with closing(sqlite3.connect(file)) as connection:
        first, second = connection.execute("SELECT * FROM predictions").fetchall()
    assert first[1:] == second[1:]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    features=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1),
        st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    ),
    capacity=st.floats(0, 10),
    latency=st.floats(allow_nan=False, allow_infinity=False),
)
def test_every_finite_number_comes_back_to_the_last_bit(
    group: GroupCommit,
    url: str,
    features: dict[str, float | None],
    capacity: float,
    latency: float,
) -> None:
    written = record(features=features, capacity_ah=capacity, latency_ms=latency)
    assert send(group, written).wait() is None
    with PredictionLog(url) as log:
        assert log.get(written.prediction_id) == written


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 70), max_size=12), fresh=st.lists(st.booleans(), min_size=12))
def test_however_rows_are_grouped_the_good_ones_are_kept_and_the_bad_ones_named(
    group: GroupCommit, url: str, sizes: list[int], fresh: list[bool]
) -> None:
    there = record()
    assert send(group, there).wait() is None
    sent = [[record() for _ in range(size)] for size in sizes]
    for records, is_fresh in zip(sent, fresh, strict=False):
        if not is_fresh and records:
            records[len(records) // 2] = there
    errors = [told.wait() for told in [send(group, *records) for records in sent]]
    with PredictionLog(url) as log:
        for records, error in zip(sent, errors, strict=True):
            bad = [at for at, one in enumerate(records) if one is there]
            if bad:
                assert isinstance(error, BadRowsError)
                assert list(error.errors) == bad
            else:
                assert error is None
            good = [one for one in records if one is not there]
            assert [log.get(one.prediction_id) for one in good] == good
    assert group.waiting == 0


def _ids(records: list[PredictionRecord]) -> set[str]:
    return {one.prediction_id for one in records}


def test_many_threads_submit_at_once_and_every_row_is_there(group: GroupCommit, url: str) -> None:
    told: list[Told] = []
    sent: list[PredictionRecord] = []

    def work() -> None:
        for _ in range(15):
            one = record()
            sent.append(one)
            told.append(send(group, one))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.wait() for one in told] == [None] * 120
    with PredictionLog(url) as log:
        assert _ids(log.recent(1000)) == _ids(sent)


def test_what_gathers_during_one_transaction_is_the_next_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = held_up(monkeypatch)
    batches: list[int] = []
    group = GroupCommit(url, queue_rows=100, on_batch=lambda rows, _seconds: batches.append(rows))
    told = [send(group, record())]
    while not group._taken:  # noqa: SLF001  # until the first is on its way
        time.sleep(0.001)
    told += [send(group, record(), record()) for _ in range(5)]
    assert group.waiting == 11
    assert group.oldest_wait_s > 0
    go_on.set()
    assert [one.wait() for one in told] == [None] * 6
    group.close(5)
    assert batches == [1, 10]
    assert (group.waiting, group.oldest_wait_s) == (0, 0)


def test_the_first_row_waits_for_company_where_it_is_told_to(url: str) -> None:
    batches: list[int] = []
    group = GroupCommit(
        url, queue_rows=100, group_ms=200, on_batch=lambda rows, _seconds: batches.append(rows)
    )
    told = [send(group, record()) for _ in range(5)]
    assert [one.wait() for one in told] == [None] * 5
    group.close(5)
    assert batches == [5]


def test_more_rows_than_may_wait_are_refused_with_a_hint_and_none_of_them_taken(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = held_up(monkeypatch)
    group = GroupCommit(url, queue_rows=3)
    told = [send(group, record(), record())]
    with pytest.raises(QueueFullError, match=r"2 answers wait.*at most 3 may; try again") as caught:
        send(group, record(), record())
    assert 0.1 <= caught.value.retry_after_s <= 10
    told.append(send(group, record()))
    go_on.set()
    assert [one.wait() for one in told] == [None, None]
    assert send(group, record()).wait() is None  # there is room again
    group.close(5)
    with PredictionLog(url) as log:
        assert log.count() == 4


def test_closing_writes_what_waits_and_takes_nothing_more(url: str) -> None:
    group = GroupCommit(url, queue_rows=1000)
    told = [send(group, record()) for _ in range(50)]
    assert group.close(5) == 0
    assert group.close(5) == 0
    assert [one.wait() for one in told] == [None] * 50
    with pytest.raises(RecordsError, match="is closed"):
        send(group, record())
    with PredictionLog(url) as log:
        assert log.count() == 50


def test_closing_says_how_many_rows_were_not_written_in_time(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = held_up(monkeypatch)
    group = GroupCommit(url, queue_rows=100)
    first = send(group, record())
    while not group._taken:  # noqa: SLF001  # until the first is on its way
        time.sleep(0.001)
    late = send(group, record(), record())
    assert group.close(0.05) == 3
    assert isinstance(late.wait(), RecordsError)
    go_on.set()
    assert first.wait() is None


@pytest.mark.parametrize("wrong", [{"queue_rows": 0}, {"queue_rows": 1, "group_ms": -1}])
def test_a_queue_of_no_size_or_a_negative_wait_is_refused(url: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(RecordsError, match="expected at least 1, and 0 to 1000"):
        GroupCommit(url, **wrong)


def test_a_callback_that_fails_ends_nothing(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_given: object) -> None:
        raise ValueError("a caller's own fault")

    group = GroupCommit(url, queue_rows=10, on_batch=fails)
    group.submit([encode_row(record())], fails)
    assert send(group, record()).wait() is None
    assert group.close(5) == 0
    assert "a function that was given to the prediction log failed" in caplog.text


def test_a_row_that_no_driver_can_send_fails_alone(group: GroupCommit, url: str) -> None:
    good = record()
    told = Told()
    rows = [(*encode_row(record())[:-1], {"no": "column"}), encode_row(good)]
    group.submit(rows, told)  # type: ignore[arg-type]  # that is the point
    error = told.wait()
    assert isinstance(error, BadRowsError)
    assert list(error.errors) == [0]
    assert "1 of 2 answers cannot be kept" in str(error)
    with PredictionLog(url) as log:
        assert log.get(good.prediction_id) == good
        assert log.count() == 1


def test_a_full_disk_fails_everybody_leaves_nothing_and_is_recovered_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    full = True
    connect = Database.connect

    def limited(self: Database) -> Any:  # noqa: ANN401  # as it is
        connection = connect(self)
        if full:
            connection.execute("PRAGMA max_page_count = 40")
        return connection

    monkeypatch.setattr(Database, "connect", limited)
    monkeypatch.setattr(group_commit, "_FIRST_PAUSE_S", 0.0)
    group = GroupCommit(url, queue_rows=1000)
    large = {f"feature_{number}": 0.5 for number in range(50)}
    for size in (40, 400):  # one statement, and many of them in one transaction
        written = [record(features=large) for _ in range(size)]
        told = send(group, *written)
        error = told.wait()
        assert isinstance(error, RecordsError)
        assert "database or disk is full" in str(error)
        assert "has room" in str(error)
    with PredictionLog(url) as log:
        assert log.count() == 0
    full = False
    assert send(group, record()).wait() is None
    group.close(5)


def test_while_the_pause_after_a_failure_lasts_rows_are_refused_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_FIRST_PAUSE_S", 1000.0)
    group = GroupCommit(url, queue_rows=10)
    tries = []

    def broken(_database: Database) -> None:
        tries.append(1)
        raise OSError("the cable is out")

    monkeypatch.setattr(group_commit, "row_writer", broken)
    assert group._writer is not None  # noqa: SLF001  # its connection is cut
    monkeypatch.setattr(group._writer, "write", broken)  # noqa: SLF001
    group._pause_s = 1000.0  # noqa: SLF001
    errors = [send(group, record()).wait() for _ in range(3)]
    assert ["the cable is out" in str(error) for error in errors] == [True] * 3
    assert len(tries) == 1
    assert group.close(5) == 0  # they were refused before


def test_a_file_that_was_removed_takes_nothing_more_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "_FIRST_PAUSE_S", 0.0)
    file = tmp_path / "a.db"
    group = GroupCommit(f"sqlite:///{file}", queue_rows=10)
    kept = record()
    assert send(group, kept).wait() is None
    group._pause_s = 0.0  # noqa: SLF001  # no pause before it is tried again
    file.rename(tmp_path / "moved.db")
    for _ in range(2):
        assert "was removed or replaced" in str(send(group, record()).wait())
    (tmp_path / "moved.db").rename(file)
    back = record()
    deadline = time.monotonic() + 10
    while send(group, back).wait() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    group.close(5)
    with PredictionLog(f"sqlite:///{file}") as log:
        assert _ids(log.recent(10)) == _ids([kept, back])


def test_every_acknowledged_row_outlives_a_process_that_is_killed_while_it_writes(
    url: str,
) -> None:
    writer = subprocess.Popen(  # noqa: S603  # own code
        [sys.executable, "-c", WRITE_UNTIL_KILLED, url],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(200)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    writer.wait()
    assert "failed" not in acknowledged
    with PredictionLog(url) as log:
        there = _ids(log.recent(100_000))
    assert set(acknowledged) - there == set()


def test_several_processes_write_one_file_and_every_row_is_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    writers = [
        subprocess.Popen(  # noqa: S603  # own code
            [sys.executable, "-c", WRITE_UNTIL_KILLED, url],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    acknowledged: list[str] = []
    for writer in writers:
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(150)]
    for writer in writers:
        writer.kill()
        assert writer.stdout is not None
        writer.stdout.close()
        writer.wait()
    with PredictionLog(url) as log:
        assert set(acknowledged) <= _ids(log.recent(100_000))


@pytest.mark.integration
def test_a_server_that_was_stopped_and_started_again_is_written_to_again(
    own_postgresql: Any,  # noqa: ANN401  # its class stands in conftest
) -> None:
    server = own_postgresql
    group = GroupCommit(server.url, queue_rows=100)
    kept = record()
    assert send(group, kept).wait() is None
    server.stop()
    for _ in range(3):
        error = send(group, record()).wait()
        assert isinstance(error, RecordsError)
        assert "check that the server is up" in str(error)
        assert server.password not in str(error)
    server.start()
    back = record()
    deadline = time.monotonic() + 20
    while send(group, back).wait() is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    group.close(5)
    with PredictionLog(server.url) as log:
        assert _ids(log.recent(10)) == _ids([kept, back])


def test_a_turn_excludes_other_processes_and_ends_with_the_one_that_holds_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.db"
    holder = subprocess.Popen(  # noqa: S603  # own code
        [sys.executable, "-c", HOLD_THE_TURN, file], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    got = threading.Event()

    def want() -> None:
        with Turn(file):
            got.set()

    thread = threading.Thread(target=want)
    thread.start()
    assert not got.wait(0.2)
    holder.kill()
    assert got.wait(10)
    thread.join()
    holder.stdout.close()
    holder.wait()


def test_a_turn_whose_file_cannot_be_made_only_gives_up_the_order(tmp_path: Path) -> None:
    turn = Turn(tmp_path / "no such folder" / "a.db")
    with turn, Turn(tmp_path / "no such folder" / "a.db"):
        pass
    turn.close()


def test_the_layout_names_every_column_once() -> None:
    assert len(ROW_COLUMNS) == len(set(ROW_COLUMNS)) == len(encode_row(record()))


def test_a_database_out_of_reach_is_refused_at_the_start(new_url: Callable[[], str]) -> None:
    del new_url
    with pytest.raises(RecordsError, match="not usable"):
        GroupCommit("postgresql://user@127.0.0.1:1/x", queue_rows=1)


def rows_of(*records: PredictionRecord) -> list[Row]:
    return [encode_row(one) for one in records]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "predictions.db"


@pytest.fixture
def prompt(file: Path) -> Iterator[GroupCommit]:
    opened = GroupCommit(f"sqlite:///{file}", queue_rows=10)
    yield opened
    opened.close(5)


def count(file: Path) -> int:
    with PredictionLog(f"sqlite:///{file}") as log:
        return log.count()


def test_rows_written_now_are_on_disk_and_are_told_of(file: Path) -> None:
    batches: list[int] = []
    url = f"sqlite:///{file}"
    group = GroupCommit(url, queue_rows=10, on_batch=lambda rows, _seconds: batches.append(rows))
    written = [record(), record(capacity_ah=1.5)]
    assert group.write_now(rows_of(*written))
    with PredictionLog(url) as log:
        assert [log.get(one.prediction_id) for one in written] == written
    assert (group.waiting, batches) == (0, [2])
    group.close(5)
    assert not group.write_now(rows_of(record()))


def test_a_database_that_is_no_file_is_not_waited_for(group: GroupCommit, url: str) -> None:
    assert group.write_now(rows_of(record())) == url.startswith("sqlite")


def test_nothing_is_written_now_past_those_who_wait(
    prompt: GroupCommit, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    go_on = held_up(monkeypatch)
    told = send(prompt, record())
    assert not prompt.write_now(rows_of(record()))
    go_on.set()
    assert told.wait() is None
    assert prompt.write_now(rows_of(record()))
    assert count(file) == 2


def test_more_than_one_statement_takes_is_for_the_writer(prompt: GroupCommit, file: Path) -> None:
    many = rows_of(*(record() for _ in range(33)))
    assert not prompt.write_now(many)
    assert prompt.write_now(many[:32])
    assert count(file) == 32


def test_who_finds_the_turn_taken_does_not_wait(prompt: GroupCommit, file: Path) -> None:
    with Turn(file):
        assert not prompt.write_now(rows_of(record()))
    assert prompt.write_now(rows_of(record()))  # nothing was wrong, so at once again


def test_a_locked_file_is_left_to_the_writer_for_a_while(
    prompt: GroupCommit, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        assert not prompt.write_now(rows_of(record()))
        assert time.monotonic() - start < prompt_write.PAUSE_S  # it did not wait for it
        other.execute("ROLLBACK")
    assert not prompt.write_now(rows_of(record()))
    later = time.monotonic() + prompt_write.PAUSE_S
    monkeypatch.setattr("batteryops.records.prompt_write.time.monotonic", lambda: later)
    assert prompt.write_now(rows_of(record()))
    assert count(file) == 1


def test_of_rows_with_a_bad_one_none_is_written_now(prompt: GroupCommit, file: Path) -> None:
    good = record()
    assert not prompt.write_now(rows_of(good, good))
    assert count(file) == 0
    told = Told()
    prompt.submit(rows_of(good, good), told)  # where it is found out which is bad
    assert isinstance(told.wait(), BadRowsError)
    assert count(file) == 1


def test_a_disk_that_was_slow_is_not_waited_for_until_a_while_has_passed(
    prompt: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]

    def slow(cursor: sqlite3.Cursor, rows: list[Row]) -> None:
        now[0] += 2 * prompt_write.SLOW_S
        insert_together(cursor, rows)

    monkeypatch.setattr("batteryops.records.prompt_write.time.monotonic", lambda: now[0])
    monkeypatch.setattr(prompt_write, "insert_together", slow)
    assert prompt.write_now(rows_of(record()))
    assert not prompt.write_now(rows_of(record()))
    now[0] += prompt_write.PAUSE_S
    assert prompt.write_now(rows_of(record()))


def test_nothing_is_written_now_into_a_file_that_nobody_finds(
    prompt: GroupCommit, file: Path
) -> None:
    assert prompt.write_now(rows_of(record()))
    file.rename(file.with_suffix(".gone"))
    assert not prompt.write_now(rows_of(record()))
    assert not file.exists()

"""The prediction log's fast path: one thread writes everything that waits as one transaction."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from batteryops.errors import RecordsError
from batteryops.records.database import Database, open_database
from batteryops.records.prompt_write import PromptWriter
from batteryops.records.rows import (
    ROW_COLUMNS,
    BadRowError,
    Row,
    RowWriter,
    encode_row,
    encode_time,
    row_writer,
)
from batteryops.records.turns import Turn

__all__ = [
    "ROW_COLUMNS",
    "BadRowsError",
    "GroupCommit",
    "QueueFullError",
    "Row",
    "encode_row",
    "encode_time",
]

Done = Callable[[BaseException | None], None]

_FIRST_PAUSE_S: Final = 0.05  # before connecting again, doubled up to ...
_LONGEST_PAUSE_S: Final = 1.0
_HINT_S: Final = (0.1, 10.0)  # least and most that a caller is told to wait
_SMOOTHING: Final = 0.1  # weight of the newest transaction in the pace

_log = logging.getLogger(__name__)


class QueueFullError(RecordsError):
    """More rows wait for the disk than may.

    Args:
        message: for a person.
        retry_after_s: when there will be room again, at the present pace.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadRowsError(RecordsError):
    """The database refused some of the rows that were submitted together, and keeps the others.

    Args:
        message: for a person.
        errors: why, by position among the rows submitted; those not named are on disk.
    """

    def __init__(self, message: str, errors: dict[int, RecordsError]) -> None:
        super().__init__(message)
        self.errors = errors


class _Submitted(NamedTuple):
    rows: Sequence[Row]
    done: Done
    since: float


class GroupCommit:
    """Writes predictions for callers who must not wait; one thread with a connection of its own.

    While one transaction is on its way to the disk the rows for the next one gather: the more
    callers there are, the more share a commit. A transaction that fails fails everybody in it; the
    next one connects again, after a pause of at most a second in which rows are refused at once.

    Args:
        log_url: as `batteryops.records.database.open_database` takes it.
        queue_rows: how many rows may be neither on disk nor refused.
        group_ms: how long the first row of a transaction waits for company.
        on_batch: told of every transaction, in the writer thread: rows, and seconds that it took.

    Raises:
        RecordsError: when the database cannot be reached.
    """

    def __init__(
        self,
        log_url: str,
        *,
        queue_rows: int,
        group_ms: float = 0.0,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        if queue_rows < 1 or not 0 <= group_ms <= 1000:  # noqa: PLR2004  # a second
            raise RecordsError(
                f"queue_rows is {queue_rows} and group_ms {group_ms:g}; expected at least 1, and "
                "0 to 1000"
            )
        self._queue_rows, self._group_s, self._on_batch = queue_rows, group_ms / 1000, on_batch
        self._database: Database = open_database(log_url, "predictions")
        self._writer: RowWriter | None = row_writer(self._database)
        turn = self._database.turn
        self._prompt = PromptWriter(self._database, turn) if isinstance(turn, Turn) else None
        self._queue: deque[_Submitted] = deque()
        self._taken: list[_Submitted] = []
        self._gate = threading.Lock()  # between those who submit
        self._bell = threading.Lock()  # released where there is something to do
        self._bell.acquire()
        self._submitted = self._answered = self._lost = 0  # rows
        self._pace_s = 0.0  # per row, of late
        self._pause_s, self._not_before = _FIRST_PAUSE_S, 0.0
        self._why_not: RecordsError | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that are neither on disk nor refused yet."""
        return self._submitted - self._answered

    @property
    def oldest_wait_s(self) -> float:
        """How long the row that waits longest has waited; 0 when none does."""
        try:
            oldest = (self._taken or self._queue)[0]
        except IndexError:
            return 0.0
        return time.monotonic() - oldest.since

    def submit(self, rows: Sequence[Row], done: Done) -> None:
        """Have rows written; returns at once.

        Args:
            rows: in the layout of `ROW_COLUMNS`; not to be changed afterwards.
            done: called once, with None when all rows are on disk, or with what went wrong: a
                `BadRowsError` when the database kept only some of them, another `RecordsError`
                when it kept none. It is called in the writer thread, for rows that `close` gave up
                in the thread that closes, and must return soon.

        Raises:
            QueueFullError: when there is no room for them; none is taken.
            RecordsError: after `close`.
        """
        with self._gate:
            if self._closing:
                raise RecordsError("the prediction log is closed; no more answers can be given")
            if self._submitted - self._answered + len(rows) > self._queue_rows:
                raise self._full()
            self._submitted += len(rows)
            self._queue.append(_Submitted(rows, done, time.monotonic()))
            if self._bell.locked():
                self._bell.release()

    def write_now(self, rows: Sequence[Row]) -> bool:
        """Write a few rows in this thread, where nothing waits and the database answers at once.

        Call it from one thread only. It takes as long as a commit, a fraction of a millisecond on
        a good disk; after one that took long it is refused for a while.

        Args:
            rows: as `submit` takes them.

        Returns:
            Whether they are on disk; otherwise nothing was written: submit them.
        """
        if self._prompt is None or self._closing or self._submitted != self._answered:
            return False
        start = time.perf_counter()
        if not self._prompt.write(rows):
            return False
        self._database.tidy_up_soon()
        if self._on_batch is not None:
            _call(self._on_batch, len(rows), time.perf_counter() - start)
        return True

    def close(self, drain_s: float) -> int:
        """Write what waits, take nothing more. Calling it twice does no harm.

        Args:
            drain_s: give up after so long.

        Returns:
            How many of the rows that waited could not be written; 0 is a clean end.
        """
        with self._gate:
            if not self._closing:
                self._closing, self._lost = True, 0
            if self._bell.locked():
                self._bell.release()
        self._thread.join(drain_s)
        while self._queue:
            try:
                left = self._queue.popleft()
            except IndexError:  # the thread was quicker
                break
            why = RecordsError("the prediction log was closed before this answer was on disk")
            self._settle(len(left.rows), len(left.rows))
            _call(left.done, why)
        if self._thread.is_alive():
            return self._lost + self.waiting
        if self._prompt is not None:
            self._prompt.close()
        self._database.close()
        return self._lost

    def _full(self) -> QueueFullError:
        waiting = self.waiting
        retry_after_s = min(max(waiting * self._pace_s, _HINT_S[0]), _HINT_S[1])
        return QueueFullError(
            f"{waiting} answers wait for the prediction log, and at most {self._queue_rows} may; "
            f"try again in {retry_after_s:.1f} s",
            retry_after_s,
        )

    def _work(self) -> None:
        while True:
            self._bell.acquire()
            if self._group_s and not self._closing:
                time.sleep(self._group_s)
            while self._queue:
                self._write_what_waits()
            if self._closing:
                break
        if self._writer is not None:
            self._writer.close()

    def _write_what_waits(self) -> None:
        taken, queue = self._taken, self._queue
        for _ in range(len(queue)):
            try:
                taken.append(queue.popleft())
            except IndexError:  # closed meanwhile
                break
        if len(taken) == 1:
            rows = taken[0].rows
        else:
            rows = [row for submitted in taken for row in submitted.rows]
        if not rows:
            self._answer_all(None)
            return
        start = time.perf_counter()
        try:
            refused = self._write(rows)
        except Exception as error:  # noqa: BLE001  # whatever it is, those who wait are told
            self._answer_all(self._broken(error))
            return
        seconds = time.perf_counter() - start
        self._pace_s += (seconds / len(rows) - self._pace_s) * (_SMOOTHING if self._pace_s else 1)
        self._pause_s = _FIRST_PAUSE_S
        if refused:
            self._answer_each(refused)
        else:
            self._answer_all(None)
        self._database.tidy_up_soon()
        if self._on_batch is not None:
            _call(self._on_batch, len(rows) - len(refused), seconds)

    def _write(self, rows: Sequence[Row]) -> dict[int, Exception]:
        """Write them as one transaction; those that the database refuses, with the reason."""
        if self._writer is None:
            if self._why_not is not None and time.monotonic() < self._not_before:
                raise self._why_not
            self._writer = row_writer(self._database)
            self._why_not = None
        try:
            self._writer.write(rows)
        except BadRowError:
            return self._writer.write_singly(rows)
        return {}

    def _broken(self, error: Exception) -> RecordsError:
        """Give the connection up; say why, and when to try again."""
        if error is self._why_not:
            return self._why_not
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._why_not = error if isinstance(error, RecordsError) else self._database.failure(error)
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return self._why_not

    def _answer_all(self, error: RecordsError | None) -> None:
        taken, self._taken = self._taken, []
        n_rows = sum(len(submitted.rows) for submitted in taken)
        self._settle(n_rows, 0 if error is None else n_rows)
        for submitted in taken:
            _call(submitted.done, error)

    def _answer_each(self, refused: dict[int, Exception]) -> None:
        taken, self._taken = self._taken, []
        self._settle(sum(len(submitted.rows) for submitted in taken), len(refused))
        first = 0
        for submitted in taken:
            bad = {
                at: self._database.failure(refused[first + at])
                for at in range(len(submitted.rows))
                if first + at in refused
            }
            first += len(submitted.rows)
            if not bad:
                _call(submitted.done, None)
                continue
            told = (
                f"{len(bad)} of {len(submitted.rows)} answers cannot be kept: "
                f"{next(iter(bad.values()))}"
            )
            _call(submitted.done, BadRowsError(told, bad))

    def _settle(self, n_rows: int, n_lost: int) -> None:
        with self._gate:
            self._answered += n_rows
            self._lost += n_lost


def _call(told: Callable[..., None], *given: object) -> None:
    """Call what a caller gave; what it raises must not end the thread that others wait for."""
    try:
        told(*given)
    except Exception:  # noqa: BLE001  # anything may go wrong in it
        _log.exception("a function that was given to the prediction log failed")

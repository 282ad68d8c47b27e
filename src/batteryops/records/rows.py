"""Rows of the table of predictions, written as fast as each driver can: one call a transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Protocol

import orjson
import sqlalchemy as sa

from batteryops.records.database import Database
from batteryops.records.record import PredictionRecord
from batteryops.records.tables import PREDICTIONS

Row = tuple[str | float | int | None, ...]
"""The values of one prediction in the order of `ROW_COLUMNS`, the same for both databases."""

ROW_COLUMNS: Final = tuple(column.name for column in PREDICTIONS.columns)
"""What stands where in a `Row`.

Text is `str`; numbers are `float` (or `int`); truth is 1 or 0; what is missing is None. Columns of
JSON (`features`, `outside`, `contributions`) hold its text. `answered_at` is UTC as
`2026-03-01 12:30:15.123456`: without a zone, always with six digits after the point. Nothing is
looked at again: who builds rows has checked what `PredictionRecord` checks.
"""

TOGETHER: Final = 32
"""Rows that one statement inserts on SQLite, at most."""

_BAD_ROW: Final = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError,
                   sqlite3.InterfaceError, TypeError, ValueError, OverflowError)  # fmt: skip
_BAD_ROW_STATES: Final = (b"22", b"23")  # PostgreSQL: data exception, integrity violation


class BadRowError(Exception):
    """The database refuses a row for what it holds; nothing of the transaction is written."""


class RowWriter(Protocol):
    """One connection that inserts rows; a transaction that fails writes nothing."""

    def write(self, rows: Sequence[Row]) -> None:
        """Insert rows in one transaction; they are on disk when this returns.

        Raises:
            BadRowError: when one of them is at fault.
            Exception: the driver's own, when the database is.
        """

    def write_singly(self, rows: Sequence[Row]) -> dict[int, Exception]:
        """Insert those that can be inserted; give for each of the others why not.

        Raises:
            Exception: the driver's own, when the database is at fault; then nothing is written.
        """

    def close(self) -> None:
        """Give the connection back; never raises."""


def encode_row(record: PredictionRecord) -> Row:
    """A record as a row of `ROW_COLUMNS`."""
    return (
        record.prediction_id,
        record.request_id,
        encode_time(record.answered_at),
        record.vehicle_id,
        record.model_name,
        record.model_version,
        record.package_fingerprint,
        record.role,
        _json(dict(record.features)),
        record.capacity_ah,
        record.soh,
        record.latency_ms,
        record.capacity_low_ah,
        record.capacity_high_ah,
        record.status,
        _json(record.outside),
        int(record.outside_jointly),
        record.baseline,
        int(record.cached),
        int(record.served),
        None if record.contributions is None else _json(dict(record.contributions)),
        record.base_ah,
    )


def encode_time(at: datetime) -> str:
    """An aware time as rows hold it.

    Examples:
        >>> encode_time(datetime(2026, 3, 1, 12, 30, tzinfo=UTC))
        '2026-03-01 12:30:00.000000'
    """
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def row_writer(database: Database) -> RowWriter:
    """A writer of its own connection.

    Raises:
        RecordsError: when the database cannot be reached.
    """
    connection = database.connect()
    try:
        if isinstance(connection, sqlite3.Connection):
            return _SqliteRows(connection, database)
        return _PostgresqlRows(connection)
    except Exception as error:
        connection.close()
        raise database.failure(error) from error


def insert_together(cursor: sqlite3.Cursor, rows: Sequence[Row]) -> None:
    """Insert up to `TOGETHER` rows by one statement: a transaction where none is open."""
    cursor.execute(_sqlite_insert(len(rows)), tuple(chain.from_iterable(rows)))


class _SqliteRows:
    """One INSERT of many rows, which is a transaction by itself: a single call of the driver.

    It takes SQLite's lock for writing at its start, as BEGIN IMMEDIATE does. Many rows in one
    statement let other threads run while SQLite works; row by row, the interpreter's lock would
    go to and fro and stay here.
    """

    def __init__(self, connection: sqlite3.Connection, database: Database) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._database = database

    def write(self, rows: Sequence[Row]) -> None:
        self._database.refuse_if_removed()
        try:
            with self._database.turn:
                if len(rows) <= TOGETHER:
                    insert_together(self._cursor, rows)
                else:
                    self._in_one(lambda: self._by_many(rows))
        except _BAD_ROW as error:
            raise BadRowError(str(error)) from error

    def write_singly(self, rows: Sequence[Row]) -> dict[int, Exception]:
        self._database.refuse_if_removed()
        refused: dict[int, Exception] = {}
        with self._database.turn:
            self._in_one(lambda: self._each(rows, refused))
        return refused

    def _by_many(self, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), TOGETHER):
            insert_together(self._cursor, rows[start : start + TOGETHER])

    def _each(self, rows: Sequence[Row], refused: dict[int, Exception]) -> None:
        for at, row in enumerate(rows):
            try:
                insert_together(self._cursor, (row,))
            except _BAD_ROW as error:  # undoes this statement alone
                refused[at] = error

    def _in_one(self, insert: Callable[[], None]) -> None:
        self._cursor.execute("BEGIN IMMEDIATE")
        try:
            insert()
            self._cursor.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has ended it where the disk is full
                with suppress(sqlite3.Error):
                    self._cursor.execute("ROLLBACK")
            raise

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()


class _PostgresqlRows:
    """One prepared INSERT whose only parameter is all rows as JSON, by libpq itself.

    A single call without the interpreter's lock, one way to the server and back. Numbers go as
    their shortest text that reads back as the same bits.
    """

    def __init__(self, connection: Any) -> None:  # noqa: ANN401  # psycopg is optional
        from psycopg import pq  # noqa: PLC0415  # optional

        self._connection = connection
        connection.rollback()
        connection.autocommit = True
        self._ok, self._state = pq.ExecStatus.COMMAND_OK, pq.DiagnosticField.SQLSTATE
        done = connection.pgconn.prepare(b"rows", _postgresql_insert())
        if done.status != self._ok:
            raise OSError(_told(done.error_message))

    def write(self, rows: Sequence[Row]) -> None:
        try:
            document = orjson.dumps(rows)
        except TypeError as error:  # orjson's own error is one
            raise BadRowError(str(error)) from error
        done = self._connection.pgconn.exec_prepared(b"rows", (document,))
        if done.status == self._ok:
            return
        told = _told(done.error_message)
        if (done.error_field(self._state) or b"")[:2] in _BAD_ROW_STATES:
            raise BadRowError(told)
        raise OSError(told)

    def write_singly(self, rows: Sequence[Row]) -> dict[int, Exception]:
        refused: dict[int, Exception] = {}
        with self._connection.transaction():
            for at, row in enumerate(rows):
                try:
                    with self._connection.transaction():
                        self.write((row,))
                except BadRowError as error:
                    refused[at] = error
        return refused

    def close(self) -> None:
        with suppress(Exception):  # whatever a broken connection says
            self._connection.close()


@lru_cache(TOGETHER)
def _sqlite_insert(n_rows: int) -> str:
    one = f"({','.join('?' * len(ROW_COLUMNS))})"
    values = ",".join([one] * n_rows)
    return f"INSERT INTO predictions ({','.join(ROW_COLUMNS)}) VALUES {values}"  # noqa: S608  # own names


def _postgresql_insert() -> bytes:
    fields = ",".join(_from_json(at, column) for at, column in enumerate(PREDICTIONS.columns))
    return (
        f"INSERT INTO predictions ({','.join(ROW_COLUMNS)}) "  # noqa: S608  # own names
        f"SELECT {fields} FROM jsonb_array_elements($1::text::jsonb) AS r"
    ).encode()


def _from_json(at: int, column: sa.Column[Any]) -> str:
    """The element of an array that is a row, as the type of its column."""
    kind = column.type
    if column.name == "answered_at":
        return f"(r->>{at})::timestamp AT TIME ZONE 'UTC'"
    if isinstance(kind, sa.Boolean):
        return f"(r->>{at})::int::boolean"
    if isinstance(kind, sa.JSON):
        return f"(r->>{at})::json"
    return f"(r->>{at})::float8" if isinstance(kind, sa.Double) else f"r->>{at}"


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _told(message: bytes | str | None) -> str:
    text = message.decode(errors="replace") if isinstance(message, bytes) else message or ""
    return text.strip() or "the connection is broken"

"""Writes a few rows in the thread that has them, while the database is a file and prompt."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from batteryops.errors import RecordsError
from batteryops.records.database import Database
from batteryops.records.rows import TOGETHER, Row, insert_together
from batteryops.records.turns import Turn

SLOW_S: Final = 0.02
"""A commit that takes longer is one that the caller should not have waited for ..."""

PAUSE_S: Final = 1.0
"""... and for so long none is made here."""


class PromptWriter:
    """Inserts rows of predictions without handing them to another thread.

    To wake a thread, and to be woken by it, takes longer than a commit on a good disk. Nothing
    here waits for anybody but that disk: where the turn is taken, the file is locked, the disk was
    slow a moment ago or anything goes wrong, nothing is written, and the rows are for the thread
    that may wait and knows what to do about failures.

    Args:
        database: an SQLite file.
        turn: the turn at writing it.
    """

    def __init__(self, database: Database, turn: Turn) -> None:
        self._database, self._turn = database, turn
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._not_before = 0.0

    def write(self, rows: Sequence[Row]) -> bool:
        """Insert rows in one transaction, from always the same thread.

        Args:
            rows: up to `rows.TOGETHER`.

        Returns:
            Whether they are on disk; otherwise none of them is.
        """
        start = time.monotonic()
        if start < self._not_before or len(rows) > TOGETHER or not self._turn.take_if_free():
            return False
        try:
            self._database.refuse_if_removed()
            insert_together(self._cursor or self._connected(), rows)
        except (RecordsError, sqlite3.Error, TypeError, ValueError, OverflowError):
            self._not_before = time.monotonic() + PAUSE_S
            self.close()
            return False
        finally:
            self._turn.give_back()
        if (now := time.monotonic()) - start > SLOW_S:
            self._not_before = now + PAUSE_S
        return True

    def _connected(self) -> sqlite3.Cursor:
        self._connection = self._database.connect()
        self._connection.execute("PRAGMA busy_timeout = 0")  # whoever has the file may keep it
        self._cursor = self._connection.cursor()
        return self._cursor

    def close(self) -> None:
        """Give the connection back; the next `write` makes another."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._cursor = None

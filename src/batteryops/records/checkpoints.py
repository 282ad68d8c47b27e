"""Moves an SQLite write-ahead log into its database, off the path of those who wait."""

import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from batteryops.records.turns import Turn

EVERY_S: Final = 1.0
_LARGE: Final = 4096  # pages in the log from which on it is started anew: 16 MB
_WAIT_S: Final = 10


class Checkpoints:
    """A thread that tidies up at most once a second, and only after `due`.

    SQLite by itself does this within a commit, for which somebody waits: some 20 ms more for a
    batch of 100,000 rows. Nothing depends on this thread: a log that has grown very long is still
    moved by a commit, and what a killed process left is moved by the next one that opens the file.

    Args:
        path: the SQLite file.
        turn: held for the moment in which the log is to have an end, so that it starts anew;
            without, writers who never pause would let it grow without bound.
    """

    def __init__(self, path: Path, turn: Turn) -> None:
        self._path, self._turn = path, turn
        self._due, self._closed = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def due(self) -> None:
        """There is something to move; returns at once."""
        if self._due.is_set():
            return
        self._due.set()
        with self._starting:
            if self._thread is None:
                self._closed.clear()
                self._thread = threading.Thread(target=self._work, name="checkpoint", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread; the next `due` starts another."""
        with self._starting:
            self._closed.set()
            self._due.set()
            if self._thread is not None:
                self._thread.join()
                self._thread = None
            self._due.clear()

    def _work(self) -> None:
        while True:
            self._due.wait()
            if self._closed.wait(EVERY_S):
                return
            self._due.clear()
            # whatever stands in its way stands in the way of the next commit too, which says so
            with suppress(sqlite3.Error):
                self._move()

    def _move(self) -> None:
        if not self._path.exists():  # connecting would make an empty one
            return
        with closing(
            sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
        ) as connection:
            if self._moved(connection) >= _LARGE:
                with self._turn:
                    self._moved(connection)

    @staticmethod
    def _moved(connection: sqlite3.Connection) -> int:
        """Move what no reader needs any more; how many pages the log holds."""
        pages: int = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        return pages

"""Turns at writing one SQLite file: fair and at once, between threads and between processes."""

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class Turn:
    """The turn at writing a file, held in a `with` block.

    Who waits for SQLite's own lock polls it, with sleeps of up to 0.1 s between, and goes hungry
    beside writers who never sleep. Here a writer waits in the kernel and is woken at once. The
    turn is a lock on a small file of its own, which the kernel gives back when a process dies.
    SQLite's lock stays what keeps the data whole: where this one cannot be had, because the folder
    is read-only or someone removes the file, only the order of turns suffers.

    Args:
        path: the SQLite file; the lock stands beside it.
    """

    def __init__(self, path: Path) -> None:
        self._beside = path.with_name(f"{path.name}-turn")
        self._threads = threading.Lock()
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._threads.acquire()
        try:
            self._lock(fcntl.LOCK_EX)
        except OSError:
            self._forget()
        except BaseException:
            self._threads.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()

    def take_if_free(self) -> bool:
        """Take the turn where nobody has it, without waiting; then `give_back` ends it."""
        if not self._threads.acquire(blocking=False):
            return False
        try:
            self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process has it
            self._threads.release()
            return False
        except OSError:
            self._forget()
        except BaseException:
            self._threads.release()
            raise
        return True

    def give_back(self) -> None:
        """End a turn that was taken."""
        try:
            if self._descriptor is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError:
            self._forget()
        finally:
            self._threads.release()

    def close(self) -> None:
        """Give the file back; the next turn opens it again."""
        with self._threads:
            self._forget()

    def _lock(self, how: int) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self._beside, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, how)

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

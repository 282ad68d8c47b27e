"""One clock for all processes of a time lapse: simulated time, set by whoever drives.

What the processes share is eight bytes of a file that each maps into its memory: by how much the
simulated time is ahead of the machine's monotonic clock, which is the same for all of them and is
set by nobody. So the clock ticks on from where it was set, all see it at once, and nobody has to be
told. Everything that asks Python for the time of day is answered by it, through time-machine;
timeouts and waits go by the monotonic clock, which is left alone.
"""

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

import numpy as np
import time_machine

from batteryops.files import replacing

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BYTES: Final = 8


class Clock:
    """Simulated time, shared by every process that opens the same file.

    Args:
        path: of the file; `create` makes one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _BYTES)
        # one aligned word: it is read and written whole
        self._ahead_ns = np.frombuffer(self._memory, dtype=np.int64)

    @classmethod
    def create(cls, path: Path, at: datetime) -> Self:
        """A clock of its own, which says this time now.

        Args:
            path: of a file that is made or replaced.
            at: with a time zone.
        """
        with replacing(path) as file:
            file.write_bytes(bytes(_BYTES))
        clock = cls(path)
        clock.set(at)
        return clock

    def set(self, at: datetime) -> None:
        """Set it, for all processes; it ticks on from there."""
        unix_ns = (at - _EPOCH) // _MICROSECOND * 1000
        self._ahead_ns[0] = unix_ns - time.monotonic_ns()

    def time_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time.monotonic_ns() + int(self._ahead_ns[0])

    def now(self) -> datetime:
        """The time, UTC."""
        return _EPOCH + timedelta(microseconds=self.time_ns() // 1000)

    @contextmanager
    def lived_by(self) -> Iterator[None]:
        """Meanwhile this process lives by it: `datetime.now`, `time.time`, and who asks these."""
        travel = time_machine.travel(0.0, tick=True)
        traveller = travel.start()
        # asked anew each time: another process may have set it
        traveller.time_ns = self.time_ns  # type: ignore[method-assign]  # the library asks its traveller
        try:
            yield
        finally:
            travel.stop()

"""Identifiers of predictions: UUID version 7, unique everywhere and in order of time.

The standard library has version 7 only from Python 3.14 on.
"""

import os
import struct
import threading
import time
from typing import Final

_AT_ONCE: Final = (
    512  # numbers that the system is asked for: one by one they cost more than the rest
)
_last_tick = 0
_random: list[int] = []
_turn = threading.Lock()


def uuid7(unix_ms: int, rand_a: int, rand_b: int) -> str:
    """Lay the parts of a version 7 UUID out as RFC 9562, section 5.7 says.

    Args:
        unix_ms: milliseconds since 1970-01-01 UTC, 48 bits.
        rand_a: 12 bits.
        rand_b: 62 bits.

    Returns:
        36 lower-case characters, hexadecimal digits and hyphens.

    Examples:
        The test vector of RFC 9562, appendix A.6:

        >>> uuid7(0x017F22E279B0, 0xCC3, 0x18C4DC0C0C07398F)
        '017f22e2-79b0-7cc3-98c4-dc0c0c07398f'
    """
    time_part = f"{unix_ms << 16 | 0x7000 | rand_a:016x}"
    random_part = f"{0b10 << 62 | rand_b:016x}"
    return f"{time_part[:8]}-{time_part[8:12]}-{time_part[12:]}-{random_part[:4]}-{random_part[4:]}"


def new_id() -> str:
    """A fresh identifier, greater than every one that this process made before.

    The 12 bits after the milliseconds hold the fraction of the millisecond (RFC 9562, section
    6.2, method 3), in steps of 0.24 microseconds; a call within the same step, or after the clock
    was set back, takes the step after the last one.

    Examples:
        >>> first, second = new_id(), new_id()
        >>> first < second
        True
    """
    global _last_tick  # noqa: PLW0603  # the order within a process is the process's own state
    with _turn:
        tick = max(time.time_ns() * 4096 // 1_000_000, _last_tick + 1)
        _last_tick = tick
        if not _random:
            _random.extend(struct.unpack(f"{_AT_ONCE}Q", os.urandom(8 * _AT_ONCE)))
        rand_b = _random.pop() >> 2  # 62 of 64 bits
    return uuid7(tick >> 12, tick & 0xFFF, rand_b)


# a child must not draw the same numbers as its parent
os.register_at_fork(after_in_child=_random.clear)

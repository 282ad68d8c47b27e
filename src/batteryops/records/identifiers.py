"""Identifiers of predictions: UUID version 7, unique everywhere and in order of time.

The standard library has version 7 only from Python 3.14 on.
"""

import secrets
import threading
import time
from typing import Final

_RANDOM_BITS: Final = 62
_last_tick = 0
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
    value = unix_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


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
    return uuid7(tick >> 12, tick & 0xFFF, secrets.randbits(_RANDOM_BITS))

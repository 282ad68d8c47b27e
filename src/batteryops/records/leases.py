"""Leases: of all who could act, one at a time may, and who lost the right cannot write any more."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from batteryops.errors import LeaseLostError, RecordsError
from batteryops.records.database import StoreName
from batteryops.records.store import Store
from batteryops.records.tables import LEASES

LONGEST_S: Final = 86_400.0
"""That a lease may be: whoever needs longer renews it."""

_NAME_LENGTH: Final = 64
_HOLDER_LENGTH: Final = 128


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act, until it ends or is taken over.

    Args:
        name: of what.
        holder: who has it, for people.
        token: greater than that of every holder before.
        expires_at: until when nobody else gets it, UTC.
    """

    name: str
    holder: str
    token: int
    expires_at: datetime


class Leases(Store):
    """The leases, in the database of the prediction log; safe between threads and processes.

    Time alone keeps no two holders apart: one may sleep through the end of its lease and wake up.
    So each holder has a token greater than all before it, and whatever is written with a lease
    looks at the token in the same transaction (`require`): of two who believe to hold it, only
    the later one can write.

    A clock that was set back leaves a lease that ends further in the future than it is long. It is
    not given away at once, as its holder may be at work: it is doubted, and given away when nobody
    renewed it for its whole length, by the clock of whoever doubts.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.

    Examples:
        >>> import tempfile
        >>> now = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Leases(f"sqlite:///{folder}/predictions.db") as leases:
        ...         first = leases.take("controller", "a", seconds=60, now=now)
        ...         second = leases.take("controller", "b", seconds=60, now=now)
        ...         later = now + timedelta(seconds=60)
        ...         third = leases.take("controller", "b", seconds=60, now=later)
        >>> first.token, second, third.token
        (1, None, 2)
    """

    name: ClassVar[StoreName] = "predictions"

    def take(self, name: str, holder: str, *, seconds: float, now: datetime) -> Lease | None:
        """Take a lease where it is free.

        Args:
            name: of what, 1 to 64 characters.
            holder: who asks, 1 to 128 characters. It gets no lease that it holds already: after a
                crash nobody knows whether who had the same name is still at work.
            seconds: how long, above 0 and at most a day.
            now: the clock, with a time zone.

        Returns:
            The lease, or None where another has it.
        """
        _check(name, holder, seconds, now)
        ends = now.astimezone(UTC) + timedelta(seconds=seconds)
        held = {"holder": holder, "seconds": seconds, "expires_at": ends, "doubted_at": None}
        of_name = sa.update(LEASES).where(LEASES.c.name == name)
        with self._database.write(exclusive=True) as connection:
            row = connection.execute(sa.select(LEASES).where(LEASES.c.name == name)).one_or_none()
            if row is None:
                connection.execute(sa.insert(LEASES).values(name=name, token=1, **held))
                return Lease(name, holder, 1, ends)
            if not _is_free(row, now):
                if _is_to_be_doubted(row, now):
                    connection.execute(of_name.values(doubted_at=now))
                return None
            token: int = row.token + 1
            connection.execute(of_name.values(token=token, **held))
            return Lease(name, holder, token, ends)

    def renew(self, lease: Lease, *, seconds: float, now: datetime) -> Lease:
        """Hold a lease for longer; also one whose time is over, while nobody else took it.

        Args:
            lease: as it was taken or renewed last.
            seconds: from now on, above 0 and at most a day.
            now: the clock, with a time zone.

        Raises:
            LeaseLostError: another has it, or it was released.
        """
        _check(lease.name, lease.holder, seconds, now)
        ends = now.astimezone(UTC) + timedelta(seconds=seconds)
        with self._database.write(exclusive=True) as connection:
            require(connection, lease)
            connection.execute(
                sa.update(LEASES)
                .where(LEASES.c.name == lease.name)
                .values(seconds=seconds, expires_at=ends, doubted_at=None)
            )
        return Lease(lease.name, lease.holder, lease.token, ends)

    def release(self, lease: Lease) -> None:
        """Give a lease back; one that was lost or given back before stays as it is."""
        with self._database.write(exclusive=True) as connection:
            connection.execute(
                sa.update(LEASES)
                .where(LEASES.c.name == lease.name, LEASES.c.token == lease.token)
                .values(expires_at=None, doubted_at=None)
            )


def require(connection: sa.Connection, lease: Lease) -> None:
    """Refuse to go on in a transaction whose lease is not the caller's any more.

    Args:
        connection: of an exclusive transaction, so that nobody takes the lease before it ends.
        lease: that the caller was given. Its time may be over, as long as nobody else took it.

    Raises:
        LeaseLostError: another has it, or it was released.
    """
    row = connection.execute(sa.select(LEASES).where(LEASES.c.name == lease.name)).one_or_none()
    if row is not None and row.token == lease.token and row.expires_at is not None:
        return
    if row is None or row.expires_at is None:
        now = "nobody has it now"
    else:
        now = f"{row.holder} has it now, with token {row.token}"
    raise LeaseLostError(
        f"the lease {lease.name!r} of {lease.holder}, token {lease.token}, is lost: {now}; nothing "
        "was written, leave the work to whoever holds it"
    )


def _is_free(row: sa.Row[Any], now: datetime) -> bool:
    """Whether nobody has the lease: given back, over, or doubted for all of its length."""
    if row.expires_at is None or row.expires_at <= now:
        return True
    if not _is_ahead(row, now) or row.doubted_at is None:
        return False
    return bool(now - row.doubted_at >= timedelta(seconds=row.seconds))


def _is_to_be_doubted(row: sa.Row[Any], now: datetime) -> bool:
    """Whether a lease is seen to end too late for the first time, by a clock set back so far."""
    return _is_ahead(row, now) and (row.doubted_at is None or row.doubted_at > now)


def _is_ahead(row: sa.Row[Any], now: datetime) -> bool:
    """Whether a lease ends later than it could if it had been taken now."""
    return bool(row.expires_at - now > timedelta(seconds=row.seconds))


def _check(name: str, holder: str, seconds: float, now: datetime) -> None:
    for what, value, most in (("name", name, _NAME_LENGTH), ("holder", holder, _HOLDER_LENGTH)):
        if not 0 < len(value) <= most or not value.isprintable():
            raise RecordsError(
                f"{what} {value!r} of a lease: expected 1 to {most} printable characters"
            )
    if not (math.isfinite(seconds) and 0.0 < seconds <= LONGEST_S):
        raise RecordsError(
            f"a lease of {seconds} s: expected above 0, and at most {LONGEST_S:g}; renew it to "
            "hold it for longer"
        )
    if now.utcoffset() is None:
        raise RecordsError(f"the time {now} of a lease has no time zone; give an aware time")

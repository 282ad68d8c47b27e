"""API keys: who may ask the server for what. Only the hash of a secret is ever stored."""

import hashlib
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal, cast, get_args

import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName
from batteryops.records.store import Store
from batteryops.records.tables import API_KEYS

Scope = Literal["predict", "label", "admin"]

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
"""What a key can be for; none includes another."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")
_SECRET: Final = re.compile(r"bo_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")
_SECRET_BYTES: Final = 32  # 43 characters of base64url
_KEPT: Final = tuple(column for column in API_KEYS.columns if column.name != "secret_sha256")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key; none of it is secret.

    Args:
        key_id: 8 hexadecimal digits, part of the secret too, so that a leaked one can be found.
        name: whose it is.
        scopes: what it may be used for.
        rate_per_s: requests it may make in a second; None where the server's own limit holds.
        created_at: UTC.
        expires_at: from then on it is worth nothing, UTC; None for a key without an end.
        revoked_at: when it was taken back, UTC; None for one that was not.
    """

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    rate_per_s: float | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self, at: datetime) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        times = ("created_at", "expires_at", "revoked_at")
        return {
            name: value.isoformat() if name in times and value is not None else value
            for name, value in asdict(self).items()
        }


class ApiKeys(Store):
    """The keys, in the database of the prediction log; safe between threads.

    A secret is 32 random bytes, so its SHA-256 needs neither salt nor stretching: nobody can try
    2^256 of them. A secret is looked up by that digest and never compared itself. How long the
    look-up takes may tell how far a *digest* agrees with a stored one; whoever measures it can
    choose no secret by its digest, and so learns nothing that brings a secret nearer. A digest is
    also what requests are signed with (`batteryops.serving.signatures`): whoever reads the table
    can sign, though not find a secret.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName] = "predictions"

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        rate_per_s: float | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[KeyRecord, str]:
        """Make a key.

        Args:
            name: letters, digits, dots, hyphens and underscores, at most 64; not used before, not
                even by a key that was revoked: the record would be ambiguous.
            scopes: at least one of `SCOPES`.
            rate_per_s: greater than 0.
            expires_at: in the future, with a time zone.

        Returns:
            What is known of it, and the secret, `bo_<key_id>_<43 characters>`, which cannot be had
            again.

        Raises:
            RecordsError: also when the name is taken.
        """
        now = datetime.now(UTC)
        _check(name, scopes, rate_per_s, expires_at, now)
        key_id = secrets.token_hex(4)
        secret = f"bo_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        made = KeyRecord(
            key_id=key_id,
            name=name,
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            rate_per_s=rate_per_s,
            created_at=now,
            expires_at=None if expires_at is None else expires_at.astimezone(UTC),
            revoked_at=None,
        )
        with self._database.write(exclusive=True) as connection:
            if connection.execute(sa.select(API_KEYS.c.name).filter_by(name=name)).one_or_none():
                raise RecordsError(
                    f"there is a key {name!r} already, or was one; give the new one another name, "
                    f"such as {name}-2"
                )
            connection.execute(
                sa.insert(API_KEYS), {**asdict(made), "secret_sha256": digest(secret).hex()}
            )
        return made, secret

    def list(self) -> "list[KeyRecord]":
        """Every key that was ever made, oldest first."""
        query = sa.select(*_KEPT).order_by(API_KEYS.c.created_at, API_KEYS.c.key_id)
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(query)]

    def revoke(self, name_or_id: str) -> KeyRecord:
        """Take a key back; servers refuse it within a second or two.

        Returns:
            What is known of it now.

        Raises:
            RecordsError: also when there is no such key, or it was revoked before.
        """
        query = sa.select(*_KEPT).where(
            (API_KEYS.c.name == name_or_id) | (API_KEYS.c.key_id == name_or_id)
        )
        with self._database.write(exclusive=True) as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise RecordsError(
                    f"there is no key {name_or_id!r}; `batteryops keys list` shows them"
                )
            if row.revoked_at is not None:
                raise RecordsError(
                    f"the key {name_or_id!r} was revoked on {row.revoked_at:%Y-%m-%d %H:%M} UTC "
                    "already; there is nothing left to do"
                )
            connection.execute(
                sa.update(API_KEYS)
                .where(API_KEYS.c.key_id == row.key_id)
                .values(revoked_at=datetime.now(UTC))
            )
            return _record(connection.execute(query).one())

    def verify(self, secret: str) -> KeyRecord | None:
        """The key of a secret; None when it is unknown, expired or revoked."""
        if not is_secret(secret):
            return None
        query = sa.select(*_KEPT).where(API_KEYS.c.secret_sha256 == digest(secret).hex())
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        found = None if row is None else _record(row)
        return found if found is not None and found.is_valid(datetime.now(UTC)) else None

    def snapshot(self) -> dict[bytes, KeyRecord]:
        """All keys that are valid now, by the SHA-256 of their secrets (32 bytes); one query."""
        now = datetime.now(UTC)
        query = sa.select(*_KEPT, API_KEYS.c.secret_sha256).where(API_KEYS.c.revoked_at.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        keys = {bytes.fromhex(row.secret_sha256): _record(row) for row in rows}
        return {digest: key for digest, key in keys.items() if key.is_valid(now)}


def is_secret(text: str) -> bool:
    """Whether a text has the form of a secret."""
    return _SECRET.fullmatch(text) is not None


def digest(secret: str) -> bytes:
    """What is stored of a secret: its SHA-256, 32 bytes."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


def _record(row: Any) -> KeyRecord:  # noqa: ANN401  # a row of whatever columns
    columns = {column.name: getattr(row, column.name) for column in _KEPT}
    scopes = tuple(cast("Scope", scope) for scope in columns["scopes"])
    return KeyRecord(**columns | {"scopes": scopes})


def _check(
    name: str,
    scopes: Sequence[str],
    rate_per_s: float | None,
    expires_at: datetime | None,
    now: datetime,
) -> None:
    if not _NAME.fullmatch(name) or _KEY_ID.fullmatch(name):
        raise RecordsError(
            f"{name!r} cannot name a key; expected 1 to 64 letters, digits, dots, hyphens and "
            "underscores, not 8 hexadecimal digits, which is what identifiers of keys look like"
        )
    if not scopes or (unknown := sorted(set(scopes) - set(SCOPES))):
        given = ", ".join(map(repr, unknown)) if scopes else "none"
        raise RecordsError(f"scopes of the key: {given}; expected some of {', '.join(SCOPES)}")
    if rate_per_s is not None and not 0 < rate_per_s < math.inf:
        raise RecordsError(f"the key's rate is {rate_per_s}/s, expected more than 0")
    if expires_at is None:
        return
    if expires_at.utcoffset() is None:
        raise RecordsError(f"expires_at {expires_at} has no time zone; give an aware time")
    if expires_at <= now:
        raise RecordsError(f"the key would have expired at {expires_at}; give a time to come")

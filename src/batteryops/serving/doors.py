"""Who is let in: API keys with their scopes, sent or used to sign, and how often each may ask."""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from batteryops.errors import RecordsError
from batteryops.serving.problems import FORBIDDEN, RATE_LIMITED, UNAUTHENTICATED, ProblemError
from batteryops.serving.signatures import WINDOW_S, SignedRequest, is_signed, read_signature

if TYPE_CHECKING:
    from batteryops.records.api_keys import KeyRecord

Scope = Literal["predict", "label", "admin"]
Snapshot = Callable[[], "Mapping[bytes, KeyRecord]"]

logger = logging.getLogger(__name__)

_REFRESH_S: Final = 1.0
_SCHEME: Final = b"bearer "
_REMEMBERED: Final = 1024  # strangers are not remembered, so that they cannot fill the memory
_NOBODYS: Final = bytes(32)  # compared with where there is no such key: that takes as long


class Bucket:
    """A token bucket: so many requests a second, and as many at once after a second's rest.

    Args:
        rate_per_s: of one process.
    """

    __slots__ = ("_at", "_rate", "_size", "_tokens")

    def __init__(self, rate_per_s: float) -> None:
        self._rate = rate_per_s
        self._size = max(1.0, rate_per_s)
        self._tokens = self._size
        self._at = time.monotonic()

    def take(self, now: float) -> float:
        """Take a token; 0 when there was one, else the seconds until there is."""
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        name: of the key; None where the server lets everybody in.
        scopes: what the key may do.
        expires_at: None for a key that does not.
        bucket: None where there is no limit.
    """

    name: str | None
    scopes: frozenset[str]
    expires_at: datetime | None
    bucket: Bucket | None


_ANYBODY: Final = Caller(None, frozenset(("predict", "label", "admin")), None, None)


class Doors:
    """Lets requests in by their `Authorization` header: a secret, or a signature.

    A revoked key is turned away within a second, a new one is let in within one. When the store
    of keys cannot be asked, those that were known stay so.

    Args:
        snapshot: the valid keys by the SHA-256 digest of their secrets; None lets everybody in.
        rate_per_s: of keys without a rate of their own; None for no limit.
        workers: processes that share the traffic of a key: each allows its part of the rate.
    """

    def __init__(
        self, snapshot: Snapshot | None, *, rate_per_s: float | None = None, workers: int = 1
    ) -> None:
        self._snapshot = snapshot
        self._rate_per_s = rate_per_s
        self._workers = workers
        self._by_digest: dict[bytes, Caller] = {}
        self._digest_by_id: dict[str, bytes] = {}
        self._records: Mapping[bytes, KeyRecord] = {}
        self._by_header: dict[bytes, Caller] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        if snapshot is not None:
            self.refresh()

    @property
    def is_open(self) -> bool:
        """Whether everybody is let in."""
        return self._snapshot is None

    def admit(self, authorization: bytes, scope: Scope) -> Caller:
        """Who asks.

        Args:
            authorization: the header, empty when there is none.
            scope: what for.

        Raises:
            ProblemError: without a valid key, for a key without the scope, or for one that asked
                too often.
        """
        if self._snapshot is None:
            return _ANYBODY
        caller = self._by_header.get(authorization)
        if caller is None:
            caller = self._identify(authorization)
        return _let_in(caller, scope)

    def admit_signed(self, authorization: bytes, request: SignedRequest, scope: Scope) -> Caller:
        """Who asks, where the request may be signed instead of carrying the secret.

        A signature that was let in once is let in again while it is new enough: it is for
        requests that do no more the second time.

        Args:
            authorization: the header: a signature of `signatures`, or as `admit` takes it.
            request: what is signed.
            scope: what for.

        Raises:
            ProblemError: as `admit`; also for a signature of another request, or an old one.
        """
        if self._snapshot is None or not is_signed(authorization):
            return self.admit(authorization, scope)
        given = read_signature(authorization)
        if given is None:
            raise _stranger("expected KEY_ID:UNIX_TIME:SIGNATURE after the scheme")
        if not given.is_of_now(time.time()):
            raise _stranger(
                f"the signature is of {given.at}, expected a time within {WINDOW_S} s of the "
                f"server's, {time.time():.0f}; sign again, and look at the clock"
            )
        digest = self._digest_by_id.get(given.key_id, _NOBODYS)
        fits = given.fits(request, digest)
        caller = self._by_digest.get(digest)
        if caller is None or not fits:
            raise _stranger(
                "the API key is not known, or was revoked, or has not signed this request"
            )
        return _let_in(caller, scope)

    def refresh(self) -> None:
        """Ask for the valid keys anew.

        Raises:
            RecordsError: their store is out of reach; then those known before stay.
        """
        assert self._snapshot is not None  # noqa: S101 - asked for only with keys
        records = dict(self._snapshot())
        if records == self._records:
            return
        kept = {
            digest: caller
            for digest, caller in self._by_digest.items()
            if records.get(digest) == self._records.get(digest)
        }
        self._records = records
        self._by_digest = {
            digest: kept.get(digest) or self._caller(record) for digest, record in records.items()
        }
        self._digest_by_id = {record.key_id: digest for digest, record in records.items()}
        self._by_header = {}

    def keep_fresh(self) -> None:
        """Ask for the keys every second from now on, in a thread, until `close`."""
        if self._snapshot is None or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._keep_fresh, name="keys", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _keep_fresh(self) -> None:
        while not self._stopped.wait(_REFRESH_S):
            try:
                self.refresh()
            except RecordsError:  # the log's own failures are told elsewhere
                continue
            except Exception:  # or a key that is revoked later would stay valid for ever
                logger.exception("the API keys could not be read; those known stay valid")

    def _identify(self, authorization: bytes) -> Caller:
        if not authorization:
            raise _stranger("expected a header Authorization: Bearer KEY; there is none")
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _stranger("expected a header Authorization: Bearer KEY; it is of another scheme")
        remembered = self._by_header  # another one once the keys have changed
        secret = authorization[len(_SCHEME) :].strip()
        caller = self._by_digest.get(hashlib.sha256(secret).digest())
        if caller is None:
            raise _stranger("the API key is not known, or was revoked")
        if len(remembered) < _REMEMBERED:
            remembered[authorization] = caller
        return caller

    def _caller(self, record: "KeyRecord") -> Caller:
        rate = record.rate_per_s if record.rate_per_s is not None else self._rate_per_s
        return Caller(
            record.name,
            frozenset(record.scopes),
            record.expires_at,
            None if rate is None else Bucket(rate / self._workers),
        )


def _let_in(caller: Caller, scope: Scope) -> Caller:
    """Whoever is known, if the key is valid still, for this, and has not asked too often."""
    if caller.expires_at is not None and caller.expires_at <= datetime.now(UTC):
        raise _stranger("the API key has expired; have another one made")
    if scope not in caller.scopes:
        raise ProblemError(
            FORBIDDEN,
            f"the API key {caller.name!r} has no scope {scope!r}, only "
            f"{', '.join(sorted(caller.scopes))}; have one made with it",
        )
    if caller.bucket is not None:
        wait_s = caller.bucket.take(time.monotonic())
        if wait_s:
            raise ProblemError(
                RATE_LIMITED,
                f"the API key {caller.name!r} has asked too often; ask again in "
                f"{max(wait_s, 0.001):.3g} s, or send rows together to /predict/batch",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
    return caller


def _stranger(detail: str) -> ProblemError:
    return ProblemError(
        UNAUTHENTICATED, detail, headers={"WWW-Authenticate": 'Bearer realm="batteryops"'}
    )

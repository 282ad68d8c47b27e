"""Requests signed by an API key, whose secret then never travels.

The caller sends `Authorization: BatteryOps-HMAC-SHA256 KEY_ID:UNIX_TIME:SIGNATURE`. The signature
is the HMAC-SHA256 (RFC 2104) of five lines: the scheme, the time, the method, the path with its
query, and the SHA-256 of the body in hexadecimal. The HMAC's key is the SHA-256 of the secret,
because the server holds nothing else of it: whoever reads the database of keys can sign.

A signature is worth something for `WINDOW_S` around its time. Within that it may be sent again:
what can be signed for must do no more the second time than the first.
"""

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import Final

from batteryops.records.api_keys import digest

SCHEME: Final = "BatteryOps-HMAC-SHA256"
WINDOW_S: Final = 300
"""How far the caller's clock may be from the server's, seconds."""

_PREFIX: Final = f"{SCHEME.lower()} ".encode()
_GIVEN: Final = re.compile(rb"([0-9a-f]{8}):([0-9]{1,12}):([0-9a-f]{64})")
_KEY_ID: Final = slice(3, 11)  # of a secret, bo_<key_id>_...


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What of a request a signature holds fast.

    Args:
        method: in capitals.
        path: with its query, as it stands in the request line.
        body: all of it.
    """

    method: str
    path: str
    body: bytes = b""

    def signature(self, key: bytes, at: int) -> str:
        """The signature of that request at a time, 64 hexadecimal digits.

        Args:
            key: the SHA-256 of the secret, 32 bytes.
            at: seconds since 1970-01-01 UTC.

        Examples:
            >>> SignedRequest("POST", "/admin/refresh").signature(bytes(32), 1767225600)[:16]
            'a8900fdde2f6ecc1'
        """
        lines = (SCHEME, str(at), self.method, self.path, hashlib.sha256(self.body).hexdigest())
        return hmac.digest(key, "\n".join(lines).encode("latin-1"), "sha256").hex()


@dataclass(frozen=True, slots=True)
class Signature:
    """What a header says: whose key, when, and the signature itself."""

    key_id: str
    at: int
    value: str

    def fits(self, request: SignedRequest, key: bytes) -> bool:
        """Whether that key signed that request; takes as long for a wrong one as for the right."""
        return hmac.compare_digest(self.value, request.signature(key, self.at))

    def is_of_now(self, now: float) -> bool:
        """Whether it lies within the window."""
        return abs(now - self.at) <= WINDOW_S


def is_signed(authorization: bytes) -> bool:
    """Whether a header is of the scheme."""
    return authorization[: len(_PREFIX)].lower() == _PREFIX


def read_signature(authorization: bytes) -> Signature | None:
    """The signature in a header of the scheme; None where it has another form."""
    found = _GIVEN.fullmatch(authorization[len(_PREFIX) :].strip())
    if found is None:
        return None
    key_id, at, value = found.groups()
    return Signature(key_id.decode(), int(at), value.decode())


def signed_header(secret: str, request: SignedRequest, at: int | None = None) -> str:
    """The header `Authorization` of a request.

    Args:
        secret: of the key, as `batteryops keys create` printed it.
        request: what is to be signed.
        at: seconds since 1970-01-01 UTC; now when None.
    """
    at = int(time.time()) if at is None else at
    return f"{SCHEME} {secret[_KEY_ID]}:{at}:{request.signature(digest(secret), at)}"

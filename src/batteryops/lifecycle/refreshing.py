"""Have a running server look at the registry now, by a request that an API key signs."""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from batteryops.errors import BatteryOpsError, SettingsError
from batteryops.records.api_keys import is_secret
from batteryops.serving.signatures import SignedRequest, signed_header
from batteryops.urls import masked

_PATH: Final = "/admin/refresh"
_WITHIN_S: Final = 15.0  # the server itself gives up after 10


def refresh_server(url: str, secret: str) -> dict[str, Any]:
    """Ask a server to look at the registry, and wait until it has.

    Args:
        url: where it is reached, `http://127.0.0.1:8000`; a path before the server's own, as a
            proxy may take it away, is not signed.
        secret: of an API key of scope `admin`; it signs and is not sent.

    Returns:
        What the server says is in service then.

    Raises:
        SettingsError: the address or the secret is none.
        BatteryOpsError: the server cannot be reached, or refuses.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise SettingsError(f"{masked(url)!r} is no server's address; expected http://HOST:PORT")
    if not is_secret(secret):
        raise SettingsError(
            "that is no API key; expected bo_ and the rest, as `batteryops keys create` printed it"
        )
    try:
        answer = requests.post(
            f"{url.rstrip('/')}{_PATH}",
            headers={"Authorization": signed_header(secret, SignedRequest("POST", _PATH))},
            timeout=_WITHIN_S,
            allow_redirects=False,
        )
        told = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise BatteryOpsError(
            f"{masked(url)} does not answer as a server of batteryops: {type(error).__name__}; "
            "check the address, and that `batteryops serve` runs there"
        ) from error
    if answer.status_code != HTTPStatus.OK or not isinstance(told, dict):
        said = told.get("detail") if isinstance(told, dict) else None
        raise BatteryOpsError(
            f"{masked(url)} refuses with status {answer.status_code}: {said or 'without a reason'}"
        )
    return told

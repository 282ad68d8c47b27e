"""Which model running servers answer with: asked of themselves, after the champion changed."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from batteryops.errors import BatteryOpsError, SettingsError
from batteryops.files import first_line
from batteryops.lifecycle.refreshing import refresh_server
from batteryops.records.api_keys import is_secret
from batteryops.serving.signatures import SignedRequest, signed_header
from batteryops.settings import Settings
from batteryops.urls import masked

WITHIN_S: Final = 10.0
"""A server that has not changed over by then is told as one that has not."""

_PATH: Final = "/model-version"
_IN_A_ROW: Final = 3  # answers, each on a connection of its own: a server may have several workers
_PAUSE_S: Final = 0.02
_ANSWERS_WITHIN_S: Final = 5.0
_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class ServerState:
    """What one server said.

    Args:
        url: where it was asked, without a password.
        version: that it answers with; None where it said none.
        fingerprint: of that version's package.
        problem: why it does not answer with the version that it should; None where it does.
        seconds: until it did, or until it was given up.
    """

    url: str
    version: str | None
    fingerprint: str | None
    problem: str | None
    seconds: float

    @property
    def served(self) -> bool:
        """Whether it answers with the version that it should."""
        return self.problem is None

    def to_json(self) -> dict[str, Any]:
        """By name, and whether it is `served`."""
        return asdict(self) | {"served": self.served}


def wait_until_served(  # noqa: PLR0913 - whom to ask for what, how long, and with which key
    settings: Settings,
    version: int,
    fingerprint: str,
    *,
    urls: Sequence[str] | None = None,
    within_s: float = WITHIN_S,
    secret: str | None = None,
) -> tuple[ServerState, ...]:
    """Ask running servers, all at once, until each answers with a version.

    With a key of scope admin they are first told to look at the registry; without one they look
    by themselves, every `serving.watch_s`.

    Args:
        settings: `retraining.servers` are asked where no others are named.
        version: in the registry.
        fingerprint: of its package.
        urls: addresses of other servers, `http://127.0.0.1:8000`.
        within_s: how long to ask.
        secret: of an API key of scope predict, for servers with doors; it signs and is not sent.
            None: that in `retraining.servers_key_file`, where there is one.

    Returns:
        A state for each server, in the order given; none where there are no servers to ask. One
        that is not served says why, and nothing is raised for it.

    Raises:
        SettingsError: an address or the secret is none.
    """
    servers, key = servers_of(settings, urls, secret)
    if not servers:
        return ()
    wanted = (str(version), fingerprint)
    with ThreadPoolExecutor(min(len(servers), _AT_ONCE)) as pool:
        return tuple(pool.map(lambda url: _wait(url, wanted, within_s, key), servers))


def servers_of(
    settings: Settings, urls: Sequence[str] | None, secret: str | None
) -> tuple[tuple[str, ...], str | None]:
    """Whom to ask, and with which key; to be called before anything is changed.

    Args:
        settings: `retraining.servers` and `retraining.servers_key_file`, where nothing is given.
        urls: as `wait_until_served` takes them.
        secret: likewise.

    Raises:
        SettingsError: an address is none, or the key is none or cannot be read.
    """
    servers = settings.retraining.servers if urls is None else tuple(urls)
    for url in servers:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise SettingsError(
                f"{masked(url)!r} is no server's address; expected http://HOST:PORT"
            )
    file = settings.retraining.servers_key_file
    if secret is None and file is not None and servers:
        try:
            secret = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"retraining.servers_key_file {file} cannot be read: {first_line(error)}"
            ) from error
    if secret is not None and not is_secret(secret):
        raise SettingsError(
            "that is no API key; expected bo_ and the rest, as `batteryops keys create` printed it"
        )
    return servers, secret


def have_looked(settings: Settings) -> None:
    """Have the configured servers look at the registry now, where there is a key for it.

    Those without one, or out of reach, look by themselves every `serving.watch_s`.

    Raises:
        SettingsError: an address is none, or the key is none or cannot be read.
    """
    servers, secret = servers_of(settings, None, None)
    if secret is not None:
        for url in servers:
            _refresh(url, secret)


def _wait(url: str, wanted: tuple[str, str], within_s: float, secret: str | None) -> ServerState:
    began = time.monotonic()
    if secret is not None:
        _refresh(url, secret)
    in_a_row = 0
    while True:
        version, fingerprint, problem = _ask(url, wanted, secret)
        in_a_row = 0 if problem else in_a_row + 1
        seconds = time.monotonic() - began
        if in_a_row == _IN_A_ROW or (problem is not None and seconds >= within_s):
            return ServerState(masked(url), version, fingerprint, problem, round(seconds, 4))
        if problem is not None:
            time.sleep(_PAUSE_S)


def _refresh(url: str, secret: str) -> None:
    try:
        refresh_server(url, secret)
    except BatteryOpsError:  # a key without the scope, say: the server looks by itself
        return


def _ask(
    url: str, wanted: tuple[str, str], secret: str | None
) -> tuple[str | None, str | None, str | None]:
    """Version, fingerprint, and what is wrong with them."""
    headers = {"Connection": "close"}
    if secret is not None:
        headers["Authorization"] = signed_header(secret, SignedRequest("GET", _PATH))
    try:
        answer = requests.get(
            f"{url.rstrip('/')}{_PATH}",
            headers=headers,
            timeout=_ANSWERS_WITHIN_S,
            allow_redirects=False,
        )
        told = answer.json()
    except (requests.RequestException, ValueError) as error:
        return None, None, f"does not answer as a server of batteryops: {type(error).__name__}"
    if answer.status_code == HTTPStatus.UNAUTHORIZED and secret is None:
        return (
            None,
            None,
            "asks for an API key: put one of scope predict in retraining.servers_key_file",
        )
    if answer.status_code != HTTPStatus.OK or not isinstance(told, dict):
        said = told.get("detail") if isinstance(told, dict) else None
        return None, None, f"refuses with status {answer.status_code}: {said or 'no reason given'}"
    version, fingerprint = told.get("model_version"), told.get("package_fingerprint")
    if (version, fingerprint) == wanted:
        return version, fingerprint, None
    if version == wanted[0]:
        return version, fingerprint, f"answers with another package of version {version}"
    return version, fingerprint, f"answers with version {version}, expected {wanted[0]}"

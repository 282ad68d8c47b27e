"""URLs as they may be shown: without the passwords that may stand in them."""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote, unquote_plus

_MASK: Final = "***"
_SCHEME: Final = re.compile(r"([^:/?#@]*):(/+)")
_PATHS: Final = frozenset({"sqlite", "file"})
_PORT: Final = re.compile(r"(?:\[[^\]]*\]|[^:/?]*):([^/?]*)")
_PARAMETER: Final = re.compile(r"[?&;]([^=&;?]*)=([^&]*)")
_SECRET: Final = re.compile(r"password|passwd|pwd|token|secret|odbc_connect", re.IGNORECASE)


def masked(url: str) -> str:
    """A URL with three stars for each password; where it is malformed, rather too much is hidden.

    Examples:
        >>> masked("postgresql+psycopg://ops:se%23cret@db/records?sslpassword=other")
        'postgresql+psycopg://ops:***@db/records?sslpassword=***'
        >>> masked("postgresql://ops:an @ or / not escaped@db/records")
        'postgresql://ops:***@db/records'
        >>> masked("sqlite:////var/of:us@home/ledger.db")
        'sqlite:////var/of:us@home/ledger.db'
    """
    shown, done = "", 0
    for start, end in _secrets(url):
        shown += url[done:start] + _MASK
        done = end
    return shown + url[done:]


def hidden(text: str, *urls: str) -> str:
    """What a library says about URLs, with three stars for each of their passwords.

    Examples:
        >>> hidden("no user 'ops' with 'se#cret'", "postgresql://ops:se%23cret@db/records")
        "no user 'ops' with '***'"
    """
    written = {url[start:end] for url in urls for start, end in _secrets(url)}
    forms = {form(secret) for secret in written for form in (str, unquote, unquote_plus)}
    for secret in sorted(forms, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text


def _secrets(url: str) -> Iterator[tuple[int, int]]:
    """Where passwords stand, in order and apart from each other."""
    done = 0
    login = _login(url)
    if login is not None:
        yield login
        done = login[1]
    for parameter in _PARAMETER.finditer(url, done):
        if _SECRET.search(parameter[1]) and parameter[2]:
            yield parameter.span(2)


def _login(url: str) -> tuple[int, int] | None:
    """Where the password before the host stands, or what may be one; None when there is none."""
    scheme = _SCHEME.match(url)
    if scheme and scheme[1].partition("+")[0].lower() in _PATHS and scheme[2] != "//":
        return None  # a path, in which these characters are a file's name
    start = scheme.end() if scheme else 0
    colon, at = url.find(":", start), url.rfind("@")
    if start <= colon < at:
        return (colon + 1, at) if colon + 1 < at else None
    port = _PORT.match(url, max(start, at + 1)) if scheme else None
    if port and port[1] and not port[1].isdecimal():
        return port.start(1), len(url)  # `user:password` whose host was forgotten
    return None

"""What answers on the short way look like on the wire."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from batteryops.serving.envelope import SECURITY_HEADERS
from batteryops.serving.problems import MEDIA_TYPE, ProblemError

_SECURITY: Final = b"".join(name + b": " + value + b"\r\n" for name, value in SECURITY_HEADERS)
_CLOSE: Final = b"connection: close\r\n"

ANSWER: Final = b"content-type: application/json\r\n" + _SECURITY
"""The headers of an answer, as lines."""


def problem_headers(problem: ProblemError) -> bytes:
    """The headers of a problem document, as lines."""
    given = b"".join(
        f"{name.lower()}: {value}\r\n".encode("latin-1")
        for name, value in problem.headers.items()
        if name != "Connection"  # stands with what ends a connection
    )
    return b"content-type: " + MEDIA_TYPE.encode() + b"\r\n" + _SECURITY + given


def on_the_wire(
    status: int, headers: bytes, request_id: str, content: bytes, *, keep_alive: bool
) -> bytes:
    """A response of HTTP/1.1.

    Args:
        status: one that has a name.
        headers: as lines.
        request_id: goes into a header.
        content: the body.
        keep_alive: whether the connection stays for the next request.
    """
    return b"%b%bx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        STATUS_LINE[status],
        headers,
        request_id.encode(),
        len(content),
        b"" if keep_alive else _CLOSE,
        content,
    )

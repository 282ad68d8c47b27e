"""Reads the JSON object that a request carries, and refuses everything else."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from batteryops.serving.problems import (
    BODY_TOO_LARGE,
    MALFORMED_JSON,
    WRONG_MEDIA_TYPE,
    ProblemError,
)

JSON: Final = b"application/json"


def read_object(headers: Mapping[bytes, bytes], content: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in a body.

    Args:
        headers: of the request, names in lower case.
        content: the body.

    Raises:
        ProblemError: for another media type, an encoded body, or one that is not a JSON object.

    Examples:
        >>> read_object({b"content-type": b"application/json"}, b'{"vehicle_id": "B0005"}')
        {'vehicle_id': 'B0005'}
    """
    if headers.get(b"content-type") != JSON:  # nearly always it is this very text
        _check_media_type(headers.get(b"content-type", b""))
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise ProblemError(
            WRONG_MEDIA_TYPE,
            f"Content-Encoding is {encoding.decode('latin-1')}; send the body as it is",
        )
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ProblemError(
            MALFORMED_JSON,
            f"the body cannot be read as JSON: {error}; "
            "expected one object in UTF-8, without NaN or Infinity",
        ) from error
    if not isinstance(body, dict):
        raise ProblemError(
            MALFORMED_JSON,
            f"the body is a JSON {_NAMES[type(body)]}, expected one object",
        )
    return body


_NAMES: Final[dict[type, str]] = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def media_type(header: bytes) -> str:
    """A media type without its parameters, in lower case.

    Examples:
        >>> media_type(b"Application/JSON; charset=utf-8")
        'application/json'
    """
    return header.partition(b";")[0].strip().lower().decode("latin-1")


def _check_media_type(header: bytes) -> None:
    given = media_type(header)
    if given != JSON.decode():
        raise ProblemError(
            WRONG_MEDIA_TYPE,
            f"Content-Type is {given or 'not given'}, expected application/json",
        )


def too_large(most: int, advice: str = "send one request per row") -> ProblemError:
    """The refusal of a body of more than `most` bytes."""
    return ProblemError(
        BODY_TOO_LARGE,
        f"expected at most {most} bytes; {advice}",
        headers={"Connection": "close"},
    )

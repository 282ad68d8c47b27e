"""Reads the JSON object that a request carries, and refuses everything else."""

from typing import Any, Final

import orjson
from starlette.requests import Request

from batteryops.serving.problems import (
    BODY_TOO_LARGE,
    MALFORMED_JSON,
    WRONG_MEDIA_TYPE,
    ProblemError,
)

MAX_BODY_BYTES: Final = 64 * 1024


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        ProblemError: for another media type, an encoded or too large body, or one that is not a
            JSON object; at most `MAX_BODY_BYTES` and one chunk of it have been read by then.
    """
    headers = request.headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError(
            WRONG_MEDIA_TYPE,
            f"Content-Type is {media_type or 'not given'}, expected application/json",
        )
    if (encoding := headers.get("content-encoding", "identity")) != "identity":
        raise ProblemError(
            WRONG_MEDIA_TYPE, f"Content-Encoding is {encoding}; send the body as it is"
        )
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise _too_large()
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


def _too_large() -> ProblemError:
    return ProblemError(
        BODY_TOO_LARGE,
        f"expected at most {MAX_BODY_BYTES} bytes; send one request per row",
        headers={"Connection": "close"},
    )

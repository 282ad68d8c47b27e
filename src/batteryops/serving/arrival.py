"""A request on the long way, through the app: its headers, its body, the answer it waits for."""

import asyncio

from starlette.requests import Request

from batteryops.serving.body import too_large
from batteryops.serving.problems import ProblemError


def headers_of(request: Request) -> dict[bytes, bytes]:
    """The headers of a request, names in lower case."""
    return dict(request.scope["headers"])


async def read_body(request: Request, most_bytes: int, advice: str | None = None) -> bytes:
    """The body of a request.

    Args:
        request: whose body was not read yet.
        most_bytes: it may have.
        advice: what to do where it has more.

    Raises:
        ProblemError: it has more; at most that and one chunk of it have been read by then.
    """
    refusal = too_large(most_bytes) if advice is None else too_large(most_bytes, advice)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise refusal
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise refusal
    return b"".join(chunks)


class AsgiRequest:
    """A request that was read, for the desk.

    Args:
        request: with `state.request_id` and `state.arrived`, from the envelope.
        content: its body.
    """

    def __init__(self, request: Request, content: bytes) -> None:
        self.arrived: float = request.state.arrived
        self.request_id: str = request.state.request_id
        self.headers = headers_of(request)
        self.content = content
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        """The document that is sent, or the problem."""

    def reply(self, content: bytes) -> None:
        """Answer with a JSON document and status 200."""
        if not self.answer.done():  # the client may have left
            self.answer.set_result(content)

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem document."""
        if not self.answer.done():
            self.answer.set_exception(problem)

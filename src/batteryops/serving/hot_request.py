"""A single prediction on the short way: the request, and the connection that its answer goes to."""

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from batteryops.records.identifiers import new_id
from batteryops.serving.envelope import ACCEPTED_ID
from batteryops.serving.problems import ProblemError, problem_content
from batteryops.serving.wire import ANSWER, on_the_wire, problem_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batteryops.serving.protocol import HotProtocol


class Outlet:
    """A connection that is not torn down over a refusal that the client has not read yet.

    Where a socket is closed with bytes unread, the kernel resets the connection, and a client in
    the middle of its 10 MB never sees why. So what it still sends is read, for a while, and thrown
    away.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "HotProtocol") -> None:
        self._transport = transport
        self._protocol = protocol
        self.write = transport.write
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.lingers = False

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        """Send what was written, and close, now or soon."""
        if self.lingers or not self._protocol.has_refused_what_arrives():
            self._transport.close()
            return
        self.lingers = True
        self._transport.write_eof()
        self._protocol.linger()


class _Unheard:
    """An event that nobody waits for."""

    def set(self) -> None:
        """Do nothing."""


class HotRequest:
    """One request on the short way; stands in uvicorn's protocol where its own cycles do."""

    __slots__ = (
        "arrived",
        "content",
        "disconnected",
        "headers",
        "keep_alive",
        "more_body",
        "protocol",
        "request_id",
        "response_complete",
    )

    message_event: ClassVar = _Unheard()

    def __init__(self, protocol: "HotProtocol", headers: "Mapping[bytes, bytes]") -> None:
        self.protocol = protocol
        self.headers = headers
        self.arrived = time.perf_counter()
        self.content = b""
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        given = headers.get(b"x-request-id")
        self.request_id = (
            given.decode("latin-1")
            if given is not None and ACCEPTED_ID.fullmatch(given)
            else ""  # then it gets that of the prediction
        )

    def reply(self, content: bytes) -> None:
        """Answer with a JSON document and status 200."""
        self._send(200, ANSWER, content)
        self.protocol.metrics.answered_in(time.perf_counter() - self.arrived)

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem document."""
        if self.response_complete:
            return
        self.request_id = self.request_id or new_id()
        content = problem_content(
            problem.kind, problem.detail, self.request_id, errors=problem.errors
        )
        if "Connection" in problem.headers:
            self.keep_alive = False
        self._send(problem.kind.status, problem_headers(problem), content)
        self.protocol.metrics.refused_in(problem.kind.status, time.perf_counter() - self.arrived)

    def _send(self, status: int, headers: bytes, content: bytes) -> None:
        self.response_complete = True
        protocol = self.protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        protocol.transport.write(
            on_the_wire(
                status,
                protocol.default_header_lines() + headers,
                self.request_id,
                content,
                keep_alive=self.keep_alive,
            )
        )
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

"""The short way of a single prediction through uvicorn: from the parser to the desk and back.

uvicorn makes a scope, a cycle and a task of every request, and joins every answer from a list of
headers. For `POST /predict`, nine tenths of the traffic, nothing of that is needed: its parser
hands the body to the desk, and the desk's answer goes to the socket. Everything else (another
path, another method, a query, `Expect`, a request that was sent before the last one was answered)
goes uvicorn's own way to the app, which answers `/predict` likewise.

`uvicorn.protocols.http.httptools_impl` is no published interface: `tests/serving/test_protocol.py`
holds what is relied upon.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from batteryops.records.identifiers import new_id
from batteryops.serving.body import too_large
from batteryops.serving.envelope import ACCEPTED_ID, SECURITY_HEADERS
from batteryops.serving.metrics import Metrics
from batteryops.serving.problems import (
    ARRIVED_TOO_SLOWLY,
    MALFORMED_HTTP,
    MEDIA_TYPE,
    ProblemError,
    problem_content,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batteryops.serving.desk import Desk

PATH: Final = b"/predict"
_READ: Final = frozenset((b"authorization", b"content-type", b"content-encoding", b"x-request-id"))
_SECURITY: Final = b"".join(name + b": " + value + b"\r\n" for name, value in SECURITY_HEADERS)
_ANSWER: Final = b"content-type: application/json\r\n" + _SECURITY
_CLOSE: Final = b"connection: close\r\n"


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

    def __init__(self, protocol: "HotProtocol", headers: dict[bytes, bytes]) -> None:
        self.protocol = protocol
        self.headers: Mapping[bytes, bytes] = headers
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
            else new_id()
        )

    def reply(self, content: bytes) -> None:
        """Answer with a JSON document and status 200."""
        self._send(STATUS_LINE[200], _ANSWER, content)
        self.protocol.metrics.answered_in(time.perf_counter() - self.arrived)

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem document."""
        if self.response_complete:
            return
        content = problem_content(
            problem.kind, problem.detail, self.request_id, errors=problem.errors
        )
        headers = _problem_headers(problem)
        if b"connection: close" in headers.lower():
            self.keep_alive = False
        self._send(STATUS_LINE[problem.kind.status], headers, content)
        self.protocol.metrics.refused_in(problem.kind.status, time.perf_counter() - self.arrived)

    def _send(self, status_line: bytes, headers: bytes, content: bytes) -> None:
        self.response_complete = True
        protocol = self.protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        protocol.transport.write(
            b"%b%b%bx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                status_line,
                protocol.default_header_lines(),
                headers,
                self.request_id.encode(),
                len(content),
                b"" if self.keep_alive else _CLOSE,
                content,
            )
        )
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a short way for single predictions and a limit of patience.

    Use a subclass that `configured` makes.
    """

    desk: ClassVar["Desk"]
    metrics: ClassVar[Metrics]
    body_bytes: ClassVar[int]
    arrival_timeout_s: ClassVar[float]

    _lines_of: ClassVar[tuple[object, bytes]] = (None, b"")

    @classmethod
    def configured(
        cls, metrics: Metrics, *, body_bytes: int, arrival_timeout_s: float
    ) -> type[Self]:
        """A class of protocols of one server; its `desk` is to be set when the loop runs.

        Args:
            metrics: what is counted.
            body_bytes: of a request on the short way, at most.
            arrival_timeout_s: a request that is not there as a whole by then is given up.
        """
        given = {
            "metrics": metrics,
            "body_bytes": body_bytes,
            "arrival_timeout_s": arrival_timeout_s,
        }
        return type(cls.__name__, (cls,), given)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self._arriving = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        """Wait for a request, but not for ever."""
        super().connection_made(transport)
        self._arriving = True
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was going on."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a request that has come in part must come as a whole soon."""
        super().data_received(data)
        if self._arriving:
            if self._patience is None:
                self._wait()
        elif self._patience is not None:
            self._wait_no_more()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._arriving = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Decide which way the request goes."""
        busy = self.cycle is not None and not self.cycle.response_complete
        if (
            self.url == PATH
            and not busy
            and not self.expect_100_continue
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
        ):
            headers = {name: value for name, value in self.headers if name in _READ}
            hot = HotRequest(self, headers)
            hot.keep_alive = self.parser.should_keep_alive()
            self.cycle = hot  # type: ignore[assignment] # it has what the protocol asks of a cycle
            self.metrics.in_flight.inc()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep the body, or a refusal of it."""
        hot: object = self.cycle
        if not isinstance(hot, HotRequest):
            super().on_body(body)
        elif not hot.response_complete:
            hot.content = hot.content + body if hot.content else body
            if len(hot.content) > self.body_bytes:
                hot.refuse(too_large(self.body_bytes))

    def on_message_complete(self) -> None:
        """The request is there."""
        self._arriving = False
        hot: object = self.cycle
        if not isinstance(hot, HotRequest):
            super().on_message_complete()
        elif not hot.response_complete:
            hot.more_body = False
            self.desk.ask(hot)

    def default_header_lines(self) -> bytes:
        """The headers that uvicorn gives every answer, as lines."""
        headers = self.server_state.default_headers  # another list every second, for the date
        known, lines = HotProtocol._lines_of
        if known is not headers:
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            HotProtocol._lines_of = headers, lines
        return lines

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, as a problem document."""
        self._refuse(ProblemError(MALFORMED_HTTP, msg))

    def _refuse(self, problem: ProblemError) -> None:
        """Refuse a request that has no cycle yet, and close."""
        content = problem_content(problem.kind, problem.detail, new_id())
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\n%b\r\n%b"
            % (
                STATUS_LINE[problem.kind.status],
                self.default_header_lines(),
                _problem_headers(problem),
                len(content),
                _CLOSE,
                content,
            )
        )
        self.transport.close()

    def _wait(self) -> None:
        self._patience = self.loop.call_later(self.arrival_timeout_s, self._give_up)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.transport.is_closing() or not self._arriving:
            return
        problem = ProblemError(
            ARRIVED_TOO_SLOWLY,
            f"the request was not there after {self.arrival_timeout_s:g} s; send it again",
            headers={"Connection": "close"},
        )
        hot: object = self.cycle
        if isinstance(hot, HotRequest):
            if not hot.response_complete:
                hot.refuse(problem)
                return
        elif (
            self.cycle is not None
            and self.cycle.response_started
            and not self.cycle.response_complete
        ):
            self.transport.close()  # an answer has begun: it can only be broken off
            return
        self._refuse(problem)


def _problem_headers(problem: ProblemError) -> bytes:
    given = b"".join(
        f"{name.lower()}: {value}\r\n".encode("latin-1") for name, value in problem.headers.items()
    )
    return b"content-type: " + MEDIA_TYPE.encode() + b"\r\n" + _SECURITY + given

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
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from batteryops.records.identifiers import new_id
from batteryops.serving.body import too_large
from batteryops.serving.hot_request import HotRequest, Outlet
from batteryops.serving.metrics import Metrics
from batteryops.serving.problems import (
    ARRIVED_TOO_SLOWLY,
    HEAD_TOO_LARGE,
    MALFORMED_HTTP,
    ProblemError,
    problem_content,
)
from batteryops.serving.wire import on_the_wire, problem_headers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batteryops.serving.desk import Desk

PATH: Final = b"/predict"
_READ: Final = frozenset((b"authorization", b"content-type", b"content-encoding", b"x-request-id"))
_CLOSING: Final = {"Connection": "close"}
_CLIENT_LEFT: Final = 499  # as the envelope counts it
_HEAD_BYTES: Final = 65_536
_HEAD_END: Final = b"\r\n\r\n"
_MOST_HEADS: Final = 1024  # that are known; the lengths of bodies and the keys of callers vary
_LINGER_S: Final = 5.0  # for what a client still sends when it has its refusal already


class _Head(NamedTuple):
    """What the parser made of the first bytes of a request on the short way."""

    headers: "Mapping[bytes, bytes]"
    body_bytes: int


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a short way for single predictions and a limit of patience.

    Use a subclass that `configured` makes.
    """

    desk: ClassVar["Desk"]
    metrics: ClassVar[Metrics]
    body_bytes: ClassVar[int]
    arrival_timeout_s: ClassVar[float]
    short_path: ClassVar[bytes | None] = PATH

    _lines_of: ClassVar[tuple[object, bytes]] = (None, b"")
    _known: ClassVar[dict[bytes, _Head]] = {}

    @classmethod
    def configured(
        cls,
        metrics: Metrics,
        *,
        body_bytes: int,
        arrival_timeout_s: float,
        short_way: bool = True,
    ) -> type[Self]:
        """A class of protocols of one server; its `desk` is to be set when the loop runs.

        Args:
            metrics: what is counted.
            body_bytes: of a request on the short way, at most.
            arrival_timeout_s: a request that is not there as a whole by then is given up.
            short_way: whether there is one; otherwise every request goes to the app.
        """
        given = {
            "metrics": metrics,
            "body_bytes": body_bytes,
            "arrival_timeout_s": arrival_timeout_s,
            "short_path": PATH if short_way else None,
            "_known": {},
        }
        return type(cls.__name__, (cls,), given)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self._arriving = False
        self._in_head = True
        self._head_ended = False
        self._head_bytes = 0
        self._without_upgrade: bytes | None = None
        self._refused = False
        self._patience: asyncio.TimerHandle | None = None
        self._outlet: Outlet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn declares it
        """Wait for a request, but not for ever."""
        self._outlet = Outlet(transport, self)
        super().connection_made(self._outlet)  # type: ignore[arg-type] # it has what is asked of it
        self._arriving = True
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was going on."""
        self._wait_no_more()
        hot: object = self.cycle
        if isinstance(hot, HotRequest) and hot.more_body and not hot.response_complete:
            hot.response_complete = True
            self.metrics.refused_in(_CLIENT_LEFT, time.perf_counter() - hot.arrived)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a request that has come in part must come as a whole soon."""
        if self._outlet.lingers or self._takes_known(data):
            return
        only_head = self._in_head
        at_its_start = only_head and not self._arriving
        self._head_ended = False
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("the bytes that were sent are not a request of HTTP/1.1")
            return
        except httptools.HttpParserUpgrade as upgrade:
            self.parser = httptools.HttpRequestParser(self)
            head, self._without_upgrade = self._without_upgrade or b"", None
            self.data_received(head + data[upgrade.args[0] :])
            return
        if only_head and self._in_head and not self._head_ended:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse(
                    ProblemError(HEAD_TOO_LARGE, f"expected at most {_HEAD_BYTES} bytes of them")
                )
                return
        if self._arriving:
            if self._patience is None:
                self._wait()
        else:
            if self._patience is not None:
                self._wait_no_more()
            if at_its_start:
                self._know(data)

    def _takes_known(self, data: bytes) -> bool:
        """Take a whole request whose head is, byte for byte, one that the parser has read before.

        A caller sends the same head with every request of a connection, and the parser calls back
        eleven times for it.
        """
        if self._arriving or not self._in_head:
            return False
        end = data.find(_HEAD_END) + len(_HEAD_END)
        head = self._known.get(data[:end])
        if head is None or head.body_bytes != len(data) - end:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        self._unset_keepalive_if_required()
        hot = self._on_short_way(head.headers)
        hot.content = data[end:]
        hot.more_body = False
        self.desk.ask(hot)
        return True

    def _know(self, data: bytes) -> None:
        """Remember the head of a request that came as a whole, and went the short way."""
        hot: object = self.cycle
        if (
            isinstance(hot, HotRequest)
            and hot.keep_alive
            and b"x-request-id" not in hot.headers  # which is another one every time
        ):
            end = data.find(_HEAD_END) + len(_HEAD_END)
            if len(data) - end == len(hot.content):
                if len(self._known) >= _MOST_HEADS:
                    self._known.clear()
                self._known[data[:end]] = _Head(hot.headers, len(hot.content))

    def on_message_begin(self) -> None:
        """A request begins."""
        self._arriving = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Decide which way the request goes."""
        self._in_head, self._head_ended, self._head_bytes = False, True, 0
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._without_upgrade = self._head_without_upgrade()
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if (
            self.url == self.short_path
            and not busy
            and not self.expect_100_continue
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
        ):
            hot = self._on_short_way({name: value for name, value in self.headers if name in _READ})
            hot.keep_alive = self.parser.should_keep_alive()
        else:
            super().on_headers_complete()

    def _on_short_way(self, headers: "Mapping[bytes, bytes]") -> HotRequest:
        hot = HotRequest(self, headers)
        self.cycle = hot  # type: ignore[assignment] # it has what the protocol asks of a cycle
        self.metrics.in_flight.inc()
        return hot

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
        if self._without_upgrade is not None:
            return
        self._arriving, self._in_head = False, True
        hot: object = self.cycle
        if not isinstance(hot, HotRequest):
            super().on_message_complete()
        elif not hot.response_complete:
            hot.more_body = False
            self.desk.ask(hot)

    def _head_without_upgrade(self) -> bytes:
        """The request line and headers once more, without the upgrade that is not offered here.

        The parser takes what follows an upgrade for another protocol. It is still HTTP/1.1, the
        body first: Java's HttpClient, for one, sends every request with `Upgrade: h2c`.
        """
        lines = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            kept = value
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                kept = b", ".join(one for one in options if one.lower() != b"upgrade")
            if name != b"upgrade" and kept:
                lines.append(name + b": " + kept + b"\r\n")
        return b"".join(lines) + b"\r\n"

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
        problem = ProblemError(MALFORMED_HTTP, msg, headers=_CLOSING)
        cycle: Any = self.cycle
        if cycle is None or cycle.response_complete:
            self._refuse(problem)
        elif not cycle.more_body:  # a request before it is whole: that one is answered
            cycle.keep_alive = False
        elif isinstance(cycle, HotRequest):
            self._refused = True
            cycle.refuse(problem)
        elif cycle.response_started:
            self.transport.close()
        else:
            self._refuse(problem)

    def has_refused_what_arrives(self) -> bool:
        """Whether the client may still be sending what has its answer already."""
        if self._refused:
            return True
        cycle = self.cycle
        return self._arriving and cycle is not None and cycle.response_complete and cycle.more_body

    def linger(self) -> None:
        """Let what still arrives arrive, for a while."""
        self.flow.resume_reading()
        self._wait_no_more()
        self._patience = self.loop.call_later(_LINGER_S, self.transport.close)

    def _refuse(self, problem: ProblemError) -> None:
        """Refuse a request that has no cycle yet, and close."""
        self._refused = True
        request_id = new_id()
        content = problem_content(problem.kind, problem.detail, request_id)
        headers = self.default_header_lines() + problem_headers(problem)
        self.transport.write(
            on_the_wire(problem.kind.status, headers, request_id, content, keep_alive=False)
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
        cycle: Any = self.cycle
        is_open = cycle is not None and not cycle.response_complete
        if self.flow.read_paused or (is_open and not cycle.more_body):  # the server's own turn
            self._wait()
            return
        problem = ProblemError(
            ARRIVED_TOO_SLOWLY,
            f"the request was not there after {self.arrival_timeout_s:g} s; send it again",
            headers=_CLOSING,
        )
        if is_open and isinstance(cycle, HotRequest):
            cycle.refuse(problem)
        elif is_open and cycle.response_started:  # it can only be broken off
            self.transport.close()
        else:
            self._refuse(problem)

"""The short way of POST /predict, over real sockets: what it relies on in uvicorn, and promises."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from batteryops.records.group_commit import GroupCommit
from batteryops.records.predictions import PredictionLog
from batteryops.serving.app import create_app
from batteryops.serving.desk import Desk
from batteryops.serving.protocol import HotProtocol
from batteryops.serving.server import Stop, listen, serve
from batteryops.serving.service import Service
from batteryops.settings import Settings

PATIENCE_S = 20.0
BODY_BYTES = 4096


@dataclass
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # whatever the document holds
        return json.loads(self.content)


@dataclass
class Connection:
    """A client that sends bytes as it is told, and reads one response after the other."""

    socket: socket.socket
    left: bytes = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> Answer:
        while b"\r\n\r\n" not in self.left:
            self._read()
        head, _, self.left = self.left.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} stands there twice"
            headers[name.lower()] = value
        length = int(headers.get("content-length", 0))
        while len(self.left) < length:
            self._read()
        content, self.left = self.left[:length], self.left[length:]
        return Answer(int(status.split()[1]), headers, content)

    def is_closed(self) -> bool:
        """Whether the server closes without another byte."""
        return not self.left and not self.socket.recv(1)

    def _read(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the server closed after {self.left!r}"
        self.left += data


@dataclass
class Running:
    """A server on loopback, in a thread."""

    port: int
    stop: Stop
    service: Service
    thread: threading.Thread
    slow: threading.Event
    """Set when the answer of /slow may go out."""
    protocol: type[HotProtocol]
    opened: list[socket.socket] = field(default_factory=list)

    def connect(self) -> Connection:
        client = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.opened.append(client)
        return Connection(client)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.service.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def start(serve: Callable[..., TestClient], settings: Settings) -> Iterator[Callable[..., Running]]:
    """Start a server that speaks HotProtocol."""
    with contextlib.ExitStack() as started:

        def run(*, arrival_timeout_s: float = PATIENCE_S, settings: Settings = settings) -> Running:
            client = serve(settings=settings)
            assert isinstance(client.app, FastAPI)
            running = _run(client.app.state.service, arrival_timeout_s)
            started.callback(_end, running)
            return running

        yield run


def _run(service: Service, arrival_timeout_s: float) -> Running:
    protocol = HotProtocol.configured(
        service.metrics, body_bytes=BODY_BYTES, arrival_timeout_s=arrival_timeout_s
    )
    may_answer, ready, stop = threading.Event(), threading.Event(), Stop()

    def seat(desk: Desk) -> None:
        protocol.desk = desk

    app = create_app(service, seat)

    @app.get("/slow")
    async def slow() -> PlainTextResponse:
        while not may_answer.is_set():  # noqa: ASYNC110  # it is set in another thread
            await asyncio.sleep(0.005)
        return PlainTextResponse("slow")

    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(
        target=_serve, args=(app, listener, stop, protocol, ready), daemon=True
    )
    thread.start()
    assert ready.wait(PATIENCE_S)
    return Running(listener.getsockname()[1], stop, service, thread, may_answer, protocol)


def _serve(
    app: FastAPI,
    listener: socket.socket,
    stop: Stop,
    protocol: type[HotProtocol],
    ready: threading.Event,
) -> None:
    with listener:
        serve(app, listener, stop, protocol=protocol, on_ready=ready.set)


def _end(running: Running) -> None:
    for client in running.opened:
        client.close()
    running.slow.set()
    running.stop.set()
    running.thread.join(PATIENCE_S)
    assert not running.thread.is_alive()


@pytest.fixture
def running(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def content(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode()


def request(content: bytes, *headers: str, path: str = "/predict", version: str = "1.1") -> bytes:
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


SLOW = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"


def until(true: Callable[[], bool]) -> None:
    """Wait for it to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_connection_is_kept_for_the_next_request(running: Running, content: bytes) -> None:
    connection = running.connect()
    for number in range(3):
        connection.send(request(content, f"X-Request-ID: number-{number}"))
        answer = connection.answer()
        assert answer.status == 200
        assert answer.json["request_id"] == answer.headers["x-request-id"] == f"number-{number}"
        assert "connection" not in answer.headers
    connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.answer().json == {"status": "alive"}


@pytest.mark.parametrize(
    ("order", "ids"),
    [("hot, hot", "ab"), ("hot, slow", "as"), ("slow, hot", "sa"), ("hot, slow, hot", "asb")],
)
def test_requests_sent_without_waiting_are_answered_in_their_order(
    running: Running, content: bytes, order: str, ids: str
) -> None:
    connection = running.connect()
    sent = {
        "a": request(content, "X-Request-ID: a"),
        "b": request(content, "X-Request-ID: b"),
        "s": SLOW.replace(b"\r\n\r\n", b"\r\nX-Request-ID: s\r\n\r\n"),
    }
    connection.send(b"".join(sent[one] for one in ids))
    threading.Timer(0.05, running.slow.set).start()
    answers = [connection.answer() for _ in ids]
    assert "".join(answer.headers["x-request-id"] for answer in answers) == ids, order
    assert all(answer.status == 200 for answer in answers)


def test_a_body_may_come_in_pieces(running: Running, content: bytes) -> None:
    connection = running.connect()
    whole = request(content)
    head = len(whole) - len(content)
    connection.send(whole[: head + 10])
    for at in range(head + 10, len(whole), 40):
        time.sleep(0.002)
        connection.send(whole[at : at + 40])
    assert connection.answer().status == 200


def test_a_request_may_come_byte_by_byte(running: Running, content: bytes) -> None:
    connection = running.connect()
    for byte in request(content, "X-Request-ID: drop-by-drop"):
        connection.send(bytes([byte]))
    answer = connection.answer()
    assert (answer.status, answer.headers["x-request-id"]) == (200, "drop-by-drop")


def test_who_expects_100_continue_gets_it(running: Running, content: bytes) -> None:
    connection = running.connect()
    whole = request(content, "Expect: 100-continue")
    connection.send(whole[: -len(content)])
    assert connection.answer().status == 100
    connection.send(content)
    assert connection.answer().status == 200


def test_a_client_of_http_1_0_is_answered_and_let_go(running: Running, content: bytes) -> None:
    connection = running.connect()
    connection.send(request(content, version="1.0"))
    assert connection.answer().status == 200
    assert connection.is_closed()


def test_connection_close_is_obeyed(running: Running, content: bytes) -> None:
    connection = running.connect()
    connection.send(request(content, "Connection: close"))
    answer = connection.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert connection.is_closed()


def test_a_body_may_be_chunked(running: Running, content: bytes) -> None:
    connection = running.connect()
    head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    half = len(content) // 2
    for part in (content[:half], content[half:]):
        head += b"%x\r\n%b\r\n" % (len(part), part)
    for _ in range(2):
        connection.send(head + b"0\r\n\r\n")
        assert connection.answer().status == 200


def test_an_upgrade_that_is_not_offered_is_ignored(running: Running, content: bytes) -> None:
    connection = running.connect()
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    connection.send(request(content, *upgrade))
    assert connection.answer().status == 200
    connection.send(request(content))
    assert connection.answer().status == 200


@pytest.mark.parametrize("path", ["/predict", "/predict?"])
@pytest.mark.parametrize("size", [BODY_BYTES + 1, 10_000_000])
def test_a_body_above_the_limit_is_refused_and_the_refusal_arrives(
    running: Running, path: str, size: int, settings: Settings
) -> None:
    connection = running.connect()
    size += settings.serving.limits.body_bytes if path == "/predict?" else 0
    connection.send(request(b"x" * size, path=path))
    answer = connection.answer()
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert answer.json["type"] == "urn:batteryops:problem:body-too-large"
    assert connection.is_closed()


def test_a_chunked_body_above_the_limit_is_refused(running: Running) -> None:
    connection = running.connect()
    head = request(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    connection.send(head + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 5)
    assert connection.answer().status == 413


def test_a_client_that_leaves_before_its_answer_harms_nobody(
    running: Running, content: bytes, log: PredictionLog
) -> None:
    leaving = running.connect()
    leaving.send(request(content))
    leaving.socket.close()
    until(lambda: log.count() == 1)
    staying = running.connect()
    staying.send(request(content))
    assert staying.answer().status == 200
    until(lambda: running.sample("http_requests_in_flight") == 0)


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_longer_in_flight(
    running: Running, content: bytes, log: PredictionLog
) -> None:
    leaving = running.connect()
    leaving.send(request(content)[:-20])
    until(lambda: running.sample("http_requests_in_flight") == 1)
    leaving.socket.close()
    until(lambda: running.sample("http_requests_in_flight") == 0)
    assert log.count() == 0


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /pre", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"],
    ids=["nothing", "half a line", "half a body"],
)
def test_a_request_that_does_not_arrive_in_time_is_given_up(
    start: Callable[..., Running], sent: bytes
) -> None:
    running = start(arrival_timeout_s=0.1)
    connection = running.connect()
    connection.send(sent)
    answer = connection.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == "urn:batteryops:problem:arrived-too-slowly"
    assert connection.is_closed()


def test_drops_do_not_extend_the_time_to_arrive(
    start: Callable[..., Running], content: bytes
) -> None:
    running = start(arrival_timeout_s=0.2)
    connection = running.connect()
    connection.socket.settimeout(0.02)
    for byte in request(content):
        with contextlib.suppress(ConnectionError):
            connection.send(bytes([byte]))
        with contextlib.suppress(TimeoutError):
            connection.left += connection.socket.recv(65536)
            break
    assert connection.answer().status == 408


def test_the_time_to_arrive_does_not_run_while_the_answer_is_made(
    start: Callable[..., Running], content: bytes
) -> None:
    running = start(arrival_timeout_s=0.1)
    connection = running.connect()
    connection.send(SLOW + request(content))
    time.sleep(0.3)
    running.slow.set()
    assert [connection.answer().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n\r\n", b"GET / FTP/1.0\r\n\r\n"],
    ids=["TLS", "chatter", "FTP"],
)
def test_what_is_no_http_is_a_problem_document(running: Running, sent: bytes) -> None:
    connection = running.connect()
    connection.send(sent)
    answer = connection.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document = answer.json
    assert document["type"] == "urn:batteryops:problem:malformed-http"
    assert document["instance"] == f"urn:batteryops:request:{answer.headers['x-request-id']}"
    assert connection.is_closed()


def test_what_is_no_http_behind_a_request_does_not_take_its_answer_away(
    running: Running, content: bytes
) -> None:
    connection = running.connect()
    connection.send(request(content) + b"\x00\x01 nonsense \r\n\r\n")
    assert connection.answer().status == 200


def test_headers_without_end_are_refused(running: Running) -> None:
    connection = running.connect()
    connection.send(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
    with contextlib.suppress(ConnectionError):
        for number in range(100):
            connection.send(b"X-%d: %b\r\n" % (number, b"x" * 4000))
    answer = connection.answer()
    assert answer.status == 431
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_server_that_is_told_to_stop_answers_what_is_under_way(
    running: Running, content: bytes, log: PredictionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_over = threading.Event()
    may_write = threading.Event()
    submit = GroupCommit.submit

    def later(self: GroupCommit, rows: Any, done: Any) -> None:  # noqa: ANN401  # as they come
        def write() -> None:
            may_write.wait(PATIENCE_S)
            submit(self, rows, done)

        threading.Thread(target=write).start()
        handed_over.set()

    monkeypatch.setattr(GroupCommit, "submit", later)
    monkeypatch.setattr(GroupCommit, "write_now", lambda _group, _rows: False)
    idle, busy, slow = running.connect(), running.connect(), running.connect()
    idle.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    idle.answer()
    slow.send(SLOW)
    busy.send(request(content))
    assert handed_over.wait(PATIENCE_S)
    until(lambda: running.sample("http_requests_in_flight") == 2)
    running.stop.set()
    assert idle.is_closed()
    may_write.set()
    running.slow.set()
    answer = busy.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert log.get(answer.json["prediction_id"]) is not None
    assert slow.answer().content == b"slow"
    running.thread.join(PATIENCE_S)
    assert not running.thread.is_alive()


def test_both_ways_are_counted_alike(running: Running, content: bytes) -> None:
    connection = running.connect()
    for path in ("/predict", "/predict?"):
        for sent in (content, b"{}", b"["):
            connection.send(request(sent, path=path))
            connection.answer()
    for status, times in (("200", 2), ("422", 2), ("400", 2)):
        labels = {"method": "POST", "path": "/predict", "status": status}
        assert running.sample("http_request_duration_seconds_count", **labels) == times
    assert running.sample("http_requests_in_flight") == 0


@pytest.mark.parametrize(
    ("names", "kept"), [(("one", "two"), "two"), (("one", "o n e"), None), (("?", "two"), "two")]
)
def test_of_two_request_ids_the_last_one_counts_on_both_ways(
    running: Running, content: bytes, names: tuple[str, ...], kept: str | None
) -> None:
    connection = running.connect()
    for path in ("/predict", "/predict?"):
        sent = request(content, *(f"X-Request-ID: {name}" for name in names), path=path)
        connection.send(sent)
        given = connection.answer().headers["x-request-id"]
        assert given == kept if kept else given not in names


FEATURES = (
    "voltage_V_mean",
    "current_A_mean",
    "temperature_C_mean",
    "temperature_C_max",
    "discharge_time_s",
    "delta_T_C",
    "voltage_drop_time_s",
)
ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
CHANGES = st.dictionaries(
    st.sampled_from(["vehicle_id", *FEATURES]) | st.text(max_size=5), ODD, max_size=2
) | st.dictionaries(st.sampled_from(FEATURES), st.floats(-20, 60), max_size=3)
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=140)


@hypothesis_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=CHANGES, raw=st.none() | st.binary(max_size=50), name=NAMES)
def test_both_ways_give_the_same_documents_and_headers(
    running: Running, body: dict[str, object], change: dict[str, Any], raw: bytes | None, name: str
) -> None:
    content = json.dumps(body | change).encode() if raw is None else raw
    connection = running.connect()
    answers = []
    for path in ("/predict", "/predict?"):
        connection.send(request(content, *([f"X-Request-ID: {name}"] * bool(name)), path=path))
        answers.append(connection.answer())
    connection.socket.close()
    short, long = answers
    assert short.status == long.status
    different = {"prediction_id", "request_id", "instance", "cached"}
    documents = [
        {key: value for key, value in answer.json.items() if key not in different}
        for answer in answers
    ]
    assert documents[0] == documents[1]
    assert short.json.keys() == long.json.keys()
    assert short.headers.keys() == long.headers.keys()
    for told in short.headers.keys() - {"date", "x-request-id", "content-length"}:
        assert short.headers[told] == long.headers[told]
    if short.headers["x-request-id"] == name:
        assert long.headers["x-request-id"] == name
    else:
        assert len(short.headers["x-request-id"]) == len(long.headers["x-request-id"]) == 36


def known_heads(running: Running) -> dict[bytes, Any]:
    return running.protocol._known  # noqa: SLF001  # what it remembers is looked at


def test_a_head_that_was_read_before_leads_the_same_way(
    running: Running, body: dict[str, object]
) -> None:
    connection, other = running.connect(), running.connect()
    sent = [json.dumps(body | {"delta_T_C": value}).encode() for value in (11.5, 12.5, 13.5, 14.5)]
    answers = []
    for content in sent:
        connection.send(request(content))
        answers.append(connection.answer())
    assert len(known_heads(running)) == 1
    for content, first in zip(sent, answers, strict=True):
        other.send(request(content))
        again = other.answer()
        assert (first.status, again.status) == (200, 200)
        assert again.json["capacity_ah"] == first.json["capacity_ah"]
        assert again.json["cached"]
    assert len({answer.json["prediction_id"] for answer in answers}) == len(sent)
    assert running.sample("http_requests_in_flight") == 0


def test_a_known_head_with_another_body_than_it_says_goes_to_the_parser(
    running: Running, content: bytes
) -> None:
    connection = running.connect()
    for _ in range(3):
        connection.send(request(content))
        assert connection.answer().status == 200
    whole = request(content)
    connection.send(whole[:-5])  # its end is still to come
    time.sleep(0.02)
    connection.send(whole[-5:])
    assert connection.answer().status == 200
    connection.send(whole + whole)  # two at once
    assert [connection.answer().status for _ in range(2)] == [200, 200]
    connection.send(whole + b"no request of HTTP")
    assert connection.answer().status == 200


def test_the_rest_of_a_head_is_not_taken_for_a_head(running: Running, content: bytes) -> None:
    connection = running.connect()
    connection.send(request(content))
    assert connection.answer().status == 200
    whole = request(content)
    for _ in range(2):
        connection.send(whole[:7])
        time.sleep(0.02)
        connection.send(whole[7:])
        assert connection.answer().status == 200
    stranger = running.connect()
    stranger.send(request(content))
    assert stranger.answer().status == 200
    stranger.send(whole[7:])
    assert stranger.answer().status == 400


def test_heads_that_say_who_asked_or_that_nothing_follows_are_not_remembered(
    running: Running, content: bytes
) -> None:
    connection = running.connect()
    for number in range(3):
        connection.send(request(content, f"X-Request-ID: {number}"))
        assert connection.answer().headers["x-request-id"] == str(number)
    connection.send(request(content, "Connection: close"))
    assert connection.answer().status == 200
    assert not known_heads(running)


def test_no_more_heads_are_remembered_than_may_be(
    running: Running, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batteryops.serving.protocol._MOST_HEADS", 3)
    connection = running.connect()
    for number in range(12):
        connection.send(request(content, f"Authorization: Bearer {number}"))
        assert connection.answer().status == 200
        assert len(known_heads(running)) <= 3
    assert known_heads(running)

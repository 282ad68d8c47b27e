"""The last resort around requests whose client leaves, or whose answer breaks off."""

import anyio
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from batteryops.serving.envelope import Envelope
from batteryops.serving.metrics import Metrics

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}


async def nothing_received() -> Message:
    return {"type": "http.disconnect"}


async def nowhere(message: Message) -> None:
    del message


def counted(metrics: Metrics, status: int) -> float | None:
    return metrics.registry.get_sample_value(
        "http_request_duration_seconds_count",
        {"method": "GET", "path": "unmatched", "status": str(status)},
    )


def test_a_client_that_left_is_counted_and_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise ClientDisconnect

    metrics = Metrics()
    anyio.run(Envelope(app, metrics), dict(SCOPE), nothing_received, nowhere)
    assert counted(metrics, 499) == 1
    assert metrics.registry.get_sample_value("http_requests_in_flight") == 0
    assert caplog.text == ""


def test_an_answer_that_breaks_off_is_not_followed_by_another() -> None:
    sent: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    async def collect(message: Message) -> None:
        sent.append(message["type"])

    metrics = Metrics()
    with pytest.raises(RuntimeError, match="in the middle"):
        anyio.run(Envelope(app, metrics), dict(SCOPE), nothing_received, collect)
    assert sent == ["http.response.start"]
    assert metrics.registry.get_sample_value("http_requests_in_flight") == 0


def test_what_is_no_request_passes_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        seen.append(scope["type"])

    anyio.run(Envelope(app, Metrics()), {"type": "lifespan"}, nothing_received, nowhere)
    assert seen == ["lifespan"]

"""What surrounds every request: its identifier, its measurement, and the last resort."""

import logging
import re
import time
from http import HTTPMethod
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from batteryops.records.identifiers import new_id
from batteryops.serving.logs import REQUEST_ID as LOGGED_ID
from batteryops.serving.metrics import Metrics
from batteryops.serving.problems import FAILED, plain, problem_response

REQUEST_ID: Final = "X-Request-ID"
_LOWER_ID: Final = b"x-request-id"
ACCEPTED_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
"""Of every answer: it is data, for the one who asked, and no page."""

_METHODS: Final = frozenset(HTTPMethod)
_CLIENT_LEFT: Final = 499  # as nginx counts it; nobody receives it

logger = logging.getLogger(__name__)


class Envelope:
    """ASGI middleware, outermost of the app's own.

    Sets `request.state.request_id`, the caller's `X-Request-ID` (of several the last) when it is 1
    to 128 letters, digits or `._:-` and a fresh one otherwise, and `request.state.arrived` (of
    `time.perf_counter`). An exception that nobody handled becomes a problem document of status
    500; its trace goes to the log, not out.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived = time.perf_counter()
        given = dict(scope["headers"]).get(_LOWER_ID, b"")
        request_id = given.decode() if ACCEPTED_ID.fullmatch(given) else new_id()
        scope.setdefault("state", {}).update(request_id=request_id, arrived=arrived)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
                message["headers"] = [*message["headers"], *SECURITY_HEADERS]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            status = _CLIENT_LEFT
        except Exception:
            logger.exception("request failed", extra={LOGGED_ID: request_id})
            if status:  # the answer had begun: it can only be broken off
                raise
            failure = problem_response(
                plain(500),
                FAILED,
                request_id,
            )
            await failure(scope, receive, send_named)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.duration.labels(
                method=scope["method"] if scope["method"] in _METHODS else "other",
                path=getattr(scope.get("route"), "path", "unmatched"),
                status=status,
            ).observe(time.perf_counter() - arrived)

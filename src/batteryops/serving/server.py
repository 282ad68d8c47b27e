"""Runs an app with uvicorn on a listening socket until it is told to stop."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from batteryops.errors import SettingsError

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LAST_PORT: Final = 65535
GRACE_S: Final = 10
"""For requests under way when the server is told to stop."""


class Stop:
    """Tells a server to stop; safe from any thread and from a signal's handler."""

    def __init__(self) -> None:
        self._server: uvicorn.Server | None = None
        self._is_set = False

    def set(self) -> None:
        """Stop, now or as soon as it runs."""
        self._is_set = True
        if self._server is not None:
            self._server.should_exit = True

    def belongs_to(self, server: uvicorn.Server) -> None:
        """Have a server stopped."""
        self._server = server
        server.should_exit = self._is_set


def serve(
    app: ASGIApp,
    listener: socket.socket,
    stop: Stop,
    *,
    protocol: type[asyncio.Protocol] | None = None,
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`; requests under way are answered first.

    Args:
        app: what answers.
        listener: bound, from `listen`.
        stop: tells the server to end.
        protocol: how connections are spoken to; uvicorn's own by default.
        on_ready: called once requests are accepted.
    """
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,  # the process's own
            log_level="warning",
            access_log=False,  # the metrics and the prediction log tell it better
            server_header=False,
            ws="none",
            http="auto" if protocol is None else protocol,
            timeout_graceful_shutdown=GRACE_S,
        ),
        on_ready,
    )
    stop.belongs_to(server)
    with _signals_set(stop):
        server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address.

    Args:
        host: a name or an address.
        port: 0 takes a free one.

    Raises:
        SettingsError: when it cannot be listened on.
    """
    if not 0 <= port <= _LAST_PORT:
        raise SettingsError(
            f"cannot listen on {host} port {port}: a port is 0 to {_LAST_PORT}; give another "
            "--port (0 takes a free one)"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, ValueError) as error:  # ValueError: a host that is no name, such as "a..b"
        raise SettingsError(
            f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}; "
            "give another --host or --port (port 0 takes a free one)"
        ) from error


def url_of(host: str, listener: socket.socket) -> str:
    """Where a listening socket is reached.

    Examples:
        >>> with listen("127.0.0.1", 0) as listener:
        ...     url_of("127.0.0.1", listener).startswith("http://127.0.0.1:")
        True
    """
    shown = f"[{host}]" if listener.family == socket.AF_INET6 else host
    return f"http://{shown}:{listener.getsockname()[1]}"


class _Server(uvicorn.Server):
    """uvicorn's server, which also tells when it accepts requests."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


@contextmanager
def _signals_set(stop: Stop) -> Iterator[None]:
    """Let signals stop the server, and return then.

    uvicorn puts the handlers back that it found and raises the signal again once it has shut
    down; under Python's own handlers that would end the process before its caller can clean up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

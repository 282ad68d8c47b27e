"""Runs an app with uvicorn until the process is told to stop, and says where it listens."""

import json
import signal
import socket
import sys
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
_GRACE_S: Final = 10  # for requests under way when the server is told to stop


def run(app: ASGIApp, host: str, port: int, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        app: what answers.
        host: address to listen on.
        port: 0 takes a free one.
        on_ready: called with the URL once requests are accepted. By default the URL is written
            to standard output as one line of JSON, `{"url": "http://127.0.0.1:41234"}`.

    Raises:
        SettingsError: when the address cannot be listened on.
    """
    with _listen(host, port) as listener:
        server = _Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,  # the metrics and the prediction log tell it better
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=_GRACE_S,
            ),
            lambda: (on_ready or _print_url)(_url(host, listener)),
        )
        with _stopped_by_signals(server):
            server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which also tells when it accepts requests."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Let `run` return after a signal.

    uvicorn puts the handlers back that it found and raises the signal again once it has shut
    down; under Python's own handlers that would end the process before its caller can clean up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
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


def _url(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if listener.family == socket.AF_INET6 else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _print_url(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()

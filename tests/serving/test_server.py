"""The server says where it listens, finishes what it began, and leaves when told to."""

import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.types import Receive, Scope, Send

from batteryops.errors import SettingsError
from batteryops.serving import worker
from batteryops.serving.server import Stop, listen, serve, url_of

SLOW_APP = """
import asyncio, sys
from batteryops.serving.server import Stop, listen, serve, url_of

async def app(scope, receive, send):
    if scope["type"] == "http":
        print("asked", flush=True)
        await asyncio.sleep(0.3)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

listener = listen("127.0.0.1", 0)
serve(app, listener, Stop(), on_ready=lambda: print(url_of("127.0.0.1", listener), flush=True))
print("cleaned up", flush=True)
"""

IN_A_THREAD = """
import threading
from batteryops.serving.server import Stop, listen, serve, url_of

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

listener = listen("127.0.0.1", 0)
stop = Stop()

def work():
    serve(app, listener, stop, on_ready=lambda: print(url_of("127.0.0.1", listener), flush=True))
    print("left", flush=True)

thread = threading.Thread(target=work)
thread.start()
input()
stop.set()
thread.join()
"""


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    del receive
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  # our own server
        content: bytes = response.read()
        return content


@contextmanager
def started(code: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    with subprocess.Popen(  # noqa: S603  # own code
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_is_under_way_and_lets_its_caller_clean_up(
    number: signal.Signals,
) -> None:
    with started(SLOW_APP) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", url)
        answers: list[bytes] = []
        asking = threading.Thread(target=lambda: answers.append(read(url)))
        asking.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        asking.join()
        assert answers == [b"done"]
        assert process.stdout.readline() == "cleaned up\n"
        assert process.wait(timeout=10) == 0


def test_in_the_main_thread_it_returns_after_a_signal_and_puts_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    answers = []

    with listen("127.0.0.1", 0) as listener:

        def ask_then_stop() -> None:
            answers.append(read(url_of("127.0.0.1", listener)))
            os.kill(os.getpid(), signal.SIGTERM)

        serve(hello, listener, Stop(), on_ready=threading.Thread(target=ask_then_stop).start)
    assert answers == [b"hello"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.integration
def test_in_another_thread_it_leaves_signals_to_the_main_thread_and_stops_when_told() -> None:
    with started(IN_A_THREAD) as (process, url):
        assert read(url) == b"hello"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("stop\n")
        process.stdin.flush()
        assert process.stdout.readline() == "left\n"
        assert process.wait(timeout=10) == 0
    with started(IN_A_THREAD) as (process, url):
        assert read(url) == b"hello"
        process.terminate()
        assert process.wait(timeout=10) == -signal.SIGTERM


def test_a_stop_that_was_set_before_the_start_ends_the_server_at_once() -> None:
    stop = Stop()
    stop.set()
    with listen("127.0.0.1", 0) as listener:
        serve(hello, listener, stop, on_ready=lambda: None)


def test_an_address_of_the_sixth_version_stands_in_brackets() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listen("::1", 0) as listener:
        assert re.fullmatch(r"http://\[::1\]:[1-9][0-9]*", url_of("::1", listener))


def test_a_port_in_use_or_an_address_elsewhere_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"on 127\.0\.0\.1 port {port}: .*--port"):
            listen("127.0.0.1", port)
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1 port 0"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_no_address_has_is_refused(port: int) -> None:
    with pytest.raises(SettingsError, match=rf"port {port}: a port is 0 to 65535; give another"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_a_host_that_no_address_belongs_to_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match=rf"cannot listen on {re.escape(host)} .*--host"):
        listen(host, 0)


def test_what_start_up_made_is_not_looked_through_for_garbage_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: done.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    worker._ready(lambda word, _detail: done.append(word))  # noqa: SLF001  # nothing else opens
    assert done == ["collect", "freeze", worker.READY]

"""Latency at a constant rate of arrivals: requests come when they come, not when a server is free.

A closed loop asks less of a server that stalls, and so does not see most of the stall. Here each
request has a time at which it is due, and its latency counts from that time, whether or not a
connection was free to send it (as Gil Tene's wrk2 does it). One thread turns over plain sockets
without ever sleeping, so it needs a core of its own.
"""

import argparse
import gc
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.serving.model import ROOT, TURN, settings_environment
from benchmarks.serving.process import LOAD_CORE, Running, on_core

CONNECTIONS: Final = 64
GIVE_UP_AFTER_S: Final = 10.0
"""For answers that are still awaited when the last request was sent."""
_CHUNK: Final = 65_536


@dataclass(frozen=True, slots=True)
class Latencies:
    """What a server did at a constant rate.

    Args:
        asked_per_s: requests due a second.
        per_s: requests answered a second; less than asked when the server cannot follow.
        p50_ms: half of the answers came sooner after the request was due.
        p99_ms: 99 % of the answers came sooner after the request was due.
        failed: answers other than 2xx, connections lost, and answers that did not come.
    """

    asked_per_s: float
    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


class _Connection:
    """A connection, and the answer that is coming in on it."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def ask(self, request: bytes, due: float) -> None:
        """Send a request that was due then."""
        self.due = due
        self._received = b""
        self.socket.sendall(request)

    def read(self) -> bool | None:
        """Take in what came: whether the answer is a success, None while it is incomplete.

        Raises:
            ConnectionError: when the server hangs up.
        """
        part = self.socket.recv(_CHUNK)
        if not part:
            raise ConnectionResetError
        self._received += part
        if not is_whole(self._received):
            return None
        return self._received[9:10] == b"2"


def is_whole(answer: bytes) -> bool:
    r"""Whether an HTTP/1.1 answer has come in to its end.

    Examples:
        >>> is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
        False
        >>> is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        True
        >>> is_whole(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
        True
    """
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = answer[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return answer.endswith(b"0\r\n\r\n")
    line = head[at + 17 :].split(b"\r\n", 1)[0]
    return len(answer) >= end + 4 + int(line)


def requests_of(bodies: Iterable[str], host: str, port: int, path: str) -> Iterator[bytes]:
    """Whole requests over a pool of bodies, endlessly, none twice; see `model.TURN`."""
    pool = []
    for body in bodies:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        before, _, after = (head + body).encode().partition(TURN.encode())
        pool.append((before, after))
    for turn in count(9999, -1):  # from the other end than the closed loop
        digits = b"%04d" % (turn % 10_000)
        for before, after in pool:
            yield before + digits + after


def drive(  # noqa: PLR0913 - where to, what, and how much of it
    host: str,
    port: int,
    requests: Iterator[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int = CONNECTIONS,
) -> Latencies:
    """Send requests at a constant rate and wait for all answers.

    Args:
        host: of the server.
        port: of the server.
        requests: whole requests.
        rate: requests a second.
        seconds: how long.
        connections: how many can be under way; more that are due wait for one.
    """
    everyone = [_Connection(host, port) for _ in range(connections)]
    by_number = {connection.socket.fileno(): connection for connection in everyone}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    idle = list(everyone)
    waits_s: list[float] = []
    failed = sent = 0
    total = round(rate * seconds)
    clock = time.perf_counter
    begun = clock()
    until = begun + seconds + GIVE_UP_AFTER_S
    gc.disable()  # a collection here would count as the server's latency
    try:
        while len(waits_s) + failed < total and (now := clock()) < until and by_number:
            while sent < total and idle and (due := begun + sent / rate) <= now:
                idle.pop().ask(next(requests), due)
                sent += 1
            for number, _ in poll.poll(0):
                connection = by_number[number]
                try:
                    succeeded = connection.read()
                except ConnectionError:
                    failed += 1
                    poll.unregister(number)
                    del by_number[number]
                    continue
                if succeeded is None:
                    continue
                idle.append(connection)
                if succeeded:
                    waits_s.append(clock() - connection.due)
                else:
                    failed += 1
    finally:
        gc.enable()
        poll.close()
        for connection in everyone:
            connection.socket.close()
    taken_s = max(clock() - begun, seconds)
    p50, p99 = np.quantile(waits_s, (0.5, 0.99)) if waits_s else (np.nan, np.nan)
    missing = total - len(waits_s)
    return Latencies(
        rate, len(waits_s) / taken_s, 1000.0 * float(p50), 1000.0 * float(p99), missing
    )


def load_at(running: Running, bodies: Path, *, rate: float, seconds: float) -> Latencies:
    """The same in a process of its own on the load's core."""
    command = [sys.executable, "-m", "benchmarks.serving.open_loop", running.host]
    command += [str(running.port), running.peer.path, str(bodies), str(rate), str(seconds)]
    with on_core(LOAD_CORE):
        done = subprocess.run(  # noqa: S603 - our own module
            command,
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=settings_environment(),
        )
    return Latencies(**json.loads(done.stdout))


def main() -> None:
    """Drive a server and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("host", str), ("port", int), ("path", str), ("bodies", Path)):
        parser.add_argument(name, type=kind)
    parser.add_argument("rate", type=float, help="requests a second")
    parser.add_argument("seconds", type=float)
    given = parser.parse_args()
    bodies = given.bodies.read_text("utf-8").splitlines()
    found = drive(
        given.host,
        given.port,
        requests_of(bodies, given.host, given.port, given.path),
        rate=given.rate,
        seconds=given.seconds,
    )
    print(json.dumps({name: getattr(found, name) for name in Latencies.__dataclass_fields__}))


if __name__ == "__main__":
    main()

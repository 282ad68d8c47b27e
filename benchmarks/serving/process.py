"""Starts servers, each on a core of its own away from whoever loads it, and ends them."""

import json
import os
import select
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.model import TURN, Row, Served, matrix
from benchmarks.serving.peers import Peer

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
UP_WITHIN_S: Final = 90.0
DOWN_WITHIN_S: Final = 15.0
CLOSE_AH: Final = 1e-4
"""How far a peer's answer may lie from the booster's: it serves the same model, in float32."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Args:
        peer: which.
        host: where it listens.
        port: where it listens.
        number: of the process that was started.
    """

    peer: Peer
    host: str
    port: int
    number: int

    @property
    def url(self) -> str:
        """Where predictions are asked for."""
        return f"http://{self.host}:{self.port}{self.peer.path}"


@dataclass(frozen=True, slots=True)
class _Process:
    """What the system says of a process; number and start together name one for good."""

    number: int
    started: int
    parent: int
    cpu_s: float


def _family(root: int) -> list[_Process]:
    """A process and all that descend from it, where the system tells; whatever their group is."""
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    known: dict[int, _Process] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # the name, in parentheses, may hold anything; state and parent come after it
            told = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        number, used = int(entry.name), int(told[11]) + int(told[12])
        known[number] = _Process(number, int(told[19]), int(told[1]), tick_s * used)
    found = [known[root]] if root in known else []
    for one in found:  # grows meanwhile
        found += [other for other in known.values() if other.parent == one.number]
    return found


def cpu_s(root: int) -> float | None:
    """Seconds of processor time of a process and its descendants; None where nobody tells."""
    family = _family(root)
    return sum(one.cpu_s for one in family) if family else None


class NotServingError(Exception):
    """A peer does not come up, or answers something else than the model says."""


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started meanwhile runs on this core alone, where the system can say so."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    if core in before and len(before) > 1:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    peer: Peer, served: Served, folder: Path, asked: Sequence[Row], core: int | None = SERVER_CORE
) -> Iterator[Running]:
    """Start a peer, wait until it answers the first row as the model does, and end it.

    Args:
        peer: which.
        served: the model.
        folder: for its files and its log.
        asked: rows; the first one is asked for.
        core: which core it may use; None for all.

    Raises:
        NotServingError: when it does not come up or answers wrongly.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = peer.start(served, folder, _free_port())
    log = folder / "log.txt"
    with log.open("wb") as errors, on_core(core):
        process = subprocess.Popen(  # noqa: S603 - commands of peers.py
            start.command,
            cwd=start.folder,
            env=start.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if start.url is None else errors,
            stderr=errors,
            start_new_session=True,  # Ctrl-C ends the benchmark, which ends them
        )
    try:
        url = start.url or _told_url(process)
        host, _, port = url.removeprefix("http://").rpartition(":")
        found = Running(peer, host, int(port), process.pid)
        _wait(found, process, served, asked[0])
        yield found
    except NotServingError as error:
        said = log.read_text("utf-8", "replace").strip().splitlines()[-5:]
        raise NotServingError(f"{peer.name}: {error}; its log: {' | '.join(said)}") from error
    finally:
        _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _told_url(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
    ready, _, _ = select.select([process.stdout], [], [], UP_WITHIN_S)
    line = process.stdout.readline() if ready else b""
    try:
        return str(json.loads(line)["url"])
    except (ValueError, KeyError, TypeError) as error:
        raise NotServingError(f"it printed {line!r} instead of its url") from error


def _wait(found: Running, process: subprocess.Popen[bytes], served: Served, row: Row) -> None:
    expected = float(served.package.predict_batch(matrix([row]))[0])
    body = found.peer.body(row, served.names).replace(TURN, "0000").encode()
    until = time.monotonic() + UP_WITHIN_S
    while True:
        try:
            given = found.peer.answer(ask(found.url, body))
        except (OSError, ValueError, KeyError, TypeError) as error:
            # also urllib's errors: an answer that is no success while models are still loaded
            if time.monotonic() > until or process.poll() is not None:
                raise NotServingError(f"it does not answer: {_told(error)}") from error
            time.sleep(0.2)
            continue
        if given is not None and abs(given - expected) > CLOSE_AH:
            raise NotServingError(f"it answers {given} Ah where the model says {expected} Ah")
        return


def ask(url: str, body: bytes, content_type: str = "application/json") -> Any:  # noqa: ANN401 - JSON is what it is
    """POST once, and read the JSON that comes."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type})  # noqa: S310 - our own server
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=10.0) as response:
        return json.loads(response.read())


def _told(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.read()[:500].decode('utf-8', 'replace')}"
    return str(error)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a server to stop; what is left of it then is killed."""
    family = _family(process.pid)
    process.terminate()
    try:
        process.wait(DOWN_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    left = {(one.number, one.started) for other in family for one in _family(other.number)}
    for one in family:
        if (one.number, one.started) in left:
            os.kill(one.number, signal.SIGKILL)
    if process.stdout is not None:
        process.stdout.close()

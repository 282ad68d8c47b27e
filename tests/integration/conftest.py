"""A server in processes of its own, through the command, and clients that keep it busy."""

import http.client
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from batteryops.settings import load_settings

PATIENCE_S = 60.0
REQUEST: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "test_request.json").read_text("utf-8")
)


@dataclass
class Served:
    """`batteryops serve` as it runs.

    Args:
        process: the supervisor.
        url: where it answers.
        log: what its processes log.
    """

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    def workers(self) -> list[int]:
        """The processes that answer."""
        return children(self.process.pid)

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and document of one request; raises as `http.client` does."""
        with _connection(self.url) as connection:
            return _ask(connection, method, path, body, headers or {})

    def kill(self) -> None:
        """End the supervisor and its workers at once."""
        workers = self.workers()
        self.process.kill()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        """Tell it to stop; what it ended with."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@dataclass
class Load:
    """Clients that ask one question after the other, each on a connection that it keeps.

    Attributes:
        acknowledged: identifiers of the predictions that were given.
        answers: when each of them came (`time.monotonic`), which version gave it, and to whom.
        refused: what was answered otherwise.
        broken: requests whose connection ended without an answer.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    answers: list[tuple[float, str, str]] = field(default_factory=list)
    refused: list[tuple[int, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int) -> None:
        for number in range(clients):
            thread = threading.Thread(target=self._work, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def until(self, answers: int) -> None:
        """Wait for that many answers more."""
        enough = len(self.answers) + answers
        until(lambda: len(self.answers) >= enough)

    def _work(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311  # no secret
        while not self._stop.is_set():
            try:
                with _connection(self.url) as connection:
                    while not self._stop.is_set():
                        self._ask_one(connection, chance)
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(repr(error))
                time.sleep(0.01)

    def _ask_one(self, connection: http.client.HTTPConnection, chance: random.Random) -> None:
        body = REQUEST | {
            "vehicle_id": f"B{chance.randrange(1000):04}",
            "discharge_time_s": 3000.0 + chance.randrange(500),
        }
        status, document = _ask(connection, "POST", "/predict", body, self.headers)
        if status == http.client.OK:
            self.acknowledged.append(document["prediction_id"])
            self.answers.append(
                (time.monotonic(), document["model_version"], document["vehicle_id"])
            )
        else:
            self.refused.append((status, document))
            time.sleep(0.01)


def until(true: Callable[[], bool]) -> None:
    """Wait for it to become true."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append(int(folder.name))
    return sorted(found)


@contextmanager
def _connection(url: str) -> Iterator[http.client.HTTPConnection]:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object,
    headers: Mapping[str, str],
) -> tuple[int, Any]:
    content = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if content else {}
    connection.request(method, path, content, sent | dict(headers))
    response = connection.getresponse()
    told = response.read()
    is_json = "json" in response.headers.get_content_type()
    return response.status, json.loads(told) if is_json else told.decode()


class Stage:
    """A home with version 1 registered, servers of it, and clients; all end with the test.

    Attributes:
        home: of the test's own.
        settings: of that home.
        package: the folder of version 1's package, for a server that needs no registry.
    """

    def __init__(self, home: Path, config: Path, logs: Path, started: ExitStack) -> None:
        self.home = home
        self.settings = load_settings(config, home=home)
        (manifest,) = (home / "packages").glob("*/manifest.json")
        self.package = str(manifest.parent)
        self._config, self._logs, self._started = config, logs, started

    def serve(
        self,
        *options: str,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Served:
        """Start `batteryops serve`; it is told to stop, or killed, at the end of the test."""
        log = self._logs / f"server-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "batteryops", "serve", "--json", "--port", "0"]
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603  # our own module
                [*command, "--home", str(self.home), "--config", str(self._config), *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=_unmeasured() | dict(environment or {}),
                preexec_fn=before,  # noqa: PLW1509  # limits, set before a thread is started
            )
        served = Served(process, "", log)
        self._started.callback(_end, served)
        assert process.stdout is not None
        select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline()
        assert line, log.read_text("utf-8")
        served.url = json.loads(line)["url"]
        return served

    def serve_package(self, *options: str, environment: Mapping[str, str] | None = None) -> Served:
        """Start a server of version 1's package that lets everybody in."""
        return self.serve(
            "--model", self.package, "--insecure-no-auth", *options, environment=environment
        )

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        command = [sys.executable, "-m", "batteryops", *words]
        return subprocess.run(  # noqa: S603  # our own module
            [*command, "--home", str(self.home), "--config", str(self._config)],
            env=_unmeasured(),
            capture_output=True,
            text=True,
            check=False,
        )

    def load(
        self, served: Served, clients: int = 4, headers: Mapping[str, str] | None = None
    ) -> Load:
        """Keep a server busy until `Load.stop`, or the end of the test."""
        busy = Load(served.url, headers or {})
        self._started.callback(busy.stop)
        busy.start(clients)
        return busy

    def logged(self, url: str | None = None) -> set[str]:
        """The identifiers of the predictions on record."""
        engine = sa.create_engine(url or self.settings.predictions_url)
        try:
            with engine.connect() as connection:
                rows = connection.execute(sa.text("SELECT prediction_id FROM predictions"))
                return {row[0] for row in rows}
        finally:
            engine.dispose()


def _unmeasured() -> dict[str, str]:
    """The environment without coverage: a killed server leaves none, and starts sooner without."""
    return {name: value for name, value in os.environ.items() if "COVERAGE" not in name}


def _end(served: Served) -> None:
    if served.process.poll() is None:
        served.kill()
    if served.process.stdout is not None:
        served.process.stdout.close()


@pytest.fixture
def new_stage(
    tmp_path: Path, trained_home: Path, quick_config: Path
) -> Iterator[Callable[[], Stage]]:
    """Make a stage; each has a home of its own."""
    with ExitStack() as started:

        def make() -> Stage:
            home = tmp_path / f"home-{time.monotonic_ns()}"
            shutil.copytree(trained_home, home)
            return Stage(home, quick_config, tmp_path, started)

        yield make


@pytest.fixture
def stage(new_stage: Callable[[], Stage]) -> Stage:
    return new_stage()

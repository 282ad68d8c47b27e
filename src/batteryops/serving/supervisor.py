"""The parent of the workers: holds the socket, watches the registry, starts who died again."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import ClassVar, Final

from prometheus_client.multiprocess import mark_process_dead

from batteryops.errors import BatteryOpsError
from batteryops.serving.deployment import Deployment, write_deployment
from batteryops.serving.metrics import SHARED_FOLDER
from batteryops.serving.server import GRACE_S
from batteryops.serving.worker import FAILED, READY, REFRESH, WorkerPlan
from batteryops.settings import Settings

logger = logging.getLogger(__name__)

Look = Callable[[Deployment], Deployment]
"""From what is served to what is to be served: the same object where nothing is new."""

_STARTED_WITHIN_S: Final = 60.0
_WORKERS_S: Final = 0.5  # between looks at the workers
_FIRST_PAUSE_S: Final = 0.5  # before a worker that died is started again, doubled up to ...
_LONGEST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 30.0  # a worker that lived so long did not die of its start
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _Worker:
    """One worker process, and what it said."""

    def __init__(
        self,
        command: Sequence[str],
        plan: WorkerPlan,
        environment: Mapping[str, str],
        news: "_News",
    ) -> None:
        self.number = plan.number
        self.started_at = time.monotonic()
        self.ready = threading.Event()
        self.failure: str | None = None
        self._news = news
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[plan.listener],
            env=dict(environment),
            start_new_session=True,  # Ctrl-C is the supervisor's to pass on
        )
        assert self.process.stdin is not None  # noqa: S101 - a pipe was asked for
        self.process.stdin.write(plan.model_dump_json() + "\n")
        self.process.stdin.flush()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:  # a library's; unread it would fill the pipe and stop the worker
                logger.warning("worker %d printed %r", self.number, line[:200])
                continue
            if said["say"] == READY:
                self.ready.set()
            elif said["say"] == FAILED:
                self.failure = said["detail"]
            elif said["say"] == REFRESH:
                self._news.refresh = True
                self._news.look.set()
            self._news.ring()
        self._news.ring()  # it is gone

    def stop(self) -> None:
        """Ask it to finish what it began."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self, within_s: float) -> None:
        """Wait until it is gone; end it where it takes too long."""
        try:
            self.process.wait(max(within_s, 0.0))
        except subprocess.TimeoutExpired:
            logger.error("worker %d did not stop in time and was killed", self.number)  # noqa: TRY400 - the trace says no more
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class _News:
    """What the supervisor wakes up for.

    Signals ring the bell, and one may interrupt the handler of another anywhere: a
    `threading.Event` that was being set would wait for itself for ever. `SimpleQueue.put` may be
    called in the middle of itself.
    """

    def __init__(self) -> None:
        self._rung: SimpleQueue[None] = SimpleQueue()
        self.look = threading.Event()
        self.refresh = False
        self.stopping = False

    def ring(self) -> None:
        """Wake the supervisor up."""
        self._rung.put(None)

    def wait(self, seconds: float) -> None:
        """Sleep until somebody rings, so long at most."""
        with suppress(Empty):
            self._rung.get(timeout=seconds)
            while True:  # whoever else rang is heard too
                self._rung.get_nowait()


class Supervisor:
    """Serves a deployment with workers until it is told to stop.

    Args:
        settings: everything that can be configured.
        listener: bound; workers inherit it.
        workers: how many.
        insecure: let everybody in.
        deployment: what is served at first.
        look: asked every `serving.watch_s` seconds what is to be served; None follows nothing.

    Attributes:
        worker_command: what starts a worker, which reads its plan from standard input.
    """

    worker_command: ClassVar[tuple[str, ...]] = (
        sys.executable,
        "-m",
        "batteryops.serving.worker",
    )

    def __init__(  # noqa: PLR0913 - what is to be served, and how
        self,
        settings: Settings,
        listener: socket.socket,
        *,
        workers: int,
        insecure: bool,
        deployment: Deployment,
        look: Look | None,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._n_workers = workers
        self._insecure = insecure
        self._deployment = deployment
        self._look = look
        self._folder = settings.home / "serving"
        self._news = _News()
        self._workers: dict[int, _Worker] = {}
        self._pauses: dict[int, float] = {}

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until SIGINT or SIGTERM; requests under way are answered first.

        Raises:
            BatteryOpsError: a worker could not start.
        """
        with tempfile.TemporaryDirectory(prefix="batteryops-") as runtime:
            run = Path(runtime)
            # one that follows nothing leaves what others know of the registry alone
            self._folder = self._folder if self._look is not None else run
            environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
            if self._n_workers > 1:
                environment[SHARED_FOLDER] = str(run / "metrics")
                (run / "metrics").mkdir()
            else:
                environment.pop(SHARED_FOLDER, None)
            write_deployment(self._deployment, self._folder)
            with self._stopped_by_signals():
                try:
                    for number in range(self._n_workers):
                        self._start(number, environment)
                    self._wait_until_ready()
                    on_ready()
                    self._watch(environment)
                finally:
                    self._stop_workers()
            shutil.rmtree(run / "metrics", ignore_errors=True)

    def _start(self, number: int, environment: Mapping[str, str]) -> None:
        plan = WorkerPlan(
            number=number,
            workers=self._n_workers,
            listener=self._listener.fileno(),
            folder=self._folder.resolve(),
            follow=self._look is not None,
            insecure=self._insecure,
            settings=self._settings.model_dump(mode="json"),
        )
        self._workers[number] = _Worker(self.worker_command, plan, environment, self._news)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _STARTED_WITHIN_S
        while not all(worker.ready.is_set() for worker in self._workers.values()):
            self._news.wait(0.1)
            if self._news.stopping:
                return
            for worker in self._workers.values():
                if worker.process.poll() is not None:
                    worker.ready.wait(0.2)  # its last words
                    raise BatteryOpsError(
                        worker.failure
                        or f"a worker ended with status {worker.process.returncode} while it "
                        "started; its log above says why"
                    )
            if time.monotonic() > deadline:
                raise BatteryOpsError(
                    f"the workers were not ready within {_STARTED_WITHIN_S:g} s; "
                    "their log above says why"
                )

    def _watch(self, environment: Mapping[str, str]) -> None:
        """Keep as many workers as there should be, until told to stop."""
        if self._look is not None:  # in a thread: a registry may take its time to answer
            looking = threading.Thread(target=self._keep_looking, args=(self._look,), daemon=True)
            looking.start()
        while True:
            self._news.wait(_WORKERS_S)
            if self._news.stopping:
                return
            for number, worker in list(self._workers.items()):
                if worker.process.poll() is not None:
                    self._start_again(number, worker, environment)

    def _keep_looking(self, look: Look) -> None:
        while True:
            self._news.look.wait(self._settings.serving.watch_s)
            self._news.look.clear()
            if self._news.stopping:
                return
            try:
                self._follow(look)
            except Exception:  # a full disk, say; what is served is served on
                logger.exception("what is to be served could not be found out")

    def _follow(self, look: Look) -> None:
        asked, self._news.refresh = self._news.refresh, False
        found = look(self._deployment)
        if found is self._deployment and not asked:
            return
        if asked:  # whoever did waits for this
            found = found.model_copy(update={"checked_at": datetime.now(UTC)})
        if found.registry.problem is not None and found.registry != self._deployment.registry:
            logger.error("the registry does not answer: %s", found.registry.problem)
        self._deployment = found
        write_deployment(found, self._folder)

    def _start_again(self, number: int, worker: _Worker, environment: Mapping[str, str]) -> None:
        now = time.monotonic()
        if now - worker.started_at > _STEADY_S:
            self._pauses.pop(number, None)
        pause = self._pauses.get(number, 0.0)
        if now - worker.started_at < pause:
            return
        self._pauses[number] = min(max(2 * pause, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        logger.error(
            "worker %d ended with status %s%s; starting it again",
            number,
            worker.process.returncode,
            f" ({worker.failure})" if worker.failure else "",
        )
        worker.end(0.0)
        if SHARED_FOLDER in environment:  # what it was doing nobody is doing now
            mark_process_dead(worker.process.pid, environment[SHARED_FOLDER])  # type: ignore[no-untyped-call] # the library's own
        self._start(number, environment)

    def _stop_workers(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        deadline = time.monotonic() + 2 * GRACE_S + 2.0  # for requests, and for the log
        for worker in self._workers.values():
            worker.end(deadline - time.monotonic())

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._news.stopping = True
            self._news.ring()

        before = {number: signal.signal(number, stop) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

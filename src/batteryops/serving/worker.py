"""One process that answers: `python -m batteryops.serving.worker`, started by the supervisor.

The supervisor writes the plan to standard input as one line of JSON and keeps the pipe open: when
it closes, the supervisor is gone, and the worker finishes what it began and leaves. What the worker
has to say it writes to standard output, one JSON object a line.
"""

import gc
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

from pydantic import BaseModel, ConfigDict

from batteryops.errors import BatteryOpsError, PackageError
from batteryops.records.api_keys import ApiKeys
from batteryops.records.group_commit import GroupCommit
from batteryops.records.predictions import PredictionLog
from batteryops.serving.app import create_app
from batteryops.serving.deployment import read_deployment
from batteryops.serving.desk import Desk
from batteryops.serving.doors import Doors
from batteryops.serving.logs import log_as_json
from batteryops.serving.metrics import Metrics
from batteryops.serving.protocol import HotProtocol
from batteryops.serving.server import Stop, serve
from batteryops.serving.service import Service
from batteryops.serving.tracing import traced, tracer_provider
from batteryops.settings import Settings

REFRESH: Final = "refresh"
READY: Final = "ready"
FAILED: Final = "failed"
_SWITCH_S: Final = 0.0005  # the writer's thread must not wait for the event loop's 5 ms turns


class WorkerPlan(BaseModel):
    """What a worker is told when it starts.

    Args:
        number: of the worker, from 0.
        workers: how many there are.
        listener: file descriptor of the listening socket, inherited.
        folder: of the deployment document.
        follow: whether the document may change.
        insecure: let everybody in.
        settings: as `Settings.model_dump` gives them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    workers: int
    listener: int
    folder: Path
    follow: bool
    insecure: bool
    settings: dict[str, Any]


def run_worker(plan: WorkerPlan, stop: Stop, say: Callable[[str, str], None]) -> None:
    """Serve until told to stop.

    Args:
        plan: what to serve, and how.
        stop: set by whoever wants it to end.
        say: tells the supervisor: a word and a detail.

    Raises:
        PackageError: the deployment cannot be served.
        RecordsError: the prediction log is out of reach.
    """
    settings = Settings.model_validate(plan.settings)
    rules = settings.serving
    deployment = read_deployment(plan.folder)
    if deployment is None:
        raise PackageError(f"{plan.folder} holds no deployment; start `batteryops serve` again")
    metrics = Metrics()
    keys = None if plan.insecure else ApiKeys(settings.predictions_url)
    service = Service(
        deployment,
        folder=plan.folder if plan.follow else None,
        log=PredictionLog(settings.predictions_url),
        writer=GroupCommit(
            settings.predictions_url,
            queue_rows=rules.log.queue_rows,
            group_ms=rules.log.group_ms,
            on_batch=metrics.wrote,
        ),
        doors=Doors(
            None if keys is None else keys.snapshot,
            rate_per_s=rules.limits.rate_per_s,
            workers=plan.workers,
        ),
        metrics=metrics,
        settings=settings,
        refresh=(lambda: say(REFRESH, "")) if plan.follow else None,
    )

    protocol = HotProtocol.configured(
        metrics,
        body_bytes=rules.limits.body_bytes,
        arrival_timeout_s=rules.limits.arrival_timeout_s,
        short_way=not rules.telemetry,
    )
    tracing = tracer_provider() if rules.telemetry else None

    def seat(desk: Desk) -> None:
        protocol.desk = desk

    try:
        with socket.socket(fileno=plan.listener) as listener:
            app = create_app(service, seat)
            entrance = app if tracing is None else traced(app, tracing)
            serve(entrance, listener, stop, protocol=protocol, on_ready=lambda: _ready(say))
    finally:
        service.close()
        if tracing is not None:
            tracing.shutdown()
        if keys is not None:
            keys.close()


def _ready(say: Callable[[str, str], None]) -> None:
    """Open for requests.

    What start-up made is here to stay: looking through it again for garbage would hold all answers
    up for a tenth of a second now and then.
    """
    gc.collect()
    gc.freeze()
    say(READY, "")


def main() -> int:
    """The process: reads its plan, serves, and leaves when told to or when left alone."""
    sys.setswitchinterval(_SWITCH_S)
    log_as_json()
    answers = threading.Lock()

    def say(word: str, detail: str) -> None:
        with answers:
            sys.stdout.write(json.dumps({"say": word, "detail": detail, "pid": os.getpid()}) + "\n")
            sys.stdout.flush()

    plan = WorkerPlan.model_validate_json(sys.stdin.readline())
    stop = Stop()
    threading.Thread(target=_stop_when_left_alone, args=(sys.stdin, stop), daemon=True).start()
    try:
        run_worker(plan, stop, say)
    except BatteryOpsError as error:
        say(FAILED, str(error))
        return 1
    return 0


def _stop_when_left_alone(supervisor: TextIO, stop: Stop) -> None:
    """Wait for the end of standard input, which is the supervisor's."""
    supervisor.read()
    stop.set()


if __name__ == "__main__":
    sys.exit(main())

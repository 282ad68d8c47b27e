"""A process that looks at a loop in children of its own, and kills them where it is told to.

Run as `python killing.py CONFIG`; each line of its input is a JSON document with a `home`, the time
`at`, and what to `do`. `look` has `kill_at`, the number of the point at which the child kills
itself, or null; the answer is whether it was `killed`, or else the names of all `points` that were
passed, and what it `got` on record. `recover` looks again, at that time and once the lease is over;
the answer is what was `left` on record before, and what it `got` there.

It imports everything and does nothing itself, so that it has no locks and threads at work when it
forks, and a child is at its task at once.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import time_machine
from sqlalchemy.engine.default import DefaultDialect

from batteryops.features.views import matrix
from batteryops.lifecycle.controller import check
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.lifecycle.packaging import RETRAINING_TAG
from batteryops.lifecycle.progress import Silent
from batteryops.records.ledger import Ledger
from batteryops.records.retraining_runs import RetrainingRun, RetrainingRuns
from batteryops.registry.mlflow_tracking import ALIASES, CHAMPION
from batteryops.settings import Settings, load_settings
from lifecycle.updating import old_rows

EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Points(Silent):
    """Where a look can be killed: counted, and named.

    Args:
        kill_at: the number of the point that is the last, from 0; None for none.
        home: renames in it count.
    """

    def __init__(self, kill_at: int | None, home: Path) -> None:
        self.names: list[str] = []
        self._kill_at = kill_at
        self._home = str(home)
        self._thread = threading.get_ident()
        self._written: list[str] = []  # by the transaction that is open

    def step(self, text: str) -> None:
        """A point of its own."""
        self.passed(f"step: {text}")

    def passed(self, name: str) -> None:
        """Count; the end, where it is to be."""
        if threading.get_ident() != self._thread:  # that of the lease
            return
        if len(self.names) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)

    def watch(self) -> None:
        """Make points of all commits of what was written, of all moves of a run, of all renames."""
        sa.event.listen(sa.Engine, "before_cursor_execute", self._note)
        self._around(DefaultDialect, "do_commit", lambda *_: self._commit())
        self._around(RetrainingRuns, "start", lambda *_, **__: "start")
        self._around(RetrainingRuns, "move", _move)
        sys.addaudithook(self._audit)

    def _around(self, owner: type, method: str, named: Callable[..., str]) -> None:
        real = getattr(owner, method)

        def both(*given: Any, **named_too: Any) -> Any:  # noqa: ANN401 - of any method
            name = named(*given, **named_too)
            if name:
                self.passed(f"before {name}")
            result = real(*given, **named_too)
            if name:
                self.passed(f"after {name}")
            return result

        setattr(owner, method, both)

    def _note(self, *given: Any) -> None:  # noqa: ANN401 - as SQLAlchemy calls it
        verb, *words = given[2].split()
        if verb in {"INSERT", "UPDATE", "DELETE"} and threading.get_ident() == self._thread:
            self._written.append(f"{verb} {words[verb != 'UPDATE']}")

    def _commit(self) -> str:
        """A name for what is committed; none where nothing was written."""
        if threading.get_ident() != self._thread or not self._written:
            return ""
        name = f"commit of {', '.join(dict.fromkeys(self._written))}"
        self._written.clear()
        return name

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "os.rename" and str(given[1]).startswith(self._home):
            self.passed(f"before rename to {Path(os.fsdecode(given[1])).name}")


def _move(_: RetrainingRuns, run: RetrainingRun, state: str, **__: object) -> str:
    return f"move {run.state} to {state}"


def look(settings: Settings, at: datetime, kill_at: int | None) -> dict[str, Any]:
    """Look once, at that time."""
    points = Points(kill_at, settings.home)
    with time_machine.travel(at, tick=True):
        points.watch()
        check(settings, points)
    return {
        "killed": False,
        "points": points.names,
        "got": on_record(settings),
    }


def recover(settings: Settings, at: datetime) -> dict[str, Any]:
    """What a killed look left, and what is there after the looks that follow."""
    left = on_record(settings)
    for clock in (at, at + timedelta(seconds=settings.retraining.lease_s)):
        with time_machine.travel(
            clock, tick=True
        ):  # busy first, where the lease was not given back
            check(settings, Silent())
    return {"left": left, "got": on_record(settings)}


def on_record(settings: Settings) -> dict[str, Any]:
    """What looks have left, but for times and identifiers; raises where anything is broken."""
    with closing(RetrainingRuns(settings.predictions_url)) as store:
        runs = store.since(EVER)
    registry = open_registry(settings)
    with Ledger(settings.ledger_url) as ledger:
        intact = ledger.verify().intact
        lines = Counter(f"{entry.event} {entry.subject.split()[0]}" for entry in ledger.entries())
    package = load_model(CHAMPION, settings).package
    return {
        "runs": [
            {
                "state": run.state,
                "version": run.document.get("version"),
                "made": [found.version for found in registry.tagged(RETRAINING_TAG, run.run_id)],
            }
            for run in runs
        ],
        "versions": [[found.version, found.status] for found in registry.versions()],
        "aliases": {
            alias: found.version for alias in ALIASES if (found := registry.find_alias(alias))
        },
        "answers": package.predict_batch(matrix(package.view, old_rows()[:5])).tolist(),
        "intact": intact,
        "ledger": lines,
        "folders": sorted(found.name.rpartition("-")[0] for found in settings.packages.iterdir()),
        "training": sorted(found.name for found in settings.training_rows.iterdir()),
    }


def in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do it in a child; what it came to."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        try:
            told = work()
        except BaseException:  # noqa: BLE001 - told to whoever started this
            told = {"killed": False, "error": traceback.format_exc()}
        with os.fdopen(writes, "w") as out:
            json.dump(told, out)
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as said:
        answer = said.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return {"killed": os.WTERMSIG(status) == signal.SIGKILL}
    found: dict[str, Any] = json.loads(answer)
    return found


def main() -> None:
    """Answer line by line."""
    # before children are made, which take seconds less then; whoever reads this module's examples
    # must not import MLflow, whose warnings are errors there
    for heavy in (
        "mlflow.store.model_registry.sqlalchemy_store",
        "mlflow.store.tracking.sqlalchemy_store",
        "onnxruntime",
    ):
        import_module(heavy)
    for line in sys.stdin:
        asked = json.loads(line)
        settings = load_settings(Path(sys.argv[1]), home=Path(asked["home"]))
        at = datetime.fromisoformat(asked["at"])
        if asked["do"] == "recover":
            work = partial(recover, settings, at)
        else:
            work = partial(look, settings, at, asked["kill_at"])
        print(json.dumps(in_child(work)), flush=True)  # noqa: T201 - that is how it answers


if __name__ == "__main__":
    main()

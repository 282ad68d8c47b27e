"""The loop: look at the facts, decide, and take every step of a retraining that can be taken.

`check` may be called at any time, from anywhere, by a timer, a CronJob or a person: a lease in the
database lets one process act at a time, and where nothing is to be done nothing happens. What was
begun is gone on with first.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from batteryops.errors import BatteryOpsError, LeaseLostError
from batteryops.lifecycle.loading import LoadedModel, load_model
from batteryops.lifecycle.monitoring import run_monitoring
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.retraining_facts import DECISION, Observed, gather
from batteryops.lifecycle.retraining_steps import Loop, abandon, advance, note
from batteryops.lifecycle.triggers import Decision, Facts, TriggerRules, decide, overtakes
from batteryops.monitoring.changes import SOFTWARE
from batteryops.records.leases import Lease, Leases
from batteryops.records.ledger import LABELS_REQUESTED, Ledger
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns
from batteryops.records.retraining_runs import PROBATION, TRIAL, RetrainingRun, RetrainingRuns
from batteryops.registry.mlflow_tracking import CHAMPION
from batteryops.settings import Settings

logger = logging.getLogger(__name__)

LEASE: Final = "controller"
"""Name of the lease that whoever acts holds."""

_NOTED: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Checked:
    """What one look came to.

    Args:
        at: when, UTC.
        busy: who else is at it, and until when; None where this process acted.
        decision: what the facts led to; None while a run was under way before.
        runs: those that were under way, or begun, as they stand now.
    """

    at: datetime
    busy: str | None
    decision: Decision | None
    runs: tuple[RetrainingRun, ...]

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {
            "at": self.at.isoformat(),
            "busy": self.busy,
            "decision": None if self.decision is None else self.decision.to_json(),
            "runs": [run.to_json() for run in self.runs],
        }


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def check(
    settings: Settings, progress: Progress, *, now: Callable[[], datetime] = utc_now
) -> Checked:
    """Go on with what was begun, else decide whether to retrain, and begin.

    Doing it twice does nothing twice. The decision is on record whichever way it goes, with the
    facts that it was made from.

    Args:
        settings: where everything is, and the rules.
        progress: told what is being done.
        now: the clock.

    Raises:
        RecordsError, RegistryError, PackageError: a store is out of reach; the next look goes on
            where this one ended.
    """
    at = now()
    with closing(RetrainingRuns(settings.predictions_url)) as runs:
        leases = Leases.beside(runs)
        rules = settings.retraining
        lease = leases.take(LEASE, holder_name(), seconds=rules.lease_s, now=at)
        if lease is None:
            return Checked(at, f"another controller holds the lease {LEASE!r}", None, ())
        with _kept(leases, lease, rules.lease_s, now):
            loop = Loop(settings, runs, lease, progress, at, now)
            _note_recent(loop)
            seen = [_go_on(loop, run) for run in runs.on_probation()]
            decision, run = None, runs.open()
            if run is not None:
                run = _go_on(loop, run)
                seen.append(run)
            if run is None or run.ended or run.state in {TRIAL, PROBATION}:
                decision, begun = _decide(loop)
                if begun is not None:
                    seen.append(_go_on(loop, begun))
            latest = {run.run_id: runs.get(run.run_id) for run in seen}
            return Checked(at, None, decision, tuple(latest.values()))


def holder_name() -> str:
    """Who holds a lease: the machine and the process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _go_on(loop: Loop, run: RetrainingRun) -> RetrainingRun:
    """Take steps until one has to wait, or the run is over."""
    while not run.ended:
        moved = advance(loop, run)
        if moved is None:
            break
        logger.info("retraining %s: %s, then %s", run.run_id, run.state, moved.state)
        run = moved
    return run


def _decide(loop: Loop) -> tuple[Decision, RetrainingRun | None]:
    """Decide, put it on record with the facts, and begin a retraining where one is to be."""
    settings, runs = loop.settings, loop.runs
    loop.progress.step("gather the facts")
    champion = load_model(CHAMPION, settings)
    seen = Observed(champion, _monitored(loop, champion), runs.requests())
    facts, rules = gather(settings, runs, seen, now=loop.now), TriggerRules.of(settings)
    decision = decide(facts, rules)
    if facts.open_run is not None:
        without = decide(replace(facts, open_run=None), rules)
        days = settings.retraining.trial.min_days
        if overtakes(without, facts.open_run, facts, min_days=days):
            abandon(loop, facts.open_run, f"overtaken: {without.reason}")
            decision = without
    MonitoringRuns.beside(runs).add(
        DECISION,
        loop.now,
        {**decision.to_json(), "champion": champion.version, "facts": facts.to_json()},
    )
    if decision.action == "ask_for_labels":
        with Ledger(settings.ledger_url) as ledger:
            ledger.append(
                LABELS_REQUESTED, settings.registry.model_name, {"reason": decision.reason}
            )
    return decision, _begin(loop, decision, facts)


def _begin(loop: Loop, decision: Decision, facts: Facts) -> RetrainingRun | None:
    if decision.action != "retrain" or decision.trigger is None:
        return None
    run = loop.runs.start(
        trigger=decision.trigger,
        reason=decision.reason,
        at=loop.now,
        document={
            "fired": decision.to_json()["fired"],
            "changed": [name for name, found in facts.drift.items() if found.cause == SOFTWARE],
            "fresh_labels": facts.fresh_labels,
            "asked_since": facts.drift_since and facts.drift_since.isoformat(),
        },
        lease=loop.lease,
        requests=loop.runs.requests() if decision.trigger == "manual" else (),
    )
    with Ledger(loop.settings.ledger_url) as ledger:
        note(ledger, run)
    return run


def _monitored(loop: Loop, champion: LoadedModel) -> Mapping[str, Any]:
    """What the newest monitoring run found of the champion; of a run now, where that is too old."""
    newest = MonitoringRuns.beside(loop.runs).newest(MONITOR)
    oldest = loop.now - 2 * timedelta(minutes=loop.settings.retraining.monitor_every_minutes)
    if newest is not None and oldest <= newest.at:
        of = newest.document.get("model", {}).get("fingerprint")
        if of == champion.package.fingerprint:
            return newest.document
    return run_monitoring(loop.settings, loop.progress, now=lambda: loop.now).document


def _note_recent(loop: Loop) -> None:
    """Lines that a process was killed before it wrote."""
    with Ledger(loop.settings.ledger_url) as ledger:
        for run in loop.runs.since(loop.now - _NOTED):
            note(ledger, run)


@contextmanager
def _kept(
    leases: Leases, lease: Lease, seconds: float, now: Callable[[], datetime]
) -> Iterator[None]:
    """Renew a lease while the block runs, and give it back after.

    Where it was lost, nothing of the run can be written any more: whatever the block does next on
    record is refused.
    """
    over = threading.Event()

    def renew() -> None:
        held = lease
        while not over.wait(seconds / 3.0):
            try:
                held = leases.renew(held, seconds=seconds, now=now())
            except LeaseLostError:
                logger.error("the lease %r was lost: another controller took over", LEASE)  # noqa: TRY400 - the trace says no more
                return
            except BatteryOpsError:
                logger.exception("the lease %r could not be renewed", LEASE)

    renewing = threading.Thread(target=renew, name="lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        with suppress(BatteryOpsError):  # it runs out by itself
            leases.release(lease)

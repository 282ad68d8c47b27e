"""The steps of a retraining: a candidate, its trial beside the champion, its probation after.

Each step looks at what is there before it does anything, and writes down that it is done after it
is: a process that is killed in between leaves a step that is taken again, which finds what was done
already. So a run goes on from wherever it was left, and nothing half made is ever in service.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from batteryops.errors import BatteryOpsError, GateError, PackageError, RecordsError, RegistryError
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.online_learning import find_update, register_update, update_model
from batteryops.lifecycle.packaging import discard_left
from batteryops.lifecycle.probation import ProbationRules, judge_probation
from batteryops.lifecycle.probation_facts import probation_facts
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.rollback import rollback
from batteryops.lifecycle.servers import have_looked, wait_until_served
from batteryops.lifecycle.trials import judge_trial
from batteryops.records.leases import Lease
from batteryops.records.ledger import RETRAINING_ENDED, RETRAINING_STARTED, Ledger
from batteryops.records.retraining_runs import RetrainingRun, RetrainingRuns, State
from batteryops.registry.mlflow_tracking import CHALLENGER, CHAMPION, ModelRegistry
from batteryops.settings import Settings

MAX_ATTEMPTS: Final = 3
"""Begun so often and never finished, a step ends the run: something kills it."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What the steps share.

    Args:
        settings: where everything is, and the rules.
        runs: where the run stands.
        lease: that the process holds; without it nothing is written.
        progress: told what is being done.
        now: the time of this look, UTC.
        clock: what it is by now: a candidate takes minutes to make.
    """

    settings: Settings
    runs: RetrainingRuns
    lease: Lease
    progress: Progress
    now: datetime
    clock: Callable[[], datetime]

    def move(self, run: RetrainingRun, state: State, /, **document: Any) -> RetrainingRun:  # noqa: ANN401 - any JSON
        """Put on record where the run stands now; its end also on the ledger."""
        moved = self.runs.move(run, state, at=self.now, document=document, lease=self.lease)
        if moved.ended:
            with Ledger(self.settings.ledger_url) as ledger:
                note(ledger, moved)
        return moved

    def registry(self) -> ModelRegistry:
        """The registry."""
        return open_registry(self.settings)


def note(ledger: Ledger, run: RetrainingRun) -> None:
    """Put the beginning of a run on the ledger, and its end where it has one; each once."""
    subject = f"retraining {run.run_id}"
    noted = {
        event
        for event in (RETRAINING_STARTED, RETRAINING_ENDED)
        if any(entry.subject == subject for entry in ledger.entries(event))
    }
    if RETRAINING_STARTED not in noted:
        ledger.append(RETRAINING_STARTED, subject, {"trigger": run.trigger, "reason": run.reason})
    if run.ended and RETRAINING_ENDED not in noted:
        ledger.append(
            RETRAINING_ENDED,
            subject,
            {
                "outcome": run.state,
                "why": run.document.get("why", ""),
                "version": run.document.get("version"),
            },
        )


def advance(loop: Loop, run: RetrainingRun) -> RetrainingRun | None:
    """Take the next step of a run.

    Returns:
        The run as it stands then; None where there is nothing to do but wait.

    Raises:
        RecordsError, RegistryError, PackageError: a store is out of reach; the next look goes on.
    """
    return _STEPS[run.state](loop, run)


def abandon(loop: Loop, run: RetrainingRun, why: str) -> RetrainingRun:
    """End a trial that something overtook; its version is archived."""
    loop.registry().archive(run.document["version"])
    return loop.move(run, "abandoned", why=why)


def _make_candidate(loop: Loop, run: RetrainingRun) -> RetrainingRun:
    """Bring the model up to date; nothing is in service yet."""
    found = find_update(run.run_id, loop.settings)
    discard_left(run.run_id, loop.settings, found)
    if found is not None:  # a process was killed after it registered this
        return loop.move(run, "candidate", version=found.version)
    attempt = int(run.document.get("attempts", 0)) + 1
    if attempt > MAX_ATTEMPTS:
        why = f"begun {MAX_ATTEMPTS} times and never finished: look at the log of the controller"
        return loop.move(run, "failed", why=why)
    run = loop.move(run, "decided", attempts=attempt)
    try:
        updated = update_model(
            loop.settings,
            loop.progress,
            until=loop.now,
            run_id=run.run_id,
            changed=run.document["changed"],
        )
        if not updated.accepted:
            return loop.move(run, "kept", why=updated.reason, **updated.to_json())
        registered = register_update(updated, loop.settings, loop.progress)
    except (RegistryError, RecordsError, PackageError):  # not the run's fault: tried again
        loop.move(run, "decided", attempts=attempt - 1)
        raise
    except BatteryOpsError as error:
        return loop.move(run, "failed", why=str(error))
    return loop.move(
        run,
        "candidate",
        version=registered.version.version,
        why=updated.reason,
        **updated.to_json(),
    )


def _begin_trial(loop: Loop, run: RetrainingRun) -> RetrainingRun:
    """Let it challenge the champion."""
    version, registry = run.document["version"], loop.registry()
    champion = registry.version_at(CHAMPION).version
    challenger = registry.find_alias(CHALLENGER)
    if challenger is None or challenger.version != version:
        try:
            promote(version, loop.settings, to=CHALLENGER, reason=run.reason)
        except GateError as error:
            registry.archive(version)
            return loop.move(run, "rejected", why=str(error))
    have_looked(loop.settings)  # what is asked until they do, the challenger does not hear
    return loop.move(run, "trial", champion=champion, trial_since=loop.clock().isoformat())


def _judge(loop: Loop, run: RetrainingRun) -> RetrainingRun | None:
    """Look at the trial, and carry out what it says."""
    version, champion = run.document["version"], run.document["champion"]
    registry = loop.registry()
    if "trial_ending" not in run.document:
        holder, challenger = registry.version_at(CHAMPION).version, registry.find_alias(CHALLENGER)
        if holder not in {champion, version}:
            why = f"version {holder} became champion while version {version} challenged {champion}"
            return abandon(loop, run, why)
        if holder != version and (challenger is None or challenger.version != version):
            why = f"version {version} does not challenge any more: somebody else decided"
            return loop.move(run, "abandoned", why=why)
        since = datetime.fromisoformat(run.document["trial_since"])
        ahead = since - loop.now > timedelta(days=loop.settings.retraining.trial.max_days)
        if ahead and holder != version:
            return abandon(loop, run, f"its trial began at {since}, by a clock that was wrong")
        loop.progress.step(f"judge the trial of version {version}")
        verdict = judge_trial(
            loop.settings,
            champion=champion,
            challenger=version,
            since=min(since, loop.now),  # a clock may have been set back
            until=loop.now,
            asked_since=_asked_since(run),
        )
        decision = "promote" if holder == version else verdict.decision
        if decision == "continue":
            loop.move(run, "trial", verdict=verdict.to_json())
            return None
        # what is to happen is on record before it does: a process that comes after knows it
        run = loop.move(
            run,
            "trial",
            trial_ending=decision,
            why="; ".join(verdict.reasons),
            verdict=verdict.to_json(),
        )
    if run.document["trial_ending"] == "promote":
        return _promote(loop, run, registry)
    registry.archive(version)
    return loop.move(
        run, "harmful" if run.document["trial_ending"] == "stop_for_harm" else "rejected"
    )


def _promote(loop: Loop, run: RetrainingRun, registry: ModelRegistry) -> RetrainingRun:
    version, champion = run.document["version"], run.document["champion"]
    loop.progress.step(f"promote version {version}")
    if registry.version_at(CHAMPION).version != version:
        try:
            promote(version, loop.settings, to=CHAMPION, reason=run.document["why"])
        except GateError as error:
            registry.archive(version)
            return loop.move(run, "rejected", why=str(error))
    else:  # a process was killed after it moved the alias: nobody challenges itself
        registry.set_alias(version, CHAMPION)
    if registry.version(champion).status != "archived":
        registry.archive(champion)
    fingerprint = registry.version(version).package_fingerprint or ""
    states = wait_until_served(loop.settings, version, fingerprint)
    return loop.move(
        run,
        "probation",
        promoted_at=loop.clock().isoformat(),
        servers=[state.to_json() for state in states],
    )


def _watch(loop: Loop, run: RetrainingRun) -> RetrainingRun | None:
    """Look at a new champion, and go back where it was wrong."""
    version, before = run.document["version"], run.document["champion"]
    registry = loop.registry()
    if not run.document.get("going_back"):
        holder = registry.version_at(CHAMPION).version
        if holder > version:
            return loop.move(run, "promoted", why=f"version {holder} followed it")
        if holder != version:
            return loop.move(run, "rolled_back", why=f"to version {holder}, by somebody else")
        since = datetime.fromisoformat(run.document["promoted_at"])
        rules = ProbationRules.of(loop.settings)
        facts = probation_facts(
            loop.settings,
            version,
            min(since, loop.now),  # a clock may have been set back
            loop.now,
            before=before,
            asked_since=_asked_since(run),
        )
        verdict = judge_probation(facts, rules)
        if verdict.decision == "continue":
            loop.move(run, "probation", probation=verdict.to_json())
            return None
        why = "; ".join(verdict.reasons)
        if verdict.decision == "good":
            return loop.move(run, "promoted", why=why)
        run = loop.move(run, "probation", going_back=True, why=why)
    loop.progress.step(f"roll back from version {version}")
    done = rollback(loop.settings, bad=version, reason=run.document["why"], progress=loop.progress)
    return loop.move(run, "rolled_back", rolled_back_to=done.version)


def _asked_since(run: RetrainingRun) -> datetime | None:
    """Since when questions are as they are now, where a run was begun while they changed."""
    since = run.document.get("asked_since")
    return None if since is None else datetime.fromisoformat(since)


_STEPS: Final[Mapping[State, Callable[[Loop, RetrainingRun], RetrainingRun | None]]] = {
    "decided": _make_candidate,
    "candidate": _begin_trial,
    "trial": _judge,
    "probation": _watch,
}

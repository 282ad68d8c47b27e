"""Commands of the loop: controller, and what `retrain` does by hand: check, request, list."""

import getpass
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Final

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, settings_of
from batteryops.errors import BatteryOpsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batteryops.lifecycle.controller import Checked
    from batteryops.lifecycle.monitoring import Monitored
    from batteryops.records.retraining_runs import RetrainingRun

FAILED_EXIT: Final = 2

_ACTIONS: Final = {
    "retrain": "green",
    "ask_for_labels": "yellow",
    "wait": "cyan",
    "nothing": "dim",
}
_STATES: Final = {
    "promoted": "green",
    "probation": "green",
    "kept": "cyan",
    "rejected": "yellow",
    "harmful": "red",
    "rolled_back": "red",
    "failed": "bold red",
    "abandoned": "dim",
}


def check(config: Config = None, home: Home = None, as_json: Json = False) -> None:
    """Go on with a retraining that was begun, else decide whether to begin one.

    Safe to run at any time and from anywhere: one process acts at a time, and nothing is done
    twice. Exit 0 whatever was decided; 1 where a run ended in failure, harm or a rollback; 2 where
    a store was out of reach.
    """
    from batteryops.lifecycle.controller import check as look

    settings = settings_of(config, home)
    try:
        with terminal.steps(quiet=as_json) as progress:
            found = look(settings, progress)
    except BatteryOpsError as error:
        terminal.say(str(error), label="error", style="red")
        raise typer.Exit(FAILED_EXIT) from error
    if as_json:
        terminal.print_json(found.to_json())
    else:
        show_checked(found)
    if any(run.state in {"failed", "harmful", "rolled_back"} for run in found.runs):
        raise typer.Exit(1)


def request(
    reason: Annotated[
        str, typer.Option("--reason", help="Why; it is kept with the run and in the ledger.")
    ],
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Ask for a retraining: the next check begins it, whatever cooldown and budget say."""
    from batteryops.records.retraining_runs import RetrainingRuns

    with RetrainingRuns(settings_of(config, home).predictions_url) as runs:
        asked = runs.request(reason, by=getpass.getuser(), at=datetime.now(UTC))
    if as_json:
        terminal.print_json(asked.to_json())
    else:
        terminal.say(
            "`batteryops retrain check`, or the controller, begins it", label="asked", style="green"
        )


def list_(
    days: Annotated[float, typer.Option("--days", min=0.0, help="Begun in so many days.")] = 366.0,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List retrainings, the newest first: why each was begun, and what came of it."""
    from batteryops.records.retraining_runs import RetrainingRuns

    with RetrainingRuns(settings_of(config, home).predictions_url) as runs:
        found = runs.since(datetime.now(UTC) - timedelta(days=days))[::-1]
    if as_json:
        terminal.print_json([run.to_json() for run in found])
    elif found:
        show_runs(found)
    else:
        terminal.say(f"none was begun in the last {days:g} days", label="retrainings")


def controller(config: Config = None, home: Home = None, as_json: Json = False) -> None:
    """Monitor, decide, retrain, try, promote and roll back, until told to stop.

    One line for each look; with --json one document for each. Several controllers may run: one of
    them acts at a time, and another takes over where that one dies.
    """
    from batteryops.lifecycle.progress import Silent
    from batteryops.lifecycle.schedule import keep_checking

    settings = settings_of(config, home)
    stop = threading.Event()
    bell: SimpleQueue[int] = SimpleQueue()  # a second signal may interrupt the handler of the first
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: bell.put(number))
    threading.Thread(target=_stop_when_rung, args=(bell, stop), daemon=True).start()
    rules = settings.retraining
    if not as_json:
        terminal.say(
            f"monitoring every {rules.monitor_every_minutes:g} minutes, looking every "
            f"{rules.check_every_minutes:g}; Ctrl-C stops after what is under way",
            label="controller",
            style="green",
        )
    said = threading.Lock()

    def heard(what: "Checked | Monitored | BatteryOpsError") -> None:
        with said:
            _tell(what, as_json=as_json)

    keep_checking(settings, Silent, heard, stop)


def _stop_when_rung(bell: "SimpleQueue[int]", stop: threading.Event) -> None:
    """The first signal lets what is under way finish; the second ends it, which loses nothing."""
    bell.get()
    stop.set()
    os._exit(128 + bell.get())


def _tell(what: "Checked | Monitored | BatteryOpsError", *, as_json: bool) -> None:
    from batteryops.lifecycle.controller import Checked

    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(what, BatteryOpsError):
        if as_json:
            terminal.print_json({"at": at, "error": str(what)})
        else:
            terminal.say(f"{at} {what}", label="error", style="red")
    elif as_json:
        terminal.print_json(what.to_json() if isinstance(what, Checked) else what.document)
    elif isinstance(what, Checked):
        terminal.say(f"{at} {summary(what)}", label="looked", style="cyan")
    else:
        whys = "; ".join(part.why for part in what.parts if part.verdict == what.verdict)
        terminal.say(f"{at} {what.verdict}: {whys}", label="monitored", style="cyan")


def summary(found: "Checked") -> str:
    """One look in a sentence.

    A run that is under way is told before what was decided.
    """
    if found.busy:
        return found.busy
    told = [
        f"{run.trigger} retraining: {run.state.replace('_', ' ')}"
        + (f", {why}" if (why := run.document.get("why")) else "")
        for run in found.runs
    ]
    if found.decision is not None:
        told.append(f"{found.decision.action.replace('_', ' ')}: {found.decision.reason}")
    return "; ".join(told) or "a trial or a probation goes on"


def show_checked(found: "Checked") -> None:
    """Print what one look came to."""
    if found.busy:
        terminal.say(found.busy, label="busy", style="yellow")
        return
    if found.decision is not None:
        decision = found.decision
        rows = [[one.trigger, "fired", one.reason] for one in decision.fired]
        rows += [["", "held back", why] for why in decision.held_back]
        if rows:
            terminal.table("triggers", ["trigger", "", "why"], rows)
        terminal.say(
            decision.reason,
            label=decision.action.replace("_", " "),
            style=_ACTIONS.get(decision.action, ""),
        )
    if found.runs:
        show_runs(found.runs)


def show_runs(runs: "Sequence[RetrainingRun]") -> None:
    """Print retrainings, in the order given."""
    terminal.table(
        "retrainings",
        ["begun (UTC)", "trigger", "state", "version", "strategy", "reason", "what came of it"],
        [
            [
                run.started_at.strftime("%Y-%m-%d %H:%M"),
                run.trigger,
                terminal.styled(run.state.replace("_", " "), _STATES.get(run.state, "")),
                run.document.get("version", "-"),
                run.document.get("strategy", "-") or "-",
                run.reason,
                run.document.get("why", ""),
            ]
            for run in runs
        ],
        spare=["strategy", "begun (UTC)"],
    )

"""Commands on the whole: demo, doctor, audit."""

from pathlib import Path
from typing import Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, Source, settings_of


def doctor(config: Config = None, home: Home = None, as_json: Json = False) -> None:
    """Print the effective settings and check that each store is reachable. Exit 1 when not."""
    from batteryops.lifecycle.doctor import examine

    settings = settings_of(config, home)
    examined = examine(settings)
    if as_json:
        terminal.print_json(examined.to_json())
    else:
        terminal.table("settings in force", ["setting", "value"], examined.settings_rows)
        terminal.table(
            "stores",
            ["store", "where", "", "what it says"],
            [
                [
                    check.store,
                    check.where,
                    terminal.styled("reachable", "green")
                    if check.reachable
                    else terminal.styled("NOT reachable", "red"),
                    check.message,
                ]
                for check in examined.checks
            ],
        )
    if not examined.healthy:
        raise typer.Exit(1)


def audit(
    limit: Annotated[int, typer.Option("--limit", help="How many lines, newest last.")] = 20,
    event: Annotated[str | None, typer.Option("--event", help="Just this kind of event.")] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show the ledger and verify its chain. Exit 1 when a line was changed or is missing."""
    from batteryops.records.ledger import Ledger

    with Ledger(settings_of(config, home).ledger_url) as ledger:
        check = ledger.verify()
        entries = ledger.entries(event=event, limit=limit)
    if as_json:
        terminal.print_json(
            {"check": check.to_json(), "entries": [entry.to_json() for entry in entries]}
        )
    else:
        terminal.table(
            "ledger",
            ["line", "at", "event", "subject", "details", "hash"],
            [
                [
                    entry.sequence,
                    entry.at.strftime("%Y-%m-%d %H:%M:%S"),
                    entry.event,
                    entry.subject,
                    _short(entry.details),
                    entry.hash[:12],
                ]
                for entry in entries
            ],
        )
        if check.intact:
            terminal.say(f"{check.length} lines, head {check.head}", label="intact", style="green")
        else:
            terminal.say(
                str(check.problem), label=f"BROKEN at line {check.first_broken}", style="red"
            )
    if not check.intact:
        raise typer.Exit(1)


def _short(details: object, width: int = 100) -> str:
    text = str(details)
    return text if len(text) <= width else text[: width - 1] + "…"


def demo(
    source: Source = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
    open_report: Annotated[
        bool, typer.Option("--open", help="Open the page in a browser at the end.")
    ] = False,
) -> None:
    """The main job, end to end: raw cycles to a served, gated model, and one page that shows it.

    Uses the NASA cells when BATTERYOPS_DATA has them, else a simulated fleet, and says which. Its
    state stands in a folder of its own, demo/ under the home folder.
    """
    from batteryops.lifecycle.demo import run_demo

    settings = settings_of(config, home)
    with terminal.steps(quiet=as_json) as progress:
        shown = run_demo(settings, source=source, config=config, progress=progress)
    if as_json:
        terminal.print_json(shown.to_json())
    else:
        terminal.table("what happened", ["step", "result", "seconds"], shown.rows)
        terminal.say(str(shown.report), label="the page", style="bold")
        terminal.say(f"batteryops versions --home {shown.home}", label="to go on", style="bold")
    if open_report:
        import webbrowser

        webbrowser.open(Path(shown.report).resolve().as_uri())

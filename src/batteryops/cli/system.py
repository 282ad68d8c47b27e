"""Commands on the whole: demo, doctor, audit."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, Source, settings_of

DETAILS_SHOWN: Final = 120
"""How many characters of a ledger line's details the table shows."""
LISTED: Final = 3
"""Lists with more items are counted rather than shown."""
HASH: Final = re.compile(r"[0-9a-f]{64}")
"""A SHA-256, of which the table shows the beginning."""
HASH_SHOWN: Final = 12


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
                    terminal.styled("in order", "green")
                    if check.reachable
                    else terminal.styled("NOT in order", "red"),
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
                    HASH.sub(lambda found: found[0][:HASH_SHOWN], entry.subject),
                    _told(entry.details),
                    entry.hash[:HASH_SHOWN],
                ]
                for entry in entries
            ],
            spare=["hash", "at"],
        )
        if check.intact:
            terminal.say(f"{check.length} lines, head {check.head}", label="intact", style="green")
        else:
            terminal.say(
                str(check.problem), label=f"BROKEN at line {check.first_broken}", style="red"
            )
    if not check.intact:
        raise typer.Exit(1)


def _told(details: Mapping[str, Any]) -> str:
    """Details in one line; what stands in full in --json is shortened here."""
    told = "; ".join(
        f"{name.replace('_', ' ')}: {_short(value)}" for name, value in details.items()
    )
    return told if len(told) <= DETAILS_SHOWN else told[: DETAILS_SHOWN - 1] + "…"


def _short(value: object) -> str:
    if isinstance(value, list):
        return (
            f"{len(value)} of them"
            if len(value) > LISTED
            else ", ".join(map(_short, value)) or "none"
        )
    if isinstance(value, dict):
        return str(value.get("name", f"{len(value)} of them"))
    if isinstance(value, str) and HASH.fullmatch(value):
        return value[:HASH_SHOWN]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def demo(
    source: Source = None,
    time_lapse: Annotated[
        bool,
        typer.Option("--time-lapse", help="A year of a simulated fleet that changes, in minutes."),
    ] = False,
    vehicles: Annotated[int, typer.Option("--vehicles", min=10, help="In the time lapse.")] = 200,
    weeks: Annotated[int, typer.Option("--weeks", min=2, help="In the time lapse.")] = 52,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the time lapse.")] = 42,
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

    With --time-lapse a fleet drives through a year in which five things change at weeks that nobody
    is told, and the loop is compared with models that never learn, and that learn every Sunday. It
    stands in time-lapse/ under the home folder, which is emptied first.
    """
    settings = settings_of(config, home)
    if time_lapse:
        from batteryops.cli import time_lapse as year

        shown_year = year.run(settings, vehicles=vehicles, weeks=weeks, seed=seed, as_json=as_json)
        _open(shown_year.page, wanted=open_report)
        return
    from batteryops.lifecycle.demo import run_demo

    with terminal.steps(quiet=as_json) as progress:
        shown = run_demo(settings, source=source, config=config, progress=progress)
    if as_json:
        terminal.print_json(shown.to_json())
    else:
        terminal.table("what happened", ["step", "result", "seconds"], shown.rows)
        terminal.say(str(shown.report), label="the page", style="bold")
        terminal.say(f"batteryops versions --home {shown.home}", label="to go on", style="bold")
    _open(shown.report, wanted=open_report)


def _open(page: Path, *, wanted: bool) -> None:
    if wanted:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())

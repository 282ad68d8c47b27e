"""Commands on incidents: list, show, close."""

import getpass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batteryops.records.incidents import Incident, Incidents
    from batteryops.settings import Settings

app = typer.Typer(help="Incidents: one per cause, opened by alerts.", no_args_is_help=True)

_STATES = {"open": "red", "resolved": "yellow", "closed": "green"}
_SEVERITIES = {"critical": "red", "warning": "yellow", "info": "blue"}
Identifier = Annotated[str, typer.Argument(help="The incident's identifier.")]


@app.command("list")
def list_(
    only_open: Annotated[
        bool, typer.Option("--open", help="Only those that are not closed.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 50,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List incidents, the newest first."""
    from batteryops.records.incidents import Incidents

    settings = settings_of(config, home)
    with Incidents(settings.predictions_url) as incidents:
        found = incidents.list(
            at=datetime.now(UTC), quiet=_quiet(settings), limit=limit, only_open=only_open
        )
        _tell(incidents, settings)
    if as_json:
        terminal.print_json([incident.to_json() for incident in found])
    else:
        _show("incidents", found)


@app.command()
def show(
    incident_id: Identifier,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Tell one incident: its alerts, and what became of it."""
    from batteryops.records.incidents import Incidents

    with Incidents(settings_of(config, home).predictions_url) as incidents:
        found = incidents.get(incident_id)
    if as_json:
        terminal.print_json(found.to_json())
        return
    _show("incident", [found])
    terminal.table(
        "alerts",
        ["alert", "feature", "holds", "since (UTC)", "what"],
        [
            [
                alert["labels"].get("alertname", "-"),
                alert["labels"].get("feature", "-"),
                "yes" if alert["firing"] else "no",
                datetime.fromisoformat(alert["started_at"]).strftime("%Y-%m-%d %H:%M"),
                alert["annotations"].get("description", alert["annotations"].get("summary", "")),
            ]
            for alert in found.alerts
        ],
        spare=["since (UTC)"],
    )
    terminal.table(
        "turns",
        ["at (UTC)", "what", "by", "why"],
        [
            [
                datetime.fromisoformat(turn["at"]).strftime("%Y-%m-%d %H:%M:%S"),
                turn["event"].removeprefix("incident_"),
                turn["by"] or "-",
                turn["note"] or "-",
            ]
            for turn in found.turns
        ],
    )


@app.command()
def close(
    incident_id: Identifier,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes on the ledger.")],
    by: Annotated[
        str | None, typer.Option("--by", help="Who closes it.", show_default="the user's name")
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Close an incident by hand; alerts that hold already do not open it again."""
    from batteryops.errors import RecordsError
    from batteryops.records.incidents import Incidents

    who, why = (by or getpass.getuser()).strip(), reason.strip()
    for name, text in (("--by", who), ("--reason", why)):
        if not (text and text.isprintable()):
            raise RecordsError(f"{name} is {text!r}, expected printable text")
    settings = settings_of(config, home)
    with Incidents(settings.predictions_url) as incidents:
        closed = incidents.close_one(incident_id, at=datetime.now(UTC), by=who, note=why)
        _tell(incidents, settings)
    if as_json:
        terminal.print_json(closed.to_json())
    else:
        _show("incident closed", [closed])


def _quiet(settings: "Settings") -> timedelta:
    return timedelta(minutes=settings.monitoring.alerts.quiet_minutes)


def _tell(incidents: "Incidents", settings: "Settings") -> None:
    """Have the ledger know what it does not know yet."""
    from batteryops.records.ledger import Ledger

    if incidents.untold():
        with Ledger(settings.ledger_url) as ledger:
            incidents.tell(ledger)


def _show(title: str, incidents: "Sequence[Incident]") -> None:
    terminal.table(
        title,
        ["id", "state", "severity", "cause", "opened (UTC)", "alerts", "reopened", "what"],
        [
            [
                incident.incident_id,
                terminal.styled(incident.state, _STATES[incident.state]),
                terminal.styled(incident.severity, _SEVERITIES[incident.severity]),
                ", ".join(incident.cause.values()),
                incident.opened_at.strftime("%Y-%m-%d %H:%M"),
                len(incident.alerts),
                incident.reopened,
                incident.summary,
            ]
            for incident in incidents
        ],
        spare=["reopened", "alerts"],
    )

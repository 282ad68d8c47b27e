"""Commands on API keys: create, list, revoke; each change goes on the ledger, secrets never."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batteryops.records.api_keys import KeyRecord

app = typer.Typer(help="API keys, without which the server answers nobody.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; a name is used once.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="predict, label or admin; may be repeated.")
    ],
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Requests a second.", show_default="the server's limit"),
    ] = None,
    expires_days: Annotated[
        int | None,
        typer.Option("--expires-days", min=1, max=36_500, help="Valid for.", show_default="ever"),
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a key and print its secret, which is shown this once and stored nowhere."""
    from batteryops.errors import RecordsError
    from batteryops.records.api_keys import ApiKeys
    from batteryops.records.ledger import KEY_CREATED, Ledger

    settings = settings_of(config, home)
    ends = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
    with Ledger(settings.ledger_url) as ledger, ApiKeys(settings.predictions_url) as keys:
        key, secret = keys.create(name, scope, rate, ends)
        try:
            ledger.append(KEY_CREATED, key.name, _on_record(key))
        except RecordsError:
            keys.revoke(key.key_id)  # no key without an entry
            raise
    if as_json:
        terminal.print_json({**key.to_json(), "secret": secret})
        return
    _show("key created", [key])
    terminal.say("keep it now: it cannot be shown again", label="the secret", style="bold")
    typer.echo(secret)


@app.command("list")
def list_(config: Config = None, home: Home = None, as_json: Json = False) -> None:
    """List every key that was ever made, with what it is worth now."""
    from batteryops.records.api_keys import ApiKeys

    with ApiKeys(settings_of(config, home).predictions_url) as keys:
        known = keys.list()
    if as_json:
        terminal.print_json([{**key.to_json(), "state": _state(key)} for key in known])
    else:
        _show("API keys", known)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The key's name, or its identifier.")],
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Take a key back: running servers refuse it within two seconds."""
    from batteryops.records.api_keys import ApiKeys
    from batteryops.records.ledger import KEY_REVOKED, Ledger

    settings = settings_of(config, home)
    # taken back first: that is urgent, whatever becomes of the ledger
    with ApiKeys(settings.predictions_url) as keys:
        key = keys.revoke(name)
    with Ledger(settings.ledger_url) as ledger:
        ledger.append(KEY_REVOKED, key.name, _on_record(key))
    if as_json:
        terminal.print_json(key.to_json())
    else:
        _show("key revoked", [key])


def _on_record(key: "KeyRecord") -> dict[str, object]:
    """What the ledger says of a key, whose name is the entry's subject."""
    told = key.to_json()
    return {
        "key_id": key.key_id,
        "scopes": list(key.scopes),
        "rate_per_s": key.rate_per_s,
        "expires_at": told["expires_at"],
    }


def _state(key: "KeyRecord") -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_valid(datetime.now(UTC)) else "expired"


def _show(title: str, keys: "Iterable[KeyRecord]") -> None:
    colours = {"valid": "green", "expired": "yellow", "revoked": "red"}
    terminal.table(
        title,
        ["name", "id", "scopes", "rate/s", "created", "expires", ""],
        [
            [
                key.name,
                key.key_id,
                ", ".join(key.scopes),
                "-" if key.rate_per_s is None else key.rate_per_s,
                key.created_at.strftime("%Y-%m-%d %H:%M"),
                "-" if key.expires_at is None else key.expires_at.strftime("%Y-%m-%d %H:%M"),
                terminal.styled(_state(key), colours[_state(key)]),
            ]
            for key in keys
        ],
        spare=["created"],
    )

"""Commands on retraining: online, which lets the champion learn from a batch of labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, settings_of

if TYPE_CHECKING:
    from batteryops.lifecycle.online_learning import LearnedOnline

app = typer.Typer(help="Bring the model up to date, by itself or by hand.", no_args_is_help=True)


@app.command()
def online(
    features_file: Annotated[
        Path | None,
        typer.Option(
            "--features",
            help="A labelled feature table to learn from.",
            show_default="the labels that came since the champion was made",
        ),
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Put it in service where it is accepted.")
    ] = False,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Let the champion learn from a batch, on a copy; registered where that is better.

    Exit 1 where the current model stays; it says why.
    """
    from batteryops.lifecycle.online_learning import online_learning_update

    settings = settings_of(config, home)
    with terminal.steps(quiet=as_json) as progress:
        learned = online_learning_update(settings, progress, table=features_file, promote=promote)
    if as_json:
        terminal.print_json(learned.to_json())
    else:
        _show(learned)
    if not learned.updated.accepted:
        raise typer.Exit(1)


def _show(learned: "LearnedOnline") -> None:
    updated, registered = learned.updated, learned.registered
    if updated.comparison is not None:
        current = updated.comparison.current
        rows = [["current model", current.new_ah, current.old_ah, ""]]
        rows += [
            [one.name, one.errors.new_ah, one.errors.old_ah, one.outcome]
            for one in updated.comparison.candidates
            if one.errors is not None
        ]
        terminal.table(
            "mean absolute error (Ah) on batteries set aside",
            ["model", "new batteries", "old batteries", "outcome"],
            rows,
        )
    if registered is None:
        terminal.say(
            f"version {updated.parent_version} stays: {updated.reason}", label="kept", style="cyan"
        )
        return
    number = registered.version.version
    terminal.say(
        f"version {number}, from version {updated.parent_version}: {updated.reason}",
        label="accepted",
        style="green",
    )
    if learned.promoted is None:
        terminal.say(f"`batteryops promote {number}` puts it in service")
    else:
        terminal.say(f"version {number} is @champion; running servers take it up")

"""The `batteryops` command: its subcommands, and what a failure looks like."""

import os
import sys
from typing import Annotated

import typer

from batteryops import __version__
from batteryops.cli import (
    answering,
    baseline,
    compression,
    controller,
    data,
    fleet,
    incidents,
    keys,
    labels,
    model,
    monitoring,
    packs,
    retraining,
    system,
    trials,
)
from batteryops.errors import BatteryOpsError

app = typer.Typer(
    name="batteryops",
    help="Keeps a battery State-of-Health model right for years.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data", rich_help_panel="Data")
app.command(rich_help_panel="Start here")(system.demo)
app.command(rich_help_panel="Start here")(system.doctor)
app.command(rich_help_panel="Model")(model.features)
app.command(rich_help_panel="Model")(model.train)
app.command(rich_help_panel="Model")(model.evaluate)
app.command(rich_help_panel="Model")(model.validate)
app.add_typer(packs.app, name="packs", rich_help_panel="Model")
app.command(rich_help_panel="Model")(compression.compress)
app.add_typer(baseline.app, name="baseline", rich_help_panel="Fleet")
app.add_typer(fleet.app, name="fleet", rich_help_panel="Fleet")
app.command(rich_help_panel="Registry")(model.versions)
app.command(rich_help_panel="Registry")(model.promote)
app.command(rich_help_panel="Registry")(trials.rollback)
app.command(rich_help_panel="Registry")(trials.ab)
app.command(rich_help_panel="Answers")(answering.predict)
app.command(rich_help_panel="Answers")(answering.serve)
app.command(rich_help_panel="Answers")(answering.refresh)
app.add_typer(keys.app, name="keys", rich_help_panel="Answers")
app.command(rich_help_panel="Watch")(monitoring.drift)
app.command(rich_help_panel="Watch")(monitoring.monitor)
app.add_typer(labels.app, name="labels", rich_help_panel="Watch")
app.command(rich_help_panel="Loop")(controller.controller)
retraining.app.command("check")(controller.check)
retraining.app.command("request")(controller.request)
retraining.app.command("list")(controller.list_)
app.add_typer(retraining.app, name="retrain", rich_help_panel="Loop")
app.command(rich_help_panel="Record")(system.audit)
app.add_typer(incidents.app, name="incidents", rich_help_panel="Record")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"batteryops {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line: exit 0 on success, 1 when something says no, 2 on wrong use."""
    # threads of XGBoost that wait must not keep a core busy: where others need the cores too, a fit
    # took up to 38 s instead of 1 s. Read when the library is loaded, which commands do later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # folds are fitted side by side; the linear algebra within each must not fight for the cores
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app()
    except BatteryOpsError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    except BrokenPipeError:
        # the reader of standard output went away, as `head` does
        sys.stderr.close()
        sys.exit(1)

"""Commands that answer: predict a file, serve over HTTP, have a server look for another model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, Model, settings_of
from batteryops.errors import SettingsError


def predict(
    file: Annotated[
        Path,
        typer.Argument(help="Features (.csv, .parquet, .json) or raw cycles (.mat, .parquet, …)."),
    ],
    model: Model = "champion",
    no_baseline: Annotated[
        bool, typer.Option("--no-baseline", help="Leave out what assets' own measurements tell.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the answers to this .csv or .parquet.")
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Estimate capacity and SoH for every row or discharge; each answer goes into the log."""
    from batteryops.features.files import check_writable, write_feature_table
    from batteryops.lifecycle.prediction import predict_file

    if out is not None:
        check_writable(out)  # before anything is answered and logged
    answers = predict_file(file, model, settings_of(config, home), baselines=not no_baseline)
    if out is not None:
        write_feature_table(answers.table, out)
    if as_json:
        terminal.print_json(answers.to_json())
        return
    shown = answers.table.head(20)
    terminal.table(
        f"{terminal.counted(answers.table.height, 'answer')} by version {answers.model_version}",
        shown.columns,
        shown.rows(),
        spare=["prediction_id", "outside_jointly"],
    )
    if answers.table.height > shown.height:
        terminal.say(f"… and {answers.table.height - shown.height} more; --out writes all of them")
    outside = (answers.table["status"] == "out_of_domain").sum()
    if outside:
        terminal.say(
            f"{outside} answers are out of domain: their features, named under `outside`, are "
            "unlike anything in training"
        )
    if answers.other_models:
        terminal.say(
            f"baselines of {', '.join(answers.other_models)} belong to other models and correct "
            "nothing here; `batteryops baseline fit` makes them for this one"
        )
    for reason, count in answers.left_out.items():
        terminal.say(f"{terminal.counted(count, 'cycle')} left out: {reason}")


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 0 takes a free one.")] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="champion follows the registry; a package folder or a version stays as it is.",
        ),
    ] = "champion",
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that answer.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Answer everybody, without API keys.")
    ] = False,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Serve predictions over HTTP until it is told to stop; every answer is on record."""
    from batteryops.lifecycle.answering import serve_model

    settings = settings_of(config, home)

    def ready(url: str) -> None:
        terminal.say(f"serving on {url}; documentation on {url}/docs; stop with Ctrl-C")

    serve_model(
        model,
        settings,
        host=host or settings.serving.host,
        port=settings.serving.port if port is None else port,
        workers=workers or settings.serving.workers,
        insecure=insecure,
        on_ready=None if as_json else ready,
    )


def refresh(
    url: Annotated[
        str | None,
        typer.Argument(help="Where the server is reached.", show_default="as the settings say"),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            help="Holds an API key of scope admin; - is standard input.",
            show_default="asks for it",
        ),
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Have a running server look at the registry now; the API key signs, and is not sent."""
    from batteryops.lifecycle.refreshing import refresh_server

    serving = settings_of(config, home).serving
    told = refresh_server(url or f"http://{serving.host}:{serving.port}", read_secret(key_file))
    if as_json:
        terminal.print_json(told)
        return
    terminal.table(
        f"in service, generation {told['generation']}",
        ["version", "role"],
        [[model["model_version"], model["role"]] for model in told["models"]],
    )
    if told["problem"] is not None:
        terminal.say(f"what the registry says is not in service: {told['problem']}")
    if not told["registry"]["reachable"]:
        terminal.say(f"the registry does not answer: {told['registry']['problem']}")


def read_secret(key_file: Path | None) -> str:
    """A key that is to sign; never an argument, which others on the machine could read."""
    if key_file is None:
        typed: str = typer.prompt("API key", hide_input=True, err=True)
        return typed.strip()
    if key_file == Path("-"):
        return sys.stdin.readline().strip()
    try:
        return key_file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"the key file {key_file} cannot be read: {error}") from error

"""Options that many commands share, and how they become Settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from batteryops.settings import Settings

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file.", show_default="config/production.yaml"),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of all state.", show_default="BATTERYOPS_HOME"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Source = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="nasa, chengdu, simulated, lake, or the path of a file or folder of cycles.",
        show_default="lake, else nasa",
    ),
]
Features = Annotated[
    Path | None,
    typer.Option("--features", help="A labelled feature table instead of cycles."),
]
View = Annotated[
    str | None,
    typer.Option(
        "--view",
        help="Feature view: discharge_summary, discharge_physics or partial_window.",
        show_default="training.view of the settings",
    ),
]
Algorithm = Annotated[
    str | None,
    typer.Option(
        "--algorithm",
        help="What is fitted: xgboost, battery_process, ridge, gaussian_process …; "
        "a name that there is not lists all.",
        show_default="what the configuration has for the view",
    ),
]
Model = Annotated[str, typer.Option("--model", help="Package folder, version, or alias.")]

Servers = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        help="A running server to ask, http://HOST:PORT; may be given often.",
        show_default="retraining.servers of the settings",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="Holds an API key of scopes predict and admin for the servers; - is standard input.",
        show_default="none, for servers without doors",
    ),
]


def settings_of(config: Path | None, home: Path | None) -> "Settings":
    """The settings in force for this command."""
    from batteryops.settings import load_settings

    return load_settings(config, home=home)

"""Commands on what an asset's own measurements say beside the model: fit, list, show."""

from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Features, Home, Json, Model, Source, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batteryops.lifecycle.baseline_store import KeptBaseline

app = typer.Typer(
    help="An asset's own measured capacities, which correct the model for it.",
    no_args_is_help=True,
)


@app.command()
def fit(
    source: Source = None,
    features: Features = None,
    asset: Annotated[
        list[str] | None,
        typer.Option("--asset", help="Only this asset; may be repeated.", show_default="all"),
    ] = None,
    first: Annotated[
        int | None,
        typer.Option(
            "--first", min=1, help="So many measurements of each life.", show_default="all"
        ),
    ] = None,
    model: Model = "champion",
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Pair measured capacities with what the model says of them, and keep a version by asset.

    `predict` then corrects the answers that follow these measurements.
    """
    from batteryops.lifecycle.asset_baselines import fit_baselines

    found = fit_baselines(
        settings_of(config, home),
        source=source,
        features_file=features,
        assets=asset or [],
        first=first,
        model=model,
    )
    if as_json:
        terminal.print_json(found.to_json())
        return
    _show(f"baselines fitted ({model})", [one.kept for one in found.fitted])
    if same := [one.kept.baseline.asset_id for one in found.fitted if not one.new]:
        terminal.say(f"{', '.join(same)}: as before, so no new version")
    if known := [one.kept.baseline.asset_id for one in found.fitted if one.trained_on]:
        terminal.note(
            f"{', '.join(known)}: trained the model, which therefore looks closer to the "
            "measurements than it will be"
        )
    for one in found.fitted:
        if one.out_of_domain:
            terminal.say(
                f"{one.kept.baseline.asset_id}: {terminal.counted(one.out_of_domain, 'cycle')} "
                "left out, unlike anything in training"
            )
    if found.without_label:
        terminal.say(f"{', '.join(found.without_label)}: no measured capacity, so no baseline")


@app.command("list")
def list_(
    asset: Annotated[str | None, typer.Option("--asset", help="Only this asset.")] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List every version of every baseline."""
    from batteryops.lifecycle.baseline_store import BaselineStore

    kept = BaselineStore(settings_of(config, home).baselines).every(asset)
    if as_json:
        terminal.print_json([one.summary for one in kept])
    elif kept:
        _show("baselines", kept)
    else:
        terminal.say("there is none yet; `batteryops baseline fit` makes one")


@app.command()
def show(
    asset: Annotated[str, typer.Argument(help="The asset.")],
    version: Annotated[
        str | None, typer.Option("--version", help="One of `baseline list`.", show_default="newest")
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show the measurements of one baseline beside what the model says of them."""
    from batteryops.lifecycle.baseline_store import BaselineStore

    kept = BaselineStore(settings_of(config, home).baselines).find(asset, version)
    if as_json:
        terminal.print_json(kept.to_json())
        return
    _show(f"baseline of {asset}", [kept])
    terminal.table(
        "its measurements",
        ["op_index", "measured Ah", "predicted Ah", "offset Ah"],
        [
            [at, round(measured, 4), round(predicted, 4), round(measured - predicted, 4)]
            for at, measured, predicted in kept.baseline.cycles()
        ],
    )


def _show(title: str, kept: "Iterable[KeptBaseline]") -> None:
    terminal.table(
        title,
        ["asset", "version", "model", "measurements", "mean offset Ah"],
        [
            [
                one.baseline.asset_id,
                one.version,
                one.baseline.model[:12],
                len(one.baseline.op_index),
                round(one.baseline.mean_offset_ah, 4),
            ]
            for one in kept
        ],
    )

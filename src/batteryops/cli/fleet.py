"""Commands on a fleet: diagnose a lab model on trips, and the scorecard of its vehicles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, Source, settings_of

if TYPE_CHECKING:
    from batteryops.lifecycle.fleet_findings import Diagnosis
    from batteryops.lifecycle.scorecard import Scorecard

app = typer.Typer(
    help="What is known of a fleet's batteries, and what to do about each.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Out = Annotated[
    Path | None, typer.Option("--out", help="Also write a page with plots to this .html file.")
]

COLOURS = {"priority": "bold red", "monitor": "yellow", "healthy": "green"}


@app.command()
def diagnose(
    source: Annotated[
        str, typer.Option("--source", help="A trip table: chengdu, lake, or a path.")
    ] = "chengdu",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Package folder, version or alias of view discharge_summary.",
            show_default="fitted here on the NASA cells",
        ),
    ] = None,
    out: Out = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Apply a model of laboratory cells to trips, and say why it must not be believed."""
    from batteryops.lifecycle.fleet_diagnosis import diagnose as examine
    from batteryops.lifecycle.fleet_page import render_diagnosis

    _check_page(out)
    settings = settings_of(config, home)
    with terminal.steps(quiet=as_json) as progress:
        found = examine(settings, progress, source=source, model=model)
    if out is not None:
        _write(out, render_diagnosis(found))
    if as_json:
        terminal.print_json(found.to_json() | {"page": out})
    else:
        show_diagnosis(found, out)


@app.command()
def scorecard(
    source: Source = None,
    months: Annotated[
        Path | None,
        typer.Option(
            "--months",
            help="Published monthly means that tell the month of each trip.",
            show_default="chengdu_monthly_features.csv beside the trips",
        ),
    ] = None,
    out: Out = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Health, trend, temperature signal, data quality and action per vehicle, with the reasons.

    Besides the other sources it takes eu500, or a table of monthly capacities.
    """
    from batteryops.lifecycle.fleet_lives import read_life
    from batteryops.lifecycle.fleet_page import render_scorecard
    from batteryops.lifecycle.scorecard import score_fleet
    from batteryops.lifecycle.sources import default_source

    _check_page(out)
    settings = settings_of(config, home)
    life = read_life(source or default_source(settings), settings, months=months)
    card = score_fleet(life, settings)
    if out is not None:
        _write(out, render_scorecard(card))
    if as_json:
        terminal.print_json(card.to_json() | {"page": out})
    else:
        show_scorecard(card, out)


def show_diagnosis(found: "Diagnosis", out: Path | None) -> None:
    """Print every mapping, what drives the prediction, what the domain says, and why."""
    from batteryops.lifecycle.fleet_findings import PUBLISHED
    from batteryops.lifecycle.fleet_page import MAPPING_COLUMNS, mapping_rows

    terminal.table(
        "predicted SoH against temperature rise, Pearson / Spearman",
        MAPPING_COLUMNS,
        mapping_rows(found),
    )
    terminal.table(
        "what the prediction follows, applied as published",
        [
            "feature",
            "trips in training range",
            "Spearman with prediction",
            "with rise",
            "Pearson when frozen",
            "Spearman when frozen",
        ],
        [
            [
                driver.feature,
                f"{driver.inside:.1%}",
                driver.with_prediction,
                driver.with_rise,
                driver.frozen.pearson,
                driver.frozen.spearman,
            ]
            for driver in found.drivers
        ],
    )
    terminal.table(
        "what the domain check says",
        ["mapping", "trips", "inside", "unlike jointly", "outside by feature"],
        [
            [
                str(verdict.mapping),
                verdict.n,
                terminal.styled(str(verdict.inside), "red" if verdict.inside == 0 else "yellow"),
                verdict.joint,
                ", ".join(f"{name} {count}" for name, count in verdict.features.items()),
            ]
            for verdict in found.domain
        ],
    )
    for each in found.repeated:
        terminal.say(
            f"Pearson {each.found.pearson:+.3f}, Spearman {each.found.spearman:+.3f} on {each.lab} "
            f"(published {PUBLISHED.pearson:+.2f}, {PUBLISHED.spearman:+.2f})",
            label="as published",
            style="red" if each.found.pearson > 0 else "green",
        )
    for lab, seeds in found.seeds.items():
        terminal.say(
            f"{len(seeds)} seeds on {lab}: Pearson {min(s.pearson for s in seeds):+.2f} to "
            f"{max(s.pearson for s in seeds):+.2f}, Spearman "
            f"{min(s.spearman for s in seeds):+.2f} to {max(s.spearman for s in seeds):+.2f}",
            label="spread",
            style="dim",
        )
    terminal.say(
        f"{found.wrong_signs} of {len(found.mappings)} mappings give the wrong sign",
        label="sign",
        style="red" if found.wrong_signs else "green",
    )
    close = found.closest
    terminal.say(
        f"{close.mapping}, {close.lab}: {close.found.pearson:+.3f}, {close.found.spearman:+.3f}",
        label="closest",
        style="dim",
    )
    for reason in found.reasons:
        terminal.say(reason, label="why", style="yellow")
    _say_page(out)


def show_scorecard(card: "Scorecard", out: Path | None) -> None:
    """Print one row per vehicle, the most urgent first."""
    from batteryops.lifecycle.fleet_page import VEHICLE_COLUMNS, vehicle_row

    rows: list[list[object]] = []
    for vehicle in card.vehicles:
        asset, action, *numbers = vehicle_row(vehicle, card.unit)
        rows.append([asset, terminal.styled(action, COLOURS[action]), *numbers])
    terminal.table(
        f"fleet scorecard of {card.source}",
        VEHICLE_COLUMNS,
        rows,
        spare=["unusable", "warming", "limit in"],
    )
    for note in card.notes:
        terminal.say(note, label="note", style="dim")
    terminal.say(
        ", ".join(f"{count} {action}" for action, count in card.counts.items()),
        label=f"{len(card.vehicles)} vehicles",
        style="bold",
    )
    _say_page(out)


def _say_page(out: Path | None) -> None:
    if out is not None:
        terminal.say(str(out), label="page", style="green")


def _check_page(out: Path | None) -> None:
    """Raise before the work that makes a page where it could not be written."""
    from batteryops.errors import DataError

    if out is not None and out.suffix != ".html":
        raise DataError(f"{out}: a page is written to a file that ends in .html")


def _write(out: Path, page: str) -> None:
    from batteryops.files import replacing

    with replacing(out) as beside:
        beside.write_text(page, encoding="utf-8")

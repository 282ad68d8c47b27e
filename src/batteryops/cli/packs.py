"""Commands on packs of many cells: how well their SoH is met from one short charging segment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batteryops.lifecycle.packs import Errors, PackEvaluation

app = typer.Typer(
    help="Packs: SoH in points from one short charging segment.", no_args_is_help=True
)


@app.callback()
def _packs() -> None:
    """Packs: SoH in points from one short charging segment."""


@app.command()
def evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(help="vehicles.csv and <vehicle>.parquet; each pack is left out in turn."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="Train on the packs of this folder …")
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="… and estimate those of this one.")
    ] = None,
    rated: Annotated[
        list[str] | None,
        typer.Option("--rated", help="Another rating, as vehicle_05=174 (Ah); may be repeated."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Leave a pack out; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate packs never seen from 0.1 V of one charge, and measure how far off that is."""
    from batteryops.lifecycle.packs import evaluate_packs, evaluate_transfer

    ratings = dict(_rating(text) for text in rated or [])
    if folder is not None and train is None and test is None:
        evaluation = evaluate_packs(folder, rated_ah=ratings, without=without or [])
    elif folder is None and train is not None and test is not None:
        evaluation = evaluate_transfer(train, test, rated_ah=ratings, without=without or [])
    else:
        raise typer.BadParameter("give either one FOLDER, or both --train and --test")
    if as_json:
        terminal.print_json(evaluation.to_json())
    else:
        show(evaluation)


def _rating(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no rating; expected a pack and Ah, such as vehicle_05=174"
        ) from None


def show(evaluation: "PackEvaluation") -> None:
    """The result for a person: packs, estimators beside baselines, and every segment."""
    terminal.table(
        f"SoH in points, one segment of 0.1 V ({evaluation.protocol})",
        ["pack", "segment from V", "estimated", "low", "high", "measured", "error"],
        [
            [
                one.asset_id,
                *(
                    "-" if value is None else round(value, 2)
                    for value in (
                        one.start_v,
                        one.soh_points,
                        one.low_points,
                        one.high_points,
                        one.measured_points,
                        one.error_points,
                    )
                ),
            ]
            for one in evaluation.answers
        ],
    )
    columns = ["", "MAE", "RMSE", "bias", "largest", "packs"]
    terminal.table(
        "errors in points",
        columns,
        _rows(
            [
                ("one segment", evaluation.errors),
                ("charge of the segment alone", evaluation.ratio),
                ("mean of the training packs", evaluation.baseline),
            ]
        ),
    )
    terminal.table(
        "each candidate segment on its own, errors in points",
        ["from V", *columns[1:]],
        _rows(evaluation.by_start.items()),
    )
    terminal.say(
        f"intervals hold {evaluation.coverage:.0%} of the packs; made for "
        f"{evaluation.nominal_coverage:.0%}"
    )
    for note in evaluation.notes:
        terminal.note(note)


def _rows(named: "Iterable[tuple[str, Errors]]") -> list[list[object]]:
    return [
        [
            name,
            round(one.mae_points, 2),
            round(one.rmse_points, 2),
            round(one.bias_points, 2),
            round(one.largest_points, 2),
            one.n_packs,
        ]
        for name, one in named
    ]

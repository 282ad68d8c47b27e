"""Commands on labels: list those on record, add those of a file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, settings_of

app = typer.Typer(
    help="Measured capacities, which come long after the answers.", no_args_is_help=True
)


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="A .csv or .parquet file: asset_id, measured_at with its time zone, capacity_ah, "
            "perhaps source."
        ),
    ],
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Put the labels of a file on record, all or none; those on record already change nothing."""
    from batteryops.lifecycle.label_files import add_labels

    outcomes = add_labels(file, settings_of(config, home))
    if as_json:
        terminal.print_json({"labels": outcomes})
        return
    told = [
        f"{outcomes['new']} new",
        f"{terminal.counted(outcomes['correction'], 'correction')} of what was on record",
        f"{outcomes['known']} known already",
    ]
    terminal.say(", ".join(told), label="labels", style="green")


@app.command("list")
def list_(
    asset: Annotated[str | None, typer.Option("--asset", help="Just of this asset.")] = None,
    days: Annotated[
        float, typer.Option("--days", min=0.0, max=36_500, help="That arrived since so many days.")
    ] = 365.0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest.")] = 50,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """List labels as they arrived, newest last; of those that were corrected the last one."""
    import polars as pl

    from batteryops.records.labels import Labels

    with Labels(settings_of(config, home).predictions_url) as labels:
        found = labels.frame(datetime.now(UTC) - timedelta(days=days))
    if asset is not None:
        found = found.filter(pl.col("asset_id") == asset)
    shown = found.tail(limit)
    if as_json:
        terminal.print_json(
            [
                row | {name: row[name].isoformat() for name in ("measured_at", "received_at")}
                for row in shown.iter_rows(named=True)
            ]
        )
        return
    terminal.table(
        f"{terminal.counted(found.height, 'label')}",
        ["asset", "measured (UTC)", "capacity (Ah)", "source", "received (UTC)", "by key"],
        [
            [
                row["asset_id"],
                row["measured_at"].strftime("%Y-%m-%d %H:%M"),
                row["capacity_ah"],
                row["source"],
                row["received_at"].strftime("%Y-%m-%d %H:%M"),
                row["key_name"] or "-",
            ]
            for row in shown.iter_rows(named=True)
        ],
        spare=["by key", "received (UTC)"],
    )
    if found.height > shown.height:
        terminal.say(f"… and {found.height - shown.height} before; --limit shows more")

"""Commands on data: fetch, simulate, ingest, check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batteryops.cli import terminal
from batteryops.cli.options import Config, Home, Json, Source, settings_of

if TYPE_CHECKING:
    from batteryops.quality.report import QualityReport

app = typer.Typer(
    help="Fetch, simulate, take in and check battery cycles.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="What to fetch: nasa.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to unpack into.")],
    url: Annotated[
        str | None, typer.Option("--url", help="Another address of the same archive.")
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            "--sha256",
            help="Refuse an archive with another checksum.",
            show_default="that of NASA's archive, unless --url is given",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download NASA's published battery archive: with progress, resumed where it broke off."""
    from batteryops.errors import DataError
    from batteryops.telemetry.fetch import NASA_ARCHIVE_SHA256, NASA_ARCHIVE_URL, unpack
    from batteryops.telemetry.fetch import fetch as download

    if name != "nasa":
        raise DataError(f"nothing is known of {name!r}; what can be fetched is: nasa")
    archive = out / "nasa_battery_data_set.zip"
    with terminal.bar("download", quiet=as_json) as progress:
        checksum = download(
            url or NASA_ARCHIVE_URL,
            archive,
            sha256=sha256 or (None if url else NASA_ARCHIVE_SHA256),
            progress=progress,
        )
    files = unpack(archive, out)
    if as_json:
        terminal.print_json({"archive": archive, "sha256": checksum, "files": files})
    else:
        terminal.say(f"{len(files)} files in {out}; archive sha256 {checksum}")


@app.command()
def simulate(
    vehicles: Annotated[int, typer.Option("--vehicles", help="How many vehicles.")] = 40,
    cycles: Annotated[int, typer.Option("--cycles", help="Discharges of each vehicle.")] = 120,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same fleet.")] = 42,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write to this file (.parquet, .csv) instead of the lake."),
    ] = None,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a fleet of ageing cells from an equivalent-circuit model."""
    from dataclasses import replace

    from batteryops.lifecycle.preparation import ingest_recording
    from batteryops.telemetry.canonical import write_canonical
    from batteryops.telemetry.fleet_plan import FleetPlan
    from batteryops.telemetry.simulator import simulate_fleet

    settings = settings_of(config, home)
    fleet = simulate_fleet(FleetPlan(n_vehicles=vehicles, n_cycles=cycles, seed=seed))
    recording = replace(fleet, source=f"simulated, seed {seed}")
    if out is None:
        ingest_recording(recording, settings)
    else:
        write_canonical(recording, out)
    summary = {
        "assets": len(recording.asset_ids),
        "cycles": recording.cycles.height,
        "samples": recording.samples.height,
        "written_to": out or settings.lake,
    }
    if as_json:
        terminal.print_json(summary)
    else:
        terminal.table("simulated fleet", list(summary), [list(summary.values())])


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="nasa, chengdu, simulated, or a path.")],
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Check cycles and take them into the lake; the ledger keeps a line."""
    from batteryops.lifecycle.preparation import ingest as take_in

    taken = take_in(source, settings_of(config, home))
    if as_json:
        terminal.print_json(
            {
                "source": taken.recording.source,
                "assets": taken.recording.asset_ids,
                "cycles": taken.recording.cycles.height,
                "samples": taken.recording.samples.height,
                "quality": taken.report.to_json(),
                "ledger": taken.entry.sequence,
            }
        )
    else:
        show_quality(taken.report, taken.recording.source)
        terminal.say(
            f"{len(taken.recording.asset_ids)} assets, {taken.recording.cycles.height} cycles, "
            f"{taken.recording.samples.height} samples are in the lake"
        )


@app.command()
def check(
    source: Source = None,
    list_rows: Annotated[
        bool, typer.Option("--list", help="List each quarantined cycle with its reason.")
    ] = False,
    asset: Annotated[
        str | None, typer.Option("--asset", help="List just this asset's cycles.")
    ] = None,
    taken_in: Annotated[
        bool,
        typer.Option("--taken-in", help="List what was set aside when data was taken in."),
    ] = False,
    config: Config = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """May this data be used? Exit 1 when a limit for the whole data set is broken."""
    from batteryops.lifecycle.preparation import check_source
    from batteryops.quality.quarantine import QuarantineStore

    settings = settings_of(config, home)
    if taken_in:
        rows = QuarantineStore(settings.quarantine).list(asset=asset)
        if as_json:
            terminal.print_json({"rows": rows.to_dicts()})
        else:
            terminal.table("set aside when taken in", rows.columns, rows.rows())
        return
    report, name = check_source(source, settings)
    rows = report.quarantine
    if asset is not None:
        rows = rows.filter(rows["asset_id"] == asset)
    if as_json:
        terminal.print_json(
            report.to_json() | ({"rows": rows.to_dicts()} if list_rows or asset else {})
        )
    else:
        show_quality(report, name)
        if rows.height and (list_rows or asset):
            terminal.table("quarantined cycles", rows.columns, rows.rows())
        elif asset:
            terminal.say(f"no cycle of {asset} is set aside")
    if not report.accepted:
        raise typer.Exit(1)


STATUS_COLOUR = {"warn": "yellow", "quarantine": "magenta"}


def show_quality(report: "QualityReport", source: str) -> None:
    """Print what the checks found as a table; those that found nothing are counted."""
    found = [check for check in report.checks if check.status != "pass"]
    terminal.table(
        f"quality of {source}",
        ["check", "column", "status", "cycles", "what it says"],
        [
            [
                check.name,
                check.column or "",
                terminal.styled("limit broken", "red")
                if check.exceeded
                else terminal.styled(check.status, STATUS_COLOUR[check.status]),
                check.rows,
                check.message,
            ]
            for check in found
        ],
    )
    terminal.say(
        f"{len(report.checks) - len(found)} of {len(report.checks)} checks found nothing; "
        f"{report.quarantined_rows} of {report.n_rows} cycles are set aside",
        label="accepted" if report.accepted else "refused",
        style="green" if report.accepted else "red",
    )

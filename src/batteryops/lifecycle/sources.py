"""Where cycles come from: a name (`nasa`, `chengdu`, `simulated`, `lake`) or a path."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from batteryops.errors import DataError
from batteryops.schema import Kind, Recording
from batteryops.settings import Settings
from batteryops.telemetry import Lake, read
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.simulator import simulate_fleet

PUBLISHED: Final = {
    "nasa": Path("nasa"),
    "chengdu": Path("source_system") / "chengdu_trip_features.parquet",
}
"""Named sources, and where they stand under `Settings.data`."""


def default_source(settings: Settings) -> str:
    """What to train on when nothing is named: the lake, else the NASA cells.

    Raises:
        DataError: when there is neither.
    """
    if Lake(settings.lake).asset_ids():
        return "lake"
    if settings.data is not None and (settings.data / PUBLISHED["nasa"]).is_dir():
        return "nasa"
    raise DataError(
        f"there is no data yet: the lake {settings.lake} is empty and BATTERYOPS_DATA is "
        f"{str(settings.data) if settings.data else 'not set'}; "
        "run `batteryops data ingest PATH` or `batteryops data simulate`"
    )


def open_source(
    source: str, settings: Settings, *, kinds: Collection[Kind] | None = None
) -> Recording:
    """Read a recording by name or path.

    Args:
        source: `nasa` or `chengdu` (under `Settings.data`), `simulated` (the default fleet),
            `lake`, or the path of any file or folder that `telemetry.read` knows.
        settings: says where data and the lake are.
        kinds: read just these kinds of cycles; all when None.

    Raises:
        DataError: when the source does not exist, cannot be read, or holds no cycles.
    """
    if source == "lake":
        recording = Lake(settings.lake).read(kinds=kinds)
    elif source == "simulated":
        recording = simulate_fleet(FleetPlan(seed=settings.training.seed))
    elif source in PUBLISHED:
        if settings.data is None:
            raise DataError(
                f"source {source!r} stands under BATTERYOPS_DATA, which is not set; "
                "set it to the folder of real measurements, or take the source simulated"
            )
        recording = read(settings.data / PUBLISHED[source], kinds=kinds)
    else:
        path = Path(source)
        if not path.exists():
            raise DataError(
                f"source {source!r} does not exist; expected a file, a folder, or one of "
                f"{', '.join([*PUBLISHED, 'simulated', 'lake'])}"
            )
        recording = read(path, kinds=kinds)
    if recording.cycles.is_empty():
        raise DataError(f"{source}: no cycles of the kinds asked for")
    return replace(recording, source=source)


def source_note(source: str) -> str:
    """One sentence on where data comes from, for a page.

    Args:
        source: what `open_source` was given.
    """
    if source == "simulated":
        return "A simulated fleet: errors on it say nothing about real batteries."
    if source == "nasa":
        return (
            "NASA PCoE 18650 cells, aged in the laboratory (B. Saha and K. Goebel, Battery Data "
            "Set, NASA Prognostics Data Repository, NASA Ames Research Center, 2007)."
        )
    return f"Read from {source}."

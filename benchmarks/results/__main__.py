"""Regenerate docs/RESULTS.md and README's table: `make results`.

Every number in them comes from here, with the command, the data fingerprint and the versions.
"""

import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.results import accuracy, further, goals
from benchmarks.results.markdown import section

from batteryops.cli.terminal import say, steps
from batteryops.lifecycle.packs import evaluate_packs
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.sources import source_note
from batteryops.settings import Settings, load_settings

ROOT: Final = Path(__file__).resolve().parents[2]
REMARKS: Final = Path(__file__).with_name("remarks.md")
BEGIN: Final = "<!-- results: made by `make results` -->"
END: Final = "<!-- end of results -->"

SOURCE: Final = "nasa"
PACKS: Final = Path("fleet") / "deng2024_inservice"
TRIPS: Final = Path("source_system") / "chengdu_trip_features.parquet"


def main() -> None:
    """Measure everything and write the pages."""
    settings = load_settings()
    if settings.data is None or not (settings.data / "nasa").is_dir():
        sys.exit(
            "make results needs the real measurements: set BATTERYOPS_DATA to the folder that "
            "holds nasa/"
        )
    started = time.perf_counter()
    with steps() as progress:
        found = accuracy.measure_all(SOURCE, settings, progress)
        body = sections(found, settings, settings.data, progress)
    seconds = time.perf_counter() - started
    page = ROOT / "docs" / "RESULTS.md"
    page.write_text("\n".join([*head(found, settings), *body]) + "\n", "utf-8")
    readme = ROOT / "README.md"
    table = accuracy.readme_table(found)
    readme.write_text(with_table(readme.read_text("utf-8"), table), "utf-8")
    say(
        f"wrote {page.relative_to(ROOT)} and the table in {readme.relative_to(ROOT)} "
        f"in {seconds / 60:.1f} minutes"
    )


def sections(
    found: accuracy.Accuracy, settings: Settings, data: Path, progress: Progress
) -> list[str]:
    """Everything below the head, in the order of the page.

    Args:
        found: accuracy on the cells.
        settings: as configured.
        data: folder of real measurements; what it lacks is said, not measured.
        progress: told what is being done.
    """
    results = found.results[goals.LEAK_FREE][goals.MODEL]["unseen_assets"]
    labelled: dict[goals.Group, goals.Labelled] = {
        assets: goals.with_labels(
            found.prepared[goals.LEAK_FREE], results, assets, settings, progress
        )
        for assets in (goals.ALONE, goals.TOGETHER)
    }
    packs = None
    if (data / PACKS).is_dir():
        progress.step("packs in service, each left out in turn")
        packs = evaluate_packs(data / PACKS)
    summary = found.prepared["discharge_summary"]
    lines = accuracy.main_table(found)
    lines += goals.goals_section(found, labelled, packs)
    lines += remarks()
    lines += further.intervals_section(found, settings)
    lines += further.leakage_section(further.measure_leakage(found.prepared, settings, progress))
    lines += further.tournament_section(
        further.measure_tournament(found.prepared, settings, progress), settings
    )
    lines += further.packs_section(packs) if packs else absent("Packs in service", PACKS)
    if (data / TRIPS).is_file():
        lines += further.fleet_section(further.measure_fleet(settings, progress))
    else:
        lines += absent("Lab to fleet", TRIPS)
    lines += further.compression_section(further.measure_compression(found, settings, progress))
    lines += accuracy.per_cell(found)
    lines += accuracy.as_published(SOURCE, settings, progress)
    return lines + accuracy.by_seed(summary, settings, progress)


def head(found: accuracy.Accuracy, settings: Settings) -> list[str]:
    """What the page is made from."""
    first = next(iter(found.prepared.values()))
    parameters = ", ".join(f"{key} {value}" for key, value in settings.training.parameters.items())
    rules = settings.evaluation
    return [
        "# Results",
        "",
        "Made by `make results`; not edited by hand.",
        "",
        (
            f"- data: {source_note(first.source)} {first.table['asset_id'].n_unique()} cells, "
            f"{first.table.height} discharges train, {first.set_aside.height} set aside by the "
            "quality checks"
        ),
        (
            f"- `xgboost`: XGBoost {version('xgboost-cpu')}, {parameters}, seed "
            f"{settings.training.seed}"
        ),
        (
            f"- made {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()}, Polars "
            f"{version('polars')}, scikit-learn {version('scikit-learn')}"
        ),
        (
            f"- intervals of metrics: {rules.confidence:.0%}, bootstrap over whole cells, "
            f"{rules.bootstrap_resamples} resamples"
        ),
    ]


def remarks() -> list[str]:
    """What was tried and what limits it: written by people, kept beside this module."""
    return ["", *REMARKS.read_text("utf-8").rstrip().splitlines()]


def absent(title: str, path: Path) -> list[str]:
    """A section for which the data folder has nothing."""
    return section(title, f"Not measured: the data folder has no {path.as_posix()}.")


def with_table(readme: str, table: str) -> str:
    """README with the table between its two marks replaced."""
    before, mark, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        sys.exit(f"README.md lacks the marks {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    main()

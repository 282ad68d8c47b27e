"""Regenerate docs/RESULTS.md and README's table: `make results`.

Every number in them comes from here, with the command, the data fingerprint and the versions.
"""

import math
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console

from batteryops.cli.terminal import steps
from batteryops.evaluation.metrics import Metrics
from batteryops.evaluation.protocol_run import ProtocolResult
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.features.views import VIEWS
from batteryops.lifecycle.evaluation import evaluate_protocols
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.sources import open_source, source_note
from batteryops.schema import Kind
from batteryops.settings import Settings, load_settings

DISCHARGES: Final[tuple[Kind, ...]] = ("discharge",)
ROOT: Final = Path(__file__).resolve().parents[1]
BEGIN: Final = "<!-- results: made by `make results` -->"
END: Final = "<!-- end of results -->"

QUESTIONS: Final = {
    "random": "other cycles of the same batteries (70/30, seed 42), as published work reports",
    "later_cycles": "the future of batteries whose past was seen (first 60 % of each trains)",
    "unseen_assets": "batteries that were not in training",
    "unseen_schedules": "the same, and no companion on the same test schedule in training either",
}


def main() -> None:
    """Evaluate both views under every protocol and write the pages."""
    settings = load_settings()
    if settings.data is None or not (settings.data / "nasa").is_dir():
        sys.exit(
            "make results needs the real measurements: set BATTERYOPS_DATA to the folder that "
            "holds nasa/"
        )
    console = Console(stderr=True)
    recording = open_source("nasa", settings, kinds=DISCHARGES)
    prepared: dict[str, Prepared] = {}
    results: dict[str, Mapping[str, ProtocolResult]] = {}
    for name, view in VIEWS.items():
        prepared[name] = prepare(recording, view, settings)
        console.print(name)
        with steps() as progress:
            results[name] = evaluate_protocols(
                prepared[name].table, view, PROTOCOLS, settings, progress
            )
    page = ROOT / "docs" / "RESULTS.md"
    page.write_text(render(prepared, results, settings), "utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text("utf-8"), summary(results)), "utf-8")
    console.print(f"wrote {page.relative_to(ROOT)} and the table in {readme.relative_to(ROOT)}")


def render(
    prepared: Mapping[str, Prepared],
    results: Mapping[str, Mapping[str, ProtocolResult]],
    settings: Settings,
) -> str:
    """The page."""
    first = next(iter(prepared.values()))
    parameters = ", ".join(f"{key} {value}" for key, value in settings.training.parameters.items())
    lines = [
        "# Results",
        "",
        "Made by `make results`; not edited by hand.",
        "",
        (
            f"- data: {source_note(first.source)} {first.table['asset_id'].n_unique()} cells, "
            f"{first.table.height} discharges train, {first.set_aside.height} set aside by the "
            "quality checks"
        ),
        f"- model: XGBoost {version('xgboost-cpu')}, {parameters}, seed {settings.training.seed}",
        (
            f"- made {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()}, "
            f"Polars {version('polars')}, scikit-learn {version('scikit-learn')}"
        ),
        (
            f"- intervals: {settings.evaluation.confidence:.0%}, bootstrap over whole cells, "
            f"{settings.evaluation.bootstrap_resamples} resamples"
        ),
        "",
        "Each protocol asks another question:",
        "",
        *(f"- `{name}`: {text}" for name, text in QUESTIONS.items()),
        "",
        (
            "All features of both views are computed from whole discharges, and so is the label "
            "(capacity is the current's integral): these numbers say how well a model retraces "
            "that sum, not how well it does where a fleet drives. `docs/FEATURES.md` says for each "
            "feature how it holds the label."
        ),
    ]
    for name, protocols in results.items():
        view = VIEWS[name]
        lines += [
            "",
            f"## {name} v{view.version}",
            "",
            (
                f"{len(view.names)} features, schema `{view.schema_hash[:16]}`, data fingerprint "
                f"`{prepared[name].fingerprint[:16]}`."
            ),
            f"Command: `batteryops evaluate --source nasa --view {name}`.",
            "",
            (
                "| protocol | by | MAE (Ah) | interval | MAE (SoH points) | RMSE (Ah) | R² "
                "| MAPE (%) | worst cell (MAE, Ah) | train | test |"
            ),
            "|---|---|---:|---|---:|---:|---:|---:|---|---:|---:|",
        ]
        for protocol, result in protocols.items():
            found = result.intervals["mae_ah"]
            lines.append(
                row(f"`{protocol}`", "**model**", result.metrics)
                .replace("@interval", f"{number(found.low)} to {number(found.high)}")
                .replace("@train", str(result.n_train))
                .replace("@test", str(result.n_test))
            )
            lines += [
                row("", baseline.replace("_", " "), metrics)
                .replace("@interval", "")
                .replace("@train", "")
                .replace("@test", str(metrics.n))
                for baseline, metrics in result.baselines.items()
            ]
    lines += ["", "## Per cell, unseen_assets", ""]
    names = list(results)
    lines.append(
        "| cell | discharges | " + " | ".join(f"{name}, MAE (Ah)" for name in names) + " |"
    )
    lines.append("|---|---:|" + "---:|" * len(names))
    tables = [results[name]["unseen_assets"].per_asset for name in names]
    for asset, count in tables[0].select("asset_id", "n").iter_rows():
        values = [
            number(table.filter(table["asset_id"] == asset)["mae_ah"].item()) for table in tables
        ]
        lines.append(f"| {asset} | {count} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def row(protocol: str, by: str, found: Metrics) -> str:
    """One line of a table, with places for what only the model has."""
    return (
        f"| {protocol} | {by} | {number(found.mae_ah)} | @interval "
        f"| {number(found.mae_soh_points)} | {number(found.rmse_ah)} | {number(found.r2)} "
        f"| {number(found.mape_pct)} | {found.worst_asset} ({number(found.worst_asset_mae_ah)}) "
        "| @train | @test |"
    )


def summary(results: Mapping[str, Mapping[str, ProtocolResult]]) -> str:
    """README's table: both views beside the strongest baseline."""
    lines = [
        "| on | `discharge_summary` MAE, R² | `discharge_physics` MAE, R² | ridge MAE, R² |",
        "|---|---:|---:|---:|",
    ]
    for protocol, text in QUESTIONS.items():
        ours = [results[name][protocol].metrics for name in VIEWS]
        ridge = results["discharge_summary"][protocol].baselines["ridge"]
        cells = " | ".join(f"{number(found.mae_ah)} Ah, {found.r2:.3f}" for found in (*ours, ridge))
        lines.append(f"| {text} (`{protocol}`) | {cells} |")
    return "\n".join(lines)


def with_table(readme: str, table: str) -> str:
    """README with the table between its two marks replaced."""
    before, mark, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        sys.exit(f"README.md lacks the marks {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def number(value: float) -> str:
    """Three figures that mean something."""
    return f"{value:.3g}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    main()

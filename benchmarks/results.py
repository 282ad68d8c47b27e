"""Regenerate docs/RESULTS.md and README's table: `make results`.

Every number in them comes from here, with the command, the data fingerprint and the versions.
"""

import math
import platform
import statistics
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
from batteryops.features.views import VIEWS, complete_rows, feature_table
from batteryops.lifecycle.evaluation import evaluate_protocols, evaluate_table
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.sources import open_source, source_note
from batteryops.schema import Kind
from batteryops.settings import Settings, load_settings

DISCHARGES: Final[tuple[Kind, ...]] = ("discharge",)
ROOT: Final = Path(__file__).resolve().parents[1]
BEGIN: Final = "<!-- results: made by `make results` -->"
END: Final = "<!-- end of results -->"

SEEDS: Final = range(20)
R2_GATE: Final = 0.98
"""The source system's gate under `random`."""

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
    lines += per_cell(results)
    lines += as_published(settings)
    lines += by_seed(first, settings)
    return "\n".join(lines) + "\n"


def per_cell(results: Mapping[str, Mapping[str, ProtocolResult]]) -> list[str]:
    """Every cell under `unseen_assets`."""
    names = list(results)
    lines = ["", "## Per cell, `unseen_assets`", ""]
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
    return lines


def as_published(settings: Settings) -> list[str]:
    """The published table's rows, none set aside, as the source system trained on them."""
    view = VIEWS["discharge_summary"]
    recording = open_source("nasa", settings, kinds=DISCHARGES)
    table, _ = complete_rows(feature_table(view, recording), view)
    with steps() as progress:
        results = evaluate_protocols(table, view, PROTOCOLS, settings, progress)
    lines = [
        "",
        f"## discharge_summary v1, all {table.height} rows",
        "",
        (
            "Nothing set aside, as the published table has it: with runs that crashed, and labels "
            "of zero. The quality checks look at the label, so what they set aside makes the task "
            "easier; this is what it is without them."
        ),
        (
            "Command: `batteryops features --source nasa --out all.parquet`, then "
            "`batteryops evaluate --features all.parquet`."
        ),
        "",
        "| protocol | MAE (Ah) | interval | R² | ridge MAE (Ah) |",
        "|---|---:|---|---:|---:|",
    ]
    for protocol, result in results.items():
        found = result.intervals["mae_ah"]
        lines.append(
            f"| `{protocol}` | {number(result.metrics.mae_ah)} "
            f"| {number(found.low)} to {number(found.high)} | {number(result.metrics.r2)} "
            f"| {number(result.baselines['ridge'].mae_ah)} |"
        )
    return lines


def by_seed(prepared: Prepared, settings: Settings) -> list[str]:
    """How much the `random` protocol owes to its seed."""
    found = []
    for seed in SEEDS:
        training = settings.training.model_copy(update={"seed": seed})
        seeded = settings.model_copy(update={"training": training})
        found.append(evaluate_table(prepared.table, prepared.view, "random", seeded).metrics)
    maes, r2s = ([getattr(one, name) for one in found] for name in ("mae_ah", "r2"))
    passed = sum(r2 > R2_GATE for r2 in r2s)
    return [
        "",
        "## What the seed is worth",
        "",
        (
            f"The `random` protocol with {len(SEEDS)} seeds of split and model ({SEEDS[0]} to "
            f"{SEEDS[-1]}) instead of the published 42, {prepared.view.name}: MAE "
            f"{min(maes):.4f} to {max(maes):.4f} Ah (median {statistics.median(maes):.4f}), R² "
            f"{min(r2s):.3f} to {max(r2s):.3f} (median {statistics.median(r2s):.3f}). "
            f"{passed} of {len(SEEDS)} seeds pass the published gate R² > {R2_GATE:g}."
        ),
    ]


def row(protocol: str, by: str, found: Metrics) -> str:
    """One line of a table, with places for what only the model has."""
    return (
        f"| {protocol} | {by} | {number(found.mae_ah)} | @interval "
        f"| {number(found.mae_soh_points)} | {number(found.rmse_ah)} | {number(found.r2)} "
        f"| {number(found.mape_pct)} | {found.worst_asset} ({number(found.worst_asset_mae_ah)}) "
        "| @train | @test |"
    )


def summary(results: Mapping[str, Mapping[str, ProtocolResult]]) -> str:
    """README's table: MAE of the model on each view, and of every baseline that is a contender."""
    views = " | ".join(f"XGBoost, `{name}` | ridge, `{name}`" for name in results)
    lines = [
        f"| MAE in Ah on | {views} | last measured capacity |",
        "|---|" + "---:|" * (2 * len(results) + 1),
    ]
    for protocol, text in QUESTIONS.items():
        cells = []
        for protocols in results.values():
            found = protocols[protocol]
            cells += [
                f"**{number(found.metrics.mae_ah)}** (R² {found.metrics.r2:.2f})",
                number(found.baselines["ridge"].mae_ah),
            ]
        last = protocols[protocol].baselines.get("last_measured_capacity")
        cells.append(number(last.mae_ah) if last else "none there")
        lines.append(f"| `{protocol}`: {text} | {' | '.join(cells)} |")
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

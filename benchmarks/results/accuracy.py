"""Every view under every protocol, by every model and baseline: the tables on accuracy."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl
from benchmarks.results.markdown import between, number, section, table

from batteryops.evaluation.metrics import Metrics
from batteryops.evaluation.protocol_run import ProtocolResult, evaluate_protocol
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.features.views import VIEWS, FeatureView, complete_rows, feature_table
from batteryops.lifecycle.evaluation import algorithm_for, nominal_capacities, task_of
from batteryops.lifecycle.preparation import Prepared, prepare
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.sources import open_source
from batteryops.lifecycle.uncertainty import bounds_fit
from batteryops.models.algorithms import get_algorithm
from batteryops.schema import fingerprint
from batteryops.settings import Settings

MODELS: Final = ("xgboost", "battery_process")
SEEDS: Final = range(20)
WITH_INTERVALS: Final = ("unseen_assets", "unseen_schedules")
"""Protocols under which the intervals of each view's configured algorithm are measured."""

R2_GATE: Final = 0.98
"""The source system's gate under `random`."""

QUESTIONS: Final = {
    "random": "other cycles of the same batteries (70/30, seed 42), as published work reports",
    "later_cycles": "the future of batteries whose past was seen (first 60 % of each trains)",
    "unseen_assets": "batteries that were not in training",
    "unseen_schedules": "the same, and no companion on the same test schedule in training either",
}


@dataclass(frozen=True)
class Accuracy:
    """What was measured: prepared rows by view, results by view, model and protocol."""

    prepared: Mapping[str, Prepared]
    results: Mapping[str, Mapping[str, Mapping[str, ProtocolResult]]]


def measure(  # noqa: PLR0913, PLR0917 - what is measured, and how
    table: pl.DataFrame,
    view: FeatureView,
    model: str,
    protocol: str,
    settings: Settings,
    progress: Progress,
) -> ProtocolResult:
    """One model under one protocol; with intervals where these are judged."""
    judged = protocol in WITH_INTERVALS and model == algorithm_for(view, settings)
    intervals = ", intervals calibrated in every fold" if judged else ""
    progress.step(f"{view.name}, {table.height} rows: {model} under {protocol}{intervals}")
    fit = get_algorithm(model).make(task_of(view, settings), {})
    return evaluate_protocol(
        table,
        view.names,
        protocol,
        fit,
        settings=settings.evaluation,
        nominal_ah=nominal_capacities(table, settings),
        seed=settings.training.seed,
        progress=progress.within,
        workers=workers(settings),
        fit_bounds=bounds_fit(fit, view.names, settings) if judged else None,
    )


def workers(settings: Settings) -> int:
    """Folds at a time."""
    return max(1, int(settings.training.parameters.get("n_jobs", 1)))


def measure_all(source: str, settings: Settings, progress: Progress) -> Accuracy:
    """Every view, model and protocol on the checked rows of a source."""
    prepared: dict[str, Prepared] = {}
    for name, view in VIEWS.items():
        progress.step(f"{name}: read cycles, check them, compute features")
        prepared[name] = prepare(open_source(source, settings, kinds=view.kinds), view, settings)
    results = {
        name: {
            model: {
                protocol: measure(one.table, one.view, model, protocol, settings, progress)
                for protocol in PROTOCOLS
            }
            for model in MODELS
        }
        for name, one in prepared.items()
    }
    return Accuracy(prepared, results)


def main_table(found: Accuracy) -> list[str]:
    """Every view, protocol, model and baseline."""
    lines = section(
        "Every view, protocol, model and baseline",
        "Each protocol asks another question:\n\n"
        + "\n".join(f"- `{name}`: {text}" for name, text in QUESTIONS.items()),
        "`discharge_summary` and `discharge_physics` are computed from whole discharges, and so is "
        "the label (capacity is the current's integral): numbers on them say how well a model "
        "retraces that sum. `partial_window` is leak-free: windows of charges and the first "
        "minutes of discharges, as a vehicle records them. `docs/FEATURES.md` says for each "
        "feature how it holds the label, or why it does not.",
        "`xgboost` has the configured parameters. `battery_process` is the model for batteries "
        "never seen: Gaussian processes on what physics says to compare, with effects of each "
        "battery.",
        command="`batteryops evaluate --source nasa --view VIEW --algorithm MODEL`.",
    )
    for view, one in found.prepared.items():
        lines += [
            "",
            f"### {view} v{one.view.version}",
            "",
            (
                f"{len(one.view.names)} features, schema `{one.view.schema_hash[:16]}`, data "
                f"fingerprint `{one.fingerprint[:16]}`, {one.table.height} rows."
            ),
            *table(
                (
                    "protocol",
                    "by",
                    "MAE (Ah)",
                    "interval",
                    "MAE (SoH points)",
                    "RMSE (Ah)",
                    "R²",
                    "worst cell (MAE, Ah)",
                    "rows of training and test",
                ),
                _rows(found, view),
                text=2,
            ),
        ]
    return lines


def _rows(found: Accuracy, view: str) -> Iterator[list[object]]:
    models = found.results[view]
    for protocol in next(iter(models.values())):
        result = models[MODELS[0]][protocol]
        sizes = f"{result.n_train} and {result.n_test}"
        for position, (model, protocols) in enumerate(models.items()):
            one = protocols[protocol]
            mae = one.intervals["mae_ah"]
            yield [
                "" if position else f"`{protocol}`",
                f"**{model}**",
                *_numbers(one.metrics, between(mae.low, mae.high)),
                "" if position else sizes,
            ]
        for baseline, metrics in result.baselines.items():
            yield ["", baseline.replace("_", " "), *_numbers(metrics, ""), ""]


def _numbers(found: Metrics, interval: str) -> list[object]:
    return [
        found.mae_ah,
        interval,
        found.mae_soh_points,
        found.rmse_ah,
        found.r2,
        f"{found.worst_asset} ({number(found.worst_asset_mae_ah)})",
    ]


def per_cell(found: Accuracy) -> list[str]:
    """Every cell under `unseen_assets`."""
    columns = [(view, model) for view in found.results for model in MODELS]
    tables = [
        dict(results.select("asset_id", "mae_ah").iter_rows())
        for view, model in columns
        for results in [found.results[view][model]["unseen_assets"].per_asset]
    ]
    counts = found.results[columns[0][0]][MODELS[0]]["unseen_assets"].per_asset
    return [
        *section(
            "Per cell, `unseen_assets`",
            "MAE in Ah.",
            command="`batteryops evaluate --source nasa --view VIEW --algorithm MODEL "
            "--protocol unseen_assets --json`, `per_asset`.",
        ),
        *table(
            ("cell", "discharges", *(f"{view}, {model}" for view, model in columns)),
            (
                [asset, str(count), *(one[asset] for one in tables)]
                for asset, count in counts.select("asset_id", "n").iter_rows()
            ),
        ),
    ]


def as_published(source: str, settings: Settings, progress: Progress) -> list[str]:
    """The published table's rows, none set aside, as the source system trained on them."""
    view = VIEWS["discharge_summary"]
    recording = open_source(source, settings, kinds=view.kinds)
    rows, _ = complete_rows(feature_table(view, recording), view)
    lines = section(
        f"discharge_summary, all {rows.height} rows",
        "Nothing set aside, as the published table has it: with runs that crashed, and labels of "
        "zero. The quality checks look at the label, so what they set aside makes the task easier; "
        f"this is what it is without them. Data fingerprint `{fingerprint(rows)[:16]}`.",
        command="`batteryops features --source nasa --view discharge_summary --out all.parquet`, "
        "then `batteryops evaluate --features all.parquet --view discharge_summary`.",
    )
    measured = []
    for protocol in PROTOCOLS:
        result = measure(rows, view, "xgboost", protocol, settings, progress)
        mae = result.intervals["mae_ah"]
        measured.append(
            [
                f"`{protocol}`",
                result.metrics.mae_ah,
                between(mae.low, mae.high),
                result.metrics.r2,
                result.baselines["ridge"].mae_ah,
            ]
        )
    headings = ("protocol", "xgboost, MAE (Ah)", "interval", "R²", "ridge, MAE (Ah)")
    return [*lines, *table(headings, measured)]


def by_seed(prepared: Prepared, settings: Settings, progress: Progress) -> list[str]:
    """How much the `random` protocol owes to its seed."""
    found = []
    for seed in SEEDS:
        training = settings.training.model_copy(update={"seed": seed})
        seeded = settings.model_copy(update={"training": training})
        one = measure(prepared.table, prepared.view, "xgboost", "random", seeded, progress)
        found.append(one.metrics)
    maes, r2s = ([getattr(one, name) for one in found] for name in ("mae_ah", "r2"))
    passed = sum(r2 > R2_GATE for r2 in r2s)
    return section(
        "What the seed is worth",
        f"XGBoost under `random` with {len(SEEDS)} seeds of split and model ({SEEDS[0]} to "
        f"{SEEDS[-1]}) instead of the published 42, {prepared.view.name}: MAE {min(maes):.4f} to "
        f"{max(maes):.4f} Ah (median {statistics.median(maes):.4f}), R² {min(r2s):.3f} to "
        f"{max(r2s):.3f} (median {statistics.median(r2s):.3f}). {passed} of {len(SEEDS)} seeds "
        f"pass the published gate R² > {R2_GATE:g}.",
        command="`BATTERYOPS_TRAINING__SEED=SEED batteryops evaluate --source nasa --view "
        f"{prepared.view.name} --protocol random`.",
    )


def readme_table(found: Accuracy) -> str:
    """README's table: MAE of each model on each view, and of the baselines that are contenders."""
    names = list(found.results)
    headings = [
        "MAE in Ah",
        *(f"`{name}`: {by}" for name in names for by in (*MODELS, "ridge")),
        "last measured capacity",
    ]
    rows = []
    for protocol, text in QUESTIONS.items():
        cells: list[object] = [f"`{protocol}`: {text}"]
        for models in found.results.values():
            cells += [_short(models[model][protocol].metrics) for model in MODELS]
            cells.append(models[MODELS[0]][protocol].baselines["ridge"].mae_ah)
        last = models[MODELS[0]][protocol].baselines.get("last_measured_capacity")
        cells.append(last.mae_ah if last else "none there")
        rows.append(cells)
    return "\n".join(table(headings, rows)[1:])


def _short(found: Metrics) -> str:
    return f"{number(found.mae_ah)} (R² {found.r2:.3f})"

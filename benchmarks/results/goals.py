"""The goals on batteries never seen: what was asked, and whether it was reached."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from benchmarks.results.accuracy import Accuracy, workers
from benchmarks.results.markdown import number, section, table

from batteryops.evaluation.metrics import Metrics, Predictions, score
from batteryops.evaluation.owners import Owners
from batteryops.evaluation.protocol_run import ProtocolResult
from batteryops.evaluation.protocols import asset_groups
from batteryops.features.views import matrix
from batteryops.lifecycle.decisions import always, as_it_is, deciding_fit
from batteryops.lifecycle.evaluation import task_of
from batteryops.lifecycle.packs import PackEvaluation
from batteryops.lifecycle.preparation import Prepared
from batteryops.lifecycle.progress import Progress
from batteryops.models.asset_baseline import ResidualProcess, fit_baseline, fit_residual_process
from batteryops.models.intervals import out_of_group_predictions
from batteryops.schema import LABEL
from batteryops.settings import Settings

Group = tuple[str, ...]

MODEL: Final = "battery_process"
LEAK_FREE: Final = "partial_window"
FIRST: Final = 10
"""Capacity measurements at the start of a life that a baseline may have."""

ALONE: Final[Group] = ("B0018",)
TOGETHER: Final[Group] = ("B0005", "B0006", "B0007")


@dataclass(frozen=True)
class Goal:
    """One line: what was asked, and what was found.

    Args:
        on: which batteries, what is known of them.
        by: view and model.
        floor: as the issue states it; empty where it states none.
        limits: the goal, largest MAE and least R2, the latter where stated; None without a goal.
        mae: found; Ah, or points of SoH.
        r2: found, where there is one.
        unit: of the errors.
    """

    on: str
    by: str
    floor: str
    limits: tuple[float, float | None] | None
    mae: float
    r2: float | None
    unit: str = "Ah"

    @property
    def verdict(self) -> str:
        """Whether the goal was reached, and by which number not."""
        if self.limits is None:
            return "no goal set"
        mae, r2 = self.limits
        short = [f"MAE {number(self.mae)} > {number(mae)}"] if self.mae > mae else []
        if r2 is not None and (self.r2 is None or self.r2 < r2):
            short.append(f"R² {number(self.r2)} < {number(r2)}")
        return f"**missed** ({', '.join(short)})" if short else "**reached**"

    @property
    def cells(self) -> list[object]:
        """Of the table."""
        goal = "-"
        if self.limits is not None:
            mae, r2 = self.limits
            goal = f"{mae:g} {self.unit}" + (f", R² {r2:g}" if r2 is not None else "")
        found = f"{number(self.mae)} {self.unit}"
        found += f", R² {self.r2:.3f}" if self.r2 is not None else ""
        return [self.on, self.by, self.floor or "-", goal, found, self.verdict]


@dataclass(frozen=True)
class Labelled:
    """What measurements of the battery itself are worth, on its cycles after the first ten.

    Args:
        ten: the first ten alone, never another.
        earlier: at each cycle all before it.
        last_of_ten: the tenth measured capacity, held.
        last: the last measured capacity.
        process: how residuals of batteries never seen behave, learned without this one.
    """

    ten: Metrics
    earlier: Metrics
    last_of_ten: Metrics
    last: Metrics
    process: ResidualProcess


def of_assets(result: ProtocolResult, assets: Collection[str]) -> Metrics:
    """Metrics of some tested assets together."""
    rows = result.predictions.filter(pl.col("asset_id").is_in(list(assets)))
    return _score(rows, rows["predicted_ah"].to_numpy())


def with_labels(
    prepared: Prepared,
    result: ProtocolResult,
    assets: Collection[str],
    settings: Settings,
    progress: Progress,
) -> Labelled:
    """Correct the predictions of assets never seen by their own measurements.

    How far residuals are to be believed is learned on the other assets only, each predicted by a
    model that saw neither its group nor the assets asked about.

    Args:
        prepared: rows that may train.
        result: of `unseen_assets`, whose predictions are corrected.
        assets: one group.
        settings: groups, seed, folds.
        progress: told what is being done.
    """
    progress.step(f"{', '.join(assets)}: how residuals behave, learned on the others")
    training = prepared.table.filter(~pl.col("asset_id").is_in(list(assets)))
    names = training["asset_id"].to_numpy().astype(object)
    group_of = asset_groups(training["asset_id"], settings.evaluation.groups)
    owners = Owners(names, np.array([group_of[name] for name in names], dtype=object))
    labels = training[LABEL].to_numpy()
    held_out = out_of_group_predictions(
        deciding_fit(always(as_it_is(MODEL, task_of(prepared.view, settings)))),
        matrix(prepared.view, training),
        labels,
        owners,
        folds=settings.tournament.inner_folds,  # as `evaluate --known-labels` does
        workers=workers(settings),
    )
    process = fit_residual_process(labels - held_out, training["op_index"].to_numpy(), names)
    return corrected(process, result, assets)


def corrected(
    process: ResidualProcess, result: ProtocolResult, assets: Collection[str]
) -> Labelled:
    """Both readings of "first ten", and the last measured capacity under each."""
    kept, answers = [], []
    for asset in assets:
        own = result.predictions.filter(pl.col("asset_id") == asset).sort("op_index")
        cycles, labels, predicted = (
            own[name].to_numpy() for name in ("op_index", LABEL, "predicted_ah")
        )
        by_reading = []
        for first in (FIRST, None):
            baseline = fit_baseline(
                asset,
                model="",
                op_index=cycles.tolist(),
                measured_ah=labels.tolist(),
                predicted_ah=predicted.tolist(),
                first=first,
            )
            by_reading.append(baseline.corrected(process, cycles, predicted)[0][FIRST:])
        by_reading += [np.full(own.height - FIRST, labels[FIRST - 1]), labels[FIRST - 1 : -1]]
        kept.append(own[FIRST:])
        answers.append(by_reading)
    rows = pl.concat(kept)
    ten, earlier, last_of_ten, last = (
        _score(rows, np.concatenate(each)) for each in zip(*answers, strict=True)
    )
    return Labelled(ten, earlier, last_of_ten, last, process)


def _score(rows: pl.DataFrame, predicted_ah: np.ndarray) -> Metrics:
    return score(
        Predictions(
            rows["asset_id"].to_numpy().astype(object),
            rows[LABEL].to_numpy(),
            predicted_ah,
            rows["nominal_ah"].to_numpy(),
        )
    )


def goals(
    found: Accuracy, labelled: Mapping[Group, Labelled], packs: PackEvaluation | None
) -> list[Goal]:
    """Every goal of the issue, beside what was measured."""
    unseen = {view: models[MODEL]["unseen_assets"] for view, models in found.results.items()}
    alone, group = (of_assets(unseen[LEAK_FREE], assets) for assets in (ALONE, TOGETHER))
    by = f"{LEAK_FREE}, {MODEL}"
    lines = [
        Goal(
            "B0018 from the other 26 cells, none of its labels",
            by,
            "0.027 Ah, R² 0.96",
            (0.015, 0.98),
            alone.mae_ah,
            alone.r2,
        )
    ]
    ten, earlier = "the first ten measured, never another", "every earlier cycle measured"
    one = labelled[ALONE]
    lines += [
        Goal(f"B0018, {known}", by, "0.014 Ah", (0.008, None), metrics.mae_ah, metrics.r2)
        for known, metrics in ((ten, one.ten), (earlier, one.earlier))
    ]
    lines.append(
        Goal(
            "B0005, B0006, B0007 as a group from the other 24, none of their labels",
            by,
            "0.041 Ah, R² 0.935",
            (0.02, 0.98),
            group.mae_ah,
            group.r2,
        )
    )
    one = labelled[TOGETHER]
    lines += [
        Goal(f"the group, {known}", by, "", None, metrics.mae_ah, metrics.r2)
        for known, metrics in ((ten, one.ten), (earlier, one.earlier))
    ]
    for view in ("discharge_physics", "discharge_summary"):
        metrics = unseen[view].metrics
        lines.append(
            Goal(
                "all 27 cells, grouped",
                f"{view}, {MODEL}",
                "0.126 Ah, R² 0.85",
                (0.02, 0.98),
                metrics.mae_ah,
                metrics.r2,
            )
        )
    if packs is not None:
        lines.append(
            Goal(
                "packs in service, one segment",
                "three signs of ageing, one slope",
                "3.2 points",
                (1.5, None),
                packs.errors.mae_points,
                None,
                "points",
            )
        )
    return lines


def goals_section(
    found: Accuracy, labelled: Mapping[Group, Labelled], packs: PackEvaluation | None
) -> list[str]:
    """The table of goals, and what its two readings of "first ten" are."""
    lines = section(
        "Goals on batteries never seen",
        "All 27 cells is one goal for `discharge_summary` or `discharge_physics`: one of the two "
        "is enough. Floors are as stated with the goals.",
        command="`batteryops evaluate --source nasa --view VIEW --algorithm battery_process "
        "--protocol unseen_assets --json`; for packs `batteryops packs evaluate FOLDER`; "
        "corrected by measurements: `--known-labels 10`, or `all`, which tests the "
        "first ten cycles as well.",
    )
    lines += table(
        ("on", "by", "floor", "goal", "found", "verdict"),
        (goal.cells for goal in goals(found, labelled, packs)),
        text=6,
    )
    lines += [
        "",
        (
            "The goal with B0018's first ten measurements can be read in two ways, and the floor "
            "of 0.014 Ah belongs to the second: it is what the last measured capacity gives where "
            "every earlier cycle was measured. With the first ten alone, the tenth held to the "
            "end of life is the comparison. Judged on each cell's cycles after the tenth, MAE in "
            "Ah:"
        ),
    ]
    rows = []
    for assets, one in labelled.items():
        for known, ours, last in (
            ("the first ten, never another", one.ten, one.last_of_ten),
            ("every earlier cycle", one.earlier, one.last),
        ):
            rows.append([", ".join(assets), known, ours.mae_ah, ours.r2, last.mae_ah, last.r2])
    lines += table(
        (
            "cells",
            "measured",
            "corrected model",
            "R²",
            "last measured capacity",
            "R² of that",
        ),
        rows,
        text=2,
    )
    told = "; ".join(
        f"without {', '.join(assets)}: offset {number(one.process.offset_ah)} Ah, slow part "
        f"{number(one.process.wander_ah)} Ah over {one.process.wander_cycles:.0f} operations, "
        f"noise {number(one.process.noise_ah)} Ah"
        for assets, one in labelled.items()
    )
    return [
        *lines,
        "",
        (
            "How far measurements are to be believed at later cycles is learned on the other "
            "cells alone, each predicted without its group, as `--known-labels` does: standard "
            f"deviations {told}."
        ),
    ]

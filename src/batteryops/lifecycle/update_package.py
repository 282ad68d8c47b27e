"""From a chosen update to all that a version is made of: how far to believe it, and its gates."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl

from batteryops.errors import DataError
from batteryops.evaluation.diagnostics import diagnostics_png
from batteryops.evaluation.gates import Gate, Verdict, judge
from batteryops.evaluation.metrics import Metrics, Predictions, nominal_per_row, score
from batteryops.lifecycle.drift_reference import training_reference
from batteryops.lifecycle.evaluation import nominal_capacities
from batteryops.lifecycle.packaging import Draft
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.ranges import count_out_of_range
from batteryops.lifecycle.realignment import Realignment
from batteryops.lifecycle.uncertainty import fit_uncertainty, package_owners
from batteryops.lifecycle.update_choice import UNSEEN, Chosen, Parent, Refitting
from batteryops.lifecycle.update_page import UpdatePage, render_update
from batteryops.lifecycle.update_rows import UpdateRows
from batteryops.models.acceptance import Errors
from batteryops.models.algorithm_onnx import to_onnx_any
from batteryops.models.manifest import json_name
from batteryops.models.onnx_twin import max_difference_ah
from batteryops.models.package import PARITY_AH, ModelPackage
from batteryops.schema import LABEL
from batteryops.settings import Settings

UPDATE: Final = "update"
"""The document of a package that says what it was brought up to date from, and by what."""

NEW: Final = "new_batteries"
OLD: Final = "old_batteries"
"""Where metrics were measured: as a run's metrics and the gates name them."""

_DIAGNOSED_ROWS: Final = 3  # with fewer nothing can be drawn


def labels_until(package: ModelPackage) -> datetime | None:
    """Until when labels were looked at for a package; None where none were, as it was trained.

    Raises:
        PackageError: the package was changed.
    """
    if json_name(UPDATE) not in package.manifest.files:
        return None
    told = package.document(UPDATE)["labels_until"]
    return None if told is None else datetime.fromisoformat(told)


def realignments(package: ModelPackage) -> tuple[Realignment, ...]:
    """What was done to rows of before software updates that a package has learned of.

    Raises:
        PackageError: the package was changed.
    """
    if json_name(UPDATE) not in package.manifest.files:
        return ()
    return tuple(map(Realignment.from_json, package.document(UPDATE)["realigned"]))


def draft_update(  # noqa: PLR0913 - what is made, of what, and why
    found: Chosen,
    rows: UpdateRows,
    parent: Parent,
    settings: Settings,
    progress: Progress,
    *,
    until: datetime | None,
    run_id: str | None,
) -> Draft:
    """Find out about an update all that a package says, and let the gates judge. Writes nothing.

    Intervals, residuals and the estimate of errors are those of the same algorithm fitted without
    each group of batteries, on old and new rows together. The drift reference is that of the new
    rows, where they are enough: what was learned from them is no drift any more.

    Args:
        found: the update, made on all rows, and the comparison that it comes from.
        rows: that it learned from.
        parent: what it was made of.
        settings: folds, profiles, whether to draw a page.
        progress: told what is being done.
        until: labels were looked at until then.
        run_id: of the retraining; None where it is none.

    Raises:
        DataError: there is no update.
        PackageError: the model cannot be told as an ONNX graph.
    """
    comparison, chosen, model = found.comparison, found.comparison.chosen, found.model
    if chosen is None or chosen.errors is None or model is None:
        raise DataError(f"there is no update to draft: {comparison.reason}")
    how, view, table = Refitting.of(parent.package, settings), rows.view, rows.table
    progress.step("calibrate intervals on batteries held out; learn what the rows cover")
    learned = rows.learned_table
    nominal_ah = nominal_per_row(learned["asset_id"], nominal_capacities(learned, settings))
    uncertainty = fit_uncertainty(
        how.decision.fit,
        rows.learned.features,
        rows.learned.labels,
        package_owners(learned, settings),
        view.names,
        folds=settings.retraining.calibration_folds,
        workers=max(1, int(settings.training.parameters.get("n_jobs", 1))),
        op_index=learned["op_index"].to_numpy(),
        nominal_ah=nominal_ah,
    )
    progress.step("convert to ONNX, compare, judge")
    every = rows.every.features
    onnx = to_onnx_any(model, len(view.names))
    fitted_ah = model(every)
    held_out_ah = uncertainty.held_out_ah
    known = ~np.isnan(held_out_ah)
    unseen = learned.select("asset_id", "op_index", LABEL).with_columns(
        predicted_ah=pl.Series(held_out_ah), nominal_ah=pl.Series(nominal_ah)
    )
    unseen = unseen.filter(pl.Series(known))
    measured = _score(unseen) if unseen.height else None
    facts = {
        "training_time_s": chosen.seconds,
        "predictions_out_of_range": float(
            count_out_of_range(table["asset_id"], fitted_ah, settings)
            + count_out_of_range(unseen["asset_id"], unseen["predicted_ah"].to_numpy(), settings)
        ),
        "onnx_max_difference_ah": max_difference_ah(model, onnx, every),
    }
    verdict = _judge(comparison.allowed, chosen.errors, facts)
    predictions = fitted_ah.copy()
    predictions[rows.places[known]] = held_out_ah[known]
    update: dict[str, Any] = {
        "parent_version": parent.version,
        "parent_fingerprint": parent.package.fingerprint,
        "labels_until": until and until.isoformat(),
        "strategy": chosen.name,
        "comparison": comparison.to_json(),
        "rows": rows.to_json(),
        "realigned": [step.to_json() for step in rows.realigned],
        "run_id": run_id,
    }
    source = f"version {parent.version} and {rows.n_new} new labels"
    pages: dict[str, bytes] = {}
    if settings.retraining.report:
        progress.step("draw the page")
        plot = diagnostics_png(unseen) if unseen.height >= _DIAGNOSED_ROWS else None
        page = UpdatePage(
            title=f"{settings.registry.model_name}, brought up to date",
            subtitle=f"{view.name} v{view.version}, from {source}",
            verdict=verdict,
            comparison=comparison,
            update=update,
            unseen=measured,
            uncertainty=uncertainty,
            diagnostics=plot,
        )
        pages["report.html"] = render_update(page).encode()
        if plot is not None:
            pages["diagnostics.png"] = plot
    return Draft(
        table=table,
        view=view,
        source=source,
        model=model,
        onnx=onnx,
        algorithm=parent.package.manifest.algorithm,
        uncertainty=uncertainty,
        reference=training_reference(
            table[rows.reference],
            view,
            settings,
            held_out_ah=predictions[rows.reference],
            fitted_ah=fitted_ah[rows.reference],
        ),
        verdict=verdict,
        documents={
            "metrics": {
                **({UNSEEN: measured.to_json()} if measured else {}),
                NEW: _pair(comparison.current.new_ah, chosen.errors.new_ah),
                OLD: _pair(comparison.current.old_ah, chosen.errors.old_ah),
                "training": facts,
            },
            UPDATE: update,
        },
        attachments=pages,
        run_name=f"{chosen.name} on {source}",
        parameters={"strategy": chosen.name, "parent_version": parent.version},
        metrics={
            **comparison.metrics,
            **(
                {f"{UNSEEN}.{name}": value for name, value in measured.facts().items()}
                if measured
                else {}
            ),
            **{f"training.{name}": value for name, value in facts.items()},
            **{f"rows.{name}": float(count) for name, count in rows.to_json().items()},
        },
        noted={"parent_version": parent.version, "strategy": chosen.name},
        retraining_run=run_id,
        tables={"strategies": comparison.table()},
    )


def _judge(allowed: Errors, errors: Errors, facts: Mapping[str, float]) -> Verdict:
    """What was allowed of a candidate, and what no package may do, as gates."""
    gates = [
        Gate("gain_on_new", NEW, "mae_ah", "<=", allowed.new_ah),
        Gate("memory_of_old", OLD, "mae_ah", "<=", allowed.old_ah),
    ]
    found: dict[str, Mapping[str, float]] = {
        NEW: {"mae_ah": errors.new_ah},
        OLD: {"mae_ah": errors.old_ah},
        "training": facts,
    }
    if len(allowed.old_by_profile_ah) > 1:
        for name, most in allowed.old_by_profile_ah.items():
            gates.append(Gate(f"memory_of_{name}", f"{OLD} {name}", "mae_ah", "<=", most))
            found[f"{OLD} {name}"] = {"mae_ah": errors.old_by_profile_ah[name]}
    gates += [
        Gate("prediction_range", "training", "predictions_out_of_range", "<=", 0.0),
        Gate("onnx_parity", "training", "onnx_max_difference_ah", "<=", PARITY_AH),
    ]
    return judge(gates, found, {})


def _pair(was_ah: float, now_ah: float | None) -> dict[str, float | None]:
    """What both models err on the same batteries, Ah."""
    return {"mae_ah": now_ah, "current_model_mae_ah": was_ah if np.isfinite(was_ah) else None}


def _score(unseen: pl.DataFrame) -> Metrics:
    return score(
        Predictions(
            unseen["asset_id"].to_numpy().astype(object),
            unseen[LABEL].to_numpy(),
            unseen["predicted_ah"].to_numpy(),
            unseen["nominal_ah"].to_numpy(),
        )
    )

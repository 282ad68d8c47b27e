"""Gates on a saved model, with test data of the user's choice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.gates import Gate, Verdict, judge
from batteryops.evaluation.metrics import Predictions, nominal_per_row, score
from batteryops.features.files import read_feature_table
from batteryops.features.validation import check_table
from batteryops.features.views import FeatureView, get_view, matrix
from batteryops.lifecycle.evaluation import named, nominal_capacities
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.preparation import check_prepared, refuse_wrong_units
from batteryops.lifecycle.ranges import count_out_of_range
from batteryops.models import boosting
from batteryops.quality.checks import QualityReport
from batteryops.schema import LABEL
from batteryops.settings import Settings

TEST_DATA: Final = "test_data"
"""Name of the protocol of gates on given test data."""

BARE_MODELS: Final = (".ubj", ".json")
"""Suffixes of XGBoost's own files, which can be validated without a package."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A verdict on a saved model, what was measured, and what a reader should know of it."""

    verdict: Verdict
    metrics: Mapping[str, float]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            **self.verdict.to_json(),
            "reasons": list(self.verdict.reasons),
            "metrics": dict(self.metrics),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What is judged: a view and a function of its features."""

    view: FeatureView
    predict: Callable[[NDArray[np.float32]], NDArray[np.float64]]
    training_assets: frozenset[str]
    notes: tuple[str, ...]


def validate_model(
    model: str,
    test_data: Path | None,
    settings: Settings,
    *,
    threshold_mae_ah: float,
    threshold_r2: float,
) -> Validated:
    """Judge a saved model on test data; without test data, repeat the verdict of its training.

    Rows that the quality checks set aside, such as crashed runs and false labels, do not judge a
    model; how many they are, and what it measures with them, is noted.

    Args:
        model: a package folder, an XGBoost file, a version number or an alias.
        test_data: a labelled feature table that the model was not trained on.
        settings: profiles of the assets, and the configured view for a bare XGBoost file.
        threshold_mae_ah: MAE must be below this.
        threshold_r2: R2 must be above this.

    Raises:
        DataError: test data that cannot be read, or none for a bare XGBoost file.
        PackageError: a model that is incomplete, changed, or of another view.
    """
    if test_data is None:
        if Path(model).suffix in BARE_MODELS:
            raise DataError(f"{model} carries no verdict of its own; give --test-data to judge it")
        package = load_model(model, settings).package
        return Validated(Verdict.from_json(package.document("gates")), {}, ())
    candidate = _open(model, settings)
    return _judge(candidate, test_data, settings, threshold_mae_ah, threshold_r2)


def _open(model: str, settings: Settings) -> _Candidate:
    if Path(model).suffix in BARE_MODELS:
        view = get_view(settings.training.view)
        booster = boosting.read_booster(Path(model), view.names)
        note = f"{model} carries no manifest; its features are taken to be those of {view.name}"
        return _Candidate(view, lambda rows: boosting.predict(booster, rows), frozenset(), (note,))
    package = load_model(model, settings).package
    assets = frozenset(package.manifest.training_assets)
    return _Candidate(package.view, package.predict_batch, assets, ())


def _judge(
    candidate: _Candidate,
    test_data: Path,
    settings: Settings,
    threshold_mae_ah: float,
    threshold_r2: float,
) -> Validated:
    view = candidate.view
    table = read_feature_table(test_data, view.names, labelled=True).drop_nulls(LABEL)
    if table.is_empty():
        raise DataError(f"{test_data}: no row has a label; expected some in {LABEL}")
    report = check_prepared(table, view, settings)
    refuse_wrong_units(report, str(test_data))
    kept = report.kept(table)
    if kept.is_empty():
        raise DataError(f"{test_data}: the quality checks set all {table.height} rows aside")
    check_table(view, kept)
    facts = _measure(candidate, kept, settings)
    verdict = judge(
        [
            Gate("mae", TEST_DATA, "mae_ah", "<", threshold_mae_ah),
            Gate("r2", TEST_DATA, "r2", ">", threshold_r2),
            Gate("prediction_range", TEST_DATA, "predictions_out_of_range", "<=", 0.0),
        ],
        {TEST_DATA: facts},
        {},
    )
    notes = [*candidate.notes]
    if kept.height < table.height:
        everything = _measure(candidate, table, settings)
        aside = ", ".join(f"{check} {cycles}" for check, cycles in _by_check(report))
        notes.append(
            f"{table.height - kept.height} of {table.height} labelled rows were set aside by the "
            f"quality checks ({aside}); on all rows MAE is {everything['mae_ah']:.4g} Ah and R2 "
            f"{everything['r2']:.4g}"
        )
    seen = sorted(candidate.training_assets & set(kept["asset_id"]))
    if seen:
        notes.append(
            f"{len(seen)} of {kept['asset_id'].n_unique()} test assets were in training "
            f"({named(seen)}); this does not show how the model does on batteries it never saw"
        )
    return Validated(verdict, facts | {"n": float(kept.height)}, tuple(notes))


def _measure(candidate: _Candidate, table: pl.DataFrame, settings: Settings) -> dict[str, float]:
    predicted_ah = candidate.predict(matrix(candidate.view, table))
    found = score(
        Predictions(
            table["asset_id"].to_numpy().astype(object),
            table[LABEL].to_numpy(),
            predicted_ah,
            nominal_per_row(table["asset_id"], nominal_capacities(table, settings)),
        )
    )
    outside = count_out_of_range(table["asset_id"], predicted_ah, settings)
    return found.facts() | {"predictions_out_of_range": float(outside)}


def _by_check(report: QualityReport) -> list[tuple[str, int]]:
    counts = report.summary().group_by("check").agg(pl.col("cycles").sum()).sort("check")
    return list(counts.iter_rows())

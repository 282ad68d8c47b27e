"""Answers for a file: of features, or of raw cycles whose features are computed first."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from batteryops.errors import DataError
from batteryops.features.files import SUFFIXES, read_feature_table
from batteryops.features.validation import check_table, problems
from batteryops.features.views import FeatureView, feature_table, matrix
from batteryops.files import table_columns
from batteryops.lifecycle.asset_baselines import baselines_for, correct_estimates
from batteryops.lifecycle.baseline_store import BaselineStore
from batteryops.lifecycle.evaluation import nominal_capacities
from batteryops.lifecycle.loading import LoadedModel, load_model, refuse_other_levels
from batteryops.lifecycle.preparation import refuse_wrong_units
from batteryops.quality.checks import check_recording
from batteryops.records.identifiers import new_id
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.schema import FEATURE_KEY, LABEL
from batteryops.serving.answer import Answer
from batteryops.settings import Settings
from batteryops.telemetry import read


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered, in the order of the input.

    Args:
        table: `asset_id`, `op_index`, `status`, `capacity_ah` and `soh` (predicted; null where
            withheld), `capacity_low_ah`, `capacity_high_ah`, `outside` (features that put the row
            outside of the training domain, by commas), `outside_jointly`, `baseline` (version of
            the asset's own that corrected the row; null where none did), `prediction_id`.
        nominal: share of measured capacities that the intervals are made to hold.
        model_version: which version answered.
        request_id: under which all of them stand in the log.
        left_out: how many cycles cannot be answered, by reason.
        other_models: assets with baselines of other models only, which correct nothing.
    """

    table: pl.DataFrame
    nominal: float
    model_version: str
    request_id: str
    left_out: Mapping[str, int]
    other_models: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "model_version": self.model_version,
            "request_id": self.request_id,
            "left_out": dict(self.left_out),
            "baselines_of_other_models": list(self.other_models),
            "predictions": [self._told(row) for row in self.table.iter_rows(named=True)],
        }

    def _told(self, row: dict[str, Any]) -> dict[str, Any]:
        low_ah, high_ah = row.pop("capacity_low_ah"), row.pop("capacity_high_ah")
        outside, joint = row.pop("outside"), row.pop("outside_jointly")
        return row | {
            "interval": {"low_ah": low_ah, "high_ah": high_ah, "nominal": self.nominal},
            "domain": {"features": outside.split(",") if outside else [], "joint": joint},
        }


def predict_file(file: Path, model: str, settings: Settings, *, baselines: bool = True) -> Answers:
    """Answer for every row of a file; each answer is in the log before this returns.

    Raw cycles are checked first: those whose record cannot be believed are left out, with the
    reasons, as are those without a required feature.

    Where an asset has baselines of the answering package, the newest corrects the rows that follow
    its measurements. Requests (.json) do not say where in a life they stand, and are not.

    Args:
        file: a feature table (.csv, .parquet), one request or a list of them (.json), or anything
            that `telemetry.read` knows.
        model: a package folder, a version number or an alias.
        settings: where the registry, the log and the baselines are.
        baselines: correct by them.

    Raises:
        DataError: a file that cannot be read, a wrong unit, an asset of another level.
        RegistryError, PackageError: the model cannot be had, or a baseline is damaged or not what
            the ledger has.
        RecordsError: the log, or the ledger where there are baselines, is out of reach; then
            nothing is answered.
    """
    loaded = load_model(model, settings)
    view = loaded.package.view
    table, reasons = _features_of(file, view, settings)
    complete = table.drop_nulls(view.required)
    if complete.height < table.height:
        reasons["a required feature is missing"] = table.height - complete.height
    if complete.is_empty():
        told = "; ".join(f"{count}: {reason}" for reason, count in reasons.items())
        raise DataError(f"{file}: no cycle can be answered ({told or 'it holds none'})")
    refuse_other_levels(complete["asset_id"].unique(maintain_order=True), loaded.package, settings)
    check_table(view, complete)
    store = BaselineStore(settings.baselines) if baselines and file.suffix != ".json" else None
    return _answer(complete, loaded, settings, reasons, store)


def _features_of(
    file: Path, view: FeatureView, settings: Settings
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Features of what can be answered, and how many cycles are left out for which reason."""
    if file.suffix == ".json":
        return _from_json(file, view), {}
    if file.suffix in SUFFIXES and set(view.required) & set(table_columns(file)):
        return read_feature_table(file, view.names, labelled=False), {}
    recording = read(file, kinds=view.kinds)
    report = check_recording(recording, settings.profile_of, settings.quality)
    refuse_wrong_units(report, str(file))
    aside = report.reasons("prediction")
    counts = aside.group_by("check").agg(pl.struct("asset_id", "op_index").n_unique()).sort("check")
    table = report.kept(feature_table(view, recording), "prediction")
    return table, dict(counts.iter_rows())


def _from_json(file: Path, view: FeatureView) -> pl.DataFrame:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    rows = document if isinstance(document, list) else [document]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: expected one request body, or a list of them")
    for position, row in enumerate(rows, 1):
        found = _faults(row, view)
        if found:
            raise DataError(f"{file}, request {position}: {'; '.join(found)}")
    return pl.DataFrame(
        {
            "asset_id": [row["vehicle_id"] for row in rows],
            "op_index": pl.Series(range(1, len(rows) + 1), dtype=pl.Int32),
            **{
                name: pl.Series(
                    [None if row.get(name) is None else float(row[name]) for row in rows],
                    dtype=pl.Float64,
                )
                for name in view.names
            },
            LABEL: pl.Series([None] * len(rows), dtype=pl.Float64),
        }
    )


def _faults(row: dict[str, Any], view: FeatureView) -> list[str]:
    """What the server would say of this body."""
    vehicle = row.get("vehicle_id")
    found = []
    if not isinstance(vehicle, str) or not vehicle:
        found.append(f"vehicle_id is {vehicle!r}, expected the name of an asset")
    unknown = sorted(set(row) - {"vehicle_id", *view.names})
    if unknown:
        found.append(f"unknown {', '.join(unknown)}; expected vehicle_id, {', '.join(view.names)}")
    return found + problems(view, {name: row[name] for name in view.names if name in row})


def _answer(
    table: pl.DataFrame,
    loaded: LoadedModel,
    settings: Settings,
    left_out: Mapping[str, int],
    store: BaselineStore | None,
) -> Answers:
    package = loaded.package
    names = package.view.names
    nominal = nominal_capacities(table, settings)
    started = time.perf_counter()
    ranges = {asset: settings.profile_of(asset).capacity_range_ah for asset in nominal}
    estimates = package.estimate_batch(
        matrix(package.view, table), (ranges[asset] for asset in table["asset_id"])
    )
    versions: list[str | None] = [None] * len(estimates)
    other_models: tuple[str, ...] = ()
    if store is not None:
        other_models = tuple(
            asset
            for asset in nominal
            if store.versions(asset) and not store.versions(asset, package.fingerprint)
        )
        kept = baselines_for(nominal, package, settings)
        estimates, versions = correct_estimates(table, estimates, ranges, package, kept)
    latency_ms = 1000.0 * (time.perf_counter() - started)
    answered_at, request_id = datetime.now(UTC), new_id()
    records = [
        PredictionRecord(
            prediction_id=new_id(),
            request_id=request_id,
            answered_at=answered_at,
            vehicle_id=row["asset_id"],
            model_name=settings.registry.model_name,
            model_version=loaded.version,
            package_fingerprint=package.fingerprint,
            role=loaded.role,
            features={name: row[name] for name in names},
            capacity_ah=estimate.capacity_ah,
            soh=estimate.capacity_ah / nominal[row["asset_id"]],
            latency_ms=latency_ms,
            capacity_low_ah=estimate.low_ah,
            capacity_high_ah=estimate.high_ah,
            status="ok" if estimate.position.inside else "out_of_domain",
            outside=estimate.position.features,
            outside_jointly=estimate.position.joint,
            baseline=version,
        )
        for row, estimate, version in zip(
            table.iter_rows(named=True), estimates, versions, strict=True
        )
    ]
    with PredictionLog(settings.predictions_url) as log:
        log.append(records)
    withhold = settings.serving.out_of_domain == "withhold"
    given = [Answer(record, package.intervals.nominal, withhold) for record in records]
    answers = table.select(FEATURE_KEY).with_columns(
        pl.Series("status", [record.status for record in records], pl.String),
        pl.Series("capacity_ah", [answer.capacity_ah for answer in given], pl.Float64),
        pl.Series("soh", [answer.soh for answer in given], pl.Float64),
        pl.Series("capacity_low_ah", [record.capacity_low_ah for record in records], pl.Float64),
        pl.Series("capacity_high_ah", [record.capacity_high_ah for record in records], pl.Float64),
        pl.Series("outside", [",".join(record.outside) for record in records], pl.String),
        pl.Series("outside_jointly", [record.outside_jointly for record in records], pl.Boolean),
        pl.Series("baseline", versions, pl.String),
        pl.Series("prediction_id", [record.prediction_id for record in records], pl.String),
    )
    return Answers(
        answers, package.intervals.nominal, loaded.version, request_id, left_out, other_models
    )

"""A champion in a registry of its own, and labels of later questions, for what updates a model."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from batteryops.features.views import complete_rows, feature_table, get_view
from batteryops.lifecycle.preparation import prepare_table
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.registration import register
from batteryops.lifecycle.training import Choice, train
from batteryops.records.identifiers import uuid7
from batteryops.records.labels import Label, Labels
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.settings import Settings, load_settings
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.simulator import simulate_fleet

VIEW = get_view("discharge_summary")
SMALL: dict[str, Any] = {"n_estimators": 20, "max_depth": 4, "n_jobs": 1}


def small_config(file: Path, **retraining: Any) -> Path:  # noqa: ANN401 - any setting
    """The production configuration with a small model, few folds and no page."""
    config: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parents[2] / "config" / "production.yaml").read_text()
    )
    config["training"]["parameters"] |= SMALL
    config["evaluation"] |= {"bootstrap_resamples": 20, "max_folds": 2, "calibration_folds": 3}
    config["retraining"] |= {
        "calibration_folds": 3,
        "report": False,
        "strategies": ["warm_start", "full"],
        **retraining,
    }
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


@cache
def fleet(chemistry: str, *, vehicles: int, cycles: int, seed: int, first: int = 1) -> pl.DataFrame:
    """Rows of the vehicles EV-1001, EV-1002, … where the first is 1."""
    plan = FleetPlan(
        n_vehicles=vehicles,
        n_cycles=cycles,
        seed=seed,
        chemistry_shares={chemistry: 1.0},
        sample_interval_s=60.0,
    )
    table, _ = complete_rows(feature_table(VIEW, simulate_fleet(plan)), VIEW)
    number = pl.col("asset_id").str.extract(r"(\d+)$").cast(pl.Int64) + 999 + first
    return table.with_columns(
        asset_id=pl.format("EV-{}", number),
        op_index=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("asset_id"),
    )


def old_rows() -> pl.DataFrame:
    return fleet("NMC", vehicles=20, cycles=12, seed=1)


def new_rows() -> pl.DataFrame:
    """Of other vehicles and of another chemistry, whose voltages are lower."""
    return fleet("LFP", vehicles=8, cycles=8, seed=2, first=101)


def train_champion(home: Path, config: Path, *, algorithm: str | None = None) -> Settings:
    """Train on the old rows, and put that in service."""
    settings = load_settings(config, home=home)
    prepared = prepare_table(old_rows(), VIEW, settings, source="the old fleet")
    trained = train(prepared, settings, Silent(), Choice(algorithm))
    version = register(trained, settings, out=None, progress=Silent()).version.version
    promote(version, settings, force=True, reason="it is the first")
    return settings


def record(at: datetime, row: dict[str, Any], **other: Any) -> PredictionRecord:  # noqa: ANN401 - any field
    """An answer that went out, to the question of a row."""
    fields: dict[str, Any] = {
        "prediction_id": uuid7(int(at.timestamp() * 1000), *_next()),
        "request_id": "r",
        "answered_at": at,
        "vehicle_id": row["asset_id"],
        "model_name": "m",
        "model_version": "1",
        "package_fingerprint": "0" * 64,
        "role": "champion",
        "features": {name: row[name] for name in VIEW.names if row.get(name) is not None},
        "capacity_ah": 1.5,
        "soh": 0.75,
        "latency_ms": 1.0,
        "capacity_low_ah": None,
        "capacity_high_ah": None,
        "status": "unknown",
    }
    return PredictionRecord(**fields | other)


_numbers = iter(range(1, 4096 * 4096))


def _next() -> tuple[int, int]:
    number = next(_numbers)
    return number % 4096, number


def asked_and_labelled(
    settings: Settings, rows: pl.DataFrame, *, began: datetime | None = None
) -> None:
    """Put each row on record as a question, every 10 days, and its label an hour after."""
    began = began or datetime.now(UTC) - timedelta(days=300)
    answers, labels = [], []
    for row in rows.iter_rows(named=True):
        at = began + timedelta(days=10 * row["op_index"])
        answers.append(record(at, row))
        labels.append(Label(row["asset_id"], at + timedelta(hours=1), row["capacity_ah"], "bench"))
    put(settings, answers, labels)


def put(settings: Settings, answers: Iterable[PredictionRecord], labels: Iterable[Label]) -> None:
    """Put answers and labels on record."""
    with PredictionLog(settings.predictions_url) as log:
        log.append(list(answers))
    with Labels(settings.predictions_url) as store:
        store.add(list(labels))


def now() -> datetime:
    """A moment after all that was put on record."""
    return datetime.now(UTC) + timedelta(seconds=1)

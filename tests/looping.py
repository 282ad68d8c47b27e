"""A fleet that drives while its clock is moved on: what servers and workshops leave on record."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import time_machine

from batteryops.features.views import matrix
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.registration import train_and_register
from batteryops.lifecycle.time_lapse.world import TimeLapsePlan, Truth, World, make_world
from batteryops.records.identifiers import new_id
from batteryops.records.labels import Label, Labels
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.registry.mlflow_tracking import CHALLENGER, CHAMPION
from batteryops.settings import Settings, load_settings

PLAN = TimeLapsePlan(vehicles=24, weeks=30, seed=7, history_weeks=4, label_share=0.6)


def quick(config: Path, home: Path) -> Settings:
    """Settings under which a small fleet's loop takes its steps within weeks and seconds."""
    settings = load_settings(config, home=home)
    rules = settings.retraining
    training = settings.training
    return settings.model_copy(
        update={
            "training": training.model_copy(
                update={"parameters": {**training.parameters, "n_estimators": 40, "n_jobs": 1}}
            ),
            "monitoring": settings.monitoring.model_copy(
                update={"label_tolerance_days": 0.2, "window_days": 7.0, "min_labels": 20}
            ),
            "retraining": rules.model_copy(
                update={
                    "min_labels": 30,
                    "report": False,
                    "calibration_folds": 3,
                    "strategies": ("warm_start", "full"),
                    "probation_days": 7.0,
                    "trial": rules.trial.model_copy(update={"urgent_predictions": 40}),
                }
            ),
        }
    )


class Fleet:
    """Vehicles whose trips are answered, and labelled weeks later.

    Args:
        settings: of the home.
        plan: of the world.
        clock: that everything lives by.
    """

    def __init__(
        self, settings: Settings, plan: TimeLapsePlan, clock: time_machine.Traveller
    ) -> None:
        self.settings = settings
        self.world: World
        self.truth: Truth
        self.world, self.truth = make_world(plan)
        self.clock = clock
        self.now = self.world.start
        self.driven = 0

    def begin(self) -> None:
        """Train on what was driven before, and put that in service."""
        self.clock.move_to(self.now - timedelta(days=1))
        file = self.settings.home / "history.parquet"
        self.settings.home.mkdir(parents=True, exist_ok=True)
        self.world.history.write_parquet(file)
        train_and_register(
            self.settings, source=None, features_file=file, out=None, progress=Silent()
        )
        promote(1, self.settings, force=True, reason="the first")

    def week(self, *, slower: float = 1.0, failing: float = 0.0) -> datetime:
        """Drive a week; the clock stands at its end.

        Args:
            slower: how many times as long as the champion the challenger takes.
            failing: share of the questions that the challenger gives no number for.
        """
        trips = self.world.trips(self.driven)
        self.driven += 1
        for (at,), some in trips.group_by("at", maintain_order=True):
            assert isinstance(at, datetime)
            self.clock.move_to(at)
            self._answer(some, at, slower, failing)
        self.now = self.world.begins(self.driven)
        self.clock.move_to(self.now)
        self._label()
        return self.now

    def _answer(self, trips: pl.DataFrame, at: datetime, slower: float, failing: float) -> None:
        registry = open_registry(self.settings)
        records: list[PredictionRecord] = []
        requests = [new_id() for _ in range(trips.height)]
        for role in (CHAMPION, CHALLENGER):
            version = registry.find_alias(role)
            if version is None:
                continue
            package = load_model(str(version.version), self.settings).package
            said = package.predict_batch(matrix(package.view, trips)).tolist()
            served = role == CHAMPION
            for place, (row, capacity_ah) in enumerate(
                zip(trips.iter_rows(named=True), said, strict=True)
            ):
                failed = not served and place < failing * trips.height
                record = PredictionRecord(
                    prediction_id=new_id(),
                    request_id=requests[place],
                    answered_at=at,
                    vehicle_id=row["asset_id"],
                    model_name=self.settings.registry.model_name,
                    model_version=str(version.version),
                    package_fingerprint=package.fingerprint,
                    role=role,
                    features={name: row[name] for name in package.view.names},
                    capacity_ah=capacity_ah,
                    soh=capacity_ah / 2.0,
                    latency_ms=2.0 * (1.0 if served else slower),
                    capacity_low_ah=capacity_ah - 0.1,
                    capacity_high_ah=capacity_ah + 0.1,
                    status="ok",
                    served=served,
                )
                records.append(replace(record, status="failed") if failed else record)
        with PredictionLog(self.settings.predictions_url) as log:
            log.append(records)

    def _label(self) -> None:
        arrived = self.world.labels(self.now)
        with Labels(self.settings.predictions_url) as labels:
            labels.add(
                [
                    Label(row["asset_id"], row["measured_at"], row["capacity_ah"], "bench")
                    for row in arrived.iter_rows(named=True)
                ],
                key_name=None,
            )

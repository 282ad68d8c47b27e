"""The fleets of models that the loop is compared with, which learn each week and never else."""

import numpy as np
import polars as pl
import xgboost as xgb
from numpy.typing import NDArray

from batteryops.features.views import get_view, matrix
from batteryops.lifecycle.time_lapse.world import VIEW, World
from batteryops.models import boosting
from batteryops.schema import LABEL
from batteryops.settings import Settings


class WeeklyFleet:
    """Every Sunday a full refit on all labels that have arrived, whatever it is worth.

    The algorithm, its parameters and its seed are those of the loop's first model. It is told
    twice: as the schedule of the source system has it, where each model is tried for seven days
    before it answers, and as if each answered at once, untried.

    Args:
        world: whose labels nobody asked for.
        settings: parameters and seed.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world.unasked()
        self._training = settings.training
        self._view = get_view(VIEW)
        columns = ["asset_id", *self._view.names]
        self._trips = pl.concat([world.trips(week) for week in range(world.plan.weeks)]).select(
            "at", *columns
        )
        self._rows = world.history.select(*columns, LABEL)
        self.retrainings = 0
        self._newest = self._tried = self._fit()

    def predict(self, trips: pl.DataFrame) -> NDArray[np.float64]:
        """What the model of the week before last Sunday's says of trips (n,), Ah."""
        return boosting.predict(self._tried, matrix(self._view, trips))

    def predict_at_once(self, trips: pl.DataFrame) -> NDArray[np.float64]:
        """What last Sunday's model says of them."""
        return boosting.predict(self._newest, matrix(self._view, trips))

    def end_week(self, week: int) -> None:
        """Learn from the labels that have arrived by the end of a week."""
        arrived = self._world.labels(self._world.begins(week + 1))
        labelled = arrived.join(
            self._trips, left_on=["asset_id", "measured_at"], right_on=["asset_id", "at"]
        )
        self._rows = pl.concat([self._rows, labelled.select(self._rows.columns)])
        self._tried, self._newest = self._newest, self._fit()
        self.retrainings += 1

    def _fit(self) -> xgb.Booster:
        return boosting.fit(
            matrix(self._view, self._rows),
            self._rows[LABEL].to_numpy(),
            feature_names=self._view.names,
            parameters=self._training.parameters,
            seed=self._training.seed,
        )

"""The columns of a batch while it is answered: its vehicles, what is said of rows, what is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.models.domain import Position
from batteryops.records.batches import BatchVersion
from batteryops.records.record import FAILED as NO_NUMBER
from batteryops.serving.faults import VEHICLE
from batteryops.serving.live_model import LiveModel
from batteryops.serving.questions import Questions

NOBODY: Final = -1
"""The model of a vehicle that none can answer for, and of a row that is refused."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Vehicles:
    """What is known of the vehicles of a batch, by a number for each."""

    codes: NDArray[np.intp]
    """(n,), the vehicle of each row."""
    count: int
    model: NDArray[np.int8] = field(init=False)
    nominal_ah: Floats = field(init=False)
    least_ah: Floats = field(init=False)
    largest_ah: Floats = field(init=False)
    errors: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.model = np.full(self.count, NOBODY, dtype=np.int8)
        self.nominal_ah, self.least_ah, self.largest_ah = np.full((3, self.count), np.nan)


@dataclass(slots=True)
class Work:
    """The answers of a batch while they come about; NaN where there is none."""

    count: int
    models: tuple[LiveModel, ...]
    model: NDArray[np.int8] = field(init=False)
    capacity_ah: Floats = field(init=False)
    soh: Floats = field(init=False)
    low_ah: Floats = field(init=False)
    high_ah: Floats = field(init=False)
    outside: dict[int, Position] = field(init=False, default_factory=dict)
    errors: dict[int, str] = field(init=False, default_factory=dict)
    failed: dict[int, int] = field(init=False, default_factory=dict)
    """Of the rows with an error those that a model gave no number for, and which model."""

    def __post_init__(self) -> None:
        self.model = np.full(self.count, NOBODY, dtype=np.int8)
        self.capacity_ah, self.soh, self.low_ah, self.high_ah = np.full((4, self.count), np.nan)

    def forget_refused(self) -> None:
        """Nothing but the error is told of a row that has one."""
        refused = list(self.errors)
        for column in (self.capacity_ah, self.soh, self.low_ah, self.high_ah):
            column[refused] = np.nan
        self.model[refused] = NOBODY
        for row in refused:
            self.outside.pop(row, None)

    def counts(self) -> list[tuple[LiveModel, int]]:
        """How many rows each model answered, of those that answered any."""
        counted = [(model, int((self.model == at).sum())) for at, model in enumerate(self.models)]
        return [(model, count) for model, count in counted if count]

    def soh_of(self, model: LiveModel) -> Floats:
        """The states of health that one model said."""
        said: Floats = self.soh[self.model == self.models.index(model)]
        return said

    def versions(self, *, served: bool = True) -> tuple[BatchVersion, ...]:
        """The versions that were asked, and whether what they said goes out."""
        asked = {*np.unique(self.model).tolist(), *self.failed.values()}
        return tuple(
            BatchVersion(model.version, model.role, model.fingerprint, served)
            for at, model in enumerate(self.models)
            if at in asked
        )

    def logged(self, questions: Questions) -> pl.DataFrame:
        """The table of the record: `records.batches` says what is in it."""
        refused = bool(self.errors)
        row = pl.int_range(self.count, dtype=pl.Int32, eager=True).alias("row")
        features = [series.alias(name) for name, series in questions.features.items()]
        if refused:  # other rows hold finite numbers
            features = [_finite(series) for series in features]
        jointly = np.zeros(self.count, dtype=np.bool_)
        status = np.zeros(self.count, dtype=np.uint8)
        if self.outside:
            out = list(self.outside)
            status[out] = 1
            jointly[out] = [position.joint for position in self.outside.values()]
        if self.errors:
            status[list(self.errors)] = 2
        asked = self.model
        if self.failed:
            status[list(self.failed)] = 3
            asked = asked.copy()
            asked[list(self.failed)] = list(self.failed.values())
        versions = [model.version for model in self.models]
        roles = [model.role for model in self.models]
        return pl.DataFrame(
            [
                row,
                questions.vehicles.alias(VEHICLE),
                *features,
                pl.Series("capacity_ah", self.capacity_ah, nan_to_null=refused),
                pl.Series("soh", self.soh, nan_to_null=refused),
                pl.Series("low", self.low_ah, nan_to_null=refused),
                pl.Series("high", self.high_ah, nan_to_null=refused),
                _chosen("status", ["ok", "out_of_domain", None, NO_NUMBER], status, pl.String),
                _said(
                    "outside",
                    {at: position.features for at, position in self.outside.items()},
                    self.count,
                    pl.List(pl.String),
                ),
                pl.Series("outside_jointly", jointly),
                _chosen("version", [*versions, None], asked, pl.String),
                _chosen("role", [*roles, None], asked, pl.String),
                _said("error", self.errors, self.count, pl.String),
            ]
        )


def told(logged: pl.DataFrame, batch_id: str, *, withhold: bool) -> pl.DataFrame:
    """What goes out of a batch that is on record.

    Args:
        logged: its table in the log.
        batch_id: of the record.
        withhold: give no number outside of the training domain.
    """
    answered = pl.col("error").is_null()
    numbers = pl.col("status") == "ok" if withhold else answered
    whole = logged["error"].null_count() == logged.height
    prediction_id = pl.lit(f"{batch_id}:") + pl.col("row").cast(pl.String)
    clear = whole and not (logged["status"] == "out_of_domain").any()

    def given(name: str) -> pl.Expr:
        return pl.col(name) if clear else pl.when(numbers).then(name).otherwise(None)

    def of_answered(name: str) -> pl.Expr:
        return pl.col(name) if whole else pl.when(answered).then(name).otherwise(None)

    return logged.select(
        prediction_id=prediction_id
        if whole
        else pl.when(answered).then(prediction_id).otherwise(None),
        vehicle_id=VEHICLE,
        status=of_answered("status").fill_null("refused"),
        soh=given("soh"),
        capacity_ah=given("capacity_ah"),
        low_ah="low",
        high_ah="high",
        outside="outside",
        outside_jointly="outside_jointly",
        model_version=of_answered("version"),
        role=of_answered("role"),
        error="error",
    )


def _chosen(
    name: str, words: list[str | None], places: NDArray[np.int8 | np.uint8], kind: type[pl.DataType]
) -> pl.Series:
    """A column of few different words; place -1 is the last word."""
    codes = (places % len(words)).astype(np.uint32)
    return pl.Series(name, words, dtype=kind).gather(pl.Series(codes))


def _said(
    name: str, by_row: Mapping[int, object], count: int, kind: pl.DataType | type[pl.DataType]
) -> pl.Series:
    """A column of what is said of few rows; null elsewhere."""
    different = {value: at for at, value in enumerate(dict.fromkeys(by_row.values()), start=1)}
    codes = np.zeros(count, dtype=np.uint32)
    codes[list(by_row)] = [different[value] for value in by_row.values()]
    return pl.Series(name, [None, *different], dtype=kind).gather(pl.Series(codes))


def _finite(series: pl.Series) -> pl.Series:
    """Without what no record holds: NaN and infinity are null."""
    if not series.dtype.is_float():
        return series
    return (
        series.to_frame()
        .select(pl.when(pl.col(series.name).is_finite()).then(pl.col(series.name)).otherwise(None))
        .to_series()
    )

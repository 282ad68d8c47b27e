"""Many predictions at once: answered in columns, logged as one record, given row by row.

A batch goes through three steps in a thread of its own, so that the event loop goes on: its rows
are judged column by column, each vehicle is looked up once, and each model answers its vehicles'
rows in pieces that all cores share. Then the whole batch is committed to the prediction log, and
only then it is given. A row that cannot be answered is refused by itself, in the words that a
single request would get.

While a challenger shadows, batches are the champion's alone: a batch's record has no place for
answers that were not given.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import RecordsError
from batteryops.models.domain import Position
from batteryops.models.many_rows import estimate_columns
from batteryops.records.batches import BatchVersion, PredictionBatch
from batteryops.records.identifiers import new_id
from batteryops.serving.faults import MAX_VEHICLE_ID, VEHICLE, is_name
from batteryops.serving.lineup import Lineup
from batteryops.serving.live_model import LiveModel
from batteryops.serving.logs import REQUEST_ID
from batteryops.serving.problems import FAILED, LOG_UNAVAILABLE, OVERLOADED, ProblemError
from batteryops.serving.questions import Questions, faulty_columns, judged
from batteryops.serving.service import Service

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 2
_WAITING: Final = 6  # each holds its body
_RETRY_S: Final = 5
_NOBODY: Final = -1  # the model of a vehicle that none can answer for
_NO_NAME: Final = f"{VEHICLE} is not a name: expected 1 to {MAX_VEHICLE_ID} printable characters"

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What is told of a batch that is on record.

    Args:
        batch_id: of the record.
        request_id: what the request is called.
        n_answered: rows that have an answer.
        nominal: share of measured capacities that intervals are made to hold.
        model_name: the registered model.
        model_versions: those that answered.
        table: one row per row of the request, in its order: prediction_id, vehicle_id, status,
            soh, capacity_ah, low_ah, high_ah, outside (a list), outside_jointly, model_version,
            role, error. What a row does not have is null.
    """

    batch_id: str
    request_id: str
    n_answered: int
    nominal: float
    model_name: str
    model_versions: tuple[str, ...]
    table: pl.DataFrame

    @property
    def n_refused(self) -> int:
        """Rows that have an error."""
        return self.table.height - self.n_answered


class Batches:
    """Answers batches, few at a time.

    Args:
        service: whose models answer, and whose log they are put on record in.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._taken = 0
        self._threads = ThreadPoolExecutor(_AT_ONCE, "batch")
        self._cores = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "rows")
        self._log = ThreadPoolExecutor(_AT_ONCE, "batch-log")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, to be taken before the body is read.

        Raises:
            ProblemError: when none is free.
        """
        if self._taken >= _AT_ONCE + _WAITING:
            raise ProblemError(
                OVERLOADED,
                f"{self._taken} batches are being answered or wait, and at most "
                f"{_AT_ONCE + _WAITING} may; try again in {_RETRY_S} s",
                headers={"Retry-After": str(_RETRY_S)},
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, job: Callable[[], T]) -> T:
        """Do what a batch needs in a thread, when its turn comes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, job)

    def answer(
        self,
        questions: Questions,
        *,
        request_id: str,
        arrived: float,
        write: Callable[[BatchAnswer], T],
        model: LiveModel | None = None,
    ) -> tuple[BatchAnswer, T]:
        """Answer a batch and put it on record; for `run`.

        Args:
            questions: at least one row.
            write: makes what is sent out of the answer; it does so while the log is written.
            request_id: what the request is called.
            arrived: when it did, by `time.perf_counter`.
            model: who is to answer; None for whom each vehicle is routed to.

        Returns:
            The answer, which is on disk, and what `write` made of it.

        Raises:
            ProblemError: when columns are missing, or the log does not answer.
        """
        service, lineup = self._service, self._service.lineup
        models = lineup.models() if model is None else [model]
        work = _Work(len(questions), tuple(models))
        work.errors.update(questions.faults)
        vehicles = self._vehicles(questions.vehicles, models, lineup if model is None else None)
        self._estimate(questions, vehicles, work, request_id)
        batch_id, versions, table = new_id(), work.versions(), work.logged(questions)
        record = partial(
            PredictionBatch,
            batch_id=batch_id,
            request_id=request_id,
            answered_at=datetime.now(UTC),
            model_name=models[0].model_name,
            model_versions=versions,
            table=table,
            latency_ms=1000.0 * (time.perf_counter() - arrived),
        )
        committed = self._log.submit(lambda: service.log.append_batch(record()))
        try:
            answer = BatchAnswer(
                batch_id,
                request_id,
                len(questions) - len(work.errors),
                models[0].nominal,
                models[0].model_name,
                tuple(one.version for one in versions),
                told(table, batch_id, withhold=service.withhold),
            )
            content = write(answer)
        finally:
            failure = committed.exception()
        if isinstance(failure, RecordsError):
            raise ProblemError(
                LOG_UNAVAILABLE, str(failure), headers={"Retry-After": str(_RETRY_S)}
            ) from failure
        if failure is not None:
            raise failure
        for one, count in work.counts():
            service.metrics.answered(one).inc(count)
        return answer, content

    def _vehicles(
        self, names: pl.Series, models: list[LiveModel], lineup: Lineup | None
    ) -> "_Vehicles":
        """Look every vehicle up, once."""
        coded = names.cast(pl.Categorical(pl.Categories.random()))
        different = coded.drop_nulls().unique()
        known = dict(zip(different.to_physical(), different.cast(pl.String), strict=True))
        nameless = len(known)  # stands for null
        found = _Vehicles(coded.to_physical().fill_null(nameless).to_numpy(), nameless + 1)
        place = {id(model): at for at, model in enumerate(models)}
        for code, name in (known | {nameless: None}).items():
            if not is_name(name):
                found.errors[code] = _NO_NAME
                continue
            model = models[0] if lineup is None else lineup.answering(name)
            try:
                row = self._service.assets.row(name, (), model)
            except ProblemError as problem:
                found.errors[code] = problem.detail
                continue
            found.model[code] = place[id(model)]
            found.nominal_ah[code] = row.nominal_ah
            found.least_ah[code], found.largest_ah[code] = row.range_ah
        return found

    def _estimate(
        self, questions: Questions, vehicles: "_Vehicles", work: "_Work", request_id: str
    ) -> None:
        """Ask each model for the rows of its vehicles."""
        model_of = vehicles.model[vehicles.codes]
        for row in np.flatnonzero(model_of == _NOBODY).tolist():
            work.errors.setdefault(row, vehicles.errors[int(vehicles.codes[row])])
        if work.errors:
            model_of[list(work.errors)] = _NOBODY
        asked = [at for at in range(len(work.models)) if (model_of == at).any()]
        for at in asked:
            model = work.models[at]
            rows = np.flatnonzero(model_of == at)
            if lacking := [name for name in model.names if name not in questions.features]:
                faults = [f"column {name} is missing, expected numbers" for name in lacking]
                if len(asked) == 1:
                    raise faulty_columns(faults)
                work.errors.update(dict.fromkeys(rows.tolist(), "; ".join(faults)))
                continue
            matrix, wrong = judged(
                questions, model.view, None if len(rows) == len(questions) else rows
            )
            if wrong:
                work.errors.update((int(rows[place]), error) for place, error in wrong.items())
                sound = np.ones(len(rows), dtype=np.bool_)
                sound[list(wrong)] = False
                rows, matrix = rows[sound], matrix[sound]
            codes = vehicles.codes[rows]
            said = estimate_columns(
                model.package,
                matrix,
                vehicles.least_ah[codes],
                vehicles.largest_ah[codes],
                self._cores,
            )
            work.capacity_ah[rows] = said.capacity_ah
            work.soh[rows] = said.capacity_ah / vehicles.nominal_ah[codes]
            work.low_ah[rows], work.high_ah[rows] = said.low_ah, said.high_ah
            work.model[rows] = at
            work.outside.update(
                (int(rows[place]), position) for place, position in said.outside.items()
            )
            for place in np.flatnonzero(~np.isfinite(said.capacity_ah)).tolist():
                logger.error(
                    "version %s answered %r to row %d of a batch",
                    model.version,
                    said.capacity_ah[place],
                    rows[place],
                    extra={REQUEST_ID: request_id},
                )
                work.errors[int(rows[place])] = FAILED
        work.forget_refused()


@dataclass(slots=True)
class _Vehicles:
    """What is known of the vehicles of a batch, by a number for each."""

    codes: Rows
    """(n,), the vehicle of each row."""
    count: int
    model: NDArray[np.int8] = field(init=False)
    nominal_ah: Floats = field(init=False)
    least_ah: Floats = field(init=False)
    largest_ah: Floats = field(init=False)
    errors: dict[int, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.model = np.full(self.count, _NOBODY, dtype=np.int8)
        self.nominal_ah, self.least_ah, self.largest_ah = np.full((3, self.count), np.nan)


@dataclass(slots=True)
class _Work:
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

    def __post_init__(self) -> None:
        self.model = np.full(self.count, _NOBODY, dtype=np.int8)
        self.capacity_ah, self.soh, self.low_ah, self.high_ah = np.full((4, self.count), np.nan)

    def forget_refused(self) -> None:
        """Nothing but the error is told of a row that has one."""
        refused = list(self.errors)
        for column in (self.capacity_ah, self.soh, self.low_ah, self.high_ah):
            column[refused] = np.nan
        self.model[refused] = _NOBODY
        for row in refused:
            self.outside.pop(row, None)

    def counts(self) -> list[tuple[LiveModel, int]]:
        """How many rows each model answered, of those that answered any."""
        counted = [(model, int((self.model == at).sum())) for at, model in enumerate(self.models)]
        return [(model, count) for model, count in counted if count]

    def versions(self) -> tuple[BatchVersion, ...]:
        """The versions that answered."""
        return tuple(
            BatchVersion(model.version, model.role, model.fingerprint) for model, _ in self.counts()
        )

    def logged(self, questions: Questions) -> pl.DataFrame:
        """The table of the record: `records.batches` says what is in it."""
        row = pl.int_range(self.count, dtype=pl.Int32, eager=True).alias("row")
        features = [series.alias(name) for name, series in questions.features.items()]
        if self.errors:  # other rows hold finite numbers
            features = [_finite(series) for series in features]
        jointly = np.zeros(self.count, dtype=np.bool_)
        status = np.zeros(self.count, dtype=np.uint8)
        if self.outside:
            out = list(self.outside)
            status[out] = 1
            jointly[out] = [position.joint for position in self.outside.values()]
        if self.errors:
            status[list(self.errors)] = 2
        versions = [model.version for model in self.models]
        roles = [model.role for model in self.models]
        return pl.DataFrame(
            [
                row,
                questions.vehicles.alias(VEHICLE),
                *features,
                pl.Series("capacity_ah", self.capacity_ah, nan_to_null=True),
                pl.Series("soh", self.soh, nan_to_null=True),
                pl.Series("low", self.low_ah, nan_to_null=True),
                pl.Series("high", self.high_ah, nan_to_null=True),
                _chosen("status", ["ok", "out_of_domain", None], status, pl.String),
                _said(
                    "outside",
                    {at: position.features for at, position in self.outside.items()},
                    self.count,
                    pl.List(pl.String),
                ),
                pl.Series("outside_jointly", jointly),
                _chosen("version", [*versions, None], self.model, pl.String),
                _chosen("role", [*roles, None], self.model, pl.String),
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

    return logged.select(
        prediction_id=prediction_id
        if whole
        else pl.when(answered).then(prediction_id).otherwise(None),
        vehicle_id=VEHICLE,
        status=pl.col("status") if whole else pl.col("status").fill_null("refused"),
        soh=given("soh"),
        capacity_ah=given("capacity_ah"),
        low_ah="low",
        high_ah="high",
        outside="outside",
        outside_jointly="outside_jointly",
        model_version="version",
        role="role",
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

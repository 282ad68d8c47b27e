"""Many predictions at once: answered in columns, logged as one record, given row by row.

A batch goes through three steps in a thread of its own, so that the event loop goes on: its rows
are judged column by column, each vehicle is looked up once, and each model answers its vehicles'
rows in pieces that all cores share. Then the whole batch is committed to the prediction log, and
only then it is given. A row that cannot be answered is refused by itself, in the words that a
single request would get.

While a challenger shadows, the batch is shown to it once the answer is on record: what it says
becomes a batch of its own, with the same `request_id` and the same numbers of rows, that was not
served. Nobody waits for it. A challenger that fails, or is too slow, takes nothing from anybody.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import numpy as np
import polars as pl

from batteryops.errors import RecordsError
from batteryops.models.many_rows import estimate_columns
from batteryops.records.batches import PredictionBatch
from batteryops.records.identifiers import new_id
from batteryops.serving.batch_columns import NOBODY, Vehicles, Work, told
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
_SHADOWED: Final = 2  # with the challenger that shadows or waiting for it; each holds its rows
_RETRY_S: Final = 5
_NO_NAME: Final = f"{VEHICLE} is not a name: expected 1 to {MAX_VEHICLE_ID} printable characters"

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


@dataclass(frozen=True, slots=True)
class _Answered:
    """A batch whose answer is on record, for a challenger that shadows."""

    questions: Questions
    refused: Mapping[int, str]
    request_id: str
    answered_at: datetime
    besides_ms: float  # what answering took, but for what the models took of it


class Batches:
    """Answers batches, few at a time.

    Args:
        service: whose models answer, and whose log they are put on record in.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._taken = 0
        self._threads = ThreadPoolExecutor(_AT_ONCE, "batch")
        self._n_cores = len(os.sched_getaffinity(0))
        self._cores = ThreadPoolExecutor(self._n_cores, "rows")
        self._log = ThreadPoolExecutor(_AT_ONCE, "batch-log")
        self._shadows = ThreadPoolExecutor(1, "batch-shadow")
        self._shadowed = threading.BoundedSemaphore(_SHADOWED)

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

    def close(self) -> None:
        """Finish what was begun, what is shown to a challenger too; take nothing more."""
        for threads in (self._threads, self._log, self._shadows, self._cores):
            threads.shutdown()

    async def run(self, job: Callable[[], T]) -> T:
        """Do what a batch needs in a thread, when its turn comes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, job)

    def answer(  # noqa: PLR0913 - what is asked of whom, and what becomes of it
        self,
        questions: Questions,
        lineup: Lineup,
        *,
        request_id: str,
        arrived: float,
        write: Callable[[BatchAnswer], T],
        model: LiveModel | None = None,
    ) -> tuple[BatchAnswer, T]:
        """Answer a batch and put it on record; for `run`.

        Args:
            questions: at least one row.
            lineup: whose features were looked for, also where another is in service since.
            write: makes what is sent out of the answer; it does so while the log is written.
            request_id: what the request is called.
            arrived: when it did, by `time.perf_counter`.
            model: who is to answer; None for whom each vehicle is routed to.

        Returns:
            The answer, which is on disk, and what `write` made of it.

        Raises:
            ProblemError: when columns are missing, or the log does not answer.
        """
        service = self._service
        models = lineup.models() if model is None else [model]
        work = Work(len(questions), tuple(models))
        work.errors.update(questions.faults)
        vehicles = self._vehicles(questions.vehicles, models, lineup if model is None else None)
        took_ms = self._estimate(questions, vehicles, work, request_id)
        batch_id, versions, table = new_id(), work.versions(), work.logged(questions)
        answered_at, latency_ms = datetime.now(UTC), 1000.0 * (time.perf_counter() - arrived)
        record = partial(
            PredictionBatch,
            batch_id=batch_id,
            request_id=request_id,
            answered_at=answered_at,
            model_name=models[0].model_name,
            model_versions=versions,
            table=table,
            latency_ms=latency_ms,
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
            service.metrics.said_column(one, work.soh_of(one))
        if model is None and lineup.shadow is not None:
            besides_ms = max(latency_ms - took_ms, 0.0)
            refused = {at: why for at, why in work.errors.items() if at not in work.failed}
            answered = _Answered(questions, refused, request_id, answered_at, besides_ms)
            self._show(lineup.shadow, answered)
        return answer, content

    def _show(self, shadow: LiveModel, answered: _Answered) -> None:
        """Have a challenger answer for the log only, some time; returns at once."""
        if not self._shadowed.acquire(blocking=False):
            self._service.metrics.not_shadowed.labels(shadow.version).inc(len(answered.questions))
            return
        try:
            self._shadows.submit(self._answer_unheard, shadow, answered)
        except RuntimeError:  # the server ends
            self._shadowed.release()

    def _answer_unheard(self, shadow: LiveModel, answered: _Answered) -> None:
        """Put on record what a challenger says to the rows that were answered."""
        questions = answered.questions
        work = Work(len(questions), (shadow,))
        work.errors.update(answered.refused)
        try:
            vehicles = self._vehicles(questions.vehicles, [shadow], None)
            took_ms = self._estimate(questions, vehicles, work, answered.request_id)
            versions = work.versions(served=False)
            if not versions:  # it takes other assets
                return
            self._service.log.append_batch(
                PredictionBatch(
                    batch_id=new_id(),
                    request_id=answered.request_id,
                    answered_at=answered.answered_at,
                    model_name=shadow.model_name,
                    model_versions=versions,
                    table=work.logged(questions),
                    latency_ms=answered.besides_ms + took_ms,
                )
            )
            self._service.metrics.shadowed(shadow).inc(len(questions) - len(work.errors))
        except (ProblemError, RecordsError) as error:  # it takes other features, the log is down
            logger.warning("version %s shadowed no batch: %s", shadow.version, error)
        except Exception:  # the champion's answer is out
            logger.exception("version %s, which shadows, failed on a batch", shadow.version)
        finally:
            self._shadowed.release()

    def _vehicles(
        self, names: pl.Series, models: list[LiveModel], lineup: Lineup | None
    ) -> Vehicles:
        """Look every vehicle up, once."""
        coded = names.cast(pl.Categorical(pl.Categories.random()))
        different = coded.drop_nulls().unique()
        known = dict(zip(different.to_physical(), different.cast(pl.String), strict=True))
        nameless = len(known)  # stands for null
        found = Vehicles(coded.to_physical().fill_null(nameless).to_numpy(), nameless + 1)
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
        self, questions: Questions, vehicles: Vehicles, work: Work, request_id: str
    ) -> float:
        """Ask each model for the rows of its vehicles.

        Returns:
            How long that took, ms.
        """
        began = time.perf_counter()
        model_of = vehicles.model[vehicles.codes]
        for row in np.flatnonzero(model_of == NOBODY).tolist():
            work.errors.setdefault(row, vehicles.errors[int(vehicles.codes[row])])
        if work.errors:
            model_of[list(work.errors)] = NOBODY
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
            try:
                said = estimate_columns(
                    model.package,
                    matrix,
                    (vehicles.least_ah[codes], vehicles.largest_ah[codes]),
                    self._cores,
                    self._n_cores,
                )
            except Exception:  # a broken model takes nothing from the rows of another one
                logger.exception(
                    "version %s, %s, failed on a batch",
                    model.version,
                    model.role,
                    extra={REQUEST_ID: request_id},
                )
                work.errors.update(dict.fromkeys(rows.tolist(), FAILED))
                work.failed.update(dict.fromkeys(rows.tolist(), at))
                continue
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
                work.failed[int(rows[place])] = at
        work.forget_refused()
        return 1000.0 * (time.perf_counter() - began)

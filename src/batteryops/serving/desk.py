"""Where single predictions are answered: all that came in one turn of the event loop at once.

A request that has arrived is laid on the desk. Everything on the desk is read, asked of its model
in one call, and written to the log. Where there are few, that is done here: the loop waits for the
disk, as there is nothing else for it to do. Where there are many, or the disk is slow, they are
handed to the one writer of the log, and what comes in while its commit runs is answered together
after it, or beside it once there is enough. Answers go out when they are on disk: requests together
cost half of what they cost one by one, the commit included. Nobody waits for company that may not
come, but for the tenth of a millisecond in which those who were answered together ask again.

Everything here runs on the event loop's thread, but for `_written`, which the writer calls.
"""

import asyncio
import logging
import math
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol

import orjson

from batteryops.errors import RecordsError
from batteryops.models.domain import Position
from batteryops.models.package import Estimate
from batteryops.records.group_commit import BadRowsError, QueueFullError, encode_time
from batteryops.records.identifiers import new_id
from batteryops.records.record import FAILED as NO_NUMBER
from batteryops.records.rows import Row as Encoded
from batteryops.serving.answer import document_of
from batteryops.serving.body import read_object
from batteryops.serving.commit import log_unavailable, overloaded
from batteryops.serving.explainer import Explainer
from batteryops.serving.faults import VEHICLE
from batteryops.serving.lineup import Lineup
from batteryops.serving.live_model import LiveModel, Row
from batteryops.serving.logs import REQUEST_ID
from batteryops.serving.problems import FAILED, ProblemError, plain
from batteryops.serving.service import Service

logger = logging.getLogger(__name__)

_ENOUGH: Final = 16  # requests that are worth a turn of their own while a commit runs
_COME_BACK_S: Final = 0.0001  # in which most of those who were answered together ask again
_NOTHING: Final = Estimate(math.nan, math.nan, math.nan, Position(0.0))


class Asked(Protocol):
    """A request that has arrived whole."""

    @property
    def arrived(self) -> float:
        """When, by `time.perf_counter`."""

    request_id: str
    """What it is called; empty where it has no name yet."""

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Those that matter, names in lower case."""

    @property
    def content(self) -> bytes:
        """The body."""

    def reply(self, content: bytes) -> None:
        """Answer with a JSON document and status 200."""

    def refuse(self, problem: ProblemError) -> None:
        """Answer with a problem document."""


@dataclass(slots=True, eq=False)
class Taken:
    """A request on its way through the desk.

    `latency_ms` is from its arrival to the prediction; `model_ms` of it took the model, for all
    that were asked of it together, as each waits for all of them.
    """

    asked: Asked
    row: Row
    model: LiveModel
    prediction_id: str = ""
    latency_ms: float = 0.0
    model_ms: float = 0.0


class Desk:
    """Answers single predictions.

    Args:
        service: whose models answer, and whose writer puts answers on record.
        loop: the event loop that requests come from.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self.lineup = service.lineup
        self._writer = service.writer
        self._doors = service.doors
        self._metrics = service.metrics
        self._assets = service.assets
        self._loop = loop
        self._waiting: list[Asked] = []
        self._begun = False
        self._under_way = 0  # commits that answers wait for
        self._withhold = service.withhold
        self._acknowledge_first = service.settings.serving.log.mode == "async"
        self._explainer = service.explainer if service.settings.serving.explain_share else None

    def ask(self, asked: Asked) -> None:
        """Lay a request on the desk; it is answered, or refused, in a while."""
        self._waiting.append(asked)
        if not self._under_way or len(self._waiting) >= _ENOUGH:
            self._begin()

    def _begin(self) -> None:
        """Answer what waits once the loop has looked at the network again."""
        if self._waiting and not self._begun:
            self._begun = True
            self._loop.call_soon(self._answer_waiting)

    def _gather_after(self, n_answered: int) -> None:
        """Give those who were answered together a moment to ask together again.

        It is spent looking at the network: a processor that sleeps for so short a time is slower
        for longer than that when it wakes.
        """
        if self._begun:
            return
        self._begun = True
        wanted = min(n_answered, _ENOUGH)
        patience_s = _COME_BACK_S if wanted > 1 else 0.0
        self._loop.call_soon(self._gather, wanted, time.perf_counter() + patience_s)

    def _gather(self, wanted: int, until: float) -> None:
        if len(self._waiting) < wanted and time.perf_counter() < until:
            self._loop.call_soon(self._gather, wanted, until)
        elif self._waiting:
            self._answer_waiting()
        else:
            self._begun = False

    def _answer_waiting(self) -> None:
        self._begun = False
        waiting, self._waiting = self._waiting, []
        lineup = self.lineup
        taken = []
        for asked in waiting:
            try:
                taken.append(self._take(asked, lineup))
            except ProblemError as problem:
                asked.refuse(problem)
            except Exception:
                logger.exception("request failed", extra={REQUEST_ID: asked.request_id})
                asked.refuse(ProblemError(plain(500), FAILED))
        if not taken:
            return
        try:
            self._answer(taken, lineup)
        except Exception:  # whatever it is, nobody may be left waiting
            logger.exception("%d requests failed", len(taken))
            self._refuse(taken, ProblemError(plain(500), FAILED))

    def _answer(self, asked: list[Taken], lineup: Lineup) -> None:
        taken = self._answered(asked, lineup)
        records = self._records(asked, taken, lineup)
        if not taken:
            self._note(records)
            return
        if self._is_quiet(len(records)) and self._writer.write_now(records):
            self._reply(taken)
            if self._explainer is not None:
                self._explain_some(self._explainer, taken)
            self._gather_after(len(taken))
            return
        try:
            self._writer.submit(records, partial(self._written, taken))
        except QueueFullError as error:
            self._refuse(taken, overloaded(error))
        except RecordsError as error:
            self._refuse(taken, log_unavailable(error))
        else:
            if self._acknowledge_first:
                self._reply(taken)
            else:
                self._under_way += 1

    def _is_quiet(self, n_records: int) -> bool:
        """Whether the commit may be made here: too few callers to do anything else meanwhile."""
        return n_records < _ENOUGH and not self._under_way and not self._acknowledge_first

    def _take(self, asked: Asked, lineup: Lineup) -> Taken:
        self._doors.admit(asked.headers.get(b"authorization", b""), "predict")
        body = read_object(asked.headers, asked.content)
        vehicle_id = body.get(VEHICLE)
        model = lineup.answering(vehicle_id) if isinstance(vehicle_id, str) else lineup.champion
        return Taken(asked, self._assets.row_of(body, model), model)

    def _answered(self, taken: list[Taken], lineup: Lineup) -> list[Taken]:
        """Ask the models; those that got a number."""
        for model in lineup.models():
            own = [one for one in taken if one.model is model]
            if own:
                hits, took_ms = _ask(model, [one.row for one in own])
                for one in own:
                    one.model_ms = took_ms
                if hits:
                    self._metrics.cache_hits(model).inc(hits)
        if all(math.isfinite(one.row.estimate.capacity_ah) for one in taken):
            return taken
        for one in taken:
            if not math.isfinite(one.row.estimate.capacity_ah):
                logger.error(
                    "version %s answered %r to %r",
                    one.model.version,
                    one.row.estimate.capacity_ah,
                    one.row.values,
                    extra={REQUEST_ID: one.asked.request_id},
                )
                one.asked.refuse(ProblemError(plain(500), FAILED))
        return [one for one in taken if math.isfinite(one.row.estimate.capacity_ah)]

    def _records(self, asked: list[Taken], taken: list[Taken], lineup: Lineup) -> list[Encoded]:
        """Write down what the models said, and where one said nothing."""
        answered_at = encode_time(datetime.now(UTC))
        now = time.perf_counter()
        for one in asked:
            one.prediction_id = new_id()
            if not one.asked.request_id:
                one.asked.request_id = one.prediction_id
            one.latency_ms = 1000.0 * (now - one.asked.arrived)
        records = [
            _encoded(one, one.row, one.model, answered_at, one.prediction_id, one.latency_ms)
            for one in taken
        ]
        shadow = lineup.shadow
        if shadow is not None:
            records += self._shadowed(asked, shadow, answered_at)
        if len(taken) < len(asked):
            records += [
                _failure(one, one.row, one.model, answered_at, one.prediction_id, one.latency_ms)
                for one in asked
                if not math.isfinite(one.row.estimate.capacity_ah)
            ]
        return records

    def _shadowed(self, asked: list[Taken], shadow: LiveModel, answered_at: str) -> list[Encoded]:
        """What the challenger would have said, where it takes the same features.

        Its latency is what its answer would have taken: that of the answer which goes out, with the
        time of the one model exchanged for the other's.
        """
        pairs = [
            (one, row)
            for one in asked
            if (row := shadow.same_question(one.row, one.model)) is not None
        ]
        if not pairs:
            return []
        _, took_ms = _ask(shadow, [row for _, row in pairs])
        records = []
        n_answered = 0
        for one, row in pairs:
            answered = math.isfinite(row.estimate.capacity_ah)
            n_answered += answered
            latency_ms = max(one.latency_ms - one.model_ms, 0.0) + took_ms
            write = _encoded if answered else _failure
            records.append(write(one, row, shadow, answered_at, new_id(), latency_ms, served=False))
        self._metrics.shadowed(shadow).inc(n_answered)
        return records

    def _note(self, records: list[Encoded]) -> None:
        """Have on record what nobody waits for."""
        try:
            self._writer.submit(records, _noted)
        except RecordsError as error:
            _noted(error)

    def _written(self, taken: list[Taken], error: BaseException | None) -> None:
        """The writer is done with these; called from its thread."""
        bad: Collection[int] = ()
        if isinstance(error, BadRowsError):  # the others are on disk
            bad = error.errors
        elif error is not None:
            bad = range(len(taken))
        kept = [one for at, one in enumerate(taken) if at not in bad] if bad else taken
        tell = self._loop.call_soon_threadsafe
        if not self._acknowledge_first:
            tell(self._settled, kept)
        if kept and self._explainer is not None:
            tell(self._explain_some, self._explainer, kept)
        if error is not None and len(kept) < len(taken):
            lost = [one for at, one in enumerate(taken) if at in bad]
            if self._acknowledge_first:
                tell(self._metrics.lost.inc, len(lost))
            else:
                tell(self._refuse, lost, log_unavailable(error))

    def _settled(self, kept: list[Taken]) -> None:
        """A commit is over; those that it kept are told, and those who waited for it come next."""
        self._under_way -= 1
        self._reply(kept)
        self._gather_after(len(kept))

    def _reply(self, taken: list[Taken]) -> None:
        for one in taken:
            row, model = one.row, one.model
            told = document_of(
                row,
                model,
                prediction_id=one.prediction_id,
                request_id=one.asked.request_id,
                withhold=self._withhold,
            )
            one.asked.reply(orjson.dumps(told))
        for model in {id(one.model): one.model for one in taken}.values():
            own = [one.row.soh for one in taken if one.model is model]
            self._metrics.answered(model).inc(len(own))
            self._metrics.said(model, own)

    def _explain_some(self, explainer: Explainer, taken: list[Taken]) -> None:
        """Have a share of what is on record explained there."""
        for one in taken:
            if explainer.wants(one.prediction_id):
                explainer.offer(
                    one.prediction_id,
                    one.model.package,
                    one.row.values,
                    one.row.estimate.capacity_ah,
                )

    def _refuse(self, taken: list[Taken], problem: ProblemError) -> None:
        for one in taken:
            one.asked.refuse(problem)


def _ask(model: LiveModel, rows: list[Row]) -> tuple[int, float]:
    """Have a model answer; a row that it crashes at has no number then, and the others have theirs.

    Returns:
        How many were known from the cache, and how long it took, ms.
    """
    began = time.perf_counter()
    try:
        hits = model.estimate(rows)
    except Exception:  # a broken model takes nothing from those whom another one answers
        logger.exception("version %s, %s, failed", model.version, model.role)
        hits = 0
        for row in rows:
            row.estimate = _NOTHING
            if len(rows) > 1:
                with suppress(Exception):
                    hits += model.estimate([row])
    return hits, 1000.0 * (time.perf_counter() - began)


def _noted(error: BaseException | None) -> None:
    if error is not None:
        logger.warning("questions that got no number are not on record: %s", error)


def _encoded(  # noqa: PLR0913, PLR0917 - who asked, what was answered, by whom
    one: Taken,
    row: Row,
    model: LiveModel,
    answered_at: str,
    prediction_id: str,
    latency_ms: float,
    *,
    served: bool = True,
) -> Encoded:
    """A record in the order of `records.group_commit.ROW_COLUMNS`."""
    estimate = row.estimate
    position = estimate.position
    return (
        prediction_id,
        one.asked.request_id,
        answered_at,
        row.vehicle_id,
        model.model_name,
        model.version,
        model.fingerprint,
        model.role,
        orjson.dumps(dict(zip(model.names, row.values, strict=True))).decode(),
        estimate.capacity_ah,
        row.soh,
        latency_ms,
        estimate.low_ah,
        estimate.high_ah,
        "ok" if position.inside else "out_of_domain",
        orjson.dumps(position.features).decode() if position.features else "[]",
        int(position.joint),
        None,
        int(row.cached),
        int(served),
        None,
        None,
    )


def _failure(  # noqa: PLR0913, PLR0917 - as `_encoded`
    one: Taken,
    row: Row,
    model: LiveModel,
    answered_at: str,
    prediction_id: str,
    latency_ms: float,
    *,
    served: bool = False,
) -> Encoded:
    """The record of a question that a model gave no number for; it holds zeros, which mean none."""
    return (
        prediction_id,
        one.asked.request_id,
        answered_at,
        row.vehicle_id,
        model.model_name,
        model.version,
        model.fingerprint,
        model.role,
        orjson.dumps(dict(zip(model.names, row.values, strict=True))).decode(),
        0.0,
        0.0,
        latency_ms,
        None,
        None,
        NO_NUMBER,
        "[]",
        0,
        None,
        0,
        int(served),
        None,
        None,
    )

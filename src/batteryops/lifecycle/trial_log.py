"""What two versions answered on live traffic, read off the prediction log in chunks.

Of the questions that have a label, those nearest to it are kept; of all others a sample, the same
for both versions: the questions with the smallest hashes. Memory grows with labels and vehicles,
and never with the rows of the log.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import polars as pl

from batteryops.evaluation.ab_trial import ROLES
from batteryops.monitoring.label_join import LabelTable, join_labels

SAMPLED: Final = 20_000
"""Questions that are looked at one by one: their latency, and whether they got a number."""

_NEAREST: Final = 5  # questions kept of each label and model, as not all were asked of both
_KINDS: Final[dict[str, Any]] = {
    "question": pl.UInt64(),
    "by": pl.String(),
    "vehicle_id": pl.String(),
    "capacity_ah": pl.Float64(),
    "latency_ms": pl.Float64(),
    "failed": pl.Boolean(),
}
_NEAR_KINDS: Final = _KINDS | {
    "label": pl.UInt32(),
    "label_ah": pl.Float64(),
    "away": pl.Duration("us"),
}


@dataclass(frozen=True, slots=True)
class Contender:
    """A version whose answers are looked for.

    Args:
        role: `champion` or `challenger` of the trial, whatever it stood for when it answered.
        version: its number, as rows of the log have it.
        fingerprint: of its package, likewise.
    """

    role: str
    version: str
    fingerprint: str


@dataclass(slots=True, eq=False)
class LiveAnswers:
    """What both versions answered; `add` takes chunks of the log in any order.

    Args:
        labels: that answers are joined to.
        counting: rows of `labels.table` that count, as `label`.
        contenders: whose answers are looked for.
        sampled: questions that are kept for what needs no label.
    """

    labels: LabelTable
    counting: pl.Series
    contenders: tuple[Contender, ...]
    sampled: int = SAMPLED
    asked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    """Questions by model, all of them."""
    failed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    """Those that got no number."""
    sample: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_KINDS))
    """One row per answer to a sampled question, and one per vehicle and model at least."""
    near: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_NEAR_KINDS))
    """The answers nearest to each label."""
    _limit: int | None = None

    def scan(self, frames: Iterable[pl.DataFrame]) -> None:
        """Take all chunks of a span."""
        for frame in frames:
            self.add(frame)
        self._prune()

    def add(self, frame: pl.DataFrame) -> None:
        """Take a chunk, as `PredictionLog.frames(..., failed=True)` yields it."""
        by = pl.coalesce(
            pl.when(
                pl.col("model_version") == one.version,
                pl.col("package_fingerprint") == one.fingerprint,
            ).then(pl.lit(one.role))
            for one in self.contenders
        )
        rows = (
            frame.with_columns(by=by)
            .filter(pl.col("by").is_not_null())
            .with_columns(
                failed=pl.col("status") == "failed",
                question=pl.struct(
                    "request_id",
                    "answered_at",
                    "vehicle_id",
                    pl.col("prediction_id").str.extract(":(.*)$"),  # the row of a batch
                ).hash(),
            )
        )
        if rows.is_empty():
            return
        for role, count, failed in rows.group_by("by").agg(pl.len(), pl.col("failed").sum()).rows():
            self.asked[role] += count
            self.failed[role] += failed
        joined = join_labels(
            self.labels,  # a question that got no number belongs to a label too
            rows.with_columns(pl.col("capacity_ah").fill_null(0.0), served=pl.lit(value=True)),
            further=("question", "by", "latency_ms", "failed"),
        ).rows
        measured = self.labels.table.with_row_index("label").select("label", "measured_at")
        beside = (
            joined.filter(pl.col("label").is_in(self.counting.implode()))
            .join(measured, on="label")
            .with_columns(away=(pl.col("answered_at") - pl.col("measured_at")).abs())
        )
        self.near = _nearest(pl.concat([self.near, beside.select(*_NEAR_KINDS)]))
        own = rows.select(*_KINDS)
        if self._limit is not None:
            own = pl.concat([own.filter(pl.col("question") <= self._limit), _one_each(own)])
        self.sample = pl.concat([self.sample, own])
        if self.sample.height > 4 * self.sampled:
            self._prune()

    def _prune(self) -> None:
        """Keep the sampled questions, and of each vehicle one answer of each model."""
        told_once = self.sample.unique(["question", "by"], keep="first", maintain_order=True)
        questions = told_once["question"].unique().sort()
        if questions.len() > self.sampled:
            self._limit = int(questions[self.sampled - 1])
            kept = told_once.filter(pl.col("question") <= self._limit)
            told_once = pl.concat([kept, _one_each(told_once)]).unique(
                ["question", "by"], keep="first", maintain_order=True
            )
        self.sample = told_once


def live_answers(
    frames: Iterable[pl.DataFrame],
    labels: LabelTable,
    contenders: tuple[Contender, ...],
    *,
    unseen_since: datetime,
) -> LiveAnswers:
    """Read what contenders answered off the chunks of a span.

    Args:
        frames: as `PredictionLog.frames(..., failed=True)` yields them.
        labels: all that answers may belong to.
        contenders: whose answers are looked for.
        unseen_since: labels received before may be what a model learned from, and do not count.
    """
    numbered = labels.table.with_row_index("label")
    counting = numbered.filter(pl.col("received_at") >= unseen_since)["label"]
    found = LiveAnswers(labels, counting, contenders)
    found.scan(frames)
    return found


def _one_each(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each vehicle and model the answer to the question with the smallest hash."""
    return rows.sort("question").unique(["vehicle_id", "by"], keep="first", maintain_order=True)


def _nearest(rows: pl.DataFrame) -> pl.DataFrame:
    """The answers nearest to each label, of each model."""
    return (
        rows.unique(["label", "by", "question"], keep="first", maintain_order=True)
        .sort("label", "by", "away", "question")
        .filter(pl.int_range(pl.len()).over("label", "by") < _NEAREST)
    )

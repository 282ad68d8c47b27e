"""Labels that came since a model was trained, each beside the question that it answers.

The features of a question are in the prediction log, and its truth comes weeks later as a label.
Together they are a row that a model can learn from. One label is one row: of several questions that
it could answer, the nearest in time, and of several answers to one question (a shadow's, one from
the cache) none is more than the question itself. The log is read in chunks; memory grows with the
labels.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import polars as pl

from batteryops.errors import SettingsError, UnknownAssetError
from batteryops.features.view import FeatureView
from batteryops.monitoring.label_join import LabelTable, join_labels, label_table
from batteryops.records.labels import CLOCKS_DIFFER, Labels
from batteryops.records.predictions import PredictionLog
from batteryops.schema import LABEL, Profile
from batteryops.settings import Settings

NO_PROFILE: Final = "no profile"
IMPOSSIBLE: Final = "impossible capacity"
CONTRADICTING: Final = "contradicting"
CLOCK_JUMP: Final = "measured after it was received"
REPEATED: Final = "said again"
NO_QUESTION: Final = "no question near"
OTHER_VIEW: Final = "features of another view"
SENSOR_FAULT: Final = "a sensor was wrong"
AMBIGUOUS: Final = "several questions at one time"

_NEIGHBOURS: Final = timedelta(days=90)
"""Labels that arrived so long before are looked at too: a question may be theirs, and a new label
may contradict them. Labels of one battery come in about the order in which they were measured."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_US: Final = timedelta(microseconds=1)
_KNOWN_VEHICLES: Final = 65_536  # that are looked up once
_ROWS_AT_ONCE: Final = 20_000

_STAGES: Final = (OTHER_VIEW, SENSOR_FAULT)  # what a question lacks, the worse first; then nothing
_USABLE: Final = len(_STAGES)


@dataclass(frozen=True, slots=True, eq=False)
class FreshLabels:
    """Labels that came, as rows to learn from; `fresh_labels` yields it.

    Args:
        table: `asset_id`, `op_index`, the view's features, `capacity_ah`, `answered_at`,
            `received_at`; by asset and time of the answer. `op_index` counts an asset's rows of
            this table from 1: a question does not say where in a battery's life it was asked.
        dropped: labels that are no row, by reason.
        looked_until: every label received before this time was looked at; None where there is none
            yet. Who asks for what came since then gets each label once.
    """

    table: pl.DataFrame
    dropped: Mapping[str, int]
    looked_until: datetime | None

    @property
    def n(self) -> int:
        """How many rows."""
        return self.table.height

    @property
    def vehicles(self) -> int:
        """Of how many vehicles."""
        return int(self.table["asset_id"].n_unique())

    @property
    def newest(self) -> datetime | None:
        """When the newest of them was received."""
        return _newest(self.table)

    def __str__(self) -> str:
        """In one line, for people."""
        told = f"{self.n} labels of {self.vehicles} vehicles"
        if not self.dropped:
            return told
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.dropped.items())
        return f"{told}; {sum(self.dropped.values())} left out ({reasons})"

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows, ready for `json.dumps`."""
        return {
            "labels": self.n,
            "vehicles": self.vehicles,
            "newest": self.newest and self.newest.isoformat(),
            "dropped": dict(self.dropped),
        }


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """How many labels came, without a look at the log.

    Args:
        n: labels that count; some of them may have no question near.
        vehicles: of so many vehicles.
        newest: when the newest was received; None where there is none.
    """

    n: int
    vehicles: int
    newest: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class _Arrived:
    """The labels of a span of arrival that may count.

    Args:
        joined: with their neighbours from before the span.
        own: rows of `joined.table` that arrived in the span and can be true, with their number in
            it, `label`.
        dropped: of the span, by reason.
        looked_until: as for `FreshLabels`.
    """

    joined: LabelTable
    own: pl.DataFrame
    dropped: Counter[str]
    looked_until: datetime | None


def fresh_labels(
    settings: Settings, view: FeatureView, *, since: datetime | None, until: datetime
) -> FreshLabels:
    """The labels that were received in a span, each with the features of its question.

    Left out are labels that contradict each other, that no battery of the profile can have, or
    that have no question within `monitoring.label_tolerance_days`; and those of which every
    question near lacks a feature that the view requires (it was asked of a model of another view),
    has a value that a sensor cannot have measured, or was asked in one batch with another of the
    same vehicle, so that nothing says which of them is answered.

    Args:
        settings: the log, the tolerance, the profiles.
        view: whose features are wanted.
        since: first time of arrival that is taken, with a zone; None: all.
        until: first time of arrival that is not taken any more.

    Raises:
        RecordsError: the database is out of reach.
    """
    with closing(PredictionLog(settings.predictions_url)) as log:
        arrived = _arrived(Labels.beside(log), settings, since=since, until=until)
        best = _questions(log, arrived, view)
    found = arrived.own.join(best, on="label", how="left", maintain_order="left")
    stage = pl.col("stage")
    reason = (
        pl.when(stage.is_null())
        .then(pl.lit(NO_QUESTION))
        .when(stage < _USABLE)
        .then(stage.replace_strict(dict(enumerate(_STAGES)), default=None))
        .when("ambiguous")
        .then(pl.lit(AMBIGUOUS))
    )
    judged = found.with_columns(reason=reason)
    dropped = arrived.dropped + Counter(judged["reason"].drop_nulls().to_list())
    rows = (  # in the order of the labels: spans of an asset's labels follow each other
        judged.filter(pl.col("reason").is_null())
        .with_columns(op_index=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("asset_id"))
        .select("asset_id", "op_index", *view.names, LABEL, "answered_at", "received_at")
    )
    return FreshLabels(rows, dict(sorted(dropped.items())), arrived.looked_until)


def count_labels(settings: Settings, *, since: datetime | None, until: datetime) -> LabelCounts:
    """How many labels were received in a span: `fresh_labels` without a look at the log.

    Args:
        settings: the database, the profiles.
        since: as for `fresh_labels`.
        until: likewise.

    Raises:
        RecordsError: the database is out of reach.
    """
    with Labels(settings.predictions_url) as labels:
        own = _arrived(labels, settings, since=since, until=until).own
    return LabelCounts(own.height, int(own["asset_id"].n_unique()), _newest(own))


def _arrived(
    labels: Labels, settings: Settings, *, since: datetime | None, until: datetime
) -> _Arrived:
    begin = _EPOCH if since is None else since
    everything = labels.frame(max(_EPOCH, begin - _NEIGHBOURS), corrected=True).filter(
        pl.col("received_at") < until
    )
    tolerance = timedelta(days=settings.monitoring.label_tolerance_days)
    joined = label_table(everything, tolerance=tolerance)
    in_span = pl.col("received_at") >= begin
    came = everything.filter(in_span)
    counting = joined.table.with_row_index("label").filter(in_span)
    contradicting = joined.contradicting.filter(in_span).height
    jumped = came.filter(pl.col("measured_at") > pl.col("received_at") + CLOCKS_DIFFER).height
    judged = _with_wrongs(counting, lru_cache(_KNOWN_VEHICLES)(settings.profile_of))
    dropped = Counter(judged["wrong"].drop_nulls().to_list())
    dropped[CONTRADICTING] = contradicting
    dropped[CLOCK_JUMP] = jumped
    dropped[REPEATED] = came.height - counting.height - contradicting - jumped
    newest = _newest(came)
    return _Arrived(
        joined,
        judged.filter(pl.col("wrong").is_null()).drop("wrong"),
        +dropped,  # without zeros
        since if newest is None else newest + _ONE_US,
    )


def _newest(labels: pl.DataFrame) -> datetime | None:
    newest: Any = labels["received_at"].max()
    return newest if isinstance(newest, datetime) else None


def _with_wrongs(labels: pl.DataFrame, profile_of: Callable[[str], Profile]) -> pl.DataFrame:
    """Say in `wrong` why a label cannot be true; null where it can."""

    def wrong(asset_id: str, capacity_ah: float) -> str | None:
        try:
            low, high = profile_of(asset_id).capacity_range_ah
        except (UnknownAssetError, SettingsError):
            return NO_PROFILE
        return None if low <= capacity_ah <= high else IMPOSSIBLE

    pairs = labels.select("asset_id", LABEL).iter_rows()
    return labels.with_columns(wrong=pl.Series([wrong(*pair) for pair in pairs], dtype=pl.String))


def _questions(log: PredictionLog, arrived: _Arrived, view: FeatureView) -> pl.DataFrame:
    """The question that each label answers: `label`, `stage`, `ambiguous`, features, when."""
    spans = arrived.own
    best = _best((), view)
    if not spans.is_empty():
        first: Any = spans["from_at"].min()
        last: Any = spans["to_at"].max()
        frames = log.frames(first, last + _ONE_US, _ROWS_AT_ONCE, features=view.names)
        for frame in frames:
            served = frame.filter("served")
            near = join_labels(arrived.joined, served, further=view.names).rows
            own = near.join(spans.select("label", "measured_at"), on="label").with_columns(
                stage=_stage(view), away=(pl.col("answered_at") - pl.col("measured_at")).abs()
            )
            best = _best((best, own), view)
    return best.group_by("label", maintain_order=True).agg(
        pl.col("stage", "answered_at", *view.names).first(), ambiguous=pl.len() > 1
    )


def _best(frames: Iterable[pl.DataFrame], view: FeatureView) -> pl.DataFrame:
    """The nearest of the most usable questions of each label; two where no one is."""
    kinds: dict[str, Any] = {
        "label": pl.UInt32(),
        "stage": pl.Int32(),
        "away": pl.Duration("us"),
        "answered_at": pl.Datetime("us", "UTC"),
        **dict.fromkeys(view.names, pl.Float64()),
    }
    empty = pl.DataFrame(schema=kinds)
    together = pl.concat([empty, *(frame.select(*kinds) for frame in frames)])
    order = ["stage", "away", "answered_at"]
    ranked = together.with_columns(stage=-pl.col("stage")).sort("label", *order)
    first = [(pl.col(name) == pl.col(name).first()).over("label") for name in order]
    nearest = ranked.filter(pl.all_horizontal(first)).with_columns(stage=-pl.col("stage"))
    distinct = nearest.unique(["label", *view.names], keep="first", maintain_order=True)
    return distinct.filter(pl.int_range(pl.len()).over("label") < 2)  # noqa: PLR2004 - two are two


def _stage(view: FeatureView) -> pl.Expr:
    """What a question lacks: a place in `_STAGES`, or `_USABLE`."""
    complete = pl.all_horizontal(pl.col(view.required).is_not_null())
    possible = pl.all_horizontal(
        pl.col(feature.name).is_between(feature.low, feature.high).fill_null(value=True)
        for feature in view.features
    )
    return (
        pl.when(~complete)
        .then(_STAGES.index(OTHER_VIEW))
        .when(~possible)
        .then(_STAGES.index(SENSOR_FAULT))
        .otherwise(_USABLE)
        .cast(pl.Int32)
    )

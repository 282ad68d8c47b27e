"""Whether what production asks, and what it is answered, can be true at all.

Counted over the answers that went out: features that are missing or out of their plausible range,
questions that are asked again, features that are stuck, lives that run backwards, predictions that
no such battery can have, and inputs out of the training domain. All counts add over chunks of the
log, in its order.

**Cycle count going back.** No feature view has a feature that counts cycles, since a model must not
know a battery's age by its number. Where a caller's log has one it is named as `counter`. Else the
state of life is read from the predictions: capacity falls over a life, and where the interval of an
answer lies wholly above that of the vehicle's answer before it, the life has gone back by more than
the model can be wrong: another battery under the same name, or old records sent again. The order is
that of the log, singles and batches each by themselves; the document says which of the two was
looked at (`cycle_count_back_by`).

**Stuck.** Some features are settings and repeat rightly, such as a charger's current or the
chamber's temperature; `repeating_features` names those that do in training, so that nobody is
called for them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.features.view import Feature
from batteryops.monitoring.repeats import Repeats
from batteryops.monitoring.sequences import STUCK_RUN, Sequences
from batteryops.schema import Profile

MAX_OUT_OF_RANGE_SHARE: Final = 0.10
"""More predictions than that out of the physical range are an incident."""

REPEATING_SHARE: Final = 0.02
"""A feature that is stuck in more of training's rows than that repeats by its nature."""

REPEATING: Final = "repeating_features"
"""The document of a model package that names those, as a list."""

_COLUMNS: Final = (
    "prediction_id",
    "vehicle_id",
    "served",
    "status",
    "capacity_ah",
    "capacity_low_ah",
    "capacity_high_ah",
)


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at.

    Args:
        features: with their plausible ranges, as a view declares them.
        profile_of: the profile of a vehicle, whose capacity range a prediction must lie in; raises
            a `DataError` where there is none.
        counter: the feature that counts cycles; None where none does.
        run: so many consecutive answers with one value are stuck.
    """

    features: Sequence[Feature]
    profile_of: Callable[[str], Profile]
    counter: str | None = None
    run: int = STUCK_RUN

    def __post_init__(self) -> None:
        """Refuse a counter that is not looked at."""
        if self.counter is not None and self.counter not in self.names:
            raise DataError(
                f"{self.counter} is to count cycles, but is none of {', '.join(self.names)}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(feature.name for feature in self.features)


@dataclass(frozen=True, slots=True, eq=False)
class QualityCounts:
    """What was counted; `a + b` is a chunk of the log and the one after it.

    Args:
        names: features, k of them.
        rows: answers that went out.
        missing: (k,), of them without the feature.
        out_of_range: (k,), with a value that is not plausible, infinite ones among them.
        repeats: counts of the same questions.
        sequences: of the vehicles.
        ranged: answers to vehicles whose physical range is known.
        out_of_physical_range: those of them out of it.
        placed: answers of which is known whether they are in the training domain.
        out_of_domain: those of them that are not.
        by_counter: whether a feature counts cycles.
    """

    names: tuple[str, ...]
    rows: int
    missing: NDArray[np.int64]
    out_of_range: NDArray[np.int64]
    repeats: Repeats
    sequences: Sequences
    ranged: int
    out_of_physical_range: int
    placed: int
    out_of_domain: int
    by_counter: bool

    @classmethod
    def of(cls, watched: Watched, predictions: pl.DataFrame) -> Self:
        """Count a chunk of the log.

        Args:
            watched: what is looked at.
            predictions: rows as `PredictionLog.frames` yields them, in its order, with the features
                as columns.

        Raises:
            DataError: when a column is missing, or a feature is not a number.
        """
        names = watched.names
        _check(predictions, names)
        answers = predictions.filter("served").with_columns(
            pl.col(names).cast(pl.Float64).fill_nan(None)
        )
        table = answers.select(names)
        outside = [
            (table[one.name] < one.low) | (table[one.name] > one.high) for one in watched.features
        ]
        within = _within(answers, watched.profile_of)
        known = answers["status"].is_in(["ok", "out_of_domain"])
        return cls(
            names=names,
            rows=answers.height,
            missing=np.array([table[name].null_count() for name in names], dtype=np.int64),
            out_of_range=np.array([one.sum() for one in outside], dtype=np.int64),
            repeats=Repeats.of(answers.select("vehicle_id", *names)),
            sequences=Sequences.of(answers, names, counter=watched.counter, run=watched.run),
            ranged=within.len() - within.null_count(),
            out_of_physical_range=int((~within).sum()),
            placed=int(known.sum()),
            out_of_domain=int((answers["status"] == "out_of_domain").sum()),
            by_counter=watched.counter is not None,
        )

    def __add__(self, other: "QualityCounts") -> "QualityCounts":
        """The counts of both, the other chunk being the later one.

        Raises:
            DataError: when they are of other features.
        """
        if (self.names, self.by_counter) != (other.names, other.by_counter):
            raise DataError(
                f"counts of {', '.join(self.names)} and of {', '.join(other.names)} do not add"
            )
        return QualityCounts(
            self.names,
            self.rows + other.rows,
            self.missing + other.missing,
            self.out_of_range + other.out_of_range,
            self.repeats + other.repeats,
            self.sequences + other.sequences,
            self.ranged + other.ranged,
            self.out_of_physical_range + other.out_of_physical_range,
            self.placed + other.placed,
            self.out_of_domain + other.out_of_domain,
            self.by_counter,
        )

    @classmethod
    def scan(cls, watched: Watched, frames: Iterable[pl.DataFrame]) -> "QualityCounts":
        """Count a log that is read in chunks, in their order."""
        width = len(watched.features)
        nothing = np.zeros(width, dtype=np.int64)
        total = QualityCounts(
            watched.names,
            0,
            nothing,
            nothing,
            Repeats(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)),
            Sequences.none(width, watched.run),
            0,
            0,
            0,
            0,
            watched.counter is not None,
        )
        for frame in frames:
            total += cls.of(watched, frame)
        return total

    def quality(
        self,
        *,
        refused: int | None = None,
        repeating: Sequence[str] = (),
        max_out_of_range_share: float = MAX_OUT_OF_RANGE_SHARE,
    ) -> "ProductionQuality":
        """The shares.

        Args:
            refused: requests that were refused at the door in the same span, which the log does
                not hold; None where nobody counted them.
            repeating: features that repeat by their nature, and are not said to be stuck.
            max_out_of_range_share: more predictions than that out of the physical range are an
                incident.
        """
        stuck = _shares(self.names, self.sequences.stuck_answers(), int(self.sequences.n.sum()))
        physical = _share(self.out_of_physical_range, self.ranged)
        return ProductionQuality(
            rows=self.rows,
            missing=_shares(self.names, self.missing, self.rows),
            out_of_range=_shares(self.names, self.out_of_range, self.rows),
            duplicates=self.repeats.share,
            stuck={name: share for name, share in stuck.items() if name not in set(repeating)},
            cycle_count_back=int(self.sequences.back.sum()),
            cycle_count_back_by="counter" if self.by_counter else "capacity",
            out_of_physical_range=physical,
            out_of_domain=_share(self.out_of_domain, self.placed),
            refused=math.nan if refused is None else _share(refused, refused + self.rows),
            incident=physical > max_out_of_range_share,
        )


@dataclass(frozen=True, slots=True)
class ProductionQuality:
    """Shares of the answers that went out; NaN where there are none to speak of.

    Args:
        rows: how many answers.
        missing: by feature, share without it.
        out_of_range: by feature, share with a value that is not plausible.
        duplicates: share that ask again what was asked of the same vehicle.
        stuck: by feature, share in runs of one value while others moved.
        cycle_count_back: how often a life went backwards.
        cycle_count_back_by: what that was read from, `counter` or `capacity`.
        out_of_physical_range: share of predictions that no such battery can have.
        out_of_domain: share of inputs unlike training.
        refused: share of questions that were refused.
        incident: so many predictions are out of the physical range that somebody must look.
    """

    rows: int
    missing: Mapping[str, float]
    out_of_range: Mapping[str, float]
    duplicates: float
    stuck: Mapping[str, float]
    cycle_count_back: int
    cycle_count_back_by: str
    out_of_physical_range: float
    out_of_domain: float
    refused: float
    incident: bool

    def to_json(self) -> dict[str, Any]:
        """As a monitoring run holds it; what is not known is left out, `refused` is null."""
        shares = {
            "duplicates": self.duplicates,
            "out_of_physical_range": self.out_of_physical_range,
            "out_of_domain": self.out_of_domain,
        }
        by_feature = {
            "missing": self.missing,
            "out_of_range": self.out_of_range,
            "stuck": self.stuck,
        }
        return {
            "rows": self.rows,
            **{name: dict(shares) for name, shares in by_feature.items() if shares},
            **{name: share for name, share in shares.items() if not math.isnan(share)},
            "cycle_count_back": self.cycle_count_back,
            "cycle_count_back_by": self.cycle_count_back_by,
            "refused": None if math.isnan(self.refused) else self.refused,
            "incident": self.incident,
        }


def repeating_features(
    table: pl.DataFrame,
    features: Sequence[str],
    *,
    run: int = STUCK_RUN,
    share: float = REPEATING_SHARE,
) -> tuple[str, ...]:
    """Features that repeat by their nature: stuck in more of training's own rows than a share.

    Args:
        table: the training table: `asset_id` and the features, by asset and in the order of life.
        features: which.
        run: so many consecutive rows with one value are a run.
        share: of the rows.

    Examples:
        >>> life = pl.DataFrame(
        ...     {"asset_id": "B0005", "time_s": [float(n) for n in range(9)], "chamber_C": 24.0}
        ... )
        >>> repeating_features(life, ["time_s", "chamber_C"])
        ('chamber_C',)
    """
    rows = table.select(
        pl.col(features).cast(pl.Float64),
        vehicle_id="asset_id",
        prediction_id=pl.lit(""),
        capacity_low_ah=pl.lit(None, pl.Float64),
        capacity_high_ah=pl.lit(None, pl.Float64),
    )
    names = tuple(features)
    found = Sequences.of(rows, names, run=run)
    shares = _shares(names, found.stuck_answers(), int(found.n.sum()))
    return tuple(name for name, stuck in shares.items() if stuck > share)


def _share(some: int, of: int) -> float:
    return some / of if of else math.nan


def _shares(names: Sequence[str], counts: NDArray[np.int64], of: int) -> dict[str, float]:
    return {name: int(count) / of for name, count in zip(names, counts, strict=True)} if of else {}


def _within(answers: pl.DataFrame, profile_of: Callable[[str], Profile]) -> pl.Series:
    """Whether each prediction lies in its vehicle's physical range; null where that is unknown."""
    ranges: dict[str, tuple[float, float] | None] = {}
    for vehicle in answers["vehicle_id"].unique():
        try:
            ranges[vehicle] = profile_of(vehicle).capacity_range_ah
        except DataError:  # no profile, or one without a nominal capacity
            ranges[vehicle] = None
    known = {vehicle: ends for vehicle, ends in ranges.items() if ends is not None}
    table = pl.DataFrame(
        [(vehicle, *ends) for vehicle, ends in known.items()],
        schema={"vehicle_id": pl.String(), "least": pl.Float64(), "largest": pl.Float64()},
        orient="row",
    )
    beside = answers.select("vehicle_id", "capacity_ah").join(
        table, on="vehicle_id", how="left", maintain_order="left"
    )
    return beside.select(pl.col("capacity_ah").is_between("least", "largest")).to_series()


def _check(predictions: pl.DataFrame, names: Sequence[str]) -> None:
    """Hold a chunk to the columns that are counted.

    Raises:
        DataError: naming what is missing or not a number.
    """
    if missing := [name for name in (*_COLUMNS, *names) if name not in predictions.columns]:
        raise DataError(
            f"predictions have no column {', '.join(missing)}; read the log with these features"
        )
    for name in names:
        kind = predictions.schema[name]
        if not (kind.is_numeric() or kind == pl.Null):
            raise DataError(f"feature {name} is {kind}, expected numbers")

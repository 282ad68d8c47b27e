"""A trial of two models on live traffic: whose answers were how far off, paired or split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError
from batteryops.evaluation.ab_statistics import Estimate, clustered_mean, welch
from batteryops.evaluation.metrics import Floats

UNKNOWN: Final = "unknown"
"""Profile and band of an answer that none is known of."""

ROLES: Final = ("champion", "challenger")

_NEEDED: Final = ("answer_id", "vehicle_id", "role", "absolute_error_ah")
_OPTIONAL: Final[dict[str, pl.DataType]] = {
    "profile": pl.String(),
    "soh_band": pl.String(),
    "latency_ms": pl.Float64(),
    "failed": pl.Boolean(),
    "hides": pl.Boolean(),
}

Names = NDArray[np.object_]
Flags = NDArray[np.bool_]


def hides_end_of_life(
    measured_soh: ArrayLike, answered_soh: ArrayLike, line: float = 0.80
) -> Flags:
    """Which answers call a battery good that was measured below the line.

    Examples:
        >>> hides_end_of_life([0.79, 0.79, 0.81], [0.80, 0.78, 0.70]).tolist()
        [True, False, False]
    """
    measured, answered = np.asarray(measured_soh), np.asarray(answered_soh)
    found: Flags = (measured < line) & (answered >= line)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one model answered; all of one length, which may be 0.

    Args:
        vehicle: (n,), whose battery it was.
        error: (n,), absolute errors, Ah; NaN without a label or where the model failed.
        failed: (n,), where the model gave no number: it crashed or answered NaN.
        profile: (n,)
        soh_band: (n,), of the measured SoH.
        latency_ms: (n,), NaN where not known.
        hides: (n,), as `hides_end_of_life` tells; None where not known.

    Raises:
        DataError: when lengths differ or an error or latency is negative.
    """

    vehicle: Names
    error: Floats
    failed: Flags
    profile: Names
    soh_band: Names
    latency_ms: Floats
    hides: Flags | None = None

    def __post_init__(self) -> None:
        """Hold the arrays to their contract."""
        for name in ("error", "failed", "profile", "soh_band", "latency_ms", "hides"):
            values = getattr(self, name)
            if values is not None and values.shape != self.vehicle.shape:
                raise DataError(
                    f"{name} has shape {values.shape}; expected one for each of "
                    f"{len(self.vehicle)} answers"
                )
        for name, values in (("absolute errors", self.error), ("latencies", self.latency_ms)):
            if bad := int(np.count_nonzero(values < 0)):
                raise DataError(f"{bad} {name} are negative; expected 0 or more")

    @classmethod
    def of(  # noqa: PLR0913  # what is known of answers comes in columns, given by name
        cls,
        vehicle: Sequence[str] | Names,
        error: ArrayLike,
        *,
        labelled: ArrayLike | None = None,
        profile: Sequence[str] | None = None,
        soh_band: Sequence[str] | None = None,
        latency_ms: ArrayLike | None = None,
        hides: ArrayLike | None = None,
    ) -> Self:
        """Answers from plain sequences; an error that is no number is a failure.

        Args:
            vehicle: n names.
            error: (n,), absolute errors, Ah.
            labelled: (n,), False for those that no label has come for, whatever their error says.
            profile: n names; None: not known.
            soh_band: likewise.
            latency_ms: (n,); None: not known.
            hides: (n,); None: not known.

        Raises:
            DataError: when lengths differ or an error is negative.
        """
        names = np.asarray(vehicle, dtype=object)
        off = np.asarray(error, dtype=np.float64)
        told = np.ones(off.shape, bool) if labelled is None else np.asarray(labelled, dtype=bool)
        if off.shape != names.shape or told.shape != names.shape:
            raise DataError(
                f"errors of shape {off.shape} for {names.shape} vehicles and {told.shape} labels; "
                "expected one of each per answer"
            )
        return cls(
            vehicle=names,
            error=np.where(told & np.isfinite(off), off, np.nan),
            failed=told & ~np.isfinite(off),
            profile=_named(profile, names),
            soh_band=_named(soh_band, names),
            latency_ms=np.full(names.shape, np.nan)
            if latency_ms is None
            else np.asarray(latency_ms, dtype=np.float64),
            hides=None if hides is None else np.asarray(hides, dtype=bool),
        )

    @property
    def labelled(self) -> Flags:
        """Which have an error."""
        return np.isfinite(self.error)

    def take(self, rows: Flags) -> "Answers":
        """Some of them."""
        return Answers(
            self.vehicle[rows],
            self.error[rows],
            self.failed[rows],
            self.profile[rows],
            self.soh_band[rows],
            self.latency_ms[rows],
            None if self.hides is None else self.hides[rows],
        )

    def weighted(self, factor: float) -> "Answers":
        """The same with errors that hide a battery's end of life counted so many times.

        Raises:
            DataError: when it is not known which these are.
        """
        if self.hides is None:
            raise DataError(
                "errors that hide a battery below the line are to cost more, but which these are "
                "is not known: give `hides`, from measured and answered SoH"
            )
        return replace(self, error=np.where(self.hides, factor * self.error, self.error))


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A champion and a challenger on live traffic.

    Args:
        champion: its answers.
        challenger: likewise; where paired, to the same questions in the same order.
        paired: True where the challenger shadowed, False where vehicles were split.
        days: since it began.
        unpaired: questions of a shadowed trial that only one of the models answered: left out.

    Raises:
        DataError: when pairs do not match.
    """

    champion: Answers
    challenger: Answers
    paired: bool
    days: float
    unpaired: int = 0

    def __post_init__(self) -> None:
        """Refuse pairs of different questions."""
        if not (np.isfinite(self.days) and self.days >= 0):
            raise DataError(f"a trial of {self.days} days; expected 0 or more")
        if not self.paired:
            return
        first, second = self.champion.vehicle, self.challenger.vehicle
        if first.shape != second.shape or (first != second).any():
            raise DataError(
                f"{len(first)} and {len(second)} answers do not pair; expected those of both "
                "models to the same questions, in one order"
            )

    @classmethod
    def from_frame(cls, frame: pl.DataFrame, *, days: float) -> Self:
        """A trial from one row per answer.

        It is paired where any question has an answer of both models.

        Args:
            frame: `answer_id` (of the question: the same for both models), `vehicle_id`, `role`
                (champion or challenger), `absolute_error_ah` (null: no label yet; NaN: the model
                answered no number); and, where known, `profile`, `soh_band`, `latency_ms`, `failed`
                (no answer was given) and `hides` (as `hides_end_of_life` tells).
            days: since it began.

        Raises:
            DataError: when a column is missing, a role unknown, or one model answered a question
                twice.
        """
        if missing := [name for name in _NEEDED if name not in frame.columns]:
            raise DataError(f"a trial lacks {', '.join(missing)}; expected {', '.join(_NEEDED)}")
        known_hides = "hides" in frame.columns
        rows = frame.select(
            pl.col("answer_id", "vehicle_id", "role").cast(pl.String),
            pl.col("absolute_error_ah").cast(pl.Float64),
            *(
                pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, kind).alias(name)
                for name, kind in _OPTIONAL.items()
            ),
        )
        if rows.select(
            pl.any_horizontal(pl.col("answer_id", "vehicle_id", "role").is_null()).any()
        ).item():
            raise DataError("an answer lacks its answer_id, vehicle_id or role")
        if strange := sorted(set(rows["role"]) - set(ROLES)):
            raise DataError(f"role {', '.join(strange)}; expected {' or '.join(ROLES)}")
        if (twice := rows.select("answer_id", "role").is_duplicated()).any():
            raise DataError(
                f"question {rows['answer_id'].filter(twice)[0]} has two answers of one model"
            )
        by_role = [rows.filter(pl.col("role") == role).sort("answer_id") for role in ROLES]
        both = [
            one.join(other, on="answer_id", how="semi", maintain_order="left")
            for one, other in (by_role, by_role[::-1])
        ]
        paired = both[0].height > 0
        unpaired = sum(one.height for one in by_role) - sum(one.height for one in both)
        champion, challenger = (
            _answers(one, known_hides=known_hides) for one in (both if paired else by_role)
        )
        return cls(champion, challenger, paired, days, unpaired if paired else 0)

    @property
    def compared(self) -> tuple[Answers, Answers]:
        """The answers that count: with an error, where paired of both models."""
        first, second = self.champion.labelled, self.challenger.labelled
        if self.paired:
            first = second = first & second
        return self.champion.take(first), self.challenger.take(second)


def improvement(champion: Answers, challenger: Answers, *, paired: bool) -> Estimate:
    """How much less the challenger errs, Ah: `clustered_mean` where paired, `welch` where split.

    Args:
        champion: answers with errors.
        challenger: likewise.
        paired: as `Trial` says.
    """
    if paired:
        _, codes = np.unique(champion.vehicle, return_inverse=True)
        return clustered_mean(
            np.bincount(codes, weights=champion.error - challenger.error), np.bincount(codes)
        )
    return welch(vehicle_means(champion), vehicle_means(challenger))


def vehicle_means(answers: Answers) -> Floats:
    """Mean error of each vehicle, (vehicles,), Ah."""
    _, codes = np.unique(answers.vehicle, return_inverse=True)
    means: Floats = np.bincount(codes, weights=answers.error) / np.bincount(codes)
    return means


def _named(given: Sequence[str] | None, vehicles: Names) -> Names:
    if given is None:
        return np.full(vehicles.shape, UNKNOWN, dtype=object)
    return np.array([UNKNOWN if one is None else one for one in given], dtype=object)


def _answers(rows: pl.DataFrame, *, known_hides: bool) -> Answers:
    labelled = rows["absolute_error_ah"].is_not_null().to_numpy()
    error = rows["absolute_error_ah"].fill_null(np.nan).to_numpy()
    failed = rows["failed"].fill_null(value=False).to_numpy() | (labelled & ~np.isfinite(error))
    return Answers(
        vehicle=rows["vehicle_id"].to_numpy().astype(object),
        error=np.where(failed | ~np.isfinite(error), np.nan, error),
        failed=failed,
        profile=rows["profile"].fill_null(UNKNOWN).to_numpy().astype(object),
        soh_band=rows["soh_band"].fill_null(UNKNOWN).to_numpy().astype(object),
        latency_ms=rows["latency_ms"].fill_null(np.nan).to_numpy(),
        hides=rows["hides"].fill_null(value=False).to_numpy() if known_hides else None,
    )

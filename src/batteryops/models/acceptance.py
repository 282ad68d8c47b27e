"""The gate of a continued model: better on what is new, and no worse on what was known before."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from batteryops.errors import DataError, SettingsError
from batteryops.models.held_out import Floats, group_codes, group_weights
from batteryops.models.labelled import LabelledRows
from batteryops.models.offers import Predict


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate must do.

    Args:
        min_gain: share of the current error by which the error on new rows must fall, 0 to 1.
        max_loss: share of the current error by which the error on old rows may rise, 0 or more;
            of all old rows, and of those of each profile.
        slack: where that is more, the error on old rows may rise by this share of their mean
            label.

    Raises:
        SettingsError: a limit out of its range.
    """

    min_gain: float = 0.02
    max_loss: float = 0.10
    slack: float = 0.001

    def __post_init__(self) -> None:
        """Refuse nonsense, NaN among it."""
        if not (0.0 <= self.min_gain <= 1.0 and self.max_loss >= 0.0 and self.slack >= 0.0):
            raise SettingsError(
                f"limits of a candidate are {asdict(self)}; expected min_gain of 0 to 1, "
                "the others of 0 or more"
            )


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean absolute errors, Ah, each group of assets weighing the same; NaN where an answer is.

    Args:
        new_ah: on new rows held out.
        old_ah: on old ones.
        old_by_profile_ah: on old ones of each profile.
    """

    new_ah: float
    old_ah: float
    old_by_profile_ah: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """By name; null where undefined."""
        return {
            "new_ah": _number(self.new_ah),
            "old_ah": _number(self.old_ah),
            "old_by_profile_ah": {
                name: _number(value) for name, value in self.old_by_profile_ah.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Judges:
    """Rows that no candidate learns from.

    Args:
        new: of assets whose other rows, if any, no candidate learns from either.
        old: likewise, of the past; best rows that the current model has not seen either.
        unseen_ah: where it was fitted on the old ones, its mean absolute error on old batteries
            that it had not seen, which says what a rise is to be compared with: on its own rows
            a model errs so little that the least change looks like forgetting.

    Raises:
        DataError: when they are of different features.
    """

    new: LabelledRows
    old: LabelledRows
    unseen_ah: float = 0.0

    def __post_init__(self) -> None:
        """Both are judged by one model."""
        self.new.expect(self.old.names)

    def errors(self, predict: Predict) -> Errors:
        """Of a model.

        Args:
            predict: answers rows (n, k) with capacities (n,) in Ah.

        Raises:
            DataError: when it does not answer every row.
        """
        old_ah = _absolute(predict, self.old)
        profiles = self.old.profiles.astype(str)
        return Errors(
            new_ah=_mean(_absolute(predict, self.new), self.new),
            old_ah=_mean(old_ah, self.old),
            old_by_profile_ah={
                name: _mean(old_ah[profiles == name], self.old[profiles == name])
                for name in np.unique(profiles).tolist()
            },
        )

    def allowed(self, current: Errors, limits: Limits) -> Errors:
        """The largest errors with which a candidate takes the place of the current model.

        On new rows they must also be less than the current model's.
        """
        slack_ah = limits.slack * float(np.abs(self.old.labels).mean())

        def risen(was: float) -> float:
            return was + max(limits.max_loss * max(was, self.unseen_ah), slack_ah)

        return Errors(
            new_ah=(1.0 - limits.min_gain) * current.new_ah,
            old_ah=risen(current.old_ah),
            old_by_profile_ah={name: risen(was) for name, was in current.old_by_profile_ah.items()},
        )

    def look(self, current: Errors, candidate: Errors, limits: Limits) -> "Looked":
        """Whether the candidate may take the current model's place, and why."""
        if not (np.isfinite(candidate.new_ah) and np.isfinite(candidate.old_ah)):
            return Looked(passed=False, reason="it answers NaN or infinity")
        told = f"new {_change(current.new_ah, candidate.new_ah)}"
        allowed = self.allowed(current, limits)
        if not candidate.new_ah <= allowed.new_ah or candidate.new_ah >= current.new_ah:
            return Looked(
                passed=False,
                reason=f"{told}: that is no gain of {100 * limits.min_gain:g} percent",
            )
        for name, was, now, most in (
            ("old", current.old_ah, candidate.old_ah, allowed.old_ah),
            *(
                (f"old {name}", was, candidate.old_by_profile_ah[name], most)
                for (name, was), most in zip(
                    current.old_by_profile_ah.items(),
                    allowed.old_by_profile_ah.values(),
                    strict=True,
                )
            ),
        ):
            if not now <= most:
                return Looked(
                    passed=False,
                    reason=(
                        f"it forgets: {name} {_change(was, now)}, at most {most:.4f} allowed; "
                        f"{told}"
                    ),
                )
        return Looked(
            passed=True, reason=f"{told}; old {_change(current.old_ah, candidate.old_ah)}"
        )


@dataclass(frozen=True, slots=True)
class Looked:
    """What the gate said, in one sentence."""

    passed: bool
    reason: str


def _absolute(predict: Predict, rows: LabelledRows) -> Floats:
    answers = np.asarray(predict(rows.features), dtype=np.float64)
    if answers.shape != (len(rows),):
        raise DataError(f"the model answers {answers.shape}; expected ({len(rows)},)")
    return np.abs(answers - rows.labels)


def _mean(errors_ah: Floats, rows: LabelledRows) -> float:
    weights = group_weights(group_codes(rows.owners.groups, len(rows)))
    return float(weights @ errors_ah)


def _change(was: float, now: float) -> str:
    return f"MAE {was:.4f} to {now:.4f} Ah"


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None

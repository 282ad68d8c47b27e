"""One answer, as it goes on record."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from batteryops.errors import RecordsError

FAILED: Final = "failed"
"""Status of a question that the model gave no number for: it crashed, or answered NaN."""

Status = Literal["ok", "out_of_domain", "unknown", "failed"]

EXPLAINED_AH: Final = 1e-5
"""Contributions and base of an explanation add up to the capacity within so many Ah."""


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """One answer.

    Args:
        prediction_id: from `batteryops.records.identifiers.new_id`: in order of time.
        request_id: what the caller, or the server for it, named the request.
        answered_at: when, with a time zone.
        vehicle_id: the asset that was asked about.
        model_name: the registered model.
        model_version: its version in the registry.
        package_fingerprint: SHA-256 of the model package that answered.
        role: what the version stood for: champion, challenger.
        features: what was sent, by feature name; None where a value was missing.
        capacity_ah: the predicted capacity in Ah; also where the answer withheld it. A number
            without a meaning where the status is `failed`.
        soh: that capacity as a share of the nominal one.
        latency_ms: from the request's arrival to the prediction, the commit not included. A
            challenger's that shadows is what its answer would have taken: that of the answer which
            went out, with the time of the one model exchanged for the other's.
        capacity_low_ah: lower end of the prediction interval in Ah; None in records from before
            there were intervals.
        capacity_high_ah: upper end, likewise.
        status: `ok`, or `out_of_domain` where the features were unlike anything in training;
            `unknown` in records from before it was looked at; `failed` where the model gave no
            number, which is no prediction: only `PredictionLog.frames` tells of it, when asked.
        outside: features that put the input outside of the training domain, in the view's order.
        outside_jointly: whether the features together are unlike any in training.
        baseline: version of the asset's own baseline that corrected capacity, SoH and interval;
            None where the model alone answered.
        cached: whether the numbers are those of an earlier answer to the same features.
        served: whether the answer went out; False for a challenger's that only shadowed.
        contributions: what each feature adds to the capacity, Ah; None where nobody asked.
        base_ah: what they are added to, Ah; with them it gives `capacity_ah` to 1e-5.

    Raises:
        RecordsError: for a time without a zone, a number that is not finite, an interval that is
            upside down, a status that `outside` contradicts, or contributions that do not add up.
    """

    prediction_id: str
    request_id: str
    answered_at: datetime
    vehicle_id: str
    model_name: str
    model_version: str
    package_fingerprint: str
    role: str
    features: Mapping[str, float | None]
    capacity_ah: float
    soh: float
    latency_ms: float
    capacity_low_ah: float | None
    capacity_high_ah: float | None
    status: Status
    outside: tuple[str, ...] = ()
    outside_jointly: bool = False
    baseline: str | None = None
    cached: bool = False
    served: bool = True
    contributions: Mapping[str, float] | None = None
    base_ah: float | None = None

    def __post_init__(self) -> None:
        """Refuse here what the database would store as something else."""
        if self.answered_at.utcoffset() is None:
            raise RecordsError(
                f"prediction {self.prediction_id}: answered_at {self.answered_at} has no time "
                "zone; give an aware time, such as datetime.now(UTC)"
            )
        numbers = {
            **self.features,
            "capacity_ah": self.capacity_ah,
            "soh": self.soh,
            "latency_ms": self.latency_ms,
            "capacity_low_ah": self.capacity_low_ah,
            "capacity_high_ah": self.capacity_high_ah,
            "base_ah": self.base_ah,
            **{f"contribution of {name}": at for name, at in (self.contributions or {}).items()},
        }
        for name, value in numbers.items():
            if value is not None and not math.isfinite(value):
                raise RecordsError(
                    f"prediction {self.prediction_id}: {name} is {value}, expected a finite number"
                )
        low, high = self.capacity_low_ah, self.capacity_high_ah
        if low is not None and high is not None and low > high:
            raise RecordsError(
                f"prediction {self.prediction_id}: the interval runs from {low:g} to {high:g} Ah, "
                "expected the lower end first"
            )
        if (self.status == "out_of_domain") != bool(self.outside or self.outside_jointly):
            raise RecordsError(
                f"prediction {self.prediction_id}: status {self.status} with "
                f"{', '.join(self.outside) or 'no feature'} outside of the training domain; "
                "expected features, or all of them jointly, exactly where it is out_of_domain"
            )
        self._check_explanation()

    def _check_explanation(self) -> None:
        if self.contributions is None and self.base_ah is None:
            return
        if self.contributions is None or self.base_ah is None:
            raise RecordsError(
                f"prediction {self.prediction_id}: contributions {self.contributions} with base "
                f"{self.base_ah}, expected both or neither"
            )
        total = math.fsum((self.base_ah, *self.contributions.values()))
        if abs(total - self.capacity_ah) > EXPLAINED_AH:
            raise RecordsError(
                f"prediction {self.prediction_id}: contributions and base add up to {total:.6f} "
                f"Ah, expected the predicted {self.capacity_ah:.6f} Ah; explain with the model "
                "that answered"
            )

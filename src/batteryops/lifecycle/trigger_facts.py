"""What the decision to retrain is made from: facts of one moment, and rules with their limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, Self

from batteryops.errors import DataError
from batteryops.records.retraining_runs import Request, RetrainingRun
from batteryops.settings import Settings

Trigger = Literal["manual", "error", "drift", "new_trips", "weekly"]

TRIGGERS: Final[tuple[Trigger, ...]] = ("manual", "error", "drift", "new_trips", "weekly")
"""The strongest first: of several that fired, the first one that may run names the run."""


class FeatureFact(NamedTuple):
    """What the drift report says of a feature.

    Attributes:
        psi: population stability index; None where nothing can be said.
        status: of `batteryops.monitoring.drift_detection.Status`. `alert` means that the difference
            is large and more than chance.
        cause: why, where it was found, such as `climate` or `sensor_fault: stuck`.
    """

    psi: float | None
    status: str
    cause: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known at one moment. None: unknown, or it never was.

    Times have a time zone. A time after `now` is one of a clock that went back since.

    Args:
        now: the moment.
        model_since: since when the model in service is there; the first week counts from it.
        last_started_at: when the run that was started last was. Of the run written last, not of the
            latest time: so a run of a wrong future hides none after it.
        last_ended_at: when the run that ended last did, likewise.
        last_weekly_at: when a check last found `weekly` among `fired`, whatever it decided.
        runs_in_week: runs that were started in the seven days before `now`.
        open_run: the run that has not ended.
        requests: for a retraining, that no run has answered.
        mae_ah: mean absolute error of answers with labels, Ah.
        mae_low_ah: lower bound of its confidence interval, Ah.
        n_labels: that it is from.
        n_vehicles: that these are of.
        drift: by feature.
        drift_since: when a critical feature was first found in alert, by drift that asks for a new
            model, and has been since; what is known of errors and fresh labels is then of
            questions that were asked from there on.
        drifting: which vehicles or profiles the drift is of, the worst first, where that is known.
        fresh_labels: that no run has learned from.
        fresh_label_vehicles: that these are of.
        new_trips: answered since the last retraining.
        last_asked_at: when labels were last asked for.

    Raises:
        DataError: a time without a zone, a number below zero, or labels of no vehicle.
    """

    now: datetime
    model_since: datetime | None = None
    last_started_at: datetime | None = None
    last_ended_at: datetime | None = None
    last_weekly_at: datetime | None = None
    runs_in_week: int = 0
    open_run: RetrainingRun | None = None
    requests: tuple[Request, ...] = ()
    mae_ah: float | None = None
    mae_low_ah: float | None = None
    n_labels: int | None = None
    n_vehicles: int | None = None
    drift: Mapping[str, FeatureFact] = field(default_factory=dict)
    drift_since: datetime | None = None
    drifting: tuple[str, ...] = ()
    fresh_labels: int = 0
    fresh_label_vehicles: int = 0
    new_trips: int = 0
    last_asked_at: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what nothing can be decided from."""
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, datetime) and value.utcoffset() is None:
                raise DataError(f"{one.name} {value} has no time zone; give an aware time")
            if isinstance(value, int) and value < 0:
                raise DataError(f"{one.name} is {value}; expected 0 or more")
        if not bool(self.fresh_labels) <= self.fresh_label_vehicles <= self.fresh_labels:
            raise DataError(
                f"{self.fresh_labels} fresh labels cannot be of {self.fresh_label_vehicles} "
                "vehicles"
            )

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`; a number that is not finite is unknown."""
        return {
            **{one.name: _json(getattr(self, one.name)) for one in fields(self)},
            "drift": {
                name: {"psi": _json(psi), "status": status, "cause": cause}
                for name, (psi, status, cause) in self.drift.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRules:
    """From where on each trigger fires, and what holds a run back.

    Args:
        weekday: of the weekly run, 0 for Monday.
        hour_utc: of the weekly run.
        mae_ah: that the lower bound of the error has to exceed, Ah.
        psi: that a critical feature has to exceed.
        critical_features: whose drift asks for a new model.
        new_trips: since the last retraining.
        min_labels: from fewer the error is not believed, and drift alone not learned.
        min_label_vehicles: likewise.
        cooldown_days: after the last run ended.
        max_runs_per_week: that are started within seven days.
        ask_again_days: labels are asked for at most so often.
        triggers: that are looked at; a fleet that is retrained every week and never else has
            `weekly` only.
    """

    weekday: int
    hour_utc: int
    mae_ah: float
    psi: float
    critical_features: tuple[str, ...]
    new_trips: int
    min_labels: int
    min_label_vehicles: int
    cooldown_days: float
    max_runs_per_week: int
    ask_again_days: float
    triggers: tuple[Trigger, ...] = TRIGGERS

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As they are configured: `retraining`, and the limits of `monitoring`."""
        configured, limits = settings.retraining, settings.monitoring
        return cls(
            weekday=configured.weekday,
            hour_utc=configured.hour_utc,
            mae_ah=limits.mae_alert_ah,
            psi=limits.psi_alert,
            critical_features=limits.critical_features,
            new_trips=configured.new_trips,
            min_labels=configured.min_labels,
            min_label_vehicles=configured.min_label_vehicles,
            cooldown_days=configured.cooldown_days,
            max_runs_per_week=configured.max_runs_per_week,
            ask_again_days=configured.ask_again_days,
        )


def _json(value: Any) -> Any:  # noqa: ANN401 - any field of `Facts`
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple):
        return [_json(one) for one in value]
    if isinstance(value, Request | RetrainingRun):
        return value.to_json()
    return value

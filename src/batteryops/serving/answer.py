"""What is told of a prediction that is on record: the one form of an answer, for HTTP and files."""

from dataclasses import dataclass
from typing import Any

from batteryops.records.predictions import PredictionRecord
from batteryops.serving.live_model import LiveModel, Row


def document(  # noqa: PLR0913 - one argument per fact of the answer
    *,
    prediction_id: str,
    vehicle_id: str,
    inside: bool,
    withhold: bool,
    soh: float,
    capacity_ah: float,
    low_ah: float | None,
    high_ah: float | None,
    nominal: float,
    outside: tuple[str, ...],
    outside_jointly: bool,
    model_name: str,
    model_version: str,
    role: str,
    cached: bool,
    request_id: str,
) -> dict[str, Any]:
    """An answer as a JSON document.

    An input that is unlike anything in training gets no number, unless the settings say so: a
    caller who does not look at `status` must not take what a model happens to say for a
    measurement. The record keeps the number, so that it can be judged once a label arrives.

    Args:
        prediction_id: of the record.
        vehicle_id: the asset.
        inside: the input lies inside what training covered.
        withhold: give no number where it does not.
        soh: predicted share of the nominal capacity.
        capacity_ah: predicted, Ah.
        low_ah: lower end of the interval, Ah.
        high_ah: upper end, Ah.
        nominal: share of measured capacities that intervals are made to hold.
        outside: features that put the input outside.
        outside_jointly: the features together do.
        model_name: the registered model.
        model_version: which version answered.
        role: what it stood for.
        cached: the answer to the very same features, given again.
        request_id: what the request is called.
    """
    told = inside or not withhold
    return {
        "prediction_id": prediction_id,
        "vehicle_id": vehicle_id,
        "status": "ok" if inside else "out_of_domain",
        "soh": soh if told else None,
        "capacity_ah": capacity_ah if told else None,
        "interval": {"low_ah": low_ah, "high_ah": high_ah, "nominal": nominal},
        "domain": {"features": outside, "joint": outside_jointly},
        "model_name": model_name,
        "model_version": model_version,
        "role": role,
        "cached": cached,
        "request_id": request_id,
    }


def document_of(
    row: Row, model: LiveModel, *, prediction_id: str, request_id: str, withhold: bool
) -> dict[str, Any]:
    """What a caller is told of a row that a model in service has answered."""
    estimate = row.estimate
    return document(
        prediction_id=prediction_id,
        vehicle_id=row.vehicle_id,
        inside=estimate.position.inside,
        withhold=withhold,
        soh=row.soh,
        capacity_ah=estimate.capacity_ah,
        low_ah=estimate.low_ah,
        high_ah=estimate.high_ah,
        nominal=model.nominal,
        outside=estimate.position.features,
        outside_jointly=estimate.position.joint,
        model_name=model.model_name,
        model_version=model.version,
        role=model.role,
        cached=row.cached,
        request_id=request_id,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction for the record, and what the caller is told of it.

    Args:
        record: as it is, or will be, in the log.
        nominal: share of measured capacities that intervals are made to hold.
        withhold: give no number outside of the training domain.
    """

    record: PredictionRecord
    nominal: float
    withhold: bool

    @property
    def withheld(self) -> bool:
        """Whether the caller gets no number."""
        return self.withhold and self.record.status == "out_of_domain"

    @property
    def capacity_ah(self) -> float | None:
        """The capacity that is told, Ah."""
        return None if self.withheld else self.record.capacity_ah

    @property
    def soh(self) -> float | None:
        """The State of Health that is told."""
        return None if self.withheld else self.record.soh

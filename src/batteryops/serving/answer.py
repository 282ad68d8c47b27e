"""What is told of a prediction that is on record: the one form of an answer, for HTTP and files."""

from dataclasses import dataclass
from typing import Any

from batteryops.records.predictions import PredictionRecord


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction for the record, and what the caller is told of it.

    An input that is unlike anything in training gets no number, unless the settings say so: a
    caller who does not look at `status` must not take what the trees happen to say for a
    measurement. The record keeps the number, so that it can be judged once a label arrives.

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

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        record = self.record
        return {
            "prediction_id": record.prediction_id,
            "vehicle_id": record.vehicle_id,
            "status": record.status,
            "soh": self.soh,
            "capacity_ah": self.capacity_ah,
            "interval": {
                "low_ah": record.capacity_low_ah,
                "high_ah": record.capacity_high_ah,
                "nominal": self.nominal,
            },
            "domain": {"features": list(record.outside), "joint": record.outside_jointly},
            "model_name": record.model_name,
            "model_version": record.model_version,
            "role": record.role,
            "request_id": record.request_id,
        }

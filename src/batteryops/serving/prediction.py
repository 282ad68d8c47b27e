"""From a request's body to a prediction ready for the record."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeGuard

import numpy as np

from batteryops.errors import DataError, UnknownAssetError
from batteryops.features.validation import problems, vector
from batteryops.models.package import PARITY_AH, ModelPackage
from batteryops.records.identifiers import new_id
from batteryops.records.predictions import PredictionRecord
from batteryops.serving.answer import Answer
from batteryops.serving.problems import (
    ASSET_NOT_SERVED,
    INVALID_REQUEST,
    UNKNOWN_ASSET,
    ProblemError,
)
from batteryops.settings import Settings

VEHICLE: Final = "vehicle_id"
MAX_VEHICLE_ID: Final = 128
_KNOWN_VEHICLES: Final = 65_536  # that are looked up once
_NAMED_FIELDS: Final = 10  # unknown ones that a message names


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in service.

    Args:
        package: loaded and verified.
        version: its version in the registry.
        role: what the version stands for: champion, challenger.
    """

    package: ModelPackage
    version: str
    role: str


class Predictor:
    """Validates bodies and predicts; holds what is the same for every request.

    Args:
        model: which model answers.
        settings: says which profile an asset has.
    """

    def __init__(self, model: ServedModel, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self._view = model.package.view
        self._level = model.package.manifest.level
        self._model_name = model.package.manifest.model_name
        self._fingerprint = model.package.fingerprint
        self._withhold = settings.serving.out_of_domain == "withhold"
        self._fields = frozenset((VEHICLE, *self._view.names))
        self._capacities_ah = lru_cache(_KNOWN_VEHICLES)(self._look_up)

    def predict(self, body: Mapping[str, Any], request_id: str, arrived: float) -> Answer:
        """The answer to one request, its record not yet in the log.

        Args:
            body: `vehicle_id` and the features by name.
            request_id: what the request is called.
            arrived: when it came, by `time.perf_counter`.

        Raises:
            ProblemError: with every fault of the body; or for an asset that is not known, is of
                another level than the model, or has no nominal capacity.
        """
        vehicle_id = body.get(VEHICLE)
        try:
            row = vector(self._view, body)
        except DataError:
            row = None
        if row is None or not _is_name(vehicle_id) or not body.keys() <= self._fields:
            raise ProblemError(
                INVALID_REQUEST,
                "the body has faults; see errors, correct them and send it again",
                errors=self._faults(body),
            )
        nominal_ah, range_ah = self._capacities_ah(vehicle_id)
        estimate = self._model.package.estimate(row, range_ah)
        record = PredictionRecord(
            prediction_id=new_id(),
            request_id=request_id,
            answered_at=datetime.now(UTC),
            vehicle_id=vehicle_id,
            model_name=self._model_name,
            model_version=self._model.version,
            package_fingerprint=self._fingerprint,
            role=self._model.role,
            features={name: body[name] for name in self._view.names},
            capacity_ah=estimate.capacity_ah,
            soh=estimate.capacity_ah / nominal_ah,
            latency_ms=1000.0 * (time.perf_counter() - arrived),
            capacity_low_ah=estimate.low_ah,
            capacity_high_ah=estimate.high_ah,
            status="ok" if estimate.position.inside else "out_of_domain",
            outside=estimate.position.features,
            outside_jointly=estimate.position.joint,
        )
        nominal = self._model.package.intervals.nominal
        return Answer(record, nominal, self._withhold)

    def self_test(self) -> str | None:
        """Predict the first row that was recorded with the package; what is wrong, or None."""
        recorded = self._model.package.manifest.recorded
        expected = recorded.outputs_ah[0]
        given = self._model.package.predict_one(np.array(recorded.rows[0], dtype=np.float32))
        if abs(given - expected) <= PARITY_AH:
            return None
        return f"the model answers {given:.6f} Ah to its recorded row, expected {expected:.6f} Ah"

    def _faults(self, body: Mapping[str, Any]) -> list[dict[str, str]]:
        faults = []
        if VEHICLE not in body:
            faults.append(_fault(VEHICLE, f"{VEHICLE} is missing, expected the asset's name"))
        elif not _is_name(body[VEHICLE]):
            faults.append(
                _fault(
                    VEHICLE,
                    f"{VEHICLE} is not a name: expected 1 to {MAX_VEHICLE_ID} printable characters",
                )
            )
        for problem in problems(self._view, body):
            faults.append(_fault(problem.partition(" ")[0], problem))  # noqa: PERF401  # readable
        unknown = sorted(body.keys() - self._fields)
        if unknown:
            named = ", ".join(name[:MAX_VEHICLE_ID] for name in unknown[:_NAMED_FIELDS])
            more = len(unknown) - _NAMED_FIELDS
            faults.append(
                {
                    "detail": f"unknown field{'s' if len(unknown) > 1 else ''}: {named}"
                    + (f" and {more} more" if more > 0 else "")
                    + f"; expected {', '.join((VEHICLE, *self._view.names))}"
                }
            )
        return faults

    def _look_up(self, vehicle_id: str) -> tuple[float, tuple[float, float]]:
        """Nominal capacity, and least and largest, in Ah, of an asset this model can answer for."""
        try:
            profile = self._settings.profile_of(vehicle_id)
        except UnknownAssetError as error:
            raise ProblemError(
                UNKNOWN_ASSET, str(error), errors=[_fault(VEHICLE, "no profile matches it")]
            ) from error
        if profile.level != self._level:
            raise ProblemError(
                ASSET_NOT_SERVED,
                f"asset {vehicle_id!r} is a {profile.level} (profile {profile.name}); the model "
                f"in service was trained on {self._level}s: ask a model of {profile.level}s",
            )
        try:
            return profile.nominal_ah, profile.capacity_range_ah
        except DataError as error:
            raise ProblemError(ASSET_NOT_SERVED, f"asset {vehicle_id!r}: {error}") from error


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_VEHICLE_ID and value.isprintable()


def _fault(field: str, detail: str) -> dict[str, str]:
    return {"detail": detail, "pointer": f"#/{field}"}

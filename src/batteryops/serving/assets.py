"""From the body of a question to a row for the model: checked, its asset looked up."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from batteryops.errors import DataError, UnknownAssetError
from batteryops.features.validation import vector
from batteryops.schema import Profile
from batteryops.serving.faults import VEHICLE, fault, faulty, is_name
from batteryops.serving.live_model import LiveModel, Row, Values
from batteryops.serving.problems import ASSET_NOT_SERVED, UNKNOWN_ASSET, ProblemError
from batteryops.settings import Settings

_KNOWN_VEHICLES: Final = 65_536  # that are looked up once


class Assets:
    """Knows the profiles of assets, each looked up once.

    Args:
        settings: says which profile an asset has.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.profile_of = lru_cache(_KNOWN_VEHICLES)(self._look_up)

    def row_of(self, body: Mapping[str, Any], model: LiveModel) -> Row:
        """Check a body and look its asset up.

        Args:
            body: `vehicle_id` and the features by name.
            model: that is to answer.

        Raises:
            ProblemError: with every fault of the body; or for an asset that is not known, is of
                another level than the model, or has no nominal capacity.
        """
        vehicle_id = body.get(VEHICLE)
        values = model.sound_values(body)
        if values is None:
            values = _looked_at_closely(body, model)
        if values is None or not is_name(vehicle_id):
            raise faulty(body, model.view)
        return self.row(vehicle_id, values, model)

    def row(self, vehicle_id: str, values: Values, model: LiveModel) -> Row:
        """A row of features that were checked.

        Raises:
            ProblemError: for an asset that is not known, is of another level than the model, or
                has no nominal capacity.
        """
        profile = self.profile_of(vehicle_id)
        if profile.level != model.level:
            raise ProblemError(
                ASSET_NOT_SERVED,
                f"asset {vehicle_id!r} is a {profile.level} (profile {profile.name}); the model "
                f"in service was trained on {model.level}s: ask a model of {model.level}s",
            )
        try:
            return Row(vehicle_id, values, profile.nominal_ah, profile.capacity_range_ah)
        except DataError as error:
            raise ProblemError(ASSET_NOT_SERVED, f"asset {vehicle_id!r}: {error}") from error

    def _look_up(self, vehicle_id: str) -> Profile:
        """The profile of an asset."""
        try:
            return self._settings.profile_of(vehicle_id)
        except UnknownAssetError as error:
            raise ProblemError(
                UNKNOWN_ASSET, str(error), errors=[fault(VEHICLE, "no profile matches it")]
            ) from error


def _looked_at_closely(body: Mapping[str, Any], model: LiveModel) -> Values | None:
    """Features of a body with nulls or odd numbers in it; None when it has faults."""
    if not body.keys() <= {VEHICLE, *model.names}:
        return None
    try:
        vector(model.view, body)
    except DataError:
        return None
    return tuple(None if body[name] is None else float(body[name]) for name in model.names)

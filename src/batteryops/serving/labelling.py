"""Route of labels: measured capacities that arrive after the answers, weeks later often."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import ConfigDict
from starlette.concurrency import run_in_threadpool

from batteryops.errors import DataError, RecordsError
from batteryops.records.labels import CLOCKS_DIFFER, Label, Labels
from batteryops.serving import documents
from batteryops.serving.arrival import headers_of, read_body
from batteryops.serving.assets import Assets
from batteryops.serving.body import read_object
from batteryops.serving.commit import records_unavailable
from batteryops.serving.faults import MAX_VEHICLE_ID, VEHICLE, is_name
from batteryops.serving.problems import (
    BODY_TOO_LARGE,
    FORBIDDEN,
    INVALID_REQUEST,
    MALFORMED_JSON,
    RATE_LIMITED,
    RECORDS_UNAVAILABLE,
    UNAUTHENTICATED,
    WRONG_MEDIA_TYPE,
    ProblemError,
)
from batteryops.serving.service import Service

__all__ = ["MOST_LABELS", "add_label_routes"]

MOST_LABELS: Final = 1000
"""In one request."""

_MOST_BYTES: Final = 1_048_576
_MOST_FAULTS: Final = 100  # that an answer names
_MANY: Final = "labels"
_MEASURED_AT: Final = "measured_at"
_CAPACITY: Final = "capacity_ah"
_SOURCE: Final = "source"
_UNSTATED: Final = "not stated"
_FIELDS: Final = (VEHICLE, _MEASURED_AT, _CAPACITY, _SOURCE)
_MOST_NAMED: Final = 5  # unknown fields that a message names

_LABEL: Final[dict[str, Any]] = {
    VEHICLE: "B0005",
    _MEASURED_AT: "2026-03-01T12:30:00Z",
    _CAPACITY: 1.8421,
    _SOURCE: "bench 2, full discharge at 2 A",
}


class LabelOutcome(documents.Document):
    """What became of one label."""

    vehicle_id: str
    measured_at: datetime
    outcome: Literal["new", "known", "correction"]
    """`known`: this very capacity was on record already; nothing changed. `correction`: another
    capacity was; both stay on record, and the last one received counts."""


class LabelOutcomes(documents.Document):
    """What became of the labels of a request, in their order; all are on record."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "labels": [
                    {
                        "vehicle_id": "B0005",
                        "measured_at": "2026-03-01T12:30:00Z",
                        "outcome": "new",
                    }
                ]
            }
        }
    )

    labels: list[LabelOutcome]


def add_label_routes(app: FastAPI, service: Service) -> None:
    """Add `POST /labels`."""
    store = Labels.beside(service.log)

    @app.post(
        "/labels",
        summary="Put measured capacities on record, to be joined with answers",
        response_model=LabelOutcomes,
        responses=_problems(),
        openapi_extra={"requestBody": _request_body(), "security": documents.SECURITY},
    )
    async def labels(request: Request) -> Response:
        headers = headers_of(request)
        caller = service.doors.admit(headers.get(b"authorization", b""), "label")
        advice = f"send at most {MOST_LABELS} labels at a time"
        content = await read_body(request, _MOST_BYTES, advice)
        read = _read(read_object(headers, content), service.assets)
        try:
            outcomes = await run_in_threadpool(store.add, read, caller.name)
        except RecordsError as error:
            raise records_unavailable(error) from error
        told = [
            {
                VEHICLE: label.asset_id,
                _MEASURED_AT: label.measured_at.astimezone(UTC),
                "outcome": outcome,
            }
            for label, outcome in zip(read, outcomes, strict=True)
        ]
        return Response(
            orjson.dumps({_MANY: told}, option=orjson.OPT_UTC_Z), media_type="application/json"
        )


class _Faults(list[dict[str, str]]):
    """What is wrong with a body, each with its place."""

    def add(self, place: str, detail: str) -> None:
        """One more."""
        self.append({"detail": detail, "pointer": f"#{place}"})


def _read(body: Mapping[str, Any], assets: Assets) -> list[Label]:
    """The labels of a body.

    Raises:
        ProblemError: with every fault of every label, up to a hundred; no label counts then.
    """
    faults = _Faults()
    if _MANY in body:
        many = body[_MANY]
        if body.keys() != {_MANY} or not isinstance(many, list):
            faults.add("", f"expected {{{_MANY!r}: [...]}} alone, or the fields of one label")
            many = []
        elif not 1 <= len(many) <= MOST_LABELS:
            faults.add(f"/{_MANY}", f"{len(many)} labels, expected 1 to {MOST_LABELS}")
            many = []
        read = [_label(one, f"/{_MANY}/{at}", assets, faults) for at, one in enumerate(many)]
    else:
        read = [_label(body, "", assets, faults)]
    if faults:
        more = len(faults) - _MOST_FAULTS
        raise ProblemError(
            INVALID_REQUEST,
            "the labels have faults, and none was put on record; see errors"
            + (f" ({more} more were found)" if more > 0 else "")
            + ", correct them and send all again",
            errors=faults[:_MOST_FAULTS],
        )
    return [label for label in read if label is not None]


def _label(given: object, place: str, assets: Assets, faults: _Faults) -> Label | None:
    """One label; None where it has faults."""
    before = len(faults)
    if not isinstance(given, dict):
        faults.add(place, f"not an object; expected the fields {', '.join(_FIELDS)}")
        return None
    unknown = sorted(given.keys() - set(_FIELDS))
    if unknown:
        named = ", ".join(name[:MAX_VEHICLE_ID] for name in unknown[:_MOST_NAMED])
        faults.add(place, f"unknown fields: {named}; expected {', '.join(_FIELDS)}")
    vehicle_id, source = given.get(VEHICLE), given.get(_SOURCE, _UNSTATED)
    range_ah = None
    if is_name(vehicle_id):
        range_ah = _range_of(vehicle_id, f"{place}/{VEHICLE}", assets, faults)
    else:
        faults.add(f"{place}/{VEHICLE}", f"expected 1 to {MAX_VEHICLE_ID} printable characters")
    if not is_name(source):
        faults.add(
            f"{place}/{_SOURCE}",
            f"expected 1 to {MAX_VEHICLE_ID} printable characters, or no such field",
        )
    measured_at = _time(given.get(_MEASURED_AT), f"{place}/{_MEASURED_AT}", faults)
    capacity = _capacity(given.get(_CAPACITY), range_ah, f"{place}/{_CAPACITY}", faults)
    if len(faults) > before or measured_at is None or capacity is None:
        return None
    return Label(str(vehicle_id), measured_at, capacity, str(source))


def _range_of(
    vehicle_id: str, place: str, assets: Assets, faults: _Faults
) -> tuple[float, float] | None:
    """Least and largest capacity that an asset can have, Ah; None where nothing says."""
    try:
        return assets.profile_of(vehicle_id).capacity_range_ah
    except ProblemError as problem:
        faults.add(place, problem.detail)
    except DataError:  # its nominal capacity is not known
        pass
    return None


def _time(given: object, place: str, faults: _Faults) -> datetime | None:
    """A time of ISO 8601 with its zone, as UTC."""
    expected = "expected a time of ISO 8601 with its zone, such as 2026-03-01T12:30:00Z"
    if not isinstance(given, str):
        faults.add(place, expected)
        return None
    try:
        at = datetime.fromisoformat(given)
        utc = None if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        faults.add(place, f"{given[:64]!r} is no such time; {expected}")
        return None
    if utc is None:
        faults.add(place, f"{given!r} has no zone; {expected}")
    elif utc > datetime.now(UTC) + CLOCKS_DIFFER:
        faults.add(place, f"{given!r} is in the future; check the clock and the zone")
    return utc


def _capacity(
    given: object, range_ah: tuple[float, float] | None, place: str, faults: _Faults
) -> float | None:
    """A capacity that the asset can have, Ah."""
    if not isinstance(given, int | float) or isinstance(given, bool):
        faults.add(place, "expected a number of Ah")
        return None
    low, high = range_ah or (0.0, float("inf"))
    if not (low <= given <= high and given > 0):
        expected = "more than 0" if range_ah is None else f"{low:g} to {high:g} Ah by its profile"
        faults.add(place, f"{given:.6g} Ah, expected {expected}")
        return None
    return float(given)


def _request_body() -> dict[str, Any]:
    """OpenAPI's `requestBody`: one label, or many."""
    text = {"type": "string", "minLength": 1, "maxLength": MAX_VEHICLE_ID}
    one = {
        "type": "object",
        "title": "Label",
        "additionalProperties": False,
        "required": [VEHICLE, _MEASURED_AT, _CAPACITY],
        "properties": {
            VEHICLE: {**text, "description": "the asset that was measured"},
            _MEASURED_AT: {
                "type": "string",
                "format": "date-time",
                "description": "with its zone; not in the future",
            },
            _CAPACITY: {
                "type": "number",
                "exclusiveMinimum": 0,
                "description": "Ah that a full discharge delivered, within what the asset's "
                "profile allows",
            },
            _SOURCE: {**text, "description": "how or by whom, in your words"},
        },
    }
    many = {
        "type": "object",
        "title": "Labels",
        "additionalProperties": False,
        "required": [_MANY],
        "properties": {
            _MANY: {"type": "array", "minItems": 1, "maxItems": MOST_LABELS, "items": one}
        },
    }
    corrected = {**_LABEL, _CAPACITY: 1.8398, _SOURCE: "bench 2, recalibrated"}
    examples = {
        "one label": {"value": _LABEL},
        "several": {"value": {_MANY: [_LABEL, corrected]}},
    }
    content = {"schema": {"oneOf": [one, many]}, "examples": examples}
    return {"required": True, "content": {"application/json": content}}


def _problems() -> dict[int | str, dict[str, Any]]:
    problem = documents.problem
    return documents.problem_responses(
        problem(MALFORMED_JSON, "the body is a JSON array, expected one object"),
        problem(UNAUTHENTICATED, "expected a header Authorization: Bearer KEY; there is none"),
        problem(FORBIDDEN, "the API key 'depot' has no scope 'label', only predict"),
        problem(BODY_TOO_LARGE, f"expected at most {_MOST_BYTES} bytes"),
        problem(WRONG_MEDIA_TYPE, "Content-Type is text/plain, expected application/json"),
        problem(
            INVALID_REQUEST,
            "the labels have faults, and none was put on record; see errors, correct them and "
            "send all again",
            {
                "detail": "'2026-03-01T12:30:00' has no zone; expected a time of ISO 8601 with "
                "its zone, such as 2026-03-01T12:30:00Z",
                "pointer": "#/labels/3/measured_at",
            },
        ),
        problem(RATE_LIMITED, "the API key 'depot' has asked too often; ask again in 0.2 s"),
        problem(RECORDS_UNAVAILABLE, "the prediction log is not usable: database is locked"),
    )

"""Routes of incidents: Alertmanager's webhook opens them, operators list them."""

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams

from batteryops.errors import RecordsError
from batteryops.records.incidents import Alert, Incidents, Notification
from batteryops.records.ledger import Ledger
from batteryops.serving import documents
from batteryops.serving.arrival import headers_of, read_body
from batteryops.serving.body import read_object
from batteryops.serving.commit import records_unavailable
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

__all__ = ["MOST_ALERTS", "add_incident_routes"]

logger = logging.getLogger(__name__)

MOST_ALERTS: Final = 1000
"""In one notification."""

_MOST_BYTES: Final = 4_194_304
_MOST_FAULTS: Final = 100  # that an answer names
_MOST_LABELS: Final = 64
_MOST_LISTED: Final = 1000
_LISTED: Final = 100
_LIMIT: Final = "limit"
_STATE: Final = "state"
_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
_CLOCKS_DIFFER: Final = timedelta(minutes=5)

_SUMMARY: Final = "discharge_time_s no longer looks as in training"
_INCIDENT: Final[dict[str, Any]] = {
    "incident_id": "019ba7c4-0d5e-7c1a-b6f0-5d3a4b7c9e21",
    "state": "open",
    "cause": {"cause": "climate"},
    "severity": "warning",
    "summary": _SUMMARY,
    "alerts": [
        {
            "fingerprint": "4f1c8a0b9d2e7f63",
            "firing": True,
            "labels": {"alertname": "DataDriftDetected", "feature": "discharge_time_s"},
            "annotations": {"summary": _SUMMARY},
            "started_at": "2026-03-01T12:20:00+00:00",
            "ended_at": None,
        }
    ],
    "started_at": "2026-03-01T12:20:00Z",
    "opened_at": "2026-03-01T12:30:30Z",
    "updated_at": "2026-03-01T12:30:30Z",
    "resolved_at": None,
    "closed_at": None,
    "closed_by": None,
    "note": None,
    "notifications": 1,
    "reopened": 0,
    "turns": [
        {"event": "incident_opened", "at": "2026-03-01T12:30:30+00:00", "by": None, "note": None}
    ],
}


def _without_nulls(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a null character, which no database keeps; take it out")
    return text


def _time(text: str) -> str:
    """Check a time; Alertmanager's own has nanoseconds."""
    expected = "expected a time of ISO 8601 with its zone, such as 2026-03-01T12:30:00Z"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is no such time; {expected}") from None
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no zone; {expected}")
    return text


_Text = Annotated[str, Field(max_length=4096), AfterValidator(_without_nulls)]
_Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_without_nulls)]
_Labels = Annotated[dict[_Name, _Text], Field(max_length=_MOST_LABELS)]
_Time = Annotated[
    str, Field(max_length=64, json_schema_extra={"format": "date-time"}), AfterValidator(_time)
]


class _Body(BaseModel):
    """What is read of a body; Alertmanager may send more."""

    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)


class AlertmanagerAlert(_Body):
    """One alert, as Alertmanager sends it."""

    status: Literal["firing", "resolved"]
    labels: _Labels
    annotations: _Labels = {}
    startsAt: _Time  # noqa: N815  # Alertmanager's name
    """Not in the future."""
    endsAt: _Time  # noqa: N815  # Alertmanager's name
    """Of an alert that holds it means nothing."""
    fingerprint: _Name


class AlertmanagerNotification(_Body):
    """The body of Alertmanager's webhook, version 4."""

    version: Literal["4"]
    status: Literal["firing", "resolved"]
    groupKey: Annotated[_Text, Field(min_length=1)]  # noqa: N815  # Alertmanager's name
    groupLabels: _Labels  # noqa: N815  # Alertmanager's name
    """What the alerts are grouped by: each such group is one incident."""
    commonAnnotations: _Labels = {}  # noqa: N815  # Alertmanager's name
    alerts: Annotated[list[AlertmanagerAlert], Field(min_length=1, max_length=MOST_ALERTS)]


class IncidentDocument(documents.Document):
    """An incident: one cause, with all alerts that it raised."""

    model_config = ConfigDict(json_schema_extra={"example": _INCIDENT})

    incident_id: str
    state: Literal["open", "resolved", "closed"]
    """`resolved`: no alert holds any more; it is closed once the cause has stayed away."""
    cause: dict[str, str]
    severity: Literal["info", "warning", "critical"]
    """The worst that it has had."""
    summary: str
    alerts: list[dict[str, Any]]
    """Each as it was told last."""
    started_at: datetime
    opened_at: datetime
    updated_at: datetime
    resolved_at: datetime | None
    closed_at: datetime | None
    closed_by: str | None
    """Null where it closed by itself."""
    note: str | None
    notifications: int
    reopened: int
    turns: list[dict[str, Any]]
    """When it was opened, reopened and closed; each turn is in the ledger too."""


class Received(documents.Document):
    """What became of a notification."""

    outcome: Literal["opened", "updated", "reopened", "resolved", "ignored"]
    """`ignored`: something is over that no incident knows of."""
    incident: IncidentDocument | None


class IncidentList(documents.Document):
    """Incidents, the newest first."""

    incidents: list[IncidentDocument]


def add_incident_routes(app: FastAPI, service: Service) -> None:
    """Add `POST /incidents/alertmanager` and `GET /incidents`."""
    desk = _IncidentDesk(service)

    @app.post(
        "/incidents/alertmanager",
        summary="Take a notification of Prometheus' Alertmanager: one incident per cause",
        response_model=Received,
        responses=_problems("the notification has faults, and was not put on record; see errors"),
        openapi_extra={"requestBody": _request_body(), "security": documents.SECURITY},
    )
    async def alertmanager(request: Request) -> Response:
        headers = headers_of(request)
        service.doors.admit(headers.get(b"authorization", b""), "admin")
        advice = "set max_alerts in Alertmanager's webhook_configs"
        content = await read_body(request, _MOST_BYTES, advice)
        read_object(headers, content)  # refuses what is no JSON object, in the same words as ever
        told = _notification(content)
        return _json(await run_in_threadpool(desk.receive, told))

    @app.get(
        "/incidents",
        summary="List incidents, the newest first",
        response_model=IncidentList,
        responses=_problems("limit=0; expected a whole number from 1 to 1000", has_body=False),
        openapi_extra={"parameters": _PARAMETERS, "security": documents.SECURITY},
    )
    async def incidents(request: Request) -> Response:
        service.doors.admit(headers_of(request).get(b"authorization", b""), "admin")
        limit, only_open = _asked(request.query_params)
        return _json(await run_in_threadpool(desk.list, limit, only_open=only_open))


class _IncidentDesk:
    """Where notifications are put on record; for threads."""

    def __init__(self, service: Service) -> None:
        self._incidents = Incidents.beside(service.log)
        self._ledger_url = service.settings.ledger_url
        self._quiet = timedelta(minutes=service.settings.monitoring.alerts.quiet_minutes)
        self._telling = threading.Lock()

    def receive(self, told: Notification) -> dict[str, Any]:
        """What `Received` says."""
        try:
            outcome, incident = self._incidents.receive(
                told, at=datetime.now(UTC), quiet=self._quiet
            )
            self._tell()
        except RecordsError as error:
            raise records_unavailable(error) from error
        return {"outcome": outcome, "incident": None if incident is None else incident.to_json()}

    def list(self, limit: int, *, only_open: bool) -> dict[str, Any]:
        """What `IncidentList` says."""
        try:
            found = self._incidents.list(
                at=datetime.now(UTC), quiet=self._quiet, limit=limit, only_open=only_open
            )
            self._tell()
        except RecordsError as error:
            raise records_unavailable(error) from error
        return {"incidents": [incident.to_json() for incident in found]}

    def _tell(self) -> None:
        """Have the ledger know; where it cannot, it is told with the next notification."""
        with self._telling:
            if not self._incidents.untold():
                return
            try:
                with Ledger(self._ledger_url) as ledger:
                    self._incidents.tell(ledger)
            except RecordsError as error:
                logger.warning("an incident is not on the ledger yet: %s", error)


def _notification(content: bytes) -> Notification:
    """What a body says.

    Raises:
        ProblemError: with every fault, up to a hundred; nothing is put on record then.
    """
    try:
        body = AlertmanagerNotification.model_validate_json(content)
    except ValidationError as error:
        faults = [
            {"detail": fault["msg"], "pointer": "#" + "".join(map(_place, fault["loc"]))}
            for fault in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise _refused(faults) from error
    now = datetime.now(UTC)
    alerts, faults = [], []
    for at, alert in enumerate(body.alerts):
        starts, ends = _utc(alert.startsAt), _utc(alert.endsAt)
        if starts is None or not _EARLIEST <= starts <= now + _CLOCKS_DIFFER:
            detail = f"{alert.startsAt!r} is in the future or before 1970; check the clock"
            faults.append({"detail": detail, "pointer": f"#/alerts/{at}/startsAt"})
            continue
        firing = alert.status == "firing"
        alerts.append(
            Alert(
                fingerprint=alert.fingerprint,
                firing=firing,
                labels=alert.labels,
                annotations=alert.annotations,
                started_at=starts,
                ended_at=None if firing or ends is None else ends,
            )
        )
    firing = body.status == "firing"
    if not faults and firing != any(alert.firing for alert in alerts):
        detail = f"status is {body.status!r}, and the alerts say otherwise"
        faults.append({"detail": detail, "pointer": "#/status"})
    if faults:
        raise _refused(faults)
    return Notification(
        cause=body.groupLabels or {"group": body.groupKey},
        firing=firing,
        alerts=alerts,
        summary=_summary(body, alerts),
    )


def _summary(body: AlertmanagerNotification, alerts: list[Alert]) -> str:
    """One line for a person: of the first alert that holds, and how many more there are."""
    counted = [alert for alert in alerts if alert.firing] or alerts
    shared = body.commonAnnotations.get("summary")
    if shared is not None and len(counted) == 1:
        return shared
    first = counted[0]
    told = first.annotations.get("summary") or first.labels.get("alertname") or "an alert"
    more = len(counted) - 1
    return told if not more else f"{told} (and {more} more)"


def _utc(text: str) -> datetime | None:
    """A checked time as UTC; None where UTC has no such time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        return None


def _place(part: str | int) -> str:
    """A part of a JSON pointer (RFC 6901)."""
    return "/" + str(part).replace("~", "~0").replace("/", "~1")


def _refused(faults: list[dict[str, str]]) -> ProblemError:
    more = len(faults) - _MOST_FAULTS
    return ProblemError(
        INVALID_REQUEST,
        "the notification has faults, and was not put on record; see errors"
        + (f" ({more} more were found)" if more > 0 else ""),
        errors=faults[:_MOST_FAULTS],
    )


def _asked(query: QueryParams) -> tuple[int, bool]:
    """How many incidents a query asks for, and whether only open ones.

    Raises:
        ProblemError: it asks for anything else.
    """
    unknown = sorted(query.keys() - {_LIMIT, _STATE})
    if unknown:
        raise ProblemError(
            INVALID_REQUEST,
            f"the query holds unknown parameter {unknown[0][:64]!r}; expected {_LIMIT}, {_STATE}",
        )
    limits, states = query.getlist(_LIMIT) or [str(_LISTED)], query.getlist(_STATE) or ["all"]
    limit = limits[0]
    if len(limits) > 1 or not (limit.isascii() and limit.isdecimal() and len(limit) <= 4):  # noqa: PLR2004  # digits
        raise _out_of_range(limit)
    if not 1 <= int(limit) <= _MOST_LISTED:
        raise _out_of_range(limit)
    if len(states) > 1 or states[0] not in {"all", "open"}:
        raise ProblemError(INVALID_REQUEST, f"{_STATE}={states[0]:.64}; expected all or open")
    return int(limit), states[0] == "open"


def _out_of_range(limit: str) -> ProblemError:
    return ProblemError(
        INVALID_REQUEST,
        f"{_LIMIT}={limit:.64}; expected a whole number from 1 to {_MOST_LISTED}",
    )


_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": _LIMIT,
        "in": "query",
        "required": False,
        "description": "At most so many.",
        "schema": {"type": "integer", "minimum": 1, "maximum": _MOST_LISTED, "default": _LISTED},
    },
    {
        "name": _STATE,
        "in": "query",
        "required": False,
        "description": "`open`: only those that are not closed.",
        "schema": {"type": "string", "enum": ["all", "open"], "default": "all"},
    },
]


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _request_body() -> dict[str, Any]:
    """OpenAPI's `requestBody` of the webhook."""
    schema = AlertmanagerNotification.model_json_schema()
    alert = schema.pop("$defs")["AlertmanagerAlert"]
    schema["properties"]["alerts"]["items"] = alert
    told = _INCIDENT["alerts"][0]
    example = {
        "version": "4",
        "status": "firing",
        "receiver": "incidents",
        "groupKey": '{}:{cause="climate"}',
        "groupLabels": _INCIDENT["cause"],
        "commonLabels": told["labels"],
        "commonAnnotations": told["annotations"],
        "externalURL": "http://alertmanager:9093",
        "truncatedAlerts": 0,
        "alerts": [
            {
                "status": "firing",
                "labels": told["labels"],
                "annotations": told["annotations"],
                "startsAt": "2026-03-01T12:20:00.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus:9090/graph",
                "fingerprint": told["fingerprint"],
            }
        ],
    }
    content = {"schema": schema, "examples": {"drift": {"value": example}}}
    return {"required": True, "content": {"application/json": content}}


def _problems(fault: str, *, has_body: bool = True) -> dict[int | str, dict[str, Any]]:
    problem = documents.problem
    of_bodies = (
        problem(MALFORMED_JSON, "the body is a JSON array, expected one object"),
        problem(BODY_TOO_LARGE, f"expected at most {_MOST_BYTES} bytes"),
        problem(WRONG_MEDIA_TYPE, "Content-Type is text/plain, expected application/json"),
    )
    return documents.problem_responses(
        *(of_bodies if has_body else ()),
        problem(UNAUTHENTICATED, "expected a header Authorization: Bearer KEY; there is none"),
        problem(FORBIDDEN, "the API key 'depot' has no scope 'admin', only predict"),
        problem(INVALID_REQUEST, fault),
        problem(RATE_LIMITED, "the API key 'depot' has asked too often; ask again in 0.2 s"),
        problem(RECORDS_UNAVAILABLE, "the prediction log is not usable: database is locked"),
    )

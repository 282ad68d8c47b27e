"""Problem documents: how every refusal and failure is told over HTTP, as RFC 9457 has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem that clients may tell apart.

    Args:
        name: last part of the `type` URI; None where the status says all.
        status: the HTTP status it comes with.
        title: the same words every time.
    """

    name: str | None
    status: HTTPStatus
    title: str

    @property
    def uri(self) -> str:
        """What `type` says in the document."""
        return "about:blank" if self.name is None else f"urn:batteryops:problem:{self.name}"


def plain(status: int) -> ProblemType:
    """The type that says no more than an HTTP status does."""
    known = HTTPStatus(status)
    return ProblemType(None, known, known.phrase)


FAILED: Final = "the server failed; its log says more under this request's identifier"
"""What is told of a failure whose cause is nobody else's business."""

MALFORMED_JSON: Final = ProblemType(
    "malformed-json", HTTPStatus.BAD_REQUEST, "The body is not a JSON object"
)
MALFORMED_HTTP: Final = ProblemType(
    "malformed-http", HTTPStatus.BAD_REQUEST, "The request is not HTTP"
)
HEAD_TOO_LARGE: Final = ProblemType(
    "head-too-large",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "The request line and headers are too large",
)
BODY_TOO_LARGE: Final = ProblemType(
    "body-too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"
)
WRONG_MEDIA_TYPE: Final = ProblemType(
    "wrong-media-type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body is not sent as JSON"
)
INVALID_REQUEST: Final = ProblemType(
    "invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "The request cannot be true or complete"
)
UNKNOWN_ASSET: Final = ProblemType(
    "unknown-asset", HTTPStatus.UNPROCESSABLE_ENTITY, "The asset is not known"
)
ASSET_NOT_SERVED: Final = ProblemType(
    "asset-not-served",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "The model in service cannot answer for this asset",
)
LOG_UNAVAILABLE: Final = ProblemType(
    "log-unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The prediction cannot be put on record, so it is not given",
)
OVERLOADED: Final = ProblemType(
    "overloaded",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "More answers wait for the prediction log than may",
)
UNAUTHENTICATED: Final = ProblemType(
    "unauthenticated", HTTPStatus.UNAUTHORIZED, "The request names no valid API key"
)
FORBIDDEN: Final = ProblemType("forbidden", HTTPStatus.FORBIDDEN, "The API key may not do this")
RATE_LIMITED: Final = ProblemType(
    "rate-limited", HTTPStatus.TOO_MANY_REQUESTS, "The API key has asked too often"
)
ARRIVED_TOO_SLOWLY: Final = ProblemType(
    "arrived-too-slowly", HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time"
)
NOT_FOLLOWING: Final = ProblemType(
    "not-following", HTTPStatus.CONFLICT, "The server follows no registry"
)
NOT_READY: Final = ProblemType(
    "not-ready", HTTPStatus.SERVICE_UNAVAILABLE, "The server cannot answer predictions"
)

RECORDS_UNAVAILABLE: Final = ProblemType(
    "records-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "The records cannot be reached"
)
UNKNOWN_PREDICTION: Final = ProblemType(
    "unknown-prediction", HTTPStatus.NOT_FOUND, "No such prediction is on record"
)
NOT_EXPLAINABLE: Final = ProblemType(
    "not-explainable", HTTPStatus.CONFLICT, "The model's answers cannot be explained"
)
MODEL_NOT_HERE: Final = ProblemType(
    "model-not-here", HTTPStatus.CONFLICT, "The server does not have the version that answered"
)
EXPLAINER_BUSY: Final = ProblemType(
    "explainer-busy", HTTPStatus.SERVICE_UNAVAILABLE, "More explanations are under way than may be"
)


class ProblemError(Exception):
    """Raised where a request cannot be answered; becomes the problem document.

    Args:
        kind: which problem.
        detail: this case of it: what was given, what was expected, what to do.
        errors: single faults, each with `detail` and, where one field has it, a JSON `pointer`.
        headers: further headers of the response.
    """

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})


def problem_response(
    kind: ProblemType,
    detail: str,
    request_id: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response that carries a problem document.

    Args:
        kind: which problem.
        detail: this case of it.
        request_id: becomes `instance`, so that the server's log can be searched for it.
        errors: single faults; left out when there are none.
        headers: further headers.
    """
    return Response(
        problem_content(kind, detail, request_id, errors=errors),
        status_code=kind.status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def problem_content(
    kind: ProblemType, detail: str, request_id: str, *, errors: Sequence[Mapping[str, str]] = ()
) -> bytes:
    """The problem document itself, as `problem_response` sends it."""
    document: dict[str, Any] = {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": f"urn:batteryops:request:{request_id}",
    }
    if errors:
        document["errors"] = list(errors)
    return orjson.dumps(document)


async def answer_problem(request: Request, error: Exception) -> Response:
    """Exception handler for `ProblemError`."""
    assert isinstance(error, ProblemError)  # noqa: S101  # registered for nothing else
    return problem_response(
        error.kind,
        error.detail,
        request.state.request_id,
        errors=error.errors,
        headers=error.headers,
    )


def as_v2_error(request: Request, problem: ProblemError) -> Response:
    """A problem document with the member `error`, as the Open Inference Protocol wants it."""
    content = problem_content(
        problem.kind, problem.detail, request.state.request_id, errors=problem.errors
    )
    faults = [fault["detail"] for fault in problem.errors]
    told = orjson.loads(content) | {"error": "; ".join([problem.detail, *faults])}
    return Response(
        orjson.dumps(told),
        status_code=problem.kind.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Exception handler for what the router raises: no such path, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for nothing else
    kind = plain(error.status_code)
    path = request.url.path
    if kind.status == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {path}; see /docs"
    elif kind.status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{path} does not take {request.method}; it takes {allowed}"
    else:
        detail = str(error.detail)
    problem = ProblemError(kind, detail, headers=error.headers)
    if f"{path}/".startswith("/v2/"):
        return as_v2_error(request, problem)
    return await answer_problem(request, problem)

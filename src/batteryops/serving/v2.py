"""The Open Inference Protocol under /v2, for clients that speak it to other servers.

A model's name is its registered one. `infer` goes the way of a batch: each row is judged, routed
and on record before it is answered. Where a version is named in the path, that version answers;
where none is, whoever each vehicle is routed to.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from batteryops import __version__
from batteryops.serving import documents, v2_documents
from batteryops.serving.arrival import headers_of, read_body
from batteryops.serving.batch import Batches
from batteryops.serving.batch_routes import SMALLER, batches_of, most_bytes
from batteryops.serving.body import JSON
from batteryops.serving.lineup import Lineup
from batteryops.serving.live_model import LiveModel
from batteryops.serving.problems import (
    NOT_READY,
    ProblemError,
    as_v2_error,
)
from batteryops.serving.service import Service
from batteryops.serving.v2_rows import metadata, questions_of, written
from batteryops.serving.v2_tensors import (
    HEADER_LENGTH,
    MALFORMED_INFERENCE,
    UNKNOWN_MODEL,
    read_inference,
)

_HEADER_LENGTH: Final = HEADER_LENGTH.lower().encode()
_BINARY: Final = "application/octet-stream"
_SERVER: Final = {
    "name": "batteryops",
    "version": __version__,
    "extensions": ["binary_tensor_data"],
}

Endpoint = Callable[["_Protocol", Request], Awaitable[Response]]


def add_v2_routes(app: FastAPI, service: Service) -> None:
    """Add the routes of the protocol."""
    protocol = _Protocol(service, batches_of(app, service))
    tags: Final[list[Any]] = ["Open Inference Protocol"]
    guarded: dict[str, Any] = {"security": documents.SECURITY}
    app.get(
        "/v2",
        summary="Name the server",
        tags=tags,
        responses=v2_documents.problems(),
        openapi_extra=guarded,
    )(protocol.server)
    app.get("/v2/health/live", summary="Say that the process is alive", tags=tags)(protocol.live)
    app.get(
        "/v2/health/ready",
        summary="Say that predictions can be answered",
        tags=tags,
        responses=v2_documents.problems(),
    )(protocol.ready)
    for path, names in (("", ("name",)), ("/versions/{version}", ("name", "version"))):
        model = f"/v2/models/{{name}}{path}"
        placed = {"parameters": v2_documents.parameters(*names)}
        app.get(
            f"{model}/ready",
            operation_id=f"model_ready_of_{names[-1]}",
            summary="Say that a model answers",
            tags=tags,
            responses=v2_documents.problems(),
            openapi_extra=placed,
        )(protocol.model_ready)
        app.get(
            model,
            operation_id=f"model_metadata_of_{names[-1]}",
            summary="Say what a model takes and gives",
            tags=tags,
            responses=v2_documents.problems(),
            openapi_extra=placed | guarded,
        )(protocol.model_metadata)
        app.post(
            f"{model}/infer",
            operation_id=f"infer_of_{names[-1]}",
            summary="Estimate capacity and State of Health of rows",
            description=v2_documents.DESCRIPTION,
            tags=tags,
            responses=v2_documents.problems(infer=True),
            openapi_extra={
                **placed,
                **guarded,
                "requestBody": v2_documents.request_body(service.lineup.champion),
            },
        )(protocol.infer)


def _with_error(endpoint: Endpoint) -> Endpoint:
    """Answer a problem in the protocol's form."""

    @wraps(endpoint)
    async def answered(self: "_Protocol", request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except ProblemError as problem:
            return as_v2_error(request, problem)

    return answered


class _Protocol:
    """The endpoints; name and version of a model are taken from the path."""

    def __init__(self, service: Service, batches: Batches) -> None:
        self._service = service
        self._batches = batches

    @_with_error
    async def server(self, request: Request) -> Response:
        self._admit(request)
        return _json(_SERVER)

    @_with_error
    async def live(self, request: Request) -> Response:  # noqa: ARG002  # all endpoints are alike
        return _json({"live": True})

    @_with_error
    async def ready(self, request: Request) -> Response:  # noqa: ARG002  # all endpoints are alike
        failures = await run_in_threadpool(self._service.failures)
        if failures:
            raise ProblemError(
                NOT_READY, "; ".join(f"{part}: {failure}" for part, failure in failures.items())
            )
        return _json({"ready": True})

    @_with_error
    async def model_ready(self, request: Request) -> Response:
        lineup = self._service.lineup
        model = _find(lineup, request) or lineup.champion
        if (wrong := await run_in_threadpool(model.self_test)) is not None:
            raise ProblemError(NOT_READY, wrong)
        return _json({"name": model.model_name, "ready": True})

    @_with_error
    async def model_metadata(self, request: Request) -> Response:
        self._admit(request)
        lineup = self._service.lineup
        return _json(metadata(lineup, _find(lineup, request) or lineup.champion))

    @_with_error
    async def infer(self, request: Request) -> Response:
        self._admit(request)
        lineup = self._service.lineup
        model = _find(lineup, request)
        headers = headers_of(request)
        encoding = headers.get(b"content-encoding", b"identity")
        if encoding != b"identity":
            raise ProblemError(
                MALFORMED_INFERENCE,
                f"Content-Encoding is {encoding.decode('latin-1')}; send the body as it is",
            )
        limits = self._service.settings.serving.limits
        most = most_bytes(limits, is_json=_HEADER_LENGTH not in headers)
        with self._batches.place():
            content = await read_body(request, most, SMALLER)
            return await self._batches.run(lambda: self._answer(request, content, lineup, model))

    def _answer(
        self, request: Request, content: bytes, lineup: Lineup, model: LiveModel | None
    ) -> Response:
        """In a thread."""
        service = self._service
        limits = service.settings.serving.limits
        length = headers_of(request).get(_HEADER_LENGTH)
        asked = read_inference(content, length, limits.batch_json_bytes)
        questions = questions_of(asked, model or lineup.champion, limits.batch_rows)
        _, (body, header_length) = self._batches.answer(
            questions,
            lineup,
            request_id=request.state.request_id,
            arrived=request.state.arrived,
            model=model,
            write=lambda answer: written(answer, asked),
        )
        if header_length is None:
            return Response(body, media_type=JSON.decode())
        return Response(body, headers={HEADER_LENGTH: str(header_length)}, media_type=_BINARY)

    def _admit(self, request: Request) -> None:
        self._service.doors.admit(headers_of(request).get(b"authorization", b""), "predict")


def _find(lineup: Lineup, request: Request) -> LiveModel | None:
    """The model of the version in the path; None where no version is named.

    Raises:
        ProblemError: when it is not in service.
    """
    name, version = request.path_params["name"], request.path_params.get("version")
    served = lineup.champion.model_name
    if name != served:
        raise ProblemError(UNKNOWN_MODEL, f"there is no model {name[:128]!r}, only {served!r}")
    if version is None:
        return None
    found = lineup.find(version)
    if found is None:
        versions = ", ".join(model.version for model in lineup.models())
        raise ProblemError(
            UNKNOWN_MODEL, f"version {version[:64]!r} of {served!r} is not in service: {versions}"
        )
    return found


def _json(document: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type=JSON.decode())

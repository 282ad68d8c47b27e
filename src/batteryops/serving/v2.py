"""The Open Inference Protocol under /v2, for clients that speak it to other servers.

A model's name is its registered one. `infer` goes the way of a batch: each row is judged, routed
and on record before it is answered. Where a version is named in the path, that version answers;
where none is, whoever each vehicle is routed to.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import numpy as np
import orjson
import polars as pl
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from batteryops import __version__
from batteryops.serving import documents
from batteryops.serving.arrival import headers_of, read_body
from batteryops.serving.batch import BatchAnswer
from batteryops.serving.batch_routes import SMALLER, batches_of
from batteryops.serving.body import JSON
from batteryops.serving.faults import VEHICLE
from batteryops.serving.lineup import Lineup
from batteryops.serving.live_model import LiveModel
from batteryops.serving.problems import (
    BODY_TOO_LARGE,
    INVALID_REQUEST,
    LOG_UNAVAILABLE,
    MEDIA_TYPE,
    NOT_READY,
    OVERLOADED,
    UNAUTHENTICATED,
    ProblemError,
    ProblemType,
    plain,
    problem_content,
)
from batteryops.serving.questions import Questions
from batteryops.serving.service import Service
from batteryops.serving.v2_tensors import (
    HEADER_LENGTH,
    MALFORMED_INFERENCE,
    Inference,
    Tensor,
    read_inference,
    write_inference,
)

UNKNOWN_MODEL: Final = ProblemType(
    "unknown-model", HTTPStatus.NOT_FOUND, "No model of that name and version is in service"
)
FEATURES: Final = "features"
_NUMBERS: Final = ("soh", "capacity_ah", "low_ah", "high_ah")
_TEXTS: Final = ("status", "prediction_id", "outside", "model_version", "role", "error")
_BINARY: Final = "application/octet-stream"
_EXTENSIONS: Final = ("binary_tensor_data",)
_SERVER: Final = {"name": "batteryops", "version": __version__, "extensions": _EXTENSIONS}
_TAGS: Final[list[str | Any]] = ["Open Inference Protocol"]

Answering = Callable[[], Awaitable[Response]]


def add_v2_routes(app: FastAPI, service: Service) -> None:
    """Add the routes of the protocol."""
    most_bytes = service.settings.serving.limits.batch_body_bytes
    batches = batches_of(app, service)
    guarded: dict[str, Any] = {"security": documents.SECURITY}

    def admit(request: Request) -> None:
        service.doors.admit(headers_of(request).get(b"authorization", b""), "predict")

    @app.get("/v2", summary="Name the server", tags=_TAGS, openapi_extra=guarded)
    async def server(request: Request) -> Response:
        async def told() -> Response:
            admit(request)
            return _json(_SERVER)

        return await _answered(request, told)

    @app.get("/v2/health/live", summary="Say that the process is alive", tags=_TAGS)
    async def live() -> Response:
        return _json({"live": True})

    @app.get("/v2/health/ready", summary="Say that predictions can be answered", tags=_TAGS)
    async def ready(request: Request) -> Response:
        async def told() -> Response:
            failures = await run_in_threadpool(service.failures)
            if failures:
                raise ProblemError(
                    NOT_READY,
                    "; ".join(f"{part}: {failure}" for part, failure in failures.items()),
                )
            return _json({"ready": True})

        return await _answered(request, told)

    async def model_ready(request: Request, name: str, version: str | None = None) -> Response:
        async def told() -> Response:
            model = _find(service.lineup, name, version) or service.lineup.champion
            if (wrong := await run_in_threadpool(model.self_test)) is not None:
                raise ProblemError(NOT_READY, wrong)
            return _json({"name": model.model_name, "ready": True})

        return await _answered(request, told)

    async def metadata(request: Request, name: str, version: str | None = None) -> Response:
        async def told() -> Response:
            admit(request)
            found = _find(service.lineup, name, version)
            return _json(_metadata(service.lineup, found or service.lineup.champion))

        return await _answered(request, told)

    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        async def told() -> Response:
            admit(request)
            found = _find(service.lineup, name, version)
            headers = headers_of(request)
            encoding = headers.get(b"content-encoding", b"identity")
            if encoding != b"identity":
                raise ProblemError(
                    MALFORMED_INFERENCE,
                    f"Content-Encoding is {encoding.decode('latin-1')}; send the body as it is",
                )
            with batches.place():
                content = await read_body(request, most_bytes, SMALLER)
                return await batches.run(lambda: answered(request.state, headers, content, found))

        return await _answered(request, told)

    def answered(
        state: State, headers: Mapping[bytes, bytes], content: bytes, model: LiveModel | None
    ) -> Response:
        """In a thread."""
        asked = read_inference(content, headers.get(HEADER_LENGTH.lower().encode()))
        questions = _questions(asked, model or service.lineup.champion, service)
        _, (body, header_length) = batches.answer(
            questions,
            request_id=state.request_id,
            arrived=state.arrived,
            model=model,
            write=lambda answer: _written(answer, asked),
        )
        if header_length is None:
            return Response(body, media_type=JSON.decode())
        return Response(body, headers={HEADER_LENGTH: str(header_length)}, media_type=_BINARY)

    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        versioned = "_version" if "version}" in path else ""
        app.get(
            f"{path}/ready",
            name=f"model_ready{versioned}",
            summary="Say that a model answers",
            tags=_TAGS,
            responses=_problems(),
        )(_unversioned(model_ready) if not versioned else _versioned(model_ready))
        app.get(
            path,
            name=f"model_metadata{versioned}",
            summary="Say what a model takes and gives",
            tags=_TAGS,
            responses=_problems(),
            openapi_extra=guarded,
        )(_unversioned(metadata) if not versioned else _versioned(metadata))
        app.post(
            f"{path}/infer",
            name=f"infer{versioned}",
            summary="Estimate capacity and State of Health of rows",
            description=_DESCRIPTION,
            tags=_TAGS,
            responses=_problems(infer=True),
            openapi_extra=guarded | {"requestBody": _request_body(service.lineup.champion)},
        )(_unversioned(infer) if not versioned else _versioned(infer))

    @app.api_route("/v2/{path:path}", methods=["GET", "POST"], include_in_schema=False)
    async def nothing(request: Request) -> Response:
        async def told() -> Response:
            raise ProblemError(
                plain(HTTPStatus.NOT_FOUND), f"there is nothing at {request.url.path}; see /docs"
            )

        return await _answered(request, told)


_DESCRIPTION: Final = f"""\
Inputs: `{VEHICLE}` (BYTES, [n] or [n, 1]), and either `{FEATURES}` (numbers, [n, k], columns in
the order of the model's metadata) or one tensor of numbers by the name of each feature, [n] or
[n, 1]. NaN, and null in JSON, stand for what is missing. Outputs, [n]: {", ".join(_NUMBERS)}
(FP64, NaN, or null in JSON, where a row has none), {", ".join(_TEXTS)} (BYTES).

Rows are answered as those of `/predict/batch`: one that cannot be is refused by itself, with
`status` refused and `error` saying why. Tensors may be sent and are given as binary data, as
Triton's extension of the protocol has it. Errors are problem documents with a member `error`.
"""


def _unversioned(
    answer: Callable[[Request, str], Awaitable[Response]],
) -> Callable[[Request, str], Awaitable[Response]]:
    async def endpoint(request: Request, name: str) -> Response:
        return await answer(request, name)

    return endpoint


def _versioned(
    answer: Callable[[Request, str, str | None], Awaitable[Response]],
) -> Callable[[Request, str, str], Awaitable[Response]]:
    async def endpoint(request: Request, name: str, version: str) -> Response:
        return await answer(request, name, version)

    return endpoint


async def _answered(request: Request, answer: Answering) -> Response:
    """An answer, or the problem document with the member `error` that the protocol has."""
    try:
        return await answer()
    except ProblemError as problem:
        document = orjson.loads(
            problem_content(
                problem.kind, problem.detail, request.state.request_id, errors=problem.errors
            )
        )
        faults = [fault["detail"] for fault in problem.errors]
        return Response(
            orjson.dumps(document | {"error": "; ".join([problem.detail, *faults])}),
            status_code=problem.kind.status,
            headers=problem.headers,
            media_type=MEDIA_TYPE,
        )


def _find(lineup: Lineup, name: str, version: str | None) -> LiveModel | None:
    """The model of that version; None where no version is named.

    Raises:
        ProblemError: when it is not in service.
    """
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


def _metadata(lineup: Lineup, model: LiveModel) -> dict[str, Any]:
    return {
        "name": model.model_name,
        "versions": [one.version for one in lineup.models()],
        "platform": "batteryops",
        "inputs": [
            {"name": VEHICLE, "datatype": "BYTES", "shape": [-1]},
            {
                "name": FEATURES,
                "datatype": "FP64",
                "shape": [-1, len(model.names)],
                "parameters": {"names": ",".join(model.names)},
            },
        ],
        "outputs": [
            *({"name": name, "datatype": "FP64", "shape": [-1]} for name in _NUMBERS),
            *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in _TEXTS),
        ],
    }


def _questions(asked: Inference, model: LiveModel, service: Service) -> Questions:
    """The rows of a request.

    Raises:
        ProblemError: when inputs are missing, unknown, or of another shape.
    """
    inputs = dict(asked.inputs)
    vehicles = inputs.pop(VEHICLE, None)
    if vehicles is None or not isinstance(vehicles.values, list):
        raise _invalid(f"expected an input {VEHICLE!r} of datatype BYTES")
    count = len(vehicles.values)
    most = service.settings.serving.limits.batch_rows
    if not 0 < count <= most:
        raise _invalid(f"{count} rows were sent, expected 1 to {most}")
    _column(vehicles, count)
    if FEATURES in inputs:
        whole = inputs.pop(FEATURES)
        expected = (count, len(model.names))
        if isinstance(whole.values, list) or whole.shape != expected:
            raise _invalid(
                f"input {FEATURES!r} has shape {list(whole.shape)}, expected numbers "
                f"{list(expected)}: {', '.join(model.names)}"
            )
        columns = dict(zip(model.names, whole.values.T, strict=True))
    else:
        columns = {name: _column(inputs.pop(name), count) for name in model.names if name in inputs}
    if inputs:
        raise _invalid(
            f"unknown input {next(iter(inputs))[:128]!r}; expected {VEHICLE!r} and {FEATURES!r}, or "
            f"{', '.join(model.names)}"
        )
    return Questions(
        pl.Series(VEHICLE, vehicles.values, dtype=pl.String),
        {
            feature.name: _series(feature.name, columns[feature.name], nulls=feature.optional)
            for feature in model.view.features
            if feature.name in columns
        },
        {},
    )


def _series(name: str, values: NDArray[np.float64], *, nulls: bool) -> pl.Series:
    """A column; a tensor has no other sign than NaN for what is missing."""
    return pl.Series(name, np.ascontiguousarray(values, dtype=np.float64), nan_to_null=nulls)


def _column(tensor: Tensor, count: int) -> NDArray[np.float64]:
    if tensor.shape not in ((count,), (count, 1)):
        raise _invalid(
            f"input {tensor.name!r} has shape {list(tensor.shape)}, expected {[count]} or "
            f"{[count, 1]}"
        )
    if isinstance(tensor.values, list):
        if tensor.name == VEHICLE:
            return np.empty(0)
        raise _invalid(f"input {tensor.name!r} is of datatype BYTES, expected numbers")
    return tensor.values.reshape(count)


def _invalid(detail: str) -> ProblemError:
    return ProblemError(INVALID_REQUEST, detail)


def _written(answer: BatchAnswer, asked: Inference) -> tuple[bytes, int | None]:
    table = answer.table
    outputs: dict[str, Any] = {name: table[name].to_numpy() for name in _NUMBERS}
    for name in _TEXTS:
        texts = table[name].list.join(",") if name == "outside" else table[name]
        outputs[name] = texts.fill_null("").to_list()
    told: dict[str, Any] = {"model_name": answer.model_name}
    if len(answer.model_versions) == 1:
        told["model_version"] = answer.model_versions[0]
    if asked.name is not None:
        told["id"] = asked.name
    told["parameters"] = {
        "batch_id": answer.batch_id,
        "n_answered": answer.n_answered,
        "n_refused": answer.n_refused,
    }
    return write_inference(told, outputs, asked)


def _json(document: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type=JSON.decode())


def _problems(*, infer: bool = False) -> dict[int | str, dict[str, Any]]:
    problem = documents.problem
    examples = [
        problem(UNAUTHENTICATED, "expected a header Authorization: Bearer KEY; there is none"),
        problem(UNKNOWN_MODEL, "there is no model 'iris', only 'ev-soh-predictor'"),
    ]
    if infer:
        examples += [
            problem(MALFORMED_INFERENCE, "input 'features' has no array as data"),
            problem(BODY_TOO_LARGE, f"expected fewer bytes; {SMALLER}"),
            problem(INVALID_REQUEST, f"expected an input {VEHICLE!r} of datatype BYTES"),
            problem(LOG_UNAVAILABLE, "the prediction log is not usable: database or disk is full"),
            problem(OVERLOADED, "8 batches are being answered or wait; try again in 5 s"),
        ]
    return documents.problem_responses(*examples)


def _request_body(model: LiveModel) -> dict[str, Any]:
    manifest = model.package.manifest
    row = [0.0 if value is None else float(f"{value:.6g}") for value in manifest.recorded.rows[0]]
    example = {
        "inputs": [
            {
                "name": VEHICLE,
                "datatype": "BYTES",
                "shape": [1],
                "data": [manifest.training_assets[0]],
            },
            {"name": FEATURES, "datatype": "FP64", "shape": [1, len(row)], "data": row},
        ]
    }
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array", "items": {}},
            "parameters": {"type": "object"},
        },
    }
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
                },
            },
        },
    }
    content = {"schema": schema, "examples": {"a recorded discharge": {"value": example}}}
    return {"required": True, "content": {JSON.decode(): content}}

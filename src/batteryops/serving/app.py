"""The HTTP app: predictions that are on record before they are given, and what operators ask."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from batteryops import __version__
from batteryops.serving import batch_documents, documents
from batteryops.serving.arrival import AsgiRequest, headers_of, read_body
from batteryops.serving.batch_routes import add_batch_routes, batches_of
from batteryops.serving.desk import Desk
from batteryops.serving.doors import Scope
from batteryops.serving.envelope import Envelope
from batteryops.serving.explanation_documents import (
    NOT_A_BOOSTER,
    PARAMETERS,
    ExplainedPrediction,
)
from batteryops.serving.explanations import add_explanation_routes, asks_why, explained
from batteryops.serving.incident_routes import add_incident_routes
from batteryops.serving.labelling import add_label_routes
from batteryops.serving.monitored import add_monitoring
from batteryops.serving.problems import (
    ASSET_NOT_SERVED,
    BODY_TOO_LARGE,
    FORBIDDEN,
    INVALID_REQUEST,
    LOG_UNAVAILABLE,
    MALFORMED_JSON,
    NOT_EXPLAINABLE,
    NOT_FOLLOWING,
    NOT_READY,
    OVERLOADED,
    RATE_LIMITED,
    UNAUTHENTICATED,
    UNKNOWN_ASSET,
    WRONG_MEDIA_TYPE,
    ProblemError,
    answer_http_exception,
    answer_problem,
)
from batteryops.serving.reference import add_reference_page
from batteryops.serving.service import Service
from batteryops.serving.signatures import SignedRequest
from batteryops.serving.v2 import add_v2_routes

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

_RETRY_AFTER: Final = {"Retry-After": "5"}  # seconds
_FOLLOW_S: Final = 0.2
_REFRESHED_WITHIN_S: Final = 10.0

_DESCRIPTION: Final = """\
Estimates the capacity and the State of Health of a battery from features of one discharge.

Every answer is in the prediction log before it is given. It carries an interval, calibrated on
batteries held out, and a status: with `out_of_domain` it names the features that are unlike
anything in training, and gives no number, unless the server is set to.

Every refusal is a problem document (RFC 9457, `application/problem+json`). Send `X-Request-ID`
to name a request; the answer repeats it, or names one that the server made.
"""


def create_app(service: Service, on_desk: Callable[[Desk], None] | None = None) -> FastAPI:
    """The app of one worker.

    Args:
        service: what is served, and how. The app follows its deployment document while it runs.
        on_desk: given the desk, which is made when the app starts, on its event loop.

    Returns:
        An ASGI app; its `state.service` is the service, its `state.desk` the desk.
    """
    metrics = service.metrics
    add_monitoring(service)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk = Desk(service, asyncio.get_running_loop())
        app.state.desk = desk
        if on_desk is not None:
            on_desk(desk)
        service.when_changed(lambda lineup: setattr(desk, "lineup", lineup))
        service.when_changed(lambda lineup: metrics.in_service(lineup.models()))
        service.doors.keep_fresh()
        following = asyncio.create_task(_follow(service))
        try:
            yield
        finally:
            following.cancel()
            await run_in_threadpool(batches_of(app, service).close)

    request_body = documents.request_body(service.lineup.champion)
    app = _Documented(
        title="BatteryOps",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,  # a page of our own
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers={
            ProblemError: answer_problem,
            HTTPException: answer_http_exception,
        },
    )
    app.add_middleware(Envelope, metrics=metrics)
    app.state.service = service

    @app.post(
        "/predict",
        summary="Estimate capacity and State of Health from one discharge's features",
        response_model=documents.Prediction | ExplainedPrediction,
        responses={200: documents.ANSWERS, **_prediction_problems(service)},
        openapi_extra={
            "requestBody": request_body,
            "security": documents.SECURITY,
            "parameters": PARAMETERS,
        },
    )
    async def predict(request: Request) -> Response:
        return await _predicted(request, service)

    @app.get(
        "/model-version",
        summary="Say which model answers, and what it takes",
        response_model=documents.ModelVersion,
        responses=documents.problem_responses(*_refusals_at_the_door("predict")),
        openapi_extra={"security": documents.SECURITY_OR_SIGNATURE},
    )
    async def model_version(request: Request) -> Response:
        await _admit_signed(request, service, "predict")
        return _json(documents.model_version(service.lineup).model_dump(mode="json"))

    @app.post(
        "/admin/refresh",
        summary="Look at the registry now instead of within moments",
        response_model=documents.Refreshed,
        responses=documents.problem_responses(
            *_refusals_at_the_door("admin"),
            documents.problem(BODY_TOO_LARGE, "expected at most 65536 bytes"),
            documents.problem(
                NOT_FOLLOWING, "this server was started with --model and follows no registry"
            ),
            documents.problem(NOT_READY, "the registry was not looked at within 10 s"),
        ),
        openapi_extra={"security": documents.SECURITY_OR_SIGNATURE},
    )
    async def refresh(request: Request) -> Response:
        await _admit_signed(request, service, "admin")
        return _json(await _refreshed(service))

    @app.get("/healthz", summary="Say that the process is alive")
    async def healthz() -> documents.Health:
        return documents.Health()

    @app.get(
        "/readyz",
        summary="Try the model on a recorded row and the prediction log; 503 when either fails",
        responses=documents.problem_responses(
            documents.problem(
                NOT_READY,
                "prediction_log: the prediction log at sqlite:///predictions.db is not usable",
            )
        ),
    )
    async def readyz() -> documents.Readiness:
        failures = await run_in_threadpool(service.failures)
        if failures:
            raise ProblemError(
                NOT_READY,
                "; ".join(f"{part}: {failure}" for part, failure in failures.items()),
                headers=_RETRY_AFTER,
            )
        checks = {"model": "ok", "prediction_log": "ok"} | service.remarks()
        return documents.Readiness(checks=checks)

    @app.get(
        "/metrics",
        summary="What is counted and timed, for Prometheus",
        response_class=PlainTextResponse,
        responses={200: {"content": {"application/openmetrics-text": {}}}},
    )
    async def exposition(request: Request) -> Response:
        service.observe()
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        content = await run_in_threadpool(lambda: encode(metrics.exposed()))
        return Response(content, headers={"Content-Type": media_type})

    add_explanation_routes(app, service)
    add_label_routes(app, service)
    add_incident_routes(app, service)
    add_reference_page(app)
    add_batch_routes(app, service)
    add_v2_routes(app, service)
    app.examples = {
        ("/predict", "requestBody"): request_body,
        ("/predict", "200"): documents.ANSWERS,
        ("/predict/batch", "200"): batch_documents.ANSWERS,
    }
    return app


class _Documented(FastAPI):
    """FastAPI whose OpenAPI page keeps the nulls of examples, which FastAPI takes out.

    `examples` are those of `POST` operations, by path and place: the request body, or a status.
    """

    examples: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType({})

    def openapi(self) -> dict[str, Any]:
        page = super().openapi()
        for (path, place), given in self.examples.items():
            operation = page["paths"][path]["post"]
            told = operation[place] if place == "requestBody" else operation["responses"][place]
            whole = given["content"]["application/json"]["examples"]
            told["content"]["application/json"]["examples"] = whole
        page["components"]["securitySchemes"] = documents.SECURITY_SCHEMES
        return page


async def _predicted(request: Request, service: Service) -> Response:
    """Answer a prediction that did not take the short way."""
    with_explanation = asks_why(request.query_params)
    content = await read_body(request, service.settings.serving.limits.body_bytes)
    asked = AsgiRequest(request, content)
    if with_explanation:
        return _json(await explained(service, asked))
    desk: Desk = request.app.state.desk
    desk.ask(asked)
    return Response(await asked.answer, media_type="application/json")


async def _follow(service: Service) -> None:
    """Serve what the deployment document says, within moments of its change."""
    while True:
        await asyncio.sleep(_FOLLOW_S)
        try:
            service.observe()
            if service.has_news():
                news = await run_in_threadpool(service.read_news)
                if news is not None:
                    service.change(*news)
        except Exception:  # a full disk under shared metrics, say; the next look is to come
            logger.exception("what is to be served could not be looked at")


async def _admit_signed(request: Request, service: Service, scope: Scope) -> None:
    """Let in who has a key of the scope, or has signed the request with one.

    Raises:
        ProblemError: nobody has.
    """
    body = await read_body(request, service.settings.serving.limits.body_bytes)
    path: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    target = path + b"?" + query if query else path
    service.doors.admit_signed(
        headers_of(request).get(b"authorization", b""),
        SignedRequest(request.method, target.decode("latin-1"), body),
        scope,
    )


async def _refreshed(service: Service) -> dict[str, Any]:
    """Have the registry looked at, and say what is served then."""
    if service.refresh is None:
        raise ProblemError(
            NOT_FOLLOWING,
            "this server was started with --model and follows no registry; start it without",
        )
    asked_at = datetime.now(UTC)
    service.refresh()
    deadline = asyncio.get_running_loop().time() + _REFRESHED_WITHIN_S
    while service.looked_at < asked_at:
        if asyncio.get_running_loop().time() > deadline:
            raise ProblemError(
                NOT_READY,
                f"the registry was not looked at within {_REFRESHED_WITHIN_S:g} s; "
                "what was known is served on",
                headers=_RETRY_AFTER,
            )
        await asyncio.sleep(_FOLLOW_S / 4)
    return {
        "generation": service.deployment.generation,
        "models": [
            {"model_version": model.version, "role": model.role}
            for model in service.lineup.models()
        ],
        "registry": service.deployment.registry.model_dump(mode="json"),
        "problem": service.problem,
    }


def _json(document: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _refusals_at_the_door(scope: str) -> list[dict[str, Any]]:
    """OpenAPI's examples of who is not let in."""
    problem = documents.problem
    other = "label" if scope == "predict" else "predict"
    return [
        problem(UNAUTHENTICATED, "expected a header Authorization: Bearer KEY; there is none"),
        problem(FORBIDDEN, f"the API key 'depot' has no scope {scope!r}, only {other}"),
        problem(RATE_LIMITED, "the API key 'depot' has asked too often; ask again in 0.2 s"),
    ]


def _prediction_problems(service: Service) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's examples of what `/predict` refuses."""
    problem = documents.problem
    most = service.settings.serving.limits.body_bytes
    return documents.problem_responses(
        problem(MALFORMED_JSON, "the body is a JSON array, expected one object"),
        *_refusals_at_the_door("predict"),
        problem(BODY_TOO_LARGE, f"expected at most {most} bytes"),
        problem(WRONG_MEDIA_TYPE, "Content-Type is text/plain, expected application/json"),
        problem(
            INVALID_REQUEST,
            "the body has faults; see errors, correct them and send it again",
            {
                "detail": "voltage_V_mean is 3529.8, expected 0 to 5 V; "
                "it looks like millivolts: divide by 1000",
                "pointer": "#/voltage_V_mean",
            },
        ),
        problem(UNKNOWN_ASSET, "asset 'X1' has no profile: it matches none of the patterns 'B0*'"),
        problem(
            ASSET_NOT_SERVED, "asset 'V1' is a pack; the model in service was trained on cells"
        ),
        problem(NOT_EXPLAINABLE, NOT_A_BOOSTER),
        problem(LOG_UNAVAILABLE, "the prediction log is not usable: database or disk is full"),
        problem(OVERLOADED, "20000 answers wait for the prediction log; try again in 0.5 s"),
    )

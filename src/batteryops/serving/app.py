"""The HTTP app: predictions that are on record before they are given, and what operators ask."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from prometheus_client.exposition import choose_encoder
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from batteryops import __version__
from batteryops.errors import BatteryOpsError, RecordsError
from batteryops.records.predictions import PredictionLog
from batteryops.serving import documents
from batteryops.serving.body import MAX_BODY_BYTES, read_object
from batteryops.serving.envelope import Envelope
from batteryops.serving.metrics import Metrics
from batteryops.serving.prediction import Predictor, ServedModel
from batteryops.serving.problems import (
    ASSET_NOT_SERVED,
    BODY_TOO_LARGE,
    INVALID_REQUEST,
    LOG_UNAVAILABLE,
    MALFORMED_JSON,
    NOT_READY,
    UNKNOWN_ASSET,
    WRONG_MEDIA_TYPE,
    ProblemError,
    answer_http_exception,
    answer_problem,
)
from batteryops.settings import Settings

__all__ = ["ServedModel", "create_app"]

_RETRY_AFTER: Final = {"Retry-After": "5"}  # seconds

_DESCRIPTION: Final = """\
Estimates the capacity and the State of Health of a battery from features of one discharge.

Every answer is in the prediction log before it is given. It carries an interval, calibrated on
batteries held out, and a status: with `out_of_domain` it names the features that are unlike
anything in training, and gives no number, unless the server is set to.

Every refusal is a problem document (RFC 9457, `application/problem+json`). Send `X-Request-ID`
to name a request; the answer repeats it, or names one that the server made.
"""


def create_app(model: ServedModel, log: PredictionLog, settings: Settings) -> FastAPI:
    """The app that answers with one model.

    Args:
        model: which model answers.
        log: where answers are put on record. It stays the caller's to close, after the app.
        settings: says which profile an asset has.

    Returns:
        An ASGI app with state, counters and caches of its own.
    """
    metrics = Metrics()
    predictor = Predictor(model, settings)
    manifest = model.package.manifest
    served = documents.model_version(manifest, model.version, model.role)
    metrics.model.info(
        {
            "name": served.model_name,
            "version": served.model_version,
            "role": served.role,
            "view": f"{served.view} v{served.view_version}",
            "fingerprint": served.package_fingerprint,
        }
    )
    answered = metrics.predictions.labels(version=model.version, role=model.role)

    request_body = documents.request_body(model.package.view, manifest)
    app = _Documented(
        title="BatteryOps",
        version=__version__,
        description=_DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            ProblemError: answer_problem,
            HTTPException: answer_http_exception,
        },
    )
    app.add_middleware(Envelope, metrics=metrics)

    @app.post(
        "/predict",
        summary="Estimate capacity and State of Health from one discharge's features",
        response_model=documents.Prediction,
        responses={200: documents.ANSWERS, **_prediction_problems()},
        openapi_extra={"requestBody": request_body},
    )
    async def predict(request: Request) -> Response:
        body = await read_object(request)
        answer = predictor.predict(body, request.state.request_id, request.state.arrived)
        try:
            await run_in_threadpool(log.append, [answer.record])
        except RecordsError as error:
            raise ProblemError(LOG_UNAVAILABLE, str(error), headers=_RETRY_AFTER) from error
        answered.inc()
        return _json(answer.to_json())

    @app.get(
        "/model-version",
        summary="Say which model answers, and what it takes",
        response_model=documents.ModelVersion,
    )
    async def model_version() -> Response:
        return _json(served.model_dump(mode="json"))

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
        failures = await run_in_threadpool(_failures, predictor, log)
        if failures:
            raise ProblemError(
                NOT_READY,
                "; ".join(f"{part}: {failure}" for part, failure in failures.items()),
                headers=_RETRY_AFTER,
            )
        return documents.Readiness(checks={"model": "ok", "prediction_log": "ok"})

    @app.get("/metrics", summary="What is counted and timed, for Prometheus")
    async def exposition(request: Request) -> Response:
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), headers={"Content-Type": media_type})

    app.examples = {
        ("/predict", "requestBody"): request_body,
        ("/predict", "200"): documents.ANSWERS,
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
        return page


def _json(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _failures(predictor: Predictor, log: PredictionLog) -> dict[str, str]:
    """What keeps predictions from being answered, by part."""
    failures = {}
    try:
        if (wrong := predictor.self_test()) is not None:
            failures["model"] = wrong
    except BatteryOpsError as error:  # the package's files are read when they are first needed
        failures["model"] = str(error)
    try:
        log.ping()
    except RecordsError as error:
        failures["prediction_log"] = str(error)
    return failures


def _prediction_problems() -> dict[int | str, dict[str, Any]]:
    """OpenAPI's examples of what `/predict` refuses."""
    problem = documents.problem
    return documents.problem_responses(
        problem(MALFORMED_JSON, "the body is a JSON array, expected one object"),
        problem(BODY_TOO_LARGE, f"expected at most {MAX_BODY_BYTES} bytes"),
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
        problem(LOG_UNAVAILABLE, "the prediction log is not usable: database or disk is full"),
    )

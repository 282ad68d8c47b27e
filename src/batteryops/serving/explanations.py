"""Routes that explain: `POST /predict?explain=true`, and `GET /explain/{prediction_id}`."""

import logging
import math
import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams

from batteryops.errors import PackageError, RecordsError
from batteryops.models.explain import is_explainable
from batteryops.models.package import ModelPackage, load_package
from batteryops.records.group_commit import encode_row
from batteryops.records.identifiers import new_id
from batteryops.records.record import PredictionRecord
from batteryops.registry.package_cache import folder_of
from batteryops.serving import documents
from batteryops.serving.answer import document_of
from batteryops.serving.arrival import AsgiRequest, headers_of
from batteryops.serving.body import read_object
from batteryops.serving.commit import on_record, records_unavailable
from batteryops.serving.explainer import Explanation
from batteryops.serving.explanation_documents import EXPLAIN, WORDS, RecordedExplanation, problems
from batteryops.serving.faults import VEHICLE
from batteryops.serving.lineup import Lineup
from batteryops.serving.live_model import LiveModel, Row
from batteryops.serving.logs import REQUEST_ID
from batteryops.serving.problems import (
    FAILED,
    INVALID_REQUEST,
    MODEL_NOT_HERE,
    NOT_EXPLAINABLE,
    UNKNOWN_PREDICTION,
    ProblemError,
    plain,
)
from batteryops.serving.service import Service

__all__ = ["add_explanation_routes", "asks_why", "explained"]

logger = logging.getLogger(__name__)

_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(:(0|[1-9][0-9]{0,8}))?"
)
_PACKAGES: Final = 4  # of versions that are not in service any more, kept loaded


def add_explanation_routes(app: FastAPI, service: Service) -> None:
    """Add `GET /explain/{prediction_id}`."""

    @app.get(
        "/explain/{prediction_id}",  # noqa: FAST003 - a parameter would promise FastAPI's own 422
        summary="Explain an answer that is on record, by the model version that gave it",
        response_model=RecordedExplanation,
        responses=problems(),
        openapi_extra={
            "security": documents.SECURITY,
            "parameters": [
                {
                    "name": "prediction_id",
                    "in": "path",
                    "required": True,
                    "description": "of an answer; for a row of a batch `BATCH_ID:ROW`",
                    "schema": {"type": "string", "pattern": f"^{_ID.pattern}$"},
                }
            ],
        },
    )
    async def explain_recorded(request: Request) -> Response:
        service.doors.admit(headers_of(request).get(b"authorization", b""), "predict")
        record = await _looked_up(service, request.path_params["prediction_id"])
        package = await run_in_threadpool(_package_of, service, service.lineup, record)
        told = await _explanation(service, package, record)
        return _json(_document(record, told))


def asks_why(query: QueryParams) -> bool:
    """Whether the query of a prediction asks for an explanation.

    Raises:
        ProblemError: it asks for anything else.
    """
    unknown = sorted(query.keys() - {EXPLAIN})
    given = query.getlist(EXPLAIN)
    if not unknown and not given:
        return False
    if unknown or len(given) > 1 or given[0] not in WORDS:
        told = f"unknown parameter {unknown[0][:64]!r}" if unknown else f"{EXPLAIN}={given[0]:.64}"
        raise ProblemError(
            INVALID_REQUEST, f"the query holds {told}; expected nothing or explain=true"
        )
    return WORDS[given[0]]


async def explained(service: Service, asked: AsgiRequest) -> dict[str, Any]:
    """Answer a prediction, and say where it comes from; both are on record then.

    Raises:
        ProblemError: as without an explanation; also when the model cannot be explained.
    """
    service.doors.admit(asked.headers.get(b"authorization", b""), "predict")
    body = read_object(asked.headers, asked.content)
    lineup, metrics = service.lineup, service.metrics
    vehicle_id = body.get(VEHICLE)
    model = lineup.answering(vehicle_id) if isinstance(vehicle_id, str) else lineup.champion
    row = service.assets.row_of(body, model)
    if not is_explainable(model.package):
        raise _not_explainable(model.package, model.version)
    metrics.cache_hits(model).inc(model.estimate([row]))
    if not math.isfinite(row.estimate.capacity_ah):
        logger.error(
            "version %s answered %r to %r",
            model.version,
            row.estimate.capacity_ah,
            row.values,
            extra={REQUEST_ID: asked.request_id},
        )
        raise ProblemError(plain(500), FAILED)
    answered_at = datetime.now(UTC)
    latency_ms = 1000.0 * (time.perf_counter() - asked.arrived)
    try:
        told = await service.explainer.explain(model.package, row.values, row.estimate.capacity_ah)
    except PackageError as error:
        raise _fails(error, model.version, asked.request_id) from error
    record = _record(asked, row, model, answered_at, latency_ms, told)
    records = [record]
    if lineup.shadow is not None and (other := _shadowed(row, model, lineup.shadow)) is not None:
        records.append(_record(asked, other, lineup.shadow, answered_at, latency_ms, None))
        metrics.shadowed(lineup.shadow).inc()
    await on_record(service.writer, [encode_row(each) for each in records])
    metrics.answered(model).inc()
    metrics.said(model, (row.soh,))
    answer = document_of(
        row,
        model,
        prediction_id=record.prediction_id,
        request_id=asked.request_id,
        withhold=service.withhold,
    )
    # base and contributions add up to the number that is withheld
    return answer | {"explanation": None if answer["capacity_ah"] is None else asdict(told)}


def _record(  # noqa: PLR0913, PLR0917 - who asked, what was answered, by whom
    asked: AsgiRequest,
    row: Row,
    model: LiveModel,
    answered_at: datetime,
    latency_ms: float,
    told: Explanation | None,
) -> PredictionRecord:
    """The record of an answer; of one that does not go out where it has no explanation."""
    estimate = row.estimate
    return PredictionRecord(
        prediction_id=new_id(),
        request_id=asked.request_id,
        answered_at=answered_at,
        vehicle_id=row.vehicle_id,
        model_name=model.model_name,
        model_version=model.version,
        package_fingerprint=model.fingerprint,
        role=model.role,
        features=dict(zip(model.names, row.values, strict=True)),
        capacity_ah=estimate.capacity_ah,
        soh=row.soh,
        latency_ms=latency_ms,
        capacity_low_ah=estimate.low_ah,
        capacity_high_ah=estimate.high_ah,
        status="ok" if estimate.position.inside else "out_of_domain",
        outside=tuple(estimate.position.features),
        outside_jointly=bool(estimate.position.joint),
        cached=row.cached,
        served=told is not None,
        contributions=None if told is None else told.contributions,
        base_ah=None if told is None else told.base_ah,
    )


def _shadowed(row: Row, model: LiveModel, shadow: LiveModel) -> Row | None:
    """What the challenger would have said; None where it takes other rows, or fails."""
    other = shadow.same_question(row, model)
    if other is None:
        return None
    try:
        shadow.estimate([other])
    except Exception:  # the champion's answer goes out all the same
        logger.exception("version %s, which shadows, failed", shadow.version)
        return None
    return other if math.isfinite(other.estimate.capacity_ah) else None


async def _looked_up(service: Service, prediction_id: str) -> PredictionRecord:
    """The record of an identifier."""
    record = None
    if _ID.fullmatch(prediction_id):
        try:
            record = await run_in_threadpool(service.log.get, prediction_id)
        except RecordsError as error:
            raise records_unavailable(error) from error
    if record is None:
        raise ProblemError(
            UNKNOWN_PREDICTION,
            f"no answer has the identifier {prediction_id[:64]!r}; expected the prediction_id of "
            "one, for an answered row of a batch BATCH_ID:ROW",
        )
    return record


def _package_of(service: Service, lineup: Lineup, record: PredictionRecord) -> ModelPackage:
    """The package that answered: one in service, or one in the cache of packages."""
    fingerprint = record.package_fingerprint
    for model in lineup.models():
        if model.fingerprint == fingerprint:
            return model.package
    version = record.model_version
    folder = folder_of(service.settings.packages, record.model_name, version, fingerprint)
    try:
        return _loaded(folder, fingerprint)
    except PackageError as error:
        logger.info("version %s cannot be loaded to explain an answer: %s", version, error)
        raise ProblemError(
            MODEL_NOT_HERE,
            f"version {version} with fingerprint {fingerprint[:12]} is not in service here, and "
            "not whole in the server's folder of packages; "
            + (
                f"`batteryops predict FILE --model {version}` on the server's machine fetches it"
                if version.isdecimal()
                else "serve it again with `batteryops serve --model FOLDER`"
            ),
        ) from error


@lru_cache(_PACKAGES)
def _loaded(folder: Path, fingerprint: str) -> ModelPackage:
    """The package of a fingerprint; its files are compared with the manifest when they are read.

    Raises:
        PackageError: it is not there, or another one is.
    """
    package = load_package(folder, verify=False)
    if package.fingerprint != fingerprint:
        raise PackageError(f"package {folder} has fingerprint {package.fingerprint}")
    return package


async def _explanation(
    service: Service, package: ModelPackage, record: PredictionRecord
) -> Explanation:
    if not is_explainable(package):
        raise _not_explainable(package, record.model_version)
    values = tuple(record.features.get(name) for name in package.view.names)
    try:
        return await service.explainer.explain(package, values)
    except PackageError as error:
        raise _fails(error, record.model_version, record.request_id) from error


def _document(record: PredictionRecord, told: Explanation) -> dict[str, Any]:
    recomputed_ah = math.fsum((told.base_ah, *told.contributions.values()))
    return {
        "prediction_id": record.prediction_id,
        "model_version": record.model_version,
        "package_fingerprint": record.package_fingerprint,
        "vehicle_id": record.vehicle_id,
        "features": dict(record.features),
        "status": record.status,
        "capacity_ah": record.capacity_ah,
        "base_ah": told.base_ah,
        "contributions": dict(told.contributions),
        "recomputed_ah": recomputed_ah,
        "difference_ah": recomputed_ah - record.capacity_ah,
        "baseline": record.baseline,
        "remark": None
        if record.baseline is None
        else f"the asset's own baseline {record.baseline} corrected the answer after the model; "
        "what it added is no part of the model, and stands in difference_ah",
    }


def _not_explainable(package: ModelPackage, version: str) -> ProblemError:
    return ProblemError(
        NOT_EXPLAINABLE,
        f"version {version} answers by {package.manifest.algorithm}; only a model that is one "
        "XGBoost booster can be explained: ask without an explanation",
    )


def _fails(error: PackageError, version: str, request_id: str) -> ProblemError:
    """What is told where a booster cannot be explained; where it lies is the log's business."""
    logger.error("an answer cannot be explained: %s", error, extra={REQUEST_ID: request_id})
    return ProblemError(
        NOT_EXPLAINABLE,
        f"contributions of version {version} do not add up to its answer; the server's log says "
        "more: ask without an explanation",
    )


def _json(told: dict[str, Any]) -> Response:
    return Response(orjson.dumps(told), media_type="application/json")

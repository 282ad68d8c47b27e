"""POST /predict/batch: many rows in one request, as JSON, Arrow or Parquet."""

from collections.abc import Mapping, Sequence
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from batteryops.serving import batch_documents, documents
from batteryops.serving.arrival import headers_of, read_body
from batteryops.serving.batch import Batches
from batteryops.serving.batch_forms import (
    JSON,
    form_asked,
    form_of,
    read_batch,
    summary_headers,
    written,
)
from batteryops.serving.service import Service
from batteryops.settings import LimitSettings

SMALLER: Final = "send the rows in several batches"


def add_batch_routes(app: FastAPI, service: Service) -> None:
    """Add `POST /predict/batch`."""
    limits = service.settings.serving.limits
    batches = batches_of(app, service)

    @app.post(
        "/predict/batch",
        summary="Estimate capacity and State of Health of many rows",
        description=batch_documents.description(limits),
        response_model=batch_documents.BatchPrediction,
        responses=batch_documents.responses(limits),
        openapi_extra={
            "requestBody": batch_documents.request_body(service.lineup.champion, limits.batch_rows),
            "security": documents.SECURITY,
        },
    )
    async def predict_batch(request: Request) -> Response:
        headers = headers_of(request)
        service.doors.admit(headers.get(b"authorization", b""), "predict")
        sent = form_of(headers)
        asked = form_asked(headers, sent)
        with batches.place():
            content = await read_body(request, most_bytes(limits, is_json=sent == JSON), SMALLER)

            def answered() -> Response:
                lineup = service.lineup
                questions = read_batch(sent, headers, content, lineup, limits)
                answer, told = batches.answer(
                    questions,
                    lineup,
                    request_id=request.state.request_id,
                    arrived=request.state.arrived,
                    write=lambda answer: written(answer, asked),
                )
                return _InPieces(told, summary_headers(answer), asked)

            return await batches.run(answered)


def most_bytes(limits: LimitSettings, *, is_json: bool) -> int:
    """What a body may have; one in JSON holds other requests up while it is read."""
    most = limits.batch_body_bytes
    return min(limits.batch_json_bytes, most) if is_json else most


class _InPieces(Response):
    """A response whose body is sent piece by piece, so that nobody has to join it."""

    def __init__(self, pieces: Sequence[bytes], headers: Mapping[str, str], form: str) -> None:
        length = {"Content-Length": str(sum(map(len, pieces)))}
        super().__init__(headers={**headers, **length}, media_type=form)
        self._pieces = pieces

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def batches_of(app: FastAPI, service: Service) -> Batches:
    """The one place where an app's batches are answered, so that all kinds wait in one queue."""
    if not hasattr(app.state, "batches"):
        app.state.batches = Batches(service)
    batches: Batches = app.state.batches
    return batches

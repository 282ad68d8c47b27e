"""Requests as OpenTelemetry spans: the caller's trace goes on in them."""

import sys
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from batteryops.errors import SettingsError
from batteryops.serving.tracing import traced, tracer_provider

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_request_is_a_span_of_the_callers_trace(
    serve: Callable[..., TestClient], body: dict[str, object]
) -> None:
    client = serve()
    assert isinstance(client.app, FastAPI)
    spans = InMemorySpanExporter()
    provider = tracer_provider(spans)
    with TestClient(traced(client.app, provider)) as asking:
        asked = asking.post(
            "/predict", json=body, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        )
        assert asked.status_code == 200
        asking.get("/healthz")
        asking.get("/metrics")
    provider.shutdown()
    (span,) = spans.get_finished_spans()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert "/predict" in span.name
    assert span.resource.attributes["service.name"] == "batteryops"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = tracer_provider(InMemorySpanExporter())
    for module in (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.instrumentation.asgi",
    ):
        monkeypatch.setitem(sys.modules, module, None)  # as Python has it where there is none
    with pytest.raises(SettingsError, match=r"install batteryops\[telemetry\], or set it to false"):
        tracer_provider()
    with pytest.raises(SettingsError, match="install batteryops"):
        traced(FastAPI(), provider)
    provider.shutdown()

"""OpenTelemetry traces of requests, where `serving.telemetry` asks for them.

Where spans go is said by OpenTelemetry's own environment variables, such as
`OTEL_EXPORTER_OTLP_ENDPOINT`. Every request then goes the app's own way, which is several times
slower than the short one: a span costs more than a prediction.
"""

from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp

from batteryops import __version__
from batteryops.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_UNTRACED: Final = "healthz,readyz,metrics"
"""What is asked every few seconds and tells nothing."""


def tracer_provider(exporter: "SpanExporter | None" = None) -> "TracerProvider":
    """What makes and sends spans; to be shut down at the end.

    Args:
        exporter: where spans go; over OTLP and HTTP, as the environment says, when None.

    Raises:
        SettingsError: the extra `telemetry` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - optional
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - optional
    except ImportError as error:
        raise _not_installed() from error
    resource = Resource.create({"service.name": "batteryops", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    return provider


def traced(app: ASGIApp, provider: "TracerProvider") -> ASGIApp:
    """An app whose requests are spans; a caller's trace goes on in them.

    Raises:
        SettingsError: the extra `telemetry` is not installed.
    """
    try:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415 - optional
    except ImportError as error:
        raise _not_installed() from error
    wrapped: ASGIApp = OpenTelemetryMiddleware(
        app, tracer_provider=provider, excluded_urls=_UNTRACED, exclude_spans=["receive", "send"]
    )
    return wrapped


def _not_installed() -> SettingsError:
    return SettingsError(
        "serving.telemetry is true and OpenTelemetry is not installed; install "
        "batteryops[telemetry], or set it to false"
    )

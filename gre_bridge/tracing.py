"""OpenTelemetry spans of deliveries, with the optional extra `tracing`.

Each delivery has a span from the commit of its message to the response of the service, with a child span from the claim
on. Spans carry ids and no text. A thread exports them, so an unavailable collector costs only spans.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from gre_bridge.db.types import Delivery
from gre_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's variables that enable tracing; its other variables (headers, sampler, …) apply as well."""
CLOSE_WITHIN = 2.0
"""Seconds for the export at the end of the process."""


class Tracing:
    """Records finished deliveries. `sent` neither blocks nor raises."""

    def __init__(self, provider: TracerProvider) -> None:
        """`provider` samples and exports spans; `close` shuts it down."""
        self._provider = provider
        self._tracer = provider.get_tracer("gre_bridge")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Read OpenTelemetry's variables; return None if they name no collector.

        Raises ConfigurationError if they do and the extra is not installed.
        """
        name = next((variable for variable in ENDPOINTS if environment.get(variable)), None)
        if name is None or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an optional extra
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                f"{name}: is set, but `pip install 'gre-bridge[tracing]'` is missing"
            ) from None
        service = environment.get("OTEL_SERVICE_NAME") or "gre-bridge"
        provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def sent(
        self, sink: str, lane: str, deliveries: Sequence[Delivery], took: float, error: str | None = None
    ) -> None:
        """Record deliveries that were answered now, `took` seconds after their claim; `error` describes a refusal."""
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415

        end = time.time_ns()
        claimed = end - int(took * 1e9)
        for delivery in deliveries:
            attributes = {
                "messaging.system": sink,
                "messaging.operation.type": "send",
                "messaging.message.id": (delivery.message or {}).get("id") or delivery.id,
                "gre.session": lane,
                "gre.delivery": delivery.id,
                "gre.event": delivery.event,
                "gre.attempts": delivery.attempts,
            }
            span = self._tracer.start_span(
                f"deliver {delivery.event}", kind=SpanKind.PRODUCER, attributes=attributes,
                start_time=claimed - int(delivery.age * 1e9),
            )  # fmt: skip
            child = self._tracer.start_span(
                f"send to {sink}", context=set_span_in_context(span), kind=SpanKind.CLIENT, start_time=claimed
            )
            if error is not None:
                span.set_status(StatusCode.ERROR, error)
            child.end(end)
            span.end(end)

    def close(self) -> None:
        """Export the remaining spans; block for at most CLOSE_WITHIN seconds, so call it in a thread."""
        # The exporter's own time-outs add up to a minute and cannot be shortened (run against 1.45.2).
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSE_WITHIN)

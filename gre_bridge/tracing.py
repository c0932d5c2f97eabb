"""Spans of deliveries for OpenTelemetry, for those who have a collector: the optional extra `tracing`.

One span a delivery, from the message's commit to the service's answer, with one inside it from the claim on. It
carries ids, never text, and is exported by a thread of its own: a collector that is away costs spans, nothing else.
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
"""OpenTelemetry's own variables, without which nothing is traced; its others (headers, sampler, …) work too."""
CLOSE_WITHIN = 2.0


class Tracing:
    """Where finished deliveries are told. Its methods neither block nor raise."""

    def __init__(self, provider: TracerProvider) -> None:
        """`provider` samples and exports; `close` shuts it down."""
        self._provider = provider
        self._tracer = provider.get_tracer("gre_bridge")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self | None:
        """As OpenTelemetry's variables say; None when they name no collector.

        Raises ConfigurationError when they do and the extra is not installed.
        """
        name = next((one for one in ENDPOINTS if environment.get(one)), None)
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
        """These deliveries got an answer now, `took` seconds after they were claimed; `error` is a refusal."""
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415

        end = time.time_ns()
        claimed = end - int(took * 1e9)
        for delivery in deliveries:
            what = {
                "messaging.system": sink,
                "messaging.operation.type": "send",
                "messaging.message.id": (delivery.message or {}).get("id") or delivery.id,
                "gre.session": lane,
                "gre.delivery": delivery.id,
                "gre.event": delivery.event,
                "gre.attempts": delivery.attempts,
            }
            span = self._tracer.start_span(
                f"deliver {delivery.event}", kind=SpanKind.PRODUCER, attributes=what,
                start_time=claimed - int(delivery.age * 1e9),
            )  # fmt: skip
            inside = self._tracer.start_span(
                f"send to {sink}", context=set_span_in_context(span), kind=SpanKind.CLIENT, start_time=claimed
            )
            if error is not None:
                span.set_status(StatusCode.ERROR, error)
            inside.end(end)
            span.end(end)

    def close(self) -> None:
        """Export what is left, for a bounded time: a collector that hangs loses it. Blocks so long: call it in a thread."""
        # (The exporter's own time-outs add up to a minute, whatever is asked of it: run against 1.45.2.)
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSE_WITHIN)

"""Spans of deliveries: exported over OTLP to a collector on a real socket, as the real packages do it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gre_bridge.db.types import Delivery
from gre_bridge.errors import ConfigurationError
from gre_bridge.tracing import CLOSE_WITHIN, Tracing
from tests.support.waiting import wait_until

TEXT = "zebra crossing"


@contextmanager
def collecting(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a collector answer."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield
    server.shutdown()
    thread.join(60)


@pytest.fixture
def taken() -> list[ExportTraceServiceRequest]:
    """The requests that the collector received."""
    return []


@pytest.fixture
def server(
    monkeypatch: pytest.MonkeyPatch, taken: list[ExportTraceServiceRequest]
) -> Iterator[ThreadingHTTPServer]:
    """A collector that accepts connections and does not answer yet."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{found.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield found


@pytest.fixture
def collector(
    server: ThreadingHTTPServer, taken: list[ExportTraceServiceRequest]
) -> Iterator[list[ExportTraceServiceRequest]]:
    """The requests that a collector received and answered."""
    with collecting(server):
        yield taken


def test_a_delivery_is_a_span_from_commit_to_answer_with_its_ids_and_without_its_text(
    collector: list[ExportTraceServiceRequest],
) -> None:
    tracing = Tracing.from_environment()
    assert tracing is not None
    message = Delivery("d1", 1, "message", 0, age=2.0, message={"id": "m1", "message": TEXT})
    read = Delivery("d2", 2, "read", 3, age=0.5, data={"by": "staff"})
    now = time.time_ns()
    tracing.sent("pusher", "s1", [message], took=0.25)
    tracing.sent("onesignal", "s1", [read], took=0.25, error="400")
    tracing.close()
    spans = [
        s for request in collector for r in request.resource_spans for x in r.scope_spans for s in x.spans
    ]
    found = {(span.name, span.parent_span_id == b""): span for span in spans}
    assert set(found) == {
        ("deliver message", True), ("send to pusher", False), ("deliver read", True), ("send to onesignal", False),
    }  # fmt: skip
    whole, part = found["deliver message", True], found["send to pusher", False]
    assert part.parent_span_id == whole.span_id
    assert whole.end_time_unix_nano == part.end_time_unix_nano >= now
    assert (whole.end_time_unix_nano - whole.start_time_unix_nano) / 1e9 == pytest.approx(2.25, abs=1e-3)
    assert (part.end_time_unix_nano - part.start_time_unix_nano) / 1e9 == pytest.approx(0.25, abs=1e-3)
    told = {a.key: a.value.string_value or a.value.int_value for a in whole.attributes}
    assert told == {
        "messaging.system": "pusher", "messaging.operation.type": "send", "messaging.message.id": "m1",
        "gre.session": "s1", "gre.delivery": "d1", "gre.event": "message", "gre.attempts": 0,
    }  # fmt: skip
    assert found["deliver read", True].status.message == "400"
    assert TEXT not in str(collector)


@pytest.fixture(autouse=True)
def exporter_has_ended() -> Iterator[None]:
    """Wait for the exporter's thread, whose use of `random` would disturb hypothesis."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread


def test_a_collector_that_never_answers_does_not_delay_the_stop(
    monkeypatch: pytest.MonkeyPatch, server: ThreadingHTTPServer, taken: list[ExportTraceServiceRequest]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")  # seconds for a batch
    tracing = Tracing.from_environment()
    assert tracing is not None
    tracing.sent("pusher", "s1", [Delivery(f"d{n}", n, "read", 0, age=0.0) for n in range(400)], took=0.1)
    began = time.monotonic()
    tracing.close()
    assert time.monotonic() - began < CLOSE_WITHIN + 15  # the exporter itself would try for 20 s
    assert not taken
    with collecting(server):  # with its answers the exporter's threads end at once
        wait_until(lambda: taken)
        wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("Otel")])


def test_without_a_collector_nothing_is_traced() -> None:
    assert Tracing.from_environment({}) is None
    assert (
        Tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"})
        is None
    )


def test_a_collector_without_the_extra_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT: .*gre-bridge\[tracing\]"):
        Tracing.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})

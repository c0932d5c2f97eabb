"""What the operator sees: structured logs and Prometheus metrics.

Logs carry ids (message, session, delivery, worker), never message text and never a key: every line
passes a filter that blanks known secrets. Metrics are in base units (seconds) and all begin with
`gre_`.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gre_bridge import __version__
from gre_bridge.log_writer import LogWriter

LOGS = LogWriter()
"""Where the daemon's lines go: stderr, without ever waiting for it."""


class AccessLog:
    """A line for each request and each delivery, for those who want them."""

    def __init__(self) -> None:
        self.on = False
        """Whether anybody reads them: ask before making one."""
        self._write: Any = None

    def configure(self, *, level: str, wanted: bool) -> None:
        """Write at level info where it is `wanted` (GRE_ACCESS_LOG), else at debug."""
        logger = structlog.get_logger("gre.access")
        self.on = wanted or level.lower() == "debug"
        self._write = logger.info if wanted else logger.debug

    def write(self, event: str, **fields: object) -> None:
        """Write a line: ids and times, never text."""
        self._write(event, **fields)


ACCESS_LOG = AccessLog()
disable_created_metrics()  # type: ignore[no-untyped-call] # a series beside each counter that nobody asks for

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


def _bare_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say which exception was raised where, and no more: its text and its frames' locals may hold chat text."""
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        event["exception"] = type(error).__name__
        event["at"] = " < ".join(
            f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(frames[-8:])
        )
    return event


def configure_logging(
    *, level: str, style: str, secrets: Iterable[str] = (), out: LogWriter | None = None, access: bool = False
) -> None:
    """Set up structlog and the standard library's logging: JSON lines, or readable ones on a terminal.

    `style` is json, console or auto; `out` takes the lines in place of sys.stderr; `access` asks for a line for
    each request and each delivery. Libraries that print addresses with keys, or payloads, at low
    levels are held at WARNING; `realtime` logs refused payloads whole at ERROR, so it is shut off
    (the feed reports its state itself).
    """
    stream: Any = out if out is not None else sys.stderr
    # As they are, and as JSON or a repr would write them.
    forms = {form for s in secrets if len(s) >= 6 for form in (s, json.dumps(s)[1:-1], repr(s)[1:-1])}
    known = sorted(forms, key=len, reverse=True)
    as_json = style == "json" or (style == "auto" and not stream.isatty())
    plain: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=True)
    )

    def render(logger: Any, name: str, event: MutableMapping[str, Any]) -> str:
        line = str(plain(logger, name, event))
        for secret in known:
            line = line.replace(secret, "[redacted]")
        return line

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _bare_exception,
    ]
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # One write for each line: several processes write to one stream.
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    ACCESS_LOG.configure(level=level, wanted=access)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    # Python's last resort prints text: for loggers that somebody has cut off from the root, as uvicorn does.
    logging.lastResort = handler
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in (
        "httpx",
        "httpcore",
        "websockets",
        "urllib3",
        "asyncio",
        "hpack",
        "uvicorn.access",
        "pusher",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("realtime").setLevel(logging.CRITICAL + 1)
    # Below ERROR it writes lines for each connection and each malformed request: anybody could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error"):  # whoever set them up before: one format, one way out
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


class Reasons(Collector):
    """Why each sink's breaker is not closed: one series for each that is not, so that none outlives its reason."""

    def __init__(self) -> None:
        """No sink is known yet."""
        self.by_sink: dict[str, Callable[[], str]] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The reasons as they are now."""
        family = GaugeMetricFamily(
            "gre_breaker_reason",
            "1 for the reason why a sink's breaker is not closed",
            labels=["sink", "reason"],
        )
        for sink, reason in self.by_sink.items():
            if said := reason():
                family.add_metric([sink, said], 1)
        yield family


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        """Create the registry and every metric."""
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        self.build_info = Gauge(
            "gre_build_info", "1, with the version of gre-bridge", ["version"], registry=registry
        )
        self.build_info.labels(__version__).set(1)
        self.log_lines_dropped = Counter(
            "gre_log_lines_dropped_total", "Log lines that could not be written", registry=registry
        )
        self.claimed = Counter(
            "gre_deliveries_claimed_total", "Deliveries claimed", ["sink"], registry=registry
        )
        self.settled = Counter(
            "gre_deliveries_settled_total",
            "Deliveries by what became of them: done, expired, retry (refused), held (sink down), dead",
            ["sink", "outcome"],
            registry=registry,
        )
        self.requests = Counter(
            "gre_sink_requests_total",
            "Batches handed to a sink, by result",
            ["sink", "result"],
            registry=registry,
        )
        self.store_requests = Counter(
            "gre_store_requests_total", "Calls to the database", ["function"], registry=registry
        )
        self.store_time = Histogram(
            "gre_store_call_seconds", "Time of a call to the database, failed ones included", ["function"],
            buckets=_CALL_BUCKETS, registry=registry,
        )  # fmt: skip
        self.http_requests = Counter(
            "gre_http_requests_total", "Requests to the API by the route's template (none: no such address)",
            ["method", "route", "status"], registry=registry,
        )  # fmt: skip
        self.http_time = Histogram(
            "gre_http_request_seconds", "Time of a request to the API", ["route"],
            buckets=_CALL_BUCKETS, registry=registry,
        )  # fmt: skip
        self.store_errors = Counter(
            "gre_store_errors_total", "Failed calls to the database", ["kind"], registry=registry
        )
        self.claim_age = Histogram(
            "gre_commit_to_claim_seconds", "Age of a delivery when it was claimed", ["sink"],
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self.send_time = Histogram(
            "gre_claim_to_accepted_seconds", "From the claim to the sink's acceptance", ["sink"],
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self.total_time = Histogram(
            "gre_commit_to_accepted_seconds", "From the message's commit to the sink's acceptance", ["sink"],
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self.breaker = Gauge(
            "gre_breaker_state", "0 closed, 1 half open, 2 open", ["sink"], registry=registry
        )
        self.breaker_reasons = Reasons()
        registry.register(self.breaker_reasons)
        self.in_flight = Gauge("gre_requests_in_flight", "Batches being sent", ["sink"], registry=registry)
        self.lost_leases = Counter(
            "gre_leases_lost_total", "Lanes taken over by another worker before they were settled", ["sink"],
            registry=registry,
        )  # fmt: skip
        self.rings = Counter(
            "gre_bells_total", "Bells heard from Realtime, joins included", registry=registry
        )
        self.missed = Counter(
            "gre_bells_missed_total",
            "Work found by a sweep that no bell had announced",
            ["sink"],
            registry=registry,
        )
        self.feed_state = Gauge(
            "gre_feed_state", "1 for the state the feed is in", ["state"], registry=registry
        )
        self.reconnections = Counter(
            "gre_feed_reconnections_total",
            "Realtime connections given up, by reason",
            ["reason"],
            registry=registry,
        )
        self.backlog = Gauge("gre_backlog", "Deliveries waiting", ["sink"], registry=registry)
        self.oldest_age = Gauge(
            "gre_backlog_oldest_age_seconds",
            "Age of the oldest waiting delivery",
            ["sink"],
            registry=registry,
        )
        self.dead = Gauge("gre_dead", "Dead deliveries", ["sink"], registry=registry)
        self.lanes_blocked = Gauge(
            "gre_lanes_blocked", "Lanes that wait for a retry", ["sink"], registry=registry
        )
        self.schema_supported = Gauge(
            "gre_schema_supported",
            "1 when the database's schema is one that this daemon knows",
            registry=registry,
        )
        self.sockets = Gauge(
            "gre_sockets", "Authenticated WebSockets of this instance", ["role"], registry=registry
        )
        self.socket_closes = Counter(
            "gre_socket_closes_total", "WebSockets closed, by close code", ["code"], registry=registry
        )
        self.socket_messages = Counter(
            "gre_socket_messages_total",
            "Chat messages by way: in (sent by a socket's client), out (to one socket), replayed",
            ["way"],
            registry=registry,
        )

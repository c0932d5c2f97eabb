"""Prometheus metrics of one process, in base units (seconds); all names start with `gre_`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gre_bridge import __version__
from gre_bridge.log_writer import LogWriter

disable_created_metrics()  # type: ignore[no-untyped-call] # they would double the number of series

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class DroppedLines(Collector):
    """Exports the number of log lines that a writer dropped."""

    def __init__(self, writer: LogWriter) -> None:
        """`writer` counts the lines."""
        self._writer = writer

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the current count."""
        text = "Log lines that could not be written"
        yield CounterMetricFamily("gre_log_lines_dropped_total", text, value=self._writer.dropped)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, log_writer: LogWriter | None = None) -> None:
        """`log_writer` is the writer whose dropped lines are counted."""
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        self.build_info = Gauge(
            "gre_build_info", "1, with the version of gre-bridge", ["version"], registry=registry
        )
        self.build_info.labels(__version__).set(1)
        if log_writer is not None:
            registry.register(DroppedLines(log_writer))
        self.claimed = Counter(
            "gre_deliveries_claimed_total", "Deliveries claimed", ["sink"], registry=registry
        )
        self.settled = Counter(
            "gre_deliveries_settled_total",
            "Deliveries by outcome: done, expired, retry (rejected), held (postponed: sink down), dead",
            ["sink", "outcome"],
            registry=registry,
        )
        self.requests = Counter(
            "gre_sink_requests_total",
            "Batches handed to a sink, by result",
            ["sink", "result"],
            registry=registry,
        )
        self.database_requests = Counter(
            "gre_database_requests_total", "Calls to the database", ["function"], registry=registry
        )
        self.database_time = Histogram(
            "gre_database_request_seconds", "Time of a call to the database, failed ones included", ["function"],
            buckets=_CALL_BUCKETS, registry=registry,
        )  # fmt: skip
        self.http_requests = Counter(
            "gre_http_requests_total", "Requests to the API by template of the route (none: no such address)",
            ["method", "route", "status"], registry=registry,
        )  # fmt: skip
        self.http_time = Histogram(
            "gre_http_request_seconds", "Time of a request to the API", ["route"],
            buckets=_CALL_BUCKETS, registry=registry,
        )  # fmt: skip
        self.database_errors = Counter(
            "gre_database_errors_total", "Failed calls to the database", ["kind"], registry=registry
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
        self.in_flight = Gauge("gre_requests_in_flight", "Batches being sent", ["sink"], registry=registry)
        self.allowed = Gauge(
            "gre_requests_allowed",
            "Batches that may be sent at once: what the sink bears",
            ["sink"],
            registry=registry,
        )
        self.lost_leases = Counter(
            "gre_leases_lost_total", "Lanes that another worker claimed before they were settled", ["sink"],
            registry=registry,
        )  # fmt: skip
        self.wakeups = Counter(
            "gre_wakeups_total", "Wake-ups received from Realtime, joins included", registry=registry
        )
        self.wakeups_missed = Counter(
            "gre_wakeups_missed_total",
            "Work that a poll found and no wake-up had announced",
            ["sink"],
            registry=registry,
        )
        self.realtime_state = Gauge(
            "gre_realtime_state",
            "1 for the current state of the Realtime subscription",
            ["state"],
            registry=registry,
        )
        self.realtime_reconnections = Counter(
            "gre_realtime_reconnections_total",
            "Realtime connections replaced, by reason",
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
        self.sessions_waiting = Gauge(
            "gre_sessions_waiting", "Sessions that wait for an answer of staff, up to 10,000",
            ["assigned"], registry=registry,
        )  # fmt: skip
        self.queue_age = Gauge(
            "gre_queue_oldest_age_seconds",
            "Time within opening hours for which the longest waiting session of nobody has waited",
            ["assignment"],
            registry=registry,
        )
        self.staff_available = Gauge(
            "gre_staff_available",
            "Staff to whom automatic assignment could give a session now",
            ["assignment"],
            registry=registry,
        )
        self.sessions_assigned = Counter(
            "gre_sessions_assigned_total", "Sessions assigned automatically by this worker", registry=registry
        )
        self.sessions_returned = Counter(
            "gre_sessions_returned_total",
            "Sessions that this worker returned to the queue since their staff member was offline",
            registry=registry,
        )
        self.assignment_busy = Counter(
            "gre_assignment_busy_total",
            "Calls that assigned nothing since another worker did",
            registry=registry,
        )
        self.timed_replies = Counter(
            "gre_timed_replies_total",
            "Auto-replies of timers: sent, skipped (too late, or a value was missing), failed (refused)",
            ["result"],
            registry=registry,
        )
        self.sessions_closed_idle = Counter(
            "gre_sessions_closed_idle_total",
            "Sessions that this worker closed since they were idle",
            registry=registry,
        )
        self.timers_overdue = Gauge(
            "gre_timers_overdue_seconds",
            "Time for which the oldest timer is due and not fired",
            registry=registry,
        )
        self._declare_files(registry)
        self.schema_supported = Gauge(
            "gre_schema_supported",
            "1 if this daemon supports the schema of the database",
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
            "Chat messages by way: in (from a client), out (to one socket), replayed",
            ["way"],
            registry=registry,
        )

    def _declare_files(self, registry: CollectorRegistry) -> None:
        self.files_examined = Counter(
            "gre_files_examined_total",
            "Examinations of files: ready, refused (its content), failed and crashed (postponed), gone (no object), lost (the lease)",
            ["result"],
            registry=registry,
        )
        self.file_time = Histogram(
            "gre_file_examination_seconds", "Time of an examination: download, scanner, decoder, uploads",
            buckets=_BUCKETS, registry=registry,
        )  # fmt: skip
        self.files_waiting = Gauge(
            "gre_files_waiting", "Stored files that are not examined", registry=registry
        )
        self.files_oldest_age = Gauge(
            "gre_files_oldest_age_seconds",
            "Time since the oldest file that is not examined was stored",
            registry=registry,
        )
        self.files_failing = Gauge(
            "gre_files_failing",
            "Files that are not examined since gre-bridge, Storage or the scanner failed",
            registry=registry,
        )
        self.files_swept = Counter(
            "gre_files_swept_total", "Files given up since nobody sent them for a day", registry=registry
        )
        self.storage_deletions = Counter(
            "gre_storage_deletions_total",
            "Objects deleted from Storage: done, failed",
            ["result"],
            registry=registry,
        )
        self.deletions_waiting = Gauge(
            "gre_storage_deletions_waiting", "Objects that are to be deleted from Storage", registry=registry
        )
        self.deletions_oldest_age = Gauge(
            "gre_storage_deletions_oldest_age_seconds",
            "Time for which the oldest of them has waited",
            registry=registry,
        )

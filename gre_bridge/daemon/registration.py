"""Registers a process in `gre_relay_workers`, and compares the answer of the database with its settings.

It waits for the database and a supported schema, then refreshes the registration until cancelled, so a schema that
changes later is noticed within one interval. It reports the result and does not act on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import uuid
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential_jitter

from gre_bridge import __version__
from gre_bridge.db.relay import SCHEMA_VERSIONS, RelayDatabase
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError

log = structlog.get_logger()

REPORT_INTERVAL = 15.0
"""Seconds between two refreshes of the registration."""
LEAVE_TIMEOUT = 2.0
"""Seconds for the removal of the registration at the end."""


class SchemaListener(Protocol):
    """Receives the result of each comparison of the schema."""

    def on_schema_checked(self, problem: str) -> None:
        """`problem` is one line, or empty if the schema is supported."""

    def registration(self) -> Json:
        """Return the state that the registration shows, with the sinks by name in `sinks`."""


class WorkerRegistration:
    """The registration of one process."""

    def __init__(self, *, sinks: frozenset[str], listener: SchemaListener, facts: Json | None = None) -> None:
        """`sinks` have credentials here; `facts` are settings that the database needs, sent with each report."""
        self._facts = facts or {}
        self._sinks = sinks
        self._listener = listener
        self._id = str(uuid.uuid4())
        self._reported_sinks: set[str] = set()
        self.problem = "the database has not been reached yet"
        """One line about why nothing can be relayed; empty while the schema is supported."""
        self.ready = asyncio.Event()
        """Set once the schema is supported."""

    async def run(self, database: RelayDatabase) -> None:
        """Wait for the schema, log the backlog, then refresh the registration until cancelled."""
        await self._wait_for_schema(database)
        await self._log_backlog(database)
        try:
            while True:
                info = {**self._listener.registration(), **self._facts}
                with contextlib.suppress(BridgeError, KeyError, TypeError):
                    answer = await database.report(
                        worker=self._id, host=platform.node(), version=__version__, info=info
                    )
                    self._compare(answer)
                # The first report is sent while the dispatchers are created, so it may lack their sinks.
                await asyncio.sleep(REPORT_INTERVAL if len(info["sinks"]) >= len(self._sinks) else 1.0)
        finally:
            with contextlib.suppress(BridgeError, TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT):
                    await database.leave(self._id)

    async def _wait_for_schema(self, database: RelayDatabase) -> None:
        def still_waiting(attempt: RetryCallState) -> None:
            assert attempt.outcome is not None
            problem = attempt.outcome.result()
            if problem != self.problem:
                log.warning("waiting_for_database", problem=problem)
            self.problem = problem

        await AsyncRetrying(
            retry=retry_if_result(bool),
            wait=wait_exponential_jitter(initial=0.2, max=5, jitter=0.5),
            before_sleep=still_waiting,
        )(_schema_problem, database)
        self.problem = ""
        log.info("database_ready")
        self.ready.set()

    async def _log_backlog(self, database: RelayDatabase) -> None:
        """Log the deliveries that this start will send: after a first migration or an outage there may be too many."""
        with contextlib.suppress(BridgeError, KeyError, TypeError):
            for row in await database.stats():
                if row["pending"]:
                    log.info(
                        "deliveries_pending",
                        sink=row["sink"],
                        pending=row["pending"],
                        oldest_age=row["oldest_age"],
                        message="they will be sent; gre-bridge expire --before drops old ones",
                    )

    def _compare(self, answer: Json) -> None:
        """Compare the schema version and the enabled sinks with those of this process."""
        problem = _unknown_schema(answer["schema"])
        if problem and problem != self.problem:
            log.error("schema_unsupported", problem=problem)
        self.problem = problem
        self._listener.on_schema_checked(problem)
        for row in answer["sinks"]:
            name, enabled = row["sink"], row["enabled"]
            if self._sinks and enabled != (name in self._sinks) and name not in self._reported_sinks:
                self._reported_sinks.add(name)
                if enabled:
                    log.warning(
                        "sink_without_credentials", sink=name, message="the database writes deliveries for it"
                    )
                else:
                    log.warning(
                        "sink_disabled", sink=name, message="the database writes no deliveries for it"
                    )


async def _schema_problem(database: RelayDatabase) -> str:
    """Return one line about the schema's problem, or an empty string."""
    try:
        return _unknown_schema(await database.schema_version())
    except BridgeError as error:
        return str(error)


def _unknown_schema(version: int) -> str:
    """Return the advice for an unsupported version of the schema, or an empty string."""
    if version in SCHEMA_VERSIONS:
        return ""
    known = str(SCHEMA_VERSIONS[0])
    if len(SCHEMA_VERSIONS) > 1:
        known += f" to {SCHEMA_VERSIONS[-1]}"
    return (
        f"schema version {version}, this worker knows {known}; run `gre-bridge migrate` or upgrade the worker"
    )

"""Says to the database that this daemon is there, and holds what it answers against what the daemon is.

It waits for the database and a schema that it knows, then beats until cancelled; a schema that changes under
a running daemon is noticed at the next beat. It must not decide what follows from that: it tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import uuid
from collections.abc import Callable

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential_jitter

from gre_bridge import __version__
from gre_bridge.db.relay import SCHEMA_VERSIONS, RelayDatabase
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError

log = structlog.get_logger("gre.bridge")

BEAT = 15.0
"""Seconds between beats."""
FAREWELL = 2.0
"""Seconds that saying goodbye may take."""


class WorkerRegistration:
    """The beats of one daemon."""

    def __init__(
        self, *, sinks: frozenset[str], on_schema: Callable[[str], None], facts: Json | None = None
    ) -> None:
        """`sinks` have credentials here; `on_schema` hears what is wrong with the schema ("": nothing).

        `facts` go with each report: settings of this daemon that the database works with.
        """
        self._facts = facts or {}
        self._sinks = sinks
        self._on_schema = on_schema
        self._id = str(uuid.uuid4())
        self._disagreed: set[str] = set()
        self.problem = "the database has not been reached yet"
        """Why nothing can be relayed, in one line; empty when the schema is one that this daemon knows."""
        self.ready = asyncio.Event()
        """Set once the schema has been known."""

    async def run(self, store: RelayDatabase, report: Callable[[], Json]) -> None:
        """Wait for the schema, say what waits, then beat with this `report` until cancelled."""
        await self._await_schema(store)
        await self._say_what_waits(store)
        try:
            while True:
                told = {**report(), **self._facts}
                with contextlib.suppress(BridgeError, KeyError, TypeError):
                    answer = await store.beat(
                        worker=self._id, host=platform.node(), version=__version__, info=told
                    )
                    self._compare(answer)
                # The first one goes out while the dispatchers are being made: it has no sinks yet.
                await asyncio.sleep(BEAT if len(told["sinks"]) >= len(self._sinks) else 1.0)
        finally:
            with contextlib.suppress(BridgeError, TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await store.leave(self._id)

    async def _await_schema(self, store: RelayDatabase) -> None:
        def still_waiting(attempt: RetryCallState) -> None:
            assert attempt.outcome is not None
            problem = attempt.outcome.result()
            if problem != self.problem:
                log.warning("waiting for the database", problem=problem)
            self.problem = problem

        await AsyncRetrying(
            retry=retry_if_result(bool),
            wait=wait_exponential_jitter(initial=0.2, max=5, jitter=0.5),
            before_sleep=still_waiting,
        )(_schema_problem, store)
        self.problem = ""
        log.info("database is ready")
        self.ready.set()

    async def _say_what_waits(self, store: RelayDatabase) -> None:
        """Say what this start will announce: after a first migration or an outage it may be more than one wants."""
        with contextlib.suppress(BridgeError, KeyError, TypeError):
            for row in await store.stats():
                if row["pending"]:
                    log.info(
                        "deliveries are waiting and will be announced (gre-bridge expire --before drops old ones)",
                        sink=row["sink"],
                        pending=row["pending"],
                        oldest_age=row["oldest_age"],
                    )

    def _compare(self, answer: Json) -> None:
        """Hold what the database expects against what this daemon is."""
        problem = _unknown_schema(answer["schema"])
        if problem and problem != self.problem:
            log.error("schema check", problem=problem)
        self.problem = problem
        self._on_schema(problem)
        for row in answer["sinks"]:
            name, enabled = row["sink"], row["enabled"]
            if self._sinks and enabled != (name in self._sinks) and name not in self._disagreed:
                self._disagreed.add(name)
                log.warning(
                    "the database writes deliveries for this sink, but it has no credentials here"
                    if enabled
                    else "this sink has credentials here, but the database writes no deliveries for it",
                    sink=name,
                )


async def _schema_problem(store: RelayDatabase) -> str:
    """What is wrong with the schema, or an empty string."""
    try:
        return _unknown_schema(await store.schema_version())
    except BridgeError as error:
        return str(error)


def _unknown_schema(version: int) -> str:
    """What to do about this schema's version; empty when it is one that this worker knows."""
    if version in SCHEMA_VERSIONS:
        return ""
    known = str(SCHEMA_VERSIONS[0])
    if len(SCHEMA_VERSIONS) > 1:
        known += f" to {SCHEMA_VERSIONS[-1]}"
    return (
        f"schema version {version}, this worker knows {known}; run `gre-bridge migrate` or upgrade the worker"
    )

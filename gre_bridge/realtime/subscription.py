"""The supervised Realtime subscription, which reports wake-ups: hints that there may be work.

Realtime is a doorbell, not a mailbox. The database broadcasts a wake-up on a private topic; where broadcasts are
unavailable, each INSERT into the messages table is a wake-up (`postgres_changes`). Realtime drops both without an error
while the project is above its limit of events. If wake-ups stay away although the socket answers, a new connection does
not help; polling does. This module keeps one connection open and replaces it when it fails or ages. It does not decide
what to send, and does not trust a wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import structlog

from gre_bridge.db.names import MESSAGES
from gre_bridge.db.types import NewRow
from gre_bridge.errors import BridgeError
from gre_bridge.realtime.connection import Connection
from gre_bridge.realtime.messages import parse_new_row, parse_session_ids
from gre_bridge.realtime.state import SubscriptionState, Timing

__all__ = ["Subscription", "SubscriptionListener", "SubscriptionState", "Timing", "quiet_client_logs"]

log = structlog.get_logger()

UNRELIABLE_AFTER_OUTAGE = 15.0
"""Seconds after an outage of PostgreSQL during which wake-ups may be lost. Realtime does not report this; most lost events
were written within 5 s after the outage (measured on Realtime 2.122.0)."""
THROTTLED = "wake-ups do not arrive: the project is above Realtime's limit of events, or its database cannot send; polling"


def quiet_client_logs() -> None:
    """Keep the client's packages from logging chat text and keys.

    `realtime` logs a frame that it cannot parse at ERROR, with its text; `websockets` logs the address with the key at
    DEBUG (both run with realtime 2.34.1).
    """
    logging.getLogger("realtime").setLevel(logging.CRITICAL + 1)
    logging.getLogger("websockets").setLevel(logging.WARNING)


class SubscriptionListener(Protocol):
    """The owner of a subscription. Only `request_wakeup` may block; what the others raise is logged."""

    def on_wakeup(self, sessions: frozenset[str] | None) -> None:
        """There may be work in these sessions; None: in any. Also called after each join."""

    def on_event(self, event: str, payload: object) -> None:
        """Another broadcast arrived on the topic; its content is untrusted."""

    def on_subscription_change(self, state: SubscriptionState) -> None:
        """State, detail or health of the subscription changed."""

    def is_handled(self, row: NewRow) -> bool:
        """Return True if this row needs no wake-up, as is usual: the broadcast arrives before the row change."""

    async def request_wakeup(self) -> None:
        """Have the database send a wake-up. Raises BridgeError if it cannot."""


class Subscription:
    """Keeps one connection open, replaces it when it fails or ages, and reports its wake-ups."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        listener: SubscriptionListener,
        apikey: str | None = None,
        topic: str = "gre:relay",
        schema: str = "public",
        table: str = MESSAGES,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`url` is the project's (http or https), `key` a service key, `apikey` the anon key.

        `clock` is in seconds, `jitter` returns a number from 0 to 1.
        """
        self._listener = listener
        self._timing = timing = timing or Timing()
        self._clock = clock
        self._jitter = jitter
        self._row_changes = False
        self._rows_private = True
        self._connection: Connection | None = None
        self._new_connection = partial(
            Connection, url=url, key=key, apikey=apikey, topic=topic, schema=schema, table=table, timing=timing, clock=clock,
            listener=self,
        )  # fmt: skip
        self._reported: tuple[SubscriptionState, str, bool] = (SubscriptionState.STOPPED, "", False)
        self._throttled_until: float | None = None
        self._throttling = asyncio.Event()
        self._probe_now = asyncio.Event()
        self._listening = asyncio.Event()
        self._wakeup_received = asyncio.Event()
        self._unreliable_until = -math.inf
        self.last_iteration = clock()
        """Time of the last iteration of the loop: at each heartbeat, and while a connection opens within its limits."""
        self.last_wakeup = -math.inf
        """Time of the last wake-up."""
        self.listening_since = math.inf
        """Time from which the current connection receives wake-ups; infinity while there is none."""
        self.missed_wakeups = 0
        self.reconnections: Counter[str] = Counter()
        """Connections replaced, by reason: connect, join, closed, channel, throttled, silent, renewal."""

    @property
    def state(self) -> SubscriptionState:
        """The state that was last reported."""
        return self._reported[0]

    @property
    def detail(self) -> str:
        """One line about the state, without secrets: why it waits, which channel is unavailable."""
        return self._reported[1]

    @property
    def ready_channels(self) -> frozenset[str]:
        """Names of the channels on which wake-ups arrive: `broadcast`, `postgres_changes`."""
        return self._connection.ready_channels if self._connection else frozenset()

    @property
    def throttled(self) -> bool:
        """Wake-ups do not arrive, although Realtime answers."""
        return self._throttled_until is not None

    @property
    def healthy(self) -> bool:
        """Wake-ups are reliable."""
        return bool(self.ready_channels) and not self.throttled and self._clock() >= self._unreliable_until

    def report_missed_wakeup(self) -> None:
        """Record work that no wake-up announced.

        A heartbeat checks the socket. If it is answered, Realtime drops events, and a new connection would not help.
        """
        if not self.healthy:
            return
        self.missed_wakeups += 1
        if self._connection is not None:
            self._connection.recheck(heartbeat=True)
        self._throttle()

    def set_row_changes(self, enabled: bool) -> None:
        """Subscribe to row changes in any case, or only where broadcasts are unavailable."""
        if enabled != self._row_changes:
            self._row_changes = enabled
            if self._connection is not None:
                self._connection.recheck()

    def mark_unreliable(self) -> None:
        """PostgreSQL recovered from an outage: be unhealthy for UNRELIABLE_AFTER_OUTAGE seconds."""
        self._update()  # report the end of an earlier unreliable period first
        self._unreliable_until = self._clock() + UNRELIABLE_AFTER_OUTAGE
        self._update()

    async def broadcast(self, event: str, payload: dict[str, Any]) -> None:
        """Send an event to the `on_event` of the other workers; it may be lost."""
        if self._connection is not None:
            await self._connection.send(event, payload)

    async def run(self) -> None:
        """Keep the subscription open until cancelled; no failure of the server raises."""
        quiet_client_logs()
        recovering = asyncio.create_task(self._recover())
        connections: list[Connection] = []  # the current one and, while it opens, its successor
        failures, lost_at = 0, 0.0  # since the last stable connection, and the time of the first
        try:
            while True:
                self.last_iteration = self._clock()
                connection = self._new_connection(
                    row_changes=self._row_changes, rows_private=self._rows_private
                )
                connections.append(connection)
                if len(connections) == 1:
                    self._use(connection)
                opened = await connection.open()
                # A public join receives row changes where private channels are not set up, and the other way round.
                self._rows_private ^= connection.rows_refused
                if opened:
                    self._use(connection)
                    for old in connections[:-1]:
                        await self._replace(old, connections)
                    ended = await connection.watch(partial(self._renew_at, connection))
                    if self._clock() >= connection.opened_at + self._timing.stable:
                        failures = 0
                    if not ended:
                        continue  # it stays in use until its successor is open
                failures += 1
                lost_at = self._clock() if failures == 1 else lost_at
                if connection.close_reason == "throttled":
                    self._throttle()
                elif connection.close_reason == "silent" and self.throttled:
                    # The dead socket explains the missed wake-ups: probe the next connection at once.
                    self._throttled_until = self._clock()
                    self._probe_now.set()
                await self._replace(connection, connections)
                await self._back_off(failures, self._clock() - lost_at, connections)
        finally:
            recovering.cancel()
            for connection in connections:
                await connection.close()
            self._connection = None
            self._update()

    def _throttle(self) -> None:
        self._throttled_until = self._clock() + self._timing.throttled
        self._throttling.set()
        self._update()

    async def _recover(self) -> None:
        """Request a wake-up after each throttled period; its arrival ends the state."""
        while True:
            await self._throttling.wait()
            while (left := (self._throttled_until or 0.0) - self._clock()) > 0:
                self._probe_now.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._probe_now.wait()
            await self._listening.wait()
            if await self._probe():
                self._throttling.clear()
                self._throttled_until = None
                self._update()
            else:
                self._throttle()

    async def _probe(self) -> bool:
        self._wakeup_received.clear()
        with contextlib.suppress(BridgeError, TimeoutError):
            async with asyncio.timeout(self._timing.probe):
                await self._listener.request_wakeup()
                await self._wakeup_received.wait()
        return self._wakeup_received.is_set()

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        self._update()

    def _renew_at(self, connection: Connection) -> float:
        self.last_iteration = self._clock()
        if connection.row_changes != self._row_changes:
            return -math.inf
        reliable = connection.complete and not self.throttled
        return connection.opened_at + (self._timing.renew if reliable else self._timing.retry)

    async def _replace(self, connection: Connection, connections: list[Connection]) -> None:
        self.reconnections[connection.close_reason or "renewal"] += 1
        await connection.close()
        connections.remove(connection)

    async def _back_off(self, failures: int, outage: float, connections: list[Connection]) -> None:
        """Wait before the next attempt: exponential backoff with full jitter, at most as long as the outage (seconds).

        So a short outage costs a short wait, however many attempts were made in it.
        """
        timing = self._timing
        ceiling = min(
            timing.backoff_max, timing.backoff * 2.0 ** min(failures - 1, 30), max(timing.backoff, outage)
        )
        until = self._clock() + ceiling * self._jitter()
        for old in list(connections):  # only its renewal failed: it stays in use
            if await old.watch(lambda: until):
                await self._replace(old, connections)
        if (left := until - self._clock()) > 0:
            await asyncio.sleep(left)

    def _update(self) -> None:
        state, detail = self._connection.status() if self._connection else (SubscriptionState.STOPPED, "")
        if not self.ready_channels:
            self.listening_since = math.inf
            self._listening.clear()
        elif not self._listening.is_set():
            self.listening_since = self._clock()
            self._listening.set()
        if state is SubscriptionState.LIVE and self.throttled:
            state, detail = SubscriptionState.THROTTLED, f"{detail}; {THROTTLED}".removeprefix("; ")
        current = (state, detail, self.healthy)
        if current == self._reported:
            return
        write = log.warning if detail else log.info
        write("realtime_state_changed", state=state.value, detail=detail, healthy=self.healthy)
        self._reported = current
        _call(self._listener.on_subscription_change, state)

    # ConnectionListener

    def on_channel_ready(self) -> None:
        """Report a wake-up: events before the join may be lost."""
        _call(self._listener.on_wakeup, None)

    def on_wakeup(self, sessions: object) -> None:
        """Report a wake-up of the database."""
        self._record_wakeup()
        _call(self._listener.on_wakeup, parse_session_ids(sessions))

    def on_insert(self, record: Mapping[str, Any]) -> None:
        """Report a wake-up for a new row, unless it is handled already."""
        self._record_wakeup()
        row = parse_new_row(record)
        if row is None or not self._listener.is_handled(row):
            _call(self._listener.on_wakeup, parse_session_ids([record.get("session_id")]))

    def on_event(self, event: str, payload: object) -> None:
        """Pass another worker's event on."""
        _call(self._listener.on_event, event, payload)

    def on_status_change(self) -> None:
        """Report the new state."""
        self._update()

    def _record_wakeup(self) -> None:
        self.last_wakeup = self._clock()
        self._wakeup_received.set()


def _call(method: Callable[..., None], *values: object) -> None:
    """Call a listener's method. An exception of it would end the client's reader silently."""
    try:
        method(*values)
    except Exception as error:  # noqa: BLE001 - a defect of the listener must not end the subscription
        log.error("realtime_listener_failed", method=method.__name__, error=type(error).__name__)

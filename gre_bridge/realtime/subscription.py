"""The supervised Realtime subscription: wake-ups that say that there may be work.

Realtime is a doorbell, not a mailbox. The database broadcasts a wake-up on a private topic; where that cannot be had,
each INSERT into the messages table is one (`postgres_changes`). Realtime drops both without a word while the project is
above its limit of events: wake-ups that do not come over a socket that answers are no reason to connect again, but to
poll meanwhile. This room keeps one link up and replaces it when it breaks or ages; it must not decide what to send, nor
believe a wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from gre_bridge.db.types import NewRow
from gre_bridge.errors import BridgeError
from gre_bridge.realtime.connection import Connection
from gre_bridge.realtime.state import FeedState, Timing

__all__ = ["FeedState", "Subscription", "Timing", "quiet_client_logs"]

log = logging.getLogger(__name__)

DEAF = 15.0
"""Seconds after an outage of PostgreSQL for which bells may be lost. Realtime shows nothing of it; most of what was lost
around one was written in the 5 s after it (measured on Realtime 2.122.0)."""
THROTTLED = "wake-ups do not arrive: the project is above Realtime's limit of events, or its database cannot send; polling"
MAX_SESSIONS = 50
"""The most session ids that a ring may name (the trigger names no more)."""


def quiet_client_logs() -> None:
    """Keep the client's packages from logging chat text and keys.

    `realtime` logs a frame that it cannot parse whole at ERROR (the text included), `websockets` the
    address with the key at DEBUG (both run with realtime 2.34.1).
    """
    logging.getLogger("realtime").setLevel(logging.CRITICAL + 1)
    logging.getLogger("websockets").setLevel(logging.WARNING)


def sessions_of(ids: object) -> frozenset[str] | None:
    """The session ids that an untrusted ring names, or None ("look everywhere") for anything else."""
    if not isinstance(ids, list) or not 0 < len(ids) <= MAX_SESSIONS:
        return None
    try:
        found = frozenset(str(uuid.UUID(one)) for one in ids)
    except (TypeError, ValueError, AttributeError):
        return None
    return found


def row_of(record: Mapping[str, Any]) -> NewRow | None:
    """The row that an untrusted change tells of; None when it does not tell enough."""
    match record:
        case {"id": str(message), "session_id": str(session), "seq": int(seq)}:
            return NewRow(message, session, seq)
    return None


class Subscription:
    """Keeps one link up, replaces it when it breaks or ages, and passes its wake-ups on."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        apikey: str | None = None,
        on_ring: Callable[[frozenset[str] | None], None],
        on_state: Callable[[FeedState], None] | None = None,
        on_event: Callable[[str, object], None] | None = None,
        known: Callable[[NewRow], bool] = lambda _: False,
        probe: Callable[[], Awaitable[None]] | None = None,
        topic: str = "gre:relay",
        schema: str = "public",
        table: str = "gre_chat_messages",
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`url` is the project's (http or https), `key` a service key, `apikey` the anon key.

        `on_ring` is called on the loop with the ids of the sessions that have news, or None for "look
        everywhere" (also after each join and each "Subscribed to PostgreSQL": claim then). `on_state` is
        called when state, detail or health changed, `on_event` with the name and payload of any other
        broadcast on the topic (`broadcast` sends one; it is as untrusted as a ring). `known` says whether all who
        would be rung have read this row already, as they mostly have when a row change tells of it. `probe` has the database
        send a wake-up (BridgeError when it cannot). None but `probe` may block.
        `clock` is in seconds, `jitter` gives a number from 0 to 1.
        """
        self._on_ring = on_ring
        self._on_state = on_state
        self._on_event = on_event
        self._known = known
        self._timing = timing = timing or Timing()
        self._clock = clock
        self._jitter = jitter
        self._probe = probe
        self._rows = False
        self._rows_private = True
        self._link: Connection | None = None
        self._new_link = partial(
            Connection,
            url=url,
            key=key,
            apikey=apikey,
            topic=topic,
            schema=schema,
            table=table,
            timing=timing,
            clock=clock,
            on_ring=self._rung,
            on_row=self._inserted,
            on_event=self._heard,
            on_change=self._update,
        )
        self._shown: tuple[FeedState, str, bool] = (FeedState.STOPPED, "", False)
        self._throttled_until: float | None = None
        self._throttling = asyncio.Event()
        self._sooner = asyncio.Event()
        self._linked = asyncio.Event()
        self._wakened = asyncio.Event()
        self._doubted_until = -math.inf
        self.turned = clock()
        """When its loop last turned, by `clock`: at each heartbeat, and while a link opens within its bounds."""
        self.since = clock()
        """When state, detail or health last changed, by `clock`."""
        self.last_wakeup = -math.inf
        """When a wake-up last came, by `clock`."""
        self.heard_since = math.inf
        """From when on the link in service hears wake-ups, by `clock`; infinity while there is none."""
        self.misses = 0
        """Wake-ups that should have come and did not."""
        self.reconnections: Counter[str] = Counter()
        """Links replaced, by reason: connect, join, closed, channel, throttled, silent, renewal."""

    @property
    def state(self) -> FeedState:
        """How far the subscription is."""
        return self._shown[0]

    @property
    def detail(self) -> str:
        """One line about the state, without secrets: why it waits, which bell is missing."""
        return self._shown[1]

    @property
    def bells(self) -> frozenset[str]:
        """The bells that are ready: `broadcast`, `postgres_changes`."""
        return self._link.ringing if self._link else frozenset()

    @property
    def throttled(self) -> bool:
        """Wake-ups do not arrive, though Realtime answers."""
        return self._throttled_until is not None

    @property
    def healthy(self) -> bool:
        """Wake-ups can be relied on."""
        return bool(self.bells) and not self.throttled and self._clock() >= self._doubted_until

    def missed(self) -> None:
        """Take note of a wake-up that should have come and did not.

        The socket is asked for a sign of life; with one, Realtime drops events, and a new link would lack them as well.
        """
        if not self.healthy:
            return
        self.misses += 1
        if self._link is not None:
            self._link.look_again(beat=True)
        self._throttle()

    def use_changes(self, wanted: bool) -> None:
        """Subscribe to row changes too, or only where broadcasts cannot be joined."""
        if wanted != self._rows:
            self._rows = wanted
            if self._link is not None:
                self._link.look_again()

    def _throttle(self) -> None:
        self._throttled_until = self._clock() + self._timing.throttled
        self._throttling.set()
        self._update()

    def doubt(self) -> None:
        """PostgreSQL is back: for DEAF seconds nobody should rely on a bell, and it is not `healthy`."""
        self._update()  # that the doubt before this one is over, nobody may have been told
        self._doubted_until = self._clock() + DEAF
        self._update()

    async def broadcast(self, event: str, payload: dict[str, Any]) -> None:
        """Send an event to the other workers' `on_event`; it may be lost."""
        if self._link is not None:
            await self._link.send(event, payload)

    async def run(self) -> None:
        """Keep the subscription up until cancelled; whatever the server does, this does not raise."""
        quiet_client_logs()
        recovering = asyncio.create_task(self._recover())
        links: list[Connection] = []  # the one in service and, while it opens, its successor
        failures = 0
        try:
            while True:
                self.turned = self._clock()
                link = self._new_link(rows=self._rows, rows_private=self._rows_private)
                links.append(link)
                if len(links) == 1:
                    self._serve(link)
                up = await link.open()
                # A public join hears postgres_changes where private ones are not set up, and the other way round.
                self._rows_private ^= link.rows_refused
                if up:
                    self._serve(link)
                    for old in links[:-1]:
                        await self._drop(old, links)
                    over = await link.watch(partial(self._due, link))
                    if self._clock() >= link.born + self._timing.stable:
                        failures = 0
                    if not over:
                        continue  # it stays in service until its successor is open
                failures += 1
                if link.over == "throttled":
                    self._throttle()
                elif (
                    link.over == "silent" and self.throttled
                ):  # so it was that: the next link is tried at once
                    self._throttled_until = self._clock()
                    self._sooner.set()
                await self._drop(link, links)
                await self._pause(failures, links)
        finally:
            recovering.cancel()
            for link in links:
                await link.close()
            self._link = None
            self._update()

    async def _recover(self) -> None:
        """After each time without trust, ask for a wake-up: trust comes back with it."""
        while True:
            await self._throttling.wait()
            while (left := (self._throttled_until or 0.0) - self._clock()) > 0:
                self._sooner.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._sooner.wait()
            await self._linked.wait()
            if await self._heard_probe():
                self._throttling.clear()
                self._throttled_until = None
                self._update()
            else:
                self._throttle()

    async def _heard_probe(self) -> bool:
        if self._probe is None:
            return True
        self._wakened.clear()
        with contextlib.suppress(BridgeError, TimeoutError):
            async with asyncio.timeout(self._timing.probed):
                await self._probe()
                await self._wakened.wait()
        return self._wakened.is_set()

    def _serve(self, link: Connection) -> None:
        self._link = link
        self._update()

    def _due(self, link: Connection) -> float:
        self.turned = self._clock()
        if link.rows != self._rows:
            return -math.inf
        sound = link.complete and not self.throttled
        return link.born + (self._timing.renew if sound else self._timing.retry)

    async def _drop(self, link: Connection, links: list[Connection]) -> None:
        self.reconnections[link.over or "renewal"] += 1
        await link.close()
        links.remove(link)

    async def _pause(self, failures: int, links: list[Connection]) -> None:
        """Wait before the next attempt: exponential, full jitter, without a limit of attempts."""
        ceiling = min(self._timing.backoff_max, self._timing.backoff * 2.0 ** min(failures - 1, 30))
        until = self._clock() + ceiling * self._jitter()
        for old in list(links):  # only its renewal failed: it serves on
            if await old.watch(lambda: until):
                await self._drop(old, links)
        if (left := until - self._clock()) > 0:
            await asyncio.sleep(left)

    def _update(self) -> None:
        state, detail = self._link.status() if self._link else (FeedState.STOPPED, "")
        if not self.bells:
            self.heard_since = math.inf
            self._linked.clear()
        elif not self._linked.is_set():
            self.heard_since = self._clock()
            self._linked.set()
        if state is FeedState.LIVE and self.throttled:
            state, detail = FeedState.THROTTLED, f"{detail}; {THROTTLED}".removeprefix("; ")
        shown = (state, detail, self.healthy)
        if shown == self._shown:
            return
        log.log(logging.WARNING if detail else logging.INFO, "feed %s %s", state.value, detail)
        self._shown, self.since = shown, self._clock()
        if self._on_state is not None:
            _guarded(self._on_state, state)

    def _heard(self, event: str, payload: object) -> None:
        if self._on_event is not None:
            _guarded(self._on_event, event, payload)

    def _rung(self, sessions: object, wakeup: bool) -> None:
        """Look everywhere after a join, and where a wake-up says."""
        if wakeup:
            self._heard_wakeup()
        _guarded(self._on_ring, sessions_of(sessions))

    def _inserted(self, record: Mapping[str, Any]) -> None:
        """Ring for a new row, unless it is known already."""
        self._heard_wakeup()
        row = row_of(record)
        if row is None or not self._known(row):
            _guarded(self._on_ring, sessions_of([record.get("session_id")]))

    def _heard_wakeup(self) -> None:
        self.last_wakeup = self._clock()
        self._wakened.set()


def _guarded(call: Callable[..., None], *values: object) -> None:
    """Call back without letting a raise through: it would end the client's listener without a word."""
    try:
        call(*values)
    except Exception as error:  # noqa: BLE001 - a callback's bug must not make the feed deaf
        log.error("feed: a callback raised %s", type(error).__name__)

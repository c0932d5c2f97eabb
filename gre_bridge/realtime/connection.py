"""One link to Realtime: a client object, its socket, a channel for broadcasts, and where these cannot be one for row changes.

A link is opened once, watched, closed, and never repaired: the client's own rejoin leaves a zombie that
the server feeds and the client ignores, and its reconnection gives up for ever after a quarter of a
minute (run against realtime 2.34.1). Row changes are subscribed to only where broadcasts are not to be had: they take
half a second, and each counts against the project's limit. This room must not decide when to connect again, and lets
neither text nor keys out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from realtime import AsyncRealtimeChannel
from realtime import types as rt
from realtime._async.push import AsyncPush
from realtime.message import Message, SuccessSystemPayload
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from gre_bridge.config.keys import gateway_key
from gre_bridge.realtime.client import WakeupClient
from gre_bridge.realtime.state import FeedState, Timing

log = logging.getLogger(__name__)


TOO_MANY = "Too many messages per second"
"""With this Realtime shuts a channel down that another client's broadcast reaches while the project is above its limit."""


class _Part(StrEnum):
    UNUSED = "unused"
    JOINING = "joining"
    JOINED = "joined"
    READY = "ready"
    MISSING = "missing"


@dataclass(slots=True, eq=False)
class _Bell:
    """One channel of a link and how far it got."""

    name: str
    channel: AsyncRealtimeChannel
    part: _Part = _Part.JOINING
    detail: str = ""


class Connection:
    """One client object, one socket, one or two channels: opened once, watched, closed."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        apikey: str | None,
        topic: str,
        rows: bool,
        rows_private: bool,
        schema: str,
        table: str,
        timing: Timing,
        clock: Callable[[], float],
        on_ring: Callable[[object, bool], None],
        on_row: Callable[[Mapping[str, Any]], None],
        on_event: Callable[[str, object], None],
        on_change: Callable[[], None],
    ) -> None:
        """With `rows` the channel for row changes is joined in any case, without it only where broadcasts are missing."""
        self.rows = rows
        self._key = key
        self._timing = timing
        self._clock = clock
        self._ring = on_ring
        self._row = on_row
        self._event = on_event
        self._changed = on_change
        self._closed = False
        self._stirred = asyncio.Event()
        self._again = False
        self._socket: ClientConnection | None = None
        self.over: str | None = None
        """Why the link ended, in one of few words; `detail` is one line about it."""
        self.detail = ""
        self.born = self._beaten = clock()
        self.rows_refused = False
        """The join for postgres_changes was refused or not answered (not its binding)."""

        self._client = WakeupClient(
            f"{url.rstrip('/')}/realtime/v1",
            gateway_key(key, apikey),
            on_frame=self._on_frame,
            auto_reconnect=False,
            max_retries=1,
            hb_interval=24 * 3600,  # it ignores the replies to its heartbeats: ours replace them
            timeout=math.ceil(timing.connect + timing.join) + 1,  # so that our own bounds end first
        )
        self._client.access_token = key  # what the channels join with
        # Replies to heartbeats are dropped unless a channel object of this name is there to take them.
        self._phoenix = self._client.channels["phoenix"] = AsyncRealtimeChannel(self._client, "phoenix")
        # Private: a public one would hear what anybody with the anon key says, and not what the database sends.
        broadcast = self._client.channel(topic, _options(True))
        changes = self._client.channel(f"{topic}:rows", _options(rows_private))
        changes.on_postgres_changes(
            rt.RealtimePostgresChangesListenEvent.Insert, lambda _: None, table=table, schema=schema
        )  # to be subscribed; what comes is `_on_frame`'s
        changes.on_system(self._on_system)
        self._rows = _Bell("postgres_changes", changes, _Part.JOINING if self.rows else _Part.UNUSED)
        self._broadcasts = _Bell("broadcast", broadcast)
        # Joins of one socket are answered one after the other: the one that hardly ever is refused goes first.
        self._bells = (self._rows, self._broadcasts)
        self._topics = {bell.name: bell.channel.topic for bell in self._bells}

    # What works

    @property
    def ringing(self) -> frozenset[str]:
        """Names of the bells that are ready."""
        return frozenset(b.name for b in self._bells if b.part is _Part.READY and self.over is None)

    @property
    def complete(self) -> bool:
        """What was asked for is ready: broadcasts, and with `rows` these too."""
        return self.over is None and all(b.part in (_Part.READY, _Part.UNUSED) for b in self._bells)

    def status(self) -> tuple[FeedState, str]:
        """The state and one line about it."""
        if self.over is not None:
            return FeedState.WAITING, self.detail
        missing = "; ".join(f"no {b.name}: {b.detail}" for b in self._bells if b.part is _Part.MISSING)
        if self._settled():
            return FeedState.LIVE, missing
        if any(b.part in (_Part.JOINED, _Part.READY) for b in self._bells):
            return FeedState.JOINED, missing
        return FeedState.CONNECTING, missing

    def _settled(self) -> bool:
        return self._ended() or not any(b.part in (_Part.JOINING, _Part.JOINED) for b in self._bells)

    def _ended(self) -> bool:
        return self.over is not None

    # Its life

    async def open(self) -> bool:
        """Connect and join. True when a bell is ready and every other one has had its time."""
        try:
            async with asyncio.timeout(self._timing.connect):
                await self._client.connect()
        except Exception as error:  # noqa: BLE001 - whatever it was, this link is over
            self.fail("connect", _refusal(error))
            return False
        self._socket, listener = self._client._ws_connection, self._client._listen_task
        assert listener is not None, "connect() starts the listener"
        listener.add_done_callback(self._on_listener_done)
        await self._join(*(bell for bell in self._bells if bell.part is _Part.JOINING))
        if self._rows.part is _Part.JOINING and not self._ended():  # in the place of broadcasts
            await self._join(self._rows)
        if not await self._wait(self._settled, self._timing.system):
            self._miss(self._rows, 'no "Subscribed to PostgreSQL"')
        self.born = self._clock()
        return not self._ended()

    async def watch(self, due: Callable[[], float]) -> bool:
        """Wait until the clock reaches `due()` (False) or the link is over (True)."""
        while not self._ended():
            now, deadline = self._clock(), due()
            beat_in = self._beaten + self._timing.heartbeat - now
            if now >= deadline:
                return False
            if beat_in <= 0:
                await self._beat()
            else:
                self._again = False
                await self._wait(lambda: self._again, min(deadline - now, beat_in))
        return True

    def look_again(self, *, beat: bool = False) -> None:
        """`due` of `watch` may have changed; with `beat`, see now whether the other end is still there."""
        if beat:
            self._beaten = -math.inf
        self._again = True
        self._stirred.set()

    async def send(self, event: str, payload: dict[str, Any]) -> None:
        """Broadcast to the other workers if the channel is joined; it may be lost."""
        bell = self._broadcasts
        if bell.part is _Part.READY and not self._ended():
            message = Message(
                topic=bell.channel.topic, event="broadcast", ref=None, join_ref=bell.channel.join_push.ref,
                payload={"type": "broadcast", "event": event, "payload": payload},
            )  # fmt: skip
            with contextlib.suppress(Exception):  # its loss shows elsewhere
                await self._client.send(message)

    def fail(self, reason: str, detail: str) -> None:
        """Say that the link is over; the first reason stays."""
        if self.over is None and not self._closed:
            self.over, self.detail = reason, f"{reason}: {self._clean(detail)}"
            self._stir()

    async def close(self) -> None:
        """Take the client apart, in bounded time also when the other end is gone without a word."""
        self._closed = True
        client = self._client
        owned = [client._listen_task, client._heartbeat_task]
        for channel in (self._phoenix, *(bell.channel for bell in self._bells)):
            pushes = (channel.join_push, *channel.messages_waiting_for_ack.values())
            owned += [channel.rejoin_timer.timer, *(push.timeout_task for push in pushes)]
            owned += channel._background_tasks
        running = [task for task in owned if task is not None and not task.done()]
        for task in running:
            task.cancel()
        try:
            async with asyncio.timeout(self._timing.close):
                await client.close()
        except Exception as error:  # noqa: BLE001 - whatever it was, this link is over
            log.debug("feed: the socket did not close cleanly: %s", type(error).__name__)
        finally:
            if self._socket is not None:
                self._socket.transport.abort()
        if running:
            await asyncio.wait(running, timeout=self._timing.close)

    async def _join(self, *bells: _Bell) -> None:
        try:
            async with asyncio.timeout(self._timing.join):
                await asyncio.gather(*map(self._subscribe, bells))
        except TimeoutError:
            for bell in bells:
                if bell.part is _Part.JOINING:
                    self._miss(bell, "the join was not answered")
        except Exception as error:  # noqa: BLE001 - whatever it was, this link is over
            self.fail("closed", type(error).__name__)

    async def _subscribe(self, bell: _Bell) -> None:
        if self._client.is_connected:  # else subscribe() would connect again on its own
            await bell.channel.subscribe(partial(self._on_subscribe, bell))

    async def _beat(self) -> None:
        """Send a heartbeat with a ref: a half-open socket takes bytes, only a reply proves it whole."""
        self._beaten = self._clock()
        push = AsyncPush(self._phoenix, rt.ChannelEvents.heartbeat, {}, math.ceil(self._timing.pong) + 1)
        push.receive(rt.RealtimeAcknowledgementStatus.Ok, lambda _reply: self._stirred.set())
        try:
            async with asyncio.timeout(self._timing.pong):
                await push.send()
            await self._wait(lambda: self._ended() or push.received_resp is not None, self._timing.pong)
            if push.received_resp is None:
                self.fail("silent", "a heartbeat was not answered")
        except Exception as error:  # noqa: BLE001 - whatever it was, this link is over
            self.fail("silent", type(error).__name__)
        finally:
            push.destroy()

    async def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._ended() and not done():
                    self._stirred.clear()
                    await self._stirred.wait()
        return done()

    # What the client calls inside its listener. A raise here would end the listener without a word.

    def _on_subscribe(self, bell: _Bell, state: rt.RealtimeSubscribeStates, error: Exception | None) -> None:
        if self._closed:
            return
        bell.channel.rejoin_timer.reset()
        told = _told(error)
        detail = str(told.get("message") or told.get("reason") or state.value)
        if state is rt.RealtimeSubscribeStates.SUBSCRIBED:
            bell.part = _Part.JOINED if bell is self._rows else _Part.READY
            self._stir()
            self._ring(None, False)
        elif not self._client.is_connected:
            self.fail("closed", self._farewell())
        elif bell.part is _Part.MISSING:
            return  # the other bell carries the link
        elif bell.part is _Part.JOINING or told.get("extension") == "postgres_changes":
            # The latter refuses the binding only: the channel stays joined, and dead (measured on Realtime 2.122.0).
            self._miss(bell, detail)
        else:
            self.fail("throttled" if detail == TOO_MANY else "channel", f"{bell.name} {detail}")

    def _on_system(self, payload: SuccessSystemPayload) -> None:
        """From each "Subscribed to PostgreSQL" on changes come; what came before it may be lost."""
        if not self._closed and payload.extension == "postgres_changes":
            self._rows.part = _Part.READY
            self._stir()
            self._ring(None, False)

    def _on_frame(self, topic: str, event: str, payload: dict[str, Any]) -> None:
        """A frame may tell anything: one that tells too little rings for all."""
        # Of another channel's bell nothing is believed: a public one takes broadcasts from anybody with the anon key.
        if self._closed or self._topics.get(event) != topic:
            return
        match event, payload:
            case "postgres_changes", {"data": {"record": dict(record)}}:
                self._row(record)
            case "postgres_changes", _:
                self._row({})
            case "broadcast", {"event": str(name), "payload": told} if name != "wakeup":
                self._event(name, told)
            case _, {"payload": {"sessions": told}}:
                self._ring(told, True)
            case _:
                self._ring(None, True)

    def _on_listener_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self.fail("closed", type(error).__name__ if error else self._farewell())

    def _miss(self, bell: _Bell, detail: str) -> None:
        self.rows_refused |= bell is self._rows and bell.part is _Part.JOINING
        bell.part, bell.detail = _Part.MISSING, self._clean(detail)
        if self._rows.part is _Part.UNUSED:
            self._rows.part = _Part.JOINING
        if all(b.part is _Part.MISSING for b in self._bells):
            self.fail("join", "; ".join(b.detail for b in self._bells))
        else:
            self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        self._changed()

    def _farewell(self) -> str:
        ws = self._socket
        return f"{ws.close_code} {ws.close_reason or ''}" if ws is not None else "no socket"

    def _clean(self, text: str) -> str:
        return " ".join(text.replace(self._key or "\0", "***").split())[:200]


def _options(private: bool) -> rt.RealtimeChannelOptions:
    presence: rt.RealtimeChannelPresenceConfig = {"key": "", "enabled": False}
    return {"config": {"broadcast": {"ack": False, "self": False}, "presence": presence, "private": private}}


def _told(error: Exception | None) -> dict[str, Any]:
    """What the server said, which the client hands on as JSON in an exception; {} when it said nothing."""
    try:
        told = json.loads(str(error))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _refusal(error: Exception) -> str:
    """Why there is no connection. Never the exception's own text, which may hold the address with the key."""
    if not isinstance(error, InvalidStatus):
        return type(error).__name__
    try:
        reason = json.loads(error.response.body or b"")["error"]
    except (ValueError, KeyError, TypeError):
        reason = error.response.reason_phrase
    return f"HTTP {error.response.status_code} {reason}"

"""One connection to Realtime: a client object, its socket, a channel for broadcasts and one for row changes.

A connection is opened once, watched, closed, and never repaired: the client's own rejoin leaves a channel that
the server serves and the client ignores, and its reconnection stops for good after 15 s (run against realtime 2.34.1).
Row changes are subscribed to on request, and where broadcasts cannot be joined: they take half a second, and each
counts against the project's limit. This module does not decide when to connect again, and lets no text or key out.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from realtime import types as rt
from realtime.message import Message, SuccessSystemPayload
from websockets.asyncio.client import ClientConnection

from gre_bridge.config.keys import gateway_key
from gre_bridge.realtime.channels import Channel, ChannelState, channel_options
from gre_bridge.realtime.client import WakeupClient
from gre_bridge.realtime.messages import describe_connect_error, parse_server_error
from gre_bridge.realtime.state import SubscriptionState, Timing

WAKEUP = "wakeup"
"""Name of the broadcast with which the database wakes the workers."""
TOO_MANY = "Too many messages per second"
"""Realtime closes a channel with this reason when a client's broadcast reaches it while the project is above its limit."""


class ConnectionListener(Protocol):
    """Receives what a connection reports. Its methods must neither block nor raise."""

    def on_channel_ready(self) -> None:
        """A channel became ready. Events before that may be lost, so there may be work."""

    def on_wakeup(self, sessions: object) -> None:
        """A broadcast wake-up arrived; `sessions` is its untrusted list of ids."""

    def on_insert(self, record: Mapping[str, Any]) -> None:
        """A row was inserted; `record` has the columns that the key may read, or none."""

    def on_event(self, event: str, payload: object) -> None:
        """Another broadcast arrived on the topic; it is untrusted."""

    def on_status_change(self) -> None:
        """The state of the connection or of a channel changed."""


class Connection:
    """One client object, one socket, one or two channels."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        apikey: str | None,
        topic: str,
        row_changes: bool,
        rows_private: bool,
        schema: str,
        table: str,
        timing: Timing,
        clock: Callable[[], float],
        listener: ConnectionListener,
    ) -> None:
        """With `row_changes` both channels are joined, else row changes only where broadcasts are unavailable.

        `rows_private` makes the channel for row changes a private one. `clock` is in seconds.
        """
        self.row_changes = row_changes
        self._key = key
        self._timing = timing
        self._clock = clock
        self._listener = listener
        self._closed = False
        self._changed = asyncio.Event()
        self._recheck = False
        self._socket: ClientConnection | None = None
        self.close_reason: str | None = None
        """The reason in one word once the connection has ended; `detail` is one line about it."""
        self.detail = ""
        self.opened_at = self._heartbeat_at = clock()
        self.rows_refused = False
        """The join for postgres_changes was refused or not answered (the join, not its binding)."""

        self._client = WakeupClient(
            f"{url.rstrip('/')}/realtime/v1",
            gateway_key(key, apikey),
            handler=self,
            auto_reconnect=False,
            max_retries=1,
            hb_interval=24 * 3600,  # the client ignores replies to its heartbeats: ours replace them
            timeout=math.ceil(timing.connect + timing.join) + 1,  # so that our own limits end first
        )
        self._client.access_token = key  # the channels join with it
        # Private: a public channel carries what anybody with the anon key sends, and not what the database sends.
        broadcasts = self._client.channel(topic, channel_options(private=True))
        rows = self._client.channel(f"{topic}:rows", channel_options(private=rows_private))
        rows.on_postgres_changes(
            rt.RealtimePostgresChangesListenEvent.Insert, lambda _: None, table=table, schema=schema
        )  # for the binding; `on_frame` takes the events
        rows.on_system(self._on_system)
        initial = ChannelState.JOINING if row_changes else ChannelState.UNUSED
        self._rows = Channel("postgres_changes", rows, initial)
        self._broadcasts = Channel("broadcast", broadcasts)
        # Joins of one socket are answered one after the other: the one that is hardly ever refused goes first.
        self._channels = (self._rows, self._broadcasts)
        self._topics = {channel.name: channel.channel.topic for channel in self._channels}

    # State

    @property
    def ready_channels(self) -> frozenset[str]:
        """Names of the channels on which wake-ups arrive: `broadcast`, `postgres_changes`."""
        return frozenset(
            c.name for c in self._channels if c.state is ChannelState.READY and not self._ended()
        )

    @property
    def complete(self) -> bool:
        """All channels that were asked for are ready."""
        wanted = (ChannelState.READY, ChannelState.UNUSED)
        return not self._ended() and all(channel.state in wanted for channel in self._channels)

    def status(self) -> tuple[SubscriptionState, str]:
        """Return the state and one line about it."""
        if self._ended():
            return SubscriptionState.WAITING, self.detail
        unavailable = [c for c in self._channels if c.state is ChannelState.UNAVAILABLE]
        detail = "; ".join(f"no {channel.name}: {channel.detail}" for channel in unavailable)
        if self._settled():
            return SubscriptionState.LIVE, detail
        if any(c.state in (ChannelState.JOINED, ChannelState.READY) for c in self._channels):
            return SubscriptionState.JOINED, detail
        return SubscriptionState.CONNECTING, detail

    def _settled(self) -> bool:
        pending = (ChannelState.JOINING, ChannelState.JOINED)
        return self._ended() or not any(channel.state in pending for channel in self._channels)

    def _ended(self) -> bool:
        return self.close_reason is not None

    # Open, watch, close

    async def open(self) -> bool:
        """Connect and join. Return True once a channel is ready and the others are ready or unavailable."""
        try:
            async with asyncio.timeout(self._timing.connect):
                await self._client.connect()
        except Exception as error:  # noqa: BLE001 - any failure ends this connection
            self.fail("connect", describe_connect_error(error))
            return False
        self._socket, reader = self._client.opened()
        reader.add_done_callback(self._on_reader_done)
        await self._join(*(c for c in self._channels if c.state is ChannelState.JOINING))
        if self._rows.state is ChannelState.JOINING and not self._ended():  # broadcasts are unavailable
            await self._join(self._rows)
        if not await self._wait(self._settled, self._timing.system):
            self._mark_unavailable(self._rows, 'no "Subscribed to PostgreSQL"')
        self.opened_at = self._clock()
        return not self._ended()

    async def watch(self, due: Callable[[], float]) -> bool:
        """Send heartbeats until the clock reaches `due()` (return False) or the connection ends (return True)."""
        while not self._ended():
            now, deadline = self._clock(), due()
            heartbeat_in = self._heartbeat_at + self._timing.heartbeat - now
            if now >= deadline:
                return False
            if heartbeat_in <= 0:
                await self._send_heartbeat()
            else:
                self._recheck = False
                await self._wait(lambda: self._recheck, min(deadline - now, heartbeat_in))
        return True

    def recheck(self, *, heartbeat: bool = False) -> None:
        """Have `watch` evaluate `due` again; with `heartbeat`, also send one now."""
        if heartbeat:
            self._heartbeat_at = -math.inf
        self._recheck = True
        self._changed.set()

    async def send(self, event: str, payload: dict[str, Any]) -> None:
        """Broadcast to the other workers if the channel is ready; the message may be lost."""
        channel = self._broadcasts
        if channel.state is ChannelState.READY and not self._ended():
            message = Message(
                topic=channel.channel.topic, event="broadcast", ref=None, join_ref=channel.channel.join_push.ref,
                payload={"type": "broadcast", "event": event, "payload": payload},
            )  # fmt: skip
            with contextlib.suppress(Exception):  # the reader notices a broken socket
                await self._client.send(message)

    def fail(self, reason: str, detail: str) -> None:
        """Mark the connection as ended; the first reason is kept."""
        if not self._ended() and not self._closed:
            self.close_reason, self.detail = reason, f"{reason}: {self._redact(detail)}"
            self._notify()

    async def close(self) -> None:
        """Close the socket and end all tasks of the client, in bounded time even if the peer does not answer."""
        self._closed = True
        await self._client.shut_down(
            self._socket, (channel.channel for channel in self._channels), self._timing.close
        )

    async def _join(self, *channels: Channel) -> None:
        try:
            async with asyncio.timeout(self._timing.join):
                await asyncio.gather(*map(self._subscribe, channels))
        except TimeoutError:
            for channel in channels:
                if channel.state is ChannelState.JOINING:
                    self._mark_unavailable(channel, "the join was not answered")
        except Exception as error:  # noqa: BLE001 - any failure ends this connection
            self.fail("closed", type(error).__name__)

    async def _subscribe(self, channel: Channel) -> None:
        if self._client.is_connected:  # else subscribe() would open a connection itself
            await channel.channel.subscribe(partial(self._on_subscribe, channel))

    async def _send_heartbeat(self) -> None:
        """Send a heartbeat with a ref and wait for its reply: a half-open socket accepts bytes, but does not reply."""
        self._heartbeat_at = self._clock()
        limit = self._timing.heartbeat_reply
        push = self._client.heartbeat(limit + 1)
        push.receive(rt.RealtimeAcknowledgementStatus.Ok, lambda _reply: self._changed.set())
        try:
            async with asyncio.timeout(limit):
                await push.send()
            await self._wait(lambda: self._ended() or push.received_resp is not None, limit)
            if push.received_resp is None:
                self.fail("silent", "a heartbeat was not answered")
        except Exception as error:  # noqa: BLE001 - any failure ends this connection
            self.fail("silent", type(error).__name__)
        finally:
            push.destroy()

    async def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._ended() and not done():
                    self._changed.clear()
                    await self._changed.wait()
        return done()

    # Called by the client inside its reader, which an exception would end silently

    def _on_subscribe(
        self, channel: Channel, state: rt.RealtimeSubscribeStates, error: Exception | None
    ) -> None:
        if self._closed:
            return
        channel.channel.rejoin_timer.reset()
        reply = parse_server_error(error)
        detail = str(reply.get("message") or reply.get("reason") or state.value)
        if state is rt.RealtimeSubscribeStates.SUBSCRIBED:
            channel.state = ChannelState.JOINED if channel is self._rows else ChannelState.READY
            self._notify()
            self._listener.on_channel_ready()
        elif not self._client.is_connected:
            self.fail("closed", self._socket_close())
        elif channel.state is ChannelState.UNAVAILABLE:
            return  # the other channel is in use
        elif channel.state is ChannelState.JOINING or reply.get("extension") == "postgres_changes":
            # The latter refuses only the binding: the channel stays joined, without events (Realtime 2.122.0).
            self._mark_unavailable(channel, detail)
        else:
            self.fail("throttled" if detail == TOO_MANY else "channel", f"{channel.name} {detail}")

    def _on_system(self, payload: SuccessSystemPayload) -> None:
        """Row changes arrive from each "Subscribed to PostgreSQL" on; earlier ones may be lost."""
        if not self._closed and payload.extension == "postgres_changes":
            self._rows.state = ChannelState.READY
            self._notify()
            self._listener.on_channel_ready()

    def on_frame(self, topic: str, event: str, payload: dict[str, Any]) -> None:
        """Report a frame. One that names no session is a wake-up for all sessions."""
        # A frame on another topic is ignored: anybody with the anon key may broadcast on a public channel.
        if self._closed or self._topics.get(event) != topic:
            return
        match event, payload:
            case "postgres_changes", {"data": {"record": dict(record)}}:
                self._listener.on_insert(record)
            case "postgres_changes", _:
                self._listener.on_insert({})
            case "broadcast", {"event": str(name), "payload": body} if name != WAKEUP:
                self._listener.on_event(name, body)
            case _, {"payload": {"sessions": sessions}}:
                self._listener.on_wakeup(sessions)
            case _:
                self._listener.on_wakeup(None)

    def _on_reader_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self.fail("closed", type(error).__name__ if error else self._socket_close())

    def _mark_unavailable(self, channel: Channel, detail: str) -> None:
        self.rows_refused |= channel is self._rows and channel.state is ChannelState.JOINING
        channel.state, channel.detail = ChannelState.UNAVAILABLE, self._redact(detail)
        if self._rows.state is ChannelState.UNUSED:
            self._rows.state = ChannelState.JOINING
        if all(c.state is ChannelState.UNAVAILABLE for c in self._channels):
            self.fail("join", "; ".join(c.detail for c in self._channels))
        else:
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._listener.on_status_change()

    def _socket_close(self) -> str:
        socket = self._socket
        return f"{socket.close_code} {socket.close_reason or ''}" if socket is not None else "no socket"

    def _redact(self, text: str) -> str:
        return " ".join(text.replace(self._key or "\0", "***").split())[:200]

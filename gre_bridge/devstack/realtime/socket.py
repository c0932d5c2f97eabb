"""One client's WebSocket and the channels it joined: Phoenix's rules, as Realtime 2.122.0 applies them.

Each socket owns the tasks of its channels and ends them with itself. It must not know how changes or
broadcasts come about; it asks the server (`realtime.Realtime`) and is told.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
import psycopg

from gre_bridge.devstack.faults import Receive, Send
from gre_bridge.devstack.realtime.changes import Binding, SubscriptionError
from gre_bridge.devstack.realtime.frames import Frame, Json, TokenError, decode, verify

if TYPE_CHECKING:
    from gre_bridge.devstack.realtime.app import Realtime

_MAX_UNSENT = 50_000


class Channel:
    """A joined topic of one socket."""

    def __init__(self, socket: Socket, join: Frame, token: object, claims: Json) -> None:
        config: Json = join.payload.get("config") or {}
        broadcast: Json = config.get("broadcast") or {}
        self.socket = socket
        self.topic = join.topic
        self.name = join.topic.removeprefix("realtime:")
        self.join_ref = join.join_ref if join.join_ref is not None else join.ref
        self.private = config.get("private") is True
        self.ack = broadcast.get("ack") is True
        self.self_too = broadcast.get("self") is True
        wanted = config.get("postgres_changes")
        self.wanted: list[Json] = (
            [w for w in wanted if isinstance(w, dict)] if isinstance(wanted, list) else []
        )
        self.subscriptions: tuple[Binding, ...] = ()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.authorize(token, claims)

    def authorize(self, token: object, claims: Json) -> None:
        """Take on verified claims and start the clock of their token."""
        self.token = token
        self.role = str(claims["role"])
        self.claims = orjson.dumps(claims).decode()
        self.may_write: bool | None = None
        self.spawn("expiry", self._expire(float(claims["exp"])))

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run one duty of the channel beside the socket, in place of the one that runs under this name."""
        if old := self._tasks.get(name):
            old.cancel()
        self._tasks[name] = self.socket.spawn(work)

    def push(self, event: str, payload: Json) -> None:
        """Send an event that answers nothing."""
        self.socket.push(Frame(self.topic, event, payload))

    def system(self, status: str, message: str, extension: str = "postgres_changes") -> None:
        """Send a `system` message."""
        payload = {"message": message, "status": status, "extension": extension, "channel": self.name}
        self.socket.push(Frame(self.topic, "system", payload, join_ref=self.join_ref))

    def close(self) -> None:
        """Send phx_close and forget the channel."""
        self.socket.push(Frame(self.topic, "phx_close", {}, self.join_ref, self.join_ref))
        self.socket.server.leave(self)
        if self.socket.channels.get(self.topic) is self:
            del self.socket.channels[self.topic]
        for task in self._tasks.values():
            if task is not asyncio.current_task():
                task.cancel()

    def fail(self, message: str) -> None:
        """Shut the channel down as Realtime does when its token goes bad."""
        self.system("error", message, "system")
        self.close()

    def subscribe(self, *, after: float = 0.0) -> None:
        """Have PostgreSQL accept the bindings (again); rows flow from then on, and "Subscribed" says so."""
        if self.wanted:
            self.spawn("subscribe", self._subscribe(after))

    async def _expire(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - time.time()))
        self.fail("Token has expired 0 seconds ago")

    async def _subscribe(self, after: float) -> None:
        server = self.socket.server
        delay = server.faults.system_delay
        await asyncio.sleep(after if delay is None else delay)
        while True:
            try:
                bindings = tuple(Binding.parse(params) for params in self.wanted)
                if server.poller.ready:
                    async with server.database() as conn:
                        for binding in bindings:
                            await binding.check(conn, server.publication, self.role)
                    self.subscriptions = bindings
                    return self.system("ok", "Subscribed to PostgreSQL")
            except SubscriptionError as error:
                self.subscriptions = ()
                return self.system("error", str(error))
            except (psycopg.Error, TimeoutError):
                pass  # as long as PostgreSQL is away a client sees nothing (measured)
            await asyncio.sleep(random.uniform(*server.cold_start) if delay is None else 0.05)


class Socket:
    """Reads frames one after another, as Phoenix does, and sends what is pushed."""

    def __init__(self, server: Realtime, vsn: str, apikey: str, receive: Receive, send: Send) -> None:
        self.server = server
        self.channels: dict[str, Channel] = {}
        self._vsn = vsn
        self._apikey = apikey
        self._receive = receive
        self._send = send
        self._unsent: asyncio.Queue[str] = asyncio.Queue(_MAX_UNSENT)
        self._closing = asyncio.Event()
        self._code: int | None = None
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the socket."""
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def push(self, frame: Frame) -> None:
        """Queue a frame; a client that does not read is cut off instead of filling the memory."""
        if self.server.faults.mute:
            return
        try:
            self._unsent.put_nowait(frame.encode(self._vsn))
        except asyncio.QueueFull:
            self.close(None)

    def close(self, code: int | None) -> None:
        """End the connection; None (or 1006) drops it without a close frame."""
        self._code = None if code == 1006 else code
        self._closing.set()

    async def run(self) -> None:
        """Serve until the client or the server ends it."""
        async with self._group:
            self.spawn(self._read())
            self.spawn(self._write())
            try:
                await self._closing.wait()
            finally:
                for channel in self.channels.values():
                    self.server.leave(channel)
                for task in self._tasks:
                    task.cancel()
        if self._code is not None:
            await self._send({"type": "websocket.close", "code": self._code})

    async def _write(self) -> None:
        while True:
            text = await self._unsent.get()
            try:
                async with asyncio.timeout(60):
                    await self._send({"type": "websocket.send", "text": text})
            except OSError:  # the client has gone, or reads nothing for a minute
                return self.close(None)

    async def _read(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.server.silence):
                    message = await self._receive()
            except TimeoutError:
                if not self.server.faults.mute:
                    return self.close(1000)
                continue
            if message["type"] == "websocket.disconnect":
                return self.close(None)
            text = message.get("text")
            frame = decode(self._vsn, message["bytes"] if text is None else text)
            if frame is not None and not self.server.faults.mute:
                await self._handle(frame)

    def _reply(self, frame: Frame, response: Json, status: str = "ok") -> None:
        payload = {"status": status, "response": response}
        self.push(Frame(frame.topic, "phx_reply", payload, frame.ref, frame.join_ref))

    async def _handle(self, frame: Frame) -> None:
        if frame.topic == "phoenix":
            return self._reply(frame, {}) if frame.event == "heartbeat" else None
        if frame.event == "phx_join" and frame.topic.startswith("realtime:"):
            return None if self.server.faults.ignore_joins else await self._join(frame)
        channel = self.channels.get(frame.topic)
        if channel is None:
            if frame.event == "phx_leave":
                return self._reply(frame, {})
            return self._reply(frame, {"reason": "unmatched topic"}, "error")
        if frame.event == "phx_leave" and frame.join_ref == channel.join_ref:
            self._reply(frame, {})
            channel.close()
        elif frame.event == "broadcast":
            await self._broadcast(channel, frame)
        elif frame.event == "access_token":
            await self._refresh(channel, frame.payload.get("access_token"))
        return None

    async def _join(self, frame: Frame) -> None:
        try:
            channel = await self._admit(frame)
        except TokenError as error:
            if error.code == "ClientJoinRateLimitReached":
                self.close(1000)
            await asyncio.sleep(self.server.join_error_delay)
            return self._reply(frame, {"reason": f"{error.code}: {error.text}"}, "error")
        bindings = [{"id": Binding.id_of(params), **params} for params in channel.wanted]
        self._reply(frame, {"postgres_changes": bindings})
        if old := self.channels.get(frame.topic):
            old.close()
        self.channels[frame.topic] = channel
        self.server.enter(channel)
        if ((frame.payload.get("config") or {}).get("broadcast") or {}).get("replication_ready"):
            channel.system("ok", "Replication connection established", "system")
        return channel.subscribe()

    async def _admit(self, frame: Frame) -> Channel:
        if frame.topic == "realtime:":
            raise TokenError("TopicNameRequired", "You must provide a topic name")
        tenant = self.server.tenant
        if not self.channels and self.server.users >= tenant.limits.concurrent_users:
            raise TokenError("ConnectionRateLimitReached", "Too many connected users")
        if tenant.joins.exceeded:
            raise TokenError("ClientJoinRateLimitReached", "Too many joins per second")
        tenant.joins.add()
        if len(self.channels) >= tenant.limits.channels_per_client:
            raise TokenError("ChannelRateLimitReached", "Too many channels")
        config: Json = frame.payload.get("config") or {}
        if (config.get("presence") or {}).get("enabled"):
            raise TokenError("NotImplemented", "The embedded stack has no presence")
        token = frame.payload.get("access_token") or self._apikey
        claims = verify(token, self.server.jwt_secret)
        topic = frame.topic.removeprefix("realtime:")
        if config.get("private") is True and not await self.server.may(topic, claims, "select"):
            raise TokenError(
                "Unauthorized", f"You do not have permissions to read from this Channel topic: {topic}"
            )
        return Channel(self, frame, token, claims)

    async def _broadcast(self, channel: Channel, frame: Frame) -> None:
        if channel.private:
            if channel.may_write is None:
                claims = orjson.loads(channel.claims)
                with suppress(TokenError):
                    channel.may_write = await self.server.may(channel.name, claims, "insert")
            if not channel.may_write:
                return  # silence, without the acknowledgement too
        but = None if channel.self_too else channel
        size = len(orjson.dumps(frame.payload))
        sent = self.server.broadcast(channel.name, channel.private, frame.payload, size=size, but=but)
        if channel.ack:
            self._reply(frame, {}, "ok" if sent else "error")

    async def _refresh(self, channel: Channel, token: object) -> None:
        if token is None or token == channel.token:
            return None
        try:
            claims = verify(token, self.server.jwt_secret)
            readable = not channel.private or await self.server.may(channel.name, claims, "select")
        except TokenError as error:
            return channel.fail(error.text)
        if not readable:
            text = f"You no longer have permission to read from this Channel topic: {channel.name}"
            return channel.fail(text)
        channel.authorize(token, claims)
        # Realtime re-subscribes after a random while (measured: 1 to 3 s); until then the rows flow as before.
        return channel.subscribe(after=random.uniform(*self.server.cold_start))

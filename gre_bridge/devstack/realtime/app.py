"""Realtime as its clients see it: /realtime/v1/websocket and /realtime/v1/api/broadcast.

An ASGI application in front of a PostgreSQL with sql/realtime.sql. This module has the handshake, broadcasts and their
authorization; sockets, changes and the WAL are in the modules beside it. It behaves as Realtime 2.122.0 was measured
to, losses included: nothing is stored for a client that is not connected.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import parse_qs, unquote

import orjson
import psycopg

from gre_bridge.devstack.faults import Receive, Scope, Send, answer, read_body
from gre_bridge.devstack.realtime.changes import route
from gre_bridge.devstack.realtime.faults import RealtimeFaults
from gre_bridge.devstack.realtime.frames import Json, TokenError, refusal, verify
from gre_bridge.devstack.realtime.limits import TICK, Limits, Tenant
from gre_bridge.devstack.realtime.socket import Channel, Socket
from gre_bridge.devstack.realtime.wal import Change, Connection, WalPoller

log = logging.getLogger(__name__)


class Realtime:
    """The server; `start` before the first request, `stop` at the end."""

    def __init__(
        self,
        *,
        dsn: str,
        jwt_secret: str,
        publication: str = "supabase_realtime",
        handshake_delay: float = 2.0,
        join_error_delay: float = 5.0,
        idle_poll: float = 0.5,
        limits: Limits | None = None,
        limit_tick: float = TICK,
        limit_clock: Callable[[], float] = time.monotonic,
        cold_start: tuple[float, float] = (1.0, 3.0),
        publication_check: float = 60.0,
        silence: float = 60.0,
        max_backoff: float = 5.0,
        linger: float = 600.0,
    ) -> None:
        """`dsn` is a superuser's. All times are in seconds, and the defaults are what was measured."""
        self.jwt_secret = jwt_secret
        self.publication = publication
        self.join_error_delay = join_error_delay
        self.cold_start = cold_start
        self.silence = silence
        self.faults = RealtimeFaults()
        self.tenant = Tenant(limits or Limits(), tick=limit_tick, clock=limit_clock)
        self.poller = WalPoller(
            dsn=dsn,
            publication=publication,
            deliver=self._deliver,
            publication_changed=self._resubscribe,
            idle_poll=idle_poll,
            publication_check=publication_check,
            max_backoff=max_backoff,
            linger=linger,
        )
        self._dsn = dsn
        self._handshake_delay = handshake_delay
        self._max_backoff = max_backoff
        self._rooms: dict[tuple[str, bool], dict[Channel, None]] = defaultdict(dict)
        self._subscribed: dict[Channel, None] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen for broadcasts; raises TimeoutError if PostgreSQL is not there within 30 s."""
        listening = asyncio.Event()
        self._tasks = [asyncio.create_task(self.poller.run()), asyncio.create_task(self._listen(listening))]
        async with asyncio.timeout(30):
            await listening.wait()

    async def stop(self, code: int = 1012) -> None:
        """Close every socket with this code and let go of PostgreSQL."""
        self.faults.close_all(code)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Connection]:
        """A new superuser's connection in autocommit mode, for at most 10 s.

        Raises psycopg.OperationalError or TimeoutError without PostgreSQL. (Joins are rare, and a pool would
        go on waiting long after an outage.)
        """
        async with asyncio.timeout(10):
            conn = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
            async with conn:
                yield conn

    async def may(self, topic: str, claims: Json, verb: Literal["select", "insert"]) -> bool:
        """Whether RLS on realtime.messages lets these claims receive (select) or send (insert) on a topic.

        Tried as Realtime does, with a row in a transaction that is rolled back. Raises TokenError when
        PostgreSQL is away.
        """
        insert = "insert into realtime.messages (topic, extension, private) values (%s, 'broadcast', true) returning id"
        settings = {
            "realtime.topic": topic,
            "request.jwt.claims": orjson.dumps(claims).decode(),
            "role": str(claims["role"]),
        }
        try:
            async with self.database() as conn, conn.transaction(force_rollback=True):
                probe = await (await conn.execute(insert, (topic,))).fetchone() if verb == "select" else None
                for name, value in settings.items():
                    await conn.execute("select set_config(%s, %s, true)", (name, value))
                if probe is None:
                    await conn.execute(insert.removesuffix(" returning id"), (topic,))
                    return True
                cursor = await conn.execute("select from realtime.messages where id = %s", probe)
                return cursor.rowcount > 0
        except (psycopg.OperationalError, TimeoutError) as error:
            text = "Realtime was unable to connect to the project database"
            raise TokenError("UnableToConnectToProject", text) from error
        except psycopg.Error:
            return False

    def enter(self, channel: Channel) -> None:
        """A channel was joined."""
        self._rooms[channel.name, channel.private][channel] = None
        if channel.wanted:
            self._subscribed[channel] = None
            self.poller.want(True)

    def leave(self, channel: Channel) -> None:
        """A channel was closed."""
        room = self._rooms[channel.name, channel.private]
        room.pop(channel, None)
        if not room:
            del self._rooms[channel.name, channel.private]
        self._subscribed.pop(channel, None)
        if not self._subscribed:
            self.poller.want(False)

    def set_limit(self) -> None:
        """Take on the faults' limit of events; without one the counters begin anew."""
        self.tenant.events_per_second = self.faults.max_events_per_second
        if self.faults.max_events_per_second is None:
            self.tenant.reset()

    def broadcast(
        self, topic: str, private: bool, message: Json, *, size: int, but: Channel | None = None
    ) -> bool:
        """Send a broadcast to the channels of a topic; private and public ones of a name are strangers.

        Each counts once as sent and once for each receiver. A receiver that finds the tenant above its limit is shut
        down after it was handed the message. False when the payload, `size` bytes, is too large.
        """
        if size > self.tenant.limits.payload_bytes:
            return False
        self.tenant.events.add()
        for channel in list(self._rooms.get((topic, private), ())):
            if channel is but or self._loses(self.faults.drop_broadcasts):
                continue
            channel.push("broadcast", message)
            self.tenant.handed_out[topic] += 1
            self.tenant.events.add()
            if self.tenant.events.exceeded:
                channel.fail("Too many messages per second")
        return True

    def _too_many(self) -> str:
        if self.users >= self.tenant.limits.concurrent_users:
            return "Too many connected users"
        return "Too many joins per second" if self.tenant.joins.exceeded else ""

    @property
    def users(self) -> int:
        """Sockets that count as connected users: those that have joined a channel."""
        return sum(bool(socket.channels) for socket in self.faults.sockets)

    def _loses(self, probability: float) -> bool:
        return self.faults.deaf or random.random() < probability

    async def _deliver(self, conn: Connection, changes: list[Change]) -> int:
        ready = [channel for channel in self._subscribed if channel.subscriptions]
        frames = await route(conn, changes, ready)
        if self.tenant.changes.exceeded:
            self.tenant.dropped["postgres_changes"] += sum(map(len, frames))
            return sum(1 for receivers in frames if receivers)
        for receivers in frames:
            for channel, payload in receivers:
                self.tenant.changes.add(len(payload["ids"]))
                if channel in self._subscribed and not self._loses(self.faults.drop_changes):
                    self.tenant.handed_out[channel.name] += 1
                    channel.push("postgres_changes", payload)
        return sum(1 for receivers in frames if receivers)

    def _resubscribe(self) -> None:
        for channel in self._subscribed:
            channel.subscribe()

    async def _listen(self, listening: asyncio.Event) -> None:
        """Pass on what realtime.send wrote, woken by its commit; also prunes what is three days old."""
        backoff = 0.0
        while True:
            try:
                async with asyncio.timeout(10):
                    conn = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
                async with conn:
                    await conn.execute("listen realtime_messages")
                    await conn.execute(
                        "delete from realtime.messages where inserted_at < localtimestamp - interval '3 days'"
                    )
                    backoff = 0.0
                    listening.set()
                    while True:
                        ids = [n.payload async for n in conn.notifies(timeout=3600, stop_after=1)]
                        if ids:
                            await self._pass_on(conn, ids)
            except (psycopg.Error, OSError) as error:
                log.warning("realtime: listening for broadcasts failed (%s)", type(error).__name__)
                backoff = min(self._max_backoff, max(0.25, backoff * 2))
            await asyncio.sleep(backoff)

    async def _pass_on(self, conn: Connection, ids: list[str]) -> None:
        async with asyncio.timeout(30):
            cursor = await conn.execute(
                "select m.id::text, m.topic, m.event, m.private, m.payload::text"
                " from unnest(%s::uuid[]) with ordinality i (id, n) join realtime.messages m using (id) order by i.n",
                (ids,),
            )
            for id_, topic, event, private, payload in await cursor.fetchall():
                if self.tenant.events.exceeded:
                    self.tenant.dropped[topic] += 1
                    continue
                text = str(payload or "{}")
                content = orjson.Fragment(text)
                message = {"event": event, "meta": {"id": id_}, "payload": content, "type": "broadcast"}
                self.broadcast(topic, bool(private), message, size=len(text.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket; the path may be whole or relative to a mount."""
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
        path = path.removeprefix("/realtime/v1")
        query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        if scope["type"] == "websocket" and path == "/websocket":
            await self._handshake(query, headers, receive, send)
        elif scope["type"] == "http" and path.startswith("/api/broadcast"):
            await self._http_broadcast(scope, path, query, headers, receive, send)
        elif scope["type"] == "http":
            await answer(send, 404, {"error": "Not found"})
        else:
            await _refuse(send, 404, {"error": "Not found"})

    async def _handshake(
        self, query: dict[str, str], headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        await receive()
        vsn, apikey = query.get("vsn", "1.0.0"), query.get("apikey") or headers.get("x-api-key")
        if self.faults.refuse:
            return await _refuse(send, 502, {"error": "Bad gateway"})
        if vsn not in ("1.0.0", "2.0.0"):
            return await _refuse(send, 403, None)
        if apikey is None or (reason := refusal(apikey, self.jwt_secret)):
            await asyncio.sleep(self._handshake_delay)
            return await _refuse(send, 401, {"error": "API key is missing" if apikey is None else reason})
        if problem := self._too_many():
            await asyncio.sleep(self._handshake_delay)
            return await _refuse(send, 429, {"error": problem})
        await send({"type": "websocket.accept"})
        self.tenant.sockets += 1
        if self.faults.accept_then_close:
            return await send({"type": "websocket.close", "code": 1011})
        socket = Socket(self, vsn, apikey, receive, send)
        self.faults.sockets.add(socket)
        try:
            await socket.run()
        finally:
            self.faults.sockets.discard(socket)
        return None

    async def _http_broadcast(
        self,
        scope: Scope,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        receive: Receive,
        send: Send,
    ) -> None:
        """POST /api/broadcast (a batch) and /api/broadcast/TOPIC/events/EVENT (supabase-js httpSend)."""
        raw_path = scope.get("raw_path", path.encode()).decode().partition("/api/broadcast")[2]
        parts = [unquote(part) for part in raw_path.split("?")[0].strip("/").split("/")]
        token = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("apikey")
        try:
            claims = verify(token, self.jwt_secret)
            body = await read_body(receive)
            if parts == [""]:
                messages = [
                    (m["topic"], m["event"], m["payload"], m.get("private") is True)
                    for m in orjson.loads(body)["messages"]
                ]
            elif len(parts) == 3 and headers.get("content-type", "").startswith("application/json"):
                messages = [(parts[0], parts[2], orjson.loads(body), query.get("private") == "true")]
            else:
                return await answer(send, 501, {"error": "not part of the embedded stack"})
        except TokenError as error:
            return await answer(send, 401, {"error": error.text})
        except (ValueError, KeyError, TypeError):
            return await answer(send, 422, {"error": "malformed messages"})
        limit, average = self.tenant.events.limit, self.tenant.events.average
        if average > limit:
            return await answer(send, 429, {"message": "You have exceeded your rate limit"})
        if len(messages) + average > limit:
            text = "Too many messages to broadcast, please reduce the batch size"
            return await answer(send, 429, {"message": text})
        for topic, event, payload, private in messages:
            if not private or await self.may(topic, claims, "insert"):
                message = {"event": event, "payload": payload, "type": "broadcast"}
                self.broadcast(topic, private, message, size=len(orjson.dumps(payload)))
        return await answer(send, 202, b"")


async def _refuse(send: Send, status: int, error: Json | None) -> None:
    """Answer a handshake with HTTP (403 without a body is what ASGI's own refusal sends)."""
    if error is None:
        return await send({"type": "websocket.close"})
    headers = [(b"content-type", b"application/json; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": orjson.dumps(error)})
    return None

"""A Realtime server for tests that speaks the frames of vsn 1.0.0 and misbehaves on request.

The frames are those recorded from Realtime 2.122.0. It serves real websockets on loopback, so that the
real client meets it. What goes wrong is chosen with plain attributes, before or while clients are here.
It judges no tokens and reads no database: tests send its wake-ups.
"""

from __future__ import annotations

import contextlib
import http
import json
import time
import zlib
from typing import Any, Literal, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.waiting import pause

Json = dict[str, Any]
TEXT = "meet me at the roulette table"
"""The text of every inserted row, which must not occur in a log."""


class Channel:
    """One joined topic of one socket."""

    def __init__(self, socket: ServerConnection, topic: str, join_ref: str, config: Json) -> None:
        self.socket, self.topic, self.join_ref = socket, topic, join_ref
        self.private: bool = config["private"]
        self.bindings: list[Json] = config["postgres_changes"]
        self.subscribed = False

    async def send(self, event: str, payload: Json, ref: str | None = None) -> None:
        """Send one server frame."""
        frame = {"ref": ref, "event": event, "payload": payload, "topic": self.topic}
        with contextlib.suppress(ConnectionClosed):
            await self.socket.send(json.dumps(frame))

    async def system(self, message: str, status: str, extension: str = "postgres_changes") -> None:
        """Send a `system` frame."""
        name = self.topic.removeprefix("realtime:")
        await self.send(
            "system", {"message": message, "status": status, "extension": extension, "channel": name}
        )

    async def subscribed_to_postgres(self) -> None:
        """Report that changes are sent from now on."""
        self.subscribed = True
        await self.system("Subscribed to PostgreSQL", "ok")


class PhoenixServer:
    """`async with PhoenixServer() as server`: listens on `server.url` until left; `stop` and `start` keep the port."""

    def __init__(self) -> None:
        self.handshake: Literal["serve", "close", "refuse"] = "serve"
        """`close` accepts and closes at once; `refuse` answers 401 with the text `refusal`."""
        self.refusal = "Token has expired"
        self.join_private: Literal["ok", "refuse", "ignore"] = "ok"
        self.join_public: Literal["ok", "refuse", "ignore"] = "ok"
        self.refusal_delay = 0.0
        """Seconds before a join is refused; frames that come after it wait as well."""
        self.binding: Literal["ok", "refuse", "late"] = "ok"
        """`late`: "Subscribed to PostgreSQL" is sent by the test."""
        self.connections = 0
        self.connected_at: list[float] = []
        """Their arrival times by the monotonic clock."""
        self.heartbeats = 0
        self.requests: list[str] = []
        self.joins: list[Json] = []
        self.channels: list[Channel] = []
        self.sockets: set[ServerConnection] = set()
        self.most_sockets = 0
        """The largest number of sockets that were open at the same time."""
        self._server: Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The address, as of a Supabase project."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            self._port,
            process_request=self._process_request,
            ping_interval=None,
            close_timeout=0.2,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        """Cut every connection and refuse new ones."""
        for socket in self.sockets:
            socket.transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def live(self, suffix: str) -> list[Channel]:
        """Joined channels of open sockets whose topic has this end."""
        return [c for c in self.channels if c.socket in self.sockets and c.topic.endswith(suffix)]

    async def broadcast(self, body: Json, *, topic: str = "gre:relay", private: bool = True) -> None:
        """Broadcast as `realtime.send` does."""
        payload = {"type": "broadcast", "event": "wakeup", "payload": body, "meta": {"id": "1"}}
        for channel in self.live(topic):
            if channel.private == private:
                await channel.send("broadcast", payload)

    async def insert(self, record: Json | None, **data: Any) -> None:
        """Send an inserted row to the subscribed channels. `data` overrides parts of the payload."""
        for channel in self.channels:
            if channel.subscribed and channel.socket in self.sockets:
                change = {
                    "schema": "public",
                    "table": "gre_chat_messages",
                    "type": "INSERT",
                    "commit_timestamp": "2026-11-22T00:51:14.610Z",
                    "columns": [{"name": "message", "type": "text"}],
                    "record": record and {"message": TEXT, **record},
                    "errors": None,
                }
                ids = [_binding_id(binding) for binding in channel.bindings]
                await channel.send("postgres_changes", {"ids": ids, "data": change | data})

    def freeze(self) -> None:
        """Make the open sockets half-open: TCP stays open, nothing is read, answered or closed."""
        for socket in self.sockets:
            socket.transport.pause_reading()

    async def close_sockets(self, code: int = 1012) -> None:
        """Close the open sockets properly, as a server that stops does."""
        for socket in list(self.sockets):
            await socket.close(code)

    def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        self.connections += 1
        self.connected_at.append(time.monotonic())
        self.requests.append(request.path)
        if self.handshake != "refuse":
            return None
        return socket.respond(http.HTTPStatus.UNAUTHORIZED, json.dumps({"error": self.refusal}))

    async def _talk(self, socket: ServerConnection) -> None:
        if self.handshake == "close":
            return
        self.sockets.add(socket)
        self.most_sockets = max(self.most_sockets, len(self.sockets))
        try:
            async for text in socket:
                await self._answer(socket, json.loads(text))
        except ConnectionClosed:
            pass
        finally:
            self.sockets.discard(socket)
            self.channels = [channel for channel in self.channels if channel.socket is not socket]

    async def _answer(self, socket: ServerConnection, frame: Json) -> None:
        reply = Channel(
            socket,
            frame["topic"],
            frame["join_ref"],
            frame["payload"].get("config", {"private": False, "postgres_changes": []}),
        )
        if frame["event"] == "heartbeat":
            self.heartbeats += 1
            await reply.send("phx_reply", {"status": "ok", "response": {}}, frame["ref"])
        elif frame["event"] == "phx_join":
            await self._join(reply, frame)

    async def _join(self, channel: Channel, frame: Json) -> None:
        self.joins.append(frame)
        verdict = self.join_private if channel.private else self.join_public
        if verdict == "ignore":
            return
        if verdict == "refuse":
            await pause(self.refusal_delay, "latency of the server")
            reason = "Unauthorized: You do not have permissions to read from this Channel topic"
            await channel.send("phx_reply", {"status": "error", "response": {"reason": reason}}, frame["ref"])
            return
        for old in [c for c in self.live(channel.topic) if c.socket is channel.socket]:
            self.channels.remove(old)
            await old.send("phx_close", {}, old.join_ref)
        self.channels.append(channel)
        echoed = [{"id": _binding_id(binding), **binding} for binding in channel.bindings]
        await channel.send(
            "phx_reply", {"status": "ok", "response": {"postgres_changes": echoed}}, frame["ref"]
        )
        if channel.bindings and self.binding == "ok":
            await channel.subscribed_to_postgres()
        elif channel.bindings and self.binding == "refuse":
            await channel.system("Unable to subscribe to changes with given parameters.", "error")


def _binding_id(binding: Json) -> int:
    return zlib.crc32(json.dumps(binding, sort_keys=True).encode()) + 1

"""The WebSocket of Pusher Channels, protocol 7: what pusher-js speaks.

Who is subscribed to what, the signatures of private and presence channels, sign-in of users, client events, pings. Facts
are those of Pusher's protocol reference and of pusher-js; texts of errors are as users report them. Cache channels and
watchlists are refused with a pusher:error. It knows nothing of the HTTP API and keeps no history.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import re
import time
from typing import Any
from urllib.parse import parse_qsl

import orjson

from gre_bridge.devstack.faults import Receive, Scope, Send

ACTIVITY_TIMEOUT = 120
PONG_TIMEOUT = 30
CLIENT_EVENTS_PER_SECOND = 10
CHANNEL = re.compile(r"[A-Za-z0-9_\-=@,.;]{1,164}\Z")
_QUEUE = 5_000


class RejectedError(Exception):
    """A frame that Pusher would answer with a pusher:error: its code, often none, and its text."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Socket:
    """One pusher-js connection: its channels, and its queue of frames."""

    def __init__(self) -> None:
        self.id = f"{random.randrange(1, 10**6)}.{random.randrange(1, 10**9)}"
        self.channels: dict[str, dict[str, Any] | None] = {}
        """Channel to the member that this socket is on a presence channel, else None."""
        self.outbox: asyncio.Queue[str | tuple[int, str]] = asyncio.Queue(_QUEUE)
        self.sent_at: list[float] = []
        self.user_id: str | None = None
        """The user as which it has signed in."""

    def put(self, frame: str | tuple[int, str]) -> None:
        """Queue a frame, or (code, reason) to close; a reader that is too slow is closed with 4100."""
        if self.outbox.full():
            while not self.outbox.empty():
                self.outbox.get_nowait()
            frame = (4100, "Over capacity")
        self.outbox.put_nowait(frame)

    def error(self, code: int | None, text: str) -> None:
        """Queue a pusher:error; its data is an object, not a string."""
        self.put(_frame("pusher:error", {"code": code, "message": text}))


class Channels:
    """The ASGI application for /app/{key}, and the channels of the sockets connected to it."""

    def __init__(self, *, key: str, secret: str) -> None:
        self._key = key
        self._secret = secret
        self._channels: dict[str, set[Socket]] = {}
        self._sockets: set[Socket] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await receive()
        await send({"type": "websocket.accept"})
        key = scope["path"].split("/")[2]
        protocol = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("protocol", "")
        if key != self._key:
            text = f"App key {key} not in this cluster. Did you forget to specify the cluster?"
            await _refuse(send, 4001, text)
        elif not protocol:
            await _refuse(send, 4008, "No protocol version supplied")
        elif protocol not in ("5", "6", "7"):
            await _refuse(send, 4007, "Unsupported protocol version")
        else:
            await self._converse(Socket(), receive, send)

    def occupied(self, prefix: str = "") -> list[str]:
        """The channels with subscribers."""
        return [name for name in self._channels if name.startswith(prefix)]

    def publish(self, channel: str, event: str, data: str, *, but: str = "") -> None:
        """Send an event to a channel's sockets, except the one with id `but`."""
        self._send(channel, _frame(event, data, channel), but)

    def terminate(self, user_id: str) -> int:
        """Close the connections that have signed in as this user (4009: pusher-js does not come back by itself)."""
        found = [socket for socket in self._sockets if socket.user_id == user_id]
        for socket in found:
            socket.error(4009, "You got disconnected by the app.")
            socket.put((4009, "You got disconnected by the app."))
        return len(found)

    def drop_sockets(self) -> int:
        """Close every connection, as a server that restarts does (4200: reconnect at once)."""
        for socket in self._sockets:
            socket.put((4200, "Please reconnect"))
        return len(self._sockets)

    async def _converse(self, socket: Socket, receive: Receive, send: Send) -> None:
        self._sockets.add(socket)
        established = {"socket_id": socket.id, "activity_timeout": ACTIVITY_TIMEOUT}
        socket.put(_frame("pusher:connection_established", orjson.dumps(established).decode()))
        writer = asyncio.create_task(_write(socket, send))
        reader = asyncio.create_task(self._read_frames(socket, receive))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            self._sockets.discard(socket)
            for channel in list(socket.channels):
                self._unsubscribe(socket, channel)

    async def _read_frames(self, socket: Socket, receive: Receive) -> None:
        pinged = False
        while True:
            try:
                async with asyncio.timeout(PONG_TIMEOUT if pinged else ACTIVITY_TIMEOUT):
                    message = await receive()
            except TimeoutError:
                if pinged:
                    socket.put((4201, "Pong reply not received"))
                    await asyncio.sleep(PONG_TIMEOUT)
                    return
                socket.put(_frame("pusher:ping", {}))
                pinged = True
                continue
            if message["type"] == "websocket.disconnect":
                return
            pinged = False
            try:
                self._frame_in(socket, orjson.loads(message.get("text") or message.get("bytes") or b""))
            except RejectedError as refusal:
                socket.error(refusal.code, refusal.text)
            except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
                socket.error(None, "Invalid message")

    def _frame_in(self, socket: Socket, message: dict[str, Any]) -> None:
        event: str = message["event"]
        data: Any = message.get("data")
        if event == "pusher:ping":
            socket.put(_frame("pusher:pong", {}))
        elif event == "pusher:pong":
            pass
        elif event == "pusher:subscribe":
            self._subscribe(socket, data)
        elif event == "pusher:unsubscribe":
            self._unsubscribe(socket, data["channel"])
        elif event == "pusher:signin":
            self._sign_in(socket, data)
        elif event.startswith("client-"):
            self._client_event(socket, event, message["channel"], data)
        else:
            raise RejectedError(f"{event} is not offered by the embedded stack")

    def _sign_in(self, socket: Socket, data: dict[str, Any]) -> None:
        shown = str(data["user_data"])
        signed = f"{socket.id}::user::{shown}"
        if not hmac.compare_digest(f"{self._key}:{sign(self._secret, signed)}", str(data["auth"])):
            raise RejectedError("Invalid signature", 4009)
        user = orjson.loads(shown)
        if not isinstance(user.get("id"), str) or not user["id"]:
            raise RejectedError("user_data has no id", 4009)
        if "watchlist" in user:
            raise RejectedError("watchlists are not offered by the embedded stack")
        socket.user_id = user["id"]
        socket.put(_frame("pusher:signin_success", orjson.dumps({"user_data": shown}).decode()))

    def _subscribe(self, socket: Socket, data: dict[str, Any]) -> None:
        channel, shown = data["channel"], data.get("channel_data")
        own = f"#server-to-user-{socket.user_id}"  # pusher-js subscribes to it after a sign-in, without a signature
        if not CHANNEL.match(channel) and (socket.user_id is None or channel != own):
            raise RejectedError(f"Invalid channel name {channel}")
        if re.match("(private-|presence-)?cache-|private-encrypted-cache-", channel):
            raise RejectedError("cache channels are not offered by the embedded stack")
        if channel in socket.channels:
            raise RejectedError(f"Existing subscription to channel {channel}")
        member = None
        if channel.startswith(("private-", "presence-")):
            key, _, signature = str(data.get("auth") or "").partition(":")
            if not key:
                raise RejectedError(f"Auth info required to subscribe to {channel}")
            if key != self._key:
                raise RejectedError(f"Invalid key in subscription auth data: '{key}'")
            signed = f"{socket.id}:{channel}" + (f":{shown}" if shown is not None else "")
            if not hmac.compare_digest(sign(self._secret, signed), signature):
                raise RejectedError(
                    f"Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {signature}"
                )
        result: dict[str, Any] = {}
        if channel.startswith("presence-"):
            member = orjson.loads(shown or b"")
            member["user_id"] = str(member["user_id"])
            here = self._members(channel)
            if member["user_id"] not in here:
                self._send(
                    channel, _frame("pusher_internal:member_added", orjson.dumps(member).decode(), channel)
                )
            here[member["user_id"]] = member.get("user_info")
            result = {"presence": {"count": len(here), "ids": list(here), "hash": here}}
        socket.channels[channel] = member
        self._channels.setdefault(channel, set()).add(socket)
        socket.put(_frame("pusher_internal:subscription_succeeded", orjson.dumps(result).decode(), channel))

    def _unsubscribe(self, socket: Socket, channel: str) -> None:
        if channel not in socket.channels:
            return
        member = socket.channels.pop(channel)
        self._channels[channel].discard(socket)
        if not self._channels[channel]:
            del self._channels[channel]
        if member and member["user_id"] not in self._members(channel):
            left = orjson.dumps({"user_id": member["user_id"]}).decode()
            self._send(channel, _frame("pusher_internal:member_removed", left, channel))

    def _members(self, channel: str) -> dict[str, Any]:
        members = [other.channels[channel] for other in self._channels.get(channel, ())]
        return {member["user_id"]: member.get("user_info") for member in members if member}

    def _client_event(self, socket: Socket, event: str, channel: str, data: Any) -> None:
        if not channel.startswith(("private-", "presence-")) or channel.startswith("private-encrypted-"):
            raise RejectedError("Client event rejected - only supported on private and presence channels")
        if channel not in socket.channels:
            raise RejectedError(f"Client event rejected - you are not subscribed to {channel}")
        now = time.monotonic()
        socket.sent_at = [at for at in socket.sent_at if now - at < 1.0]
        if len(socket.sent_at) >= CLIENT_EVENTS_PER_SECOND:
            raise RejectedError("Client event rejected due to rate limit", 4301)
        socket.sent_at.append(now)
        member = socket.channels[channel]
        self._send(channel, _frame(event, data, channel, member["user_id"] if member else None), socket.id)

    def _send(self, channel: str, frame: str, but: str = "") -> None:
        for socket in self._channels.get(channel, ()):
            if socket.id != but:
                socket.put(frame)


def sign(secret: str, text: str) -> str:
    """Pusher's signature of anything: HMAC-SHA256, in hex."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _frame(event: str, data: Any, channel: str | None = None, user_id: str | None = None) -> str:
    frame = {"event": event, "data": data}
    if channel is not None:
        frame["channel"] = channel
    if user_id is not None:
        frame["user_id"] = user_id
    return orjson.dumps(frame).decode()


async def _refuse(send: Send, code: int, text: str) -> None:
    await send({"type": "websocket.send", "text": _frame("pusher:error", {"code": code, "message": text})})
    await send({"type": "websocket.close", "code": code, "reason": text})


async def _write(socket: Socket, send: Send) -> None:
    while True:
        frame = await socket.outbox.get()
        if isinstance(frame, tuple):
            code, reason = frame
            await send({"type": "websocket.close", "code": code, "reason": reason})
            return
        await send({"type": "websocket.send", "text": frame})

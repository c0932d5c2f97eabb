"""Clients of `/ws` for tests: one that records its frames, and one that reconnects as a page does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.canary import check_reader
from tests.support.frames import check_frame
from tests.support.waiting import pause

Json = dict[str, Any]


def like(value: Any, wanted: Any) -> bool:
    """Return True if `value` contains `wanted`."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(k in value and like(value[k], w) for k, w in wanted.items())
    return bool(value == wanted)


WITHIN = 60.0
"""Seconds that anything may take on a loaded machine."""


class Client:
    """An open socket; `frames` are all that it received, `sent` what it sent with `send`."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.frames: list[Json] = []
        self.sent: list[Json] = []
        self.role = "nobody"
        self._from = 0
        self._changed = asyncio.Event()
        self.closed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.ws:
                frame = json.loads(text)
                self.frames.append(frame)
                if "type" in frame:  # a frame of Realtime has none
                    check_frame(text)
                if frame.get("type") == "authenticated":
                    self.role = frame["role"]
                check_reader(self.role, str(text))
                self._changed.set()
        self.closed.set()
        self._changed.set()

    async def send(self, kind: str, **body: Any) -> None:
        """Send a frame."""
        self.sent.append({"type": kind, **body})
        await self.ws.send(json.dumps(self.sent[-1]))

    async def until(self, condition: Callable[[], Any], within: float = WITHIN) -> Any:
        """Wait until the condition holds."""
        try:
            async with asyncio.timeout(within):
                while not (found := condition()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {within} s; received {self.frames[-20:]}, {self.code}"
            ) from None
        return found

    def all(self, kind: str, **wanted: Any) -> list[Json]:
        """The frames of this type since `forget` that have these values."""
        return [f for f in self.frames[self._from :] if f["type"] == kind and like(f, wanted)]

    async def wait(self, kind: str, within: float = WITHIN, **wanted: Any) -> Json:
        """Wait for the first of them."""
        found: list[Json] = await self.until(lambda: self.all(kind, **wanted), within)
        return found[0]

    def forget(self) -> None:
        """Ignore the frames received so far."""
        self._from = len(self.frames)

    async def settled(self) -> None:
        """Wait until all frames that the server sent before now are received."""
        before = len(self.all("pong"))
        await self.send("ping")
        await self.until(lambda: len(self.all("pong")) > before)

    @property
    def code(self) -> int | None:
        """The server's close code."""
        return self.ws.close_code

    async def end(self, within: float = WITHIN) -> int | None:
        """Wait until the server closes; return the code."""
        async with asyncio.timeout(within):
            await self.closed.wait()
        return self.code

    async def aclose(self) -> None:
        await self.ws.close()
        await self._reading


def ws_url(http: str) -> str:
    return "ws" + http.removeprefix("http") + "/ws"


@asynccontextmanager
async def opened(url: str, *, headers: dict[str, str] | None = None, **options: Any) -> AsyncIterator[Client]:
    """A connection that has not authenticated. `url` is the daemon's (http)."""
    ws = await connect(
        ws_url(url), additional_headers=headers, max_size=None, open_timeout=WITHIN, ping_interval=None,
        close_timeout=1, proxy=None, **options,
    )  # fmt: skip
    client = Client(ws)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def entered(
    url: str, token: str | None, *, headers: dict[str, str] | None = None, **claims: Any
) -> AsyncIterator[Client]:
    """A connection that has authenticated."""
    async with opened(url, headers=headers) as client:
        await client.send("authenticate", **({"token": token} if token else {}), **claims)
        await client.wait("authenticated")
        yield client


class Follower:
    """A page that reconnects whenever its socket ends, and sends the positions that it has received.

    `received` are the seqs of each session in the order of the `chat_message` frames; `acked` those of its own messages
    that were acknowledged. It repeats a message until it is acknowledged.
    """

    def __init__(self, urls: Callable[[], list[str]], token: str, *, hop: float | None = None) -> None:
        """`hop`: seconds after its entry when it disconnects and connects to another instance."""
        self._urls = urls
        self._token = token
        self.hop = hop
        self._turns = itertools.count()
        self.received: dict[str, list[int]] = defaultdict(list)
        self.live: dict[str, list[int]] = defaultdict(list)
        self.acked: dict[str, set[int]] = defaultdict(set)
        self.texts: dict[str, str] = {}
        self.base: dict[str, int] | None = None
        self.entries = 0
        self._unsent: dict[str, Json] = {}
        self._ws: ClientConnection | None = None
        self._stay = asyncio.timeout(None)

    def since(self) -> dict[str, int] | None:
        """The contiguous positions by session; None before the first entry."""
        if self.base is None:
            return None
        positions = dict(self.base)
        for session in {*self.received, *self.acked}:
            seen = {*self.received[session], *self.acked[session]}
            at = positions.get(session, 0)
            while at + 1 in seen:
                at += 1
            positions[session] = at
        return positions

    async def send(self, **body: Any) -> None:
        """Send a message now, or after the next reconnection."""
        message_id = body.setdefault("id", str(uuid.uuid4()))
        frame = {"type": "send_message", "clientId": message_id, **body}
        self._unsent[message_id] = frame
        if self._ws is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._ws.send(json.dumps(frame))

    @property
    def waiting(self) -> int:
        """The number of its messages that are not acknowledged."""
        return len(self._unsent)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            with contextlib.suppress(ConnectionClosed, OSError, InvalidHandshake, TimeoutError):
                async with asyncio.timeout(None) as self._stay:
                    await self._visit()
            await pause(0.02 + random.random() * 0.08, "before the next connection")

    async def _visit(self) -> None:
        if not (urls := self._urls()):
            return
        url = ws_url(urls[next(self._turns) % len(urls)])
        async with connect(url, proxy=None, open_timeout=WITHIN, close_timeout=0.2, ping_interval=None) as ws:
            since = self.since()
            await ws.send(
                json.dumps(
                    {
                        "type": "authenticate",
                        "token": self._token,
                        **({"since": since} if since is not None else {}),
                    }
                )
            )
            try:
                async for text in ws:
                    await self._handle(ws, json.loads(text))
            finally:
                self._ws = None

    async def _handle(self, ws: ClientConnection, frame: Json) -> None:
        match frame["type"]:
            case "authenticated":
                self.entries += 1
                if self.hop is not None:
                    self._stay.reschedule(asyncio.get_running_loop().time() + self.hop)
                if self.base is None:
                    self.base = {s["id"]: s["last_seq"] for s in frame["sessions"]}
                for session in frame["sessions"]:
                    # What it missed is on its way: it is named, in case the connection ends before that has come.
                    self.base.setdefault(session["id"], 0)
                for waiting in list(self._unsent.values()):
                    await ws.send(json.dumps(waiting))
                self._ws = ws
            case "chat_message":
                message = frame["message"]
                self.received[message["session_id"]].append(message["seq"])
                self.texts[message["id"]] = message["message"]
                if not frame["replay"]:
                    self.live[message["session_id"]].append(message["seq"])
            case "message_ack":
                self._unsent.pop(frame["clientId"], None)
                self.acked[frame["sessionId"]].add(frame["seq"])
            case "error" if frame.get("clientId") in self._unsent:
                await pause(0.1, "before the message is sent again")
                await ws.send(json.dumps(self._unsent[frame["clientId"]]))

    def complete(self, session: str, last: int) -> bool:
        """Return True if it has every message of a session that began after its first entry."""
        return {*self.received[session], *self.acked[session]} >= set(range(1, last + 1))

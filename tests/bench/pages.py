"""The pages of the bench's sockets: thousands of WebSockets in one process, as thin as possible.

They do what docs/websocket.md asks of a page: `since`, positions, one message at a time, a ping every 20 s, and the pauses
before a reconnection. Frames are parsed here, since a client library takes several times the CPU that is measured.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import time
import uuid
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, cast

import orjson
import uvloop

from tests.support import waiting

FATAL = (1009, 4400, 4403)
PING_EVERY = 20.0
OPENING = 100
"""Connections that are opened at a time, in the beginning."""


@dataclass(frozen=True)
class Person:
    """Who opens a page."""

    token: str
    staff: bool
    address: str
    """Forwarded by the proxy."""
    positions: dict[str, int]
    """What the page has, by session."""
    talks: bool
    """True if it sends messages."""


@dataclass
class Tally:
    """What all pages together have seen. Times are Unix seconds."""

    sent: dict[str, float] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)
    heard: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    """By message, when it arrived live at each page."""
    frames: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    """Close codes, and statuses of refused handshakes."""
    errors: Counter[str] = field(default_factory=Counter)
    out_of_order: int = 0
    repeats: int = 0


class Page(asyncio.Protocol):
    """One page, over all of its connections."""

    def __init__(self, person: Person, pages: Pages) -> None:
        self.person = person
        self.pages = pages
        self.up_to = dict(person.positions)
        self.early: dict[str, set[int]] = {}
        self.newest: dict[str, int] = {}
        self.unsent: str | None = None
        self.failures = 0
        self.live = False
        self.entered_at = 0.0
        self.transport: asyncio.Transport | None = None
        self.rest = b""
        self.upgraded = False
        self.code = 1006
        """The close code, or the status of a refused handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast("asyncio.Transport", transport)
        self.rest, self.upgraded, self.code = b"", False, 1006
        self.newest, self.unsent = {}, None
        address = self.pages.one_address or self.person.address
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\nX-Forwarded-For: {address}\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """Come back after the documented pause."""
        self.transport, self.live = None, False
        self.pages.tally.closes[str(self.code) if self.code >= 1000 else f"http {self.code}"] += 1
        self.again()

    def again(self) -> None:
        """Connect after the pause that follows this close."""
        if self.code in FATAL or self.pages.over:
            return
        pause = 30.0 if self.code == 4429 else min(15.0, 0.5 * 2**self.failures)
        self.failures += 1
        if self.pages.jitter:
            pause *= 0.5 + random.random() / 2
        self.pages.loop.call_later(pause, self.pages.connect_soon, self)

    def data_received(self, data: bytes) -> None:
        """Take whole frames, and keep what is left."""
        if self.rest:
            data = self.rest + data
        if not self.upgraded:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.code = int(head[9:12])
                if self.transport is not None:
                    self.transport.abort()
                return
            self.upgraded = True
            self.send({"type": "authenticate", "token": self.person.token, "since": self.up_to})
        at, end_ = 0, len(data)
        while end_ - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if end_ < start or end_ < start + length:
                break
            self.take_frame(data[at] & 15, data[start : start + length])
            at = start + length
        self.rest = data[at:]

    def take_frame(self, opcode: int, data: bytes) -> None:
        """Take one frame."""
        if opcode == 1:
            self.hear(data)
        elif opcode == 9:
            self.write(0x8A, data)
        elif opcode == 8 and len(data) >= 2:
            self.code = int.from_bytes(data[:2], "big")
            if self.transport is not None:
                self.transport.close()

    def write(self, first: int, data: bytes) -> None:
        """Send a frame, masked with zeros."""
        size = len(data)
        head = bytes((first, 128 | size)) if size < 126 else bytes((first, 254)) + size.to_bytes(2, "big")
        if size > 65535:
            head = bytes((first, 255)) + size.to_bytes(8, "big")
        if self.transport is not None:
            self.transport.write(head + b"\0\0\0\0" + data)

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame of text."""
        self.write(0x81, orjson.dumps(frame))

    def hear(self, data: bytes) -> None:
        """Take a frame of text."""
        now, tally = time.time(), self.pages.tally
        frame = orjson.loads(data)
        kind = frame["type"]
        tally.frames[kind] += 1
        if kind == "chat_message":
            message, replay = frame["message"], frame["replay"]
            session, seq = message["session_id"], message["seq"]
            if not replay:
                tally.heard[message["id"]].append(now)
            if seq <= self.newest.get(session, 0):
                tally.out_of_order += 1
            self.newest[session] = seq
            self.take(session, seq)
        elif kind == "message_ack":
            tally.acknowledged.setdefault(frame["id"], now)
            self.unsent = None
            self.take(frame["sessionId"], frame["seq"])
        elif kind == "authenticated":
            self.live, self.entered_at, self.failures = True, now, 0
        elif kind == "error":
            tally.errors[frame["code"]] += 1
            self.unsent = None

    def take(self, session: str, seq: int) -> None:
        """Note that this message is here."""
        position = self.up_to.get(session, seq - 1)
        early = self.early.get(session)
        if seq <= position or (early and seq in early):
            self.pages.tally.repeats += 1
            return
        if seq > position + 1:
            self.early.setdefault(session, set()).add(seq)
            return
        position = seq
        while early and position + 1 in early:
            position += 1
            early.discard(position)
        self.up_to[session] = position

    def say(self, session: str) -> None:
        """Send a message to a session."""
        key = self.unsent = str(uuid.uuid4())
        text = "a message of the usual length, as people write them in a chat"
        frame = {"type": "send_message", "message": text, "id": key, "clientId": key, "sessionId": session}
        self.pages.tally.sent[key] = time.time()
        self.send(frame)


class Pages:
    """All pages, and what the bench lets them do."""

    def __init__(self, host: str, port: int, people: list[Person]) -> None:
        self.loop = asyncio.get_running_loop()
        self.host, self.port = host, port
        self.tally = Tally()
        self.jitter = True
        self.one_address = ""
        self.over = False
        self.pages = [Page(person, self) for person in people]
        self.tasks: set[asyncio.Task[None]] = set()

    def connect_soon(self, page: Page) -> None:
        """Connect; a failure counts as a close."""
        task = self.loop.create_task(self.connect(page))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def connect(self, page: Page) -> None:
        """Connect a page."""
        try:
            await self.loop.create_connection(lambda: page, self.host, self.port)
        except OSError:
            self.tally.closes["no connection"] += 1
            page.code = 1006
            page.again()

    async def open(self) -> list[float]:
        """Open all pages, OPENING at a time, staff first; return the seconds that each took."""
        took: list[float] = []
        slots = asyncio.Semaphore(OPENING)

        async def one(page: Page) -> None:
            async with slots:
                began = time.time()
                await self.connect(page)
                await waiting.until(lambda: page.live, 120, 0.02, "an open page")
                took.append(page.entered_at - began)

        async with asyncio.TaskGroup() as group:
            for page in self.pages:
                group.create_task(one(page))
        self.tasks.add(self.loop.create_task(self.ping()))
        return took

    async def ping(self) -> None:
        """Let each page ping every PING_EVERY seconds, evenly spread."""
        while True:
            for number, page in enumerate(self.pages):
                if number % 50 == 0:
                    await waiting.pause(PING_EVERY * 50 / len(self.pages), "the next pages ping")
                if page.live:
                    page.write(0x81, b'{"type":"ping"}')

    async def talk(self, rate: float, seconds: float) -> None:
        """Send messages, half of them from players, and wait until they are acknowledged."""
        players = [page for page in self.pages if page.person.talks and not page.person.staff]
        staff = [page for page in self.pages if page.person.talks and page.person.staff]
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            await waiting.pause(began + number / rate - time.monotonic(), "the rate of messages")
            player = random.choice(players)
            sender = player if number % 2 else random.choice(staff)
            if sender.live and sender.unsent is None:
                sender.say(next(iter(player.up_to)))
        await waiting.until(
            lambda: all(page.unsent is None for page in self.pages), 60, 0.05, "the acknowledgements"
        )

    def storm(self, *, cut: bool, jitter: bool, one_address: bool) -> float:
        """Begin a storm: cut all connections, or be about to lose them. Returns its time."""
        self.jitter, self.one_address = jitter, "203.0.113.1" if one_address else ""
        self.tally = Tally()
        began = time.time()
        for page in self.pages if cut else ():
            if page.transport is not None:
                page.transport.abort()
        return began

    async def back(self, began: float, within: float) -> list[float]:
        """Wait until all pages are back; return the seconds that each took, of those that are."""

        def waits() -> bool:
            return not all(page.live and page.entered_at > began for page in self.pages)

        until = time.monotonic() + within
        while waits() and time.monotonic() < until:
            await waiting.pause(0.05, "pages come back")
        return sorted(page.entered_at - began for page in self.pages if page.live and page.entered_at > began)

    def missing(self, ends: dict[str, int]) -> int:
        """Return how many messages pages lack, when sessions end with these seqs."""
        return sum(
            max(0, ends[session] - page.up_to.get(session, 0))
            for page in self.pages
            for session in page.person.positions
        )

    async def complete(self, ends: dict[str, int], within: float) -> int:
        """Wait until no page lacks a message; return how many are missing."""
        until = time.monotonic() + within
        while (missing := self.missing(ends)) and time.monotonic() < until:
            await waiting.pause(0.2, "messages arrive")
        return missing

    def renew(self) -> None:
        """Count anew."""
        self.tally = Tally()

    def figures(self) -> Tally:
        """Return the counts since they were renewed, without factories, so that they can be sent."""
        return replace(self.tally, heard=dict(self.tally.heard))


async def _serve(pipe: Connection, host: str, port: int, people: list[Person]) -> None:
    pages = Pages(host, port, people)
    while True:
        command = await pages.loop.run_in_executor(None, pipe.recv)
        if command is None:
            break
        name, arguments = command
        found = getattr(pages, name)(**arguments)
        try:
            pipe.send(await found if asyncio.iscoroutine(found) else found)
        except AssertionError as error:
            pipe.send(error)
    pages.over = True
    for page in pages.pages:
        if page.transport is not None:
            page.transport.abort()
    for task in pages.tasks:
        task.cancel()


def run(pipe: Connection, host: str, port: int, people: list[Person]) -> None:
    """Serve the bench's commands (a method of Pages and its arguments) until it sends None."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(pipe, host, port, people))

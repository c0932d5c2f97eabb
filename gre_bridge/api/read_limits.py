"""Limits concurrent reads per person, and the bytes of answers that clients have not received yet.

A long answer is sent in pieces, each when the client has received the one before, and counts until it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gre_bridge.api.middleware import problem

MAX_READS_PER_PERSON = 4
"""Reads of one person that run at a time; others wait."""
MAX_WAITING_PER_PERSON = 16
READS_BY_POST = frozenset({"/api/gre-chat/attachments/urls"})
"""Paths whose POST only reads."""
QUEUE_TIMEOUT = 5.0
"""Seconds for which a read waits."""
MAX_UNSENT = 48 * 1024 * 1024
"""Bytes of answers, in all, that clients have not received yet."""
SEND_TIMEOUT = 30.0
"""Seconds in which a client must receive an answer; then the answer is broken off."""
PIECE = 64 * 1024


class _Person:
    """The reads of one person."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(MAX_READS_PER_PERSON)
        self.count = 0


class ReadLimits:
    """The middleware."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app
        self._persons: dict[bytes, _Person] = {}
        self._unsent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            # The console's files are shared, and need no limit.
            await self._app(scope, receive, send)
            return
        reads = scope["method"] in ("GET", "HEAD") or scope["path"] in READS_BY_POST
        key = _person_key(Headers(scope=scope)) if reads else None
        async with self._slot(key) as acquired:
            if acquired:
                await self._answer(scope, receive, send)
            else:
                text = "too many reads at once; wait for the answers"
                await problem(scope, 429, "too_many_reads", text, retry_after=1)(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _slot(self, key: bytes | None) -> AsyncIterator[bool]:
        """Wait for one of this person's slots; False if none becomes free in time."""
        if key is None:
            yield True
            return
        person = self._persons.setdefault(key, _Person())
        if person.count >= MAX_READS_PER_PERSON + MAX_WAITING_PER_PERSON:
            yield False
            return
        person.count += 1
        try:
            try:
                async with asyncio.timeout(QUEUE_TIMEOUT):
                    await person.slots.acquire()
            except TimeoutError:
                yield False
                return
            try:
                yield True
            finally:
                person.slots.release()
        finally:
            person.count -= 1
            if not person.count:
                self._persons.pop(key, None)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None
        broken = False

        async def send_in_pieces(message: Message) -> None:
            nonlocal start, broken
            if broken:
                raise ConnectionAbortedError  # a stream ends
            if message["type"] == "http.response.start":
                start = message
                return
            body = message.get("body", b"")
            if self._unsent + len(body) > MAX_UNSENT and start is not None:
                broken = True
                text = "too many answers are not read yet, try again in a moment"
                await problem(scope, 503, "busy", text, retry_after=2)(scope, receive, send)
                return
            self._unsent += len(body)
            try:
                async with asyncio.timeout(SEND_TIMEOUT):
                    if start is not None:
                        await send(start)
                        start = None
                    for at in range(0, len(body) - PIECE, PIECE):
                        await send({**message, "body": body[at : at + PIECE], "more_body": True})
                    await send({**message, "body": body[(max(len(body), 1) - 1) // PIECE * PIECE :]})
            except TimeoutError:
                broken = True
            finally:
                self._unsent -= len(body)

        await self._app(scope, receive, send_in_pieces)


def _person_key(headers: Headers) -> bytes | None:
    token = headers.get("authorization")
    if token is None:
        return None
    caller = f"{token}\0{headers.get('x-gre-act-as', '')}"
    return hashlib.blake2b(caller.encode(), digest_size=16).digest()

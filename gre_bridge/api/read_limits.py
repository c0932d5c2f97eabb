"""Bounds what is read and answered at a time: reads of one person, and bytes that peers have not taken yet.

A long answer goes out in pieces, each when the peer has taken the one before; while it does, it counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gre_bridge.api.middleware import problem

READS_OF_ONE = 4
"""Reads of one person that are worked on and answered at a time; others wait."""
QUEUED_OF_ONE = 16
"""Reads of one person that wait."""
WAIT = 5.0
"""Seconds for which they do."""
UNTAKEN = 48 * 1024 * 1024
"""Bytes of answers that peers have not taken yet, in all."""
TAKEN_WITHIN = 30.0
"""Seconds for a peer to take an answer; then it is broken off."""
PIECE = 64 * 1024


class _Person:
    """The reads of one person."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(READS_OF_ONE)
        self.there = 0


class ReadLimits:
    """The middleware."""

    def __init__(self, app: ASGIApp) -> None:
        """Put around `app`."""
        self._app = app
        self._people: dict[bytes, _Person] = {}
        self._untaken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith("/api/"):
            # (The console's files are one copy for everybody.)
            await self._app(scope, receive, send)
            return
        person = _person(Headers(scope=scope)) if scope["method"] in ("GET", "HEAD") else None
        async with self._turn(person) as mine:
            if mine:
                await self._answer(scope, receive, send)
            else:
                text = "too many reads at once; wait for the answers"
                await problem(scope, 429, "too_many_reads", text, retry_after=1)(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _turn(self, key: bytes | None) -> AsyncIterator[bool]:
        """Wait for this person's turn; False when it does not come in time."""
        if key is None:
            yield True
            return
        person = self._people.setdefault(key, _Person())
        if person.there >= READS_OF_ONE + QUEUED_OF_ONE:
            yield False
            return
        person.there += 1
        try:
            try:
                async with asyncio.timeout(WAIT):
                    await person.turns.acquire()
            except TimeoutError:
                yield False
                return
            try:
                yield True
            finally:
                person.turns.release()
        finally:
            person.there -= 1
            if not person.there:
                self._people.pop(key, None)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None
        counted = 0
        broken = False

        async def send_in_pieces(message: Message) -> None:
            nonlocal start, counted, broken
            if broken:
                return
            if message["type"] == "http.response.start":
                start = message
                return
            body = message.get("body", b"")
            if self._untaken + len(body) > UNTAKEN and start is not None:
                broken = True
                text = "too many answers are not read yet, try again in a moment"
                await problem(scope, 503, "busy", text, retry_after=2)(scope, receive, send)
                return
            self._untaken += len(body)
            counted += len(body)
            try:
                async with asyncio.timeout(TAKEN_WITHIN):
                    if start is not None:
                        await send(start)
                        start = None
                    for at in range(0, len(body) - PIECE, PIECE):
                        await send({**message, "body": body[at : at + PIECE], "more_body": True})
                    await send({**message, "body": body[(max(len(body), 1) - 1) // PIECE * PIECE :]})
            except TimeoutError:
                broken = True

        try:
            await self._app(scope, receive, send_in_pieces)
        finally:
            self._untaken -= counted


def _person(headers: Headers) -> bytes | None:
    token = headers.get("authorization")
    if token is None:
        return None
    who = f"{token}\0{headers.get('x-gre-act-as', '')}"
    return hashlib.blake2b(who.encode(), digest_size=16).digest()

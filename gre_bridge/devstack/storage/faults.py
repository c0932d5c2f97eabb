"""Faults of the embedded Storage, set through /__stack/faults: rules, of which the first that fits a request counts.

Bodies pass piece by piece, never as a whole, so an upload of any size can be slowed down, cut or held open.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from gre_bridge.devstack.faults import App, Faults, Message, Receive, Scope, Send, answer, sever
from gre_bridge.devstack.storage.request import HOLD, SEND

MODES: Final = ("refused", "slow", "cut", "silent", "hold", "lose_answer")
"""`refused` answers `status`; `slow` waits `delay` before each piece of the body, on its way in and out; `cut` closes the
connection after `bytes` of the body; `silent` takes the request and never answers; `hold` keeps an upload from its end, when its
bytes are there and its row is not, until the rule is cleared; `lose_answer` carries the request out and hangs up."""
_SILENT: Final = 600.0


@dataclass(slots=True, eq=False)
class StorageRule:
    """One fault. Times are in seconds; `times` and `until` of None mean until it is cleared; empty `methods` means each one."""

    mode: str
    status: int = 503
    body: str = ""
    delay: float = 0.1
    bytes: int = 0
    times: int | None = None
    methods: list[str] = field(default_factory=list)
    path: str = ""
    until: float | None = None
    held: int = 0
    """How many uploads a rule of mode `hold` holds now."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StorageRule:
        """Read a rule, in which `for` counts from now. A `delay` alone only slows down. Raises ValueError, TypeError."""
        value = {"mode": "slow" if "delay" in value and "status" not in value else "refused", **value}
        seconds = value.pop("for", None)
        if value.get("mode") not in MODES or "held" in value or "until" in value:
            raise ValueError(f"mode is one of {', '.join(MODES)}")
        return cls(**value, until=None if seconds is None else time.monotonic() + seconds)

    def over(self) -> bool:
        """Return True if the rule applies no more."""
        return self.until is not None and time.monotonic() >= self.until

    def fits(self, scope: Scope) -> bool:
        """Whether it is for this request; a prefix of the path is without /storage/v1."""
        path = scope["path"].removeprefix("/storage/v1")
        return (
            scope["method"] != "OPTIONS"
            and self.times != 0
            and not self.over()
            and path.startswith(self.path)
            and (not self.methods or scope["method"] in self.methods)
        )


class StorageFaults(Faults):
    """An ASGI application before Storage."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._storage = app
        self._rules: list[StorageRule] = []
        self._replaced = asyncio.Event()

    def set(self, value: Any) -> None:
        """Replace the rules by one, several, or none (None). Raises ValueError or TypeError, and then changes nothing."""
        rules = [] if value is None else value if isinstance(value, list) else [value]
        self._rules = [StorageRule.from_json(rule) for rule in rules]
        self._replaced.set()
        self._replaced = asyncio.Event()

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rules in force; `for` is the remaining time, `held` the uploads that are held now."""
        out = []
        for rule in self._rules:
            if rule.times != 0 or rule.held:
                shown = asdict(rule)
                until = shown.pop("until")
                if not rule.over():
                    left = None if until is None else round(until - time.monotonic(), 3)
                    out.append({**shown, "for": left})
        return out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with the first fault that fits it."""
        rule = next((rule for rule in self._rules if rule.fits(scope)), None)
        if rule is None or scope["type"] != "http":
            return await self._storage(scope, receive, send)
        if rule.times is not None:
            rule.times -= 1
        scope = {**scope, SEND: send}
        match rule.mode:
            case "refused":
                body = (
                    rule.body
                    or f'{{"statusCode":"{rule.status}","error":"fault","message":"fault","code":"fault"}}'
                )
                # The gateway lets browsers read its own answers, too.
                headers = [("content-type", "application/json"), ("access-control-allow-origin", "*")]
                return await answer(send, rule.status, body, headers)
            case "silent":
                return await _silent(receive, send)
            case "hold":
                scope[HOLD] = functools.partial(self._held, rule)
                return await self._storage(scope, receive, send)
            case "slow":
                wait = functools.partial(asyncio.sleep, rule.delay)
                return await self._storage(scope, _slow(receive, wait), _slow_answer(send, wait))
            case "cut":
                cut = _Cut(rule.bytes, receive, send)
                return await self._storage(scope, cut.receive, cut.send)
        await self._storage(scope, receive, _discard)
        return await sever(send)

    async def _held(self, rule: StorageRule) -> None:
        rule.held += 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if rule.until is None else rule.until - time.monotonic()):
                    await self._replaced.wait()
        finally:
            rule.held -= 1


def _slow(receive: Receive, wait: Any) -> Receive:
    async def slowly() -> Message:
        message = await receive()
        if message.get("body"):
            await wait()
        return message

    return slowly


def _slow_answer(send: Send, wait: Any) -> Send:
    async def slowly(message: Message) -> None:
        if message.get("body"):
            await wait()
        await send(message)

    return slowly


class _Cut:
    """Closes the connection after so many bytes of bodies, in either direction."""

    def __init__(self, left: int, receive: Receive, send: Send) -> None:
        self._left = left
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if message.get("body") and self._left <= 0:
            await self._end()
        return message

    async def send(self, message: Message) -> None:
        body = message.get("body", b"")
        if body and len(body) >= self._left:
            await self._send({**message, "body": body[: self._left], "more_body": True})
            # Let it reach the client before the connection closes.
            await asyncio.sleep(0.01)
            await self._end()
        self._left -= len(body)
        await self._send(message)

    async def _end(self) -> None:
        await sever(self._send)
        raise ConnectionError


async def _silent(receive: Receive, send: Send) -> None:
    """Take whatever comes, until the client leaves or ten minutes have passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SILENT):
            while (await receive())["type"] != "http.disconnect":
                pass
    await sever(send)


async def _discard(message: Message) -> None:
    pass

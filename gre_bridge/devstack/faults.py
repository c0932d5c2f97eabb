"""Faults on demand, and the record of the requests that the sinks received, both controlled through /__stack.

`Faults` stands before an HTTP face and misbehaves as its rules say; `Received` keeps what came in. Neither
knows what the requests mean. The small ASGI helpers that every face uses live here too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 8 * 1024 * 1024
"""Bytes of a request's body that are read; no real service accepts as many."""
KEPT_BYTES = 128 * 1024 * 1024
"""Bytes of event data in the record of one sink; the oldest are dropped."""
MODES = ("status", "hang", "refuse", "lose_answer", "stall", "truncate", "garbage", "slow")
"""`lose_answer` and `stall` carry the request out; then the one hangs up, the other says nothing until the client leaves."""
_HANG = 600.0
_GARBAGE = b'\x00\xff<html>{"id": '


class BodyTooLargeError(ValueError):
    """A request's body is larger than MAX_BODY."""


async def read_body(receive: Receive) -> bytes:
    """Return the request's body. Raises BodyTooLargeError, and ConnectionError if the client disconnects."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise BodyTooLargeError
        if not message.get("more_body"):
            return b"".join(parts)


async def answer(
    send: Send,
    status: int,
    body: bytes | str | dict[str, Any] | list[Any],
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    """Send a response: JSON for a dict or list, else the text as it is."""
    content = (
        body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
    )
    head = {
        "content-type": "text/plain; charset=utf-8" if isinstance(body, bytes | str) else "application/json"
    }
    head |= {"content-length": str(len(content)), **{name.lower(): value for name, value in headers}}
    raw = [(name.encode(), value.encode()) for name, value in head.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


async def sever(send: Send) -> None:
    """Close the client's connection at once, without another byte: `send` must be uvicorn's own."""
    # ASGI has no message for this. uvicorn's `send` is a method of the object that owns the transport.
    send.__self__.transport.abort()  # type: ignore[attr-defined]
    # uvicorn must see that the client is gone before we return, or it logs that we did not answer.
    await asyncio.sleep(0.01)


@dataclass(slots=True)
class Rule:
    """One fault of an HTTP service. Times are in seconds; None for `times` and `until` means until it is cleared."""

    mode: str = "status"
    status: int = 500
    body: str = '{"error":"fault"}'
    retry_after: float | None = None
    delay: float = 0.0
    times: int | None = None
    match: str = ""
    path: str = ""
    until: float | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rule:
        """Read a rule, in which `for` counts from now. A `delay` alone only slows down. Raises ValueError, TypeError."""
        value = {"mode": "slow" if "delay" in value and "status" not in value else "status", **value}
        seconds = value.pop("for", None)
        if value["mode"] not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}")
        return cls(**value, until=None if seconds is None else time.monotonic() + seconds)

    def over(self) -> bool:
        """Return True if the rule applies no more."""
        return self.times == 0 or (self.until is not None and time.monotonic() >= self.until)


class Faults:
    """An ASGI application before another: applies the first rule that fits, else passes on.

    `refused(status, body)` hears of each request that the rules kept from `app`, with the status that was
    answered (0 for none); None where nobody records.
    """

    def __init__(self, app: App, *, refused: Callable[[int, bytes], None] | None = None) -> None:
        self._app = app
        self._refused = refused
        self.rules: list[Rule] = []

    def set(self, value: Any) -> None:
        """Replace the rules by one, several, or none (None). Raises ValueError or TypeError, and then changes nothing."""
        rules = [] if value is None else value if isinstance(value, list) else [value]
        self.rules = [Rule.from_json(rule) for rule in rules]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rules in force; `for` is the remaining time."""
        out = []
        for rule in self.rules:
            if not rule.over():
                shown = asdict(rule)
                until = shown.pop("until")
                out.append({**shown, "for": None if until is None else round(until - time.monotonic(), 3)})
        return out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with the first fault that matches it."""
        if not self.rules or scope["type"] != "http":
            return await self._app(scope, receive, send)
        body = await read_body(receive)
        rule = self._pick(scope["path"], body)
        again = _replay(body, receive)
        await asyncio.sleep(rule.delay if rule else 0)
        if rule is None or rule.mode == "slow":
            return await self._app(scope, again, send)
        if rule.mode in ("lose_answer", "stall"):
            await self._app(scope, again, _discard)
            if rule.mode == "stall":
                await _gone(receive, _HANG)
            return await sever(send)
        if rule.mode == "truncate":
            return await self._truncate(scope, again, send)
        if self._refused:
            status = {"hang": 0, "refuse": 0, "garbage": 200}.get(rule.mode, rule.status)
            self._refused(status, body)
        return await _fail(rule, receive, send)

    def _pick(self, path: str, body: bytes) -> Rule | None:
        self.rules = [rule for rule in self.rules if not rule.over()]
        for rule in self.rules:
            if path.startswith(rule.path) and rule.match.encode() in body:
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    async def _truncate(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def half(message: Message) -> None:
            if message["type"] == "http.response.body":
                content = message.get("body", b"")
                await send({**message, "body": content[: len(content) // 2], "more_body": True})
                # Let the first half reach the client before the connection closes.
                await asyncio.sleep(0.01)
                await sever(send)
            else:
                await send(message)

        await self._app(scope, receive, half)


async def _fail(rule: Rule, receive: Receive, send: Send) -> None:
    """Answer in the application's place."""
    if rule.mode == "garbage":
        return await answer(send, 200, _GARBAGE, [("content-type", "application/json")])
    if rule.mode == "status":
        headers = [] if rule.retry_after is None else [("retry-after", f"{rule.retry_after:g}")]
        return await answer(send, rule.status, rule.body, headers)
    if rule.mode == "hang":
        await _gone(receive, _HANG)
    return await sever(send)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again


async def _discard(message: Message) -> None:
    pass


async def _gone(receive: Receive, timeout: float) -> None:
    """Wait until the client disconnects, at most `timeout` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while (await receive())["type"] != "http.disconnect":
                pass


@dataclass(slots=True)
class Request:
    """One request to a sink: its items are numbered `first`, `first` + 1, …; `first` also names the request."""

    first: int
    at: float
    status: int
    items: list[dict[str, Any]]
    size: int


class Received:
    """The requests that one sink received, in order of arrival; beyond KEPT_BYTES the oldest are dropped."""

    def __init__(self, *, on_request: Callable[[Request], None] | None = None) -> None:
        """`on_request` is called with each request as it comes in."""
        self._on_request = on_request
        self._requests: deque[Request] = deque()
        self._kept = 0
        self._last = 0
        self.requests = 0
        self.accepted = 0
        """Items in answers of 200 since the last clear."""

    def record(self, status: int, items: list[dict[str, Any]], size: int) -> None:
        """Record a request; `size` is its body's length in bytes. One without items counts as one empty item."""
        self.requests += 1
        items = items or [{}]
        request = Request(self._last + 1, time.time(), status, items, size)
        self._last += len(items)
        self.accepted += len(items) if status == 200 else 0
        self._requests.append(request)
        self._kept += size
        while self._kept > KEPT_BYTES and len(self._requests) > 1:
            self._kept -= self._requests.popleft().size
        if self._on_request:
            self._on_request(request)

    def since(self, number: int, limit: int) -> Iterator[dict[str, Any]]:
        """Yield the first `limit` items with a number above `number`; `data` that is JSON text is parsed."""
        tail: list[Request] = []
        for request in reversed(self._requests):
            if request.first + len(request.items) - 1 <= number:
                break
            tail.append(request)
        for request in reversed(tail):
            for n, item in enumerate(request.items, request.first):
                if n > number and limit > 0:
                    limit -= 1
                    head = {"n": n, "at": request.at, "request": request.first, "status": request.status}
                    yield {**head, **item, **({"data": _parsed(item["data"])} if "data" in item else {})}

    def clear(self) -> None:
        """Drop all items; the numbering continues."""
        self._requests.clear()
        self._kept = self.requests = self.accepted = 0


def _parsed(data: Any) -> Any:
    if not isinstance(data, str):
        return data
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data

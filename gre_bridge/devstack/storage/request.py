"""One HTTP request as the real server behind its gateway sees it, and the answers: JSON, and CORS as the gateway adds it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import orjson

from gre_bridge.devstack.faults import Receive, Scope, Send
from gre_bridge.devstack.storage.errors import (
    StorageError,
    invalid_request,
    validation_error,
)

JSON_LIMIT: Final = 1024 * 1024
"""Bytes of a JSON body."""
_JSON: Final = "application/json"
HOLD: Final = "gre.storage.hold"
"""In a scope: a coroutine function that returns when the end of an upload may begin."""
SEND: Final = "gre.storage.send"
"""In a scope: the server's own `send`, where a fault stands before it."""
_RESERVED: Final = re.compile("%(?=3B|2F|3F|3A|40|26|3D|2B|24|2C|23)", re.IGNORECASE)
_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_EXPOSED: Final = "content-range, etag, location, upload-offset, upload-length, upload-metadata, tus-resumable, tus-complete"


class BadUrlError(Exception):
    """The path has a percent sign that escapes nothing."""


class Request:
    """`path` is decoded and `raw_path` is not; both are without the prefix that the gateway strips."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        root = scope.get("root_path", "")
        self.root: str = root
        self.method: str = scope["method"]
        self.raw_path: str = scope.get("raw_path", scope["path"].encode()).decode("latin-1")[len(root) :]
        if _BAD_ESCAPE.search(self.raw_path):
            raise BadUrlError
        self.path = unquote(self.raw_path)
        query = scope["query_string"].decode("latin-1")
        self.target = f"{self.raw_path}?{query}" if query else self.raw_path
        self.query: dict[str, str] = dict(parse_qsl(query, keep_blank_values=True))
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        length = self.headers.get("content-length", "")
        self.content_length = int(length) if length.isdigit() else None
        self.receive = receive
        self.hold: Callable[[], Awaitable[None]] = scope.get(HOLD, _at_once)

    @property
    def without_reserved(self) -> str:
        """The path as JavaScript's decodeURI reads it: escapes of reserved characters stay."""
        return unquote(_RESERVED.sub("%25", self.raw_path))

    @property
    def content_type(self) -> str:
        """The media type, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes in. Raises ConnectionError if the client leaves."""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            if chunk := message.get("body", b""):
                yield chunk
            if not message.get("more_body"):
                return

    async def json(self) -> Any:
        """The JSON of the body; None without a body of that type. Raises StorageError."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > JSON_LIMIT:
                raise StorageError(413, "FastifyError", "Request body is too large", "InvalidRequest")
        if self.content_type != _JSON:
            return None
        if not body:
            text = f"Body cannot be empty when content-type is set to '{_JSON}'"
            raise invalid_request(text, error="FastifyError")
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            text = f"Body is not valid JSON but content-type is set to '{_JSON}'"
            raise invalid_request(text, error="FastifyError") from None

    async def fields(self, kinds: dict[str, str], required: Sequence[str] = ()) -> dict[str, Any]:
        """The JSON body, an object. `kinds` names what may be in it and of which type: string, integer, boolean, object,
        array (of strings), any.

        A number in a string is taken for one, as the real server does. Raises StorageError.
        """
        body = await self.json()
        if not isinstance(body, dict):
            raise validation_error("", "must be object")
        for name in required:
            if name not in body:
                raise validation_error("", f"must have required property '{name}'")
        found = {}
        for name, kind in kinds.items():
            if name in body:
                found[name] = _typed(body[name], kind, f"/{name}")
        return found


def _typed(value: Any, kind: str, where: str) -> Any:
    if kind == "any":
        return value
    if kind == "integer" and isinstance(value, str) and re.fullmatch("-?[0-9]{1,18}", value):
        value = int(value)
    if kind == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    types: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
    if not isinstance(value, types[kind]) or (kind == "integer" and isinstance(value, bool)):
        raise validation_error(where, f"must be {kind}")
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise validation_error(f"{where}/0", "must be string")
    return value


async def _at_once() -> None:
    pass


async def respond(
    send: Send,
    request: Request | None,
    status: int,
    body: bytes | dict[str, Any] | list[Any] | None = b"",
    headers: Iterable[tuple[str, str]] = (),
    *,
    last: bool = True,
) -> None:
    """Send an answer: JSON for a dict, a list or bytes; without a body for None. With `last=False` it stays open."""
    content = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
    head: dict[str, str] = {} if body is None else {"content-type": f"{_JSON}; charset=utf-8"}
    head |= {"content-length": str(len(content)), **dict(headers)}
    if request and request.method == "HEAD":
        content = b""
    await start(send, request, status, head.items())
    await send({"type": "http.response.body", "body": content, "more_body": not last})


async def start(send: Send, request: Request | None, status: int, headers: Iterable[tuple[str, str]]) -> None:
    """Send the head of an answer, with what the gateway adds."""
    added = list(headers)
    if request and "origin" in request.headers:
        added += [("access-control-allow-origin", "*"), ("access-control-expose-headers", _EXPOSED)]
    raw = [(name.encode("latin-1"), _one_line(value)) for name, value in added]
    if status == 204:
        raw = [header for header in raw if header[0] != b"content-length"]
    await send({"type": "http.response.start", "status": status, "headers": raw})


def _one_line(text: str) -> bytes:
    """An uploader chooses the type and the cache control: what would break the response goes."""
    return re.sub("[\\x00-\\x1f\\x7f]", " ", text).encode("latin-1", "replace")


async def preflight(send: Send, request: Request) -> None:
    """Answer a browser's question before its request; the server itself has no CORS, its gateway has."""
    asked = request.headers.get("access-control-request-headers", "")
    names = [
        "authorization",
        "apikey",
        "x-client-info",
        "x-upsert",
        "content-type",
        "cache-control",
        "x-metadata",
    ]
    names += asked.lower().replace(" ", "").split(",")
    allowed = ", ".join(dict.fromkeys(filter(None, names)))
    headers = [
        ("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        ("access-control-allow-headers", allowed),
        ("access-control-max-age", "3600"),
    ]
    await respond(send, request, 200, None, headers)

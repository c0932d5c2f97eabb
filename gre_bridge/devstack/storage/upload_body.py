"""The body of an upload, raw or multipart/form-data, read piece by piece.

Facts: storage.md of the recordings. In multipart the file is the part with a filename, whatever its field is called, and
the text fields may come before or after it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson

from gre_bridge.devstack.storage.errors import invalid_parameter, invalid_request, too_large
from gre_bridge.devstack.storage.request import Request

HARD_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of a body, whatever its form. The real server has no bound for chunked bodies; a developer's disk needs one."""
_HEAD_LIMIT: Final = 16 * 1024
_FIELD_LIMIT: Final = 1024 * 1024
_PARTS: Final = 100
_MULTIPART: Final = "multipart/form-data"


class Multipart:
    """Parts of a body, one after the other; holds one piece of it at a time. Raises StorageError for a broken body."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: str) -> None:
        self._chunks = chunks
        self._delimiter = f"\r\n--{boundary}".encode()
        # The first delimiter need not follow a line.
        self._buffer = b"\r\n"
        self._inside = True

    async def next(self) -> dict[str, str] | None:
        """The headers of the next part, None after the last one. What is left of the part before is skipped."""
        async for _ in self.content():
            pass
        while len(self._buffer) < 2:
            await self._more()
        if self._buffer[:2] == b"--":
            async for _ in self._chunks:
                pass
            return None
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_LIMIT:
                raise invalid_request("part header is too large")
            await self._more()
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        self._inside = True
        lines = (line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n"))
        return {name.strip().lower(): value.strip() for name, _, value in lines}

    async def content(self) -> AsyncIterator[bytes]:
        """Yield the current part's bytes up to the delimiter."""
        while self._inside:
            end = self._buffer.find(self._delimiter)
            self._inside = end < 0
            # The delimiter may have come in half.
            piece = self._buffer[: max(0, len(self._buffer) - len(self._delimiter)) if end < 0 else end]
            self._buffer = self._buffer[len(piece) + (0 if end < 0 else len(self._delimiter)) :]
            if piece:
                yield piece
            if self._inside:
                await self._more()

    async def _more(self) -> None:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            raise invalid_request("Unexpected end of multipart data")
        self._buffer += chunk


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > HARD_LIMIT:
            raise too_large()
        yield chunk


class UploadBody:
    """What is uploaded: the type, the metadata, and the bytes. Fields that follow the file are known after the bytes."""

    def __init__(self, request: Request) -> None:
        self.raw = request.content_type != _MULTIPART
        self.content_length = request.content_length
        self.mime_type = request.headers.get("content-type", "application/octet-stream")
        self.cache_control = request.headers.get("cache-control", "no-cache")
        self.user_metadata = base64_json(request.headers.get("x-metadata"))
        self._multipart: Multipart | None = None
        self._chunks = _bounded(request.chunks())
        self._boundary = re.search(
            'boundary=(?:"([^"]+)"|([^;\\s]+))', request.headers.get("content-type", ""), re.IGNORECASE
        )

    async def open(self) -> None:
        """Read up to the file. Raises StorageError if there is none."""
        if self.raw:
            return
        if not self._boundary:
            raise invalid_request("multipart: boundary not found")
        self.cache_control, self.user_metadata = "no-cache", {}
        self.mime_type = ""
        self._multipart = Multipart(self._chunks, self._boundary[1] or self._boundary[2])
        if not await self._to_file():
            raise invalid_request("No content provided", error="InvalidRequest")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes."""
        async for chunk in self._multipart.content() if self._multipart else self._chunks:
            yield chunk
        while self._multipart and await self._to_file():
            pass

    async def _to_file(self) -> bool:
        """Read fields until the next file, and return False if there is none."""
        assert self._multipart
        for _ in range(_PARTS):
            headers = await self._multipart.next()
            if headers is None:
                return False
            disposition = headers.get("content-disposition", "")
            if re.search("filename\\*?=", disposition):
                # A field may have said the type before.
                self.mime_type = (
                    self.mime_type or headers.get("content-type", "text/plain").partition(";")[0].strip()
                )
                return True
            name = re.search('name="([^"]*)"', disposition)
            self._set(name[1] if name else "", await self._text())
        raise invalid_request("reach parts limit")

    async def _text(self) -> str:
        assert self._multipart
        value = b""
        async for piece in self._multipart.content():
            value += piece
            if len(value) > _FIELD_LIMIT:
                raise invalid_request("field value is too large")
        return value.decode("utf-8", "replace")

    def _set(self, name: str, value: str) -> None:
        if name == "cacheControl":
            self.cache_control = f"max-age={value}" if value.isdigit() else value
        elif name == "contentType":
            self.mime_type = value
        elif name == "metadata":
            self.user_metadata = _metadata(value)


def _metadata(text: str | bytes) -> dict[str, Any]:
    """What is not JSON is dropped silently; what is no object is refused."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(value, list):
        raise invalid_parameter("metadata must be an object")
    return value if isinstance(value, dict) else {}


def base64_json(text: str | None) -> dict[str, Any]:
    """The object in a header `x-metadata`; empty for what is no base64 of JSON."""
    try:
        value = orjson.loads(base64.b64decode(text or "", validate=False))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

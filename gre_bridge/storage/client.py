"""Supabase Storage over HTTP: what the worker and the API need of it, with bounds on time and size.

Facts of its protocol were measured on Storage 1.70 and are recorded in tests/conformance/storage. No error and no log line has an
object's name, a link or a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, Self, TypeVar
from urllib.parse import quote

import orjson
from yarl import URL

from gre_bridge import __version__
from gre_bridge.config.keys import gateway_key, read_key
from gre_bridge.db.http import Answer, Pool
from gre_bridge.db.types import Json
from gre_bridge.errors import TransientError
from gre_bridge.storage.errors import Exists, StorageRefused, failure

T = TypeVar("T")

STALL, DOWNLOAD = 20.0, 300.0
"""Seconds for which a download may bring nothing, and for all of it: 25 MB over a line of 1 Mbit/s take 210 s."""
TRANSFER = 60.0
"""Seconds for the upload of one object. A refused upload of 4 MB or more may never get its answer: it ends by this, too."""
CHUNK = 256 * 1024
"""Bytes that are collected before a write to the disk."""
MAX_NAMES = 100
"""Names of one call."""
LINK_SECONDS = 300
"""Lifetime of a download link."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object: its bytes and its type as the uploader claimed it."""

    bytes: int
    type: str
    version: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket. `file_size_limit` in bytes and `types` are None where everything is allowed."""

    public: bool
    file_size_limit: int | None
    types: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class UploadLink:
    """An address to which the holder may PUT one object, once; `expires_at` is None if the token does not say."""

    url: str
    expires_at: datetime | None


class StorageClient:
    """A project's Storage. Opened with `open`, closed with `aclose`.

    Every method raises a BridgeError: `Missing`, `Exists` or `StorageRefused` in Storage's own words about this request; TransientError for an outage;
    ConfigurationError for a refused key or a missing bucket.
    """

    def __init__(
        self, *, url: str, public_url: str, key: str, apikey: str | None, pool: Pool, timeout: float
    ) -> None:
        """Use `open`."""
        self._base, self._public = (f"{one.rstrip('/')}/storage/v1" for one in (url, public_url))
        self._gateway = apikey or key
        self._pool = pool
        self._timeout = timeout
        self._headers = _headers(key, gateway_key(key, apikey))

    @classmethod
    def open(
        cls,
        *,
        url: str,
        key: str,
        apikey: str | None = None,
        public_url: str | None = None,
        timeout: float = 10.0,
        connections: int = 8,
    ) -> Self:
        """Return the Storage of the project at `url`, called with its service key; connections are made when needed.

        `public_url`: its address in links (default: `url`). `timeout`: seconds of a call that transfers no object; DOWNLOAD, STALL and TRANSFER bound the others.
        """
        pool = Pool(service="Storage", connections=connections, timeout=timeout, limit=2**20)
        return cls(url=url, public_url=public_url or url, key=key, apikey=apikey, pool=pool, timeout=timeout)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def download(self, bucket: str, name: str, into: IO[bytes], *, limit: int) -> int:
        """Write an object into a file, in pieces; returns its bytes. Raises StorageRefused (`oversize`) above `limit` bytes."""
        written = 0

        async def take(chunk: bytes) -> None:
            nonlocal written
            written += len(chunk)
            if written > limit:
                raise StorageRefused("download: the object is larger than allowed", code="oversize")
            await asyncio.to_thread(into.write, chunk)

        address = URL(f"{self._base}/object/authenticated/{bucket}/{quote(name)}", encoded=True)
        answer = await self._pool.stream(
            "GET", address, self._headers, take, chunk=CHUNK, stall=STALL, timeout=DOWNLOAD
        )
        if answer is not None:
            raise failure("download", answer)
        return written

    async def upload(self, bucket: str, name: str, content: bytes, type_: str) -> None:
        """Store an object under a name that only the service writes.

        An object that is there stays: an answer was lost, a worker was killed after its upload, or another worker, whose library
        encodes otherwise, examined the same file. Storage shows no object before it is whole.
        """
        headers = {**self._headers, "Content-Type": type_, "Cache-Control": "max-age=3600"}
        answer = await self._send(
            "POST", f"/object/{bucket}/{quote(name)}", content, headers, timeout=TRANSFER
        )
        if answer.status != 200 and not isinstance(error := failure("upload", answer), Exists):
            raise error

    async def info(self, bucket: str, name: str) -> ObjectInfo:
        """Return what Storage knows of an object. Raises Missing."""
        found = await self._json("info", "GET", f"/object/info/{bucket}/{quote(name)}")
        return _read(
            "info", lambda: ObjectInfo(int(found["size"]), str(found["content_type"]), str(found["version"]))
        )

    async def delete(self, bucket: str, names: Sequence[str]) -> frozenset[str]:
        """Delete up to MAX_NAMES objects; returns the names that it deleted. The rest are missing, or may not be deleted."""
        found = await self._json("delete", "DELETE", f"/object/{bucket}", {"prefixes": list(names)})
        return _read("delete", lambda: frozenset(str(row["name"]) for row in _rows(found)))

    async def sign(
        self, bucket: str, names: Sequence[str], *, expires_in: int = LINK_SECONDS
    ) -> dict[str, str]:
        """Return a download link for each name that exists. `with_download` makes it one that saves the file."""
        body = {"expiresIn": expires_in, "paths": list(names)}
        found = await self._json("sign", "POST", f"/object/sign/{bucket}", body)
        return _read(
            "sign",
            lambda: {
                str(row["path"]): self._public + str(row["signedURL"])
                for row in _rows(found)
                if row["signedURL"]
            },
        )

    async def sign_upload(self, bucket: str, name: str, *, token: str | None = None) -> UploadLink:
        """Return an address for one upload under `name`, asked for as the holder of `token` (default: as the service)."""
        headers = _headers(token, self._gateway) if token is not None else self._headers
        found = await self._json(
            "sign upload", "POST", f"/object/upload/sign/{bucket}/{quote(name)}", {}, headers
        )
        return _read(
            "sign upload", lambda: UploadLink(self._public + str(found["url"]), _expiry(str(found["token"])))
        )

    async def bucket(self, bucket: str) -> Bucket:
        """Return a bucket's settings. Raises ConfigurationError if it is missing."""
        found = await self._json("bucket", "GET", f"/bucket/{bucket}")

        def read() -> Bucket:
            limit, types = found["file_size_limit"], found["allowed_mime_types"]
            return Bucket(
                bool(found["public"]),
                None if limit is None else int(limit),
                None if types is None else tuple(types),
            )

        return _read("bucket", read)

    async def set_bucket(self, bucket: str, settings: Bucket) -> None:
        """Set a bucket. Raises StorageRefused (413) if the project's own limit for an upload is lower."""
        body: Json = {
            "public": settings.public,
            "file_size_limit": settings.file_size_limit,
            "allowed_mime_types": None if settings.types is None else list(settings.types),
        }
        await self._json("set bucket", "PUT", f"/bucket/{bucket}", body)

    async def _json(
        self,
        what: str,
        method: str,
        path: str,
        body: Json | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        content, headers = b"", headers or self._headers
        if body is not None:
            content, headers = orjson.dumps(body), {**headers, "Content-Type": "application/json"}
        answer = await self._send(method, path, content, headers)
        if answer.status != 200:
            raise failure(what, answer)
        try:
            return orjson.loads(answer.body)
        except ValueError:
            raise _unreadable(what) from None

    async def _send(
        self, method: str, path: str, content: bytes, headers: dict[str, str], *, timeout: float | None = None
    ) -> Answer:
        address = URL(self._base + path, encoded=True)
        return await self._pool.request(method, address, headers, content, timeout=timeout or self._timeout)


def with_download(link: str, name: str) -> str:
    """Return a link that saves the file under `name` instead of showing it in the page's origin."""
    return f"{link}&download={quote(name, safe='')}"


def _headers(key: str, apikey: str) -> dict[str, str]:
    return {"apikey": apikey, "Authorization": f"Bearer {key}", "User-Agent": f"gre-bridge/{__version__}"}


def _read(what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
        raise _unreadable(what) from None


def _rows(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise TypeError
    return found


def _unreadable(what: str) -> TransientError:
    return TransientError(f"{what}: the answer is not Storage's", code="unreadable")


def _expiry(token: str) -> datetime | None:
    """Read the end of an upload token, whose lifetime cannot be asked for."""
    end = read_key(token).claims.get("exp")
    return datetime.fromtimestamp(end, UTC) if isinstance(end, int | float) else None

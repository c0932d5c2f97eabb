"""The face of Storage: which request goes to which handler, and how refusals become answers.

What Storage can and this cannot (public buckets' own route, images, S3, vectors) is refused with 501; it never guesses.
"""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gre_bridge.devstack.faults import Receive, Scope, Send, sever
from gre_bridge.devstack.storage.buckets import Buckets
from gre_bridge.devstack.storage.changes import Changes
from gre_bridge.devstack.storage.database import Database
from gre_bridge.devstack.storage.errors import NotOfferedError, StorageError
from gre_bridge.devstack.storage.files import Files
from gre_bridge.devstack.storage.reads import Reads
from gre_bridge.devstack.storage.request import SEND, BadUrlError, Request, preflight, respond
from gre_bridge.devstack.storage.resumable import Resumable
from gre_bridge.devstack.storage.uploads import Uploads

UNREAD_SECONDS: Final = 60.0
"""How long a connection stays open whose body is not read."""
_POLL: Final = 0.05
_LEFT_OUT: Final = ("public", "render", "s3", "iceberg", "vector", "cdn")
_Handler = Callable[..., Awaitable[None]]


class Storage:
    """An ASGI app; `start`, serve, `stop`."""

    def __init__(self, *, dsn: str, jwt_secret: str, directory: Path) -> None:
        """`dsn` logs in as supabase_storage_admin. The bytes of objects go below `directory`."""
        self._database = Database(dsn)
        self._files = Files(directory)
        uploads = Uploads(self._database, self._files)
        self._buckets = Buckets(database=self._database, files=self._files, secret=jwt_secret)
        self._reads = Reads(database=self._database, files=self._files, secret=jwt_secret)
        self._changes = Changes(
            database=self._database, files=self._files, uploads=uploads, secret=jwt_secret
        )
        self._resumable = Resumable(files=self._files, uploads=uploads, secret=jwt_secret)
        self._routes = self._table()

    async def start(self) -> None:
        """Nothing has to be ready: a connection is opened when it is needed."""

    async def stop(self) -> None:
        """Close the connections."""
        await self._database.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            request = Request(scope, receive)
        except BadUrlError:
            path = scope["path"]
            return await respond(send, None, 400, {
                "error": "Bad Request", "code": "FST_ERR_BAD_URL",
                "message": f"'{path}' is not a valid url component", "statusCode": 400,
            })  # fmt: skip
        if request.method == "OPTIONS":
            return await preflight(send, request)
        try:
            await self._route(request, send)
        except StorageError as error:
            await respond(send, request, error.http, error.body(), last=error.reads_on)
            if not error.reads_on:
                await _leave_unread(scope.get(SEND, send))
                await sever(scope.get(SEND, send))
        except ConnectionError:
            return None  # the client left while it sent its request
        return None

    async def _route(self, request: Request, send: Send) -> None:
        parts = request.path.split("/")[1:]
        if parts[0] in _LEFT_OUT or parts[:2] == ["object", "public"]:
            raise NotOfferedError(f"/{'/'.join(parts[:2])}")
        for methods, pattern, handler in self._routes:
            if request.method in methods and (found := pattern.fullmatch(request.path)):
                return await handler(request, send, *found.groups())
        text = f"Route {request.method}:{request.target} not found"
        if parts[0] == "object":
            raise StorageError(404, "Not Found", text, "InvalidRequest", http=404)
        return await respond(send, request, 404, {"message": text, "error": "Not Found", "statusCode": 404})

    def _table(self) -> tuple[tuple[str, re.Pattern[str], _Handler], ...]:
        """Methods, path and handler; the first that fits is taken. A group of the path is an argument."""
        buckets, reads, changes, resumable = self._buckets, self._reads, self._changes, self._resumable
        object_ = "([^/]+)/(.+)"
        rows: tuple[tuple[str, str, _Handler], ...] = (
            ("GET HEAD", "/status", _status),
            ("POST", "/bucket/?", buckets.create),
            ("GET", "/bucket/?", buckets.list_all),
            ("GET", "/bucket/([^/]+)", buckets.get),
            ("PUT", "/bucket/([^/]+)", buckets.update),
            ("DELETE", "/bucket/([^/]+)", buckets.delete),
            ("POST", "/bucket/([^/]+)/empty", buckets.empty),
            ("POST PATCH HEAD DELETE", "(/upload/resumable/sign)(?:/(.*))?", resumable.serve),
            ("POST PATCH HEAD DELETE", "(/upload/resumable)(?:/(.*))?", resumable.serve),
            ("POST", "/object/move", changes.move),
            ("POST", "/object/copy", changes.copy),
            ("POST", "/object/list/([^/]+)", reads.list_folder),
            ("POST", "/object/list-v2/([^/]+)", reads.list_v2),
            ("POST", f"/object/upload/sign/{object_}", changes.sign_upload),
            ("PUT", f"/object/upload/sign/{object_}", changes.upload_signed),
            ("POST", "/object/sign/([^/]+)", reads.sign_many),
            ("POST", f"/object/sign/{object_}", reads.sign),
            ("GET HEAD", f"/object/sign/{object_}", reads.download_signed),
            ("GET HEAD", f"/object/authenticated/{object_}", reads.download_authenticated),
            ("GET", f"/object/info/{object_}", reads.info),
            ("POST PUT", f"/object/{object_}", changes.upload),
            ("GET HEAD", f"/object/{object_}", reads.download),
            ("DELETE", f"/object/{object_}", changes.delete),
            ("DELETE", "/object/([^/]+)", changes.delete_many),
        )
        return tuple((methods, re.compile(path, re.DOTALL), handler) for methods, path, handler in rows)


async def _status(request: Request, send: Send) -> None:
    """Whatever the database does."""
    await respond(send, request, 200, None)


async def _leave_unread(send: Send) -> None:
    """Neither read on nor close, until the client does or UNREAD_SECONDS have passed."""
    # As in `sever`; nobody else can tell of a client that leaves while nothing is read.
    connection = send.__self__.transport.get_extra_info("socket")  # type: ignore[attr-defined]
    poll = select.poll()
    poll.register(connection.fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
    for _ in range(int(UNREAD_SECONDS / _POLL)):
        if poll.poll(0):
            return
        await asyncio.sleep(_POLL)

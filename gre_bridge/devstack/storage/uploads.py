"""Uploads: the two transactions of each, and the bytes between them.

The first inserts the row as the caller, with version '1', and is rolled back: it asks the policies. Then the bytes are
written, with no transaction open. The last one writes the row as service_role. That "no upsert" is asked at the start only, and
the end always replaces, is v1.70.6's own behaviour (tests/conformance/storage).
"""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg.types.json import Jsonb

from gre_bridge.devstack.storage.database import SERVICE, Caller, Connection, Database
from gre_bridge.devstack.storage.errors import (
    StorageError,
    invalid_key,
    no_such_bucket,
    too_large,
    wrong_type,
)
from gre_bridge.devstack.storage.files import Files, Target
from gre_bridge.devstack.storage.request import Request
from gre_bridge.devstack.storage.times import iso
from gre_bridge.devstack.storage.upload_body import UploadBody

GLOBAL_LIMIT: Final = 52_428_800
"""Bytes of an object, where a Content-Length or a multipart body tells them."""
UNREAD: Final = 4_000_000
"""A refusal that the check makes leaves a body of this many bytes unread, and the connection open (measured)."""
_LOCK_SECONDS: Final = 5
_KEY: Final = re.compile(r"[A-Za-z0-9_/!.*'()&$@=;:+,? -]+")
_INSERT: Final = """
insert into objects (bucket_id, name, owner, owner_id, version, metadata, user_metadata)
values (%(bucket)s, %(name)s, %(owner)s, %(owner_id)s, %(version)s, %(metadata)s, %(user_metadata)s)
"""
_REPLACE: Final = """
on conflict (bucket_id, name) do update set version = excluded.version, metadata = excluded.metadata,
  user_metadata = excluded.user_metadata, owner = coalesce(excluded.owner, objects.owner),
  owner_id = coalesce(excluded.owner_id, objects.owner_id)
"""


def check_key(name: str) -> None:
    """Raise StorageError for a name with a character that no object's name may have."""
    if not _KEY.fullmatch(name):
        raise invalid_key(name)


@dataclass(slots=True)
class Upload:
    """What goes into the row; `operation` is what policies read of it."""

    bucket: str
    name: str
    owner: str | None
    operation: str
    upsert: bool
    caller: Caller
    version: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def target(self) -> Target:
        """Where the bytes go."""
        return Target(self.bucket, self.name, self.version)

    def row(self, version: str, metadata: dict[str, Any], user_metadata: dict[str, Any]) -> dict[str, Any]:
        """The parameters of the insert."""
        return {
            "bucket": self.bucket, "name": self.name, "owner": _uuid(self.owner), "owner_id": self.owner,
            "version": version, "metadata": Jsonb(metadata), "user_metadata": Jsonb(user_metadata),
        }  # fmt: skip


class Uploads:
    """The transactions of uploads, and of what else writes rows of objects."""

    def __init__(self, database: Database, files: Files) -> None:
        self._database = database
        self._files = files

    async def bucket(self, request: Request, bucket: str, operation: str) -> dict[str, Any]:
        """The bucket's row, whoever asks. Raises StorageError if there is none."""
        async with self._database.transaction(request, SERVICE, operation, keep=False) as connection:
            cursor = await connection.execute("select * from buckets where id = %s", [bucket])
            found = await cursor.fetchone()
        if found is None:
            raise no_such_bucket()
        return found

    async def check(
        self, request: Request, upload: Upload, metadata: dict[str, Any], user_metadata: dict[str, Any]
    ) -> None:
        """Ask whether the caller may: insert the row, and roll back. Raises StorageError."""
        async with self._database.transaction(
            request, upload.caller, upload.operation, keep=False
        ) as connection:
            statement = f"{_INSERT}{_REPLACE} returning id" if upload.upsert else _INSERT
            await connection.execute(statement, upload.row("1", metadata, user_metadata))

    async def upload(self, request: Request, upload: Upload) -> dict[str, Any]:
        """Take the request's body for an object; return its row.

        Raises StorageError, and ConnectionError if the client leaves: then nothing stays.
        """
        check_key(upload.name)
        bucket = await self.bucket(request, upload.bucket, upload.operation)
        limit = min(GLOBAL_LIMIT, bucket["file_size_limit"] or GLOBAL_LIMIT)
        body = UploadBody(request)
        if body.raw and (body.content_length or 0) > limit:
            raise too_large()
        await body.open()
        _check_type(bucket, body.mime_type)
        try:
            await self.check(request, upload, _announced(body), body.user_metadata)
        except StorageError as error:
            error.reads_on = (request.content_length or 0) < UNREAD
            raise
        # A raw body that does not tell its length passes any limit (measured).
        limited = body.content_length is not None or not body.raw
        written = await self._files.write(upload.target, body.chunks(), limit if limited else None)
        try:
            _check_type(bucket, body.mime_type)
            await request.hold()
        except BaseException:
            self._files.remove(upload.target)
            raise
        metadata = object_metadata(
            written["md5"], written["size"], mime_type=body.mime_type, cache_control=body.cache_control
        )
        return await self.finish(request, upload, metadata, body.user_metadata)

    async def finish(
        self, request: Request, upload: Upload, metadata: dict[str, Any], user_metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """Write the row of bytes that are there, as service_role. The bytes go if that fails, or the client has left."""
        leaving = asyncio.create_task(_left(request))
        # Nobody asks a client's task that leaves after the commit.
        leaving.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with self._database.transaction(request, SERVICE, upload.operation) as connection:
                replaced = await self.lock(connection, upload.bucket, upload.name)
                cursor = await connection.execute(
                    f"{_INSERT}{_REPLACE} returning *", upload.row(upload.version, metadata, user_metadata)
                )
                row = await cursor.fetchone()
                assert row is not None
                if leaving.done():
                    await leaving
        except BaseException:
            self._files.remove(upload.target)
            raise
        finally:
            leaving.cancel()
        if replaced not in (None, upload.version):
            self._files.remove(Target(upload.bucket, upload.name, replaced))
        return row

    async def lock(self, connection: Connection, bucket: str, name: str) -> str | None:
        """Let nobody else write this object until the transaction ends; return the version that is there.

        Raises StorageError after five seconds.
        """
        try:
            await connection.execute("select set_config('lock_timeout', %s, true)", [f"{_LOCK_SECONDS}s"])
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{bucket}/{name}"]
            )
            cursor = await connection.execute(
                "select version from objects where bucket_id = %s and name = %s for update", [bucket, name]
            )
            found = await cursor.fetchone()
            await connection.execute("select set_config('lock_timeout', '0', true)")
        except psycopg.errors.LockNotAvailable:
            text = "acquiring_lock_timeout"
            raise StorageError(503, text, "Lock timeout", "LockTimeout") from None
        return found["version"] if found else None


def object_metadata(md5: str, size: int, *, mime_type: str, cache_control: str) -> dict[str, Any]:
    """What the backend says of the bytes."""
    return {
        "eTag": f'"{md5}"', "size": size, "mimetype": mime_type, "cacheControl": cache_control,
        "lastModified": iso(datetime.now(UTC)), "contentLength": size, "httpStatusCode": 200,
    }  # fmt: skip


def _check_type(bucket: dict[str, Any], mime_type: str) -> None:
    if not type_allowed(bucket["allowed_mime_types"], mime_type):
        raise wrong_type(mime_type)


def type_allowed(allowed: list[str] | None, mime_type: str) -> bool:
    """An exact comparison with the list; `image/*` allows each type of its kind, and no list everything."""
    kind = mime_type.partition("/")[0]
    return not allowed or mime_type in allowed or f"{kind}/*" in allowed or "*/*" in allowed


def _announced(body: UploadBody) -> dict[str, Any]:
    length = {} if body.content_length is None else {"contentLength": body.content_length}
    return {"mimetype": body.mime_type, **length}


def _uuid(text: str | None) -> str | None:
    try:
        return str(uuid.UUID(text)) if text else None
    except ValueError:
        return None


async def _left(request: Request) -> None:
    """Wait for the client to leave, and raise ConnectionError then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ConnectionError

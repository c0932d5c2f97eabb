"""Buckets: made, read, changed, emptied and deleted."""

from __future__ import annotations

import re
from typing import Any, Final

from gre_bridge.devstack.faults import Send
from gre_bridge.devstack.storage.access import caller_of
from gre_bridge.devstack.storage.changes import delete_rows
from gre_bridge.devstack.storage.database import SERVICE, Caller, Database
from gre_bridge.devstack.storage.errors import (
    StorageError,
    access_denied,
    no_such_bucket,
    too_large,
    validation_error,
)
from gre_bridge.devstack.storage.files import Files, target_of
from gre_bridge.devstack.storage.request import Request, respond
from gre_bridge.devstack.storage.times import iso
from gre_bridge.devstack.storage.uploads import GLOBAL_LIMIT

_NAME: Final = re.compile(r"(?! )[A-Za-z0-9_!.*'()&$@=;:+,? -]{1,100}(?<! )")
_UNITS: Final = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_SHOWN: Final = (
    "id", "name", "owner", "public", "file_size_limit", "allowed_mime_types", "created_at", "updated_at",
)  # fmt: skip


class Buckets:
    """The handlers; each answers one request, or raises StorageError."""

    def __init__(self, *, database: Database, files: Files, secret: str) -> None:
        self._database = database
        self._files = files
        self._secret = secret

    async def create(self, request: Request, send: Send) -> None:
        """POST /bucket."""
        body = await _body(request, {"id": "string", "name": "string"}, ["name"])
        caller = caller_of(request, self._secret)
        bucket = body.get("id") or body["name"]
        if not _NAME.fullmatch(bucket):
            raise StorageError(400, "Invalid Input", "Bucket name invalid", "InvalidBucketName")
        values = [bucket, body["name"], body.get("public", False), *_limits(body), caller.subject]
        async with self._database.transaction(
            request, caller, "storage.bucket.create", taken="BucketAlreadyExists"
        ) as connection:
            await connection.execute(
                "insert into buckets (id, name, public, file_size_limit, allowed_mime_types, owner_id)"
                " values (%s, %s, %s, %s, %s, %s)",
                values,
            )
        await respond(send, request, 200, {"name": bucket})

    async def get(self, request: Request, send: Send, bucket: str) -> None:
        """GET /bucket/{id}."""
        rows = await self._visible(request, caller_of(request, self._secret), bucket)
        if not rows:
            raise no_such_bucket()
        await respond(send, request, 200, _shown(rows[0]))

    async def list_all(self, request: Request, send: Send) -> None:
        """GET /bucket."""
        rows = await self._visible(request, caller_of(request, self._secret), None)
        await respond(send, request, 200, [{**_shown(row), "type": row["type"]} for row in rows])

    async def _visible(self, request: Request, caller: Caller, bucket: str | None) -> list[dict[str, Any]]:
        async with self._database.transaction(
            request, caller, "storage.bucket.get", keep=False
        ) as connection:
            cursor = await connection.execute(
                "select * from buckets where %s::text is null or id = %s order by name", [bucket, bucket]
            )
            return await cursor.fetchall()

    async def update(self, request: Request, send: Send, bucket: str) -> None:
        """PUT /bucket/{id}: what the body leaves out stays."""
        body = await _body(request, {}, [])
        caller = caller_of(request, self._secret)
        limit, types = _limits(body)
        changes = {"public": body.get("public"), "file_size_limit": limit, "allowed_mime_types": types}
        changes = {name: value for name, value in changes.items() if name in body}
        columns = ", ".join(f"{name} = %({name})s" for name in changes)
        statement = f"update buckets set {columns or 'id = id'} where id = %(id)s returning id"
        async with self._database.transaction(request, caller, "storage.bucket.update") as connection:
            cursor = await connection.execute(statement, {**changes, "id": bucket})
            if await cursor.fetchone() is None:
                raise no_such_bucket()
        await respond(send, request, 200, {"message": "Successfully updated"})

    async def empty(self, request: Request, send: Send, bucket: str) -> None:
        """POST /bucket/{id}/empty: done at once here, whatever the answer says."""
        await request.json()
        if caller_of(request, self._secret).role != "service_role":
            raise access_denied("Access denied: Invalid role", http=403)
        async with self._database.transaction(request, SERVICE, "storage.bucket.empty") as connection:
            cursor = await connection.execute("select name from objects where bucket_id = %s", [bucket])
            names = [row["name"] for row in await cursor.fetchall()]
            for row in await delete_rows(connection, bucket, names):
                self._files.remove(target_of(row))
        text = "Empty bucket has been queued. Completion may take up to an hour."
        await respond(send, request, 200, {"message": text})

    async def delete(self, request: Request, send: Send, bucket: str) -> None:
        """DELETE /bucket/{id}. Everybody hears whether it has objects (measured)."""
        await request.json()
        caller = caller_of(request, self._secret)
        async with self._database.transaction(
            request, SERVICE, "storage.bucket.delete", keep=False
        ) as connection:
            cursor = await connection.execute("select from objects where bucket_id = %s limit 1", [bucket])
            if await cursor.fetchone() is not None:
                text = "The bucket you tried to delete is not empty"
                raise StorageError(409, "ResourceNotEmpty", text, "ResourceNotEmpty")
        async with self._database.transaction(request, caller, "storage.bucket.delete") as connection:
            cursor = await connection.execute("delete from buckets where id = %s returning id", [bucket])
            if await cursor.fetchone() is None:
                raise no_such_bucket()
        await respond(send, request, 200, {"message": "Successfully deleted"})


async def _body(request: Request, kinds: dict[str, str], required: list[str]) -> dict[str, Any]:
    kinds = {**kinds, "public": "boolean", "file_size_limit": "any", "allowed_mime_types": "any"}
    return await request.fields(kinds, required)


def _limits(body: dict[str, Any]) -> tuple[int | None, list[str] | None]:
    """The limit in bytes and the types, None for none. Raises StorageError."""
    limit, types = body.get("file_size_limit"), body.get("allowed_mime_types")
    if types is not None and not (isinstance(types, list) and all(isinstance(item, str) for item in types)):
        raise validation_error("/allowed_mime_types", "must be array")
    if limit is None:
        return None, types
    found = re.fullmatch(r"(\d{1,15}) *([KMGT]?B)?", str(limit).upper())
    if not found or isinstance(limit, bool):
        raise validation_error("/file_size_limit", "must be integer")
    count = int(found[1]) * _UNITS[found[2] or ""]
    if count > GLOBAL_LIMIT:
        raise too_large()
    return count, types


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in _SHOWN}
    times = {name: iso(row[name]) for name in ("created_at", "updated_at")}
    return {**shown, **times, "owner": row["owner"] or ""}

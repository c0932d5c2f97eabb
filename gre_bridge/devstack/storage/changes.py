"""What changes objects: uploads by a caller and by a signed URL, move, copy and delete."""

from __future__ import annotations

import uuid
from typing import Any, Final

import psycopg

from gre_bridge.devstack.faults import Send
from gre_bridge.devstack.storage.access import caller_of, sign, signed
from gre_bridge.devstack.storage.database import SERVICE, Caller, Database
from gre_bridge.devstack.storage.errors import StorageError, access_denied, no_such_key, validation_error
from gre_bridge.devstack.storage.files import Files, Target, target_of
from gre_bridge.devstack.storage.request import Request, respond
from gre_bridge.devstack.storage.times import iso
from gre_bridge.devstack.storage.upload_body import base64_json
from gre_bridge.devstack.storage.uploads import Upload, Uploads, check_key

UPLOAD_SECONDS: Final = 60
"""How long a signed upload URL lives: the self-hosted default."""
_SHOWN: Final = (
    "name", "bucket_id", "owner", "owner_id", "version", "id", "updated_at", "created_at", "last_accessed_at",
    "metadata", "user_metadata",
)  # fmt: skip


class Changes:
    """The handlers; each answers one request, or raises StorageError."""

    def __init__(self, *, database: Database, files: Files, uploads: Uploads, secret: str) -> None:
        self._database = database
        self._files = files
        self._uploads = uploads
        self._secret = secret

    async def upload(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """POST (x-upsert or not) and PUT (always an upsert) /object/{bucket}/{key}."""
        caller = caller_of(request, self._secret)
        upsert = request.method == "PUT" or request.headers.get("x-upsert") == "true"
        operation = "storage.object.upload_update" if request.method == "PUT" else "storage.object.upload"
        upload = Upload(bucket, name, caller.subject, operation, upsert, caller)
        row = await self._uploads.upload(request, upload)
        await respond(send, request, 200, {"Key": f"{bucket}/{name}", "Id": row["id"]})

    async def sign_upload(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """POST /object/upload/sign/{bucket}/{key}: the policies are asked now, the key is not."""
        await request.json()
        caller = caller_of(request, self._secret)
        upsert = request.headers.get("x-upsert") == "true"
        upload = Upload(bucket, name, caller.subject, "storage.object.sign_upload_url", upsert, caller)
        # The headers are those of this request, not of the upload (measured).
        metadata = {
            "mimetype": request.headers.get("content-type"), "contentLength": request.content_length
        }  # fmt: skip
        user_metadata = base64_json(request.headers.get("x-metadata"))
        await self._uploads.check(request, upload, metadata, user_metadata)
        owner = {"owner": caller.subject} if caller.subject else {}
        token = sign(self._secret, upload.target.key, "upload", UPLOAD_SECONDS, **owner, upsert=upsert)
        url = f"{request.raw_path}?token={token}"
        await respond(send, request, 200, {"url": url, "token": token})

    async def upload_signed(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """PUT /object/upload/sign/{bucket}/{key}?token=: no policy is asked, and the token is looked at once, now."""
        claims = signed(request, self._secret, f"{bucket}/{name}", "upload")
        owner, upsert = claims.get("owner"), bool(claims.get("upsert"))
        upload = Upload(bucket, name, owner, "storage.object.upload_signed", upsert, SERVICE)
        await self._uploads.upload(request, upload)
        await respond(send, request, 200, {"Key": f"{bucket}/{name}"})

    async def move(self, request: Request, send: Send) -> None:
        """POST /object/move. Neither the types nor the limit of the target bucket are asked (measured)."""
        caller, source, bucket, name = await self._from_to(request)
        old = await self._visible(request, source, caller, "storage.object.move")
        target = Target(bucket, name, str(uuid.uuid4()))
        statement = "update objects set bucket_id = %s, name = %s, version = %s where bucket_id = %s and name = %s returning id"
        values = [target.bucket, target.name, target.version, source.bucket, source.name]
        await self._rename(request, caller, statement, values, keep=False)
        self._files.copy(target_of(old), target)
        try:
            await self._rename(request, SERVICE, statement, values, keep=True)
        except BaseException:
            self._files.remove(target)
            raise
        self._files.remove(target_of(old))
        await respond(send, request, 200, {"message": "Successfully moved"})

    async def _rename(
        self, request: Request, caller: Caller, statement: str, values: list[str], *, keep: bool
    ) -> None:
        async with self._database.transaction(
            request, caller, "storage.object.move", keep=keep, taken="ResourceAlreadyExists"
        ) as connection:
            if await (await connection.execute(statement, values)).fetchone() is None:
                raise no_such_key()

    async def copy(self, request: Request, send: Send) -> None:
        """POST /object/copy."""
        caller, source, bucket, name = await self._from_to(request)
        old = await self._visible(request, source, caller, "storage.object.copy")
        upsert = request.headers.get("x-upsert") == "true"
        upload = Upload(bucket, name, caller.subject, "storage.object.copy", upsert, caller)
        metadata = {
            "mimetype": old["metadata"]["mimetype"], "contentLength": old["metadata"]["contentLength"]
        }  # fmt: skip
        await self._uploads.check(request, upload, metadata, old["user_metadata"] or {})
        self._files.copy(target_of(old), upload.target)
        row = await self._uploads.finish(request, upload, old["metadata"], old["user_metadata"] or {})
        await respond(send, request, 200, {"Key": upload.target.key, "Id": row["id"], **_shown(row)})

    async def _from_to(self, request: Request) -> tuple[Caller, Target, str, str]:
        kinds = dict.fromkeys(("bucketId", "sourceKey", "destinationBucket", "destinationKey"), "string")
        body = await request.fields(kinds, ["bucketId", "sourceKey", "destinationKey"])
        caller = caller_of(request, self._secret)
        check_key(body["destinationKey"])
        target = body.get("destinationBucket") or body["bucketId"], body["destinationKey"]
        return caller, Target(body["bucketId"], body["sourceKey"], ""), *target

    async def _visible(
        self, request: Request, source: Target, caller: Caller, operation: str
    ) -> dict[str, Any]:
        async with self._database.transaction(request, caller, operation, keep=False) as connection:
            cursor = await connection.execute(
                "select * from objects where bucket_id = %s and name = %s", [source.bucket, source.name]
            )
            row = await cursor.fetchone()
        if row is None:
            raise no_such_key()
        return row

    async def delete(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """DELETE /object/{bucket}/{key}. One that may not delete hears whether the object exists (measured)."""
        await request.json()
        caller = caller_of(request, self._secret)
        async with self._database.transaction(
            request, SERVICE, "storage.object.delete", keep=False
        ) as connection:
            cursor = await connection.execute(
                "select from objects where bucket_id = %s and name = %s", [bucket, name]
            )
            if await cursor.fetchone() is None:
                raise no_such_key()
        if not await self._delete(request, caller, bucket, [name], "storage.object.delete"):
            raise access_denied("Access denied")
        await respond(send, request, 200, {"message": "Successfully deleted"})

    async def delete_many(self, request: Request, send: Send, bucket: str) -> None:
        """DELETE /object/{bucket}: whole keys. What is missing or not permitted is left out of the answer."""
        body = await request.fields({"prefixes": "array"}, ["prefixes"])
        if not body["prefixes"]:
            raise validation_error("/prefixes", "must NOT have fewer than 1 items")
        caller = caller_of(request, self._secret)
        rows = await self._delete(request, caller, bucket, body["prefixes"], "storage.object.delete_many")
        await respond(send, request, 200, [_shown(row) for row in rows])

    async def _delete(
        self, request: Request, caller: Caller, bucket: str, names: list[str], operation: str
    ) -> list[dict[str, Any]]:
        try:
            async with self._database.transaction(request, caller, operation) as connection:
                rows = await delete_rows(connection, bucket, names)
                # Before the commit, as the real server: if that fails, a row without bytes stays.
                for row in rows:
                    self._files.remove(target_of(row))
        except StorageError as error:
            if error.status == 404:  # what SQLSTATE 23503 means elsewhere
                text = "The resource is referenced by another resource"
                raise StorageError(409, "ResourceReferenced", text, "ResourceReferenced") from None
            raise
        return rows


async def delete_rows(
    connection: psycopg.AsyncConnection[dict[str, Any]], bucket: str, names: list[str]
) -> list[dict[str, Any]]:
    """Delete the rows that the role may delete, and return them."""
    cursor = await connection.execute(
        "delete from objects where bucket_id = %s and name = any (%s) returning *", [bucket, names]
    )
    return await cursor.fetchall()


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in _SHOWN}
    return {name: iso(value) if name.endswith("_at") else value for name, value in shown.items()}

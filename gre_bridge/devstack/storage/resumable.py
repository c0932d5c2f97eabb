"""Uploads in parts: TUS 1.0.0 at /upload/resumable, with the extensions creation, creation-with-upload and termination.

No row exists before the last part. The policies are asked at the creation and at each part, unless the upload is signed.
Errors have their true HTTP status and a plain text; only a bad token is refused as elsewhere.
"""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any, Final

from gre_bridge.devstack.faults import Send, answer
from gre_bridge.devstack.storage.access import caller_of, signed
from gre_bridge.devstack.storage.database import SERVICE, Caller
from gre_bridge.devstack.storage.errors import StorageError, no_such_bucket
from gre_bridge.devstack.storage.files import Files, Target
from gre_bridge.devstack.storage.request import Request, start
from gre_bridge.devstack.storage.uploads import (
    GLOBAL_LIMIT,
    Upload,
    Uploads,
    check_key,
    object_metadata,
    type_allowed,
)

VERSION: Final = ("tus-resumable", "1.0.0")
_PART: Final = "application/offset+octet-stream"


class TusError(Exception):
    """A refusal, with its HTTP status and its text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Resumable:
    """The handlers. `root` is the path of the collection: /upload/resumable, or that with /sign."""

    def __init__(self, *, files: Files, uploads: Uploads, secret: str) -> None:
        self._files = files
        self._uploads = uploads
        self._secret = secret
        self._busy: set[str] = set()

    async def serve(self, request: Request, send: Send, root: str, number: str | None) -> None:
        """Answer one request, refusals too. Raises StorageError for a bad token."""
        try:
            await self._serve(request, send, root, (number or "").strip("/"))
        except TusError as error:
            await answer(send, error.status, error.message, [VERSION])

    async def _serve(self, request: Request, send: Send, root: str, number: str) -> None:
        is_signed = root.endswith("/sign")
        caller = SERVICE if is_signed else caller_of(request, self._secret)
        if request.headers.get(VERSION[0]) != VERSION[1]:
            raise TusError(412, "Tus-Resumable Required")
        try:
            if request.method == "POST" and not number:
                await self._create(request, send, caller, root)
            elif request.method in ("HEAD", "PATCH", "DELETE") and number:
                target, note = self._known(number)
                if is_signed:
                    self._signed(request, target.key)
                if request.method == "HEAD":
                    await self._head(request, send, target, note)
                elif request.method == "PATCH":
                    await self._patch(request, send, caller, target, note)
                else:
                    self._terminate(target)
                    await start(send, request, 204, [VERSION])
                    await send({"type": "http.response.body", "body": b""})
            else:
                raise TusError(404, "Not found")
        except StorageError as error:
            raise TusError(error.status, error.message) from None

    def _signed(self, request: Request, key: str) -> dict[str, Any]:
        """Return the claims of the header's token."""
        return signed(request, self._secret, key, "upload", token=request.headers.get("x-signature", ""))

    def _known(self, number: str) -> tuple[Target, dict[str, Any]]:
        """The upload of a Location. Raises TusError."""
        try:
            key = base64.urlsafe_b64decode(number + "=" * (-len(number) % 4)).decode()
            bucket, _, rest = key.partition("/")
            name, _, version = rest.rpartition("/")
            target = Target(bucket, name, str(uuid.UUID(version)))
            note = self._files.note(target)
        except (ValueError, StorageError):
            note = None
        if note is None:
            raise TusError(404, "The file for this url was not found")
        return target, note

    async def _create(self, request: Request, send: Send, caller: Caller, root: str) -> None:
        metadata = _metadata(request.headers.get("upload-metadata", ""))
        bucket, name = metadata.get("bucketName", ""), metadata.get("objectName", "")
        if not bucket or not name:
            raise TusError(400, "Upload-Metadata must have bucketName and objectName")
        owner, upsert = caller.subject, request.headers.get("x-upsert") == "true"
        operation = "storage.tus.upload.create"
        if caller is SERVICE:
            claims = self._signed(request, f"{bucket}/{name}")
            owner, upsert = claims.get("owner"), bool(claims.get("upsert"))
            operation = "storage.tus.upload.create_signed"
        check_key(name)
        try:
            row = await self._uploads.bucket(request, bucket, operation)
        except StorageError:
            raise TusError(404, no_such_bucket().message) from None
        mime_type = metadata.get("contentType")
        if mime_type and not type_allowed(row["allowed_mime_types"], mime_type):
            raise TusError(415, f"mime type {mime_type} is not supported")
        limit = min(GLOBAL_LIMIT, row["file_size_limit"] or GLOBAL_LIMIT)
        length = _length(request)
        if length is None and request.headers.get("upload-defer-length") != "1":
            raise TusError(400, "Upload-Length or Upload-Defer-Length header required")
        if (length or 0) > limit:
            raise TusError(413, "Maximum size exceeded")
        upload = Upload(bucket, name, owner, operation, upsert, caller)
        note = {
            "length": length, "limit": limit, "owner": owner, "upsert": upsert, "metadata": metadata,
            "type": mime_type or "application/octet-stream",
            "header": request.headers.get("upload-metadata", ""),
        }  # fmt: skip
        await self._uploads.check(request, upload, _checked(note), _user_metadata(metadata))
        self._files.set_note(upload.target, note)
        self._files.append(upload.target, b"")
        number = base64.urlsafe_b64encode(f"{upload.target.key}/{upload.version}".encode()).rstrip(b"=")
        host = request.headers.get("host", "127.0.0.1")
        headers = [VERSION, ("location", f"http://{host}{request.root}{root}/{number.decode()}")]
        if request.content_type == _PART or length == 0:
            offset = await self._take(request, caller, upload.target, note)
            headers.append(("upload-offset", str(offset)))
        await start(send, request, 201, [*headers, ("content-length", "0")])
        await send({"type": "http.response.body", "body": b""})

    async def _head(self, request: Request, send: Send, target: Target, note: dict[str, Any]) -> None:
        """Any valid token will do (measured)."""
        length = note["length"]
        size = self._files.size(target)
        offset = length if size is None else size
        told = ("upload-defer-length", "1") if length is None else ("upload-length", str(length))
        headers = [
            VERSION, ("upload-offset", str(offset)), told, ("upload-metadata", note["header"]),
            ("cache-control", "no-store"), ("content-length", "0"),
        ]  # fmt: skip
        await start(send, request, 200, headers)
        await send({"type": "http.response.body", "body": b""})

    async def _patch(
        self, request: Request, send: Send, caller: Caller, target: Target, note: dict[str, Any]
    ) -> None:
        if request.content_type != _PART:
            raise TusError(415, f"Content-Type must be {_PART}")
        if note["length"] is None and (length := _length(request)) is not None:
            if length > note["limit"]:
                raise TusError(413, "Maximum size exceeded")
            note["length"] = length
            self._files.set_note(target, note)
        if request.headers.get("upload-offset") != str(self._files.size(target)):
            raise TusError(409, "Upload-Offset conflict")
        offset = await self._take(request, caller, target, note)
        done = [("tus-complete", "1")] if offset == note["length"] else []
        await start(send, request, 204, [VERSION, ("upload-offset", str(offset)), *done])
        await send({"type": "http.response.body", "body": b""})

    async def _take(self, request: Request, caller: Caller, target: Target, note: dict[str, Any]) -> int:
        """Add the request's body to the file, and write the row after the last part; return the new offset."""
        key = f"{target.key}/{target.version}"
        if key in self._busy:
            raise TusError(423, "The upload is locked")
        self._busy.add(key)
        try:
            operation = "storage.tus.upload.part" + ("_signed" if caller is SERVICE else "")
            upload = Upload(
                target.bucket, target.name, note["owner"], operation, note["upsert"], caller, target.version
            )
            user_metadata = _user_metadata(note["metadata"])
            if caller is not SERVICE:
                await self._uploads.check(request, upload, _checked(note), user_metadata)
            offset = self._files.size(target) or 0
            most = note["limit"] if note["length"] is None else note["length"]
            async for chunk in request.chunks():
                offset += len(chunk)
                if offset > most:
                    raise TusError(413, "Maximum size exceeded")
                self._files.append(target, chunk)
            if offset == note["length"]:
                await request.hold()
                cache = note["metadata"].get("cacheControl", "")
                metadata = object_metadata(
                    self._files.md5(target), offset, mime_type=note["type"],
                    cache_control=f"max-age={cache}" if cache.isdigit() else cache or "no-cache",
                )  # fmt: skip
                # The note stays, as the real server's does.
                try:
                    await self._uploads.finish(request, upload, metadata, user_metadata)
                except BaseException:
                    # The bytes are gone: there is nothing to resume.
                    self._files.set_note(target, None)
                    raise
            return offset
        finally:
            self._busy.discard(key)

    def _terminate(self, target: Target) -> None:
        self._files.set_note(target, None)
        self._files.remove(target)


def _length(request: Request) -> int | None:
    text = request.headers.get("upload-length", "")
    return int(text) if text.isdigit() and len(text) < 16 else None


def _metadata(header: str) -> dict[str, str]:
    """The pairs of Upload-Metadata. Raises TusError."""
    found = {}
    try:
        for pair in filter(None, header.split(",")):
            name, _, value = pair.strip().partition(" ")
            found[name] = base64.b64decode(value).decode()
    except ValueError:
        raise TusError(400, "Upload-Metadata is invalid") from None
    return found


def _user_metadata(metadata: dict[str, str]) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get("metadata", ""))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _checked(note: dict[str, Any]) -> dict[str, Any]:
    length = {} if note["length"] is None else {"contentLength": note["length"]}
    return {"mimetype": note["type"], **length}

"""Downloads, what is known of an object, signed URLs of downloads, and lists."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from gre_bridge.devstack.faults import Send
from gre_bridge.devstack.storage.access import caller_of, reader_of, sign, signed
from gre_bridge.devstack.storage.database import SERVICE, Caller, Database
from gre_bridge.devstack.storage.errors import (
    StorageError,
    no_such_bucket,
    no_such_key,
    validation_error,
)
from gre_bridge.devstack.storage.files import Files, pieces, target_of
from gre_bridge.devstack.storage.request import Request, respond, start
from gre_bridge.devstack.storage.times import http_date, iso

_SORTS: Final = {"name", "updated_at", "created_at", "last_accessed_at"}
_PATHS: Final = 1000
_NOT_VISIBLE: Final = "Either the object does not exist or you do not have access to it"
_UNQUOTED: Final = "-_.!~*'()"
"""What JavaScript's encodeURIComponent leaves as it is."""
_LIST: Final = """
with found as (
  select substr(o.name, length(%(prefix)s) + 1) as rest, o.* from objects o
  where o.bucket_id = %(bucket)s and starts_with(o.name, %(prefix)s)
    and lower(substr(o.name, length(%(prefix)s) + 1)) like %(search)s
), entry as (
  select distinct split_part(rest, '/', 1) as name, null::uuid as id, null::timestamptz as updated_at,
    null::timestamptz as created_at, null::timestamptz as last_accessed_at, null::jsonb as metadata, 0 as place
  from found where rest like '%%/%%'
  union all
  select rest, id, updated_at, created_at, last_accessed_at, metadata, 1 from found where rest not like '%%/%%'
)
select name, id, updated_at, created_at, last_accessed_at, metadata from entry
order by place, {column} {order}, name {order} limit %(limit)s offset %(offset)s
"""
_LIST_ALL: Final = """
with entry as (
  select distinct on (case when %(fold)s and strpos(rest, '/') > 0 then split_part(rest, '/', 1) || '/' else rest end collate "C")
    %(prefix)s || case when %(fold)s and strpos(rest, '/') > 0 then split_part(rest, '/', 1) || '/' else rest end as entry,
    %(fold)s and strpos(rest, '/') > 0 as folder, o.*
  from (select substr(name, length(%(prefix)s) + 1) as rest, * from objects
        where bucket_id = %(bucket)s and starts_with(name, %(prefix)s)) o
)
select * from entry where entry collate "C" > %(after)s order by entry collate "C" limit %(limit)s
"""


@dataclass(frozen=True, slots=True)
class _Access:
    """How a download came about: by a signed URL, or by a token whose answers may be cached."""

    caller: Caller
    operation: str
    expires: int | None = None
    by_url: bool = False


class Reads:
    """The handlers; each answers one request, or raises StorageError."""

    def __init__(self, *, database: Database, files: Files, secret: str) -> None:
        self._database = database
        self._files = files
        self._secret = secret

    async def download(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """GET and HEAD /object/{bucket}/{key}, the clients' route."""
        await self._download(request, send, bucket, name, reader_of(request, self._secret))

    async def download_authenticated(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """GET and HEAD /object/authenticated/{bucket}/{key}."""
        await self._download(request, send, bucket, name, caller_of(request, self._secret))

    async def _download(self, request: Request, send: Send, bucket: str, name: str, caller: Caller) -> None:
        access = _Access(caller, "storage.object.get_authenticated")
        await self._serve(request, send, await self._row(request, bucket, name, access), access)

    async def download_signed(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """GET and HEAD /object/sign/{bucket}/{key}?token=."""
        claims = signed(request, self._secret, f"{bucket}/{name}", "download")
        access = _Access(SERVICE, "storage.object.get_signed", claims.get("exp"), by_url=True)
        await self._serve(request, send, await self._row(request, bucket, name, access), access)

    async def info(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """GET /object/info/{bucket}/{key}."""
        access = _Access(reader_of(request, self._secret), "storage.object.get_authenticated_info")
        row = await self._row(request, bucket, name, access)
        metadata = row["metadata"] or {}
        await respond(send, request, 200, {
            "id": row["id"], "name": row["name"], "version": row["version"], "bucket_id": row["bucket_id"],
            "size": metadata.get("size"), "content_type": metadata.get("mimetype"),
            "cache_control": metadata.get("cacheControl"), "etag": metadata.get("eTag"),
            "metadata": row["user_metadata"], "last_modified": metadata.get("lastModified"),
            "created_at": iso(row["created_at"]),
        })  # fmt: skip

    async def _row(self, request: Request, bucket: str, name: str, access: _Access) -> dict[str, Any]:
        """The object's row, if the caller may see it. Raises StorageError."""
        async with self._database.transaction(request, SERVICE, access.operation, keep=False) as connection:
            known = await (await connection.execute("select from buckets where id = %s", [bucket])).fetchone()
        if known is None:
            raise no_such_bucket()
        return await self._visible(request, bucket, name, access)

    async def _visible(self, request: Request, bucket: str, name: str, access: _Access) -> dict[str, Any]:
        async with self._database.transaction(
            request, access.caller, access.operation, keep=False
        ) as connection:
            cursor = await connection.execute(
                "select * from objects where bucket_id = %s and name = %s", [bucket, name]
            )
            row = await cursor.fetchone()
        if row is None:
            raise no_such_key()
        return row

    async def _serve(self, request: Request, send: Send, row: dict[str, Any], access: _Access) -> None:
        metadata = row["metadata"] or {}
        size, etag = int(metadata.get("size") or 0), metadata.get("eTag") or ""
        mime_type = metadata.get("mimetype") or "application/octet-stream"
        headers = {
            # The one protection against uploaded pages, and only in lower case (measured).
            "content-type": "text/plain" if "text/html" in mime_type else mime_type,
            "accept-ranges": "bytes", "etag": etag, "x-robots-tag": "none",
            "last-modified": http_date(metadata.get("lastModified") or row["created_at"].isoformat()),
        }  # fmt: skip
        asked = request.headers.get("if-none-match")
        if not access.by_url:
            stale = ", stale-while-revalidate=30" if asked and asked != etag else ""
            headers["cache-control"] = f"{metadata.get('cacheControl') or 'no-cache'}{stale}"
        elif access.expires is not None:
            headers["expires"] = http_date(access.expires)
        if "download" in request.query:
            headers["content-disposition"] = _disposition(request.query["download"])
        if asked and asked == etag:
            return await self._send(send, request, 304, {**headers, "content-length": "0"})
        status, first, length = 200, 0, size
        if (wanted := request.headers.get("range")) and (span := _span(wanted, size)):
            status, first, length = 206, span[0], span[1] - span[0] + 1
            headers["content-range"] = f"bytes {span[0]}-{span[1]}/{size}"
        headers["content-length"] = str(length)
        if request.method == "HEAD":
            return await self._send(send, request, status, headers)
        with self._files.open(target_of(row)) as file:
            await start(send, request, status, headers.items())
            for piece in pieces(file, first, length):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        return await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, request: Request, status: int, headers: dict[str, str]) -> None:
        await start(send, request, status, headers.items())
        await send({"type": "http.response.body", "body": b""})

    async def sign(self, request: Request, send: Send, bucket: str, name: str) -> None:
        """POST /object/sign/{bucket}/{key}."""
        seconds = await self._expires_in(request, {"expiresIn": "integer"}, ["expiresIn"])
        access = _Access(caller_of(request, self._secret), "storage.object.sign")
        await self._visible(request, bucket, name, access)
        # The real server takes the path as it came: a key that the client escaped makes a dead URL (measured).
        url = request.without_reserved.removeprefix("/object/sign/")
        token = sign(self._secret, url, "download", seconds["expiresIn"])
        await respond(send, request, 200, {"signedURL": f"{request.raw_path}?token={token}"})

    async def sign_many(self, request: Request, send: Send, bucket: str) -> None:
        """POST /object/sign/{bucket}."""
        body = await self._expires_in(
            request, {"expiresIn": "integer", "paths": "array"}, ["expiresIn", "paths"]
        )
        caller, paths = caller_of(request, self._secret), body["paths"]
        async with self._database.transaction(
            request, caller, "storage.object.sign_many", keep=False
        ) as connection:
            cursor = await connection.execute(
                "select name from objects where bucket_id = %s and name = any (%s)", [bucket, paths]
            )
            visible = {row["name"] for row in await cursor.fetchall()}
        out = []
        for path in paths:
            url = None
            if path in visible:
                token = sign(self._secret, f"{bucket}/{path}", "download", body["expiresIn"])
                url = f"/object/sign/{bucket}/{quote(path, safe='/' + _UNQUOTED)}?token={token}"
            out.append({"error": None if url else _NOT_VISIBLE, "path": path, "signedURL": url})
        await respond(send, request, 200, out)

    async def _expires_in(
        self, request: Request, kinds: dict[str, str], required: list[str]
    ) -> dict[str, Any]:
        body = await request.fields(kinds, required)
        if body["expiresIn"] < 1:
            raise validation_error("/expiresIn", "must be >= 1")
        if "paths" in body and not 1 <= len(body["paths"]) <= _PATHS:
            bound = "fewer than 1" if not body["paths"] else f"more than {_PATHS}"
            raise validation_error("/paths", f"must NOT have {bound} items")
        return body

    async def list_folder(self, request: Request, send: Send, bucket: str) -> None:
        """POST /object/list/{bucket}: one folder, its folders first."""
        kinds = {
            "prefix": "string",
            "limit": "integer",
            "offset": "integer",
            "sortBy": "object",
            "search": "string",
        }
        body = await request.fields(kinds, ["prefix"])
        caller, by, prefix = caller_of(request, self._secret), body.get("sortBy", {}), body["prefix"]
        column, order = by.get("column") or "name", by.get("order") or "asc"
        if column not in _SORTS or order not in ("asc", "desc"):
            raise validation_error("/sortBy", "must be equal to one of the allowed values")
        search = re.sub(r"([\\%_])", r"\\\1", body.get("search", "").lower())
        values = {
            "bucket": bucket, "prefix": f"{prefix.strip('/')}/" if prefix.strip("/") else "",
            "search": f"{search}%", "limit": body.get("limit", 100), "offset": body.get("offset", 0),
        }  # fmt: skip
        async with self._database.transaction(
            request, caller, "storage.object.list", keep=False
        ) as connection:
            # Both are words from a list.
            statement = _LIST.format(column=column, order=order)
            rows = await (await connection.execute(statement, values)).fetchall()
        await respond(send, request, 200, [_times(row) for row in rows])

    async def list_v2(self, request: Request, send: Send, bucket: str) -> None:
        """POST /object/list-v2/{bucket}: names in order, with a cursor."""
        kinds = {"prefix": "string", "limit": "integer", "cursor": "string", "with_delimiter": "boolean"}
        body = await request.fields(kinds)
        caller, limit = caller_of(request, self._secret), max(1, min(body.get("limit", 1000), 1000))
        values = {
            "bucket": bucket, "prefix": body.get("prefix", ""), "fold": body.get("with_delimiter", False),
            "after": base64.b64decode(body.get("cursor", "")).decode("utf-8", "replace"), "limit": limit + 1,
        }  # fmt: skip
        async with self._database.transaction(
            request, caller, "storage.object.list", keep=False
        ) as connection:
            rows = await (await connection.execute(_LIST_ALL, values)).fetchall()
        more, rows = len(rows) > limit, rows[:limit]
        answer: dict[str, Any] = {"hasNext": more}
        if more:
            last = rows[-1]["entry"]
            answer |= {"nextCursor": base64.b64encode(last.encode()).decode(), "nextCursorKey": last}
        answer["folders"] = [{"name": row["entry"]} for row in rows if row["folder"]]
        names = ("name", "id", "updated_at", "created_at", "last_accessed_at", "metadata")
        files = [_times({name: row[name] for name in names}) for row in rows if not row["folder"]]
        await respond(send, request, 200, {**answer, "objects": files})


def _disposition(name: str) -> str:
    quoted = quote(name, safe=_UNQUOTED)
    return f"attachment; filename={quoted}; filename*=UTF-8''{quoted}" if name else "attachment;"


def _span(header: str, size: int) -> tuple[int, int] | None:
    """The first and the last byte of a Range header; None for one that is no single range. Raises StorageError."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not found or not (found[1] or found[2]):
        return None
    if found[1]:
        first, last = int(found[1]), min(int(found[2]) if found[2] else size - 1, size - 1)
    else:
        first, last = max(0, size - int(found[2])), size - 1
    if first > last:
        raise StorageError(416, "invalid_range", "invalid range provided", "InvalidRange", http=416)
    return first, last


def _times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: iso(value) if name.endswith("_at") else value for name, value in row.items()}

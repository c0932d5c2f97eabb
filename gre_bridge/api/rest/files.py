"""Files over REST: begin, look, give up, link. The bytes go between the client and Supabase Storage, never through the daemon.

The database decides who may do what; Storage is asked, with the service key, for signed addresses of what it allowed. They are
answered to who asked, and nothing else: not stored, not logged.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable
from typing import Annotated, TypeVar

import structlog
from fastapi import APIRouter, Path, Request, Response

from gre_bridge.api.auth import AUTHENTICATED, Authenticated
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.schemas.files import (
    AttachmentBegun,
    AttachmentDropped,
    AttachmentKnown,
    BeginAttachment,
    Links,
    LinksWanted,
)
from gre_bridge.api.schemas.requests import Uuid
from gre_bridge.api.schemas.responses import errors
from gre_bridge.api.times import iso_time
from gre_bridge.db.answers import Attachment
from gre_bridge.db.types import Json
from gre_bridge.errors import BridgeError, Refused
from gre_bridge.storage.bucket import BUCKET
from gre_bridge.storage.client import LINK_SECONDS, StorageClient, with_download
from gre_bridge.storage.errors import Exists

router = APIRouter(tags=["Files"], dependencies=AUTHENTICATED)
log = structlog.get_logger("gre.api")

T = TypeVar("T")

_PUBLIC = frozenset(Attachment.__annotations__)

AttachmentId = Annotated[Uuid, Path()]


def _public(found: Attachment) -> Json:
    """Return A alone: the database says more of a file than it gives to people."""
    return {key: value for key, value in found.items() if key in _PUBLIC}


def _storage(request: Request) -> StorageClient:
    storage: StorageClient | None = request.app.state.storage
    if storage is None:
        raise Refused(503, "files_off", "files are off: this daemon has no key for Storage")
    return storage


async def _asked(request: Request, answer: Awaitable[T]) -> T:
    """Await an answer of Storage, whose outage is a 503."""
    try:
        found = await answer
    except Exists:
        raise
    except BridgeError as error:
        log.warning(
            "storage_unavailable", kind=error.kind, code=error.code, request_id=request.state.request_id
        )
        request.app.state.storage_failed = True
        text = "the files' storage does not answer, try again in a moment"
        raise Refused(503, "storage_unavailable", text, retry_after=error.retry_after) from None
    request.app.state.storage_failed = False
    return found


@router.post(
    "/api/gre-chat/attachments",
    summary="Begin a file",
    status_code=201,
    response_model=AttachmentBegun,
    responses=errors(404, 409, 413),
)
async def begin(body: BeginAttachment, request: Request, call: Authenticated) -> Response:
    """Announce a file and get the address for its bytes. With an `id` of the client's own it is safe to send again, and gives a new address."""
    storage = _storage(request)
    attachment_id = body.id or str(uuid.uuid4())
    if (
        request.app.state.storage_failed
    ):  # a file that is begun in vain counts among the person's files of the day
        await _asked(request, storage.bucket(BUCKET))
    begun = await call(
        lambda users, caller: users.begin_attachment(
            caller,
            attachment_id=attachment_id,
            player_id=body.player_id,
            session_id=body.session_id,
            name=body.name,
            media_type=body.type,
            size=body.bytes,
            alt=body.alt,
        )
    )
    found: Attachment = begun
    upload: Json | None = None
    if begun["state"] == "awaited":
        try:
            link = await _asked(request, storage.sign_upload(BUCKET, begun["object"]))
        except Exists:  # the bytes have arrived meanwhile
            found = await call(lambda users, caller: users.attachment(caller, attachment_id))
        else:
            upload = {
                "url": link.url,
                "method": "PUT",
                "headers": {"content-type": begun["object_type"]},
                "expiresAt": iso_time(link.expires_at.timestamp() if link.expires_at else None),
            }
    return JsonResponse({"success": True, "attachment": _public(found), "upload": upload}, 201)


@router.get(
    "/api/gre-chat/attachments/{id}",
    summary="Look at a file",
    response_model=AttachmentKnown,
    responses=errors(404),
)
async def attachment(id: AttachmentId, call: Authenticated) -> Response:  # noqa: A002 - the path's name
    """A file that the caller began, or one in a conversation that the caller can read."""
    found = await call(lambda users, caller: users.attachment(caller, id))
    return JsonResponse({"success": True, "attachment": _public(found)})


@router.delete(
    "/api/gre-chat/attachments/{id}",
    summary="Give up a file",
    response_model=AttachmentDropped,
    responses=errors(404, 409, 413),
)
async def drop(id: AttachmentId, call: Authenticated) -> Response:  # noqa: A002 - the path's name
    """Delete a file that was not sent. A file that a message has stays (409 `attachment_used`)."""
    await call(lambda users, caller: users.drop_attachment(caller, id), repeat=False)
    return JsonResponse({"success": True})


@router.post(
    "/api/gre-chat/attachments/urls",
    summary="Get links of files",
    response_model=Links,
    responses=errors(413),
)
async def links(body: LinksWanted, request: Request, call: Authenticated) -> Response:
    """Return a link of five minutes for each file that the caller may fetch, and a code for each of the others."""
    storage = _storage(request)
    rows = (
        await call(lambda users, caller: users.object_names(caller, body.ids, body.variant))
        if body.ids
        else []
    )
    expires_at = iso_time(time.time() + LINK_SECONDS)
    signed = await _asked(request, storage.sign(BUCKET, [row["object"] for row in rows])) if rows else {}
    urls: Json = {wanted: {"code": "attachment_not_found"} for wanted in body.ids}
    for row in rows:
        if link := signed.get(row["object"]):
            url = with_download(link, row["name"]) if body.variant == "file" else link
            urls[row["id"]] = {"url": url, "expiresAt": expires_at}
        else:
            urls[row["id"]] = {"code": "attachment_gone"}
    return JsonResponse({"success": True, "urls": urls})

"""The endpoints of templates and auto-replies. Rules and placeholders are the database's."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from gre_bridge.api.auth import STAFF_PATHS, Authenticated
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.schemas.replies import (
    AutoReplies,
    AutoReplyRead,
    CreateAutoReply,
    CreateTemplate,
    Removed,
    Rendered,
    RenderTemplate,
    SaveAutoReply,
    SaveTemplate,
    TemplateRead,
    Templates,
)
from gre_bridge.api.schemas.requests import Input, Uuid
from gre_bridge.api.schemas.responses import errors
from gre_bridge.db.desk_answers import AutoReply, Template

router = APIRouter(tags=["Replies"], dependencies=STAFF_PATHS)

Id = Annotated[Uuid, Path()]


def _fields(body: Input) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude_unset=True)


def _template(template: Template, status: int = 200) -> Response:
    return JsonResponse({"success": True, "template": template}, status)


def _auto_reply(rule: AutoReply, status: int = 200) -> Response:
    return JsonResponse({"success": True, "auto_reply": rule}, status)


@router.get(
    "/api/gre-admin/templates", summary="List templates", response_model=Templates, responses=errors()
)
async def templates(call: Authenticated) -> Response:
    """Everybody's, and the caller's own."""
    found = await call(lambda users, caller: users.templates(caller))
    return JsonResponse({"success": True, "templates": found})


@router.post(
    "/api/gre-admin/templates",
    summary="Create a template",
    status_code=201,
    response_model=TemplateRead,
    responses=errors(409, 413),
)
async def create_template(body: CreateTemplate, call: Authenticated) -> Response:
    """Staff write their own, admins also everybody's. A placeholder that is not known is refused."""
    # Not retried: a second one would be created, or refused.
    found = await call(lambda users, caller: users.save_template(caller, _fields(body)), repeat=False)
    return _template(found, 201)


@router.post(
    "/api/gre-admin/templates/{id}/render",
    summary="Render a template for a session",
    response_model=Rendered,
    responses=errors(404, 413),
)
async def render_template(id: Id, body: RenderTemplate, call: Authenticated) -> Response:  # noqa: A002
    """Fill in what is known; the writer fills in the rest. Send the text with `templateId`."""
    found = await call(lambda users, caller: users.render_template(caller, id, body.session_id))
    return JsonResponse({"success": True, "text": found["text"], "missing": found["missing"]})


@router.get(
    "/api/gre-admin/templates/{id}",
    summary="Read a template",
    response_model=TemplateRead,
    responses=errors(404),
)
async def template(id: Id, call: Authenticated) -> Response:  # noqa: A002 - the name in the path
    """Everybody's, or the caller's own."""
    return _template(await call(lambda users, caller: users.template(caller, id)))


@router.put(
    "/api/gre-admin/templates/{id}",
    summary="Change a template",
    response_model=TemplateRead,
    responses=errors(404, 409, 413),
)
async def change_template(id: Id, body: SaveTemplate, call: Authenticated) -> Response:  # noqa: A002
    """Fields that are not given stay as they are."""
    return _template(
        await call(lambda users, caller: users.save_template(caller, _fields(body), template_id=id))
    )


@router.delete(
    "/api/gre-admin/templates/{id}",
    summary="Delete a template",
    response_model=Removed,
    responses=errors(404),
)
async def delete_template(id: Id, call: Authenticated) -> Response:  # noqa: A002
    """Messages that were sent from it stay."""
    # Not retried: the second answer would be 404.
    await call(lambda users, caller: users.delete_template(caller, id), repeat=False)
    return JsonResponse({"success": True})


@router.get(
    "/api/gre-admin/auto-replies", summary="List auto-replies", response_model=AutoReplies, responses=errors()
)
async def auto_replies(call: Authenticated) -> Response:
    """All rules, and what a new session's first message would get now."""
    found = await call(lambda users, caller: users.auto_replies(caller))
    return JsonResponse({"success": True, "auto_replies": found["auto_replies"], "now": found["now"]})


@router.post(
    "/api/gre-admin/auto-replies",
    summary="Create an auto-reply",
    status_code=201,
    response_model=AutoReplyRead,
    responses=errors(404, 409, 413),
)
async def create_auto_reply(body: CreateAutoReply, call: Authenticated) -> Response:
    """For admins. A placeholder that is not known is refused."""
    # Not retried: a second one would be created.
    found = await call(lambda users, caller: users.save_auto_reply(caller, _fields(body)), repeat=False)
    return _auto_reply(found, 201)


@router.get(
    "/api/gre-admin/auto-replies/{id}",
    summary="Read an auto-reply",
    response_model=AutoReplyRead,
    responses=errors(404),
)
async def auto_reply(id: Id, call: Authenticated) -> Response:  # noqa: A002
    """One rule."""
    return _auto_reply(await call(lambda users, caller: users.auto_reply(caller, id)))


@router.put(
    "/api/gre-admin/auto-replies/{id}",
    summary="Change an auto-reply",
    response_model=AutoReplyRead,
    responses=errors(404, 409, 413),
)
async def change_auto_reply(id: Id, body: SaveAutoReply, call: Authenticated) -> Response:  # noqa: A002
    """Fields that are not given stay as they are. For admins."""
    return _auto_reply(
        await call(lambda users, caller: users.save_auto_reply(caller, _fields(body), rule_id=id))
    )


@router.delete(
    "/api/gre-admin/auto-replies/{id}",
    summary="Delete an auto-reply",
    response_model=Removed,
    responses=errors(404),
)
async def delete_auto_reply(id: Id, call: Authenticated) -> Response:  # noqa: A002
    """Its messages stay, its timers have no effect. For admins."""
    # Not retried: the second answer would be 404.
    await call(lambda users, caller: users.delete_auto_reply(caller, id), repeat=False)
    return JsonResponse({"success": True})

"""Signs subscriptions to Pusher's private and presence channels, and sign-ins of users.

A player may subscribe to its own channels, staff to the staff's: the ones that the bridge sends to, and the presence channel
of the staff. Nothing else is signed; encrypted channels never are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pusher.authentication_client import AuthenticationClient  # type: ignore[import-untyped]
from pusher.util import socket_id_re  # type: ignore[import-untyped]

from gre_bridge.api.auth import AUTHENTICATED, Authenticated, AuthenticatedCall
from gre_bridge.api.middleware import JsonResponse
from gre_bridge.api.pusher_users import PusherUsers, user_id
from gre_bridge.api.schemas.responses import Error, PusherSignature, PusherUserSignature, errors
from gre_bridge.config.settings import Settings
from gre_bridge.db.callers import Identity
from gre_bridge.db.types import Json
from gre_bridge.errors import Refused

router = APIRouter(tags=["Pusher"], dependencies=AUTHENTICATED)

PRESENCE = "presence-staff-portal"
"""Shows which staff have the portal open; the bridge sends nothing to it."""
_FIELDS = {"socket_id": "socketId", "channel_name": "channelName"}
_BODY: Json = {
    "type": "object",
    "required": ["socket_id", "channel_name"],
    "properties": {
        "socket_id": {"type": "string", "pattern": r"^\d+\.\d+$", "example": "123.456"},
        "channel_name": {"type": "string", "example": "private-player-29"},
    },
}
_USER_BODY = {
    **_BODY,
    "required": ["socket_id"],
    "properties": {"socket_id": _BODY["properties"]["socket_id"]},
}


class Signer:
    """Signs with the app's secret."""

    def __init__(self, settings: Settings) -> None:
        """Take credentials and channels from the settings; without credentials the signer is not `enabled`."""
        self._client: Any = None
        if settings.pusher_app_id and settings.pusher_key and settings.pusher_secret:
            secret = settings.pusher_secret.get_secret_value()
            self._client = AuthenticationClient(
                settings.pusher_app_id, settings.pusher_key, secret, backend=lambda _: None
            )
        named = {PRESENCE, *(name for names in settings.pusher_channels.values() for name in names)}
        private = {name for name in named if name.startswith(("private-", "presence-"))}
        private = {name for name in private if not name.startswith("private-encrypted-")}
        self._players = {name for name in private if "{player_id}" in name}
        self._staff = private - self._players

    @property
    def enabled(self) -> bool:
        """True if Pusher's credentials are set."""
        return self._client is not None

    def may_subscribe(self, identity: Identity, channel: str) -> bool:
        """Return True if this person may subscribe to the channel."""
        if identity.role == "player":
            return channel in {name.format(player_id=identity.player_id) for name in self._players}
        return identity.is_staff and channel in self._staff

    def sign(self, identity: Identity, socket_id: str, channel: str) -> dict[str, str]:
        """Sign a subscription; a presence channel gets the person's id, name and role."""
        member = None
        if channel.startswith("presence-"):
            member_id = f"player_{identity.player_id}" if identity.role == "player" else identity.staff_id
            member = {
                "user_id": member_id,
                "user_info": {"name": identity.display_name, "role": identity.role},
            }
        signed: dict[str, str] = self._client.authenticate(channel, socket_id, member)
        return signed

    def sign_in(self, identity: Identity, socket_id: str) -> dict[str, str]:
        """Sign that this connection belongs to this person."""
        user = {"id": user_id(identity), "user_info": {"name": identity.display_name, "role": identity.role}}
        signed: dict[str, str] = self._client.authenticate_user(socket_id, user)
        return signed


async def _form(request: Request) -> tuple[str, str]:
    """Read socket_id and channel_name, from a form as pusher-js sends it or from JSON; blank where missing."""
    body = await request.body()
    given: Any = None
    try:
        if "json" in request.headers.get("content-type", "").lower():
            given = orjson.loads(body)
        else:
            given = dict(parse_qsl(body.decode(), max_num_fields=20))
    except ValueError:
        pass
    if not isinstance(given, dict):
        return "", ""
    socket_id, channel = (given.get(name, given.get(other, "")) for name, other in _FIELDS.items())
    return (socket_id, channel) if isinstance(socket_id, str) and isinstance(channel, str) else ("", "")


def _form_or_json(schema: Json) -> Json:
    """Describe a body that may be a form or JSON."""
    content = {kind: {"schema": schema} for kind in ("application/x-www-form-urlencoded", "application/json")}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/api/pusher/auth",
    summary="Sign a subscription",
    response_model=PusherSignature,
    response_model_exclude_none=True,
    responses={
        **errors(413),
        403: {"model": Error, "description": "Not this person's channel, or the player's chat is off"},
    },
    openapi_extra=_form_or_json(_BODY),
)
async def authorize(
    call: Authenticated, request: Request, form: Annotated[tuple[str, str], Depends(_form)]
) -> Response:
    """What pusher-js calls for a private or presence channel: point its `channelAuthorization.endpoint` here."""
    signer, identity = await _admitted(call, request)
    socket_id, channel = form
    if not _is_socket(socket_id) or not signer.may_subscribe(identity, channel):
        raise Refused(403, "channel_refused", "this channel is not the caller's to hear")
    _remember(request, identity)
    return JsonResponse(signer.sign(identity, socket_id, channel))


@router.post(
    "/api/pusher/user-auth",
    summary="Sign a user in at Pusher",
    response_model=PusherUserSignature,
    responses={
        **errors(413),
        403: {"model": Error, "description": "No connection, or the player's chat is off"},
    },
    openapi_extra=_form_or_json(_USER_BODY),
)
async def sign_in(
    call: Authenticated, request: Request, form: Annotated[tuple[str, str], Depends(_form)]
) -> Response:
    """What pusher-js calls for `signin()`: point its `userAuthentication.endpoint` here. Who signs in can be ended."""
    signer, identity = await _admitted(call, request)
    if not _is_socket(form[0]):
        raise Refused(403, "socket_refused", "socket_id is not one of Pusher's")
    _remember(request, identity)
    return JsonResponse(signer.sign_in(identity, form[0]))


async def _admitted(call: AuthenticatedCall, request: Request) -> tuple[Signer, Identity]:
    """Return the signer and the caller's identity. Raises Refused if nothing may be signed for the caller."""
    signer: Signer = request.app.state.signer
    if not signer.enabled:
        text = "Pusher is off: PUSHER_APP_ID is not set"
        raise Refused(503, "pusher_off", text, retry_after=60)
    identity = await call(lambda users, caller: users.whoami(caller))
    if not identity.chat_enabled:
        raise Refused(403, "chat_disabled", "chat is disabled for this player")
    if identity.role not in ("player", "staff", "admin"):
        raise Refused(403, "channel_refused", "this is neither a player nor active staff")
    return signer, identity


def _is_socket(socket_id: str) -> bool:
    return bool(socket_id_re.match(socket_id)) and len(socket_id) <= 64


def _remember(request: Request, identity: Identity) -> None:
    users: PusherUsers | None = request.app.state.pusher_users
    if users is not None:
        users.remember(replace(identity, expires_at=None, display_name=None))

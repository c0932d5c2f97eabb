"""The first frame of a client: checks its token and its claims about itself, and builds the answer."""

from __future__ import annotations

from dataclasses import replace

from starlette.websockets import WebSocket

from gre_bridge.api.auth import Authenticator, caller_of
from gre_bridge.api.times import iso_time
from gre_bridge.api.ws.frames import Authenticate
from gre_bridge.api.ws.transport import CloseConnection
from gre_bridge.config.keys import read_key
from gre_bridge.db.answers import CatchUp, Session
from gre_bridge.db.callers import Identity
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.types import Json
from gre_bridge.errors import Refused, TransientError

_STAFF = {"staff", "admin"}
_ROLES = {"player": {"player"}, "gre_staff": _STAFF, "gre": _STAFF, "staff": _STAFF, "admin": {"admin"}}


def presented(websocket: WebSocket, request: Authenticate) -> Caller:
    """Return the caller whose token is in this frame, or else in the upgrade request. Raises CloseConnection."""
    try:
        # X-GRE-Act-As comes from the portals' own back end and does not apply to a token that the page sent.
        caller = Caller(request.token) if request.token else caller_of(websocket)
    except Refused as error:
        raise CloseConnection(4401, str(error), error.code) from None
    if caller is None:
        raise CloseConnection(4401, "a token is required", "not_authenticated")
    return caller


def claimed_player(caller: Caller) -> int | None:
    """Return the player that a user's token names, None if it names none. Nothing has verified the token."""
    claims = read_key(caller.token).claims
    match claims:
        case {
            "role": "authenticated",
            "app_metadata": {"gre_role": "player", "player_id": int() | str() as value},
        }:
            text = str(value)
            return int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else None
    return None


async def identify(
    websocket: WebSocket,
    request: Authenticate,
    caller: Caller,
    authenticator: Authenticator,
    *,
    catch_up: bool,
) -> tuple[Identity, CatchUp | None]:
    """Return the person of the token and, if that is wanted, what it has missed. Raises CloseConnection."""
    address = websocket.client.host if websocket.client else None
    found: CatchUp | None = None
    try:
        if catch_up:
            identity, found = await authenticator.enter(address, caller, request.since)
        else:
            identity = await authenticator.whoami(address, caller)
    except Refused as error:
        raise CloseConnection(4429 if error.status == 429 else 4401, str(error), error.code) from None
    except TransientError:
        raise CloseConnection(1013, "try again in a moment", "unavailable") from None
    if identity.role not in ("player", "staff", "admin"):
        authenticator.record_failure(address, caller.token)
        raise CloseConnection(4401, "this token is neither a player's nor active staff's", "no_identity")
    if not agrees(request, identity):
        raise CloseConnection(4401, "the token does not carry that role and id", "identity_mismatch")
    if not identity.chat_enabled:
        raise CloseConnection(4403, "chat is disabled for this player", "chat_disabled")
    if is_service_key(caller):
        # The expiry is the key's, not the person's: the connection verifies the key periodically instead.
        identity = replace(identity, expires_at=None)
    return identity, found


def is_service_key(caller: Caller) -> bool:
    """Return True if the portals' back end speaks for somebody. The database must have verified the token."""
    return read_key(caller.token).role == "service_role"


def agrees(request: Authenticate, identity: Identity) -> bool:
    """Return True if the token carries the role and ids that the client claims."""
    return (
        (request.role is None or identity.role in _ROLES[request.role])
        and (request.player_id is None or request.player_id == identity.player_id)
        and (request.staff_id is None or request.staff_id == identity.staff_id)
    )


def authenticated_frame(identity: Identity, sessions: list[Session], staff_online: int) -> Json:
    """Return the body of the `authenticated` frame."""
    own: Json = (
        {"playerId": identity.player_id} if identity.role == "player" else {"staffId": identity.staff_id}
    )
    return {
        "success": True, "role": identity.role, **own, "expiresAt": iso_time(identity.expires_at),
        "sessions": sessions, "staffOnline": staff_online,
    }  # fmt: skip

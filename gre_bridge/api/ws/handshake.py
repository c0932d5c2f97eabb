"""The first frame of a client: verifies its token and its claims about itself, and builds the answer."""

from __future__ import annotations

from dataclasses import replace

from starlette.websockets import WebSocket

from gre_bridge.api.auth import Authenticator, caller_of
from gre_bridge.api.times import iso_time
from gre_bridge.api.ws.frames import Authenticate
from gre_bridge.api.ws.transport import CloseConnection
from gre_bridge.config.keys import read_key
from gre_bridge.db.answers import Session
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.types import Json
from gre_bridge.db.users import Identity, UserDatabase
from gre_bridge.errors import Refused, TransientError

_ROLES = {
    "player": {"player"}, "gre_staff": {"staff", "admin"}, "gre": {"staff", "admin"},
    "staff": {"staff", "admin"}, "admin": {"admin"},
}  # fmt: skip


async def identify(
    websocket: WebSocket, asked: Authenticate, portal: UserDatabase, access: Authenticator
) -> tuple[Caller, Identity]:
    """Who is behind the token of this frame, or else of the upgrade request. Raises Closing."""
    address = websocket.client.host if websocket.client else None
    try:
        # X-GRE-Act-As is the portals' own back end's word, and goes with no token that the page gave.
        caller = Caller(asked.token) if asked.token else caller_of(websocket)
        if caller is None:
            raise CloseConnection(4401, "a token is required", "not_authenticated")
        found = await access.ask(address, caller.token, lambda: portal.whoami(caller))
    except Refused as error:
        raise CloseConnection(4429 if error.status == 429 else 4401, str(error), error.code) from None
    except TransientError:
        raise CloseConnection(1013, "try again in a moment", "unavailable") from None
    if found.role not in ("player", "staff", "admin"):
        access.failed(address, caller.token)
        raise CloseConnection(4401, "this token is neither a player's nor active staff's", "no_identity")
    if not agrees(asked, found):
        raise CloseConnection(4401, "the token does not carry that role and id", "identity_mismatch")
    if not found.chat_enabled:
        raise CloseConnection(4403, "chat is disabled for this player", "chat_disabled")
    if by_service_key(caller):
        # Its end is the key's, not the person's: the socket asks again instead.
        found = replace(found, expires_at=None)
    return caller, found


def by_service_key(caller: Caller) -> bool:
    """Whether the portals' back end speaks for somebody; the database must have verified the token."""
    return read_key(caller.token).role == "service_role"


def agrees(asked: Authenticate, found: Identity) -> bool:
    """Whether the token carries the role and ids that the client claims."""
    return (
        (asked.role is None or found.role in _ROLES[asked.role])
        and (asked.player_id is None or asked.player_id == found.player_id)
        and (asked.staff_id is None or asked.staff_id == found.staff_id)
    )


def welcome(who: Identity, sessions: list[Session], staff_online: int) -> Json:
    """What `authenticated` says."""
    own: Json = {"playerId": who.player_id} if who.role == "player" else {"staffId": who.staff_id}
    return {
        "success": True, "role": who.role, **own, "expiresAt": iso_time(who.expires_at),
        "sessions": sessions, "staffOnline": staff_online,
    }  # fmt: skip

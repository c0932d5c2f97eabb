"""The caller of one connection, its identity, and the end of its token.

A connection outlives its token: it is muted when the token expires, and closed if the client sends no new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.websockets import WebSocket

from gre_bridge.api.auth import Authenticator
from gre_bridge.api.ws.frames import Authenticate
from gre_bridge.api.ws.handshake import identify, is_service_key, presented
from gre_bridge.api.ws.subscriber import SocketSubscriber
from gre_bridge.api.ws.transport import ClientTransport, CloseConnection
from gre_bridge.db.answers import CatchUp
from gre_bridge.db.callers import Identity
from gre_bridge.db.postgrest import Caller
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import Refused, TransientError

VERIFY_INTERVAL = 300.0
"""Seconds after which a connection by the service key verifies that the key still speaks for its person."""
RENEW_TIMEOUT = 10.0
"""Seconds after a token's end in which a new one is accepted."""


class Credentials:
    """The token of one connection. `run`, once authenticated, until cancelled."""

    def __init__(
        self,
        websocket: WebSocket,
        *,
        users: UserDatabase,
        authenticator: Authenticator,
        subscriber: SocketSubscriber,
        transport: ClientTransport,
    ) -> None:
        """`subscriber` gets the identity, and is muted while the token has expired."""
        self._websocket = websocket
        self._users = users
        self._authenticator = authenticator
        self._subscriber = subscriber
        self._transport = transport
        self._caller: Caller | None = None
        self._renewed = asyncio.Event()

    @property
    def caller(self) -> Caller:
        """Who calls the database; only after `present`."""
        assert self._caller is not None
        return self._caller

    @property
    def identity(self) -> Identity:
        """The person; role `none` before `authenticate`."""
        return self._subscriber.identity

    def present(self, request: Authenticate) -> Caller:
        """Take the first token, unverified. Raises CloseConnection."""
        self._caller = presented(self._websocket, request)
        return self._caller

    async def authenticate(self, request: Authenticate, *, catch_up: bool) -> CatchUp | None:
        """Have it verified; with `catch_up` return what the person has missed, from the same call. Raises CloseConnection."""
        self._subscriber.identity, found = await identify(
            self._websocket, request, self.caller, self._authenticator, catch_up=catch_up
        )
        return found

    async def renew(self, request: Authenticate) -> None:
        """Take a new token of the same person. Raises CloseConnection."""
        old = self.identity
        caller = presented(self._websocket, request)
        identity, _ = await identify(self._websocket, request, caller, self._authenticator, catch_up=False)
        if (identity.role, identity.player_id, identity.staff_id) != (old.role, old.player_id, old.staff_id):
            raise CloseConnection(4401, "the new token is another person's", "identity_mismatch")
        self._caller, self._subscriber.identity = caller, identity
        self._renewed.set()

    async def run(self) -> None:
        """Mute the connection when its token expires. Raises CloseConnection if no new one comes."""
        if is_service_key(self.caller):
            await self._verify_service_key()
        while True:
            expires_at = self.identity.expires_at
            if await self._wait_renewed(None if expires_at is None else max(0.0, expires_at - time.time())):
                continue
            self._transport.send_error("token_expired", "the token has expired, authenticate again")
            self._subscriber.mute()
            if not await self._wait_renewed(RENEW_TIMEOUT):
                raise CloseConnection(4401, "the token has expired", "token_expired")

    async def _verify_service_key(self) -> None:
        """Verify the key and its person periodically, until a user's token replaces it: keys do not expire but can be revoked."""
        while not await self._wait_renewed(VERIFY_INTERVAL):
            with contextlib.suppress(TransientError):
                try:
                    identity = await self._users.whoami(self.caller)
                except Refused as error:
                    if error.status == 401:
                        raise CloseConnection(4401, str(error), error.code) from None
                    continue
                if identity.claim != self.identity.claim:
                    raise CloseConnection(4403, "no longer active", "no_identity")

    async def _wait_renewed(self, seconds: float | None) -> bool:
        """Wait for a new token, at most so long; return True if it came."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._renewed.wait(), seconds)
        renewed = self._renewed.is_set()
        self._renewed.clear()
        return renewed

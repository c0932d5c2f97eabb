"""The endpoint of `/ws`: checks the origin and the number of connections, then hands over to a ClientSession.

A refusal here is an HTTP answer, before the upgrade: no connection is accepted that could not be served.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gre_bridge.api.addresses import TrustedProxies, network
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.middleware import problem
from gre_bridge.api.origins import Origins
from gre_bridge.api.pacing import PersonBudgets
from gre_bridge.api.server.connections import ConnectionLimiter, allot
from gre_bridge.api.ws.hub import Hub
from gre_bridge.api.ws.line import Line, Turn
from gre_bridge.api.ws.session import ClientSession
from gre_bridge.config.settings import Settings
from gre_bridge.db.callers import Identity
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import Refused
from gre_bridge.metrics import Metrics

MAX_PENDING = 1000
MAX_PENDING_PER_VISITOR, MAX_PENDING_PER_VISITOR_IN_A_CROWD = 250, 25
MAX_PENDING_AFTER_FAILURES = 10
"""Connections that have sent no token yet: in all, from one visitor, from one visitor while half of MAX_PENDING is used.
The last one counts those whose token is being checked, too: from one visitor with too many failed authentications."""
HANDSHAKES, HANDSHAKE_LASTS = 200, 0.5
"""Handshakes that are answered at a time, and the seconds for which one counts if no token follows."""
HANDSHAKE_WITHIN = 30.0
ENTRIES, ENTRY_WITHIN = 16, 60.0
"""Tokens that are checked, with what their people have missed, at a time; the seconds for which a connection waits for its turn."""


class WebSocketEndpoint:
    """Admits connections and counts them."""

    def __init__(
        self,
        *,
        hub: Hub,
        users: UserDatabase,
        metrics: Metrics,
        settings: Settings,
        authenticator: Authenticator,
    ) -> None:
        """`authenticator` is the REST API's too, so that failures are counted together."""
        self._hub = hub
        self._users = users
        self._metrics = metrics
        self._authenticator = authenticator
        self._origins = Origins(settings.cors_origins)
        self._max_connections = allot(settings).sockets
        self._max_per_person = settings.sockets_per_person
        self._pending = ConnectionLimiter(most=MAX_PENDING, trusted=TrustedProxies(()))
        """Connections that have sent no token. A client does so within a moment: the oldest are the least likely to."""
        self._checked = ConnectionLimiter(most=self._max_connections, trusted=TrustedProxies(()))
        """Connections whose token is being checked, or waits for that."""
        self._handshakes, self._entries = Line(HANDSHAKES), Line(ENTRIES)
        self._waiting = 0
        """Connections whose handshake waits for its turn."""
        self._arrivals: dict[ClientSession, tuple[str, Turn]] = {}
        """The address of each connection, and the turn of its handshake."""
        self._budgets = PersonBudgets()

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection until it closes."""
        host = websocket.client.host if websocket.client else ""
        try:
            self._check(websocket, host)
            handshake = await self._take_turn(host)
        except Refused as error:
            self._metrics.socket_closes.labels(f"http_{error.status}").inc()
            await websocket.send_denial_response(
                problem(websocket.scope, error.status, error.code, str(error), retry_after=error.retry_after)
            )
            return
        session = ClientSession(
            websocket,
            endpoint=self,
            hub=self._hub,
            users=self._users,
            authenticator=self._authenticator,
            metrics=self._metrics,
        )
        crowded = len(self._pending) >= MAX_PENDING // 2
        most_of_one = MAX_PENDING_PER_VISITOR_IN_A_CROWD if crowded else MAX_PENDING_PER_VISITOR
        self._pending.admit(session, host, most_of_one)
        self._arrivals[session] = (host, handshake)
        # The turn of one that sends no token ends by the clock alone: if it hangs up or makes room, no other comes in sooner.
        # So at most HANDSHAKES / HANDSHAKE_LASTS a second have to be closed.
        asyncio.get_running_loop().call_later(HANDSHAKE_LASTS, handshake.end)
        try:
            with contextlib.suppress(WebSocketDisconnect):  # while it waited for its turn
                await websocket.accept()
                await session.run()
        finally:
            self.remove_pending(session)
            del self._arrivals[session]

    async def _take_turn(self, host: str) -> Turn:
        """Wait until this handshake may be answered. Raises Refused."""
        self._waiting += 1
        try:
            return await self._handshakes.take(network(host), HANDSHAKE_WITHIN)
        except TimeoutError:
            text = "too many connect at once"
            raise Refused(503, "too_many_connections", text, retry_after=10) from None
        finally:
            self._waiting -= 1

    @contextlib.asynccontextmanager
    async def entering(self, session: ClientSession) -> AsyncIterator[None]:
        """Wait until the token that this connection has sent may be checked. Raises TimeoutError."""
        host, handshake = self._arrivals[session]
        handshake.end()
        self._pending.release(session)
        self._checked.admit(session, host, self._max_connections)
        turn = await self._entries.take(network(host), ENTRY_WITHIN)
        try:
            yield
        finally:
            turn.end()

    def _check(self, websocket: WebSocket, host: str) -> None:
        """Raise Refused if this connection cannot be admitted."""
        origin = websocket.headers.get("origin")
        if origin and not self._origin_allowed(origin, websocket.headers.get("host", "")):
            self._origins.log_refused(origin)
            raise Refused(403, "origin_refused", "pages of this origin may not connect")
        # A few connections may still present a known token: behind a proxy, one address is many people.
        wait = self._authenticator.retry_after(host)
        if (
            wait > 0
            and self._pending.count_of(host) + self._checked.count_of(host) >= MAX_PENDING_AFTER_FAILURES
        ):
            raise Refused(429, "too_many_failures", "too many failed authentications", retry_after=wait)
        known = len(self._hub.registry) + len(self._pending) + len(self._checked) + self._waiting
        if known >= self._max_connections and not (
            self._checked.drop_for(host, MAX_PENDING_PER_VISITOR) or self._handshakes.make_room(network(host))
        ):
            raise Refused(503, "too_many_connections", "this instance is full", retry_after=10)

    def _origin_allowed(self, origin: str, host: str) -> bool:
        return self._origins.allows(origin) or self._origins.is_same_host(origin, host)

    def admits(self, identity: Identity) -> bool:
        """Return True if this person may have one more connection."""
        return self._hub.registry.count_of(identity) < self._max_per_person

    def spend(self, identity: Identity) -> float:
        """Count one frame of this person; return the seconds to wait if it exceeds the budget, else 0."""
        return self._budgets.spend((identity.player_id, identity.staff_id))

    def remove_pending(self, session: ClientSession) -> None:
        """Note that a connection has authenticated or ended."""
        self._pending.release(session)
        self._checked.release(session)


class Sockets:
    """The middleware that serves `/ws`, before what is there for HTTP alone: each layer would cost each socket its memory."""

    def __init__(self, app: ASGIApp, endpoint: WebSocketEndpoint) -> None:
        """Wrap `app`."""
        self._app = app
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket until it closes."""
        if scope["type"] == "websocket" and scope["path"] == "/ws":
            await self._endpoint.serve(WebSocket(scope, receive, send))
        else:
            await self._app(scope, receive, send)

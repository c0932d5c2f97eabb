"""The door of `/ws`: whose pages may come, how many may wait, how many a person may hold. Then a Socket takes over.

Nothing is accepted that could not be served: a refusal here is an HTTP answer, before the upgrade.
"""

from __future__ import annotations

from starlette.websockets import WebSocket

from gre_bridge.api.addresses import network
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.middleware import problem
from gre_bridge.api.origins import Origins
from gre_bridge.api.pacing import PersonBudgets
from gre_bridge.api.server.connections import allot
from gre_bridge.api.ws.hub import Hub
from gre_bridge.api.ws.session import ClientSession
from gre_bridge.config.settings import Settings
from gre_bridge.db.users import Identity, UserDatabase
from gre_bridge.metrics import Metrics

WAITING = 1000
WAITING_OF_ONE = 250
WAITING_OF_ONE_IN_A_CROWD = 25
WAITING_OF_BAD = 10
"""Connections that have not authenticated yet: in all, from one visitor, from one when half of all places are
taken, from one with too many failures."""


class WebSocketEndpoint:
    """Admits connections and counts them."""

    def __init__(
        self, *, hub: Hub, portal: UserDatabase, metrics: Metrics, settings: Settings, access: Authenticator
    ) -> None:
        """`access` is the REST API's too: failures by either way count together."""
        self._hub = hub
        self._portal = portal
        self._metrics = metrics
        self._access = access
        self._origins = Origins(settings.cors_origins)
        self._max = allot(settings).sockets
        self._per_person = settings.sockets_per_person
        self._waiting: dict[str, dict[WebSocket, ClientSession]] = {}
        """Those that have not authenticated, by visitor, the longest waiting first."""
        self._count = 0
        self._budgets = PersonBudgets()

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection to its end (the endpoint of `/ws`)."""
        visitor = _visitor(websocket)
        status, code, text, wait = self._judge(websocket, visitor)
        if status:
            self._metrics.socket_closes.labels(f"http_{status}").inc()
            await websocket.send_denial_response(
                problem(websocket.scope, status, code, text, retry_after=wait or None)
            )
            return
        socket = ClientSession(
            websocket,
            door=self,
            hub=self._hub,
            portal=self._portal,
            access=self._access,
            metrics=self._metrics,
        )
        self._waiting.setdefault(visitor, {})[websocket] = socket
        self._count += 1
        try:
            await websocket.accept()
            await socket.run()
        finally:
            self.entered(websocket)

    def _judge(self, websocket: WebSocket, visitor: str) -> tuple[int, str, str, float]:
        """Why this connection is refused: status, code, text, seconds to wait; status 0 when it is not."""
        origin = websocket.headers.get("origin")
        if origin and not self._may_come(origin, websocket.headers.get("host", "")):
            self._origins.refused(origin)
            return 403, "origin_refused", "pages of this origin may not connect", 0
        # (A few may still come in and show a token that is known: behind a proxy, one address is many people.)
        own = len(self._waiting.get(visitor, ()))
        wait = self._access.wait(visitor)
        if wait > 0 and own >= WAITING_OF_BAD:
            return 429, "too_many_failures", "too many failed authentications", wait
        if len(self._hub.audience) + self._count >= self._max:
            return 503, "too_many_connections", "this instance is full", 10
        self._make_room(visitor, own)
        return 0, "", "", 0

    def _make_room(self, visitor: str, own: int) -> None:
        """Close the connection that has waited longest where too many wait, of the visitor that has most of them.

        A client authenticates within a moment; those that have waited longest are those that never will.
        """
        share = WAITING_OF_ONE if self._count < WAITING // 2 else WAITING_OF_ONE_IN_A_CROWD
        if own >= share:
            self._drop_one_of(visitor)
        elif self._count >= WAITING:
            self._drop_one_of(max(self._waiting, key=lambda one: len(self._waiting[one])))

    def _drop_one_of(self, visitor: str) -> None:
        websocket, socket = next(iter(self._waiting[visitor].items()))
        self.entered(websocket)
        socket.give_way()

    def _may_come(self, origin: str, host: str) -> bool:
        return self._origins.allows(origin) or self._origins.same(origin, host)

    def admit(self, identity: Identity) -> bool:
        """Whether this person may have one more socket here."""
        return self._hub.audience.of(identity) < self._per_person

    def spend(self, identity: Identity) -> float:
        """Count a frame of this person; seconds to wait when it is one too many, else 0."""
        return self._budgets.spend((identity.player_id, identity.staff_id))

    def entered(self, websocket: WebSocket) -> None:
        """Note that a connection waits no longer: it has authenticated, or it has ended."""
        visitor = _visitor(websocket)
        waiting = self._waiting.get(visitor, {})
        if waiting.pop(websocket, None) is not None:
            self._count -= 1
            if not waiting:
                del self._waiting[visitor]


def _visitor(websocket: WebSocket) -> str:
    return network(websocket.client.host if websocket.client else "")

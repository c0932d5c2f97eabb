"""The door of `/ws`: whose pages may come, how many may wait, how many a person may hold. Then a Socket takes over.

Nothing is accepted that could not be served: a refusal here is an HTTP answer, before the upgrade.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import structlog
from starlette.websockets import WebSocket

from gre_bridge.api.access import Access
from gre_bridge.api.envelope import problem
from gre_bridge.api.hub import Hub
from gre_bridge.api.pacing import PersonBudgets
from gre_bridge.api.socket import Socket
from gre_bridge.portal import Identity, Portal
from gre_bridge.settings import Settings
from gre_bridge.telemetry import Metrics

log = structlog.get_logger("gre.socket")

WAITING = 1000
WAITING_OF_ONE = 250
WAITING_OF_BAD = 10
"""Connections that have not authenticated yet: in all, from one address, from one with too many failures."""


class Door:
    """Admits connections and counts them."""

    def __init__(
        self, *, hub: Hub, portal: Portal, metrics: Metrics, settings: Settings, access: Access
    ) -> None:
        """`access` is the REST API's too: failures by either way count together."""
        self._hub = hub
        self._portal = portal
        self._metrics = metrics
        self._access = access
        self._origins = set(settings.cors_origins)
        self._max = settings.max_sockets
        self._per_person = settings.sockets_per_person
        self._waiting: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._budgets = PersonBudgets()

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection to its end (the endpoint of `/ws`)."""
        address = _address(websocket)
        status, code, text, wait = self._judge(websocket, address)
        if status:
            self._metrics.socket_closes.labels(f"http_{status}").inc()
            await websocket.send_denial_response(
                problem(websocket.scope, status, code, text, retry_after=wait or None)
            )
            return
        self._waiting[address] += 1
        socket = Socket(
            websocket,
            door=self,
            hub=self._hub,
            portal=self._portal,
            access=self._access,
            metrics=self._metrics,
        )
        try:
            await websocket.accept()
            await socket.run()
        finally:
            if not socket.inside:
                self._left(address)

    def _judge(self, websocket: WebSocket, address: str) -> tuple[int, str, str, float]:
        """Why this connection is refused: status, code, text, seconds to wait; status 0 when it is not."""
        origin = websocket.headers.get("origin")
        if origin and not self._may_come(origin, websocket.headers.get("host", "")):
            if origin not in self._warned and len(self._warned) < 100:
                self._warned.add(origin)
                log.warning("a page of this origin was refused; see GRE_CORS_ORIGINS", origin=origin[:200])
            return 403, "origin_refused", "pages of this origin may not connect", 0
        # (A few may still come in and show a token that is known: behind a proxy, one address is many people.)
        wait = self._access.wait(address)
        if wait > 0 and self._waiting[address] >= WAITING_OF_BAD:
            return 429, "too_many_failures", "too many failed authentications", wait
        if self._waiting[address] >= WAITING_OF_ONE or self._waiting.total() >= WAITING:
            return 429, "too_many_connections", "too many connections wait for authentication", 5
        if len(self._hub.audience) + self._waiting.total() >= self._max:
            return 503, "too_many_connections", "this instance is full", 10
        return 0, "", "", 0

    def _may_come(self, origin: str, host: str) -> bool:
        return bool({"*", origin} & self._origins) or urlsplit(origin).netloc.lower() == host.lower()

    def admit(self, identity: Identity) -> bool:
        """Whether this person may have one more socket here."""
        return self._hub.audience.of(identity) < self._per_person

    def spend(self, identity: Identity) -> float:
        """Count a frame of this person; seconds to wait when it is one too many, else 0."""
        return self._budgets.spend((identity.player_id, identity.staff_id))

    def entered(self, websocket: WebSocket) -> None:
        """Count one that waited as authenticated."""
        self._left(_address(websocket))

    def _left(self, address: str) -> None:
        self._waiting[address] -= 1
        if self._waiting[address] <= 0:
            del self._waiting[address]


def _address(websocket: WebSocket) -> str:
    return websocket.client.host if websocket.client else ""

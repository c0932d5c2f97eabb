"""The sockets of this instance, by person: who is here, and who of them may hear of a player's sessions."""

from __future__ import annotations

from collections.abc import Iterable

from gre_bridge.api.ws.presence import Listener
from gre_bridge.db.users import Identity
from gre_bridge.metrics import Metrics


class ConnectionRegistry:
    """Staff hear of all sessions, a player of its own."""

    def __init__(self, metrics: Metrics) -> None:
        """`metrics` has the number of sockets."""
        self._metrics = metrics
        self._staff: set[Listener] = set()
        self._players: dict[int, set[Listener]] = {}

    def __len__(self) -> int:
        """How many sockets there are."""
        return len(self._staff) + sum(map(len, self._players.values()))

    def add(self, listener: Listener) -> None:
        """It has come."""
        player = listener.identity.player_id
        (self._staff if player is None else self._players.setdefault(player, set())).add(listener)
        self._count()

    def remove(self, listener: Listener) -> None:
        """It has gone, or was never here."""
        self._staff.discard(listener)
        player = listener.identity.player_id
        if player is not None and player in self._players:
            self._players[player].discard(listener)
            if not self._players[player]:
                del self._players[player]
        self._count()

    def _count(self) -> None:
        self._metrics.sockets.labels("staff").set(len(self._staff))
        self._metrics.sockets.labels("player").set(sum(map(len, self._players.values())))

    def of(self, identity: Identity) -> int:
        """How many sockets this person has."""
        if identity.player_id is not None:
            return len(self._players.get(identity.player_id, ()))
        return sum(one.identity.staff_id == identity.staff_id for one in self._staff)

    def everyone(self) -> list[Listener]:
        """All sockets."""
        return [*self._staff, *(one for group in self._players.values() for one in group)]

    def players(self) -> list[int] | None:
        """The players whose sessions matter here; None for all."""
        return None if self._staff else list(self._players)

    def hearing(self, player_id: int) -> Iterable[Listener]:
        """Who may hear of this player's sessions."""
        return (*self._staff, *self._players.get(player_id, ()))

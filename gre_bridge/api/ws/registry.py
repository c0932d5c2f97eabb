"""The subscribers of this instance by person, and which of them may receive a player's sessions."""

from __future__ import annotations

from collections.abc import Iterable

from gre_bridge.api.ws.interfaces import Subscriber
from gre_bridge.db.callers import Identity
from gre_bridge.metrics import Metrics


class ConnectionRegistry:
    """Staff receive all sessions, a player receives its own."""

    def __init__(self, metrics: Metrics) -> None:
        """`metrics` gets the number of connections."""
        self._metrics = metrics
        self._all: set[Subscriber] = set()
        self._staff: set[Subscriber] = set()
        self._players: dict[int, set[Subscriber]] = {}
        self._expected: set[Subscriber] = set()
        """Subscribers among `_players` whose identity is not verified yet; they count as no connection."""

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._all)

    def __bool__(self) -> bool:
        """Return True if there is a connection, or one is expected."""
        return bool(self._all or self._expected)

    def expect(self, subscriber: Subscriber, player_id: int) -> None:
        """Let a subscriber, which sends nothing yet, receive this player's sessions until `unexpect`."""
        self._expected.add(subscriber)
        self._players.setdefault(player_id, set()).add(subscriber)

    def unexpect(self, subscriber: Subscriber, player_id: int) -> None:
        """Undo `expect`, unless the subscriber was added as this player meanwhile."""
        self._expected.discard(subscriber)
        if subscriber not in self._all or subscriber.identity.player_id != player_id:
            self._discard(player_id, subscriber)

    def add(self, subscriber: Subscriber) -> None:
        """Add a connection."""
        self._all.add(subscriber)
        player = subscriber.identity.player_id
        (self._staff if player is None else self._players.setdefault(player, set())).add(subscriber)
        self._count()

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a connection, if it is registered."""
        self._all.discard(subscriber)
        self._staff.discard(subscriber)
        if (player_id := subscriber.identity.player_id) is not None:
            self._discard(player_id, subscriber)
        self._count()

    def _discard(self, player_id: int, subscriber: Subscriber) -> None:
        if (found := self._players.get(player_id)) is not None:
            found.discard(subscriber)
            if not found:
                del self._players[player_id]

    def _count(self) -> None:
        self._metrics.sockets.labels("staff").set(len(self._staff))
        self._metrics.sockets.labels("player").set(len(self._all) - len(self._staff))

    def count_of(self, identity: Identity) -> int:
        """Return the number of connections of this person."""
        if identity.player_id is not None:
            return sum(item in self._all for item in self._players.get(identity.player_id, ()))
        return sum(item.identity.staff_id == identity.staff_id for item in self._staff)

    def subscribers(self) -> list[Subscriber]:
        """List all connections."""
        return list(self._all)

    def subscribers_of(self, player_id: int) -> Iterable[Subscriber]:
        """List the connections that may receive this player's sessions."""
        return (*self._staff, *self._players.get(player_id, ()))

    def staff(self) -> tuple[Subscriber, ...]:
        """List the connections of staff."""
        return tuple(self._staff)

    def players(self) -> list[int] | None:
        """List the players whose sessions are needed here; None for all players."""
        return None if self._staff else list(self._players)

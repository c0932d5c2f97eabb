"""The limiter of connections: who gives way when there is no room."""

from __future__ import annotations

from gre_bridge.api.addresses import TrustedProxies
from gre_bridge.api.server.connections import ConnectionLimiter


class Peer:
    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def test_the_visitor_with_by_far_the_most_connections_makes_room_for_another() -> None:
    limiter = ConnectionLimiter(most=100, trusted=TrustedProxies(()))
    many, few = [Peer() for _ in range(6)], [Peer() for _ in range(4)]
    for peer in many:
        limiter.admit(peer, "192.0.2.1")
    for peer in few:
        limiter.admit(peer, "192.0.2.2")
    assert not limiter.drop_for("192.0.2.3", 6)
    assert not limiter.drop_for("192.0.2.1", 5)  # not for itself
    assert limiter.drop_for("192.0.2.3", 5)
    assert [peer.dropped for peer in many] == [True, *[False] * 5]
    assert not any(peer.dropped for peer in few)
    assert len(limiter) == 9
    assert not limiter.drop_for("192.0.2.3", 5)
    assert not ConnectionLimiter(most=1, trusted=TrustedProxies(())).drop_for("192.0.2.3", 0)

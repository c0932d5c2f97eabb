"""The registry of connections: who receives a player's sessions, and who counts as a connection."""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest

from gre_bridge.api.ws.handshake import claimed_player
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.db.callers import Identity
from gre_bridge.db.postgrest import Caller
from gre_bridge.metrics import Metrics


def subscriber() -> Any:
    class Item(SimpleNamespace):
        __hash__ = object.__hash__

    return Item(identity=Identity("none"))


def test_an_expected_subscriber_receives_but_is_no_connection() -> None:
    registry, coming = ConnectionRegistry(Metrics()), subscriber()
    registry.expect(coming, 7)
    assert registry.players() == [7]
    assert list(registry.subscribers_of(7)) == [coming]
    assert registry
    assert (len(registry), registry.subscribers(), registry.count_of(Identity("player", 7))) == (0, [], 0)
    registry.unexpect(coming, 7)
    assert registry.players() == []
    assert not registry


@pytest.mark.parametrize("player_id", [7, 8])
def test_an_expected_subscriber_stays_as_whom_it_was_added(player_id: int) -> None:
    registry, coming = ConnectionRegistry(Metrics()), subscriber()
    registry.expect(coming, 7)
    coming.identity = Identity("player", player_id)
    registry.add(coming)
    registry.unexpect(coming, 7)
    assert registry.players() == [player_id]
    assert registry.count_of(coming.identity) == 1
    registry.remove(coming)
    assert registry.players() == []


def token(**claims: Any) -> Caller:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return Caller(f"x.{body}.x")


def test_a_player_is_expected_only_for_a_users_token_that_names_one() -> None:
    for value in (29, "29"):
        named = token(role="authenticated", app_metadata={"gre_role": "player", "player_id": value})
        assert claimed_player(named) == 29
    for caller in (
        Caller("sb_secret_x"),
        Caller("x.y.z"),
        token(role="service_role", app_metadata={"gre_role": "player", "player_id": 29}),
        token(role="authenticated", app_metadata={"gre_role": "staff", "player_id": 29}),
        token(role="authenticated", app_metadata={"gre_role": "player", "player_id": "²"}),
        token(role="authenticated", app_metadata={"gre_role": "player", "player_id": "9" * 5000}),
        token(role="authenticated", app_metadata={"gre_role": "player", "player_id": 2.5}),
        token(role="authenticated", app_metadata=[]),
        token(role="authenticated"),
    ):
        assert claimed_player(caller) is None, caller

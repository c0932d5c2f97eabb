"""The presence of staff: who is told of a change, and that other tasks run meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson

from gre_bridge.api.ws.presence import PresenceTracker
from gre_bridge.api.ws.registry import ConnectionRegistry
from gre_bridge.db.callers import Identity
from gre_bridge.metrics import Metrics
from tests.support.waiting import next_turn


class Listener:
    def __init__(self, told: list[tuple[str, str]]) -> None:
        self.identity = Identity("player", player_id=1)
        self._told = told

    def send_staff_status(self, staff_id: str, text: str) -> None:
        self._told.append((staff_id, orjson.loads(text)["status"]))


def tracker(online: list[dict[str, str]], told: list[tuple[str, str]]) -> PresenceTracker:
    async def presence(**_: Any) -> dict[str, Any]:
        return {"online": online, "disabled": [], "revoked": []}

    metrics = Metrics()
    registry = ConnectionRegistry(metrics)
    listener: Any = Listener(told)
    registry.add(listener)
    users: Any = SimpleNamespace(presence=presence)
    return PresenceTracker(users=users, metrics=metrics, registry=registry)


def row(staff_id: str, status: str) -> Any:
    return {"staff_id": staff_id, "display_name": staff_id, "status": status}


async def test_other_tasks_run_while_many_changes_are_published() -> None:
    told: list[tuple[str, str]] = []
    presence = tracker([row(f"s{n}", "online") for n in range(50)], told)
    seen = list[int]()

    async def other() -> None:
        for _ in range(20):
            seen.append(len(told))
            await next_turn()

    task = asyncio.create_task(other())
    await presence.refresh()
    await task
    assert len(told) == 50
    assert any(0 < count < 50 for count in seen)


async def test_a_change_that_is_made_meanwhile_is_not_undone_by_an_older_one() -> None:
    told: list[tuple[str, str]] = []
    names = [f"s{n}" for n in range(20)]
    presence = tracker([row(name, "online") for name in names], told)

    async def change() -> None:
        for name in names:
            presence.update(row(name, "away"))

    task = asyncio.create_task(change())
    await presence.refresh()
    await task
    last = dict(told)
    assert last == dict.fromkeys(names, "away")
    assert len(told) < 40, "an older status was sent after a newer one"

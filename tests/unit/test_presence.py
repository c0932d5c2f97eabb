"""The presence of staff: who is told of a change, and that other tasks run meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
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


def tracker(
    online: list[dict[str, str]],
    told: list[tuple[str, str]],
    while_reading: Callable[[], None] = lambda: None,
) -> PresenceTracker:
    async def presence(**_: Any) -> dict[str, Any]:
        while_reading()
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


async def test_a_read_that_missed_a_change_does_not_undo_it() -> None:
    """A page would see its own change undone, and done again; to set the same status again would be a change."""
    told: list[tuple[str, str]] = []
    changes = iter([[("s1", "away"), ("s2", "offline")], []])

    def change() -> None:
        for staff_id, status in next(changes):
            presence.update(row(staff_id, status))

    presence = tracker([row("s1", "online"), row("s2", "online")], told, change)
    for staff_id in ("s1", "s2"):
        presence.update(row(staff_id, "online"))
    await presence.refresh()
    assert told[2:] == [("s1", "away"), ("s2", "offline")]
    assert (presence.status_of("s1"), presence.status_of("s2")) == ("away", "offline")
    await presence.refresh()
    assert (presence.status_of("s1"), presence.status_of("s2")) == ("online", "online"), (
        "what a later read finds counts"
    )


async def test_who_comes_during_a_read_waits_for_the_next_one() -> None:
    """The one under way may have read before the connections left for which it was made."""
    online, reads = [row("s1", "online")], itertools.count(1)

    def read() -> None:
        if next(reads) == 1:
            presence.reset()
        else:
            online.clear()

    presence = tracker(online, [], read)
    presence.notify()
    running = asyncio.create_task(presence.run())
    try:
        async with asyncio.timeout(60):
            await presence.wait_ready()
        assert (presence.status_of("s1"), next(reads)) == ("offline", 3)
    finally:
        running.cancel()
        await asyncio.wait([running], timeout=60)

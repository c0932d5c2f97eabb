"""What the hub tells whom, against a database in memory that answers as gre_hub_news does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

from gre_bridge.api.hub import Hub
from gre_bridge.models import NewRow
from gre_bridge.portal import Identity, Portal
from gre_bridge.telemetry import Metrics

START = datetime(2026, 11, 22, tzinfo=UTC)
PAGE = 500


class Database:
    """Sessions with messages, and `gre_hub_news` over them (its SQL is tested in tests/integration)."""

    def __init__(self) -> None:
        self.now = START
        self.rows: dict[str, dict[str, Any]] = {}
        self.looks = 0

    def say(self, key: str, count: int = 1) -> None:
        """Commit messages of a session."""
        row = self.rows.setdefault(key, {"messages": [], "rev": 0, "player": len(self.rows) + 1})
        for _ in range(count):
            row["messages"].append((len(row["messages"]) + 1, self.now))
        row["rev"] += 1
        row["updated"] = self.now

    async def news(self, *, known: Any, sessions: Any, since: Any, epoch: Any, players: Any) -> Any:
        self.looks += 1
        await asyncio.sleep(0)
        found = []
        for key, row in sorted(self.rows.items(), key=lambda item: item[1]["updated"]):
            changed = since is not None and row["updated"].isoformat() > since
            seq, rev = known.get(key, (0, 0))
            if not (changed or key in sessions) or row["rev"] <= rev:
                continue
            if players is not None and row["player"] not in players:
                continue
            messages = [
                {"id": f"{key}-{n}", "session_id": key, "player_id": row["player"], "seq": n}
                for n, at in row["messages"]
                if n > seq and (key in known or (epoch is not None and at.isoformat() > epoch))
            ]
            session = {
                "id": key, "player_id": row["player"], "status": "active", "assigned_staff_id": None,
                "last_seq": len(row["messages"]), "rev": row["rev"],
            }  # fmt: skip
            reads = {"staff": [0, None], "player": [0, None]}
            found.append(
                {"session": session, "reads": reads, "messages": messages[:200], "more": len(messages) > 200}
            )
        return {"now": self.now.isoformat(), "more": len(found) > PAGE, "sessions": found[:PAGE]}

    async def presence(self, **_: Any) -> Any:
        return {"online": [], "gone": [], "disabled": []}


class Desk:
    """A staff socket that writes down what it is told."""

    identity = Identity("staff", staff_id="s1")

    def __init__(self) -> None:
        self.told: list[str] = []
        self.frames: list[str] = []

    def message(self, message: dict[str, Any], text: str) -> None:
        self.told.append(message["id"])
        self.frames.append(text)

    def tell(self, text: str) -> None:
        self.frames.append(text)

    def end(self, code: int, reason: str, error: str = "") -> None:
        raise AssertionError((code, reason, error))


@contextlib.asynccontextmanager
async def running(database: Database) -> AsyncIterator[Hub]:
    async def broadcast(event: str, body: Any) -> None:
        pass

    hub = Hub(
        portal=cast("Portal", database), metrics=Metrics(), sweep_interval=30, fast_sweep_interval=30,
        feed_healthy=lambda: True, broadcast=broadcast,
    )  # fmt: skip
    task = asyncio.create_task(hub.run())
    try:
        yield hub
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_who_comes_in_is_told_nothing_of_the_minute_before_and_everything_after() -> None:
    """He reads that minute himself: a bulk in it would only be held, and thrown away, as often as there are sockets."""
    database, desk = Database(), Desk()
    for n in range(PAGE + 100):  # more than one look takes
        database.say(f"s{n}", 3)
    async with running(database) as hub:
        hub.add(desk)
        async with asyncio.timeout(5):
            await hub.looking()
        assert desk.told == []
        database.say("s7", 250)  # more than is read of one session at once
        database.say("new")
        hub.ring(frozenset({"s7", "new"}))
        await until(lambda: len(desk.told) == 251)
        assert [name for name in desk.told if name.startswith("s7-")] == [f"s7-{n}" for n in range(4, 254)]
        assert "new-1" in desk.told


async def test_a_row_is_known_once_it_was_told_and_whatever_nobody_here_waits_for() -> None:
    database, desk = Database(), Desk()
    database.say("s1")
    async with running(database) as hub:
        assert hub.has_told(NewRow("s1-1", "s1", 1)), "nobody is here"
        hub.add(desk)
        assert not hub.has_told(NewRow("s1-1", "s1", 1)), "it has not looked yet"
        await hub.looking()
        assert hub.has_told(NewRow("s1-1", "s1", 1))
        database.say("s1")
        assert not hub.has_told(NewRow("s1-2", "s1", 2))
        hub.ring(frozenset({"s1"}))
        await until(lambda: desk.told == ["s1-2"])
        looks = database.looks
        assert hub.has_told(NewRow("s1-2", "s1", 2))
        hub.remove(desk)
        assert hub.has_told(NewRow("s1-3", "s1", 3))
        assert database.looks == looks

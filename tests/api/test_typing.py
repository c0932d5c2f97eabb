"""Typing: a change is sent at once, a flood is dropped, and broadcasts over Realtime are bounded."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gre_bridge.api.pacing import PersonBudgets
from gre_bridge.api.ws import typing as typing_signals
from gre_bridge.api.ws.typing import TypingSignals
from gre_bridge.db.callers import Identity
from tests.api.client import entered
from tests.api.conftest import Api
from tests.support.waiting import until

ONE, OTHER = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
PLAYER, STAFF = Identity("player", 29), Identity("staff", None, "s1")


class Subscriber:
    """A connection that records its frames."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.frames: list[str] = []

    def send_hint(self, text: str) -> None:
        self.frames.append(text)


class Scene:
    """Signals on the test's clock, with one connection of each side."""

    def __init__(self, *, alone: bool = False) -> None:
        self.now = 0.0
        self.sent: list[float] = []
        self.events: list[str] = []
        self.typed: list[Any] = []
        self.desk, self.phone = Subscriber(STAFF), Subscriber(PLAYER)
        registry: Any = SimpleNamespace(
            subscribers_of=lambda _: (self.desk, self.phone), staff=lambda: (self.desk,)
        )
        realtime: Any = SimpleNamespace(broadcast=self._broadcast)
        self.signals = TypingSignals(
            registry=registry, realtime=realtime, peers=SimpleNamespace(alone=alone),
            viewers=SimpleNamespace(typed=self.typed.append), clock=lambda: self.now,
        )  # fmt: skip

    async def _broadcast(self, event: str, body: Any) -> None:
        assert body["playerId"] == 29
        self.events.append(event)
        self.sent.append(self.now)

    async def types(self, who: Identity, session: str, typing: bool = True, *, note: bool = False) -> bool:
        if not self.signals.accept(who, session, typing=typing, note=note):
            return False
        origin: Any = self.desk if who == STAFF else self.phone
        await self.signals.publish(origin, session_id=session, player_id=29, typing=typing, note=note)
        return True


async def test_a_change_is_sent_at_once_and_a_repeat_every_three_seconds() -> None:
    scene = Scene()
    sent_at = []
    for tenth in range(100):
        scene.now = tenth / 10
        if await scene.types(PLAYER, ONE):
            sent_at.append(scene.now)
    assert sent_at == [0.0, 3.0, 6.0, 9.0]
    assert await scene.types(PLAYER, ONE, typing=False), "a change"
    scene.now += 30
    assert not await scene.types(PLAYER, ONE, typing=False), "no change"
    assert await scene.types(PLAYER, OTHER, typing=False), "not known here yet"


async def test_typing_of_one_person_is_bounded_over_all_sessions_and_sockets() -> None:
    scene = Scene()
    for hundredth in range(1000):
        scene.now = hundredth / 100
        for n in range(20):
            await scene.types(STAFF, f"{ONE[:-1]}{n % 5}", typing=bool(hundredth % 2))
    assert 20 <= len(scene.phone.frames) <= 24, "2 a second, and 4 at once"
    assert await scene.types(PLAYER, ONE), "others have budgets of their own"


async def test_typing_over_realtime_is_bounded_in_total() -> None:
    scene = Scene()
    for tenth in range(100):
        scene.now = tenth / 10
        for n in range(50):
            await scene.types(Identity("player", n + 1), ONE, typing=bool(tenth % 2))
    assert 30 <= len(scene.sent) <= 36, "3 a second, and 6 at once"
    assert len(scene.desk.frames) > 500, "all are sent to the connections here"


async def test_a_single_instance_broadcasts_nothing() -> None:
    scene = Scene(alone=True)
    assert await scene.types(PLAYER, ONE)
    assert scene.sent == [] and len(scene.desk.frames) == 1


async def test_the_name_of_the_typing_staff_member_is_sent_to_staff_only() -> None:
    scene = Scene()
    origin: Any = Subscriber(STAFF)
    await scene.signals.publish(origin, session_id=ONE, player_id=29, typing=True)
    assert '"staffId":"s1"' in scene.desk.frames[0] and "staffId" not in scene.phone.frames[0]
    payload = {"sessionId": ONE, "playerId": 29, "by": "staff", "typing": True}
    for more in ({"staffId": "s2"}, {"staffId": 7, "html": "<b>"}):
        scene.signals.receive("typing", {**payload, **more}, lambda _: 29)
    assert '"staffId":"s2"' in scene.desk.frames[1]
    assert "staffId" not in scene.desk.frames[2] and "html" not in scene.desk.frames[2]
    assert not [text for text in scene.phone.frames if "staffId" in text]


async def test_typing_of_a_note_is_sent_to_staff_only() -> None:
    scene = Scene()
    assert await scene.types(STAFF, ONE)
    assert await scene.types(STAFF, ONE, note=True), "not the same as typing a reply"
    assert len(scene.phone.frames) == 1 and '"for"' not in scene.phone.frames[0]
    assert scene.events == ["typing", "typing_note"], "an instance that knows no notes shows nothing"
    payload = {"sessionId": ONE, "playerId": 29, "by": "staff", "typing": True, "staffId": "s2"}
    scene.signals.receive("typing_note", payload, lambda _: 29)
    assert '"for":"note"' in scene.desk.frames[-1] and len(scene.phone.frames) == 1
    assert [body.get("for") for body in scene.typed] == [None, "note", "note"]


def test_the_stored_state_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_signals, "MAX_PERSONS", 10)
    monkeypatch.setattr(typing_signals, "MAX_SESSIONS", 3)
    scene = Scene()
    for n in range(100):
        scene.now += 1
        scene.signals.accept(Identity("player", n), ONE, typing=True)
        scene.signals.accept(STAFF, f"{ONE[:-2]}{n:02}", typing=True)
    persons = scene.signals._persons
    assert len(persons) == 10 and max(len(person.sent) for person in persons.values()) <= 3


def test_frames_of_a_person_are_limited_over_all_connections() -> None:
    now = 0.0
    budgets = PersonBudgets(lambda: now)
    assert [budgets.spend(29) for _ in range(200)] == [0.0] * 200
    assert 0 < budgets.spend(29) < 0.1 and budgets.spend(30) == 0.0
    now += 1.0
    assert sum(budgets.spend(29) == 0.0 for _ in range(100)) == 40


async def test_a_typing_flood_of_twenty_sockets_is_dropped(api: Api, player_id: int) -> None:
    """396 frames a second reached each of the staff, and as many went over Realtime."""
    session = (await asyncio.to_thread(api.player(player_id).send))["sessionId"]
    mine = api.stack.keys.user_token("player", player_id=player_id)
    staff = api.stack.keys.user_token("staff", staff_id="s1")
    async with (
        entered(api.worker.url, staff) as desk,
        entered(api.worker.url, mine) as one,
        entered(api.worker.url, mine) as two,
    ):
        calls = api.worker.metric("gre_database_requests_total", process="api")
        began = time.monotonic()
        for n in range(45):
            for client in (one, two):
                await client.send("typing", sessionId=session, typing=bool(n % 2))
                await client.send("typing", sessionId=f"00000000-0000-4000-8000-{n:012}")
        for client in (one, two):
            await client.settled()
        await desk.settled()
        most = 4 + 2 * (time.monotonic() - began)
        assert 1 <= len(desk.all("typing", sessionId=session)) <= most
        # (Nor does a session that is not known cost a read each time.)
        assert api.worker.metric("gre_database_requests_total", process="api") - calls <= most + 20
        await one.send("send_message", message="still served", clientId="x")
        await one.wait("message_ack", clientId="x")


async def test_a_status_is_set_on_change_only(api: Api, player_id: int) -> None:
    staff_id = f"t{player_id}"
    api.sql("insert into gre_staff (staff_id) values (%s)", staff_id)
    mine = api.stack.keys.user_token("staff", staff_id=staff_id)
    async with entered(api.worker.url, mine) as desk:
        await desk.wait("staff_status", staffId=staff_id, status="online")

        def calls() -> float:
            return api.worker.metric("gre_database_requests_total", function="gre_set_online_status")

        # A call is counted when its answer has come, and its change is seen by all before that.
        await desk.settled()
        before = calls()
        for _ in range(30):
            await desk.send("set_status", status="online")
        for status in ("away", "away", "online"):
            await desk.send("set_status", status=status)
        await desk.wait("staff_status", staffId=staff_id, status="away")
        await desk.until(lambda: desk.all("staff_status", staffId=staff_id)[-1]["status"] == "online")
        await until(lambda: calls() >= before + 2)
        await desk.settled()
        assert calls() == before + 2

"""Frames of changed files on one connection: the newest state after the message that has the file, whatever the connection does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from gre_bridge.api.ws import subscriber as subscribers
from gre_bridge.api.ws.frames import frame
from gre_bridge.api.ws.interfaces import SessionChange
from gre_bridge.api.ws.subscriber import SocketSubscriber
from gre_bridge.db.callers import Identity
from tests.support.waiting import next_turn

ONE, OTHER = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))


def attachment(state: str = "stored", attachment_id: str = "f1") -> dict[str, Any]:
    return {"id": attachment_id, "state": state}


def updated(state: str, attachment_id: str = "f1", session: str = ONE) -> str:
    return frame("attachment_updated", sessionId=session, attachment=attachment(state, attachment_id))


def message(seq: int, **more: Any) -> Any:
    return {"id": f"m{seq}", "session_id": ONE, "seq": seq, **more}


class Transport:
    """A client that reads when the test says so."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.full = self.busy = False
        self.ended: Any = None
        self._drained = asyncio.Event()

    def put(self, text: str) -> None:
        self.frames.append(json.loads(text))

    def end(self, closing: Any) -> None:
        self.ended = closing

    async def wait_drained(self) -> None:
        while self.busy:
            self._drained.clear()
            await self._drained.wait()

    def stop_reading(self) -> None:
        self.full = self.busy = True

    def read(self) -> None:
        self.full = self.busy = False
        self._drained.set()

    @property
    def shown(self) -> list[Any]:
        """What was sent: seqs of messages, and states of files."""
        return [
            item["message"]["seq"] if item["type"] == "chat_message" else item["attachment"]["state"]
            for item in self.frames
        ]


class Source:
    """The database: the messages of session ONE, each read when the test lets it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.reads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def missed(self, positions: Any, _player_id: int | None) -> Any:
        self.reads += 1
        found = [item for item in self.messages if ONE in positions and item["seq"] > positions[ONE][0]]
        await self.may_answer.wait()
        last = self.messages[-1]["seq"] if self.messages else 0
        session = {"id": ONE, "last_seq": last}
        entry = {"session": session, "messages": found, "more": False, "reads": {}}
        return {"sessions": [entry], "skipped": []}


class Scene:
    """A player's connection that has entered."""

    def __init__(self) -> None:
        self.transport, self.source = Transport(), Source()
        counter = SimpleNamespace(labels=lambda *_: SimpleNamespace(inc=lambda: None))
        metrics: Any = SimpleNamespace(socket_messages=counter, database_errors=counter)
        transport: Any = self.transport
        self.subscriber = SocketSubscriber(
            transport=transport, source=self.source, metrics=metrics, clock=lambda: 0.0
        )
        self.subscriber.identity = Identity("player", 29)

    def change(self, state: str, attachment_id: str = "f1", session: str = ONE) -> None:
        self.subscriber.send_attachment(session, attachment_id, updated(state, attachment_id, session))

    def enter(self, *changed: dict[str, Any]) -> None:
        session = {"id": ONE, "last_seq": len(self.source.messages), "status": "active"}
        given: Any = {"sessions": [session], "positions": {}, "missed": []}
        if changed:
            given["attachments"] = [{"session_id": ONE, "attachment": item} for item in changed]
        self.subscriber.enter(given, {ONE: session["last_seq"]})
        self.subscriber.unmute()

    async def turns(self) -> None:
        for _ in range(20):
            await next_turn()

    def said(self, seq: int, **more: Any) -> None:
        item = message(seq, **more)
        self.source.messages.append(item)
        self.subscriber.send_message(item, frame("chat_message", message=item, replay=False))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    found = Scene()
    catching_up = asyncio.create_task(found.subscriber.catch_up())
    yield found
    assert not catching_up.done()
    catching_up.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await catching_up


async def test_a_change_is_sent_at_once(scene: Scene) -> None:
    scene.enter()
    scene.said(1)
    scene.change("ready")
    assert scene.transport.shown == [1, "ready"]


async def test_a_client_that_does_not_read_gets_the_newest_state_once(scene: Scene) -> None:
    scene.enter()
    scene.transport.stop_reading()
    for state in ("ready", "gone"):
        scene.change(state)
    await scene.turns()
    assert scene.transport.shown == []
    scene.transport.full = False  # reads again, and the queue is not sent yet
    scene.change("refused")
    assert scene.transport.shown == []
    scene.transport.read()
    await scene.turns()
    assert scene.transport.shown == ["refused"]
    assert scene.source.reads == 0


async def test_a_change_follows_its_message_that_is_read_later(scene: Scene) -> None:
    scene.enter()
    scene.transport.stop_reading()
    scene.source.may_answer.clear()
    scene.said(1)
    scene.transport.read()
    await scene.turns()
    # The read under way found an older state than this one.
    scene.change("ready")
    assert (scene.source.reads, scene.transport.shown) == (1, [])
    scene.source.may_answer.set()
    await scene.turns()
    assert scene.transport.shown == [1, "ready"]


async def test_a_change_waits_for_the_acknowledgement_of_its_message(scene: Scene) -> None:
    scene.enter()
    scene.subscriber.own.sending = "m1"
    scene.said(1)
    scene.change("ready")
    await scene.turns()  # the loop must not spin on a frame that is held
    assert scene.transport.shown == []
    scene.subscriber.acknowledge(message(1))
    scene.subscriber.release()
    await scene.turns()
    assert scene.transport.shown == ["ready"]


async def test_changes_of_other_sessions_do_not_wait(scene: Scene) -> None:
    scene.enter()
    scene.subscriber.own.sending = "m1"
    scene.said(1)
    scene.change("ready", session=OTHER)
    assert scene.transport.shown == ["ready"]


async def test_what_changed_while_the_client_was_away_is_sent_after_its_entry(scene: Scene) -> None:
    scene.change("gone")  # the hub is faster than the read, whose state may be older
    scene.enter(attachment("ready"), attachment("ready", "f2"))
    await scene.turns()
    assert scene.transport.shown == ["gone", "ready"]
    scene.change("gone", "f2")
    assert scene.transport.shown == ["gone", "ready", "gone"]


async def test_the_number_of_changes_that_wait_is_limited(
    scene: Scene,
) -> None:
    scene.enter()
    scene.transport.stop_reading()
    for n in range(subscribers.MAX_FILES):
        scene.change("ready", f"f{n}")
        scene.change("gone", f"f{n}")
    assert scene.transport.ended is None
    scene.change("ready", "one more")
    assert scene.transport.ended.code == 1013


async def test_a_muted_connection_gets_changes_later(scene: Scene) -> None:
    scene.enter()
    scene.subscriber.mute()
    scene.change("ready")
    scene.subscriber.send_change(ONE, 0, SessionChange.UPDATED, "{}")
    await scene.turns()
    assert scene.transport.shown == []
    scene.source.messages.append(message(1))
    scene.subscriber.unmute()
    await scene.turns()
    assert [item["type"] for item in scene.transport.frames][-1] == "attachment_updated"

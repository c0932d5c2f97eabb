"""Viewers of a session: sent on change and to staff only, bounded, expired after 15 s, and exchanged between instances."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from gre_bridge.api.ws import viewing
from gre_bridge.api.ws.viewing import Viewers
from gre_bridge.db.callers import Identity

ONE, OTHER = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2))


def sam(name: str = "s1") -> Identity:
    return Identity("staff", None, name, display_name=name.upper())


class Subscriber:
    """A connection that records its frames."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.frames: list[Any] = []

    def send_hint(self, text: str) -> None:
        self.frames.append(json.loads(text))

    @property
    def names(self) -> list[str]:
        """The viewers in the last frame."""
        return [viewer["staffId"] for viewer in self.frames[-1]["viewers"]]


class Scene:
    """Viewers of two instances on the test's clock, with one connection of staff at each."""

    def __init__(self, *, alone: bool = False) -> None:
        self.now = 0.0
        self.lost = False
        self.broadcasts: list[tuple[float, Any]] = []
        self.here, self.there = Subscriber(sam()), Subscriber(sam("s2"))
        self.first, self.second = (self._viewers(desk, alone) for desk in (self.here, self.there))

    def _viewers(self, desk: Subscriber, alone: bool) -> Viewers:
        async def broadcast(event: str, body: Any) -> None:
            assert event == "viewers"
            self.broadcasts.append((self.now, body))
            if not self.lost:
                for viewers in (self.first, self.second):
                    viewers.receive(json.loads(json.dumps(body)))

        registry: Any = SimpleNamespace(staff=lambda: (desk,))
        realtime: Any = SimpleNamespace(broadcast=broadcast)
        return Viewers(
            registry=registry, realtime=realtime, peers=SimpleNamespace(alone=alone), clock=lambda: self.now
        )

    async def let(self, seconds: float) -> None:
        """Let time pass, a tick at a time."""
        until = self.now + seconds
        while self.now < until:
            self.now += viewing.TICK
            for viewers in (self.first, self.second):
                viewers.expire()
                await viewers._broadcast()


async def test_a_viewer_is_sent_on_change_and_forgotten_after_15_seconds() -> None:
    scene = Scene(alone=True)
    desk: Any = Subscriber(sam("s3"))
    for _ in range(4):
        scene.first.view(desk, ONE, viewing=True)
        await scene.let(10)
    assert [frame["viewers"] for frame in scene.here.frames] == [
        [{"staffId": "s3", "displayName": "S3", "typing": False}]
    ]
    assert len(desk.frames) == 3, "a renewal is answered"
    await scene.let(4)
    assert scene.here.names == ["s3"]
    await scene.let(1)
    assert scene.here.frames[-1] == {"type": "session_viewers", "sessionId": ONE, "viewers": []}
    assert scene.broadcasts == [], "no other instance"
    assert not scene.first._sessions and not scene.first._published


async def test_who_leaves_is_gone_at_once() -> None:
    scene = Scene(alone=True)
    desks: list[Any] = [Subscriber(sam(name)) for name in ("s3", "s4")]
    for desk in desks:
        scene.first.view(desk, ONE, viewing=True)
    assert scene.here.names == ["s3", "s4"]
    scene.first.view(desks[0], ONE, viewing=False)
    assert scene.here.names == ["s4"]
    scene.first.view(desks[0], OTHER, viewing=False)
    assert desks[0].frames[-1] == {"type": "session_viewers", "sessionId": OTHER, "viewers": []}


async def test_typing_of_a_viewer_is_shown_and_expires() -> None:
    scene = Scene(alone=True)
    desk: Any = Subscriber(sam("s3"))
    scene.first.view(desk, ONE, viewing=True)
    body = {"sessionId": ONE, "playerId": 29, "by": "staff", "typing": True}
    scene.first.typed(body)
    scene.first.typed({**body, "staffId": "s9"})
    assert len(scene.here.frames) == 1, "not a viewer"
    scene.first.typed({**body, "staffId": "s3"})
    assert scene.here.frames[-1]["viewers"][0]["typing"] is True
    await scene.let(5)
    assert len(scene.here.frames) == 2
    await scene.let(1)
    assert scene.here.frames[-1]["viewers"] == [{"staffId": "s3", "displayName": "S3", "typing": False}]


async def test_instances_exchange_their_viewers_and_the_next_broadcast_repairs_a_lost_one() -> None:
    scene = Scene()
    three, four = (Subscriber(sam(name)) for name in ("s3", "s4"))
    first: Any = three
    second: Any = four
    scene.lost = True
    scene.first.view(first, ONE, viewing=True)
    await scene.let(1)
    assert scene.there.frames == []
    scene.lost = False
    await scene.let(5)
    assert scene.there.names == ["s3"]
    scene.second.view(second, ONE, viewing=True)
    await scene.let(1)
    assert scene.here.names == scene.there.names == ["s3", "s4"]
    scene.first.view(first, ONE, viewing=False)
    await scene.let(1)
    assert scene.there.names == ["s4"]
    scene.lost = True
    await scene.let(15)
    assert scene.here.frames[-1]["viewers"] == [], "the other instance is silent"
    in_a_second = [at for at, _ in scene.broadcasts]
    assert all(later - at >= 1 for at, later in zip(in_a_second, in_a_second[2:], strict=False))


async def test_what_another_instance_says_is_not_believed_but_in_its_form() -> None:
    scene = Scene()
    instance = "00000000-0000-4000-8000-0000000000aa"
    good = [ONE, "s9", "Nine", False]
    for payload in (
        None,
        {"instance": instance},
        {"instance": "short", "viewers": [good]},
        {"instance": instance, "viewers": [good] * (viewing.MAX_VIEWERS + 1)},
        {"instance": instance, "viewers": [["short", "s9", "Nine", False], [ONE, 9, "Nine", False]]},
        {"instance": instance, "viewers": [[ONE, "s" * 129, "Nine", False], [ONE, "s9", "Nine", 1]]},
        {"instance": scene.first._id, "viewers": [good]},
    ):
        scene.first.receive(payload)
        assert scene.here.frames == [] and not scene.first._sessions and not scene.first._instances
    scene.first.receive({"instance": instance, "viewers": [good, [OTHER, "s9", None, True]], "html": "<b>"})
    assert [frame["viewers"][0]["staffId"] for frame in scene.here.frames] == ["s9", "s9"]
    for n in range(2 * viewing.MAX_INSTANCES):
        scene.first.receive({"instance": f"{instance[:-4]}{n:04}", "viewers": [good]})
    assert len(scene.first._instances) == viewing.MAX_INSTANCES


async def test_what_one_person_costs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(alone=True)
    desk: Any = Subscriber(sam("s3"))
    for n in range(1000):
        scene.now = n / 100
        scene.first.view(desk, f"{ONE[:-3]}{n % 500:03}", viewing=bool(n % 3))
    assert len(scene.here.frames) <= 2 * (8 + 2 * 10), "2 a second, and 8 at once"
    scene.now = 100.0
    for n in range(100):
        scene.now += 0.5
        scene.first.view(desk, f"{ONE[:-3]}{n:03}", viewing=True)
    assert len(scene.first._sessions) <= viewing.MAX_SESSIONS
    monkeypatch.setattr(viewing, "MAX_PERSONS", 10)
    for n in range(50):
        other: Any = Subscriber(sam(f"t{n}"))
        scene.first.view(other, ONE, viewing=True)
    assert len(scene.first._persons) == 10
    await scene.let(20)
    assert not scene.first._sessions and not scene.first._published

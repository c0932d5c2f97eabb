"""Frames of any content, and many at once: the listener reads on, others have their turns, no log hears a word."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from gre_bridge.db.types import NewRow
from gre_bridge.realtime.client import TURN
from tests.support.feeds import KEY, S1, S2, running
from tests.support.phoenix import TEXT, PhoenixServer, until

# The client reads attributes of the exception that websockets has deprecated; a warning that is made an
# error would end its listener.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")


@pytest.fixture
async def server() -> AsyncIterator[PhoenixServer]:
    async with PhoenixServer() as phoenix:
        yield phoenix


# Any content

BELL, ROWS = "realtime:gre:relay", "realtime:gre:relay:rows"
SCALARS = (
    None,
    True,
    0,
    -1,
    7,
    2**53,
    2**64,
    -(10**400),
    0.5,
    float("nan"),
    float("-inf"),
    "",
    "\0",
    "\ud800",
    S1,
    KEY,
    TEXT,
)
NAMES = ("event", "payload", "sessions", "data", "record", "id", "session_id", "seq", "errors", TEXT)


class Rubbish:
    """Frames that look more or less like Realtime's, and those that do not look like it at all."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def value(self, depth: int = 3) -> Any:
        kind = self._rng.random()
        if depth == 0 or kind < 0.5:
            return self._rng.choice(SCALARS)
        some = [self.value(depth - 1) for _ in range(self._rng.randrange(4))]
        return some if kind < 0.7 else {self._rng.choice(NAMES): value for value in some}

    def object(self, **values: Any) -> dict[str, Any]:
        """These keys, each of which may be missing or be anything."""
        kept = {name: value for name, value in values.items() if self._rng.random() < 0.9}
        return {name: self.value() if self._rng.random() < 0.1 else value for name, value in kept.items()}

    def frame(self) -> str | bytes:
        """A frame; not one of those with which a server ends a channel."""
        choice = self._rng.choice
        told: Any = choice([self.value(), self.object(sessions=[self.value(1)])])
        row = self.object(
            id=choice([TEXT, self.value(1)]),
            session_id=choice([S1, self.value(1)]),
            seq=choice([0, 1, self.value(1)]),
        )
        payload = choice(
            [
                self.object(
                    type="broadcast", event=choice(["wakeup", "typing", self.value(1)]), payload=told
                ),
                self.object(ids=[1], data=self.object(type="INSERT", record=row, errors=self.value(1))),
            ]
        )
        topic, event = choice(
            [
                *[(BELL, "broadcast"), (ROWS, "postgres_changes")] * 3,
                (ROWS, "broadcast"),
                (BELL.upper(), "broadcast"),
                ("phoenix", "heartbeat"),
                (self.value(1), self.value(1)),
            ]
        )
        text = json.dumps(self.object(topic=topic, event=event, payload=payload, ref=None))
        deep = self._rng.randrange(1, 2000)
        return choice(
            [
                *[text] * 12,
                text.encode(),
                text[: self._rng.randrange(len(text))],
                text[:-1] + f', "event": "broadcast", "topic": "{BELL}", "payload": {{}}}}',
                text + text,
                self._rng.randbytes(8),
                '{"payload":' * deep + "1" + "}" * deep,
                f'{{"topic": "{BELL}", "event": "broadcast", "payload": {{"payload": {"[" * deep}{"]" * deep}}}}}',
            ]
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
async def test_no_frame_ends_the_link_or_gets_into_a_log(
    server: PhoenixServer, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.DEBUG)
    rubbish, events, rows = Rubbish(seed), Counter[str](), Counter[str]()

    def known(row: NewRow) -> bool:
        rows[row.session_id] += 1
        return row.seq > 0

    async with running(
        server, changes=True, on_event=lambda event, _: events.update([event]), known=known
    ) as it:
        await until(it.live)
        for _ in range(800):
            await server.live("gre:relay")[0].socket.send(rubbish.frame())
        await server.insert({"session_id": S2})
        await until(lambda: {S2} in it.rings)
        assert server.connections == 1
        assert it.feed.healthy
        assert {S1} in it.rings
        assert it.feed.detail == ""
    assert events["typing"]
    assert rows[S1]
    assert TEXT not in caplog.text
    assert KEY not in caplog.text


# Many at once


@contextlib.asynccontextmanager
async def a_burst(
    server: PhoenixServer, frames: int, *, turn: float, frame: float = 0.0
) -> AsyncIterator[list[int]]:
    """Rows that come at once where others hold the loop for `turn` seconds each time, and each row for `frame`.

    Gives, for each row, the number of the turn in which it rang.
    """
    turns = 0
    heard: list[int] = []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            time.sleep(turn)  # noqa: ASYNC251 - it is their work that is meant
            await asyncio.sleep(0)

    def on_ring(_: object) -> None:
        heard.append(turns)
        time.sleep(frame)

    async with running(server, changes=True, on_ring=on_ring) as it:
        await until(it.live)
        heard.clear()
        row = {"data": {"type": "INSERT", "record": {"session_id": S1}}}
        told = {"event": "postgres_changes", "topic": "realtime:gre:relay:rows", "payload": row, "ref": None}
        one = Frame(Opcode.TEXT, json.dumps(told).encode()).serialize(mask=False)
        server.live(":rows")[0].socket.transport.write(one * frames)
        working = asyncio.create_task(others())
        await until(lambda: len(heard) == frames)
        working.cancel()
        yield heard


async def test_others_have_a_turn_in_a_burst(server: PhoenixServer) -> None:
    """Rows come by Realtime's poll, up to a hundred at once; a claim's answer must not wait for them all."""
    async with a_burst(server, 50, turn=0.0, frame=TURN) as heard:
        assert len(set(heard)) == 50


async def test_a_busy_loop_does_not_keep_the_bells_waiting(server: PhoenixServer) -> None:
    """With one frame a turn, 250 frames a second were all that came in here: the pongs behind them came too late."""
    async with a_burst(server, 250, turn=0.004) as heard:
        assert len(set(heard)) < 100

"""Frames of any content and bursts of frames: the reader continues, other tasks run, and nothing reaches a log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from gre_bridge.db.types import NewRow
from gre_bridge.realtime.client import YIELD_AFTER
from tests.support.phoenix import TEXT, PhoenixServer
from tests.support.subscriptions import KEY, S1, S2, Recorder, running
from tests.support.waiting import let_pass, next_turn, until

# The client reads attributes of the exception that websockets has deprecated; a warning that is made an
# error would end its listener.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")


@pytest.fixture
async def server() -> AsyncIterator[PhoenixServer]:
    async with PhoenixServer() as phoenix:
        yield phoenix


# Any content

WAKEUPS, ROWS = "realtime:gre:relay", "realtime:gre:relay:rows"
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
                *[(WAKEUPS, "broadcast"), (ROWS, "postgres_changes")] * 3,
                (ROWS, "broadcast"),
                (WAKEUPS.upper(), "broadcast"),
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
                text[:-1] + f', "event": "broadcast", "topic": "{WAKEUPS}", "payload": {{}}}}',
                text + text,
                self._rng.randbytes(8),
                '{"payload":' * deep + "1" + "}" * deep,
                f'{{"topic": "{WAKEUPS}", "event": "broadcast", "payload": {{"payload": {"[" * deep}{"]" * deep}}}}}',
            ]
        )  # fmt: skip


class Counting(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.rows = Counter[str]()

    def is_handled(self, row: NewRow) -> bool:
        self.rows[row.session_id] += 1
        return row.seq > 0


@pytest.mark.parametrize("seed", range(3))
async def test_no_frame_ends_the_connection_or_reaches_a_log(
    server: PhoenixServer, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.DEBUG)
    rubbish = Rubbish(seed)
    async with running(server, Counting(), row_changes=True) as it:
        await until(it.live)
        for _ in range(800):
            await server.live("gre:relay")[0].socket.send(rubbish.frame())
        await server.insert({"session_id": S2})
        await until(lambda: {S2} in it.wakeups)
        assert server.connections == 1
        assert it.subscription.healthy
        assert {S1} in it.wakeups
        assert it.subscription.detail == ""
    assert any(event == "typing" for event, _ in it.events)
    assert it.rows[S1]
    assert TEXT not in caplog.text
    assert KEY not in caplog.text


# Many at once


@contextlib.asynccontextmanager
async def a_burst(
    server: PhoenixServer, frames: int, *, busy: float, frame: float = 0.0
) -> AsyncIterator[list[int]]:
    """Rows that arrive at once while another task holds the loop for `busy` seconds per iteration, and each row for `frame`.

    Gives, for each row, the number of the iteration in which its wake-up was reported.
    """
    iterations = 0
    seen: list[int] = []

    async def other_task() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            let_pass(busy, "stands for work of other tasks")
            await next_turn()

    class Slow(Recorder):
        def on_wakeup(self, sessions: frozenset[str] | None) -> None:
            super().on_wakeup(sessions)
            seen.append(iterations)
            let_pass(frame, "stands for work on one frame")

    async with running(server, Slow(), row_changes=True) as it:
        await until(it.live)
        seen.clear()
        row = {"data": {"type": "INSERT", "record": {"session_id": S1}}}
        message = {
            "event": "postgres_changes",
            "topic": "realtime:gre:relay:rows",
            "payload": row,
            "ref": None,
        }
        encoded = Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=False)
        server.live(":rows")[0].socket.transport.write(encoded * frames)
        working = asyncio.create_task(other_task())
        await until(lambda: len(seen) == frames)
        working.cancel()
        yield seen


async def test_other_tasks_run_during_a_burst(server: PhoenixServer) -> None:
    """Realtime polls and sends up to a hundred rows at once; the response to a claim must not wait for all of them."""
    async with a_burst(server, 50, busy=0.0, frame=YIELD_AFTER) as seen:
        assert len(set(seen)) == 50


async def test_a_busy_loop_reads_many_frames_per_iteration(server: PhoenixServer) -> None:
    """With one frame per iteration, 250 frames a second were the limit here, and heartbeat replies arrived too late."""
    async with a_burst(server, 250, busy=0.004) as seen:
        assert len(set(seen)) < 100

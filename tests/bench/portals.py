"""The portals' side of `make bench`: 200 players with sockets who send, staff who receive, and REST calls.

Measured at the client, over the embedded stack, all on this machine: connect and authenticate; store (a socket's
message until its acknowledgement); retrieve 50 messages of a session with 10,000 (REST); from one's send to the
other's receipt. Bounds of the system that this replaces: 100 ms, 500 ms, 300 ms and 1 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp
from websockets.asyncio.client import ClientConnection, connect

from tests.bench.lab import Steal, percentile, quietest
from tests.bench.report import Section
from tests.support import waiting
from tests.support.stack import StackProcess, Worker

PLAYERS = 200
STAFF = 3
RATE = 50.0
"""Messages a second, all players together."""
SECONDS = 20.0
HISTORY = 10_000
BOUNDS = {
    "connect and authenticate": 100.0,
    "store": 500.0,
    "retrieve 50 of 10,000": 300.0,
    "send to receipt": 1000.0,
}


@dataclass
class Run:
    """The measured milliseconds, and the share of the CPU time that the host took."""

    WRONG: ClassVar[tuple[str, ...]] = ()
    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in BOUNDS})
    sent: dict[str, float] = field(default_factory=dict)
    receipts: int = 0
    steal: float = 0.0

    def note(self, what: str, began: float) -> None:
        self.times[what].append((time.perf_counter() - began) * 1000)


async def enter(url: str, token: str, run: Run, **claims: Any) -> ClientConnection:
    """Connect and authenticate."""
    began = time.perf_counter()
    socket = await connect(
        url, additional_headers={"Authorization": f"Bearer {token}"}, compression=None, open_timeout=30
    )
    await socket.send(json.dumps({"type": "authenticate", **claims}))
    while json.loads(await socket.recv())["type"] != "authenticated":
        pass
    run.note("connect and authenticate", began)
    return socket


async def listen(socket: ClientConnection, run: Run) -> None:
    """Record the time at which staff receive each message."""
    async for text in socket:
        frame = json.loads(text)
        if frame["type"] == "chat_message" and (began := run.sent.get(frame["message"]["id"])):
            run.note("send to receipt", began)
            run.receipts += 1


async def send(socket: ClientConnection, run: Run, until: float) -> None:
    """Send messages of one player from time to time, each acknowledged before the next."""
    pause = PLAYERS / RATE
    await waiting.pause(random.random() * pause, "players do not start together")
    while time.perf_counter() < until:
        key = str(uuid.uuid4())
        began = run.sent[key] = time.perf_counter()
        await socket.send(json.dumps({"type": "send_message", "message": "bench", "id": key}))
        while (frame := json.loads(await socket.recv()))["type"] != "message_ack":
            assert frame["type"] != "error", frame
        run.note("store", began)
        await waiting.pause(pause * random.uniform(0.5, 1.5), "the rate of messages")


async def retrieve(url: str, token: str, session: str, run: Run, until: float) -> None:
    """Read a page of the long session as staff, from time to time."""
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as http:
        while time.perf_counter() < until:
            began = time.perf_counter()
            asked = {"limit": 50, "before_seq": random.randint(100, HISTORY)}
            async with http.get(f"/api/gre-admin/messages/{session}", params=asked) as answer:
                assert answer.status == 200 and len((await answer.json())["messages"]) == 50
            run.note("retrieve 50 of 10,000", began)
            await waiting.pause(0.15, "the rate of reads")


async def measure(stack: StackProcess, worker: Worker, session: str) -> Run:
    """Measure everything."""
    run = Run()
    ws = worker.url.replace("http", "ws", 1) + "/ws"
    staff_token = stack.keys.user_token("staff", staff_id="s1")
    async with contextlib.AsyncExitStack() as sockets:
        staff = [await enter(ws, staff_token, run) for _ in range(STAFF)]
        tokens = [stack.keys.user_token("player", player_id=1000 + number) for number in range(PLAYERS)]
        players = [await enter(ws, token, run) for token in tokens]
        for socket in (*staff, *players):
            sockets.push_async_callback(socket.close)
        listeners = [asyncio.create_task(listen(socket, run)) for socket in staff]
        until = time.perf_counter() + SECONDS
        async with asyncio.TaskGroup() as group:
            for socket in players:
                group.create_task(send(socket, run, until))
            group.create_task(retrieve(worker.url, staff_token, session, run, until))
        await waiting.until(lambda: run.receipts >= STAFF * len(run.sent), 30, 0.05)
        for listener in listeners:
            listener.cancel()
    return run


def long_session(stack: StackProcess) -> str:
    """Insert a session of 10,000 messages without deliveries."""
    with stack.db() as conn:
        conn.execute("update gre_relay_sinks set enabled = false")
        for _ in range(HISTORY // 1000):
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message)"
                " select 999, case n % 2 when 0 then 'player' else 'staff' end, 'a line of usual length, more or less ' || n"
                " from generate_series(1, 1000) n"
            )
        conn.execute("update gre_relay_sinks set enabled = true")
        conn.execute("analyze gre_chat_messages")
        row = conn.execute("select id::text from gre_chat_sessions where player_id = 999").fetchone()
    assert row is not None
    return str(row["id"])


def portals(stack: StackProcess, say: Callable[[str], None]) -> Section:
    """Measure, and return p50 and p99 with the bounds."""

    def once(some: Sequence[str]) -> Iterator[tuple[str, Run]]:
        for case in some:
            say(case)
            stack.reset()
            session = long_session(stack)
            with stack.worker() as worker:
                steal = Steal()
                run = asyncio.run(measure(stack, worker, session))
                run.steal = steal.share()
            yield case, run

    (run,) = quietest(["portals"], once)
    rows = [
        [
            name,
            str(len(times)),
            f"{percentile(times, 0.5):.1f}",
            f"{percentile(times, 0.99):.1f}",
            f"{BOUNDS[name]:.0f}",
        ]
        for name, times in run.times.items()
    ]
    return Section(
        f"Portals: {PLAYERS} sockets send {RATE:.0f} messages a second together, {STAFF} staff members receive them",
        ["milliseconds", "count", "p50", "p99", "limit: the previous system's time"],
        rows,
        f"The history that is read has {HISTORY:,} messages; a page has 50. Receipt is the arrival of the frame at the receiver's socket."
        f" Steal: {run.steal * 100:.0f} %.",
    )


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    from rich.console import Console

    with StackProcess(Path(tempfile.mkdtemp())) as stack:
        Console().print(portals(stack, print).rich())

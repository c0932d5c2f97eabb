"""`make bench`: latency and drain of the relay beside the floor and beside the obvious design, in one run.

Absolute times depend on the machine; the ratios are the result. Everything runs on this machine: the
embedded stack (a process), the worker (a process) and whatever is measured beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pusher
from realtime import AsyncRealtimeClient
from rich.console import Console
from rich.table import Table

from tests.stack import StackProcess, judge, wait_until

SESSIONS = 100


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def insert(stack: StackProcess, count: int, rate: float) -> list[tuple[str, str, float]]:
    """Insert messages at `rate` a second, each in a transaction of its own: (id, session, when it had committed)."""
    committed: list[tuple[str, str, float]] = []
    with stack.db() as conn:
        began = time.monotonic()
        for n in range(count):
            if (ahead := began + n / rate - time.monotonic()) > 0:
                time.sleep(ahead)
            row = conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'bench')"
                " returning id::text, session_id::text",
                [1 + n % SESSIONS],
            ).fetchone()
            assert row is not None
            committed.append((row["id"], row["session_id"], time.time()))
    return committed


def latencies(
    stack: StackProcess, count: int, rate: float, arrived: Callable[[], dict[str, float]]
) -> list[float]:
    """Milliseconds from each commit to the arrival of its request at the Pusher face."""
    committed = insert(stack, count, rate)
    wait_until(lambda: len(arrived()) >= count, 60, 1.0, "every arrival")
    times = arrived()
    return [(times[message] - at) * 1000 for message, _, at in committed]


def events(stack: StackProcess) -> dict[str, float]:
    """First arrivals of player messages at the Pusher face, by message id."""
    first: dict[str, float] = {}
    for item in stack.received("pusher"):
        if item["status"] == 200 and item["name"] == "new-player-message":
            first.setdefault(item["data"]["id"], item["at"])
    return first


@contextlib.contextmanager
def in_thread(main: Callable[[asyncio.Event], Any]) -> Iterator[None]:
    """Run a coroutine in a loop of its own until the block ends."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    up = threading.Event()

    async def run() -> None:
        task = asyncio.ensure_future(main(stop))
        await asyncio.sleep(3)  # joins take up to 2.9 s on Realtime
        up.set()
        await task

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    up.wait(20)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextlib.asynccontextmanager
async def channel(stack: StackProcess, name: str, private: bool) -> AsyncIterator[Any]:
    """A channel of the real client; the block subscribes it."""
    key = stack.env["SUPABASE_SERVICE_KEY"]
    client = AsyncRealtimeClient(f"{stack.url}/realtime/v1", key, auto_reconnect=False)
    await client.connect()
    joined = client.channel(
        name,
        {
            "config": {
                "private": private,
                "broadcast": {"self": False, "ack": False},
                "presence": {"key": "", "enabled": False},
            }
        },
    )
    try:
        yield joined
    finally:
        await client.close()


async def floor(stack: StackProcess, stop: asyncio.Event) -> None:
    """The bare minimum: bell, one RPC, one POST, nothing in between and nothing kept."""
    signer = pusher.Pusher(
        app_id=stack.env["PUSHER_APP_ID"],
        key=stack.env["PUSHER_KEY"],
        secret=stack.env["PUSHER_SECRET"],
        host="127.0.0.1",
        port=int(stack.env["PUSHER_PORT"]),
        ssl=False,
    )
    async with httpx.AsyncClient(timeout=10) as http, channel(stack, "gre:relay", private=True) as bell:
        jobs: set[asyncio.Task[None]] = set()

        async def once(session: str) -> None:
            await http.post(f"{stack.url}/rest/v1/rpc/gre_schema_version", json={}, headers=stack.headers())
            request = signer._pusher_client.trigger_batch.make_request(
                [{"channel": "staff-portal", "name": "floor", "data": {"session": session}}]
            )
            await http.request(request.method, request.url, headers=request.headers, content=request.body)

        def ring(payload: dict[str, Any]) -> None:
            for session in payload.get("payload", payload).get("sessions", []):
                job = asyncio.ensure_future(once(session))
                jobs.add(job)
                job.add_done_callback(jobs.discard)

        bell.on_broadcast("ring", ring)
        await bell.subscribe()
        await stop.wait()


async def obvious(stack: StackProcess, stop: asyncio.Event) -> None:
    """What one would write first: postgres_changes, pusher.trigger and a push in the callback."""
    client = pusher.Pusher(
        app_id=stack.env["PUSHER_APP_ID"],
        key=stack.env["PUSHER_KEY"],
        secret=stack.env["PUSHER_SECRET"],
        host="127.0.0.1",
        port=int(stack.env["PUSHER_PORT"]),
        ssl=False,
    )
    with httpx.Client(timeout=10) as http:

        def changed(payload: dict[str, Any]) -> None:
            record = payload["data"]["record"]
            client.trigger(
                "staff-portal",
                "new-player-message",
                {
                    "id": record["id"],
                    "message": record["message"],
                    "session_id": record["session_id"],
                    "seq": record["seq"],
                },
            )
            http.post(
                f"{stack.env['ONESIGNAL_API_URL']}/notifications", headers={"Authorization": f"Key {stack.env['ONESIGNAL_API_KEY']}"},
                json={"app_id": stack.env["ONESIGNAL_APP_ID"], "target_channel": "push", "include_aliases": {"external_id": ["s1"]}, "contents": {"en": "New message"},
                      "data": {"message_id": record["id"], "session_id": record["session_id"], "seq": record["seq"]}},
            )  # fmt: skip

        async with channel(stack, "obvious", private=False) as changes:
            changes.on_postgres_changes(
                "INSERT", schema="public", table="gre_chat_messages", callback=changed
            )
            await changes.subscribe()
            await stop.wait()


def floor_latencies(stack: StackProcess, count: int, rate: float) -> list[float]:
    """As `latencies`, for the floor: the n-th ring of a session belongs to its n-th message."""
    committed: dict[str, list[float]] = {}
    for _, session, at in insert(stack, count, rate):
        committed.setdefault(session, []).append(at)
    wait_until(
        lambda: sum(i["name"] == "floor" for i in stack.received("pusher")) >= count, 60, 1.0, "every arrival"
    )
    return [
        (item["at"] - committed[item["data"]["session"]].pop(0)) * 1000
        for item in stack.received("pusher")
        if item["name"] == "floor"
    ]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…")
    parser.add_argument("--count", type=int, default=300, help="messages for each latency (default 300)")
    parser.add_argument(
        "--rates", type=float, nargs="+", default=[10, 50], help="messages a second (default 10 50)"
    )
    parser.add_argument(
        "--drain", type=int, default=5000, help="messages that wait for the drain (default 5000)"
    )
    given = parser.parse_args()
    console = Console(width=110)
    with (
        tempfile.TemporaryDirectory(prefix="gre-bench-") as directory,
        StackProcess(Path(directory)) as stack,
    ):
        stack.reset()
        table = Table(
            "design",
            "messages/s",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "max ms",
            title="commit of the insert → arrival at Pusher",
        )

        def add(name: str, rate: float, times: list[float]) -> None:
            table.add_row(
                name,
                f"{rate:g}",
                *(
                    f"{v:.1f}"
                    for v in (
                        statistics.median(times),
                        percentile(times, 0.9),
                        percentile(times, 0.99),
                        max(times),
                    )
                ),
            )

        for rate in given.rates:
            stack.reset()
            with in_thread(lambda stop: floor(stack, stop)):
                add("floor", rate, floor_latencies(stack, given.count, rate))
            stack.reset()
            with stack.worker() as worker:
                wait_until(
                    lambda worker=worker: worker.metric("gre_feed_state", state="live") == 1,
                    20,
                    what="a live feed",
                )
                add("gre-bridge", rate, latencies(stack, given.count, rate, lambda: events(stack)))
                stack.drained()
            stack.reset()
            with in_thread(lambda stop: obvious(stack, stop)):
                add("obvious", rate, latencies(stack, given.count, rate, lambda: events(stack)))
        console.print(table)

        stack.reset()
        with stack.db() as conn:
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) select 1 + g %% 500, 'player', 'm' || g from generate_series(1, %s) g",
                [given.drain],
            )
            before = conn.execute("select count(*) as n from gre_relay_deliveries").fetchone()
            assert before is not None
        began = time.monotonic()
        with stack.worker() as worker:
            process = psutil.Process(worker.pid)
            pushed = None
            with stack.db() as conn:

                def left(sink: str) -> int:
                    row = conn.execute(
                        "select count(*) as n from gre_relay_deliveries where state = 'pending' and sink = %s",
                        [sink],
                    ).fetchone()
                    assert row is not None
                    return int(row["n"])

                wait_until(lambda: left("pusher") == 0, 300, 0.1, "an empty outbox")
                pushed = time.monotonic() - began
                wait_until(lambda: left("onesignal") == 0, 300, 0.1, "an empty outbox")
            took = time.monotonic() - began
            cpu = sum(process.cpu_times()[:2])
            rpc = worker.metric("gre_store_requests_total")
            requests = {
                sink: worker.metric("gre_sink_requests_total", sink=sink) for sink in ("pusher", "onesignal")
            }
        verdict = judge(stack)
        drain = Table(
            "drain",
            "value",
            title=f"{given.drain} messages of 500 sessions already waiting, both sinks, one worker",
        )
        drain.add_row("Pusher events a second (start of the process included)", f"{given.drain / pushed:.0f}")
        drain.add_row("until both sinks are done, s", f"{took:.1f}")
        drain.add_row(
            "lost / out of order / repeated",
            f"{sum(map(len, verdict.lost.values()))} / {sum(map(len, verdict.out_of_order.values()))} / {sum(map(len, verdict.repeats.values()))}",
        )
        drain.add_row("requests to Pusher per event", f"{requests['pusher'] / given.drain:.3f}")
        drain.add_row("requests to OneSignal per message", f"{requests['onesignal'] / given.drain:.3f}")
        drain.add_row("requests to Supabase per delivery", f"{rpc / before['n']:.4f}")
        drain.add_row("worker's CPU seconds per 1,000 deliveries", f"{cpu / before['n'] * 1000:.2f}")
        console.print(drain)


if __name__ == "__main__":
    main()

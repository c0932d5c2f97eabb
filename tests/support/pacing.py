"""Messages at a steady rate and their times to Pusher, to measure the effect of Realtime's limits."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil
from websockets.sync.client import connect

from tests.support.stack import StackProcess, Worker, judge
from tests.support.waiting import let_pass

SESSIONS = 24
WRITERS = 4
"""Connections that write; a divisor of SESSIONS."""
TOPIC = "gre:relay"


@dataclass(frozen=True)
class Pace:
    """The result for messages at one rate; times are from the insert's answer to Pusher's, in milliseconds."""

    sent: int
    rate: float
    """Messages written a second: a busy machine may not reach the requested rate."""
    p50: float
    p99: float
    worst: float
    events: float
    """Realtime's events of ours a second: those handed out, and one for each broadcast that was sent."""
    reconnections: float
    lost: int
    out_of_order: int
    cpu: float
    """Share of a core that the workers used."""
    calls: float
    """Calls of the workers to the database a second."""

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.rate:.0f}/s: p50 {self.p50:.1f} p99 {self.p99:.1f} worst {self.worst:.0f} ms, {self.events:.1f} events/s,"
            f" {self.reconnections:g} reconnections, lost {self.lost}, out of order {self.out_of_order},"
            f" cpu {self.cpu:.0%}, {self.calls:.0f} calls/s"
        )


def handed_out(stack: StackProcess) -> int:
    """Events that Realtime has sent on our channels so far."""
    counts = stack.http.get("/__stack/health").json()["realtime"]["handed_out"]
    return sum(count for topic, count in counts.items() if topic.startswith(TOPIC))


def wakeups_sent(stack: StackProcess) -> int:
    """Broadcasts that the database has sent so far."""
    with stack.db() as conn:
        row = conn.execute("select count(*) as n from realtime.messages where topic = %s", [TOPIC]).fetchone()
        assert row is not None
        return int(row["n"])


def cpu(workers: list[Worker]) -> float:
    """CPU seconds of the workers and their children."""
    total = 0.0
    for worker in workers:
        process = psutil.Process(worker.pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:2])
    return total


def at_rate(
    stack: StackProcess, workers: list[Worker], rate: float, seconds: float, first: int = 1000
) -> Pace:
    """Write so many messages a second, wait until they have arrived, and count."""
    answered: dict[str, float] = {}
    calls = sum(worker.metric("gre_database_requests_total") for worker in workers)
    links = sum(worker.metric("gre_realtime_reconnections_total") for worker in workers)
    events, used, began = handed_out(stack) + wakeups_sent(stack), cpu(workers), time.time()

    def write(writer: int) -> None:
        """Write the messages of one writer; a session has one writer, so that its order is known."""
        with stack.db() as conn:
            for n in range(writer, int(rate * seconds), WRITERS):
                if (ahead := began + n / rate - time.time()) > 0:
                    let_pass(ahead, "the rate of writing")
                row = conn.execute(
                    "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x') returning id",
                    [first + n % SESSIONS],
                ).fetchone()
                assert row is not None
                answered[str(row["id"])] = time.time()

    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(write, range(WRITERS)))
    took = time.time() - began
    stack.drained()
    used = (cpu(workers) - used) / took
    events = handed_out(stack) + wakeups_sent(stack) - events
    calls = sum(worker.metric("gre_database_requests_total") for worker in workers) - calls
    links = sum(worker.metric("gre_realtime_reconnections_total") for worker in workers) - links
    late = sorted(
        max(0.0, item["at"] - answered[item["data"]["id"]]) * 1000
        for item in stack.received("pusher")
        if item["status"] == 200 and item["name"] == "new-player-message" and item["data"]["id"] in answered
    )
    verdict = judge(stack)
    return Pace(
        sent=len(answered),
        rate=len(answered) / took,
        p50=statistics.median(late),
        p99=late[int(len(late) * 0.99)],
        worst=late[-1],
        events=events / took,
        reconnections=links,
        lost=len(verdict.lost["pusher"]) + len(verdict.lost["onesignal"]),
        out_of_order=len(verdict.out_of_order["pusher"]) + len(verdict.out_of_order["onesignal"]),
        cpu=used,
        calls=calls / took,
    )


@contextlib.contextmanager
def flood(stack: StackProcess, rate: float) -> Iterator[None]:
    """A client with the anon key broadcasts at this rate a second to a channel of its own."""
    address = stack.url.replace("http", "ws", 1) + "/realtime/v1/websocket?vsn=1.0.0&apikey="
    ended = threading.Event()

    def talk() -> None:
        with connect(address + stack.env["SUPABASE_ANON_KEY"]) as socket:
            join: dict[str, Any] = {
                "topic": "realtime:flood",
                "event": "phx_join",
                "ref": "1",
                "join_ref": "1",
            }
            socket.send(_frame(join, {"config": {}}))
            socket.recv()
            said = {"topic": "realtime:flood", "event": "broadcast", "ref": None, "join_ref": "1"}
            began, n = time.monotonic(), 0
            while not ended.is_set():
                socket.send(_frame(said, {"type": "broadcast", "event": "x", "payload": {}}))
                n += 1
                ended.wait(max(0.0, began + n / rate - time.monotonic()))

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


def _frame(frame: dict[str, Any], payload: dict[str, Any]) -> str:
    import json

    return json.dumps({**frame, "payload": payload})

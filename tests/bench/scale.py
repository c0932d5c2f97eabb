"""What a message costs, and what many workers carry: measured here, and simulated with what was measured.

Three measurements: the database's calls in SQL; one worker with messages one by one, and with a backlog; and 1, 2 and 4
workers that drain the same backlog to a sink that is 50 ms away. The simulation predicts the last from the first two.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil

from tests.bench.costs import Costs, Line
from tests.bench.lab import Lab, disorder
from tests.bench.scene import Found, Scene
from tests.bench.simulation import simulate
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import wait_until

Say = Callable[[str], None]
WORKERS = (1, 2, 4)
SESSIONS = 500
DISTANCE = 0.05
RATE = 50.0
HOLD = 60.0
"""Seconds for which a backlog waits at most until all workers have started."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    waiting: int
    single: int
    paced: int
    sessions: int
    workers: tuple[int, ...]


WHOLE = Size(20_000, 1_000, 1_000, 100_000, (1, 5, 20))
QUICK = Size(2_000, 100, 100, 2_000, (1, 5))


class Usage:
    """The CPU seconds of the stack's parts, and the bytes of WAL, since it was made."""

    def __init__(self, stack: StackProcess) -> None:
        self._stack = stack
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        assert self._stack.process is not None
        stand_in = psutil.Process(self._stack.process.pid)
        postgres = 0.0
        for process in stand_in.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("postgres"):
                    times = process.cpu_times()  # with those of its children that have ended
                    postgres += times.user + times.system + times.children_user + times.children_system
        with self._stack.db() as conn:
            row = conn.execute("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn as bytes").fetchone()
        assert row is not None
        return {
            "postgres": postgres,
            "stand_in": sum(stand_in.cpu_times()[:2]),
            "wal": float(row["bytes"]),
            "at": time.monotonic(),
        }

    def since(self) -> dict[str, float]:
        """What was used: `postgres` and `stand_in` (CPU seconds), `wal` (bytes), `at` (seconds that passed)."""
        return {name: value - self._before[name] for name, value in self._now().items()}


@dataclass
class Calls:
    """The database's part of a message: CPU seconds and WAL bytes, for one message or row; `elapsed` in seconds."""

    insert: float
    insert_two: float
    insert_wal: float
    insert_two_wal: float
    claim: Line
    settle: Line
    claim_wal: float
    settle_wal: float
    batch_wal: float
    """Of a claim and a settle, for a row of a large one."""
    disk: float


def database(lab: Lab, say: Say, size: Size) -> Calls:
    """Measure the calls in SQL, on one connection."""
    say("scale: inserts, claims and settles in SQL")
    inserts = {}
    for sinks in (("pusher", "onesignal"), ("pusher",)):
        lab.fresh(sinks=sinks)
        lab.backlog(size.single, size.single)  # opens the sessions
        with lab.stack.db() as conn:
            usage = Usage(lab.stack)
            for n in range(size.single):
                conn.execute(
                    "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'message')",
                    [1 + n],
                )
            inserts[len(sinks)] = usage.since()
    with lab.stack.db() as conn:
        _claim_all(conn, size.single)  # what opened the sessions, and the inserted messages
        lab.backlog(size.single, size.single)
        empty = _each(lab, size.single, lambda: _claim(conn, "onesignal", 1))
        answers: list[Any] = []
        claims = _each(lab, size.single, lambda: answers.append(_claim(conn, "pusher", 1)))
        rows = sum(len(lane["deliveries"]) for _, lanes in answers for lane in lanes) / size.single
        settles = _each(lab, size.single, lambda: _settle(conn, *answers.pop()))
        lab.backlog(size.waiting, size.single)
        count = max(1, size.waiting // 1000)
        large = _each(lab, count, lambda: answers.append(_claim(conn, "pusher", 100)))
        many = sum(len(lane["deliveries"]) for _, lanes in answers for lane in lanes) / count
        settled = _each(lab, count, lambda: _settle(conn, *answers.pop()))
    one, two = inserts[1], inserts[2]
    return Calls(
        one["postgres"] / size.single, two["postgres"] / size.single, one["wal"] / size.single, two["wal"] / size.single,
        _line((0, empty["postgres"]), (rows, claims["postgres"]), (many, large["postgres"])),
        Line.through((rows, settles["postgres"]), (many, settled["postgres"])),
        claims["wal"] / rows, settles["wal"] / rows, (large["wal"] + settled["wal"]) / many,
        max(0.0, (one["at"] - one["postgres"]) / size.single),
    )  # fmt: skip


def _line(empty: tuple[float, float], one: tuple[float, float], many: tuple[float, float]) -> Line:
    """The line through a small and a large claim; a claim of nothing costs no more than its fixed part."""
    line = Line.through(one, many)
    return Line(max(line.fixed, min(empty[1], one[1])), line.each)


def _each(lab: Lab, count: int, act: Callable[[], Any]) -> dict[str, float]:
    """Act so many times; return what one took."""
    usage = Usage(lab.stack)
    for _ in range(count):
        act()
    return {name: value / count for name, value in usage.since().items()}


def _claim(conn: Any, sink: str, lanes: int) -> tuple[str, list[Any]]:
    """Claim as another worker each time, so that no lease counts as its own."""
    token = str(uuid.uuid4())
    row = conn.execute(
        "select gre_relay_claim_v1(%s, %s, %s, 10, 300, %s) as claim", [sink, token, lanes, str(uuid.uuid4())]
    ).fetchone()
    return token, row["claim"]["lanes"]


def _settle(conn: Any, token: str, lanes: list[Any]) -> None:
    results = [
        {"lane": lane["lane_key"], "token": token, "done": [d["id"] for d in lane["deliveries"]]}
        for lane in lanes
    ]
    conn.execute("select gre_relay_settle_v1('pusher', %s)", [json.dumps(results)])


def _claim_all(conn: Any, most: int) -> None:
    """Claim and settle until nothing is due."""
    for _ in range(most):
        token, lanes = _claim(conn, "pusher", 100)
        if not lanes:
            return
        _settle(conn, token, lanes)


@dataclass
class Run:
    """A run of daemons: CPU seconds by what used them, and counts."""

    workers: int
    events: int
    seconds: float
    cpu: float
    stand_in: float
    postgres: float
    sink: float
    calls: float
    requests: int
    wal: float
    wrong: int
    lost: int

    @property
    def rate(self) -> float:
        """Events a second, from the first arrival to the last."""
        return self.events / self.seconds if self.seconds > 0 else 0.0


@contextlib.contextmanager
def _relays(lab: Lab, count: int, *, live: bool) -> Iterator[list[Worker]]:
    """Relays alone, with Pusher alone."""
    workers = [
        Worker(
            lab.env,
            lab.stack.directory / f"scale-{count}-{n}.log",
            only="relay",
            ONESIGNAL_APP_ID="",
            ONESIGNAL_API_KEY="",
        )
        for n in range(count)
    ]
    for worker in workers:
        worker.start(ready=False)
    try:
        for worker in workers:
            wait_until(worker._ready, 60, what="/readyz")
            if live:
                wait_until(partial(_is_live, worker), 30, what="a subscription")
        yield workers
    finally:
        for worker in workers:
            worker.stop(60)


def _is_live(worker: Worker) -> bool:
    return worker.metric("gre_realtime_state", state="live") == 1


def _cpu(workers: list[Worker]) -> float:
    return sum(sum(process.cpu_times()[:2]) for worker in workers for process in worker.all())


def _measured(lab: Lab, workers: list[Worker], act: Callable[[], Any]) -> Run:
    """Act while these workers run; `act` returns when everything has been sent."""
    usage, cpu = Usage(lab.stack), _cpu(workers)
    sink = psutil.Process(lab._sink.pid)
    sink_cpu, before = sum(sink.cpu_times()[:2]), lab.state()
    calls = sum(worker.metric("gre_database_requests_total") for worker in workers)
    committed = act()
    used, sink_used, used_cpu = usage.since(), sum(sink.cpu_times()[:2]) - sink_cpu, _cpu(workers) - cpu
    calls = sum(worker.metric("gre_database_requests_total") for worker in workers) - calls
    state = lab.state()
    items = state["items"][len(before["items"]) :]
    first = lab.arrivals(committed)
    lost = sum(message.id not in first for message in committed)
    return Run(
        len(workers), len(items), items[-1][4] - items[0][4], used_cpu, used["stand_in"], used["postgres"], sink_used, calls,
        state["requests"]["pusher"] - before["requests"]["pusher"], used["wal"], disorder(committed, first), lost,
    )  # fmt: skip


def one_by_one(lab: Lab, say: Say, size: Size) -> Run:
    """One worker, with RATE messages a second in open sessions."""
    say(f"scale: a worker with {RATE:g} messages a second")
    lab.fresh(sinks=("pusher",))
    with _relays(lab, 1, live=True) as workers:
        lab.all_arrived(lab.insert(100, RATE), 20)

        def act() -> Any:
            committed = lab.insert(size.paced, RATE)
            lab.stack.drained()
            return committed

        return _measured(lab, workers, act)


def drained(lab: Lab, say: Say, size: Size, count: int, distance: float) -> Run:
    """So many workers, which all wait when the backlog becomes due."""
    say(f"scale: {count} worker(s), a backlog of {size.waiting}, the sink {distance * 1000:g} ms away")
    lab.fresh(sinks=("pusher",))
    committed = lab.backlog(size.waiting, SESSIONS)
    lab.sink.post("/distance", json={"seconds": distance}).raise_for_status()
    with lab.stack.db() as conn:
        conn.execute(
            "update gre_relay_lanes set ready_at = clock_timestamp() + make_interval(secs => %s)", [HOLD]
        )
        with _relays(lab, count, live=True) as workers:

            def act() -> Any:
                conn.execute(
                    "update gre_relay_lanes set ready_at = clock_timestamp() where ready_at is not null"
                )
                conn.execute("select gre_relay_notify_v1()")
                lab.stack.drained()
                return committed

            return _measured(lab, workers, act)


def costs_of(calls: Calls, paced: Run, backlog: Run) -> Costs:
    """The costs of the simulation: of the processes, from a run with messages one by one and one with a backlog."""
    worker = _fit(
        (paced.calls + paced.requests, paced.events, paced.cpu),
        (backlog.calls + backlog.requests, backlog.events, backlog.cpu),
    )
    call = _fit(
        (paced.calls, 2 * paced.events, paced.stand_in), (backlog.calls, 2 * backlog.events, backlog.stand_in)
    )
    sink = _fit((paced.requests, paced.events, paced.sink), (backlog.requests, backlog.events, backlog.sink))
    return Costs(calls.insert, calls.claim, calls.settle, call, calls.disk, worker.fixed, worker, sink)


def _fit(one: tuple[float, float, float], other: tuple[float, float, float]) -> Line:
    """The cost of an operation and of an event, from two runs: (operations, events, CPU seconds)."""
    (a, b, p), (c, d, q) = one, other
    by = a * d - b * c
    each = max(0.0, (a * q - c * p) / by) if by else 0.0
    return Line(max(0.0, (p - each * b) / a), each)


def predicted(run: Run, costs: Costs, distance: float = DISTANCE) -> Found:
    """Simulate a run on this machine."""
    cores = os.cpu_count() or 1
    scene = Scene(SESSIONS, run.workers, cores, backlog=run.events, together=True, distance=distance)
    return simulate(scene, costs)


def measure(stack: StackProcess, lab: Lab, say: Say, size: Size) -> tuple[Calls, Run, Run, list[Run]]:
    """Measure everything that needs the stack."""
    calls = database(lab, say, size)
    paced = one_by_one(lab, say, size)
    near = drained(lab, say, size, 1, 0.0)
    return calls, paced, near, [drained(lab, say, size, count, DISTANCE) for count in WORKERS]

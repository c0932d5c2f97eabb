"""What a message costs, and what many workers carry: measured here, and simulated with what was measured.

Three measurements: the database's calls in SQL; one worker with messages one by one, and with a backlog; and 1, 2 and 4
workers that drain the same backlog to a sink that is 50 ms away. The simulation predicts the last from the first two.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.bench.costs import Costs, Line
from tests.bench.lab import Lab, disorder
from tests.bench.scale_calls import Calls, Say, Size, Usage, database
from tests.bench.scene import Found, Scene
from tests.bench.simulation import simulate
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import let_pass, wait_until

WORKERS = (1, 2, 4)
SESSIONS = 500
DISTANCE = 0.05
RATE = 50.0
IDLE = 6.0
"""Seconds for which a worker without work is measured."""
CALLS_IDLE = 4
"""Calls to the database in a second that an idle worker makes at most."""
HOLD = 400.0
"""Seconds for which a backlog waits at most until all workers have started."""


WHOLE = Size(20_000, 1_000, 1_000, 100_000, (1, 5, 20))
QUICK = Size(2_000, 100, 100, 2_000, (1, 5))


@dataclass
class Run:
    """A run of daemons: CPU seconds by what used them, and counts.

    `others` are the programs of the machine's other users that ran at a time, on average.
    """

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
    others: float
    took: float

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


def _is_idle(worker: Worker) -> bool:
    """Return True if it has stopped to poll often, as it does for some seconds after the last message."""
    before = worker.metric("gre_database_requests_total")
    let_pass(1.0, "the interval in which it may poll")
    return worker.metric("gre_database_requests_total") - before <= CALLS_IDLE


def _cpu(workers: list[Worker]) -> float:
    return sum(sum(process.cpu_times()[:2]) for worker in workers for process in worker.all())


def _measured(lab: Lab, workers: list[Worker], act: Callable[[], Any]) -> Run:
    """Act while these workers run; `act` returns the messages that were sent, when all have been."""
    usage, cpu, load = Usage(lab.stack), _cpu(workers), Load()
    sink = psutil.Process(lab._sink.pid)
    sink_cpu, before = sum(sink.cpu_times()[:2]), lab.state()
    calls = sum(worker.metric("gre_database_requests_total") for worker in workers)
    committed = act()
    used, sink_used, used_cpu = usage.since(), sum(sink.cpu_times()[:2]) - sink_cpu, _cpu(workers) - cpu
    others = load.others(used_cpu + sink_used + used["postgres"] + used["stand_in"])
    calls = sum(worker.metric("gre_database_requests_total") for worker in workers) - calls
    state = lab.state()
    items = state["items"][len(before["items"]) :]
    first = lab.arrivals(committed) if committed else {}
    lost = sum(message.id not in first for message in committed)
    return Run(
        len(workers), len(items), items[-1][4] - items[0][4] if items else 0.0, used_cpu, used["stand_in"], used["postgres"],
        sink_used, calls, state["requests"]["pusher"] - before["requests"]["pusher"], used["wal"], disorder(committed, first), lost,
        others, used["at"],
    )  # fmt: skip


class Load:
    """The programs of others on this machine, from now on."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._seen: list[int] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._at = time.monotonic()
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            with contextlib.suppress(OSError):  # Linux only
                self._seen.append(int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1)

    def others(self, own: float) -> float:
        """The threads of others that ran or waited for a core, on average; `own`: CPU seconds that the bench used."""
        self._ended.set()
        self._thread.join()
        took = time.monotonic() - self._at
        running = sum(self._seen) / len(self._seen) if self._seen else 0.0
        cores = os.cpu_count() or 1
        waiting = running / cores if running > cores else 1.0  # own threads wait as the others do
        return max(0.0, running - own / took * waiting)


def one_by_one(lab: Lab, say: Say, size: Size) -> Run:
    """One worker, with RATE messages a second in open sessions; without what it uses when it is idle."""
    say(f"scale: a worker with {RATE:g} messages a second")
    lab.fresh(sinks=("pusher",))
    with _relays(lab, 1, live=True) as workers:
        lab.all_arrived(lab.insert(100, RATE), 20)
        wait_until(partial(_is_idle, workers[0]), 30, what="an idle worker")
        idle = _measured(lab, workers, partial(_nothing, IDLE))

        def act() -> Any:
            committed = lab.insert(size.paced, RATE)
            lab.stack.drained()
            return committed

        found = _measured(lab, workers, act)
    share = found.took / idle.took
    names = ("cpu", "stand_in", "postgres", "sink", "calls", "wal")
    return replace(
        found, **{name: max(0.0, getattr(found, name) - share * getattr(idle, name)) for name in names}
    )


def _nothing(seconds: float) -> list[Any]:
    let_pass(seconds, "the measured interval")
    return []


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
    """The cost of an operation and of an event, from two runs: (operations, events, CPU seconds).

    If one of them would be negative it is 0, and the other explains the second run.
    """
    (a, b, p), (c, d, q) = one, other
    by = a * d - b * c
    each = (a * q - c * p) / by if by else 0.0
    if each < 0:
        return Line(q / c)
    fixed = (p - each * b) / a
    return Line(fixed, each) if fixed >= 0 else Line(0.0, q / d)


def predicted(run: Run, costs: Costs, distance: float = DISTANCE) -> Found:
    """Simulate a run on this machine."""
    cores = os.cpu_count() or 1
    scene = Scene(
        SESSIONS,
        run.workers,
        cores,
        backlog=run.events,
        together=True,
        distance=distance,
        others=round(run.others),
    )
    return simulate(scene, costs)


def measure(stack: StackProcess, lab: Lab, say: Say, size: Size) -> tuple[Calls, Run, Run, list[Run]]:
    """Measure everything that needs the stack."""
    calls = database(lab, say, size)
    paced = one_by_one(lab, say, size)
    near = drained(lab, say, size, 1, 0.0)
    return calls, paced, near, [drained(lab, say, size, count, DISTANCE) for count in WORKERS]

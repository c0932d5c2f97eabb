"""The measurements: latency, drain, a fault, cost and growth. Each returns plain values for the report."""

from __future__ import annotations

import itertools
import math
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.bench.lab import (
    BRIDGE,
    QUEUES,
    UNLIMITED,
    Committed,
    Lab,
    Running,
    Steal,
    disorder,
    percentile,
    quietest,
)
from tests.support.waiting import let_pass, wait_until

Say = Callable[[str], None]

RATES = {1.0: 20, 10.0: 150, 50.0: 600, 200.0: 1600, 500.0: 3000}
"""Messages for each rate (a second)."""
FAR = (200.0, 500.0)
"""The rates that are also measured with a sink somewhere else."""
DESIGNS = ("floor", BRIDGE, "obvious", *QUEUES)
WAITING, SESSIONS = 20_000, 500
PATIENCE = 20.0
"""Seconds of a peer's drain that are enough for its rate."""
DISTANCE = 0.05
"""Seconds that the answer of a sink somewhere else takes."""
FAULT = 3.0
"""Seconds of 500."""


def feeding(design: str) -> dict[str, Any]:
    """Return the sinks and the job queue for which triggers write; the floor gets wake-ups, but has no outbox."""
    sinks = ("pusher", "onesignal") if design == BRIDGE else ()
    return {"sinks": sinks, "feeding": design if design in QUEUES else None}


@dataclass
class Latency:
    """Milliseconds from commit to arrival at the sink; hops as medians, where the design was observed.

    `steal` is the share of the machine's CPU time that its host took meanwhile.
    """

    WRONG: ClassVar[tuple[str, ...]] = ("lost",)
    design: str
    rate: float
    times: list[float]
    lost: int
    steal: float
    hops: tuple[float, float, float] | None = None
    distance: float = 0.0
    """Seconds that the sink's answers took."""

    def at(self, share: float) -> float:
        """A percentile; NaN if nothing arrived."""
        return percentile(self.times, share) if self.times else math.nan


def latency(lab: Lab, say: Say, rates: dict[float, int]) -> list[Latency]:
    """Measure every design at every rate; a running design has all rates, one after the other."""
    loads = [(rate, 0.0) for rate in rates] + [(rate, DISTANCE) for rate in FAR]
    cases = [(design, *load) for design in DESIGNS for load in loads]

    def measure(
        some: Sequence[tuple[str, float, float]],
    ) -> Iterator[tuple[tuple[str, float, float], Latency]]:
        for design, group in itertools.groupby(some, key=lambda case: case[0]):
            for one in _latency(lab, say, design, rates, [load for _, *load in group]):
                yield (design, one.rate, one.distance), one

    return quietest(cases, measure)


def _latency(
    lab: Lab, say: Say, design: str, rates: dict[float, int], loads: Sequence[Sequence[float]]
) -> list[Latency]:
    """Measure one design under these loads, each a rate and the sink's distance.

    It is started anew after a load that it could not carry, so that what is left of that load delays no other.
    """
    found: list[Latency] = []
    while len(found) < len(loads):
        lab.fresh(**feeding(design))
        if design == "floor":
            lab.stack.fault("realtime", {"max_events_per_second": UNLIMITED})
        with lab.running(design, observe=True) as running:
            # Afterwards sessions are open, connections established and plans cached.
            lab.all_arrived(lab.insert(60, 20), 20)
            seen = list(_until_too_much(lab, say, design, rates, loads[len(found) :]))
        found += [
            Latency(
                design,
                rate,
                [(first[c.id] - c.at) * 1000 for c in committed if c.id in first],
                sum(c.id not in first for c in committed),
                share,
                _hops(committed, first, running) if design == BRIDGE else None,
                distance,
            )
            for rate, distance, committed, first, share in seen
        ]
    return found


def _until_too_much(
    lab: Lab, say: Say, design: str, rates: dict[float, int], loads: Sequence[Sequence[float]]
) -> Iterator[tuple[float, float, list[Committed], dict[str, float], float]]:
    """Measure loads up to the first that does not arrive whole: rate, distance, commits, arrivals and steal of each."""
    for rate, distance in loads:
        away = f", the sink {distance * 1000:g} ms away" if distance else ""
        say(f"latency: {design}, {rates[rate]} messages at {rate:g}/s{away}")
        if design == "floor":
            # Its events are paired by their number, so each load starts at 0.
            lab.sink.delete("/").raise_for_status()
        lab.sink.post("/distance", json={"seconds": distance}).raise_for_status()
        steal = Steal()
        committed = lab.insert(rates[rate], rate)
        first = lab.all_arrived(committed, 60)
        yield rate, distance, committed, first, steal.share()
        if len(first) < len(committed):
            return


def _hops(
    committed: list[Committed], first: dict[str, float], running: Running
) -> tuple[float, float, float] | None:
    seen = [
        (c.at, *running.hops[c.id], first[c.id]) for c in committed if c.id in running.hops and c.id in first
    ]
    if not seen:
        return None
    return (
        statistics.median((asked - at) * 1000 for at, asked, _, _ in seen),
        statistics.median((answered - asked) * 1000 for _, asked, answered, _ in seen),
        statistics.median((came - answered) * 1000 for _, _, answered, came in seen),
    )


@dataclass
class Drain:
    """The drain of a backlog. `pusher` and `supabase` are requests, `cpu` is in seconds, `memory` in bytes at most.

    `distance` is how long the sink's answers took, in seconds; `steal` as above.
    """

    WRONG: ClassVar[tuple[str, ...]] = ("wrong", "repeats", "lost")
    design: str
    workers: int
    sent: int
    seconds: float
    wrong: int
    repeats: int
    lost: int | None
    pusher: int
    supabase: float | None
    cpu: float
    memory: int
    ending: float
    """Rate of the last quarter of the events as a share of that of the first."""
    steal: float
    distance: float = 0.0

    @property
    def rate(self) -> float:
        """Events a second, from the first arrival to the last."""
        return self.sent / self.seconds if self.seconds > 0 else 0.0


def drain(lab: Lab, say: Say, waiting: int = WAITING) -> list[Drain]:
    """Drain 20,000 messages of 500 sessions with one and two workers, for Pusher only, as the peers do.

    Then with two sinks, and with a sink as distant as Pusher, where neither the sink nor the machine is the limit.
    """
    near = [(design, workers, 0.0) for design in (BRIDGE, *QUEUES) for workers in (1, 2)]
    far = [(BRIDGE, workers, DISTANCE) for workers in (1, 2)]

    def measure(some: Sequence[tuple[str, int, float]]) -> Iterator[tuple[tuple[str, int, float], Drain]]:
        for case in some:
            design, workers, distance = case
            away = f", the sink {distance * 1000:g} ms away" if distance else ""
            say(f"drain: {design}, {waiting} messages, {workers} worker(s){away}")
            yield case, drain_once(lab, design, workers, waiting, distance=distance)

    return quietest(near + far, measure)


def drain_once(
    lab: Lab,
    design: str,
    workers: int,
    waiting: int,
    patience: float | None = None,
    distance: float = 0.0,
    capacity: dict[str, float | bool] | None = None,
    settings: dict[str, str] | None = None,
) -> Drain:
    """Measure one drain; that of a peer is ended after PATIENCE. `capacity`: what the sink bears; `settings`: the worker's."""
    own = design == BRIDGE
    lab.fresh(**(feeding(design) | ({"sinks": ("pusher",)} if own else {})))
    committed = lab.backlog(waiting, SESSIONS)
    lab.sink.post("/distance", json={"seconds": distance}).raise_for_status()
    if capacity is not None:
        lab.sink.post("/capacity", json=capacity).raise_for_status()
    memory, steal = 0, Steal()
    with lab.running(design, workers=workers, push=False, wait=False, settings=settings) as running:
        began = running.cpu()
        deadline = time.monotonic() + (120 if own else patience or PATIENCE)
        done = False
        while not done and time.monotonic() < deadline:
            let_pass(0.3, "between two samples")
            memory = max(memory, running.memory())
            done = _left(lab, design) == 0
        cpu, share = running.cpu() - began, steal.share()
        supabase = None
        if own:
            wait_until(lambda: all(worker._ready() for worker in running.workers), 30, what="/readyz")
            supabase = sum(
                running.metric("gre_database_requests_total", function=f"gre_relay_{name}_v1")
                for name in ("claim", "settle", "exchange", "extend", "release")
            )
    state = lab.state()
    taken = [item for item in state["items"] if item[5] == 200]
    arrivals = [item[1] for item in taken if item[0] == "new-player-message"]
    first = lab.arrivals(committed)
    seconds = taken[-1][4] - taken[0][4] if taken else 0.0
    return Drain(
        design, workers, len(taken), seconds, disorder(committed, first), len(arrivals) - len(set(arrivals)),
        len(committed) - len(first) if done else None, state["requests"]["pusher"], supabase, cpu, memory,
        _ending([item[4] for item in taken]), share, distance,
    )  # fmt: skip


def _ending(times: list[float]) -> float:
    """Return the rate of the last quarter of these arrivals, as a share of the first quarter's rate."""
    quarter = len(times) // 4
    last = times[-1] - times[-quarter] if quarter > 1 else 0.0
    return (times[quarter - 1] - times[0]) / last if last > 0 else 0.0


def _left(lab: Lab, design: str) -> int:
    query = {
        BRIDGE: "select count(*) as n from gre_relay_deliveries where state = 'pending' and sink = 'pusher'",
        "procrastinate": "select count(*) as n from procrastinate_jobs where status in ('todo', 'doing')",
        "pgqueuer": "select count(*) as n from pgqueuer",
    }[design]
    with lab.stack.db() as conn:
        row = conn.execute(query).fetchone()
    assert row is not None
    return int(row["n"])


@dataclass
class Fault:
    """The cost of a sink that answers 500 for some seconds; milliseconds from commit to arrival, `steal` as above."""

    WRONG: ClassVar[tuple[str, ...]] = ("lost", "wrong", "repeats")
    design: str
    count: int
    lost: int
    wrong: int
    repeats: int
    p50: float
    p99: float
    steal: float


def fault(lab: Lab, say: Say) -> list[Fault]:
    """Let the sink fail for three seconds, at 50 messages a second."""

    def measure(some: Sequence[str]) -> Iterator[tuple[str, Fault]]:
        for design in some:
            say(f"fault: {design}, {FAULT:g} s of 500 at 50 messages/s")
            yield design, _fault(lab, design)

    return quietest((BRIDGE, "obvious", *QUEUES), measure)


def _fault(lab: Lab, design: str, rate: float = 50.0, seconds: float = 12.0) -> Fault:
    lab.fresh(**feeding(design))
    with lab.running(design):
        lab.all_arrived(lab.insert(60, 20), 20)
        began, steal = time.time(), Steal()
        lab.sink.post("/fault", json={"seconds": 0}).raise_for_status()
        fail = _later(3.0, lambda: lab.sink.post("/fault", json={"seconds": FAULT}).raise_for_status())
        committed = lab.insert(int(rate * seconds), rate)
        fail()
        first = lab.all_arrived(committed, 60, quiet=10)
        share = steal.share()
    items = [i for i in lab.state()["items"] if i[0] == "new-player-message" and i[5] == 200 and i[4] > began]
    ids = {c.id for c in committed}
    arrived = [i[1] for i in items if i[1] in ids]
    times = [(first[c.id] - c.at) * 1000 for c in committed if c.id in first] or [0.0]
    return Fault(
        design,
        len(committed),
        len(committed) - len(set(arrived)),
        disorder(committed, first),
        len(arrived) - len(set(arrived)),
        percentile(times, 0.5),
        percentile(times, 0.99),
        share,
    )


def _later(seconds: float, act: Callable[[], Any]) -> Callable[[], None]:
    import threading

    timer = threading.Timer(seconds, act)
    timer.start()
    return timer.join


@dataclass
class Cost:
    """Memory and rate by backlog, claim times by delivered rows (ms), and idle CPU (share of a core)."""

    drains: dict[int, Drain] = field(default_factory=dict)
    claims: dict[int, float] = field(default_factory=dict)
    idle: float = 0.0


def cost(lab: Lab, say: Say, backlogs: tuple[int, ...], behind: tuple[int, ...]) -> Cost:
    """Measure memory with growing backlogs, claims with growing history, and an idle worker."""
    found = Cost()
    for waiting in backlogs:
        say(f"cost: memory while {waiting} wait")
        found.drains[waiting] = drain_once(lab, BRIDGE, 1, waiting)
    lab.fresh(**feeding(BRIDGE))
    with lab.running(BRIDGE) as running:
        say("cost: an idle worker")
        lab.all_arrived(lab.insert(20, 20), 20)
        let_pass(5, "work after the last message ends")
        began, cpu = time.monotonic(), running.cpu()
        let_pass(15, "the measured interval")
        found.idle = (running.cpu() - cpu) / (time.monotonic() - began)
    lab.fresh(sinks=("pusher",))
    lab.backlog(2_000, 200)
    have = 0
    for rows in behind:
        say(f"cost: a claim with {rows} delivered rows behind")
        with lab.stack.db() as conn:
            while have < rows:
                conn.execute(
                    "insert into gre_relay_deliveries (sink, lane_key, ord, event, state, settled_at)"
                    " select 'pusher', md5('s' || g / 20), g, 'message', 'done', now() from generate_series(%s::int, %s::int) g",
                    [have + 1, have + 100_000],
                )
                have += 100_000
            conn.execute("analyze gre_relay_deliveries")
            times = []
            for _ in range(15):
                owner = str(uuid.uuid4())
                began = time.perf_counter()
                conn.execute("select gre_relay_claim_v1('pusher', %s, 100, 10, 30, %s)", [owner, owner])
                times.append((time.perf_counter() - began) * 1000)
                conn.execute("select gre_relay_release_v1('pusher', %s)", [owner])
        found.claims[rows] = statistics.median(times)
    return found

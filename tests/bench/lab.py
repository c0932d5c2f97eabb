"""The environment of the bench: one embedded stack, one sink, designs as processes, and the pairs of inserts and arrivals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import httpx
import psutil

from tests.bench.peers import install_queue
from tests.support.stack import StackProcess, Worker
from tests.support.waiting import let_pass, wait_until

SESSIONS = 100
WRITERS = 6
BRIDGE = "gre-bridge"
QUEUES = ("procrastinate", "pgqueuer")
ROOT = Path(__file__).parent.parent.parent
LEFTOVERS = (
    """select format('drop table %s cascade', oid::regclass) as sql from pg_class where relkind = 'r'
        and relnamespace = 'public'::regnamespace and relname ~ '^(procrastinate_|pgqueuer)'""",
    """select format('drop function %s cascade', oid::regprocedure) as sql from pg_proc
        where pronamespace = 'public'::regnamespace and proname ~ '^(procrastinate_|fn_pgqueuer)'""",
    """select format('drop type %s cascade', oid::regtype) as sql from pg_type where typtype in ('c', 'e')
        and typnamespace = 'public'::regnamespace and typname ~ '^(procrastinate_|pgqueuer)'""",
)
"""What finds what the job queues left behind: tables, then functions, then types."""


@dataclass(frozen=True)
class Committed:
    """A message that was committed `at` (Unix seconds)."""

    id: str
    session: str
    seq: int
    at: float


@dataclass
class Running:
    """A running design: its processes, and the claims that each recorded."""

    processes: list[psutil.Process]
    workers: list[Worker] = field(default_factory=list)
    hops: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By message: when the claim for Pusher that held it was asked for, and answered. Filled when it has ended."""

    def all(self) -> list[psutil.Process]:
        """All processes of the design."""
        return [*self.processes, *(process for worker in self.workers for process in worker.all())]

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.all())

    def memory(self) -> int:
        """Bytes of memory of all processes; shared memory counts once (each has a part of it)."""
        return sum(process.memory_full_info().pss for process in self.all())

    def metric(self, name: str, **labels: str) -> float:
        """A metric of gre-bridge, summed over all workers."""
        return sum(worker.metric(name, **labels) for worker in self.workers)


QUIET = 0.05
"""Share of the machine's CPU time that its host may take while something is measured."""
ROUNDS = 3
"""How often that is measured at most."""
UNLIMITED = 1e9
"""Events a second: more than Realtime ever hands out here."""


class Steal:
    """The CPU time that the host takes from this machine from now on, for other guests or by a limit."""

    def __init__(self) -> None:
        self._taken, self._all = self._now()

    def share(self) -> float:
        """As a share of all CPU time, idle time included; 0 where the system does not count it."""
        taken, all_ = self._now()
        return (taken - self._taken) / (all_ - self._all) if all_ > self._all else 0.0

    @staticmethod
    def _now() -> tuple[float, float]:
        times = psutil.cpu_times()
        # Linux counts the guests' time, the last field, in the user's time too.
        return getattr(times, "steal", 0.0), sum(times[:8])


Case = TypeVar("Case", bound=Hashable)
Found = TypeVar("Found", bound="Measured")


class Measured(Protocol):
    """A measurement, with the host's share of the CPU time; WRONG are the counts that must be 0."""

    steal: float
    WRONG: ClassVar[tuple[str, ...]]


def quietest(
    cases: Sequence[Case], measure: Callable[[Sequence[Case]], Iterable[tuple[Case, Found]]]
) -> list[Found]:
    """Measure all cases, then those that were not QUIET again, at most ROUNDS times in all.

    The host's share alone decides which measurement counts; of the counts in WRONG, the highest counts.
    """
    found: dict[Case, Found] = {}
    for _ in range(ROUNDS):
        for case, one in measure([c for c in cases if c not in found or found[c].steal > QUIET]):
            known = (found[case], one) if case in found else (one,)
            found[case] = min(known, key=lambda x: x.steal)
            for name in one.WRONG:
                counts = [count for x in known if (count := getattr(x, name)) is not None]
                if getattr(found[case], name) is not None:  # unknown for a drain that was broken off
                    setattr(found[case], name, max(counts))
    return [found[case] for case in cases]


class ObservedWorker(Worker):
    """The relay of `gre-bridge run` alone, with records in its own process."""

    module = "tests.bench.observed"

    def start(self, *, ready: bool = True, within: float = 60.0) -> Self:
        self._from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", self.module, "run", "--no-api"]
            self.process = subprocess.Popen(command, env=self._env, stdout=out, stderr=out, cwd=ROOT)
        if ready:
            self._wait_ready(within)
        return self


class Lab:
    """The stack and the sink. Designs are measured here, one after the other."""

    def __init__(self, stack: StackProcess) -> None:
        self.stack = stack
        self._runs = 0

    def __enter__(self) -> Self:
        self._sink = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.sink"], stdout=subprocess.PIPE, cwd=ROOT
        )
        assert self._sink.stdout is not None
        port = self._sink.stdout.readline().decode().strip()
        self.sink = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        self.env = {
            **self.stack.env, "PUSHER_HOST": "127.0.0.1", "PUSHER_PORT": port, "PUSHER_SSL": "false",
            "ONESIGNAL_API_URL": f"http://127.0.0.1:{port}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.close()
        self._sink.terminate()
        self._sink.wait(10)

    def fresh(self, *, sinks: tuple[str, ...], feeding: str | None = None) -> None:
        """Empty the database; its triggers write for `sinks`, and for one of the job queues or none."""
        self.stack.reset()
        self.sink.delete("/").raise_for_status()
        with self.stack.db() as conn:
            conn.execute(
                "drop trigger if exists bench_feed on gre_chat_messages; drop function if exists bench_feed"
            )
            for find in LEFTOVERS:
                for row in conn.execute(find).fetchall():
                    conn.execute(row["sql"])
            conn.execute("update gre_relay_sinks set enabled = name = any(%s)", [list(sinks)])
        if feeding is not None:
            asyncio.run(install_queue(feeding, self.stack.env["SUPABASE_DB_URL"]))

    @contextlib.contextmanager
    def running(
        self,
        design: str,
        *,
        workers: int = 1,
        push: bool = True,
        wait: bool = True,
        observe: bool = False,
        settings: dict[str, str] | None = None,
    ) -> Iterator[Running]:
        """Run a design; `push` gives gre-bridge its second sink, `wait` waits until it is ready.

        `observe` fills `hops`, which the process keeps in memory until it ends. `settings`: further ones of gre-bridge.
        """
        with contextlib.ExitStack() as stack:
            if design == BRIDGE:
                running = stack.enter_context(
                    self._bridge(workers, settings or {}, push=push, wait=wait, observe=observe)
                )
            else:
                running = stack.enter_context(self._peer(design, workers))
            yield running

    @contextlib.contextmanager
    def _bridge(
        self, count: int, settings: dict[str, str], *, push: bool, wait: bool, observe: bool
    ) -> Iterator[Running]:
        changes = settings if push else {**settings, "ONESIGNAL_APP_ID": "", "ONESIGNAL_API_KEY": ""}
        workers: list[Worker] = []
        traces: list[Path] = []
        for _ in range(count):
            self._runs += 1
            traces.append(self.stack.directory / f"trace-{self._runs}")
            log = self.stack.directory / f"bench-{self._runs}.log"
            kind = ObservedWorker if observe else Worker
            workers.append(kind(self.env, log, GRE_BENCH_TRACE=str(traces[-1]), **changes))
        for worker in workers:
            worker.start(ready=False)
        running = Running([], workers)
        try:
            if wait:
                for worker in workers:
                    wait_until(worker._ready, 60, what="/readyz")
                    wait_until(
                        lambda w=worker: w.metric("gre_realtime_state", state="live") == 1,
                        30,
                        what="a live subscription",
                    )
            yield running
        finally:
            for worker in workers:
                worker.stop(60)
        for trace in traces if observe else ():
            for line in trace.read_text(encoding="utf-8").splitlines():
                sink, message, asked, answered = line.split()
                if sink == "pusher":
                    running.hops.setdefault(message, (float(asked), float(answered)))

    @contextlib.contextmanager
    def _peer(self, design: str, count: int) -> Iterator[Running]:
        self._runs += 1
        with (self.stack.directory / f"bench-{self._runs}.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.bench.peers", design]
            env = {**os.environ, **self.env}
            started = [
                subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, cwd=ROOT)
                for _ in range(count)
            ]
            try:
                for process in started:
                    assert process.stdout is not None
                    if process.stdout.readline() != b"ready\n":
                        raise RuntimeError(f"{design} did not start: {Path(log.name).read_text()[-2000:]}")
                yield Running([psutil.Process(process.pid) for process in started])
            finally:
                for process in started:
                    process.send_signal(signal.SIGTERM)
                for process in started:
                    try:
                        process.wait(15)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait(5)

    def insert(self, count: int, rate: float) -> list[Committed]:
        """Insert messages at `rate` a second over SESSIONS sessions, each in a transaction of its own."""
        committed: list[Committed] = []
        began = time.monotonic() + 0.2

        def write(part: int) -> None:
            with self.stack.db() as conn:
                for n in range(count):
                    # A session has one writer, as in production.
                    if n % SESSIONS % WRITERS != part:
                        continue
                    if (ahead := began + n / rate - time.monotonic()) > 0:
                        let_pass(ahead, "the rate of writing")
                    row = conn.execute(
                        "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'bench')"
                        " returning id::text, session_id::text, seq",
                        [1 + n % SESSIONS],
                    ).fetchone()
                    at = time.time()
                    assert row is not None
                    committed.append(Committed(row["id"], row["session_id"], row["seq"], at))

        threads = [threading.Thread(target=write, args=(part,)) for part in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(committed, key=lambda c: c.at)

    def backlog(self, count: int, sessions: int) -> list[Committed]:
        """Insert pending messages of `sessions` sessions."""
        with self.stack.db() as conn:
            for start in range(0, count, 10_000):
                conn.execute(
                    "insert into gre_chat_messages (player_id, sender, message)"
                    " select 1 + g %% %s, 'player', 'message ' || g from generate_series(%s::int, %s::int) g",
                    [sessions, start + 1, min(start + 10_000, count)],
                )
            conn.execute("vacuum analyze")  # as autovacuum does within a minute
            rows = conn.execute("select id::text, session_id::text, seq from gre_chat_messages").fetchall()
        return [Committed(row["id"], row["session_id"], row["seq"], 0.0) for row in rows]

    def state(self) -> dict[str, Any]:
        """Return what the sink has received: items and requests."""
        found: dict[str, Any] = self.sink.get("/").raise_for_status().json()
        return found

    def arrivals(self, committed: list[Committed]) -> dict[str, float]:
        """Return the first accepted arrival of each message at Pusher; for the floor, the n-th wake-up of a session is its n-th message."""
        first: dict[str, float] = {}
        order: dict[str, list[str]] = defaultdict(list)
        for message in sorted(committed, key=lambda c: (c.session, c.seq)):
            order[message.session].append(message.id)
        rung: dict[str, int] = defaultdict(int)
        for name, message, session, _, at, status in self.state()["items"]:
            if status != 200:
                continue
            if name == "floor":
                if rung[session] < len(order[session]):
                    first.setdefault(order[session][rung[session]], at)
                rung[session] += 1
            elif name == "new-player-message":
                first.setdefault(message, at)
        return first

    def all_arrived(self, committed: list[Committed], within: float, quiet: float = 6.0) -> dict[str, float]:
        """Wait until everything has arrived, or nothing has for `quiet` seconds."""
        deadline, changed, known = time.monotonic() + within, time.monotonic(), -1
        wanted = {message.id for message in committed}
        while True:
            first = {name: at for name, at in self.arrivals(committed).items() if name in wanted}
            if len(first) != known:
                known, changed = len(first), time.monotonic()
            now = time.monotonic()
            if len(first) >= len(committed) or now > deadline or now - changed > quiet:
                return first
            let_pass(0.5, "between two samples")


def disorder(committed: list[Committed], first: dict[str, float]) -> int:
    """Return how many messages arrived first after a later one of their session."""
    by_session: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for message in committed:
        if message.id in first:
            by_session[message.session].append((message.seq, first[message.id]))
    wrong = 0
    for arrivals in by_session.values():
        newest = 0.0
        for _, at in sorted(arrivals):
            wrong += at < newest
            newest = max(newest, at)
    return wrong


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of `values` do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]

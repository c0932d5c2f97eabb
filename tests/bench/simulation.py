"""Many workers in virtual time: the relay's own loops over the outbox in memory, with the costs that `scale` measured.

`python -m tests.bench.simulation --sessions 100000 --workers 20 --rate 500 --cores 16` runs one. Dispatcher, sender,
settler and poller are the daemon's. What is simulated: a call to the database (CPU of the worker, of PostgREST and of
PostgreSQL, and the wait for the disk), a request to the sink, and wake-ups. CPU is a queue in virtual time: a worker has
one thread, the database a number of cores that all calls share.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import math
import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

from structlog.testing import capture_logs

from gre_bridge.db.relay import RelayDatabase
from gre_bridge.db.types import Claim, ClaimRequest, LaneResult, Settled
from gre_bridge.metrics import Metrics
from gre_bridge.polling import Listening, Poller
from gre_bridge.relay.dispatcher import Dispatcher
from gre_bridge.relay.policy import Breaker, RetryPolicy
from gre_bridge.sinks.base import Outcome, Result, SinkRecord
from tests.bench.costs import Costs, Line
from tests.bench.indexed import IndexedOutbox, InstantOutbox
from tests.bench.scene import QUANTUM, Cores, Found, Scene, Thread, describe
from tests.support.relay import START, VirtualLoop, now, one_each
from tests.support.waiting import pause, until

WAKEUP = 0.004
"""Seconds from a commit to the arrival of its wake-up."""
POLL, FAST_POLL = 5.0, 1.0
"""The defaults of GRE_POLL_INTERVAL and GRE_FAST_POLL_INTERVAL."""


class Connection:
    """The outbox as one worker calls it: each call uses the CPU of the worker, of PostgREST and of PostgreSQL."""

    def __init__(self, world: World, thread: Thread) -> None:
        self._world = world
        self._thread = thread

    async def _reach(self, function: str, *lines: tuple[Line, int]) -> None:
        costs = self._world.costs
        self._world.found.calls[function] += 1
        await self._thread.work(costs.worker_call)
        await self._world.api(costs.call.fixed)
        for line, rows in lines:
            await self._world.cores.work(line.of(rows))

    async def _return(self, rows: int, each: float = 0.0, *, wrote: bool = True) -> None:
        await self._world.cores.work(each * rows)
        if wrote:
            await pause(self._world.costs.disk, "the disk")
        await self._world.api(self._world.costs.call.each * rows)

    async def claim(self, request: ClaimRequest) -> Claim:
        await self._reach("claim", (self._world.costs.claim, 0))
        claim = await self._world.outbox.claim(request)
        rows = sum(len(lane.deliveries) for lane in claim.lanes)
        await self._return(rows, self._world.costs.claim.each, wrote=rows > 0)
        return claim

    async def settle(self, *, sink: str, results: Iterable[LaneResult]) -> Settled:
        batch = list(results)
        rows = sum(len(result.done) for result in batch)
        await self._reach("settle", (self._world.costs.settle, rows))
        settled = await self._world.outbox.settle(sink=sink, results=batch)
        await self._return(rows)
        return settled

    async def exchange(self, results: Iterable[LaneResult], request: ClaimRequest) -> tuple[Settled, Claim]:
        batch = list(results)
        rows = sum(len(result.done) for result in batch)
        await self._reach("exchange", (self._world.costs.settle, rows), (self._world.costs.claim, 0))
        settled, claim = await self._world.outbox.exchange(batch, request)
        await self._return(sum(len(lane.deliveries) for lane in claim.lanes), self._world.costs.claim.each)
        return settled, claim

    async def extend(
        self, *, sink: str, token: str, lanes: list[str], lease: float
    ) -> tuple[frozenset[str], frozenset[str]]:
        await self._reach("extend", (self._world.costs.settle, len(lanes)))
        return await self._world.outbox.extend(sink=sink, token=token, lanes=lanes, lease=lease)

    async def release(self, *, sink: str, owner: str) -> bool:
        return await self._world.outbox.release(sink=sink, owner=owner)

    async def listen(self, listener: str, polls_for: float, *, idle: bool = False) -> Listening:
        """Register the poller, as the database does."""
        assert not idle
        await self._reach("listen", (self._world.costs.claim, 0))
        self._world.silent[listener] = now() + polls_for
        await self._return(0)
        return Listening(listeners=len(self._world.workers), hubs=0, broadcasts=True)

    async def unlisten(self, listener: str) -> None:
        self._world.silent.pop(listener, None)


class WorkerProcess:
    """One worker: a dispatcher and a poller of the relay, and their sink. It is the subscription to Realtime, too."""

    name = "pusher"
    batch_size = 10
    healthy = True
    listening_since = START

    def __init__(self, world: World, cores: Cores) -> None:
        self._world = world
        self._cores = cores
        self._thread = Thread(cores)
        self.concurrency = world.scene.concurrency
        self.last_wakeup = -math.inf
        self.sent = 0
        connection = Connection(world, self._thread)
        self.poller = Poller(
            registry=connection, target=self, wakeups=self, slow=POLL, fast=FAST_POLL, clock=now
        )
        self.dispatcher = Dispatcher(
            store=cast("RelayDatabase", connection), sink=self, route=one_each, metrics=Metrics(),
            retry=RetryPolicy(jitter=world.rng.random), breaker=Breaker(jitter=world.rng.random), wakeups=self,
            observer=self.poller, poll_interval=POLL, fast_poll_interval=FAST_POLL, clock=now,
        )  # fmt: skip

    @property
    def cpu(self) -> float:
        """CPU seconds so far; meaningless where all share the cores."""
        return self._cores.used

    def mark_unreliable(self) -> None: ...

    def report_missed_wakeup(self) -> None: ...

    def on_missed_wakeup(self) -> None: ...

    def set_row_changes(self, enabled: bool) -> None: ...

    def poll(self) -> None:
        self.dispatcher.poll()

    def wake_up(self, lane: str) -> None:
        """A wake-up arrived."""
        self.last_wakeup = now()
        self.dispatcher.notify((lane,))
        self.poller.on_wakeup()

    async def send(self, records: Sequence[SinkRecord]) -> list[Outcome]:
        """A request to the sink, which takes everything."""
        costs, world = self._world.costs, self._world
        await self._thread.work(costs.worker.of(len(records)))
        if world.sink is not None:
            await world.sink.work(costs.sink.of(len(records)))
        world.arrived(name for record in records for name in record.deliveries)
        self.sent += len(records)
        await pause(world.answer(), "the sink's answer")
        return [Outcome(Result.ACCEPTED) for _ in records]

    async def aclose(self) -> None:
        """Nothing to close."""


class World:
    """The database, the sink, the workers and the writers of one simulation."""

    def __init__(self, scene: Scene, costs: Costs, seed: int) -> None:
        self.scene, self.costs = scene, costs
        self.rng = random.Random(seed)
        self.cores = Cores(scene.cores)
        self._rest = Thread(self.cores) if scene.together else None
        self.sink = Thread(self.cores) if scene.together else None
        self.outbox = IndexedOutbox() if scene.indexed else InstantOutbox()
        self.silent: dict[str, float] = {}
        """By listener: until when it needs no wake-up."""
        self.found = Found(scene)
        self._committed: dict[str, float] = {}
        self._next: Counter[int] = Counter()
        self._newest: dict[str, int] = {}
        self.workers = [
            WorkerProcess(self, self.cores if scene.together else Cores(1)) for _ in range(scene.workers)
        ]

    async def api(self, seconds: float) -> None:
        """PostgREST's CPU: the stand-in has one thread, the real one takes any core of the database's machine."""
        await (self._rest or self.cores).work(seconds)

    def answer(self) -> float:
        """Seconds until the sink answers."""
        spread = self.scene.spread
        return self.scene.distance * (1.0 - spread + spread * self.rng.expovariate(1.0))

    def session(self) -> int:
        """The session of the next message."""
        scene = self.scene
        busy = int(scene.sessions * scene.busy)
        if busy and self.rng.random() < 0.5:
            return self.rng.randrange(busy)
        return self.rng.randrange(busy, scene.sessions)

    def commit(self, session: int, *, wake_up: bool = True) -> None:
        """Commit a message, with a wake-up unless all listeners poll."""
        lane = f"s{session}"
        name = f"{lane}.{self._next[session]}"
        self._next[session] += 1
        self._committed[name] = now()
        self.found.written += 1
        self.outbox.put(lane, name)
        if wake_up and (len(self.silent) < len(self.workers) or min(self.silent.values()) <= now()):
            for worker in self.workers:
                asyncio.get_running_loop().call_later(WAKEUP, worker.wake_up, lane)

    def arrived(self, names: Iterable[str]) -> None:
        """These messages reached the sink."""
        found, at = self.found, now()
        found.requests += 1
        found.first = min(found.first, at)
        for name in names:
            lane, number = name.split(".")
            if name in found.times:
                found.repeats += 1
                continue
            found.out_of_order += int(number) < self._newest.get(lane, -1)
            self._newest[lane] = int(number)
            found.times[name] = at - self._committed[name]
            found.last = at

    async def _use_core(self) -> None:
        used = 0.0
        while True:
            used = await self.cores.work(QUANTUM, used)

    async def _insert(self, session: int) -> None:
        await self.api(self.costs.call.of(1))
        await self.cores.work(self.costs.insert)
        await pause(self.costs.disk, "the disk")
        self.commit(session)

    async def _write(self) -> None:
        """Write at the rate, at random times."""
        async with asyncio.TaskGroup() as group:
            for at in itertools.takewhile(lambda at: at < START + self.scene.seconds, self._times()):
                await pause(at - now(), "the rate of writing")
                group.create_task(self._insert(self.session()))

    def _times(self) -> Iterable[float]:
        return itertools.accumulate(iter(lambda: self.rng.expovariate(self.scene.rate), None), initial=START)

    async def play(self) -> Found:
        """Run until everything has arrived, or the patience ends."""
        scene, found = self.scene, self.found
        if not scene.rate:
            for n in range(scene.backlog):
                self.commit(self.session() if scene.busy else n % scene.sessions, wake_up=False)
        running = [
            asyncio.create_task(run())
            for worker in self.workers
            for run in (worker.dispatcher.run, worker.poller.run)
        ]
        others = [asyncio.create_task(self._use_core()) for _ in range(scene.others)]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(scene.patience):
                    if scene.rate:
                        await self._write()
                    await until(lambda: len(found.times) == found.written, math.inf, 0.05)
        finally:
            took = now() - START
            for task in (*running, *others):
                task.cancel()
            await asyncio.wait((*running, *others))
        found.shares = [worker.sent for worker in self.workers]
        found.used = self.cores.used / took / scene.cores
        found.worker = max(worker.cpu for worker in self.workers) / took
        return found


def simulate(scene: Scene, costs: Costs, seed: int = 1) -> Found:
    """Run a simulation; the same scene, costs and seed give the same result."""

    async def play() -> Found:
        return await World(scene, costs, seed).play()

    with capture_logs(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(play())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one scene and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.simulation")
    for item in dataclasses.fields(Scene):
        default: Any = item.default
        if not isinstance(default, bool):
            parser.add_argument(f"--{item.name}", type=type(default), default=default)
    scene = Scene(**vars(parser.parse_args(arguments)))
    sys.stdout.write(f"{describe(simulate(scene, Costs.read()))}\n")


if __name__ == "__main__":
    main()

"""`python -m tests.chaos.soak --minutes 3`: steady load, a fault every few seconds, and at the end nothing lost.

Two workers share the load. One of them is killed or stopped now and then; memory and file descriptors of the other are
measured. The median of the last quarter of the run may be at most MEMORY (and DESCRIPTORS) above that of the second
quarter; the first is the warm-up.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from tests.chaos.cases import CASES
from tests.chaos.runner import GRACE, QUICK
from tests.chaos.scene import Fault, Scene
from tests.chaos.watch import SINKS
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

MEMORY = 8.0
"""MiB"""
DESCRIPTORS = 8
REST = 2.0, 4.0
"""Seconds between two faults."""
LASTS = 0.5, 3.0
"""Seconds of a fault."""
CALM_WITHIN = 30.0
"""Seconds after each fault within which all messages have arrived."""
ENV = {"GRE_LEASE_SECONDS": "3", "GRE_SEND_TIMEOUT": "2", "GRE_REQUEST_TIMEOUT": "2"}


@dataclass
class Samples:
    """A sample of each second."""

    memory: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)

    def growth(self, values: Sequence[float]) -> float:
        """The difference of the medians of the last and the second quarter."""
        quarter = max(1, len(values) // 4)
        return statistics.median(values[-quarter:]) - statistics.median(values[quarter : 2 * quarter])


class Soak:
    """The run as a whole."""

    def __init__(self, scene: Scene, minutes: float, rng: random.Random, log: Callable[[str], None]) -> None:
        self.scene = scene
        self.until = time.monotonic() + minutes * 60
        self.rng = rng
        self.log = log
        self.samples = Samples()
        self.faults: Counter[str] = Counter()
        self.slowest = 0.0
        self._process = psutil.Process(scene.workers[0].pids["relay"])
        self._next = 0.0

    def run(self) -> None:
        """Load and faults until the time is over; then drain."""
        menu: list[tuple[str, Fault]] = [(case.name, case.fault) for case in CASES if case.soak]
        menu += [("worker-killed", _second_killed), ("worker-terminated", _second_terminated)]
        self.scene.load.start()
        self._hold(self.rng.uniform(*REST))
        while time.monotonic() < self.until:
            name, fault = self.rng.choice(menu)
            self.log(name)
            self.faults[name] += 1
            with fault(self.scene):
                self._hold(self.rng.uniform(*LASTS))
            healed = time.time()
            wait_until(lambda since=healed: self._calm(since), CALM_WITHIN, 0.05, what=f"calm after {name}")  # type: ignore[misc]
            self.slowest = max(self.slowest, time.time() - healed)
            self._hold(self.rng.uniform(*REST))
        self.scene.load.stop()
        self.scene.stack.drained(GRACE)
        self.scene.watch.read()

    def _hold(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._sample()
            self.scene.hold(min(left, 0.5))

    def _calm(self, since: float) -> bool:
        self._sample()
        return self.scene.calm(QUICK, since=since)

    def _sample(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        self.samples.memory.append(self._process.memory_info().rss / 2**20)
        self.samples.descriptors.append(self._process.num_fds())
        with (
            contextlib.suppress(psycopg.Error),
            self.scene.stack.db() as conn,
        ):  # PostgreSQL may be unavailable
            row = conn.execute("select count(*) as n from gre_relay_deliveries where state = 'pending'")
            self.samples.pending.append(row.fetchone()["n"])  # type: ignore[index]


@contextlib.contextmanager
def _second_killed(scene: Scene) -> Iterator[None]:
    scene.workers[1].kill()
    yield
    scene.workers[1].start(ready=False)


@contextlib.contextmanager
def _second_terminated(scene: Scene) -> Iterator[None]:
    scene.check(scene.workers[1].stop(20) == 0, "SIGTERM: exit status is not 0")
    yield
    scene.workers[1].start(ready=False)


def summary(soak: Soak, console: Console) -> list[str]:
    """Print the table and return the problems."""
    scene, samples = soak.scene, soak.samples
    with scene.stack.db() as conn:
        rows = conn.execute(
            "select id::text, session_id::text as session, seq from gre_chat_messages"
        ).fetchall()
        other = conn.execute(
            "select count(*) as n from gre_relay_deliveries where state <> 'done' or attempts > 0"
        ).fetchone()
    seen = scene.watch.seen
    lost = sum(
        scene.watch.arrival(sink, r["id"], r["session"], r["seq"]) is None for r in rows for sink in SINKS
    )
    disorder = sum(len(one.out_of_order) for one in seen.values())
    memory, descriptors = samples.growth(samples.memory), samples.growth(samples.descriptors)
    table = Table("measure", "value", "limit", title="soak")
    for measure, value, allowed in (
        ("faults", f"{soak.faults.total()} of {len(soak.faults)} kinds", ""),
        ("messages", f"{len(rows)}", f"{len(scene.load.sent)} written"),
        ("lost", f"{lost}", "0"),
        ("out of order", f"{disorder}", "0"),
        ("repeats", "/".join(f"{len(seen[sink].repeats)}" for sink in SINKS), "repeats of the faults"),
        ("slowest recovery", f"{soak.slowest:.1f} s", f"{CALM_WITHIN:g} s"),
        ("attempts spent, dead or expired", f"{other['n'] if other else '?'}", "0"),
        ("largest number of pending deliveries", f"{max(samples.pending, default=0)}", ""),
        ("memory of the worker that was not killed", _range(samples.memory, "MiB"), ""),
        ("its growth", f"{memory:+.1f} MiB", f"+{MEMORY:g} MiB"),
        ("its file descriptors", _range(samples.descriptors, ""), ""),
        ("their growth", f"{descriptors:+.0f}", f"+{DESCRIPTORS}"),
    ):
        table.add_row(measure, value, allowed)
    console.print(table)
    found = [
        (lost, "messages were lost"),
        (disorder, "messages arrived out of order"),
        (len(rows) != len(scene.load.sent), "written and committed differ"),
        (other and other["n"], "an outage spent attempts"),
        (memory > MEMORY, "memory grows"),
        (descriptors > DESCRIPTORS, "file descriptors grow"),
    ]
    return [text for bad, text in found if bad] + scene.problems + scene.load.problems


def _range(values: Sequence[float], unit: str) -> str:
    return f"{min(values):.0f} to {max(values):.0f} {unit}".strip()


def main() -> int:
    """Run for as long as asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=36.0, help="messages a second")
    parser.add_argument("--seed", type=int, default=None, help="for the same faults again")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    console = Console(width=110)

    def log(text: str) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stdout.flush()

    log(f"seed {seed}")
    with (
        tempfile.TemporaryDirectory() as directory,
        StackProcess(Path(directory)) as stack,
        Scene(stack, workers=2, env=ENV, proxied=True, rate=options.rate) as scene,
    ):
        soak = Soak(scene, options.minutes, random.Random(seed), log)
        try:
            soak.run()
        except AssertionError as error:
            scene.problems.append(str(error).partition("\n")[0])
            scene.load.stop()
        problems = summary(soak, console)
    log("FAILED: " + "; ".join(problems) if problems else "ok")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())

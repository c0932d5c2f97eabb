"""A backlog of 100,000 while a sink is down: the worker's memory, and the rate of the drain.

`python -m tests.chaos.backlog` runs a worker beside 1,000 waiting messages and then another beside 100,000, Pusher
answering 500 to both, then lets each drain. Exit status 1 if memory is more than 20 MB apart, or the last
quarter of the drain slower than half of the first.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.stack import StackProcess
from tests.support.waiting import let_pass, wait_until

SIZES = (1_000, 100_000)
APART = 20.0
DOWN_FOR = 12.0


def left(stack: StackProcess) -> int:
    """Deliveries that wait."""
    with stack.db() as conn:
        row = conn.execute(
            "select count(*) as n from gre_relay_deliveries where state = 'pending'"
        ).fetchone()
    assert row is not None
    return int(row["n"])


def measure(stack: StackProcess, size: int) -> tuple[float, float, float, float]:
    """Memory while the sink is down and at most during the drain (MB), seconds to drain, last quarter's rate to the first's."""
    stack.reset()
    with stack.db() as conn:
        conn.execute("update gre_relay_sinks set enabled = name = 'pusher'")
        for _ in range(size // 1000):
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message)"
                " select 1 + g % 500, 'player', 'a line of usual length, more or less ' || g from generate_series(1, 1000) g"
            )
    stack.fault("pusher", {"mode": "status", "status": 500})
    worker = stack.worker("relay", ONESIGNAL_APP_ID="", ONESIGNAL_API_KEY="").start(ready=False)
    try:
        process = psutil.Process(worker.pid)
        wait_until(lambda: stack.received("pusher"), 30, what="a first try")
        until = time.monotonic() + DOWN_FOR
        down = 0
        while time.monotonic() < until:
            down = max(down, process.memory_info().rss)
            let_pass(0.2, "between two samples")
        stack.fault("pusher", None)
        began, drain, seen = time.monotonic(), 0, []
        while waiting := left(stack):
            seen.append((time.monotonic(), waiting))
            drain = max(drain, process.memory_info().rss)
            assert time.monotonic() - began < 200, "it does not drain"
            let_pass(0.2, "between two samples")
        took = time.monotonic() - began
    finally:
        worker.stop()
    whole = seen[0][1]
    first = next((at for at, waiting in seen if waiting <= whole * 3 / 4), began + took)
    last = next((at for at, waiting in seen if waiting <= whole / 4), began + took)
    going = next((at for at, waiting in seen if waiting < whole), began)
    return down / 1e6, drain / 1e6, took, (first - going) / max(began + took - last, 0.2)


def main() -> int:
    """Print a line for each size; 1 when something is off."""
    found = {}
    with tempfile.TemporaryDirectory() as directory, StackProcess(Path(directory)) as stack:
        for size in SIZES:
            down, drain, took, pace = found[size] = measure(stack, size)
            sys.stdout.write(
                f"{size:,} pending: {down:.1f} MB while Pusher is down, at most {drain:.1f} MB in the drain of {took:.1f} s\n"
            )
    sys.stdout.write(f"rate of the last quarter of the drain: {pace:.2f} of that of the first\n")
    small, large = (found[size] for size in SIZES)
    return int(large[0] - small[0] > APART or large[1] - small[1] > APART or large[3] < 0.5)


if __name__ == "__main__":
    sys.exit(main())

"""Realtime's limit of events: the same load with the limit, without it, and with other traffic that uses it up.

Realtime counts each event that it hands out against the project's limit (100 a second by default) and drops what is above
the average of a minute. The rates are those at which the real service was measured.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.lab import UNLIMITED
from tests.bench.report import Section
from tests.support.pacing import Pace, at_rate, flood
from tests.support.stack import StackProcess
from tests.support.waiting import let_pass

RATE, QUIET_RATE, FLOOD = 200.0, 5.0, 300.0
"""Messages a second above the limit, messages a second below it, and broadcasts a second of somebody else."""
FILLED = 65.0
"""Seconds after which a flood has used up the average of a minute."""


def limits(stack: StackProcess, say: Callable[[str], None], seconds: float) -> Section:
    """Measure each case for this many seconds."""
    rows: list[list[str]] = []

    def row(case: str, measure: Callable[[], Pace]) -> None:
        say(case)
        pace = measure()
        figures = (f"{pace.p50:.1f}", f"{pace.p99:.1f}", f"{pace.events:.1f}")
        counts = (f"{pace.reconnections:g}", str(pace.lost), str(pace.out_of_order), f"{pace.cpu:.0%}")
        rows.append([case, str(pace.sent), f"{pace.rate:.0f}", *figures, *counts])

    for case, limit in (("no limit", UNLIMITED), ("the default limit", None)):
        stack.reset()
        if limit is not None:
            stack.fault("realtime", {"max_events_per_second": limit})
        with stack.worker() as worker:
            row(f"{RATE:g} messages/s, {case}", lambda: at_rate(stack, [worker], RATE, seconds))
    stack.reset()
    with stack.worker() as worker, flood(stack, FLOOD):
        say("another client uses up the limit")
        let_pass(min(FILLED, seconds + 5), "the limit is used up")
        at_rate(stack, [worker], QUIET_RATE, 5, first=5000)  # the worker notices that wake-ups are dropped
        row(
            f"{QUIET_RATE:g} messages/s, another client broadcasts {FLOOD:g} times a second",
            lambda: at_rate(stack, [worker], QUIET_RATE, seconds),
        )
    return Section(
        "Realtime's limit of events",
        [
            "load",
            "messages",
            "written/s",
            "p50 ms",
            "p99 ms",
            "own events/s",
            "reconnections",
            "lost",
            "out of order",
            "CPU",
        ],
        rows,
        "Milliseconds from the insert's answer to the arrival at Pusher. The limit is 100 events a second for a project.",
    )

"""Cases that need hours: the relay on a virtual clock, with an outbox in memory (tests/support/relay.py)."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from structlog.testing import capture_logs

from tests.chaos.runner import Report
from tests.support.relay import (
    DOWN,
    START,
    Outbox,
    ScriptedSink,
    VirtualLoop,
    lane_order,
    now,
    relaying,
    settled_in_time,
    until,
)
from tests.support.waiting import pause

HOUR = 3600.0
LANES = 40
EVERY = 5.0


@dataclass(frozen=True)
class Simulated:
    """A case in virtual time; `play` fills the report in."""

    name: str
    description: str
    bound: float
    play: Callable[[Report], Awaitable[None]]

    def run(self) -> Report:
        """Run it, in milliseconds for each minute."""
        report = Report(self.name, self.description, self.bound)
        try:
            with capture_logs(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
                runner.run(settled_in_time(self.play(report), 24 * HOUR))
        except AssertionError as error:
            report.problems.append(str(error))
        return report


async def _hour_of_500(report: Report) -> None:
    """The sink answers 500 for an hour, while a message comes every few seconds."""
    outbox, sink, rng = Outbox(), ScriptedSink(batch_size=10, concurrency=8), random.Random(1)
    sink.answer = lambda _: DOWN if START + 60 <= now() < START + 60 + HOUR else None
    async with relaying(outbox, sink):
        while now() < START + 60 + HOUR:
            lane = f"s{rng.randrange(LANES)}"
            outbox.put(lane, f"{lane}.{report.sent}")
            report.sent += 1
            await pause(EVERY, "the rate of messages")
        healed = now()
        await until(outbox.drained, within=HOUR)
    report.recovery = max(at for at, _ in sink.received) - healed
    report.delivered = len(sink.arrived)
    report.lost = report.sent - report.delivered
    report.repeats = {"sink": len(sink.received) - len(sink.arrived)}
    for names in lane_order(sink.arrived).values():
        numbers = [int(name.split(".")[1]) for name in names]
        report.out_of_order += sum(b < a for a, b in itertools.pairwise(numbers))
    tries = sum(START + 60 <= at < healed for at in sink.times)
    spent = sum(row.attempts for row in outbox.rows().values())
    for bad, problem in (
        (report.lost, f"lost {report.lost}"),
        (report.out_of_order, f"out of order {report.out_of_order}"),
        (report.repeats["sink"], "repeats"),
        (spent, f"{spent} attempts spent"),
        (set(outbox.states().values()) != {"done"}, "not everything is done"),
        (report.recovery > report.bound, f"recovery took {report.recovery:.1f} s"),
        # A try every 7.5 s at the most often once it has lasted, and some at the beginning.
        (tries > HOUR / 7.5 + 60, f"{tries} requests while it was down"),
    ):
        if bad:
            report.problems.append(problem)


SIMULATED = {
    case.name: case
    for case in (
        # The breaker's longest pause.
        Simulated(
            "sink-500-for-an-hour", "a sink answers 500 for an hour (virtual clock)", 15.0, _hour_of_500
        ),
    )
}

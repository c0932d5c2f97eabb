"""Lost wake-ups under load."""

from __future__ import annotations

from tests.support.relay import Outbox, ScriptedSink, now, relaying, until, virtual
from tests.support.waiting import pause


@virtual
async def test_work_without_wakeups_is_reported_once_under_load() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink, poll_interval=5.0) as relay:
        began = now()
        for n in range(30 * 20):  # half a minute, a message each 50 ms, and no wake-up
            outbox.put(f"s{n % 24}", f"s{n % 24}.{n}")
            await pause(0.05, "the rate of messages")
        assert now() > began + 29
        await until(outbox.drained)
    assert sum(len(ages) for _, ages in relay.polls) == 600

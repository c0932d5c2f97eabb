"""A feed that answers and does not ring, under load."""

from __future__ import annotations

import asyncio

from gre_bridge.feed import Timing
from tests.relay import Outbox, ScriptedSink, now, relaying, until, virtual


@virtual
async def test_deafness_is_noticed_though_messages_never_stop_coming() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink, sweep_interval=5.0) as relay:
        began = now()
        for n in range(30 * 20):  # half a minute, a message each 50 ms, and no bell
            outbox.put(f"s{n % 24}", f"s{n % 24}.{n}")
            await asyncio.sleep(0.05)
        assert now() > began + 29
        await until(outbox.drained)
    # What `Feed.missed` believes: work older than its grace.
    assert [age for age in relay.missed if age >= Timing().grace]

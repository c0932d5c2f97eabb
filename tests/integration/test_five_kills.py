"""The whole daemon is killed five times under load: nothing is lost, and order holds."""

from __future__ import annotations

import pytest

from tests.integration.test_relay import MESSAGES, SESSIONS, WRITERS, write
from tests.support.stack import StackProcess, judge
from tests.support.waiting import wait_until


def unsettled(stack: StackProcess) -> set[tuple[str, str]]:
    """Return sink and message of the deliveries that are not settled."""
    with stack.db() as conn:
        rows = conn.execute(
            "select sink, message_id::text as m from gre_relay_deliveries where state = 'pending' and message_id is not null"
        ).fetchall()
    return {(row["sink"], row["m"]) for row in rows}


@pytest.mark.quiet
def test_nothing_is_lost_and_order_holds_while_the_worker_is_killed_five_times(stack: StackProcess) -> None:
    worker = stack.worker(GRE_LEASE_SECONDS="6")
    worker.start()
    writing = write(stack, MESSAGES, SESSIONS, WRITERS)
    kills: list[tuple[float, set[tuple[str, str]]]] = []
    try:
        for n in range(5):
            # Under load: after at least this many deliveries.
            wait_until(lambda n=n: stack.accepted("pusher") > (n + 1) * 600, what="progress")
            killed_at = worker.kill()
            kills.append((killed_at, unsettled(stack)))
            worker.start(ready=False)
        writing.join(240)
        stack.drained(180)
    finally:
        writing.join(240)
        worker.kill()
    verdict = judge(stack)
    assert verdict.committed == MESSAGES
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.out_of_order == {"pusher": [], "onesignal": []}
    for sink, repeats in verdict.repeats.items():
        # Only deliveries in flight at a kill are repeated: sent and not yet settled, or in the stack's socket.
        for message, first, again in repeats:
            gaps = [
                kill - first
                for kill, left in kills
                if first - 1.0 <= kill <= again and (sink, message) in left
            ]
            assert gaps and min(gaps) < 5.0, (sink, len(repeats), gaps, again - first)

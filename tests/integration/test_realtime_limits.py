"""The relay under Realtime's limit of events, above which Realtime drops events without an error.

The long runs, with the rates that were measured on the real service, are `make bench ARGS="--only limits"`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.test_files_worker import send
from tests.support.pacing import at_rate, flood, handed_out, wakeups_sent
from tests.support.stack import StackProcess, Worker, judge
from tests.support.waiting import let_pass, wait_until

MESSAGE = "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x')"


def spent(stack: StackProcess) -> bool:
    """Return True if a wake-up that is sent now is dropped."""
    before = dropped(stack)
    with stack.db() as conn:
        conn.execute("select realtime.send('{}', 'wakeup', 'gre:relay', true)")
    let_pass(0.2, "Realtime counts a dropped event")
    return dropped(stack) > before


def dropped(stack: StackProcess) -> int:
    health = stack.http.get("/__stack/health").json()["realtime"]["dropped"]
    return int(health.get("gre:relay", 0))


def steady(conn: psycopg.Connection[Any], rate: float, seconds: float) -> None:
    for n in range(int(rate * seconds)):
        conn.execute(MESSAGE, [1000 + n % 24])
        let_pass(1 / rate, "the rate of messages")


def complete(stack: StackProcess) -> None:
    stack.drained()
    verdict = judge(stack)
    assert verdict.lost == {"pusher": [], "onesignal": []}
    assert verdict.out_of_order == {"pusher": [], "onesignal": []}


@pytest.fixture
def worker(stack: StackProcess) -> Iterator[Worker]:
    with stack.worker() as worker:
        yield worker


@pytest.fixture
def other(stack: StackProcess) -> Iterator[Worker]:
    with stack.worker() as worker:
        yield worker


@pytest.mark.quiet
def test_a_rate_above_the_limit_causes_few_events_and_no_reconnection(
    stack: StackProcess, worker: Worker
) -> None:
    """With a broadcast and a row change for each message this limit was passed within seconds."""
    stack.fault(
        "realtime", None
    )  # the counters begin anew; a limit is found to be passed at their tick of 5 s
    stack.fault("realtime", {"max_events_per_second": 12})
    pace = at_rate(stack, [worker], 60, 7)
    assert dropped(stack) == 0
    assert pace.events <= 10, pace
    assert pace.reconnections == 0, pace
    assert (pace.lost, pace.out_of_order) == (0, 0), pace
    assert pace.p50 < 60, pace


@pytest.mark.quiet
def test_two_workers_cause_no_more_events_than_one(
    stack: StackProcess, worker: Worker, other: Worker
) -> None:
    pace = at_rate(stack, [worker, other], 40, 6)
    assert pace.events <= 10, pace
    assert pace.reconnections == 0, pace
    assert (pace.lost, pace.out_of_order) == (0, 0), pace


@pytest.mark.quiet
def test_uploads_cause_few_events_at_any_rate(stack: StackProcess, worker: Worker) -> None:
    wait_until(lambda: worker.metric("gre_realtime_state", state="live", process="relay") == 1, what="live")
    events, began = handed_out(stack) + wakeups_sent(stack), time.monotonic()
    for n in range(80):
        send(stack, 2000 + n % 8, b"a,%d\n" % n, "text/csv", "a.csv")
        let_pass(max(0.0, began + n / 10 - time.monotonic()), "the rate of uploads")
    seconds = time.monotonic() - began
    wait_until(lambda: worker.metric("gre_files_examined_total", result="ready") == 80, what="all files")
    events = handed_out(stack) + wakeups_sent(stack) - events
    assert events <= 10 * max(seconds, 8), (events, seconds)


@pytest.fixture
def throttled(stack: StackProcess, worker: Worker) -> Iterator[Worker]:
    """A worker whose wake-ups are dropped, and which has noticed it."""
    stack.fault("realtime", {"max_events_per_second": 50})
    with flood(stack, 300):
        wait_until(lambda: spent(stack), what="the limit")

        def throttled() -> bool:
            stack.insert(player_id=1, sender="player", message="x")
            return worker.metric("gre_realtime_state", state="throttled", process="relay") == 1

        wait_until(throttled, every=1.0, what="the worker to notice that wake-ups are dropped")
        assert dropped(stack) > 0
        stack.drained()
        yield worker


@pytest.mark.quiet
def test_broadcasts_of_others_that_use_up_the_limit_cost_little(
    stack: StackProcess, throttled: Worker
) -> None:
    pace = at_rate(stack, [throttled], 5, 6)
    assert throttled.metric("gre_realtime_state", state="throttled", process="relay") == 1
    assert pace.p50 < 60, pace
    assert pace.reconnections == 0, pace
    assert (pace.lost, pace.out_of_order) == (0, 0), pace


def test_the_registration_of_a_worker_killed_while_polling_expires(stack: StackProcess) -> None:
    """The other worker continues, and gets wake-ups again when it stops polling."""
    with (
        stack.worker(GRE_LEASE_SECONDS="2") as one,
        stack.worker(GRE_LEASE_SECONDS="2") as other,
        stack.db() as conn,
    ):
        at_rate(stack, [one, other], 40, 3)
        killed = threading.Timer(1.0, one.kill)
        killed.start()
        steady(conn, 40, 2)
        killed.join()
        complete(stack)
        before = handed_out(stack)

        def woken() -> bool:
            conn.execute(MESSAGE, [1])
            return handed_out(stack) > before

        wait_until(woken, every=1.0, what="a wake-up after the time of polling")
        complete(stack)


@pytest.mark.quiet
@pytest.mark.usefixtures("worker")
def test_a_commit_long_after_the_time_of_polling_is_found_soon(stack: StackProcess) -> None:
    with stack.db() as conn, stack.db() as slow:
        steady(conn, 40, 3)
        sent = wakeups_sent(stack)
        with slow.transaction():
            slow.execute(MESSAGE, [7])
            let_pass(4.0, "the relay falls asleep")
            assert wakeups_sent(stack) == sent, (
                "the worker polled when this was written, so no wake-up is sent"
            )
        began = time.monotonic()
        stack.drained()
        assert time.monotonic() - began < 2.5, "an eighth of the time since the last work"
        complete(stack)

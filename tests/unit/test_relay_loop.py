"""The loop that claims, sends and settles, in virtual time, against an outbox in memory and a scripted sink."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
import time
from collections.abc import Iterable, Sequence

import pytest

from gre_bridge import clock
from gre_bridge.clock import shared_clock
from gre_bridge.db.types import Claim, ClaimRequest, Lane, LaneResult
from gre_bridge.errors import BridgeError, ConfigurationError, TransientError
from gre_bridge.metrics import Metrics
from gre_bridge.relay.dispatcher import UNSETTLED_LIMIT, Dispatcher
from gre_bridge.relay.lease import Leases
from gre_bridge.relay.policy import Pace, RetryPolicy
from gre_bridge.relay.schedule import ClaimSchedule
from gre_bridge.relay.sender import AHEAD, PROGRESS
from gre_bridge.relay.settler import BATCH, BUSY_PAUSE, LINGER, Settler
from gre_bridge.sinks.base import SinkRecord
from tests.support.relay import (
    DOWN,
    MAX_LEASE,
    REFUSED,
    START,
    Outbox,
    Relay,
    ScriptedSink,
    cancelled,
    elapse,
    lane_order,
    now,
    one_each,
    relaying,
    settled_in_time,
    until,
    virtual,
)


def fill(outbox: Outbox, lanes: int, each: int) -> None:
    for lane in range(lanes):
        outbox.put(f"s{lane}", *(f"s{lane}.{n}" for n in range(each)))


def lease_of_another(outbox: Outbox) -> None:
    """Add a lane with a long lease of another worker, so that each claim leaves one that is due."""
    outbox.put("z", "z.0")
    outbox.lanes["z"].lease("another's", "another", MAX_LEASE)


def take_over(outbox: Outbox, lane: str) -> None:
    """Lease this lane for another worker."""
    outbox.lanes[lane].lease("another's", "another", MAX_LEASE)


def in_order(sink: ScriptedSink) -> bool:
    """Return True if the first arrivals of each lane are in its order."""
    return all(
        [int(n.split(".")[1]) for n in names] == sorted(int(n.split(".")[1]) for n in names)
        for names in lane_order(sink.arrived).values()
    )


# Sending ----------------------------------------------------------------------------------------------------


@virtual
async def test_everything_arrives_once_and_in_order_over_several_batches_send_tasks_and_claims() -> None:
    outbox, rng = Outbox(), random.Random(1)
    sink = ScriptedSink(batch_size=7, concurrency=4)
    fill(outbox, 40, 25)
    async with relaying(outbox, sink, lanes_per_claim=9, rows_per_lane=10):
        for n in range(200):
            outbox.put(f"s{rng.randrange(40)}", f"s{rng.randrange(1)}x.{n}")
        await until(outbox.drained)
    assert len(sink.received) == 40 * 25 + 200
    assert len(set(sink.arrived)) == len(sink.received)
    for lane in range(40):
        own = [name for name in sink.arrived if name.startswith(f"s{lane}.")]
        assert own == [f"s{lane}.{n}" for n in range(25)]


@virtual
async def test_a_refused_event_blocks_only_its_own_lane_and_is_sent_first_when_it_is_due() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=1)
    refused = iter([REFUSED, REFUSED])
    sink.answer = lambda record: next(refused, None) if record.deliveries == ("a.1",) else None
    outbox.put("a", "a.0", "a.1", "a.2")
    outbox.put("b", "b.0", "b.1")
    async with relaying(outbox, sink, retry=RetryPolicy(base=4.0, jitter=lambda: 1.0)):
        await until(outbox.drained)
        assert sink.arrived == ["a.0", "b.0", "b.1", "a.1", "a.2"]
        assert outbox.rows()["a.1"].attempts == 2
        assert outbox.rows()["a.2"].attempts == 0
        arrived = {name: at - START for at, name in sink.received}
        assert arrived["b.1"] < 0.1
        assert 12.0 < arrived["a.1"] < 12.1  # 4 s after the first refusal, 8 s after the second


@virtual
async def test_an_event_that_is_always_refused_is_dead_and_the_rest_of_its_lane_follows() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    sink.answer = lambda record: REFUSED if record.deliveries == ("a.0",) else None
    outbox.put("a", "a.0", "a.1")
    async with relaying(outbox, sink, retry=RetryPolicy(max_attempts=3)) as relay:
        await until(outbox.drained)
        assert outbox.states() == {"a.0": "dead", "a.1": "done"}
        assert outbox.rows()["a.0"].attempts == 3
        assert "400" in outbox.rows()["a.0"].error
        assert relay.value("gre_deliveries_settled_total", outcome="dead") == 1
        assert relay.dispatcher.breaker.reason == ""


@virtual
async def test_unsent_lanes_are_freed_without_an_attempt_when_the_service_fails() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=2, concurrency=1)
    outbox.put("a", "a.0")
    outbox.put("b", "b.0", "b.1", "b.2")
    sink.answer = lambda _: ConfigurationError("401")
    async with relaying(outbox, sink):
        await until(lambda: outbox.count("settle"))
        await until(lambda: not any(q.token for q in outbox.lanes.values()))
        assert len(sink.requests) == 1  # the send task stopped: the second request was not made
        assert {row.attempts for row in outbox.rows().values()} == {0}
        assert set(outbox.states().values()) == {"pending"}
        sink.answer = lambda _: None
        await until(outbox.drained)
    assert in_order(sink)
    assert len(sink.received) == 4


@virtual
async def test_lanes_are_spread_over_as_many_requests_as_the_sink_takes() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=4, latency=1.0)
    fill(outbox, 40, 1)
    async with relaying(outbox, sink):
        await until(outbox.drained)
    assert sink.most == 4
    assert [len(r) for r in sink.requests] == [10, 10, 10, 10]
    assert sink.times[0] == sink.times[-1]


@virtual
async def test_few_events_are_one_request() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=8)
    fill(outbox, 5, 2)
    async with relaying(outbox, sink):
        await until(outbox.drained)
    assert len(sink.requests) == 1


@virtual
async def test_a_lane_lost_to_another_worker_stops_and_its_sent_deliveries_are_recorded() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=1, latency=1.0)
    outbox.put("a", *(f"a.{n}" for n in range(20)))
    async with relaying(outbox, sink, lease_seconds=8.0, rows_per_lane=20) as relay:
        await until(lambda: len(sink.received) == 3)
        take_over(outbox, "a")
        await elapse(60)
        # It notices at its next extension: at half of the lease, then after each eighth.
        assert len(sink.requests) <= 3 + 5
        assert sum(s == "done" for s in outbox.states().values()) == len(sink.received)
        assert relay.value("gre_leases_lost_total") >= 1


@virtual
async def test_nothing_is_sent_after_the_deadline_when_the_database_does_not_answer() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=1, latency=1.0)
    outbox.put("a", *(f"a.{n}" for n in range(30)))
    outbox.fail("extend", times=1000)
    async with relaying(outbox, sink, lease_seconds=8.0, rows_per_lane=30):
        await until(lambda: sink.requests)
        outbox.fail("claim", times=1000)
        outbox.fail("settle", times=1000)
        claimed = outbox.times("claim")[0]
        await elapse(60)
        assert max(sink.times) < claimed + 8.0
        assert len(sink.requests) >= 7


@virtual
@pytest.mark.parametrize("code", ["PGRST003", "57014", "timeout", "connection"])
async def test_a_failed_claim_is_repeated_without_a_release_before_it(code: str) -> None:
    """While other queries use all connections, a release would wait as long as the claim: two time-outs instead of one."""
    outbox, sink = Outbox(), ScriptedSink()
    outbox.put("a", "a.1")
    outbox.fail("claim", TransientError("gre_relay_claim_v1: no", code=code))
    async with relaying(outbox, sink):
        await until(outbox.drained)
    assert outbox.count("release") == 0


@virtual
async def test_after_a_suspend_beyond_its_lease_a_worker_sends_nothing_of_lanes_claimed_by_another() -> None:
    """A suspend stops the clock of the loop, not the database's: the lease has expired after one second of the loop."""
    slept = [0.0]
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=1, latency=1.0)
    outbox.put("a", *(f"a.{n}" for n in range(20)))
    outbox.fail("extend", times=1000)
    async with relaying(
        outbox, sink, lease_seconds=30.0, rows_per_lane=20, clock=lambda: now() + slept[0]
    ) as relay:
        await until(lambda: len(sink.received) == 3)
        slept[0] = 60.0
        take_over(outbox, "a")
        tries = len(sink.requests)
        await elapse(60)
        assert len(sink.requests) == tries, "only the request in flight was sent"
        assert "a" not in relay.dispatcher.leases


def test_the_dispatchers_clock_continues_during_a_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(time, "CLOCK_BOOTTIME"):
        monkeypatch.setattr(time, "clock_gettime", {time.CLOCK_BOOTTIME: 5000.0}.__getitem__)
        assert shared_clock() == 5000.0
    monkeypatch.setattr(clock, "_BOOTTIME", None)
    assert abs(shared_clock() - time.monotonic()) < 1
    assert inspect.signature(Dispatcher).parameters["clock"].default is shared_clock


@virtual
async def test_a_lane_that_takes_longer_than_its_lease_is_prolonged_and_sent_once() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=2, latency=1.0)
    outbox.put("a", *(f"a.{n}" for n in range(30)))
    async with (
        relaying(outbox, sink, lease_seconds=4.0, rows_per_lane=30),
        relaying(outbox, sink, lease_seconds=4.0, rows_per_lane=30),
    ):
        await until(lambda: sink.received)
        owner = outbox.lanes["a"].token
        await until(lambda: len(sink.received) == 29)
        assert outbox.lanes["a"].token == owner
        await until(outbox.drained)
    assert sink.arrived == [name for _, name in sink.received] == [f"a.{n}" for n in range(30)]


@virtual
async def test_a_long_lanes_progress_is_recorded_so_that_a_crash_repeats_little() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=1, latency=0.1)
    outbox.put("a", *(f"a.{n}" for n in range(50)))
    async with relaying(outbox, sink, rows_per_lane=50):
        await until(lambda: len(sink.received) == 30)
        done = sum(s == "done" for s in outbox.states().values())
        assert 30 - done <= 1 + PROGRESS / 0.1 + 1
        assert outbox.lanes["a"].token is not None
        assert outbox.count("settle") <= 12


@virtual
async def test_a_sink_that_raises_stops_each_lane_at_its_first_event_only() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    sink.raises = lambda records: any(p.deliveries == ("a.0",) for p in records)
    outbox.put("a", "a.0", "a.1", "a.2")
    async with relaying(outbox, sink, retry=RetryPolicy(max_attempts=3, jitter=lambda: 1.0)):
        await until(outbox.drained, 600)
    assert outbox.states() == {"a.0": "dead", "a.1": "done", "a.2": "done"}
    assert [outbox.rows()[n].attempts for n in ("a.0", "a.1", "a.2")] == [3, 0, 0]
    assert "chat text" not in outbox.rows()["a.0"].error


@virtual
async def test_requests_respect_the_rate_the_order_and_their_leases() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=8)
    for lane in range(20):
        outbox.put(f"s{lane}", *(f"s{lane}.{n}" for n in range(25)))
    async with relaying(outbox, sink, pace=Pace(2.0), lease_seconds=5.0):
        await until(outbox.drained, 600)
    # 500 events in requests of ten, two a second: longer than a lease, which is extended meanwhile.
    assert all(later - earlier > 0.499 for earlier, later in itertools.pairwise(sink.times))
    assert len(sink.requests) <= 60
    assert len(sink.arrived) == len(set(sink.arrived)) == 500
    assert lane_order(sink.arrived) == {f"s{x}": [f"s{x}.{n}" for n in range(25)] for x in range(20)}


@virtual
async def test_a_request_whose_first_record_is_empty_respects_the_rate_too() -> None:
    def route(lane: Lane, claim: Claim) -> list[SinkRecord]:
        first, *rest = one_each(lane, claim)
        return [SinkRecord(lane.key, first.deliveries, expired=True), *rest]

    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=8)
    for lane in range(20):
        outbox.put(f"s{lane}", f"s{lane}.0", f"s{lane}.1")
    async with relaying(outbox, sink, route=route, pace=Pace(5.0)):
        await until(outbox.drained, 600)
    sent = [
        at
        for at, request in zip(sink.times, sink.requests, strict=True)
        if any(n.endswith(".1") for n in request)
    ]
    assert len(sent) == 20
    assert all(later - earlier > 0.199 for earlier, later in itertools.pairwise(sent))


@virtual
async def test_a_stop_does_not_wait_for_the_rate() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=8)
    for lane in range(80):
        outbox.put(f"s{lane}", *(f"s{lane}.{n}" for n in range(10)))
    relay = Relay(outbox, sink, pace=Pace(0.1))
    running = asyncio.create_task(relay.dispatcher.run())
    await until(lambda: len(sink.requests) == 1)
    began = now()
    relay.dispatcher.stop()
    await settled_in_time(running, 5)
    assert now() - began < 1
    assert len(sink.requests) == 1
    assert not [lane for lane in outbox.lanes.values() if lane.token]


@virtual
async def test_a_lane_whose_route_raises_is_refused_alone() -> None:
    def route(lane: Lane, claim: Claim) -> list[SinkRecord]:
        if lane.key == "a":
            raise KeyError("chat text")
        return one_each(lane, claim)

    outbox, sink = Outbox(), ScriptedSink()
    outbox.put("a", "a.0", "a.1")
    outbox.put("b", "b.0")
    async with relaying(outbox, sink, route=route, retry=RetryPolicy(max_attempts=2)):
        await until(outbox.drained)
    assert outbox.states() == {"a.0": "dead", "a.1": "dead", "b.0": "done"}
    assert "chat text" not in outbox.rows()["a.0"].error
    assert "KeyError" in outbox.rows()["a.0"].error


@virtual
async def test_records_without_a_request_are_settled_as_done_or_expired() -> None:
    def route(lane: Lane, _: Claim) -> list[SinkRecord]:
        return [SinkRecord(lane.key, (d.id,), expired=d.id.endswith("old")) for d in lane.deliveries]

    outbox, sink = Outbox(), ScriptedSink()
    outbox.put("a", "a.old", "a.none")
    async with relaying(outbox, sink, route=route):
        await until(outbox.drained)
    assert outbox.states() == {"a.old": "expired", "a.none": "done"}


# An outage --------------------------------------------------------------------------------------------------


@virtual
async def test_an_outage_spends_no_attempt_causes_few_requests_and_its_backlog_is_sent_soon_after() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=4)
    fill(outbox, 50, 4)
    sink.answer = lambda _: DOWN
    async with relaying(outbox, sink) as relay:
        await elapse(600)
        assert len(sink.requests) < 100
        assert relay.dispatcher.breaker.reason == "no connection"
        sink.answer = lambda _: None
        healed = now()
        await until(outbox.drained)
        assert now() - healed < 16.0
    assert {row.attempts for row in outbox.rows().values()} == {0}
    assert len(sink.received) == 200
    assert in_order(sink)


@virtual
async def test_a_short_outage_costs_a_fraction_of_a_second() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    fill(outbox, 20, 2)
    sink.answer = lambda _: DOWN if now() < START + 1.0 else None
    async with relaying(outbox, sink):
        await until(outbox.drained)
        assert now() < START + 1.5


@virtual
async def test_the_backoff_of_a_lane_is_no_longer_than_its_outage() -> None:
    short = iter([0.05] * 8)
    outbox, sink = Outbox(), ScriptedSink()
    sink.answer = lambda _: DOWN if len(sink.requests) <= 9 else None
    outbox.put("a", "a.0")
    # Eight short backoffs, by jitter, and then a long one: up to 12.8 s without the limit by the time that has passed.
    async with relaying(outbox, sink, retry=RetryPolicy(jitter=lambda: next(short, 1.0))):
        await until(outbox.drained)
    failed = sink.times[8] - sink.times[0]
    assert failed < 5
    assert sink.times[9] - sink.times[8] <= failed + 0.1


@virtual
async def test_nothing_is_claimed_while_the_breaker_is_open_despite_wakeups() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    sink.answer = lambda _: TransientError("429", retry_after=100.0)
    outbox.put("a", "a.0")
    async with relaying(outbox, sink) as relay:
        await until(lambda: relay.dispatcher.breaker.wait(now()) > 0)
        await elapse(1)
        claims = outbox.count("claim")
        for n in range(90):
            outbox.put("b", f"b.{n}")
            relay.dispatcher.notify()
            await elapse(1)
        assert outbox.count("claim") == claims
        sink.answer = lambda _: None
        await until(outbox.drained, 15)
        assert 100.0 <= min(at for at, _ in sink.received) - START < 101.0


@virtual
async def test_after_an_outage_a_small_probe_is_sent_and_its_success_resumes_everything() -> None:
    outbox, sink = Outbox(), ScriptedSink(concurrency=4, latency=0.05)
    fill(outbox, 30, 5)
    sink.answer = lambda _: ConfigurationError("401: the secret is wrong")
    async with relaying(outbox, sink) as relay:
        await until(lambda: relay.dispatcher.breaker.wait(now()) > 0)
        await elapse(100)
        sink.requests.clear()
        sink.most = 0
        await elapse(100)
        assert {len(r) for r in sink.requests} == {1}
        assert sink.most == 1
        sink.answer = lambda _: None
        await until(lambda: sink.received, 16)
        first = now()
        await until(outbox.drained)
        assert now() - first < 1.0


@virtual
async def test_a_backlog_that_expired_during_the_outage_does_not_delay_the_recovery() -> None:
    """A probe without anything to send must be followed by the next one at once."""

    def route(lane: Lane, claim: Claim) -> list[SinkRecord]:
        expired = lane.key != "fresh"
        return (
            [SinkRecord(lane.key, (d.id,), expired=True) for d in lane.deliveries]
            if expired
            else one_each(lane, claim)
        )

    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink, route=route) as relay:
        relay.dispatcher.breaker.failure(now(), ConfigurationError("401"))
        for n in range(20):
            outbox.put(f"s{n}", f"s{n}.0", age=10.0)
        outbox.put("fresh", "fresh.0")
        relay.dispatcher.notify()
        await until(outbox.drained, 600)
        assert now() - START < 5.0


# When to claim ----------------------------------------------------------------------------------------------


@virtual
async def test_an_idle_worker_claims_at_every_poll_and_not_in_between() -> None:
    outbox = Outbox()
    async with relaying(outbox, ScriptedSink(), poll_interval=30.0) as relay:
        await elapse(301)
        assert outbox.count("claim") == 11
        relay.healthy = False
        await elapse(30)
        claims = outbox.count("claim")
        await elapse(30)
        assert outbox.count("claim") - claims in (29, 30, 31)


@virtual
async def test_a_wakeup_is_followed_by_a_claim_at_once() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        await elapse(10)
        outbox.put("a", "a.0")
        relay.dispatcher.notify()
        rung = now()
        await until(lambda: sink.received)
        assert sink.received[0][0] - rung < 0.02
        await until(outbox.drained)


@virtual
async def test_few_results_linger_and_many_do_not() -> None:
    for lanes, few in ((2, True), (100, False)):
        outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=8, latency=0.005)
        fill(outbox, lanes, 1)
        began = now()
        async with relaying(outbox, sink):
            await until(outbox.drained)
        sent = sink.times[0] + sink.latency
        assert (outbox.times("settle")[0] - sent > 0.02) is few
        assert outbox.times("settle")[0] - sent <= LINGER
        assert (outbox.count("settle") == 1) is few
        await elapse(LINGER - (now() - began) % LINGER)


@virtual
async def test_new_work_in_a_lane_in_hand_is_claimed_right_after_its_answer() -> None:
    outbox, sink = Outbox(), ScriptedSink(latency=0.02)
    outbox.put("a", "a.0")
    async with relaying(outbox, sink) as relay:
        await until(lambda: sink.requests, 5)
        outbox.put("a", "a.1")
        relay.dispatcher.notify(["a"])
        await until(lambda: len(sink.received) == 2, 5)
        # The answer, the settle with the claim, and the next request follow each other without a pause.
        assert sink.times[1] - sink.times[0] < 0.02 + 3 * outbox.latency + 0.005
        # Its result lingers when the wake-up arrives.
        await elapse(0.021)
        outbox.put("a", "a.2")
        rung = now()
        relay.dispatcher.notify(["a"])
        await until(lambda: len(sink.received) == 3, 5)
        assert sink.times[2] - rung < 3 * outbox.latency + 0.005


@virtual
async def test_a_result_that_frees_a_lane_with_more_is_settled_with_the_next_claim_in_one_call() -> None:
    outbox, sink = Outbox(), ScriptedSink(latency=0.02)
    outbox.put("a", "a.0")
    async with relaying(outbox, sink) as relay:
        await until(lambda: sink.requests, 5)
        outbox.put("a", "a.1")
        relay.dispatcher.notify(["a"])
        await until(lambda: len(sink.received) == 2, 5)
        assert [call[0] for call in outbox.calls].count("exchange") == 1
        await until(outbox.drained)
    assert sink.arrived == [name for _, name in sink.received] == ["a.0", "a.1"]


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("error", [TransientError("no answer in time"), REFUSED])
@virtual
async def test_the_results_of_an_exchange_that_fails_are_settled_without_a_claim(
    error: BridgeError, applied: bool
) -> None:
    outbox, sink = Outbox(), ScriptedSink(latency=0.02)
    outbox.put("a", "a.0")
    outbox.fail("exchange", error, applied=applied)
    async with relaying(outbox, sink, lease_seconds=300.0) as relay:
        await until(lambda: sink.requests, 5)
        outbox.put("a", "a.1")
        relay.dispatcher.notify(["a"])
        await until(outbox.drained, 5)
        assert "exchange" in [call[0] for call in outbox.calls]
    assert sink.arrived == [name for _, name in sink.received] == ["a.0", "a.1"]


@virtual
async def test_a_lane_with_more_than_one_claim_takes_continues_at_once() -> None:
    outbox, sink = Outbox(), ScriptedSink(latency=0.005)
    fill(outbox, 1, 100)
    async with relaying(outbox, sink, rows_per_lane=10):
        await until(lambda: len(sink.received) == 100, 5)
    # The request and the settle with the next claim follow each other without a pause and without a wake-up.
    assert sink.times[-1] - sink.times[0] < 9 * (sink.latency + 3 * outbox.latency + 0.001)
    assert in_order(sink)


@virtual
async def test_many_results_do_not_linger_although_one_settle_cannot_take_all() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1000, concurrency=1, latency=0.02)
    fill(outbox, 2 * BATCH + 100, 1)
    async with relaying(outbox, sink, lanes_per_claim=1000):
        await until(outbox.drained)
    assert [len(call[2]["results"]) for call in outbox.calls if call[0] == "settle"] == [BATCH, BATCH, 100]
    first, *_, last = outbox.times("settle")
    assert last - first < 3 * outbox.latency


@virtual
async def test_a_busy_lane_waits_for_no_other_result() -> None:
    outbox, sink = Outbox(), ScriptedSink(latency=0.002)
    outbox.put("a", "a.0")
    async with relaying(outbox, sink) as relay:
        await until(lambda: sink.received, 1)
        outbox.locked.add("a")  # a portal writes to it, so it has more deliveries
        await until(lambda: outbox.count("settle") == 1, 1)
        outbox.put("b", "b.0")
        relay.dispatcher.notify(["b"])
        await until(lambda: relay.dispatcher.settler.has("b"), 1)
        outbox.locked.clear()
        written = now()
        await until(lambda: outbox.lanes["a"].token is None, 1)
        assert now() - written < 2 * BUSY_PAUSE


@virtual
async def test_progress_on_a_locked_delivery_is_recorded_later_and_nothing_is_sent_again() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=1, latency=PROGRESS)
    names = [f"a.{n}" for n in range(4)]
    outbox.put("a", *names)
    outbox.locked.add("a.1")
    async with relaying(outbox, sink):
        await until(lambda: len(sink.received) == 4, 5)
        await elapse(1)
        assert outbox.states() == {name: "pending" if name == "a.1" else "done" for name in names}
        outbox.locked.clear()
        await until(outbox.drained, 1)
        assert [name for _, name in sink.received] == names


@virtual
async def test_new_work_in_a_lane_whose_progress_is_being_recorded_is_claimed_right_after_its_answer() -> (
    None
):
    outbox, sink = Outbox(latency=0.004), ScriptedSink(batch_size=1, concurrency=1, latency=PROGRESS)
    outbox.put("a", "a.0", "a.1")
    async with relaying(outbox, sink) as relay:
        await until(lambda: relay.dispatcher.settler.has("a"))
        outbox.put("a", "a.2")
        relay.dispatcher.notify(["a"])  # while the settle of the first half is in flight
        await until(lambda: len(sink.received) == 3)
        assert sink.times[2] - sink.times[1] < sink.latency + 3 * outbox.latency + 0.005


@virtual
async def test_many_wakeups_cause_few_claims() -> None:
    outbox = Outbox(latency=0.01)
    async with relaying(outbox, ScriptedSink()) as relay:
        await elapse(1)
        before = outbox.count("claim")
        for _ in range(1000):
            relay.dispatcher.notify()
            relay.dispatcher.notify()
            await elapse(0.0001)
        await elapse(1)
        assert outbox.count("claim") - before <= 12


@virtual
async def test_a_wakeup_during_a_claim_causes_another_claim() -> None:
    outbox, sink = Outbox(latency=0.5), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        await until(lambda: outbox.count("claim") == 1)
        await elapse(0.25)
        relay.dispatcher.notify()
        await elapse(1)
        assert outbox.count("claim") == 2


@virtual
async def test_it_claims_exactly_when_the_next_lane_is_due() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink):
        await elapse(1)
        outbox.put("a", "a.0")
        outbox.lanes["a"].ready = now() + 42.5  # after the poll at 30, which reads that time
        due = now() + 42.5
        await until(outbox.drained)
        assert due <= sink.received[0][0] < due + 0.02
        assert outbox.count("claim") <= 5


@virtual
async def test_locked_due_lanes_cause_few_claims() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    outbox.put("a", "a.0")
    outbox.locked.add("a")
    async with relaying(outbox, sink):
        await elapse(0.5)
        assert 3 <= outbox.count("claim") <= 8
        await elapse(60)
        assert outbox.count("claim") <= 8 + 62
        outbox.locked.clear()
        await until(outbox.drained, 1.2)


@virtual
async def test_a_later_lock_is_retried_as_soon_as_the_first() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        for n in range(8):  # each time another worker takes the lane when the lock is released
            outbox.put(f"s{n}", f"s{n}.0")
            outbox.locked.add(f"s{n}")
            relay.dispatcher.notify()
            await elapse(0.005)
            outbox.locked.clear()
            outbox.lanes[f"s{n}"].rows[0].state, outbox.lanes[f"s{n}"].ready = "done", None
            await elapse(5)
        outbox.put("last", "last.0")
        outbox.locked.add("last")
        relay.dispatcher.notify()
        await elapse(0.005)
        outbox.locked.clear()
        await until(outbox.drained, 0.1)


@virtual
async def test_nothing_is_claimed_without_room_and_at_once_with_room() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=2, latency=5.0)
    fill(outbox, 20, 1)
    ahead = 2 + 2 * AHEAD  # in flight, and waiting for a slot
    async with relaying(outbox, sink, lanes_per_claim=1) as relay:
        await elapse(0.5)
        assert outbox.count("claim") == ahead
        for _ in range(40):
            relay.dispatcher.notify()
            await elapse(0.1)
        assert outbox.count("claim") == ahead
        await elapse(0.6)  # the first two are sent
        assert outbox.count("claim") == ahead + 2
        await until(outbox.drained)
        assert now() - START < 50.2
    assert sink.most == 2


@virtual
async def test_the_next_claim_is_made_while_the_last_one_is_sent() -> None:
    outbox, sink = Outbox(latency=0.01), ScriptedSink(batch_size=10, concurrency=4, latency=0.01)
    fill(outbox, 400, 10)
    async with relaying(outbox, sink, lanes_per_claim=100, rows_per_lane=10):
        await until(outbox.drained)
    # 100 requests for each of four slots; it would take 30 ms more if each claim waited for the sends of the last one.
    assert sink.times[-1] - sink.times[0] < 100 * 0.01 + 0.005
    assert (sink.most, len(sink.requests)) == (4, 400)
    assert in_order(sink)


@virtual
async def test_a_worker_that_cannot_settle_stops_claiming() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=8, latency=0.001)
    fill(outbox, 2000, 1)
    outbox.fail("settle", times=1000)
    async with relaying(outbox, sink, lanes_per_claim=100, lease_seconds=300.0) as relay:
        await elapse(60)
        assert UNSETTLED_LIMIT < len(sink.received) <= UNSETTLED_LIMIT + BATCH + 8 * 100
        claims = outbox.count("claim")
        await elapse(20)
        assert outbox.count("claim") == claims
        outbox.heal()
        await until(outbox.drained)
    assert len(sink.received) == 2000
    assert relay.dispatcher.settler.pending == 0


@pytest.mark.parametrize(("healthy", "interval"), [(True, 30.0), (False, 1.0)])
@virtual
async def test_work_without_a_wakeup_waits_for_one_poll(healthy: bool, interval: float) -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        relay.healthy = healthy
        await elapse(31)
        outbox.put("a", "a.0")
        put = now()
        await until(outbox.drained)
        assert now() - put <= interval + 0.05


@virtual
async def test_a_poll_is_followed_by_a_claim_at_once_and_each_claim_reports_new_work() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    sink.answer = lambda record: REFUSED if record.deliveries == ("a.1",) else None
    async with relaying(outbox, sink, poll_interval=30.0) as relay:
        await elapse(1)
        outbox.put("a", "a.0", "a.1", age=5.0)
        relay.dispatcher.poll()
        polled = now()
        await until(lambda: sink.received)
        assert sink.received[0][0] - polled < 0.02
        await until(outbox.drained, 600)
        found = [ages for _, ages in relay.polls if ages]
        assert len(found) == 1, "a retry is not new work"
        assert all(5.0 <= age < 6.1 for age in found[0])
        assert len(relay.polls) == outbox.count("claim")


# When the database fails ------------------------------------------------------------------------------------


@virtual
async def test_the_next_claim_takes_the_lanes_of_a_claim_whose_answer_was_lost() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    fill(outbox, 5, 2)
    outbox.fail("claim", TransientError("claim: no answer in time"), applied=True)
    async with relaying(outbox, sink) as relay:
        await until(outbox.drained)
        assert now() - START < 1.0
        first, second = (call for call in outbox.calls[:2])
        assert (first[0], second[0]) == ("claim", "claim")
        assert first[2]["token"] != second[2]["token"]
        assert relay.dispatcher.last_error == ""
        assert relay.crashes == [], "a lost answer is no crash of PostgreSQL"
    assert len(sink.received) == 10


@virtual
async def test_lanes_of_a_lost_claim_that_are_locked_meanwhile_are_taken_when_they_are_free() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    fill(outbox, 2, 1)
    outbox.fail("claim", applied=True)
    async with relaying(outbox, sink, lease_seconds=300.0):
        await until(lambda: outbox.count("claim") == 1)
        outbox.locked |= {"s0"}
        await until(lambda: sink.arrived == ["s1.0"], 5)
        outbox.locked.clear()
        await until(outbox.drained, 2)  # the lease lasts for 300 s


@virtual
async def test_a_claim_that_commits_after_the_next_one_takes_no_lane_in_hand() -> None:
    """A time-out at the client does not cancel the statement: it may lease, later, what a newer claim has leased."""
    outbox, sink = Outbox(), ScriptedSink(latency=1.0)
    fill(outbox, 4, 3)
    async with relaying(outbox, sink, lease_seconds=300.0) as relay:
        await until(lambda: sink.flying)
        leases = list(relay.dispatcher.leases)
        owner = outbox.lanes["s0"].owner
        assert owner is not None
        # Its request was made when nothing was held.
        stale = ClaimRequest(sink="pusher", owner=owner, token="stale", lanes=100, per_lane=10, lease=300.0)
        await outbox.claim(stale)
        assert outbox.lanes["s0"].token == "stale"
        relay.dispatcher.notify()
        await until(outbox.drained, 10)
        assert leases
    assert len(sink.received) == 12
    assert in_order(sink)


@virtual
async def test_a_lease_whose_settle_a_crash_reverted_is_not_waited_for() -> None:
    """Claims and settles commit asynchronously: a crash may keep the one and revert the other, without an error."""
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        for name in ("a", "b"):
            outbox.put(name, f"{name}.0")
        relay.dispatcher.notify()
        await until(outbox.drained)
        await elapse(1.2)
        outbox.crash("a")
        for name in ("a", "b"):
            outbox.put(name, f"{name}.1")
        relay.dispatcher.notify()
        outbox.locked.add("a")  # by a portal that writes to it
        await elapse(0.3)
        outbox.locked.clear()
        crashed = now()
        await until(outbox.drained)
        assert now() - crashed < 0.5
        assert [name for _, name in sink.received if name.startswith("a")] == ["a.0", "a.0", "a.1"]
        assert [name for _, name in sink.received if name.startswith("b")] == ["b.0", "b.1"]
        assert len(relay.crashes) == 1
        assert relay.value("gre_leases_lost_total") == 0
        settles = outbox.count("settle")
        for n in range(2, 12):
            await elapse(1.0)
            outbox.put("b", f"b.{n}")
            relay.dispatcher.notify()
            await until(outbox.drained)
        assert outbox.count("settle") - settles == 10, "a lane that is freed again is in the next settle"
        assert len(relay.crashes) == 1
        assert relay.value("gre_leases_lost_total") == 0


@virtual
async def test_lanes_are_recovered_after_an_empty_claim_just_before_the_crash() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        outbox.put("a", "a.0")
        relay.dispatcher.notify()
        await until(outbox.drained)
        lease_of_another(outbox)
        await elapse(0.15)
        claims = outbox.count("claim")
        relay.dispatcher.notify()
        await until(lambda: outbox.count("claim") > claims)
        await elapse(0.1)
        for n in (1, 2):  # and a second crash reverts the second settle
            outbox.crash("a")
            outbox.put("a", f"a.{n}")
            await elapse(0.2)
            relay.dispatcher.notify()
            await until(lambda n=n: f"a.{n}" in sink.arrived, 1)
            await until(lambda: outbox.lanes["a"].token is None)


@virtual
async def test_recently_freed_lanes_that_are_locked_delay_no_other() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        fill(outbox, 600, 1)
        relay.dispatcher.notify()
        await until(outbox.drained)
        lease_of_another(outbox)
        await elapse(0.2)
        outbox.locked |= {f"s{n}" for n in range(600)}  # by a bulk insert
        settles = outbox.count("settle")
        for n in range(10):
            outbox.put("x", f"x.{n}")
            relay.dispatcher.notify()
            await until(lambda n=n: outbox.states()[f"x.{n}"] == "done", 0.2)
            await elapse(0.3)
        assert outbox.count("settle") - settles < 40
        assert relay.dispatcher.settler.pending == 0
        await elapse(40.0)
        settles = outbox.count("settle")
        await elapse(10.0)
        assert outbox.count("settle") == settles, "nothing is freed again when no lease can remain"


@virtual
async def test_a_recently_freed_lane_that_is_locked_causes_few_calls() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        outbox.put("a", "a.0")
        relay.dispatcher.notify()
        await until(outbox.drained)
        lease_of_another(outbox)
        await elapse(0.2)
        outbox.put("a", "a.1")
        relay.dispatcher.notify()
        await until(lambda: "a.1" in sink.arrived, 1)
        outbox.locked.add("a")
        settles = outbox.count("settle")
        await elapse(2.0)
        assert outbox.count("settle") - settles < 20
        outbox.locked.clear()
        await until(lambda: outbox.states()["a.1"] == "done", 0.5)


@virtual
@pytest.mark.parametrize("latency", [0.005, 0.05, 0.1])
async def test_nothing_is_freed_again_where_nothing_is_leased(latency: float) -> None:
    outbox, sink = Outbox(), ScriptedSink(latency=latency)
    async with relaying(outbox, sink) as relay:
        for n in range(20):
            outbox.put(f"s{n % 7}", f"s{n % 7}.{n}")
            relay.dispatcher.notify()
            await until(outbox.drained)
            await elapse(0.6)
        assert outbox.count("settle") == 20


@virtual
async def test_lanes_are_recovered_if_a_settle_is_the_first_call_after_a_crash() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        outbox.put("a", "a.0")
        relay.dispatcher.notify()
        await until(outbox.drained)
        outbox.fail("settle", times=3)
        outbox.put("b", "b.0")
        relay.dispatcher.notify()
        await until(lambda: outbox.count("settle") > 1)
        outbox.crash("a")
        outbox.fail("claim", times=1000)
        await until(lambda: not outbox.lanes["b"].token, 20)
        outbox.heal()
        relay.dispatcher.notify()
        await until(outbox.drained, 0.5)
    assert [name for _, name in sink.received] == ["a.0", "b.0", "a.0"]


@virtual
async def test_the_recovery_of_the_database_cancels_all_backoffs() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink, retry=RetryPolicy(jitter=lambda: 1.0)) as relay:
        outbox.put("a", "a.0")
        outbox.fail("settle", times=1000)
        relay.dispatcher.notify()
        await until(lambda: outbox.count("settle") > 8, 60)
        outbox.fail("claim", times=1000)
        outbox.put("b", "b.0")
        relay.dispatcher.notify()
        await until(lambda: outbox.count("claim") > 8, 60)
        assert max(b - a for a, b in itertools.pairwise(outbox.times("claim"))) > 3
        outbox.heal()
        back = now()
        relay.dispatcher.retry_now()
        await until(outbox.drained)
        assert now() - back < 0.2


@virtual
async def test_the_recovery_of_the_database_causes_no_calls_by_itself() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        await until(lambda: outbox.count("claim"))
        await elapse(0.1)
        calls = len(outbox.calls)
        for _ in range(20):
            relay.dispatcher.retry_now()
            await elapse(0.1)
        assert len(outbox.calls) == calls


@virtual
async def test_a_replay_is_not_settled_by_a_repeated_result_after_a_crash() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    async with relaying(outbox, sink) as relay:
        outbox.put("a", "a.0")
        relay.dispatcher.notify()
        await until(outbox.drained)
        outbox.rows()["a.0"].state = "pending"  # an operator's replay
        outbox.lanes["a"].ready = now()
        await elapse(0.2)
        relay.dispatcher.notify()
        await until(outbox.drained)
        await elapse(5.0)
    assert [name for _, name in sink.received] == ["a.0", "a.0"]


@virtual
async def test_a_lane_whose_settle_is_refused_for_good_waits_for_its_lease() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    outbox.refuse = lambda batch: any(result.lane_key == "a" for result in batch)
    async with relaying(outbox, sink, lease_seconds=30.0) as relay:
        outbox.put("a", "a.0")
        for n in range(20):
            outbox.put("b", f"b.{n}")
            relay.dispatcher.notify()
            await elapse(1.0)
    assert [name for _, name in sink.received].count("a.0") == 1


@virtual
async def test_calls_become_rarer_while_the_database_is_down_and_the_state_has_the_reason() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    outbox.fail("claim", TransientError("gre_relay_claim_v1: PGRST001"), times=100_000)
    outbox.fail("release", TransientError("gre_relay_release_v1: PGRST001"), times=100_000)
    async with relaying(outbox, sink) as relay:
        for _ in range(600):
            relay.dispatcher.notify()
            await elapse(1)
        asked = len(outbox.calls)
        assert 600 / 5.1 <= asked < 300
        assert "PGRST001" in relay.dispatcher.last_error
        outbox.put("a", "a.0")
        outbox.heal()
        await until(outbox.drained, 5.1)
        assert relay.dispatcher.last_error == ""


# Stopping ---------------------------------------------------------------------------------------------------


@virtual
async def test_a_stop_settles_what_is_in_flight_and_claims_nothing_more() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=3, latency=2.0)
    fill(outbox, 3, 2)
    outbox.put("z", "z.0")
    relay = Relay(outbox, sink, lanes_per_claim=3)
    task = asyncio.create_task(relay.dispatcher.run())
    await until(lambda: sink.flying == 3)
    claims = outbox.count("claim")
    outbox.fail("settle", times=3)
    relay.dispatcher.stop()
    await settled_in_time(task, 20)
    assert outbox.count("claim") == claims
    assert sink.flying == 0
    assert not any(q.token for q in outbox.lanes.values())
    assert all(outbox.states()[name] == "done" for name in sink.arrived)
    assert "z.0" not in sink.arrived


@virtual
async def test_a_stop_does_not_wait_for_a_lane_that_is_only_freed_again() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    outbox.put("a", "a.0")
    relay = Relay(outbox, sink)
    task = asyncio.create_task(relay.dispatcher.run())
    await until(outbox.drained)
    outbox.locked.add("a")  # a portal's transaction stays open
    await elapse(1.0)
    outbox.put("b", "b.0")
    relay.dispatcher.notify()
    await until(outbox.drained)
    relay.dispatcher.stop()
    await settled_in_time(task, 1)
    assert sink.arrived == ["a.0", "b.0"]


@virtual
async def test_a_stop_during_a_claim_leaves_no_lease_behind() -> None:
    outbox, sink = Outbox(latency=1.0), ScriptedSink()
    outbox.put("a", "a.0")
    relay = Relay(outbox, sink)
    task = asyncio.create_task(relay.dispatcher.run())
    await until(lambda: outbox.count("claim") == 1)
    relay.dispatcher.stop()
    await settled_in_time(task, 20)
    assert outbox.lanes["a"].token is None


@virtual
async def test_a_cancelled_worker_ends_at_once_even_while_the_database_does_not_answer() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    outbox.put("a", "a.0")

    def hang(_: SinkRecord) -> None:
        outbox.latency = 1e6

    sink.answer = hang
    relay = Relay(outbox, sink)
    task = asyncio.create_task(relay.dispatcher.run())
    await until(lambda: outbox.count("settle"))
    began = now()
    await cancelled(task)
    assert now() - began < 1.0


@virtual
async def test_another_worker_takes_the_lanes_that_a_cancelled_worker_releases() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=1, concurrency=2, latency=10.0)
    fill(outbox, 4, 2)
    relay = Relay(outbox, sink, lease_seconds=300.0)
    task = asyncio.create_task(relay.dispatcher.run())
    await until(lambda: sink.flying == 2)
    await cancelled(task)
    assert all(q.token for q in outbox.lanes.values())
    outbox.fail("release")  # an unreachable database must not prevent the end of a worker
    await relay.dispatcher.release_all()
    await relay.dispatcher.release_all()
    assert not any(q.token for q in outbox.lanes.values())
    async with relaying(outbox, ScriptedSink()):
        await until(outbox.drained, 1)


@virtual
async def test_a_claim_without_an_answer_is_released_too() -> None:
    class Slow(Outbox):
        async def claim(self, request: ClaimRequest) -> Claim:
            claim = await super().claim(request)
            await elapse(10)
            return claim

    outbox = Slow()
    fill(outbox, 4, 2)
    relay = Relay(outbox, ScriptedSink(), lease_seconds=300.0)
    task = asyncio.create_task(relay.dispatcher.run())
    await until(lambda: all(q.token for q in outbox.lanes.values()))
    task.cancel()  # and release before the claim has ended, as the daemon does
    await relay.dispatcher.release_all()
    await cancelled(task)
    assert not any(q.token for q in outbox.lanes.values())


@virtual
async def test_an_answered_claim_is_not_released() -> None:
    outbox, sink = Outbox(), ScriptedSink()
    fill(outbox, 4, 2)
    async with relaying(outbox, sink):
        await until(outbox.drained)
        outbox.put("s0", "s0.2")
        await until(outbox.drained)
    assert outbox.count("claim") > 1
    assert outbox.count("release") == 0


# Several workers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
@virtual
async def test_everything_arrives_in_order_whatever_fails_and_dies(seed: int) -> None:
    rng, outbox = random.Random(seed), Outbox(latency=0.003)
    sink = ScriptedSink(batch_size=5, concurrency=3, latency=0.02)
    poison = {f"s{rng.randrange(12)}.{rng.randrange(60)}" for _ in range(5)}

    def answer(record: SinkRecord) -> BridgeError | None:
        if record.deliveries[0] in poison:
            return REFUSED
        return DOWN if rng.random() < 0.03 else None

    sink.answer = answer

    def worker() -> asyncio.Task[None]:
        relay = Relay(outbox, sink, lease_seconds=3.0, lanes_per_claim=5, rows_per_lane=4)
        return asyncio.create_task(relay.dispatcher.run())

    workers = [worker() for _ in range(3)]
    committed: dict[str, list[str]] = {f"s{n}": [] for n in range(12)}
    for _ in range(720):
        lane = rng.choice(list(committed))
        committed[lane].append(f"{lane}.{len(committed[lane])}")
        outbox.put(lane, committed[lane][-1])
        if rng.random() < 0.03:
            outbox.fail(rng.choice(["claim", "settle", "extend", "release"]), applied=rng.random() < 0.5)
        if rng.random() < 0.05:
            outbox.locked = set(rng.sample(list(committed), 2))
        if rng.random() < 0.01:
            victim = rng.randrange(3)
            await cancelled(workers[victim])
            workers[victim] = worker()
        await elapse(rng.random() * 0.05)
    outbox.locked.clear()
    await until(outbox.drained, 900)
    for task in workers:
        await cancelled(task)
    states, arrived = outbox.states(), lane_order(sink.arrived)
    for lane, names in committed.items():
        assert {states[n] for n in names} <= {"done", "dead"}
        assert [n for n in names if states[n] == "dead"] == [n for n in names if n in poison]
        assert arrived.get(lane, []) == [n for n in names if n not in poison]


# The settler ------------------------------------------------------------------------------------------------


class Settling:
    """A running settler, with its reports to the dispatcher."""

    def __init__(self, outbox: Outbox) -> None:
        self.waiting = 0
        self.settled: list[str] = []
        self.metrics = Metrics()
        leases, schedule = Leases(), ClaimSchedule(now)
        leases.settled = self._settled  # type: ignore[method-assign]
        schedule.notify = self._notify  # type: ignore[method-assign]
        self.settler = Settler(
            store=outbox.store, sink="pusher", metrics=self.metrics, leases=leases, schedule=schedule
        )
        self.task = asyncio.create_task(self.settler.run())

    def _notify(self) -> None:
        self.waiting += 1

    def _settled(self, results: Iterable[LaneResult]) -> None:
        self.settled += [result.lane_key for result in results]

    def put(self, outbox: Outbox, lanes: Sequence[str], **parts: bool) -> None:
        for lane in lanes:
            outbox.lanes[lane].token = "t"
            done = [row.id for row in outbox.lanes[lane].pending[:1]]
            self.settler.put(LaneResult(lane, "t", done, **parts))


@virtual
async def test_results_during_a_settle_share_the_next_one() -> None:
    outbox = Outbox(latency=0.1)
    fill(outbox, 30, 1)
    it = Settling(outbox)
    it.put(outbox, ["s0"])
    await elapse(0.05)
    for n in range(1, 30):
        it.put(outbox, [f"s{n}"])
        await elapse(0.001)
    await settled_in_time(it.settler.flush(), 1)
    assert outbox.count("settle") == 2
    assert sorted(it.settled) == sorted(outbox.lanes)
    assert set(outbox.states().values()) == {"done"}
    await cancelled(it.task)


@virtual
async def test_one_settle_names_a_bounded_number_of_lanes() -> None:
    outbox = Outbox()
    fill(outbox, 2 * BATCH + 1, 1)
    it = Settling(outbox)
    it.put(outbox, list(outbox.lanes))
    await settled_in_time(it.settler.flush(), 1)
    assert [len(c[2]["results"]) for c in outbox.calls] == [BATCH, BATCH, 1]
    await cancelled(it.task)


@virtual
async def test_busy_lanes_are_repeated_with_growing_pauses_and_the_others_are_not() -> None:
    outbox = Outbox()
    fill(outbox, 2, 1)
    it = Settling(outbox)
    outbox.locked.add("s0")
    it.put(outbox, ["s0", "s1"])
    await elapse(3)
    assert it.settled == ["s1"]
    sizes = [len(c[2]["results"]) for c in outbox.calls]
    assert sizes == [2] + [1] * (len(sizes) - 1)
    times = outbox.times("settle")
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert pauses[0] < 0.02
    assert pauses[-1] > 0.1
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(pauses))
    assert max(pauses) < 0.5
    assert it.settler.pending == 1
    outbox.locked.clear()
    await settled_in_time(it.settler.flush(), 1)
    assert it.settled == ["s1", "s0"]
    await cancelled(it.task)


@virtual
async def test_a_result_the_database_refuses_for_good_is_found_and_the_others_are_written() -> None:
    outbox = Outbox()
    fill(outbox, 40, 1)
    outbox.refuse = lambda batch: any(r.lane_key == "s17" for r in batch)
    it = Settling(outbox)
    it.put(outbox, list(outbox.lanes))
    await settled_in_time(it.settler.flush(), 1)
    assert {name for name, state in outbox.states().items() if state != "done"} == {"s17.0"}
    assert outbox.lanes["s17"].token == "t"
    assert outbox.count("settle") <= 14
    await cancelled(it.task)


@pytest.mark.parametrize(
    "error", [TransientError("57014"), ConfigurationError("gre_relay_settle_v1: unknown function")]
)
@virtual
async def test_a_settle_is_repeated_until_the_database_has_it(error: BridgeError) -> None:
    outbox = Outbox()
    fill(outbox, 3, 1)
    outbox.fail("settle", error, times=50)
    it = Settling(outbox)
    it.put(outbox, list(outbox.lanes))
    await elapse(20)
    assert it.settled == []
    assert it.settler.pending > 0 or not it.task.done()
    await settled_in_time(it.settler.flush(), 1800)
    assert outbox.count("settle") == 51
    assert set(outbox.states().values()) == {"done"}
    await cancelled(it.task)


@virtual
async def test_the_dispatcher_is_notified_when_a_freed_lane_has_more_deliveries() -> None:
    outbox = Outbox()
    fill(outbox, 1, 2)
    it = Settling(outbox)
    it.put(outbox, ["s0"])
    await settled_in_time(it.settler.flush(), 1)
    assert it.waiting == 1
    it.put(outbox, ["s0"])
    await settled_in_time(it.settler.flush(), 1)
    assert it.waiting == 1
    await cancelled(it.task)


@virtual
async def test_progress_of_a_kept_lane_is_recorded_and_the_lane_stays_leased() -> None:
    outbox = Outbox()
    fill(outbox, 1, 2)
    it = Settling(outbox)
    it.put(outbox, ["s0"], keep=True)
    await settled_in_time(it.settler.flush(), 1)
    assert outbox.states() == {"s0.0": "done", "s0.1": "pending"}
    assert outbox.lanes["s0"].token == "t"
    await cancelled(it.task)


@virtual
async def test_a_flush_with_nothing_to_write_returns_at_once() -> None:
    outbox = Outbox()
    it = Settling(outbox)
    await settled_in_time(it.settler.flush(), 0.1)
    assert outbox.calls == []
    await cancelled(it.task)


@virtual
async def test_a_worker_closes_its_breaker_when_another_has_sent_everything() -> None:
    """It has no lane for a probe, and must not report the outage without end."""
    outbox = Outbox()
    failing = ScriptedSink(answer=lambda _: DOWN)
    async with relaying(outbox, failing) as idle:
        for n in range(4):
            outbox.put(f"lane {n}", f"m{n}")
        idle.dispatcher.notify()
        await until(lambda: idle.value("gre_breaker_state") == 2)
        assert idle.value("gre_breaker_reason", reason=str(DOWN)) == 1
        async with relaying(outbox, ScriptedSink()):
            await until(outbox.drained)
        failing.answer = lambda _: None
        tries = len(failing.requests)
        await until(lambda: idle.value("gre_breaker_state") == 0, 70)
        assert len(failing.requests) == tries, "there was no lane for a probe"
        assert idle.dispatcher.breaker.reason == ""
        assert idle.value("gre_breaker_reason", reason=str(DOWN)) == 0


# Distance ---------------------------------------------------------------------------------------------------


@virtual
async def test_a_sink_that_is_far_away_gets_more_requests_at_once_as_long_as_its_answers_stay_quick() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=64, latency=0.05)
    fill(outbox, 400, 50)
    began = now()
    async with relaying(outbox, sink, lanes_per_claim=100, rows_per_lane=10) as relay:
        await until(outbox.drained)
        took = now() - began
        assert relay.value("gre_requests_allowed") > 32
    assert in_order(sink)
    assert len(sink.received) == len(set(sink.arrived)) == 20_000
    assert sink.most <= 64
    assert 20_000 / took > 6_000, "8 requests at a time would be 1,600 events a second"


@virtual
async def test_a_sink_that_refuses_many_requests_at_once_is_not_pushed_harder() -> None:
    outbox, sink = Outbox(), ScriptedSink(batch_size=10, concurrency=64, latency=0.05)
    sink.answer = lambda _: DOWN if sink.flying > 19 else None
    fill(outbox, 200, 50)
    async with relaying(outbox, sink, lanes_per_claim=100, rows_per_lane=10):
        await until(outbox.drained)
    assert in_order(sink)
    assert sink.most <= 45
    assert set(outbox.states().values()) == {"done"}

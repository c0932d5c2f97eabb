"""Rate, retry, breaker and lease: values without a clock."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gre_bridge.errors import BridgeError, ConfigurationError, TransientError
from gre_bridge.relay.lease import Lease
from gre_bridge.relay.policy import Breaker, BreakerState, Pace, RetryPolicy, Window

DOWN = TransientError("no connection")
WRONG_KEY = ConfigurationError("PUSHER_SECRET was refused")


def never() -> float:
    """No jitter: the full backoff."""
    return 0.0


def breaker(**changes: float) -> Breaker:
    return Breaker(jitter=never, **changes)


def opened(at: float = 0.0, error: BridgeError = WRONG_KEY, **changes: float) -> Breaker:
    found = breaker(**changes)
    found.failure(at, error)
    return found


# Pace -------------------------------------------------------------------------------------------------------


@given(
    rate=st.sampled_from([0.5, 7.0, 150.0]),
    gaps=st.lists(st.floats(min_value=0, max_value=2.0), min_size=1, max_size=60),
)
def test_no_window_of_a_second_holds_more_requests_than_the_rate_allows(
    rate: float, gaps: list[float]
) -> None:
    pace, now, sent = Pace(rate), 0.0, []
    for gap in gaps:
        now += gap
        wait = pace.take(now)
        assert wait >= 0
        sent.append(now + wait)
    assert all(later - earlier >= 1 / rate - 1e-9 for earlier, later in itertools.pairwise(sent))
    assert sent[0] == gaps[0], "the first one does not wait"


def test_no_rate_is_no_limit() -> None:
    pace = Pace()
    assert [pace.take(1.0) for _ in range(1000)] == [0.0] * 1000


# Retry ------------------------------------------------------------------------------------------------------


def test_an_event_is_dead_at_the_last_allowed_refusal_and_not_before() -> None:
    policy = RetryPolicy(max_attempts=5)
    assert [policy.gives_up(n) for n in range(1, 7)] == [False, False, False, False, True, True]
    assert RetryPolicy(max_attempts=1).gives_up(1)


def test_backoff_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(base=0.5, cap=60.0, jitter=lambda: 1.0)
    assert [policy.delay(n) for n in (1, 2, 3, 4, 7, 8, 9)] == [0.5, 1.0, 2.0, 4.0, 32.0, 60.0, 60.0]
    assert policy.delay(100_000) == 60.0


@given(attempts=st.integers(1, 10_000), share=st.floats(0.0, 1.0, exclude_max=True))
def test_backoff_has_full_jitter(attempts: int, share: float) -> None:
    ceiling = RetryPolicy(jitter=lambda: 1.0).delay(attempts)
    delay = RetryPolicy(jitter=lambda: share).delay(attempts)
    assert delay == pytest.approx(share * ceiling)
    assert 0.0 <= delay < ceiling <= 60.0


# Breaker: opening -------------------------------------------------------------------------------------------


def test_a_new_breaker_is_closed() -> None:
    assert breaker().state(0.0) is BreakerState.CLOSED
    assert breaker().wait(0.0) == 0.0


def test_only_the_third_failure_in_a_row_opens_it() -> None:
    found = breaker()
    assert [found.failure(0.0, DOWN) for _ in range(5)] == [False, False, True, False, False]
    assert found.state(0.0) is BreakerState.OPEN
    assert found.reason == "no connection"


def test_a_success_between_failures_resets_the_count() -> None:
    found = breaker()
    found.failure(0.0, DOWN)
    found.failure(0.0, DOWN)
    assert found.success(0.0) is False
    assert found.failure(0.0, DOWN) is False
    assert found.failure(0.0, DOWN) is False
    assert found.state(0.0) is BreakerState.CLOSED


def test_refused_credentials_open_it_at_once() -> None:
    found = breaker()
    assert found.failure(0.0, WRONG_KEY) is True
    assert found.state(0.0) is BreakerState.OPEN
    assert found.reason == "PUSHER_SECRET was refused"


@pytest.mark.parametrize("seconds", [0.0, 7.0, 300.0])
def test_retry_after_opens_it_at_once_for_at_least_that_time(seconds: float) -> None:
    found = opened(error=TransientError("429", retry_after=seconds))
    assert found.wait(0.0) == max(seconds, found.base)


def test_retry_after_has_a_limit() -> None:
    found = opened(error=TransientError("429", retry_after=86_400.0), retry_after_cap=120.0)
    assert found.wait(0.0) == 120.0


def test_a_failure_that_was_still_in_flight_does_not_shorten_the_wait() -> None:
    found = opened(error=TransientError("429", retry_after=30.0))
    found.failure(1.0, DOWN)
    assert found.wait(1.0) == pytest.approx(29.0)


# Breaker: time until the probe ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outage", "wait"), [(0.0, 0.1), (0.5, 0.1), (10.0, 1.0), (100.0, 10.0), (3600.0, 15.0)]
)
def test_the_wait_is_a_tenth_of_the_outage_between_a_floor_and_a_cap(outage: float, wait: float) -> None:
    found = opened(at=50.0)
    found.begin_probe()
    found.failure(50.0 + outage, DOWN)
    assert found.wait(50.0 + outage) == pytest.approx(wait)


@given(outage=st.floats(0.0, 1e6), share=st.floats(0.0, 1.0, exclude_max=True))
def test_jitter_shortens_the_wait_by_up_to_a_half(outage: float, share: float) -> None:
    full, some = Breaker(jitter=never, since=0.0), Breaker(jitter=lambda: share, since=0.0)
    assert full.delay(outage) / 2 <= some.delay(outage) <= full.delay(outage) <= 15.0


def test_a_new_outage_is_measured_from_its_own_first_failure() -> None:
    found = opened(at=0.0)
    found.success(500.0)
    found.failure(1000.0, WRONG_KEY)
    assert found.wait(1000.0) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["down", "key", "later", "probe", "ok"]))))
def test_no_history_makes_it_wait_beyond_its_caps(history: list[tuple[int, str]]) -> None:
    found, now = breaker(), 0
    for passed, what in history:
        now += passed
        if what == "ok":
            was_open = found.state(now) is BreakerState.OPEN
            found.success(now)
            assert (found.wait(now) == 0.0) is not was_open
        elif what == "probe":
            found.begin_probe()
        else:
            found.failure(
                now,
                {"down": DOWN, "key": WRONG_KEY, "later": TransientError("503", retry_after=1e9)}[what],
            )
        assert 0.0 <= found.wait(now) <= 1e-9 + max(found.cap, found.retry_after_cap)
        assert (found.state(now) is BreakerState.CLOSED) <= (found.wait(now) == 0.0)
        assert (found.state(now) is BreakerState.OPEN) <= (found.wait(now) > 0.0)


# Breaker: half open -----------------------------------------------------------------------------------------


def test_after_the_wait_one_probe_is_sent_and_everything_else_waits_for_it() -> None:
    found = opened(at=0.0)
    assert found.state(0.09) is BreakerState.OPEN
    assert found.wait(0.04) == pytest.approx(0.06)
    assert found.state(0.1) is BreakerState.HALF_OPEN
    assert found.wait(0.1) == 0.0
    found.begin_probe()
    assert found.state(0.1) is BreakerState.HALF_OPEN
    assert found.wait(0.1) > 0.0
    assert found.wait(1e6) > 0.0


def test_a_successful_probe_closes_it() -> None:
    found = opened(at=0.0)
    found.begin_probe()
    assert found.success(0.2) is True
    assert found.state(1.0) is BreakerState.CLOSED
    assert found.wait(1.0) == 0.0
    assert found.reason == ""
    assert found.success(1.0) is False


def test_a_success_from_before_it_opened_does_not_close_it() -> None:
    found = breaker()
    found.failure(0.0, TransientError("429", retry_after=20.0))
    assert found.success(5.0) is False
    assert found.wait(5.0) == pytest.approx(15.0)


def test_a_failed_probe_opens_it_again_without_a_second_report() -> None:
    found = opened(at=0.0)
    found.begin_probe()
    assert found.failure(20.0, DOWN) is False
    assert found.state(20.0) is BreakerState.OPEN
    assert found.wait(20.0) == pytest.approx(2.0)
    assert found.state(22.0) is BreakerState.HALF_OPEN


def test_a_probe_without_anything_to_send_allows_the_next_one() -> None:
    found = opened(at=0.0)
    found.begin_probe()
    found.cancel_probe()
    assert found.state(1.0) is BreakerState.HALF_OPEN
    assert found.wait(1.0) == 0.0


def test_a_cancelled_probe_that_had_failed_does_not_close_it() -> None:
    found = opened(at=0.0)
    found.begin_probe()
    found.failure(20.0, DOWN)
    found.cancel_probe()
    assert found.state(20.0) is BreakerState.OPEN


# Lease ------------------------------------------------------------------------------------------------------


def test_a_lane_may_be_sent_until_the_deadline_and_not_at_it() -> None:
    lease = Lease("t", ["a"], 10.0)
    assert lease.holds("a", 9.999)
    assert not lease.holds("a", 10.0)
    assert not lease.holds("b", 0.0)


def test_each_lane_is_extended_separately() -> None:
    lease = Lease("t", ["a", "b"], 10.0)
    lease.extend(["a", "never-ours"], 20.0)
    assert lease.holds("a", 15.0)
    assert not lease.holds("b", 15.0)
    assert not lease.holds("never-ours", 15.0)
    assert lease.expiring(15.0) == ["b"]
    assert len(lease) == 2


def test_a_dropped_lane_is_neither_held_nor_extended() -> None:
    lease = Lease("t", ["a", "b"], 10.0)
    assert lease.drop(["a", "a", "c"]) == 1
    lease.extend(["a"], 20.0)
    assert not lease.holds("a", 5.0)
    assert lease.expiring(100.0) == ["b"]
    assert lease.drop(["b"]) == 1
    assert len(lease) == 0


def test_a_half_open_breaker_closes_without_work_and_opens_at_the_next_failure() -> None:
    one = opened(error=DOWN, threshold=1)
    assert not one.nothing_due(0.05, waiting=False), "open: the outage may last"
    later = 1.0
    assert one.state(later) is BreakerState.HALF_OPEN
    assert not one.nothing_due(later, waiting=True), "work is due later: that will be the probe"
    assert one.nothing_due(later, waiting=False)
    assert (one.state(later), one.reason) == (BreakerState.CLOSED, "")
    one = opened(error=WRONG_KEY)
    assert one.nothing_due(later, waiting=False)
    assert one.failure(later, DOWN), "one failure, not three, opens it again"


def test_a_half_open_breaker_waits_half_a_minute_for_work_of_other_workers() -> None:
    one = opened(error=WRONG_KEY)
    assert not one.nothing_due(29.0, waiting=True)
    assert one.nothing_due(31.0, waiting=True)


def test_a_probe_in_flight_is_not_cancelled() -> None:
    one = opened(error=WRONG_KEY)
    one.begin_probe()
    assert not one.nothing_due(60.0, waiting=False)


# Window -----------------------------------------------------------------------------------------------------


def drive(window: Window, service: Callable[[int], float], seconds: float, begin: float = 0.0) -> list[int]:
    """Keep the window full for some seconds; `service` gives the answer time of so many requests in flight, negative: a failure.

    Returns the size of the window after each answer.
    """
    sizes: list[int] = []
    flying: list[tuple[float, float, bool]] = []
    now = begin
    while now < begin + seconds:
        while len(flying) < window.size:
            took = service(len(flying) + 1)
            flying.append((now + abs(took), now, took < 0))
        flying.sort()
        now, asked, failed = flying.pop(0)
        if failed:
            window.failed(asked, now)
        else:
            window.answered(asked, now, full=len(flying) + 1 >= window.size)
        sizes.append(window.size)
    return sizes


def test_a_service_that_is_only_far_away_gets_as_many_requests_as_are_allowed() -> None:
    sizes = drive(Window(64), lambda _: 0.05, 1.0)
    assert sizes[0] == 9
    assert sizes[-1] == 64
    assert max(sizes) == 64
    assert sizes.index(64) < 120, "it doubles in the time of an answer while no limit has shown"


def test_a_window_that_is_not_used_does_not_grow() -> None:
    window = Window(64)
    for n in range(1000):
        window.answered(n * 0.1, n * 0.1 + 0.05, full=False)
    assert window.size == 8


def test_a_service_whose_answers_take_longer_with_more_requests_gets_no_more_than_it_answers_at_twice_the_time() -> (
    None
):
    """It answers 400 requests a second, whatever comes: 20 in flight at 50 ms; more only wait.

    Also after minutes: what is compared was measured with few in flight, not with those that wait.
    """
    sizes = drive(Window(64), lambda flying: max(0.05, flying / 400), 120.0)
    assert len(sizes) > 0.99 * 400 * 120, "all that it can answer"
    assert max(sizes[400:]) <= 48, "it may go too far in the first second"
    # Only while it measures are fewer than 20 in flight.
    assert sum(size < 20 for size in sizes[400:]) < 0.01 * len(sizes)


@pytest.mark.parametrize(
    "service",
    [
        lambda draw: draw.uniform(0.01, 0.09),
        lambda draw: 0.03 + draw.expovariate(1 / 0.02),
        lambda draw: draw.lognormvariate(math.log(0.045), 0.6),
    ],
    ids=["10 to 90 ms", "30 ms and some more", "a long tail"],
)
def test_answers_of_changing_length_are_no_limit(service: Callable[[random.Random], float]) -> None:
    """The quickest answer says nothing about the usual one: 50 ms on average, as from a service far away."""
    draw = random.Random(1)
    sizes = drive(Window(64), lambda _: service(draw), 60.0)
    assert len(sizes) > 0.8 * 64 / 0.05 * 60


def test_slow_answers_leave_the_window_at_its_start() -> None:
    window = Window(64)
    drive(window, lambda _: 0.05, 1.0)
    sizes = drive(window, lambda _: 2.0, 60.0, begin=1.0)
    assert sizes[-1] < 64
    assert min(sizes) >= 8


def test_failures_halve_the_window_once_for_all_that_were_in_flight() -> None:
    window = Window(64)
    drive(window, lambda _: 0.05, 1.0)
    for _ in range(64):
        window.failed(0.99, 1.1)
    assert window.size == 32
    window.failed(1.11, 1.2)
    assert window.size == 16
    for n in range(20):
        window.failed(2.0 + n, 2.5 + n)
    assert window.size == 1


def test_after_a_failure_it_grows_by_one_in_the_time_of_an_answer() -> None:
    window = Window(64)
    drive(window, lambda _: 0.05, 1.0)
    window.failed(1.0, 1.05)
    assert window.size == 32
    sizes = drive(window, lambda _: 0.05, 0.5, begin=1.1)
    assert 38 <= sizes[-1] <= 43


def test_a_service_that_limits_requests_is_asked_for_about_as_many() -> None:
    """It refuses every request above 24 in flight."""
    sizes = drive(Window(64), lambda flying: -0.05 if flying > 24 else 0.05, 30.0)
    settled = sizes[len(sizes) // 2 :]
    assert statistics.mean(settled) > 15
    assert max(settled) <= 27


def test_a_way_that_became_longer_is_measured_again() -> None:
    window = Window(64)
    drive(window, lambda _: 0.02, 1.0)
    sizes = drive(window, lambda _: 0.15, 60.0, begin=1.0)
    assert sizes[-1] == 64


@given(
    largest=st.integers(1, 64),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0, 5), st.booleans()), max_size=200),
)
def test_a_window_stays_within_its_bounds(largest: int, steps: list[tuple[bool, float, bool]]) -> None:
    window, now = Window(largest), 0.0
    assert window.size == min(8, largest)
    for failed, took, full in steps:
        now += took
        if failed:
            window.failed(now - took, now)
        else:
            window.answered(now - took, now, full=full)
        assert 1 <= window.size <= largest

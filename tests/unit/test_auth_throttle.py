"""Throttling of failed authentications, and the tokens that pass all the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from gre_bridge.api import auth, throttle
from gre_bridge.api.auth import Authenticator
from gre_bridge.api.throttle import AuthThrottle
from gre_bridge.db.users import UserDatabase
from gre_bridge.errors import Refused, TransientError

HOME, OTHER = "203.0.113.7", "203.0.113.8"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_address_may_fail_a_number_of_times_per_minute(clock: Clock) -> None:
    limiter = AuthThrottle(6, clock)
    for _ in range(6):
        assert limiter.retry_after(HOME) == 0
        limiter.record_failure(HOME)
    assert limiter.retry_after(HOME) == pytest.approx(10)
    assert limiter.retry_after(OTHER) == 0
    clock.now += 9.9
    assert limiter.retry_after(HOME) == pytest.approx(0.1)
    clock.now += 0.1
    assert limiter.retry_after(HOME) == 0
    limiter.record_failure(HOME)
    assert limiter.retry_after(HOME) == pytest.approx(10)
    clock.now += 60
    for _ in range(6):
        assert limiter.retry_after(HOME) == 0
        limiter.record_failure(HOME)
    assert limiter.retry_after(HOME) > 0


def test_concurrent_failures_cost_at_most_one_minute(clock: Clock) -> None:
    limiter = AuthThrottle(6, clock)
    for _ in range(5_000):
        limiter.record_failure(HOME)
    assert limiter.retry_after(HOME) == pytest.approx(10)


@pytest.mark.parametrize("per_minute", [1, 7, 60, 9_999])
def test_the_limit_is_exact(clock: Clock, per_minute: int) -> None:
    limiter, failed = AuthThrottle(per_minute, clock), 0
    while limiter.retry_after(HOME) == 0:
        limiter.record_failure(HOME)
        failed += 1
    assert failed == per_minute


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2:bbbb::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("unix:", "", False),
        (None, "", True),
    ],
)
def test_visitors_are_counted_by_ipv4_address_or_ipv6_network(
    clock: Clock, one: str | None, another: str, same: bool
) -> None:
    limiter = AuthThrottle(1, clock)
    limiter.record_failure(one)
    assert (limiter.retry_after(another) > 0) == same


def test_one_failing_subject_does_not_lock_out_others_of_its_address(clock: Clock) -> None:
    limiter = AuthThrottle(6, clock)
    for _ in range(30):
        limiter.record_failure(HOME, "eve")
        clock.now += 1
    assert limiter.retry_after(HOME, "eve") > 0
    assert limiter.retry_after(HOME, "asha") == 0
    assert limiter.retry_after_address(HOME) == 0


def test_invented_subjects_use_up_the_budget_of_the_address(clock: Clock) -> None:
    limiter = AuthThrottle(6, clock)
    for n in range(60):
        assert limiter.retry_after(HOME, f"made up {n}") == 0
        limiter.record_failure(HOME, f"made up {n}")
    assert limiter.retry_after(HOME, "asha") > 0 and limiter.retry_after_address(HOME) > 0
    assert limiter.retry_after(HOME, "asha", known=True) == 0
    assert limiter.retry_after(OTHER, "asha") == 0


def test_the_memory_of_failures_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_KEYS", 100)
    limiter = AuthThrottle(1, clock)
    for n in range(10_000):
        limiter.record_failure(f"10.0.{n // 256}.{n % 256}")
    assert len(limiter._subjects.free_at) == len(limiter._addresses.free_at) == 100
    assert limiter.retry_after("10.0.39.15") > 0 and limiter.retry_after("10.0.0.1") == 0
    clock.now += 61
    limiter.record_failure(HOME)
    assert len(limiter._subjects.free_at) == len(limiter._addresses.free_at) == 1


def answering(*answers: Exception | str) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """Return an operation with these answers, one after the other, the last one repeated; and a list of its calls."""
    calls: list[int] = []

    async def operation() -> str:
        calls.append(1)
        answer = answers[min(len(calls), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return operation, calls


BAD = Refused(401, "token_invalid", "the token is not valid")
AWAY = TransientError("no connection")


@pytest.fixture
def authenticator(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Authenticator:
    monkeypatch.setattr(auth, "RETRY_PAUSES", (0.0, 0.0))
    return Authenticator(cast("UserDatabase", object()), AuthThrottle(3, clock), clock=clock)


async def fail(authenticator: Authenticator, times: int) -> None:
    for n in range(times):
        with pytest.raises(Refused):
            await authenticator.call(HOME, f"bad-{n}", answering(BAD)[0])


async def test_a_token_without_identity_is_not_remembered(
    authenticator: Authenticator,
) -> None:
    """The anon key is one: everybody has it."""
    operation, calls = answering("nobody")
    for _ in range(3):
        assert await authenticator.call(HOME, "anon", operation) == "nobody"
        authenticator.record_failure(HOME, "anon")
    with pytest.raises(Refused, match="too many"):
        await authenticator.call(HOME, "anon", operation)
    assert len(calls) == 3


async def test_known_tokens_pass_while_others_wait(authenticator: Authenticator, clock: Clock) -> None:
    assert await authenticator.call(HOME, "good", answering("yes")[0]) == "yes"
    await fail(authenticator, 3)
    operation, calls = answering("yes")
    with pytest.raises(Refused) as refused:
        await authenticator.call(HOME, "new", operation)
    assert (refused.value.status, refused.value.code, calls) == (429, "too_many_failures", [])
    assert refused.value.retry_after == pytest.approx(20)
    for _ in range(10):
        assert await authenticator.call(HOME, "good", operation) == "yes"
    # A token is valid too if the call is refused for another reason.
    clock.now += 20
    with pytest.raises(Refused):
        await authenticator.call(
            HOME, "new", answering(Refused(403, "staff_only", "only staff may do this"))[0]
        )
    await fail(authenticator, 1)
    assert await authenticator.call(HOME, "new", operation) == "yes"


def token_of(subject: str, signature: str) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"sub": subject}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{payload}.{signature}"


async def test_a_guest_with_a_new_token_passes_beside_a_failing_visitor(
    authenticator: Authenticator, clock: Clock
) -> None:
    """A venue's guests share an address, and their tokens are new each hour."""
    await authenticator.call(HOME, token_of("asha", "first"), answering("yes")[0])
    for n in range(60):
        with pytest.raises(Refused):
            await authenticator.call(HOME, f"nonsense {n}", answering(BAD)[0])
        clock.now += 1
        assert await authenticator.call(HOME, token_of(f"guest {n}", "new"), answering("yes")[0]) == "yes"
    # Invented subjects use up the budget of the address; subjects accepted before still pass.
    for n in range(30):
        with pytest.raises(Refused):
            await authenticator.call(HOME, token_of(f"made up {n}", "forged"), answering(BAD)[0])
    with pytest.raises(Refused, match="too many"):
        await authenticator.call(HOME, token_of("stranger", "new"), answering("yes")[0])
    assert await authenticator.call(HOME, token_of("asha", "second"), answering("yes")[0]) == "yes"


@pytest.mark.parametrize(
    "token",
    ["a.b.c", "a.!!!.c", "..", "a." + "x" * 50_000 + ".c", "a.bnVsbA.c", "a.eyJzdWIiOjF9.c", "a.\xff.c"],
)
async def test_a_token_without_a_subject_is_counted(authenticator: Authenticator, token: str) -> None:
    for _ in range(3):
        with pytest.raises(Refused, match="not valid"):
            await authenticator.call(HOME, token, answering(BAD)[0])
    with pytest.raises(Refused, match="too many"):
        await authenticator.call(HOME, token, answering(BAD)[0])


async def test_an_expired_token_is_forgotten(authenticator: Authenticator, clock: Clock) -> None:
    await authenticator.call(HOME, "good", answering("yes")[0])
    await fail(authenticator, 2)
    with pytest.raises(Refused):
        await authenticator.call(HOME, "good", answering(BAD)[0])
    with pytest.raises(Refused) as refused:
        await authenticator.call(HOME, "good", answering("yes")[0])
    assert refused.value.status == 429
    await authenticator.call(OTHER, "good", answering("yes")[0])
    clock.now += auth.REMEMBER_SECONDS
    await fail(authenticator, 3)
    with pytest.raises(Refused) as refused:
        await authenticator.call(HOME, "good", answering("yes")[0])
    assert refused.value.status == 429


async def test_the_memory_of_tokens_is_bounded(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 50)
    for n in range(500):
        await authenticator.call(HOME, f"token-{n}", answering("yes")[0])
    assert len(authenticator._accepted) == 50
    assert not [key for key in authenticator._accepted if b"token" in key]


async def test_an_operation_whose_answer_was_lost_is_repeated(authenticator: Authenticator) -> None:
    operation, calls = answering(AWAY, AWAY, "yes")
    assert await authenticator.call(HOME, "t", operation) == "yes"
    assert len(calls) == 3
    for repeat, times in ((True, 3), (False, 1)):
        operation, calls = answering(AWAY)
        with pytest.raises(TransientError):
            await authenticator.call(HOME, "t", operation, repeat=repeat)
        assert len(calls) == times
    assert authenticator._throttle.retry_after(HOME) == 0


async def test_an_operation_is_not_repeated_after_a_slow_attempt(
    authenticator: Authenticator, clock: Clock
) -> None:
    operation, calls = answering(AWAY)

    async def slow() -> str:
        clock.now += 3.5
        return await operation()

    with pytest.raises(TransientError):
        await authenticator.call(HOME, "t", slow)
    assert len(calls) == 1

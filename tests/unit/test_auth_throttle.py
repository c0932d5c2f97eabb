"""The guard of failed authentications, and which tokens it lets through all the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from gre_bridge.api import auth as access_module
from gre_bridge.api import throttle as guard_module
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


def test_an_address_may_fail_so_often_a_minute(clock: Clock) -> None:
    guard = AuthThrottle(6, clock)
    for _ in range(6):
        assert guard.wait(HOME) == 0
        guard.failed(HOME)
    assert guard.wait(HOME) == pytest.approx(10)
    assert guard.wait(OTHER) == 0
    clock.now += 9.9
    assert guard.wait(HOME) == pytest.approx(0.1)
    clock.now += 0.1
    assert guard.wait(HOME) == 0
    guard.failed(HOME)
    assert guard.wait(HOME) == pytest.approx(10)
    clock.now += 60
    for _ in range(6):
        assert guard.wait(HOME) == 0
        guard.failed(HOME)
    assert guard.wait(HOME) > 0


def test_what_was_under_way_together_costs_no_more_than_a_minute(clock: Clock) -> None:
    guard = AuthThrottle(6, clock)
    for _ in range(5_000):
        guard.failed(HOME)
    assert guard.wait(HOME) == pytest.approx(10)


@pytest.mark.parametrize("per_minute", [1, 7, 60, 9_999])
def test_the_limit_is_exact(clock: Clock, per_minute: int) -> None:
    guard, failed = AuthThrottle(per_minute, clock), 0
    while guard.wait(HOME) == 0:
        guard.failed(HOME)
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
def test_an_address_is_what_one_visitor_has(clock: Clock, one: str | None, another: str, same: bool) -> None:
    guard = AuthThrottle(1, clock)
    guard.failed(one)
    assert (guard.wait(another) > 0) == same


def test_one_bad_subject_does_not_lock_out_the_others_of_its_address(clock: Clock) -> None:
    guard = AuthThrottle(6, clock)
    for _ in range(30):
        guard.failed(HOME, "eve")
        clock.now += 1
    assert guard.wait(HOME, "eve") > 0
    assert guard.wait(HOME, "asha") == 0
    assert guard.wait_of_all(HOME) == 0


def test_subjects_that_are_made_up_meet_the_addresss_own_budget(clock: Clock) -> None:
    guard = AuthThrottle(6, clock)
    for n in range(60):
        assert guard.wait(HOME, f"made up {n}") == 0
        guard.failed(HOME, f"made up {n}")
    assert guard.wait(HOME, "asha") > 0 and guard.wait_of_all(HOME) > 0
    assert guard.wait(HOME, "asha", known=True) == 0
    assert guard.wait(OTHER, "asha") == 0


def test_the_guards_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "ADDRESSES", 100)
    guard = AuthThrottle(1, clock)
    for n in range(10_000):
        guard.failed(f"10.0.{n // 256}.{n % 256}")
    assert len(guard._subjects.paid) == len(guard._addresses.paid) == 100
    assert guard.wait("10.0.39.15") > 0 and guard.wait("10.0.0.1") == 0
    clock.now += 61
    guard.failed(HOME)
    assert len(guard._subjects.paid) == len(guard._addresses.paid) == 1


def answering(*answers: Exception | str) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """A question with these answers, one after the other, the last one for ever; and how often it was asked."""
    asked: list[int] = []

    async def question() -> str:
        asked.append(1)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return question, asked


BAD = Refused(401, "token_invalid", "the token is not valid")
AWAY = TransientError("no connection")


@pytest.fixture
def access(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Authenticator:
    monkeypatch.setattr(access_module, "PAUSES", (0.0, 0.0))
    return Authenticator(cast("UserDatabase", object()), AuthThrottle(3, clock), clock=clock)


async def fail(access: Authenticator, times: int) -> None:
    for n in range(times):
        with pytest.raises(Refused):
            await access.ask(HOME, f"bad-{n}", answering(BAD)[0])


async def test_a_token_that_is_nobodys_is_not_known_though_the_database_answered(
    access: Authenticator,
) -> None:
    """The anon key is one: everybody has it."""
    question, asked = answering("nobody")
    for _ in range(3):
        assert await access.ask(HOME, "anon", question) == "nobody"
        access.failed(HOME, "anon")
    with pytest.raises(Refused, match="too many"):
        await access.ask(HOME, "anon", question)
    assert len(asked) == 3


async def test_known_tokens_pass_where_others_wait(access: Authenticator, clock: Clock) -> None:
    assert await access.ask(HOME, "good", answering("yes")[0]) == "yes"
    await fail(access, 3)
    question, asked = answering("yes")
    with pytest.raises(Refused) as refused:
        await access.ask(HOME, "new", question)
    assert (refused.value.status, refused.value.code, asked) == (429, "too_many_failures", [])
    assert refused.value.retry_after == pytest.approx(20)
    for _ in range(10):
        assert await access.ask(HOME, "good", question) == "yes"
    # One that is refused for another reason than its token is good as well.
    clock.now += 20
    with pytest.raises(Refused):
        await access.ask(HOME, "new", answering(Refused(403, "staff_only", "only staff may do this"))[0])
    await fail(access, 1)
    assert await access.ask(HOME, "new", question) == "yes"


def token_of(subject: str, signature: str) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"sub": subject}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{payload}.{signature}"


async def test_a_guest_with_a_new_token_comes_in_beside_a_bad_visitor(
    access: Authenticator, clock: Clock
) -> None:
    """A venue's guests share an address, and their tokens are new each hour."""
    await access.ask(HOME, token_of("asha", "first"), answering("yes")[0])
    for n in range(60):
        with pytest.raises(Refused):
            await access.ask(HOME, f"nonsense {n}", answering(BAD)[0])
        clock.now += 1
        assert await access.ask(HOME, token_of(f"guest {n}", "new"), answering("yes")[0]) == "yes"
    # Made-up subjects use up what the address has; whoever was here before still comes in.
    for n in range(30):
        with pytest.raises(Refused):
            await access.ask(HOME, token_of(f"made up {n}", "forged"), answering(BAD)[0])
    with pytest.raises(Refused, match="too many"):
        await access.ask(HOME, token_of("stranger", "new"), answering("yes")[0])
    assert await access.ask(HOME, token_of("asha", "second"), answering("yes")[0]) == "yes"


@pytest.mark.parametrize(
    "token",
    ["a.b.c", "a.!!!.c", "..", "a." + "x" * 50_000 + ".c", "a.bnVsbA.c", "a.eyJzdWIiOjF9.c", "a.\xff.c"],
)
async def test_a_token_that_names_nobody_is_counted_all_the_same(access: Authenticator, token: str) -> None:
    for _ in range(3):
        with pytest.raises(Refused, match="not valid"):
            await access.ask(HOME, token, answering(BAD)[0])
    with pytest.raises(Refused, match="too many"):
        await access.ask(HOME, token, answering(BAD)[0])


async def test_a_token_that_ended_is_known_no_longer(access: Authenticator, clock: Clock) -> None:
    await access.ask(HOME, "good", answering("yes")[0])
    await fail(access, 2)
    with pytest.raises(Refused):
        await access.ask(HOME, "good", answering(BAD)[0])
    with pytest.raises(Refused) as refused:
        await access.ask(HOME, "good", answering("yes")[0])
    assert refused.value.status == 429
    await access.ask(OTHER, "good", answering("yes")[0])
    clock.now += access_module.REMEMBER
    await fail(access, 3)
    with pytest.raises(Refused) as refused:
        await access.ask(HOME, "good", answering("yes")[0])
    assert refused.value.status == 429


async def test_the_memory_of_tokens_is_bounded(
    access: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "TOKENS", 50)
    for n in range(500):
        await access.ask(HOME, f"token-{n}", answering("yes")[0])
    assert len(access._taken) == 50
    assert not [key for key in access._taken if b"token" in key]


async def test_a_question_whose_answer_was_lost_is_asked_again(access: Authenticator) -> None:
    question, asked = answering(AWAY, AWAY, "yes")
    assert await access.ask(HOME, "t", question) == "yes"
    assert len(asked) == 3
    for repeat, times in ((True, 3), (False, 1)):
        question, asked = answering(AWAY)
        with pytest.raises(TransientError):
            await access.ask(HOME, "t", question, repeat=repeat)
        assert len(asked) == times
    assert access._guard.wait(HOME) == 0


async def test_but_not_when_the_first_try_took_its_time(access: Authenticator, clock: Clock) -> None:
    question, asked = answering(AWAY)

    async def slow() -> str:
        clock.now += 3.5
        return await question()

    with pytest.raises(TransientError):
        await access.ask(HOME, "t", slow)
    assert len(asked) == 1

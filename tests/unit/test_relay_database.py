"""The relay's database client: each failure is classified once, and its text contains no argument."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest

from gre_bridge.db.callers import refusal
from gre_bridge.db.postgrest import PostgrestClient, PostgrestError
from gre_bridge.db.relay import RelayDatabase, classify_error
from gre_bridge.db.types import ClaimRequest, Failure, LaneResult
from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, Refused, TransientError
from tests.support.loopback import (
    GARBAGE,
    GONE,
    HALF_A_BODY,
    HANG,
    Reply,
    Request,
    closed_port,
    json_reply,
    saying,
    serving,
    serving_bytes,
    silent_port,
    unaccepting_port,
)

KEY = "sb_secret_0123456789"


def api(code: str, message: str = "some words", details: str | None = None) -> PostgrestError:
    """Return the error of a response with this body."""
    return PostgrestError(status=400, code=code, message=message, details=details)


# Classification ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "",  # a crashed database answers 400 with an empty code at first
        "PGRST000", "PGRST001", "PGRST002", "PGRST003",
        "57014", "57P01", "57P02", "57P03", "55P03", "08000", "08006", "53300", "53400", "58030", "XX000",
        "500", "502", "503", "504", "520", "521", "522", "524", "540", "429", "408",
        # PostgREST 16 reports these; until 15 it retries them itself
        "40001", "40P01",
    ],
)  # fmt: skip
def test_an_outage_is_transient(code: str) -> None:
    found = classify_error(api(code), "gre_relay_claim_v1")
    assert type(found) is TransientError
    assert found.code == code
    assert "gre_relay_claim_v1" in str(found)


def test_the_error_of_an_exhausted_pool_names_the_cause() -> None:
    found = classify_error(
        api("PGRST003", "Timed out acquiring connection from connection pool."), "gre_relay_claim_v1"
    )
    assert type(found) is TransientError
    assert (
        str(found)
        == "gre_relay_claim_v1: PostgREST's connections are all taken by other queries (504 PGRST003)"
    )


@pytest.mark.parametrize("code", ["54000", "54001", "22P02", "23514"])
def test_a_value_beyond_a_limit_is_permanent_and_no_outage(code: str) -> None:
    """An index that cannot store a value (54000) was once a 503, which clients repeated without end."""
    found = refusal(api(code), "gre_close_session")
    assert isinstance(found, Refused)
    assert (found.status, found.code) == (400, "value_invalid")


def test_a_classified_error_is_not_classified_again() -> None:
    error = TransientError("gre_relay_claim_v1: no answer in time", code="timeout")
    assert classify_error(error, "gre_relay_claim_v1") is error


def test_a_token_from_the_future_is_transient() -> None:
    """An error of Supabase (supabase/supabase#50651): the service key is valid."""
    for message in ("JWT issued at future", "JWT not yet valid"):
        error = PostgrestError(status=401, code="PGRST303", message=message)
        assert type(classify_error(error, "gre_relay_claim_v1")) is TransientError
    expired = PostgrestError(status=401, code="PGRST303", message="JWT expired")
    assert type(classify_error(expired, "gre_relay_claim_v1")) is ConfigurationError


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("PGRST202", "gre-bridge migrate"),
        ("PGRST301", "SUPABASE_SERVICE_KEY"),
        ("PGRST303", "SUPABASE_SERVICE_KEY"),
        ("401", "SUPABASE_SERVICE_KEY"),
        ("403", "SUPABASE_SERVICE_KEY"),
        ("42501", "SUPABASE_SERVICE_KEY"),
    ],
)
def test_a_configuration_error_names_the_fix(code: str, words: str) -> None:
    found = classify_error(api(code), "gre_relay_claim_v1")
    assert type(found) is ConfigurationError
    assert words in str(found)
    assert found.code == code


@pytest.mark.parametrize(
    "code",
    ["P0001", "PT400", "PT409", "22P02", "22003", "22P05", "23502", "23503", "23505", "23514", "42703",
     "PGRST102", "PGRST203", "400", "413"],
)  # fmt: skip
def test_a_refused_request_is_permanent(code: str) -> None:
    found = classify_error(api(code), "gre_relay_settle_v1")
    assert type(found) is PermanentError
    assert found.code == code
    assert code in str(found)


@pytest.mark.parametrize("error", [TypeError("Decimal hunter2"), ValueError("NaN hunter2")])
def test_an_argument_that_cannot_be_sent_is_permanent(error: Exception) -> None:
    found = classify_error(error, "gre_relay_settle_v1")
    assert type(found) is PermanentError
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("code", "message", "details"),
    [
        (
            "23514",
            'new row for relation "x" violates check constraint "y"',
            "Failing row contains (hunter2).",
        ),
        ("23505", "duplicate key value", "Key (id)=(hunter2) already exists."),
        ("22P02", 'invalid input syntax for type uuid: "hunter2"', None),
        ("22003", 'value "hunter2" is out of range for type integer', None),
        ("22007", 'invalid input syntax for type timestamp: "hunter2"', None),
        ("502", "Bad Gateway", "<html>hunter2</html>"),
        ("XX000", "hunter2-free", "parameters: $1 = 'hunter2'"),
    ],
)
def test_the_text_contains_no_argument(code: str, message: str, details: str | None) -> None:
    found = str(
        classify_error(
            api(code, message.replace("hunter2-free", "internal error"), details), "gre_relay_settle_v1"
        )
    )
    assert "hunter2" not in found
    assert code in found


def test_the_text_is_one_line() -> None:
    assert str(classify_error(api("P0001", "two\nlines\r\nof it"), "f")) == "f: P0001 two lines of it"


# Requests ----------------------------------------------------------------------------------------------


REQUEST = ClaimRequest(
    sink="pusher", owner="o", token="11111111-2222-3333-4444-555555555555", lanes=3, per_lane=4, lease=30.0
)


class Observed:
    """Records the reports to the observer."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.called: list[str] = []
        self.recovered: list[float] = []
        self._clock = clock

    def database_called(self, function: str) -> AbstractContextManager[None]:
        self.called.append(function)
        return nullcontext()

    def database_recovered(self) -> None:
        self.recovered.append(self._clock())


@asynccontextmanager
async def store_at(
    port: int, timeout: float = 10.0, observer: Observed | None = None
) -> AsyncIterator[RelayDatabase]:
    rest = await PostgrestClient.open(url=f"http://127.0.0.1:{port}", key=KEY, timeout=timeout)
    store = RelayDatabase(rest=rest, observer=observer or Observed())
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def opened(
    handler: Callable[[Request], Reply], observer: Observed | None = None
) -> AsyncIterator[RelayDatabase]:
    """A client whose requests `handler` answers."""
    async with serving(handler) as port, store_at(port, observer=observer) as store:
        yield store


async def refused(store: RelayDatabase) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        await store.claim(REQUEST)
    assert "gre_relay_claim_v1" in str(caught.value)
    assert "11111111" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__
    return caught.value


async def failure(handler: Callable[[Request], Reply]) -> BridgeError:
    async with opened(handler) as store:
        return await refused(store)


async def test_a_claim_is_one_post_whose_answer_becomes_lanes() -> None:
    seen: list[Request] = []
    delivery = {
        "id": "d1", "ord": 7, "event": "message", "attempts": 2, "age": 0.5, "data": None,
        "message": {"id": "m1", "message": "hi"}, "session": None, "push": None,
    }  # fmt: skip

    def answer(request: Request) -> Reply:
        seen.append(request)
        lanes = [{"lane_key": "s1", "deliveries": [delivery]}]
        staff = [{"staff_id": "s1", "online": True}]
        return json_reply(
            {"lanes": lanes, "emptied_lanes": 0, "recovered_lanes": 2, "next_in": 1.5, "staff": staff}
        )

    observer = Observed()
    async with opened(answer, observer) as store:
        claim = await store.claim(replace(REQUEST, held=("h1", "h2")))
    assert (claim.token, claim.next_in, claim.staff) == (REQUEST.token, 1.5, (("s1", True),))
    assert claim.recovered_lanes == 2
    (lane,) = claim.lanes
    (one,) = lane.deliveries
    assert (lane.key, one.id, one.ord, one.attempts, one.age, one.data) == ("s1", "d1", 7, 2, 0.5, {})
    assert one.message == {"id": "m1", "message": "hi"}
    (request,) = seen
    assert (request.method, request.path) == ("POST", "/rest/v1/rpc/gre_relay_claim_v1")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(request.content) == {
        "p_sink": "pusher", "p_owner": "o", "p_token": REQUEST.token, "p_held": ["h1", "h2"],
        "p_lanes": 3, "p_per_lane": 4, "p_lease_seconds": 30.0,
    }  # fmt: skip
    assert observer.called == ["gre_relay_claim_v1"]


async def test_a_settle_sends_json_and_not_text_of_json() -> None:
    seen: list[Any] = []

    def answer(request: Request) -> Reply:
        seen.append(request.json())
        return json_reply({"busy": ["a"], "lost": ["b"], "waiting": 3})

    failed = Failure(("d3",), "retry", "400", spend=True, retry_in=2.5)
    results = [
        LaneResult("a", "t", done=["d1"], expired=["d2"], failure=failed),
        LaneResult("b", "t", keep=True),
    ]
    async with opened(answer) as store:
        settled = await store.settle(sink="pusher", results=results)
    assert (settled.busy, settled.lost, settled.waiting) == (frozenset("a"), frozenset("b"), 3)
    assert seen[0]["p_results"] == [
        {
            "lane": "a", "token": "t", "done": ["d1"], "expired": ["d2"], "retry_in": 2.5,
            "failed": {"ids": ["d3"], "state": "retry", "error": "400", "spend": True},
        },
        {"lane": "b", "token": "t", "keep": True},
    ]  # fmt: skip


async def test_an_exchange_sends_results_and_a_claim_and_has_both_answers() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Reply:
        seen.append(request)
        claimed = {"lanes": [{"lane_key": "a", "deliveries": []}], "next_in": None, "staff": None}
        return json_reply({"settled": {"busy": ["x"], "lost": [], "waiting": 2}, "claim": claimed})

    async with opened(answer) as store:
        settled, claim = await store.exchange([LaneResult("x", "t", done=["d"])], REQUEST)
    assert (settled.busy, settled.waiting) == (frozenset("x"), 2)
    assert (claim.token, claim.lanes[0].key) == (REQUEST.token, "a")
    (request,) = seen
    assert request.path == "/rest/v1/rpc/gre_relay_exchange_v1"
    assert request.json() == {
        **REQUEST.to_json(), "p_held": [], "p_results": [{"lane": "x", "token": "t", "done": ["d"]}],
    }  # fmt: skip


async def test_an_exchange_without_a_claim_in_its_answer_is_transient() -> None:
    async with opened(lambda _: json_reply({"settled": {"busy": [], "lost": [], "waiting": 0}})) as store:
        with pytest.raises(TransientError, match="gre_relay_exchange_v1"):
            await store.exchange([LaneResult("x", "t")], REQUEST)


async def test_extend_and_release_return_lost_and_locked_lanes() -> None:
    def answer(request: Request) -> Reply:
        if request.path.endswith("extend_v1"):
            return json_reply({"extended": ["a"], "busy": ["b"]})
        owner = request.json()["p_owner"]
        return json_reply({"released": 1, "busy": 0 if owner == "o" else 1})

    async with opened(answer) as store:
        extended = await store.extend(sink="s", token="t", lanes=["a", "b", "c"], lease=3.0)
        assert extended == (frozenset("a"), frozenset("b"))
        assert await store.release(sink="s", owner="o") is True
        assert await store.release(sink="s", owner="another") is False


@pytest.mark.parametrize(
    ("response", "kind", "code"),
    [
        (json_reply({"code": "", "details": None, "hint": None, "message": ""}, 400), "transient", ""),
        (json_reply({"code": "PGRST001", "details": None, "hint": None, "message": "Database client error. Retrying the connection."}, 503), "transient", "PGRST001"),
        (json_reply({"code": "57014", "details": None, "hint": None, "message": "canceling statement due to statement timeout"}, 500), "transient", "57014"),
        (Reply(502, b"<html><h1>502 Bad Gateway</h1></html>"), "transient", "502"),
        (Reply(504, b"<html></html>"), "transient", "504"),
        (Reply(429, b"slow down"), "transient", "429"),
        (json_reply({"code": "PGRST202", "details": "Searched for the function", "hint": None, "message": "Could not find the function public.gre_relay_claim_v1(p_token)"}, 404), "transient", "PGRST202"),
        (json_reply({"code": "42501", "details": None, "hint": None, "message": "permission denied for function gre_relay_claim_v1"}, 403), "configuration", "42501"),
        # the gateway of a hosted project, whose errors have no "code"
        (json_reply({"message": "An invalid response was received from the upstream server"}, 502), "transient", None),
        (json_reply({"message": "Invalid API key", "hint": "Double check your Supabase `anon` or `service_role` API key."}, 401), "configuration", None),
        (json_reply({"code": "P0001", "details": None, "hint": None, "message": "claim_invalid"}, 400), "permanent", "P0001"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_each_response_is_classified(response: Reply, kind: str, code: str | None) -> None:
    found = await failure(lambda _: response)
    assert found.kind == kind
    assert code is None or found.code == code


async def test_the_observer_is_told_of_the_recovery() -> None:
    """Realtime was unavailable too, so wake-ups are unreliable for a while."""
    away = json_reply({"code": "", "details": None, "hint": None, "message": ""}, 400)
    busy = json_reply({"code": "57014", "details": None, "hint": None, "message": ""}, 500)
    fine = json_reply({"lanes": [], "next_in": None})
    replies = (fine, busy, away, away, busy, fine, busy, away, fine, away, fine, fine, fine)
    times = (0, 1, 2, 3, 4, 5, 6, 7, 8, 8.1, 8.9, 9.1, 9.2)
    now = 0
    async with serving(lambda _: replies[now]) as port:
        rest = await PostgrestClient.open(url=f"http://127.0.0.1:{port}", key=KEY)
        observer = Observed(lambda: times[now])
        store = RelayDatabase(rest=rest, observer=observer, clock=lambda: times[now])
        try:
            for now in range(len(replies)):  # noqa: B007 - what the server answers by
                with contextlib.suppress(TransientError):
                    await store.claim(REQUEST)
            assert observer.recovered == [5, 8, 9.1], "at most once in RECOVERY_DEBOUNCE seconds"
        finally:
            await store.aclose()


async def test_an_unknown_function_is_transient_for_a_minute() -> None:
    """After a migration PostgREST reloads the schema; meanwhile it reports unknown functions."""
    unknown = json_reply({"code": "PGRST202", "details": None, "hint": None, "message": "unknown"}, 404)
    now, reply = [0.0], unknown
    async with serving(lambda _: reply) as port:
        rest = await PostgrestClient.open(url=f"http://127.0.0.1:{port}", key=KEY)
        store = RelayDatabase(rest=rest, observer=Observed(), clock=lambda: now[0])
        try:
            kinds = []
            for now[0] in (0.0, 59.0, 60.0, 61.0):
                found = await refused(store)
                assert "gre-bridge migrate" in str(found)
                kinds.append(found.kind)
            assert kinds == ["transient", "transient", "configuration", "configuration"]
            reply = json_reply({"lanes": [], "next_in": None})
            await store.claim(REQUEST)
            reply, now[0] = unknown, 100.0
            assert (await refused(store)).kind == "transient"
        finally:
            await store.aclose()


@pytest.mark.parametrize("reply", [HANG, GONE], ids=["silent", "gone"])
async def test_a_dead_connection_is_one_attempt_and_transient(reply: Reply) -> None:
    attempts = 0

    def answer(_: Request) -> Reply:
        nonlocal attempts
        attempts += 1
        return reply

    async with serving(answer) as port, store_at(port, timeout=1.0 if reply.hang else 10.0) as store:
        found = await refused(store)
    assert type(found) is TransientError
    assert found.code == ("timeout" if reply.hang else "connection")
    assert attempts == 1


@pytest.mark.parametrize("answer", [HALF_A_BODY, GARBAGE], ids=["half", "garbage"])
async def test_half_an_answer_is_transient(answer: bytes) -> None:
    async with serving_bytes(saying(answer)) as port, store_at(port) as store:
        found = await refused(store)
    assert (type(found), found.code) == (TransientError, "connection")


@pytest.mark.parametrize(
    ("port", "code"), [(closed_port, "connection"), (silent_port, "timeout"), (unaccepting_port, "timeout")]
)
async def test_no_connection_is_transient(port: Callable[[], AbstractContextManager[int]], code: str) -> None:
    with port() as number:
        async with store_at(number, timeout=0.3 if code == "timeout" else 10.0) as store:
            found = await refused(store)
    assert (type(found), found.code) == (TransientError, code)


async def test_a_name_that_is_not_known_is_transient() -> None:
    store = RelayDatabase(
        rest=await PostgrestClient.open(url="http://project.invalid", key=KEY), observer=Observed()
    )
    assert (await refused(store)).code == "connection"
    await store.aclose()


@pytest.mark.parametrize("body", ["null", "[]", '"ok"', "{}", "<html>maintenance</html>"])
async def test_a_foreign_answer_is_transient(body: str) -> None:
    """A proxy's maintenance page with status 200 must not end the daemon."""
    found = await failure(lambda _: Reply(200, body.encode(), {"content-type": "application/json"}))
    assert found.kind == "transient"  # a settle with a permanent error would be sent again


async def test_a_cancelled_call_is_no_failure_of_the_database() -> None:
    async with opened(lambda _: HANG) as store:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.schema_version()


async def test_invalid_settings_of_the_client_are_configuration_errors() -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_KEY"):
        await PostgrestClient.open(url="https://p.supabase.co", key="")
    with pytest.raises(ConfigurationError, match="SUPABASE_URL"):
        await PostgrestClient.open(url="nonsense", key=KEY)

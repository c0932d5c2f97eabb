"""The store: each failure is sorted once, and no argument gets into its text."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from postgrest.exceptions import APIError

from gre_bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from gre_bridge.models import Failure, LaneResult
from gre_bridge.store import Store, explain

REQUEST = httpx.Request("POST", "https://p.supabase.co/rest/v1/rpc/f?secret=hunter2")
KEY = "sb_secret_0123456789"


@pytest.fixture(autouse=True)
def _one_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the system's certificates takes longer than any test here."""
    monkeypatch.setattr(ssl, "create_default_context", functools.partial(_tls, ssl.create_default_context))


@functools.cache
def _tls(create: Callable[..., ssl.SSLContext], **options: Any) -> ssl.SSLContext:
    return create(**options)


def api(code: Any, message: str | None = "some words", details: str | None = None) -> APIError:
    """What supabase-py raises for an answer with this body."""
    return APIError({"code": code, "message": message, "details": details, "hint": None})


# Sorting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "", None,  # a crashed database answers 400 with an empty code at first
        "PGRST000", "PGRST001", "PGRST002", "PGRST003",
        "57014", "57P01", "57P02", "57P03", "55P03", "08000", "08006", "53300", "53400", "58030", "XX000",
        "500", "502", "503", "504", "520", "521", "522", "524", "540", "429", "408",
        # PostgREST 16 reports these; until 15 it retries them itself
        "40001", "40P01",
    ],
)  # fmt: skip
def test_an_outage_is_transient(code: str | None) -> None:
    found = explain(api(code), "gre_relay_claim")
    assert type(found) is TransientError
    assert found.code == (code or "")
    assert "gre_relay_claim" in str(found)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("", request=REQUEST),
        httpx.ConnectTimeout("", request=REQUEST),
        httpx.PoolTimeout("", request=REQUEST),
        httpx.ConnectError("[Errno 111] hunter2", request=REQUEST),
        httpx.ReadError("", request=REQUEST),
        httpx.RemoteProtocolError("Server disconnected without sending a response.", request=REQUEST),
        httpx.WriteError("", request=REQUEST),
        ConnectionResetError("hunter2"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_connection_is_transient(error: Exception) -> None:
    found = explain(error, "gre_relay_claim")
    assert type(found) is TransientError
    assert "gre_relay_claim" in str(found)
    assert "hunter2" not in str(found)


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
def test_what_a_person_must_mend_says_what_to_do(code: str, words: str) -> None:
    found = explain(api(code), "gre_relay_claim")
    assert type(found) is ConfigurationError
    assert words in str(found)
    assert found.code == code


@pytest.mark.parametrize(
    "code",
    ["P0001", "PT400", "PT409", "22P02", "22003", "22P05", "23502", "23503", "23505", "23514", "42703",
     "PGRST102", "PGRST203", "400", "413"],
)  # fmt: skip
def test_a_refused_request_is_permanent(code: str) -> None:
    found = explain(api(code), "gre_relay_settle")
    assert type(found) is PermanentError
    assert found.code == code
    assert code in str(found)


@pytest.mark.parametrize("error", [TypeError("Decimal hunter2"), ValueError("NaN hunter2")])
def test_what_cannot_be_sent_is_permanent(error: Exception) -> None:
    found = explain(error, "gre_relay_settle")
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
def test_no_argument_gets_into_the_text(code: str, message: str, details: str | None) -> None:
    found = str(
        explain(api(code, message.replace("hunter2-free", "internal error"), details), "gre_relay_settle")
    )
    assert "hunter2" not in found
    assert code in found


def test_the_text_is_one_line() -> None:
    assert str(explain(api("P0001", "two\nlines\r\nof it"), "f")) == "f: P0001 two lines of it"


# Over the wire ----------------------------------------------------------------------------------------------


async def opened(handler: Callable[[httpx.Request], httpx.Response]) -> Store:
    """A store whose requests `handler` answers."""
    store = await Store.open(url="https://p.supabase.co", key=KEY)
    store._http._transport = httpx.MockTransport(handler)
    store._http._mounts = {}
    return store


async def failure(handler: Callable[[httpx.Request], httpx.Response]) -> BridgeError:
    store = await opened(handler)
    try:
        with pytest.raises(BridgeError) as caught:
            await store.claim(
                sink="pusher", token="11111111-2222-3333-4444-555555555555", lanes=1, per_lane=1, lease=30
            )
    finally:
        await store.aclose()
    assert "11111111" not in str(caught.value)
    assert KEY not in str(caught.value)
    return caught.value


async def test_a_claim_is_one_post_whose_answer_becomes_lanes() -> None:
    seen: list[httpx.Request] = []
    delivery = {
        "id": "d1", "ord": 7, "event": "message", "attempts": 2, "age": 0.5, "data": None,
        "message": {"id": "m1", "message": "hi"}, "session": None, "push": None,
    }  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        lanes = [{"lane_key": "s1", "deliveries": [delivery]}]
        staff = [{"staff_id": "s1", "online": True}]
        return httpx.Response(200, json={"lanes": lanes, "rested": 0, "next_in": 1.5, "staff": staff})

    store = await opened(answer)
    asked: list[str] = []
    store.on_request = asked.append
    claim = await store.claim(sink="pusher", token="t", lanes=3, per_lane=4, lease=30.0)
    await store.aclose()
    assert (claim.token, claim.next_in, claim.staff) == ("t", 1.5, (("s1", True),))
    (lane,) = claim.lanes
    (one,) = lane.deliveries
    assert (lane.key, one.id, one.ord, one.attempts, one.age, one.data) == ("s1", "d1", 7, 2, 0.5, {})
    assert one.message == {"id": "m1", "message": "hi"}
    (request,) = seen
    assert (request.method, request.url.path) == ("POST", "/rest/v1/rpc/gre_relay_claim")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(request.content) == {
        "p_sink": "pusher", "p_token": "t", "p_lanes": 3, "p_per_lane": 4, "p_lease_seconds": 30.0,
    }  # fmt: skip
    assert asked == ["gre_relay_claim"]


async def test_a_settle_sends_json_and_not_text_of_json() -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json={"busy": ["a"], "lost": ["b"], "waiting": 3})

    store = await opened(answer)
    failed = Failure(("d3",), "retry", "400", spend=True, retry_in=2.5)
    settled = await store.settle(
        sink="pusher",
        results=[
            LaneResult("a", "t", done=["d1"], expired=["d2"], failure=failed),
            LaneResult("b", "t", keep=True),
        ],
    )
    await store.aclose()
    assert (settled.busy, settled.lost, settled.waiting) == (frozenset("a"), frozenset("b"), 3)
    assert seen[0]["p_results"] == [
        {
            "lane": "a", "token": "t", "done": ["d1"], "expired": ["d2"], "retry_in": 2.5,
            "failed": {"ids": ["d3"], "state": "retry", "error": "400", "spend": True},
        },
        {"lane": "b", "token": "t", "keep": True},
    ]  # fmt: skip


async def test_extend_and_release_say_what_was_not_theirs() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("extend"):
            return httpx.Response(200, json={"extended": ["a"], "busy": ["b"]})
        lanes = json.loads(request.content)["p_lanes"]
        return httpx.Response(200, json={"released": 1, "busy": 0 if lanes is None else 1})

    store = await opened(answer)
    assert await store.extend(sink="s", token="t", lanes=["a", "b", "c"], lease=3.0) == (
        frozenset("a"),
        frozenset("b"),
    )
    assert await store.release(sink="s", token="t") is True
    assert await store.release(sink="s", token="t", lanes=["a"]) is False
    await store.aclose()


@pytest.mark.parametrize(
    ("response", "kind", "code"),
    [
        (httpx.Response(400, json={"code": "", "details": None, "hint": None, "message": ""}), "transient", ""),
        (httpx.Response(503, json={"code": "PGRST001", "details": None, "hint": None, "message": "Database client error. Retrying the connection."}), "transient", "PGRST001"),
        (httpx.Response(500, json={"code": "57014", "details": None, "hint": None, "message": "canceling statement due to statement timeout"}), "transient", "57014"),
        (httpx.Response(502, html="<html><h1>502 Bad Gateway</h1></html>"), "transient", "502"),
        (httpx.Response(504, html="<html></html>"), "transient", "504"),
        (httpx.Response(429, text="slow down"), "transient", "429"),
        (httpx.Response(404, json={"code": "PGRST202", "details": "Searched for the function", "hint": None, "message": "Could not find the function public.gre_relay_claim(p_token)"}), "configuration", "PGRST202"),
        (httpx.Response(403, json={"code": "42501", "details": None, "hint": None, "message": "permission denied for function gre_relay_claim"}), "configuration", "42501"),
        # the gateway of a hosted project, whose errors have no "code"
        (httpx.Response(502, json={"message": "An invalid response was received from the upstream server"}), "transient", None),
        (httpx.Response(401, json={"message": "Invalid API key", "hint": "Double check your Supabase `anon` or `service_role` API key."}), "configuration", None),
        (httpx.Response(400, json={"code": "P0001", "details": None, "hint": None, "message": "claim_invalid"}), "permanent", "P0001"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_the_wire_brings_is_sorted(response: httpx.Response, kind: str, code: str | None) -> None:
    found = await failure(lambda _: response)
    assert found.kind == kind
    assert code is None or found.code == code


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout("late"), httpx.ConnectError("refused"), httpx.RemoteProtocolError("gone")]
)
async def test_a_dead_connection_is_one_attempt_and_transient(error: httpx.HTTPError) -> None:
    attempts = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        raise error

    assert (await failure(answer)).kind == "transient"
    assert attempts == 1


@pytest.mark.parametrize("body", ["null", "[]", '"ok"', "{}", "<html>maintenance</html>"])
async def test_an_answer_that_is_none_of_ours_is_an_error_like_any_other(body: str) -> None:
    """A proxy's maintenance page with status 200 must not end the daemon."""
    found = await failure(
        lambda _: httpx.Response(200, text=body, headers={"content-type": "application/json"})
    )
    assert found.kind == "transient"  # a settle that is given up as permanent is sent again


async def test_cancelling_a_call_is_no_failure_of_the_database() -> None:
    store = await opened(lambda _: httpx.Response(200, json=1))

    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    store._http._transport = httpx.MockTransport(hang)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await store.schema_version()
    await store.aclose()


async def test_what_the_client_will_not_take_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_KEY"):
        await Store.open(url="https://p.supabase.co", key="")
    with pytest.raises(ConfigurationError, match="SUPABASE_URL"):
        await Store.open(url="nonsense", key=KEY)

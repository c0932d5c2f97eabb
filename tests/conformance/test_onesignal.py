"""The embedded stack's OneSignal: the answers that its documentation lists."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gre_bridge.devstack.faults import Received
from gre_bridge.devstack.onesignal import OneSignal

APP, KEY = str(uuid.uuid4()), "os_v2_app_key"


@pytest.fixture
def received() -> Received:
    return Received()


@pytest.fixture
def service(received: Received) -> OneSignal:
    return OneSignal(app_id=APP, api_key=KEY, received=received)


@pytest.fixture
async def http(service: OneSignal) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=service)
    headers = {"Authorization": f"Key {KEY}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://one/onesignal", headers=headers
    ) as client:
        yield client


def push(*recipients: str, **more: Any) -> dict[str, Any]:
    return {
        "app_id": APP,
        "target_channel": "push",
        "include_aliases": {"external_id": list(recipients)},
        "contents": {"en": "Asha"},
        **more,
    }


async def test_a_push_is_answered_with_its_id_and_recorded(
    http: httpx.AsyncClient, received: Received
) -> None:
    answer = await http.post("/notifications", json=push("s1", collapse_id="c" * 64, ttl=60))
    assert answer.status_code == 200
    (item,) = received.since(0, 10)
    assert uuid.UUID(answer.json()["id"]) == uuid.UUID(item["id"])
    assert (item["n"], item["status"], item["body"]["ttl"]) == (1, 200, 60)


async def test_who_is_not_subscribed_is_named_and_nobody_is_an_empty_id(
    http: httpx.AsyncClient, service: OneSignal
) -> None:
    service.subscribers = {"s1"}
    partly = (await http.post("/notifications", json=push("s1", "s2"))).json()
    assert partly["id"]
    assert partly["errors"] == {"invalid_aliases": {"external_id": ["s2"]}}
    nobody = await http.post("/notifications", json=push("s2"))
    assert nobody.status_code == 200
    assert nobody.json()["id"] == ""
    assert nobody.json()["errors"] == ["All included players are not subscribed"]


async def test_a_repeated_idempotency_key_sends_nothing_and_says_so(
    http: httpx.AsyncClient, received: Received
) -> None:
    key = str(uuid.uuid4())
    first = await http.post("/notifications", json=push("s1", idempotency_key=key))
    again = await http.post("/notifications", json=push("s1", idempotency_key=key))
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert [item["replayed"] for item in received.since(0, 10)] == [False, True]


async def test_a_push_that_reached_nobody_may_be_sent_again_under_its_key(
    http: httpx.AsyncClient, service: OneSignal
) -> None:
    service.subscribers = set()
    body = push("s1", idempotency_key=str(uuid.uuid4()))
    assert (await http.post("/notifications", json=body)).json()["id"] == ""
    service.subscribers = None
    assert (await http.post("/notifications", json=body)).json()["id"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, push("s1", app_id=str(uuid.uuid4()))),
        (400, push("s1", contents={"fr": "Asha"})),
        (400, push("s1", idempotency_key="not-a-uuid")),
        (400, push("s1", collapse_id="c" * 65)),
        (400, push("s1", ttl="60")),
        (400, push("s1", target_channel=None)),
        (400, push(*map(str, range(20_001)))),
        (400, {"app_id": APP, "contents": {"en": "x"}}),
        (400, []),
        (501, push("s1", included_segments=["All"])),
        (501, push("s1", include_aliases={"onesignal_id": ["x"]})),
    ],
)
async def test_what_it_refuses(http: httpx.AsyncClient, received: Received, status: int, body: Any) -> None:
    answer = await http.post("/notifications", json=body)
    assert answer.status_code == status
    assert len(answer.json()["errors"]) == 1
    assert [item["status"] for item in received.since(0, 10)] == [status]


@pytest.mark.parametrize("authorization", ["", "Basic x", "Key wrong"])
async def test_a_wrong_key_is_403(http: httpx.AsyncClient, authorization: str) -> None:
    answer = await http.post("/notifications", json=push("s1"), headers={"Authorization": authorization})
    assert answer.status_code == 403

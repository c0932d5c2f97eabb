"""Rules for every path: one shape of errors, bounded bodies, CORS, request ids, and an unavailable database."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gre_bridge.api.server.http_protocol import BODY_WITHIN
from tests.api.conftest import ORIGIN, Api, check, start
from tests.support.loopback import NO_TLS, PATIENT
from tests.support.stack import StackProcess
from tests.support.waiting import wait_until

SEND = "/api/gre-chat/send"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/gre-chat", 404, "not_found"),
        ("POST", "/api/gre-chat/send/", 404, "not_found"),
        ("GET", "/api/../etc/passwd", 404, "not_found"),
        ("GET", "/ws", 404, "not_found"),
        ("GET", SEND, 405, "method_not_allowed"),
        ("DELETE", "/api/gre-chat/messages/29", 405, "method_not_allowed"),
        ("PATCH", "/api/gre-chat/health", 405, "method_not_allowed"),
        ("OPTIONS", SEND, 405, "method_not_allowed"),
        ("GET", "/api/gre-chat/messages/abc", 422, "invalid"),
        ("GET", "/api/gre-chat/messages/0", 422, "invalid"),
        ("GET", "/api/gre-chat/messages/9223372036854775808", 422, "invalid"),
        ("GET", "/api/gre-chat/messages/%D9%A3", 422, "invalid"),
        ("GET", "/api/gre-admin/messages/29", 422, "invalid"),
        ("GET", "/api/gre-admin/sessions?status=open", 422, "invalid"),
        ("GET", "/api/gre-admin/sessions?cursor=x", 400, "cursor_invalid"),
    ],
)
def test_every_refusal_has_the_same_shape(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = api.staff().ask(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ('{"message": ', 400, "the body is not JSON"),
        ("", 422, "the body is missing"),
        ("[]", 422, "the body must be an object"),
        ("null", 422, "the body must be an object"),
        ('"text"', 422, "the body must be an object"),
        ("[" * 60_000, 400, "the request is malformed"),
        ('{"message": ' + "9" * 10_000 + "}", 400, "the request is malformed"),
        ("{}", 422, "message: field required"),
        ('{"message": ""}', 422, "message: must have 1 to 4000 characters"),
        ('{"message": " \\n\\u00a0"}', 400, "message is empty"),
        (json.dumps({"message": "x" * 4001}), 422, "message: must have 1 to 4000 characters"),
        ('{"message": "a\\u0000b"}', 422, "message: must not hold NUL characters"),
        ('{"message": "\\ud83c"}', 422, "message: must be well-formed Unicode"),
        ('{"message": {"sql": 1}}', 422, "message: must be a text"),
        ('{"message": "x", "playerId": "29; drop table"}', 422, "playerId: must be a whole number from 1 to 9223372036854775807"),
        ('{"message": "x", "playerId": 1e400}', 422, "playerId: must be a whole number from 1 to 9223372036854775807"),
        ('{"message": "x", "playerId": true}', 422, "playerId: must be a whole number from 1 to 9223372036854775807"),
        ('{"message": "x", "playerId": -1}', 422, "playerId: must be a whole number from 1 to 9223372036854775807"),
        ('{"message": "x", "player_id": []}', 422, "player_id: must be a whole number from 1 to 9223372036854775807"),
        ('{"message": "x", "id": "secret-5f"}', 422, "id: must be a UUID"),
        ('{"message": "x", "sessionId": 5}', 422, "sessionId: must be a UUID"),
        ('{"message": "x", "sender": "\\u0000"}', 422, "sender: must not hold NUL characters"),
        ('{"message": "x", "sender": "owner"}', 403, "a player sends as a player"),
    ],
)  # fmt: skip
def test_an_invalid_body_is_described_and_never_quoted(
    api: Api, player_id: int, body: str, status: int, said: str
) -> None:
    kind = {"Content-Type": "application/json"}
    answer = api.player(player_id).ask("POST", SEND, content=body, headers=kind)
    assert (answer.status_code, answer.json()["error"]) == (status, said)


def test_a_body_without_a_type_is_read_as_json_and_other_types_are_refused(api: Api, player_id: int) -> None:
    player, body = api.player(player_id), b'{"message": "plain"}'
    assert player.ask("POST", SEND, content=body).status_code == 201
    for kind in ("application/vnd.api+json", "application/json; charset=utf-8"):
        assert player.ask("POST", SEND, content=body, headers={"Content-Type": kind}).status_code == 201
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = player.ask("POST", SEND, content=body, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("size", "chunked"),
    [(65_537, False), (65_537, True), (900_000, False), (900_000, True), (3_000_000, False)],
)
def test_a_long_body_is_refused_before_it_is_read(api: Api, player_id: int, size: int, chunked: bool) -> None:
    body = b'{"message": "' + b"x" * (size - 15) + b'"}'
    content: Any = (body[n : n + 10_000] for n in range(0, size, 10_000)) if chunked else body
    answer = api.player(player_id).ask("POST", SEND, content=content)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    exactly = b'{"message": "x", "y": "' + b"y" * (65_536 - 25) + b'"}'
    assert len(exactly) == 65_536
    assert api.player(player_id).ask("POST", SEND, content=exactly).status_code == 201


def test_a_page_of_a_known_origin_may_call(api: Api, player_id: int) -> None:
    preflight = {
        "Origin": ORIGIN, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, if-none-match",
    }  # fmt: skip
    answer = api.http.options(SEND, headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert {"DELETE", "GET", "POST", "PUT"} == set(answer.headers["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in answer.headers
    for answer in (
        api.player(player_id).get(f"/api/gre-chat/messages/{player_id}", headers={"Origin": ORIGIN}),
        api.with_token(None).get("/api/gre-admin/sessions", headers={"Origin": ORIGIN}),
        api.with_token("x").ask("POST", SEND, content=b"x" * 70_000, headers={"Origin": ORIGIN}),
    ):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert exposed == {"X-Next-Before", "X-Request-Id", "ETag", "Retry-After"}
    for change in (
        {"Origin": "https://elsewhere.example"},
        {"Access-Control-Request-Method": "PATCH"},
        {"Access-Control-Request-Headers": "x-gre-act-as"},
    ):
        refused = check(api.http.options(SEND, headers={**preflight, **change}))
        assert (refused.status_code, refused.json()["code"]) == (400, "cors_refused")
    stranger = api.player(player_id).get(
        f"/api/gre-chat/messages/{player_id}", headers={"Origin": "https://elsewhere.example"}
    )
    assert "access-control-allow-origin" not in stranger.headers


def test_the_documentation_page_connects_to_this_host_only(api: Api) -> None:
    page = api.http.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "://" not in policy and "unsafe" not in policy and "://" not in page.text
    for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        file = api.http.get(f"/{name}")
        assert file.status_code == 200 and file.headers["content-security-policy"] == policy
        assert api.http.get(f"/{name}", headers={"If-None-Match": file.headers["etag"]}).status_code == 304
    assert api.http.get("/openapi.json").headers["content-security-policy"].startswith("default-src 'none'")


def test_the_document_of_the_live_messages_is_served_beside_that_of_the_api(api: Api) -> None:
    answer = api.http.get("/asyncapi.json")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.text == (Path(__file__).parents[2] / "docs" / "asyncapi.json").read_text(encoding="utf-8")
    assert (
        api.http.get("/asyncapi.json", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    )


def test_every_answer_has_its_request_id(api: Api, player_id: int) -> None:
    player, path = api.player(player_id), f"/api/gre-chat/messages/{player_id}"
    ids = {player.get(path).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert player.get(path, headers={"X-Request-Id": "proxy-1.a_b"}).headers["x-request-id"] == "proxy-1.a_b"
    for forged in ("x" * 65, "a b", '"><script>'):
        assert player.get(path, headers={"X-Request-Id": forged}).headers["x-request-id"] != forged
    for anywhere in ("/healthz", "/docs", "/nowhere"):
        assert api.http.get(anywhere).headers["x-request-id"]


def test_answers_are_not_cached_and_name_no_server(api: Api, player_id: int) -> None:
    for answer in (
        api.player(player_id).get(f"/api/chat-history/{player_id}"),
        api.staff().get("/api/gre-admin/sessions"),
        api.with_token(None).get("/api/gre-admin/sessions"),
    ):
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    docs = api.http.get("/docs")
    assert docs.status_code == 200 and "default-src" in docs.headers["content-security-policy"]


def test_the_health_endpoint_of_the_chat(api: Api, player_id: int) -> None:
    public = {"success", "status", "database", "websocket"}
    for who in (api.with_token(None), api.player(player_id), api.backend()):
        answer = who.get("/api/gre-chat/health")
        assert (answer.status_code, answer.json()["status"], answer.json()["database"]) == (
            200,
            "ok",
            {"connected": True},
        )
        assert answer.json().keys() == public

    # (Whoever was here before may still be on the way out.)
    def left() -> bool:
        seen = api.http.get("/api/gre-chat/health").json()["websocket"]["connections"]
        return bool(seen == 0)

    wait_until(left, what="the last socket to be gone")
    health = api.staff().get("/api/gre-chat/health").json()
    assert health.keys() == public | {"realtime", "sinks", "backlog", "oldest_age_seconds"}
    assert {sink["sink"] for sink in health["sinks"]} == {"pusher", "onesignal"}
    assert api.with_token("garbage").get("/api/gre-chat/health").status_code == 401


@pytest.fixture
def fault(particular: Api) -> Iterator[Any]:
    """Set these faults until the test ends."""
    yield lambda **rule: particular.stack.fault("rest", rule)
    particular.stack.http.delete("/__stack/faults").raise_for_status()


@pytest.mark.parametrize("with_id", [True, False])
@pytest.mark.parametrize("mode", ["status", "refuse", "lose_answer", "truncate", "garbage"])
def test_a_short_failure_of_the_database_is_retried(
    particular: Api, player_id: int, message_id: str, fault: Any, mode: str, with_id: bool
) -> None:
    player = particular.player(player_id)
    fault(mode=mode, status=503, times=1, path="/rest/v1/rpc/gre_send_message")
    sent = player.post(SEND, message="once", **({"id": message_id} if with_id else {}))
    # (Whether the first try or the second one stored it, only an id of the client's own can tell.)
    assert sent.status_code == (200 if with_id and mode in ("lose_answer", "truncate") else 201)
    fault(mode=mode, status=503, times=1, path="/rest/v1/rpc/gre_chat_history")
    assert [m["message"] for m in player.get(f"/api/gre-chat/messages/{player_id}").json()] == ["once"]


def test_an_unavailable_database_answers_503_and_a_message_is_stored_once(
    particular: Api, player_id: int, message_id: str, fault: Any
) -> None:
    player, staff = particular.player(player_id), particular.staff()
    player.send("before")
    fault(mode="status", status=503, path="/rest/v1/rpc")
    asked = [
        player.post(SEND, message="lost", id=message_id),
        player.get(f"/api/gre-chat/messages/{player_id}"),
        staff.post("/api/gre-chat/enable-all-players"),
        staff.post("/api/pusher/auth", socket_id="1.2", channel_name="private-staff-portal"),
    ]
    for answer in asked:
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.json()["error"] == "the database does not answer, try again in a moment"

    def down() -> bool:
        answer = particular.http.get("/api/gre-chat/health")
        return answer.status_code == 503 and answer.json()["status"] == "down"

    wait_until(down)
    health = particular.http.get("/api/gre-chat/health").json()
    assert health["database"] == {"connected": False} and health["code"] == "unavailable"
    particular.stack.http.delete("/__stack/faults").raise_for_status()
    assert player.post(SEND, message="lost", id=message_id).status_code == 201
    assert [m["message"] for m in player.get(f"/api/gre-chat/messages/{player_id}").json()] == [
        "before",
        "lost",
    ]


@pytest.fixture(scope="module")
def without_api(stack_process: StackProcess) -> Iterator[Api]:
    yield from start(stack_process, SUPABASE_ANON_KEY="")


def test_without_the_anon_key_the_api_is_off(without_api: Api) -> None:
    for answer in (
        without_api.staff().get("/api/gre-admin/sessions"),
        without_api.with_token(None).post(SEND, message="x"),
        without_api.staff().post("/api/pusher/auth", socket_id="1.2", channel_name="private-staff-portal"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "api_off")
        assert "SUPABASE_ANON_KEY" in answer.json()["error"]
    assert without_api.staff().get("/api/gre-chat/health").json()["status"] == "ok"
    for document in ("/openapi.json", "/asyncapi.json"):
        assert without_api.http.get(document).status_code == 404


def test_a_body_that_does_not_arrive_delays_no_other_request(api: Api, player_id: int) -> None:
    """Fifty senders stop in the middle of a body; others are served meanwhile."""
    host, port = api.worker.url.removeprefix("http://").split(":")
    head = b"POST /api/gre-chat/send HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    stalled = [socket.create_connection((host, int(port)), 60) for _ in range(50)]
    try:
        for one in stalled:
            one.sendall(head)
        began = time.monotonic()
        api.player(player_id).send()
        assert time.monotonic() - began < BODY_WITHIN, "it did not wait for the end of the others"
    finally:
        for one in stalled:
            one.close()


async def test_fifty_first_messages_at_once_open_one_session(api: Api, player_id: int) -> None:
    headers = api.player(player_id).headers
    async with httpx.AsyncClient(
        base_url=api.worker.url, timeout=PATIENT, trust_env=False, headers=headers, verify=NO_TLS
    ) as http:
        answers = await asyncio.gather(*(http.post(SEND, json={"message": f"{n}"}) for n in range(50)))
    assert [check(answer).status_code for answer in answers] == [201] * 50
    messages = [answer.json()["message"] for answer in answers]
    assert len({m["session_id"] for m in messages}) == 1
    assert sorted(m["seq"] for m in messages) == list(range(1, 51))

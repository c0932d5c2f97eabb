"""Access by REST: tokens, the service key with act-as, disabled players, guessed tokens."""

from __future__ import annotations

import re
import time
from typing import Any

import jwt
import pytest
from fastapi.routing import APIRoute

from gre_bridge.api.rest import operations, staff
from tests.api.conftest import Api, Person
from tests.support.waiting import wait_until

DOORS = [
    ("POST", "/api/gre-chat/send"), ("POST", "/api/unified-chat/send"), ("POST", "/api/gre-admin/reply"),
    ("GET", "/api/gre-chat/messages/29"), ("GET", "/api/chat-history/29"), ("GET", "/api/gre-admin/sessions"),
    ("GET", "/api/gre-admin/messages/6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1"), ("GET", "/api/gre-admin/events/6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1"),
    ("PUT", "/api/gre-admin/session/6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1/status"),
    ("POST", "/api/gre-chat/close-session/29"), ("POST", "/api/gre-chat/enable-player/29"),
    ("POST", "/api/gre-chat/enable-all-players"), ("POST", "/api/pusher/auth"), ("GET", "/api/gre-chat/me"),
    ("POST", "/api/gre-chat/read/6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1"),
]  # fmt: skip
BODY = {
    "message": "x",
    "upToSeq": 1,
    "status": "closed",
    "enabled": False,
    "socket_id": "1.2",
    "channel_name": "private-player-29",
}
CLAIMS = {"role": "authenticated", "app_metadata": {"gre_role": "player", "player_id": 29}}


def bad_token(api: Api, kind: str) -> str | None:
    secret, soon = api.stack.keys.jwt_secret, time.time() + 60
    match kind:
        case "none":
            return None
        case "expired":
            return jwt.encode({**CLAIMS, "exp": time.time() - 60}, secret, "HS256")
        case "unsigned":
            return jwt.encode({**CLAIMS, "exp": soon}, None, "none")
        case "other key":
            return jwt.encode({**CLAIMS, "exp": soon}, "another-secret-of-32-characters-or-more", "HS256")
        case "unknown role":
            return jwt.encode({**CLAIMS, "role": "postgres", "exp": soon}, secret, "HS256")
        case "anon":
            return api.stack.env["SUPABASE_ANON_KEY"]
        case "tampered":
            head, _, tail = api.stack.keys.user_token("player", player_id=29).split(".")
            return f"{head}.{jwt.encode({**CLAIMS, 'exp': soon}, 'x' * 32).split('.')[1]}.{tail}"
        case "long":
            return "e" * 20_000
    return "garbage"


@pytest.mark.parametrize(
    "kind",
    [
        "none",
        "expired",
        "unsigned",
        "other key",
        "unknown role",
        "anon",
        "tampered",
        "garbage",
        "long",
    ],
)
def test_an_invalid_token_is_refused(api: Api, kind: str) -> None:
    who = api.with_token(bad_token(api, kind))
    before = api.sql(
        "select count(*) as n, (select count(*) from gre_chat_players) as p from gre_chat_messages"
    )
    for method, path in DOORS:
        answer = who.ask(method, path, **({"json": BODY} if method != "GET" else {}))
        code = answer.json()["code"]
        # (The anonymous key is valid, and whoever has it is nobody.)
        valid = kind == "unknown role" or (kind == "anon" and path == "/api/pusher/auth")
        assert answer.status_code == (403 if valid else 401), (path, answer.text)
        if kind in ("none", "expired"):
            assert code == {"none": "not_authenticated", "expired": "token_expired"}[kind]
    assert (
        api.sql("select count(*) as n, (select count(*) from gre_chat_players) as p from gre_chat_messages")
        == before
    )


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic {}", "{}", "Token {}", "bearer{}"], ids=lambda h: h or "blank"
)
def test_only_the_bearer_scheme_is_accepted(api: Api, header: str) -> None:
    token = api.stack.keys.user_token("player", player_id=29)
    answer = Person(api.http, None).get(
        "/api/gre-chat/messages/29", headers={"Authorization": header.format(token)}
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    for elsewhere in (
        {"params": {"token": token, "access_token": token}},
        {"headers": {"Cookie": f"Authorization=Bearer {token}; token={token}"}},
    ):
        assert Person(api.http, None).get("/api/gre-chat/messages/29", **elsewhere).status_code == 401
    fine = Person(api.http, None).get(
        "/api/gre-chat/messages/29", headers={"Authorization": f"bearer  {token}"}
    )
    assert fine.status_code == 200 and "set-cookie" not in fine.headers


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_token_issued_in_the_future_is_retried(api: Api, player_id: int, claim: str) -> None:
    """A temporary error of Supabase (supabase/supabase#50651): the token is valid."""
    ahead = {
        **CLAIMS,
        "app_metadata": {"gre_role": "player", "player_id": player_id},
        "exp": time.time() + 900,
    }
    token = jwt.encode({**ahead, claim: int(time.time()) + 34}, api.stack.keys.jwt_secret, "HS256")
    one = api.with_token(token)
    far = api.with_token(
        jwt.encode({**ahead, claim: int(time.time()) + 600}, api.stack.keys.jwt_secret, "HS256")
    )
    answer = far.get(f"/api/gre-chat/messages/{player_id}")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "clock" in answer.json()["error"]
    answer = wait_until(
        lambda: (a := one.get(f"/api/gre-chat/messages/{player_id}")).status_code != 503 and a, 15
    )
    assert answer.status_code == 200


STAFF_PATHS = [
    (
        method,
        route.path.replace("{session_id}", "6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1").replace(
            "{player_id}", "29"
        ),
    )
    for module in (staff, operations)
    for route in module.router.routes
    if isinstance(route, APIRoute) and route.path.startswith("/api/gre-admin/")
    for method in sorted(route.methods)
]


@pytest.mark.parametrize(("method", "path"), STAFF_PATHS)
def test_players_may_not_use_the_staffs_paths(api: Api, player_id: int, method: str, path: str) -> None:
    assert len(STAFF_PATHS) >= 9
    mine = api.player(player_id).send()["sessionId"]
    for where in {path, re.sub(r"[0-9a-f-]{36}", mine, path)}:
        for body in ({}, {"json": {"status": "closed", "message": "x", "playerId": player_id, "ids": []}}):
            answer = api.player(player_id).ask(method, where, **body)
            assert (answer.status_code, answer.json()["code"]) in {(403, "staff_only"), (403, "admin_only")}
    assert api.sql("select status from gre_chat_sessions where id = %s", mine)[0]["status"] != "closed"


def test_a_player_may_not_use_another_players_session(api: Api, player_id: int, other_id: int) -> None:
    one, other = api.player(player_id), api.player(other_id)
    mine = other.send("a secret")
    session, id_ = mine["sessionId"], mine["messageId"]
    asked = [
        one.get(f"/api/gre-chat/messages/{other_id}"),
        one.get(f"/api/chat-history/{other_id}"),
        one.get(f"/api/gre-chat/messages/{player_id}?sessionId={session}"),
        one.get(f"/api/gre-chat/messages/{player_id}?before={id_}"),
        one.get(f"/api/gre-admin/messages/{session}"),
        one.post("/api/gre-chat/send", playerId=other_id, message="as you"),
        one.post("/api/gre-chat/send", playerId=player_id, sessionId=session, message="into yours"),
        one.post("/api/gre-chat/send", playerId=player_id, id=id_, message="a secret"),
        one.post("/api/unified-chat/send", playerId=player_id, senderType="staff", message="as staff"),
        one.post("/api/unified-chat/send", playerId=player_id, sender="system", message="as nobody"),
        one.post("/api/gre-admin/reply", playerId=player_id, message="as staff"),
        one.put(f"/api/gre-admin/session/{session}/status", status="closed"),
        one.post(f"/api/gre-chat/close-session/{player_id}"),
        one.post(f"/api/gre-chat/enable-player/{player_id}", enabled=True),
        one.post("/api/gre-chat/enable-all-players"),
        one.post("/api/pusher/auth", socket_id="1.2", channel_name=f"private-player-{other_id}"),
        one.post(f"/api/gre-chat/read/{session}", upToSeq=1),
        one.get("/api/gre-chat/messages/0"),
    ]
    codes = [answer.status_code for answer in asked]
    assert codes == [403, 403, 404, 404, 403, 403, 403, 409, 403, 403, 403, 403, 403, 403, 403, 403, 404, 422]
    assert not [answer for answer in asked if "secret" in answer.text]
    assert one.get("/api/gre-admin/sessions").status_code == 403
    (row,) = api.sql(
        "select count(*) as n from gre_chat_messages where player_id in (%s, %s)", player_id, other_id
    )
    assert row["n"] == 1


def test_a_sender_cannot_be_forged(api: Api, player_id: int) -> None:
    sent = api.player(player_id).send(
        sender="player", sender_name="The manager", sender_id="s1", status="read", seq=9
    )
    assert (sent["message"]["sender_name"], sent["message"]["status"], sent["message"]["seq"]) == (
        f"Player {player_id}",
        "sent",
        1,
    )
    forged = api.staff().post(
        "/api/gre-chat/send", playerId=player_id, sender="player", message="as the player"
    )
    assert (forged.status_code, forged.json()["code"]) == (403, "sender_forged")


def test_the_service_key_acts_as_the_named_person(api: Api, player_id: int) -> None:
    path, send = f"/api/gre-chat/messages/{player_id}", {"playerId": player_id, "message": "Hello"}
    nobody = api.backend()
    for answer in (
        nobody.get(path),
        nobody.post("/api/gre-chat/send", **send),
        nobody.post("/api/gre-chat/enable-all-players"),
        nobody.post("/api/gre-chat/read/6f0c2b0e-3d0f-4c62-9b5b-0d1a52b7a1c1", upToSeq=1),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "act_as_required")
    player = api.backend(f"player:{player_id}")
    assert player.send(**send)["message"]["sender"] == "player"
    assert player.get(path).status_code == 200
    assert player.get(f"/api/gre-chat/messages/{player_id + 1}").status_code == 403
    assert player.post("/api/gre-admin/reply", **send).status_code == 403
    staff = api.backend("staff:s1")
    assert staff.post("/api/gre-chat/send", **send).json()["message"]["sender_name"] == "Sam"
    assert staff.post("/api/gre-admin/reply", **send).status_code == 201
    assert staff.get("/api/gre-chat/health").json()["backlog"] is not None


@pytest.mark.parametrize(
    "act_as",
    ["player:0", "player:-1", "player:29x", "player:", "staff:", "admin:1", "29", "player:" + "9" * 19],
)
def test_a_malformed_act_as_is_refused(api: Api, act_as: str) -> None:
    answer = api.backend(act_as).get("/api/gre-chat/messages/29")
    assert (answer.status_code, answer.json()["code"]) == (400, "act_as_invalid")


def test_a_repeated_header_is_refused(api: Api) -> None:
    twice = [
        ("Authorization", f"Bearer {api.stack.env['SUPABASE_SERVICE_KEY']}"),
        ("X-GRE-Act-As", "player:29"),
        ("X-GRE-Act-As", "staff:s1"),
    ]
    answer = api.http.get("/api/gre-chat/messages/29", headers=twice)
    assert (answer.status_code, answer.json()["code"]) == (400, "header_repeated")


def test_act_as_is_ignored_with_a_users_token(api: Api, player_id: int, other_id: int) -> None:
    token = api.stack.keys.user_token("player", player_id=player_id)
    for act_as in (f"player:{other_id}", "staff:s1"):
        who = Person(api.http, token, act_as)
        assert who.get(f"/api/gre-chat/messages/{player_id}").status_code == 200
        assert who.get(f"/api/gre-chat/messages/{other_id}").status_code == 403
        assert who.post("/api/gre-chat/enable-all-players").status_code == 403


def test_inactive_staff_have_no_access(api: Api, player_id: int) -> None:
    api.sql(
        "insert into gre_staff (staff_id, display_name, role, active) values ('gone', 'Gone', 'admin', false) on conflict do nothing"
    )
    for who, code in ((api.staff("gone"), "no_identity"), (api.backend("staff:gone"), "act_as_required")):
        for answer in (
            who.post("/api/gre-admin/reply", playerId=player_id, message="x"),
            who.get("/api/gre-admin/sessions"),
            who.get(f"/api/chat-history/{player_id}"),
            who.get("/api/gre-chat/me"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, code)
        assert (
            who.post("/api/pusher/auth", socket_id="1.2", channel_name="private-staff-portal").status_code
            == 403
        )
        assert "sinks" not in who.get("/api/gre-chat/health").json()


@pytest.mark.parametrize("as_whom", ["token", "service key"])
def test_a_disabled_player_may_read_and_not_send(api: Api, player_id: int, as_whom: str) -> None:
    player = api.player(player_id) if as_whom == "token" else api.backend(f"player:{player_id}")
    staff, auth = api.staff(), {"socket_id": "1.2", "channel_name": f"private-player-{player_id}"}
    player.send("while it is on")
    off = staff.post(f"/api/gre-chat/enable-player/{player_id}", enabled=False)
    assert off.json() == {"success": True, "playerId": player_id, "enabled": False}
    refused = [
        player.post("/api/gre-chat/send", message="x"),
        player.post("/api/unified-chat/send", playerId=player_id, senderType="player", message="x"),
        player.post("/api/pusher/auth", **auth),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["code"]) == (403, "chat_disabled")
        assert answer.json()["error"] == "chat is disabled for this player"
    assert len(player.get(f"/api/gre-chat/messages/{player_id}").json()) == 1
    assert (
        staff.post("/api/gre-admin/reply", playerId=player_id, message="You may not answer").status_code
        == 201
    )
    assert staff.post(f"/api/gre-chat/enable-player/{player_id}").json()["enabled"] is True
    player.send("on again")
    staff.post(f"/api/gre-chat/enable-player/{player_id}", enabled=False)
    assert staff.post("/api/gre-chat/enable-all-players").json()["count"] >= 1
    player.send("and again")
    assert player.post("/api/pusher/auth", **auth).status_code == 200


def test_a_player_who_writes_too_fast_waits(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    session = player.send()["sessionId"]
    api.sql(
        "insert into gre_chat_messages (player_id, session_id, sender, message) select %s, %s, 'player', 'x' from generate_series(1, 119)",
        player_id, session,
    )  # fmt: skip
    answer = player.post("/api/gre-chat/send", message="one too many")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_fast")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert api.staff().post("/api/gre-admin/reply", playerId=player_id, message="Slowly").status_code == 201


def test_an_address_that_fails_too_often_waits_and_known_tokens_do_not(
    particular: Api, player_id: int
) -> None:
    path = f"/api/gre-chat/messages/{player_id}"
    proxied: dict[str, Any] = {"headers": {"X-Forwarded-For": "203.0.113.7"}}
    known, new = particular.player(player_id), particular.player(player_id)
    assert known.get(path, **proxied).status_code == 200
    guesses = [particular.with_token(f"guess-{n}").get(path, **proxied) for n in range(20)]
    assert [answer.status_code for answer in guesses[:5]] == [401] * 5
    assert [answer.status_code for answer in guesses[6:]] == [429] * 14
    assert guesses[-1].json()["code"] == "too_many_failures"
    assert 0 < int(guesses[-1].headers["retry-after"]) <= 12
    # A guest whose token is new is not the one that guesses.
    assert new.get(path, **proxied).status_code == 200
    assert [known.get(path, **proxied).status_code for _ in range(10)] == [200] * 10
    assert particular.with_token(None).get(path, **proxied).status_code == 401
    assert particular.with_token(None).get("/api/gre-chat/health", **proxied).status_code == 200
    # Another address behind the same proxy is another address.
    assert (
        particular.with_token("guess").get(path, headers={"X-Forwarded-For": "203.0.113.8"}).status_code
        == 401
    )

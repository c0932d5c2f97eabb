"""Read marks and the caller's identity over REST, for portals without a socket."""

from __future__ import annotations

import time
import uuid

import jwt
import pytest

from tests.api.client import entered
from tests.api.conftest import Api
from tests.support.waiting import wait_until


def unread(api: Api, session: str) -> tuple[int, int]:
    (row,) = api.sql("select unread_by_staff, unread_by_player from gre_chat_sessions where id = %s", session)
    return row["unread_by_staff"], row["unread_by_player"]


def test_both_sides_mark_as_read_and_pusher_receives_the_event(api: Api, player_id: int) -> None:
    player, staff = api.player(player_id), api.staff()
    session = player.send("one")["sessionId"]
    player.send("two")
    assert staff.post("/api/gre-admin/reply", sessionId=session, message="three").status_code == 201
    assert unread(api, session) == (2, 1)

    read = staff.post(f"/api/gre-chat/read/{session}", upToSeq=1).json()
    assert read["timestamp"] and read == {
        "success": True, "sessionId": session, "by": "staff", "upToSeq": 1, "timestamp": read["timestamp"],
        "changed": True,
    }  # fmt: skip
    assert unread(api, session) == (1, 1)
    events = api.wait_received("pusher", 2, session_id=session, by="staff", up_to_seq=1)
    assert {event["channel"] for event in events} == {"private-staff-portal", f"private-player-{player_id}"}
    assert {(e["name"], e["data"]["timestamp"]) for e in events} == {("messages-read", read["timestamp"])}

    # The service key for a player, the other spelling, and a mark beyond the end.
    most = api.backend(f"player:{player_id}").post(f"/api/gre-chat/read/{session}", up_to_seq="99").json()
    assert (most["by"], most["upToSeq"], most["changed"]) == ("player", 3, True)
    assert unread(api, session) == (1, 0)
    statuses = {
        row["seq"]: row["status"]
        for row in api.sql("select seq, status from gre_chat_messages where session_id = %s", session)
    }
    assert statuses == {1: "read", 2: "sent", 3: "read"}


def test_a_mark_never_goes_back(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    untouched = api.player(player_id).post(f"/api/gre-chat/read/{session}", upToSeq=0).json()
    assert (untouched["upToSeq"], untouched["timestamp"], untouched["changed"]) == (0, None, False)
    first = api.staff().post(f"/api/gre-chat/read/{session}", upToSeq=1).json()
    for again in (1, 0):
        answer = api.staff().post(f"/api/gre-chat/read/{session}", upToSeq=again)
        assert answer.status_code == 200
        assert answer.json() == {**first, "changed": False}


async def test_sockets_receive_a_mark_that_was_set_by_rest(api: Api, player_id: int) -> None:
    session = api.player(player_id).send()["sessionId"]
    async with entered(api.worker.url, api.stack.keys.user_token("player", player_id=player_id)) as phone:
        assert api.staff().post(f"/api/gre-chat/read/{session}", upToSeq=1).status_code == 200
        mark = await phone.wait("messages_read")
        assert (mark["sessionId"], mark["by"], mark["upToSeq"]) == (session, "staff", 1)


@pytest.mark.parametrize("body", [{}, {"upToSeq": -1}, {"upToSeq": "x"}, {"upToSeq": None}, {"upToSeq": 1.5}])
def test_an_invalid_mark_is_refused(api: Api, player_id: int, body: dict[str, object]) -> None:
    session = api.player(player_id).send()["sessionId"]
    answer = api.staff().post(f"/api/gre-chat/read/{session}", **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert "upToSeq" in answer.json()["error"]
    assert unread(api, session) == (1, 0)


def test_another_players_session_looks_like_an_unknown_one(api: Api, player_id: int, other_id: int) -> None:
    theirs = api.player(other_id).send()["sessionId"]
    said = set()
    for session in (theirs, str(uuid.uuid4())):
        answer = api.player(player_id).post(f"/api/gre-chat/read/{session}", upToSeq=1)
        said.add((answer.status_code, answer.json()["code"], answer.json()["error"]))
    assert said == {(404, "session_unknown", "there is no such session")}
    assert api.player(player_id).post("/api/gre-chat/read/1", upToSeq=1).status_code == 422


def test_whoami_returns_the_caller(api: Api, player_id: int) -> None:
    api.sql("insert into gre_chat_players (player_id, display_name) values (%s, 'Asha')", player_id)
    me = api.player(player_id).get("/api/gre-chat/me").json()
    assert me["expiresAt"].endswith("Z")
    assert me == {
        "success": True, "role": "player", "playerId": player_id, "staffId": None, "displayName": "Asha",
        "chatEnabled": True, "expiresAt": me["expiresAt"],
    }  # fmt: skip
    sam = api.staff().get("/api/gre-chat/me").json()
    assert (sam["role"], sam["playerId"], sam["staffId"], sam["displayName"]) == ("staff", None, "s1", "Sam")
    assert api.backend(f"player:{player_id}").get("/api/gre-chat/me").json()["playerId"] == player_id


def test_a_page_is_informed_that_its_chat_is_disabled_and_enabled(api: Api, player_id: int) -> None:
    player = api.player(player_id)
    for enabled in (False, True):
        api.staff().post(f"/api/gre-chat/enable-player/{player_id}", enabled=enabled)
        assert wait_until(lambda e=enabled: player.get("/api/gre-chat/me").json()["chatEnabled"] is e)


def test_a_player_learns_whether_the_desk_is_open_and_who_is_there(api: Api, player_id: int) -> None:
    api.sql("delete from gre_online_status")
    api.sql(
        "insert into gre_online_status (staff_id, display_name, status, last_seen_at) values ('s1', 'Sam', 'away', now())"
    )
    desk = api.player(player_id).get("/api/gre-chat/desk").json()
    assert desk.pop("now").endswith("Z")
    assert desk == {
        "success": True, "open": True, "opensAt": None, "closesAt": None, "timezone": None,
        "staff": [{"staffId": "s1", "displayName": "Sam", "status": "away"}],
    }  # fmt: skip
    assert api.with_token("nonsense").get("/api/gre-chat/desk").status_code == 401


def test_a_user_without_an_identity_is_refused(api: Api) -> None:
    claims = {
        "aud": "authenticated",
        "role": "authenticated",
        "sub": str(uuid.uuid4()),
        "exp": int(time.time()) + 60,
    }
    stranger = api.with_token(jwt.encode(claims, api.stack.keys.jwt_secret, "HS256"))
    answer = stranger.get("/api/gre-chat/me")
    assert (answer.status_code, answer.json()["code"]) == (403, "no_identity")
    for act_as in ("staff:nobody-of-ours", None):
        acting = api.backend(act_as).get("/api/gre-chat/me")
        assert (acting.status_code, acting.json()["code"]) == (403, "act_as_required")

"""A conversation by REST alone, through every path, and its events in the sinks."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.api.conftest import Api
from tests.support.waiting import wait_until

EVENT = {"id", "message", "sender", "sender_name", "player_id", "timestamp", "status", "session_id", "seq"}


def test_the_whole_flow(api: Api, player_id: int) -> None:
    player, staff = api.player(player_id), api.staff()

    sent = player.send("Is table 4 open?", playerId=player_id, playerName="Asha")
    message = sent["message"]
    assert (message["seq"], message["status"], message["sender"], message["sender_name"]) == (
        1,
        "sent",
        "player",
        "Asha",
    )
    assert sent["data"] == message
    assert (sent["messageId"], sent["sessionId"]) == (message["id"], message["session_id"])
    (row,) = api.sql("select * from gre_chat_messages where id = %s", sent["messageId"])
    assert (row["message"], row["seq"], row["player_id"]) == ("Is table 4 open?", 1, player_id)

    (event,) = api.wait_received("pusher", id=sent["messageId"])
    assert (event["channel"], event["name"]) == ("staff-portal", "new-player-message")
    assert event["data"].keys() == EVENT
    api.wait_received("onesignal", message_id=sent["messageId"])

    reply = staff.post("/api/gre-admin/reply", sessionId=sent["sessionId"], message="From eight.")
    assert reply.status_code == 201
    more = staff.post(
        "/api/unified-chat/send", playerId=player_id, message="Shall I?", senderType="gre_staff"
    )
    assert more.status_code == 201
    for answer in (reply, more):
        stored = answer.json()["message"]
        assert (stored["sender"], stored["sender_name"], stored["session_id"]) == (
            "staff",
            "Sam",
            sent["sessionId"],
        )
        events = api.wait_received("pusher", 2, id=stored["id"])
        assert {e["channel"] for e in events} == {"private-staff-portal", f"private-player-{player_id}"}
        (push,) = api.wait_received("onesignal", message_id=stored["id"])
        assert push["body"]["include_aliases"]["external_id"] == [f"player_{player_id}"]

    texts = ["Is table 4 open?", "From eight.", "Shall I?"]
    read = [
        reader.get(path)
        for reader in (player, staff)
        for path in (f"/api/gre-chat/messages/{player_id}", f"/api/chat-history/{player_id}")
    ]
    pages = [
        answer.json() if isinstance(answer.json(), list) else answer.json()["messages"] for answer in read
    ]
    assert all(page == pages[0] for page in pages)
    assert [m["message"] for m in pages[0]] == texts and [m["seq"] for m in pages[0]] == [1, 2, 3]
    (conversation,) = read[1].json()["conversations"]
    assert conversation["id"] == sent["sessionId"] and conversation["chat_messages"] == pages[0]
    desk = staff.get(f"/api/gre-admin/messages/{sent['sessionId']}").json()
    assert (
        desk["messages"] == pages[0]
        and desk["session"]["last_message"] == "Shall I?"
        and desk["has_more"] is False
    )


@pytest.mark.parametrize("path", ["/api/gre-chat/send", "/api/unified-chat/send", "/api/gre-admin/reply"])
def test_the_same_id_is_sent_once(api: Api, player_id: int, path: str, message_id: str) -> None:
    who = api.staff() if "admin" in path else api.player(player_id)
    body = {"playerId": player_id, "message": "once", "id": message_id}
    first, again = who.post(path, **body), who.post(path, **{**body, "id": message_id.upper()})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    changed = who.post(path, **{**body, "message": "twice"})
    assert (changed.status_code, changed.json()["code"]) == (409, "id_conflict")
    stranger = api.staff("s9").post("/api/gre-admin/reply", **body)
    assert (stranger.status_code, stranger.json()["code"]) == (409, "id_conflict")
    assert len(api.sql("select id from gre_chat_messages where player_id = %s", player_id)) == 1


def test_blank_and_unknown_fields_are_ignored(api: Api, player_id: int) -> None:
    sent = api.player(player_id).send(
        playerId=str(player_id),
        sessionId="",
        id="",
        sender=None,
        playerName="",
        timestamp="yesterday",
        colour=["red"],
    )
    assert sent["message"]["player_id"] == player_id
    page = api.player(player_id).get(f"/api/gre-chat/messages/{player_id}?before=&sessionId=&after_seq=&x=1")
    assert len(page.json()) == 1


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


@pytest.mark.parametrize("spell", [str, _camel])
def test_both_spellings_of_every_field(api: Api, player_id: int, spell: Any) -> None:
    player, staff = api.player(player_id), api.staff()
    sent = player.send(**{spell("player_id"): player_id, spell("player_name"): "Asha"})
    session = sent["sessionId"]
    assert sent["message"]["player_name"] == "Asha"
    player.send(**{spell("session_id"): session})
    for target in ({spell("session_id"): session}, {spell("player_id"): str(player_id)}):
        assert staff.post("/api/gre-admin/reply", message="Yes", **target).json()["sessionId"] == session
    answer = staff.post(
        "/api/unified-chat/send",
        message="Yes",
        **{spell("sender_type"): "gre", spell("player_id"): player_id},
    )
    assert answer.json()["message"]["sender"] == "staff"
    assigned = staff.put(
        f"/api/gre-admin/session/{session}/status", status="assigned", **{spell("staff_id"): "s1"}
    )
    assert assigned.json()["session"]["assigned_staff_id"] == "s1"
    page = player.get(
        f"/api/gre-chat/messages/{player_id}", params={spell("session_id"): session, spell("after_seq"): 3}
    )
    assert [m["seq"] for m in page.json()] == [4, 5]
    for name, seqs in (("after_seq", [4, 5]), ("before_seq", [1, 2])):
        desk = staff.get(f"/api/gre-admin/messages/{session}", params={spell(name): 3}).json()
        assert [m["seq"] for m in desk["messages"]] == seqs
    form = {spell("socket_id"): "1.2", spell("channel_name"): f"private-player-{player_id}"}
    assert player.ask("POST", "/api/pusher/auth", data=form).status_code == 200
    assert player.post("/api/pusher/auth", **form).status_code == 200


def test_a_session_is_assigned_closed_and_opened_again(api: Api, player_id: int) -> None:
    player, staff = api.player(player_id), api.staff()
    session = player.send()["sessionId"]
    path = f"/api/gre-admin/session/{session}/status"

    def listed(**query: Any) -> list[str]:
        page = staff.get("/api/gre-admin/sessions", params={"limit": 500, **query}).json()
        return [s["id"] for s in page["sessions"] if s["player_id"] == player_id]

    assert listed(status="active") == [session] == listed(assigned="none") == listed()
    mine = staff.put(path, status="assigned").json()["session"]
    assert (mine["assigned_staff_id"], mine["status"]) == ("s1", "active")
    assert listed(assigned="me") == [session] == listed(assigned="s1") and listed(assigned="none") == []
    assert staff.put(path, status="active").json()["session"]["assigned_staff_id"] is None

    closed = staff.post(f"/api/gre-chat/close-session/{player_id}").json()
    assert (closed["message"], closed["session"]["status"]) == ("Chat session closed", "closed")
    assert staff.post(f"/api/gre-chat/close-session/{player_id}").json()["session"] is None
    assert listed(status="closed") == [session] and listed(status="active") == []
    late = staff.post("/api/gre-admin/reply", sessionId=session, message="Too late")
    assert (late.status_code, late.json()["code"]) == (409, "session_closed")
    assert staff.put(path, status="active").json()["session"]["status"] == "active"
    assert staff.put(path, status="closed").json()["session"]["closed_at"] is not None
    assert player.send(sessionId=session)["sessionId"] != session
    reopened = staff.put(path, status="active")
    assert (reopened.status_code, reopened.json()["code"]) == (409, "session_open")

    def statuses() -> set[str]:
        channel = f"private-player-{player_id}"
        events = [
            e for e in api.received("pusher") if (e["channel"], e["name"]) == (channel, "session-updated")
        ]
        return {e["data"]["session"]["status"] for e in events if e["data"]["session"]["id"] == session}

    wait_until(lambda: "closed" in statuses())


def test_sessions_are_paged_without_gap_or_repeat(api: Api, player_id: int) -> None:
    # In a list of their own, whatever other tests have left in that of all.
    which = {"status": "active", "assigned": f"pager{player_id}"}
    api.sql("insert into gre_staff (staff_id, role) values (%s, 'staff')", which["assigned"])
    for n in range(7):
        session = api.backend(f"player:{10**14 + player_id * 10 + n}").send()["sessionId"]
        path = f"/api/gre-admin/session/{session}/status"
        assert api.staff().put(path, status="assigned", staffId=which["assigned"]).status_code == 200
    whole = api.staff().get("/api/gre-admin/sessions", params={"limit": 500, **which}).json()
    found: list[str] = []
    cursor = None
    while True:
        query = {"limit": 3, **which} | ({"cursor": cursor} if cursor else {})
        page = api.staff().get("/api/gre-admin/sessions", params=query).json()
        found += [s["id"] for s in page["sessions"]]
        if (cursor := page["next"]) is None:
            break
    assert found == [s["id"] for s in whole["sessions"]] and len(set(found)) == len(found) == 7


def test_text_is_returned_unchanged(api: Api, player_id: int) -> None:
    texts = [
        "<script>alert(1)</script>",
        "'; drop table gre_chat_messages; --",
        "né 🎲 \u202e\u0007",
        '{"a": "\\u0000"}',
        "x" * 4000,
    ]
    player = api.player(player_id)
    for text in texts:
        assert player.send(text)["message"]["message"] == text
    answer = player.get(f"/api/gre-chat/messages/{player_id}")
    assert [m["message"] for m in answer.json()] == texts
    assert answer.headers["content-type"] == "application/json"


def test_a_message_without_a_player_needs_a_target(api: Api) -> None:
    for who in (api.staff(), api.backend("staff:s1")):
        answer = who.post("/api/gre-chat/send", message="To whom?")
        assert (answer.status_code, answer.json()["code"]) == (400, "target_missing")
        unknown = who.post("/api/gre-admin/reply", message="Where?", sessionId=str(uuid.uuid4()))
        assert (unknown.status_code, unknown.json()["code"]) == (404, "session_unknown")

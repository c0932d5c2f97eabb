"""Portals with supabase-js, supabase-py and pusher-js, used as documented, against the real daemon."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tests.portals.harness import Portal, World, wait_for

MESSAGE_KEYS = {
    "id",
    "message",
    "sender",
    "sender_name",
    "player_id",
    "timestamp",
    "status",
    "session_id",
    "seq",
}
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PLAYERS = ["player.mjs", "player.py"]


def row(player_id: int, message: str = "Is table 4 open?", **more: Any) -> dict[str, Any]:
    return {"player_id": player_id, "sender": "player", "sender_name": "Asha", "message": message, **more}


@pytest.fixture(scope="module")
def staff(stack: World) -> Iterator[Portal]:
    """One staff portal for all tests, subscribed to both channels."""
    portal = stack.staff()
    stack.portals.remove(portal)
    assert portal.call("open") == "subscribed"
    assert portal.call("listen", channel="private-staff-portal") == "subscribed"
    yield portal
    assert portal.end() == 0


@pytest.mark.parametrize("script", PLAYERS)
def test_a_players_plain_insert_reaches_the_staff_portal(world: World, staff: Portal, script: str) -> None:
    id_ = world.new_player()
    answer = world.player(id_, script).call("insert", rows=row(id_, "né 🎲"))
    assert (answer["error"], answer["data"] or None) == (None, None)
    (event,) = staff.wait_for_events(1, "staff-portal", player_id=id_)
    data = event["data"]
    assert (event["event"], data.keys()) == ("new-player-message", MESSAGE_KEYS)
    assert {name: data[name] for name in ("message", "sender", "sender_name", "status", "seq")} == {
        "message": "né 🎲",
        "sender": "player",
        "sender_name": "Asha",
        "status": "sent",
        "seq": 1,
    }
    assert UTC.fullmatch(data["timestamp"]) and str(uuid.UUID(data["session_id"])) == data["session_id"]


@pytest.mark.parametrize("script", PLAYERS)
def test_columns_of_the_server_are_overwritten(world: World, script: str) -> None:
    id_ = world.new_player()
    forged = row(id_, seq=99, status="read", sender_id="s1", created_at="2001-01-01T00:00:00Z")
    answer = world.player(id_, script).call("insertAndSelect", rows=forged)
    (stored,) = answer["data"]
    assert (stored["seq"], stored["status"], stored["sender_id"]) == (1, "sent", str(id_))
    assert not stored["created_at"].startswith("2001")


@pytest.mark.parametrize("script", PLAYERS)
def test_sending_the_same_id_again_changes_and_announces_nothing(
    world: World, staff: Portal, script: str
) -> None:
    id_ = world.new_player()
    player, first, second = world.player(id_, script), str(uuid.uuid4()), str(uuid.uuid4())
    for message_id, text in ((first, "one"), (first, "another one"), (second, "two")):
        assert player.call("send", row=row(id_, text, id=message_id))["error"] is None
    refused = player.call("insert", rows=row(id_, "one", id=first))["error"]
    assert refused["code"] == "23505"
    player.call("insert", rows=row(id_, "three"))
    history = player.call("history", player=id_)["data"]
    assert [(message["seq"], message["message"]) for message in history] == [
        (1, "one"),
        (2, "two"),
        (3, "three"),
    ]
    staff.wait_for_events(1, "staff-portal", player_id=id_, seq=3)
    texts = [event["data"]["message"] for event in staff.events("staff-portal", player_id=id_)]
    assert texts == ["one", "two", "three"]


def test_events_of_each_session_arrive_once_and_in_order(world: World, staff: Portal) -> None:
    ids = [world.new_player() for _ in range(3)]
    players = {id_: world.player(id_) for id_ in ids}
    for turn in range(4):
        for id_, player in players.items():
            rows = [row(id_, f"{turn}.{n}") for n in range(5)]
            assert player.call("insert", rows=rows) == {"data": None, "error": None, "status": 201}
    sessions: set[str] = set()
    for id_, player in players.items():
        events = [event["data"] for event in staff.wait_for_events(20, "staff-portal", player_id=id_)]
        assert [event["seq"] for event in events] == list(range(1, 21))
        assert [event["message"] for event in events] == [
            f"{turn}.{n}" for turn in range(4) for n in range(5)
        ]
        assert [message["id"] for message in player.call("history", player=id_)["data"]] == [
            event["id"] for event in events
        ]
        sessions.add(*{event["session_id"] for event in events})
    assert len(sessions) == 3


@pytest.mark.parametrize("script", PLAYERS)
def test_postgres_changes_deliver_only_a_players_own_rows(world: World, script: str) -> None:
    one, two = world.new_player(), world.new_player()
    player, stranger = world.player(one, script), world.player(two, script)
    assert player.call("watch", filter=f"player_id=eq.{one}") == "Subscribed to PostgreSQL"
    assert stranger.call("watch") == "Subscribed to PostgreSQL"
    player.call("insert", rows=row(one, "for the staff only"))
    stranger.call("insert", rows=row(two, "mine"))
    for listener, id_ in ((player, one), (stranger, two)):
        listener.wait_for_events(1, "postgres_changes", player_id=id_)
        assert [event["data"]["player_id"] for event in listener.events("postgres_changes")] == [id_]


def test_a_player_reads_no_other_players_rows(world: World) -> None:
    one, two = world.new_player(), world.new_player()
    player, stranger = world.player(one), world.player(two)
    player.call("insert", rows=row(one))
    stranger.call("insert", rows=row(two))
    assert stranger.call("history", player=one)["data"] == []
    assert len(stranger.call("everything")["data"]) == 1


def test_only_the_player_and_staff_may_subscribe_to_a_private_channel(world: World, staff: Portal) -> None:
    one, two = world.new_player(), world.new_player()
    player, stranger = world.player(one), world.player(two)
    channel = f"private-player-{one}"
    assert player.call("listen", channel=channel) == "subscribed"
    for refused in (channel, "private-staff-portal"):
        answer = stranger.call("listen", channel=refused)
        assert (answer["type"], answer["status"]) == ("AuthError", 403)
    session = player.call("insertAndSelect", rows=row(one))["data"][0]["session_id"]
    assert (
        staff.call("reply", row={"session_id": session, "sender": "staff", "message": "Yes"})["status"] == 201
    )
    player.wait_for_events(1, channel, message="Yes")
    assert stranger.events(channel) == []


def test_replies_of_staff_reach_the_player_under_either_name(world: World, staff: Portal) -> None:
    id_ = world.new_player()
    player, channel = world.player(id_), f"private-player-{id_}"
    player.call("listen", channel=channel)
    session = player.call("insertAndSelect", rows=row(id_))["data"][0]["session_id"]
    for sender in ("staff", "gre"):
        reply = {
            "session_id": session,
            "sender": sender,
            "sender_name": "Somebody",
            "message": f"as {sender}",
        }
        answer = staff.call("reply", row=reply)
        assert answer["error"] is None
        stored = answer["data"]
        assert (stored["sender"], stored["sender_id"], stored["sender_name"]) == ("staff", "s1", "Sam")
        assert stored["player_id"] == id_
    for portal, name in ((player, channel), (staff, "private-staff-portal")):
        events = portal.wait_for_events(2, name, player_id=id_)
        assert [event["event"] for event in events] == ["new-staff-message"] * 2
        assert [(e["data"]["seq"], e["data"]["message"]) for e in events] == [(2, "as staff"), (3, "as gre")]
        assert all(event["data"].keys() == MESSAGE_KEYS for event in events)


def test_the_documented_queries_of_the_staff_portal(world: World, staff: Portal) -> None:
    id_, later = world.new_player(), world.new_player()
    player = world.player(id_)
    player.call("insert", rows=row(id_, "first", timestamp="2025-08-05T17:08:14.171Z"))
    player.call("insert", rows=row(id_, "second", timestamp="2025-08-05T17:07:00Z"))
    world.player(later).call("insert", rows=row(later))

    opened = staff.call("openSessions")["data"]
    assert [session["player_id"] for session in opened[:2]] == [later, id_]
    session = opened[1]
    assert (session["status"], session["last_seq"], session["unread_by_staff"]) == ("active", 2, 2)
    assert (session["player_name"], session["unread_by_player"]) == ("Asha", 0)

    texts = [message["message"] for message in staff.call("messages", session=session["id"])["data"]]
    assert texts == ["first", "second"]
    by_clock = staff.call("messages", session=session["id"], by="timestamp")["data"]
    assert [message["message"] for message in by_clock] == ["first", "second"], (
        "the player's clock does not change the order"
    )

    (embedded,) = staff.call("sessionsWithMessages", player=id_)["data"]
    assert [message["message"] for message in embedded["gre_chat_messages"]] == ["first", "second"]
    assert embedded["id"] == session["id"]


def test_a_closed_session_takes_no_reply_and_the_player_gets_a_new_one(world: World, staff: Portal) -> None:
    id_ = world.new_player()
    player, channel = world.player(id_), f"private-player-{id_}"
    player.call("listen", channel=channel)
    session = player.call("insertAndSelect", rows=row(id_))["data"][0]["session_id"]
    assert staff.call("assign", session=session, staff="s1")["status"] == 204
    closed = staff.call("setStatus", session=session, status="closed")
    assert (closed["status"], closed["data"]["status"]) == (200, "closed")
    assert closed["data"]["closed_at"] is not None
    events = [event["data"]["session"] for event in player.wait_for_events(3, channel)]
    assert [event["id"] for event in events] == [session] * 3
    # The state is read when the event is sent: an earlier event may contain a later change.
    assert (events[-1]["status"], events[-1]["assigned_staff_id"]) == ("closed", "s1")

    refused = staff.call("reply", row={"session_id": session, "sender": "staff", "message": "Too late"})
    assert (refused["status"], refused["error"]["hint"]) == (409, "session_closed")
    (again,) = player.call("insertAndSelect", rows=row(id_, session_id=session))["data"]
    assert (again["seq"], again["session_id"] == session) == (1, False)
    assert player.call("closeSession", id=again["session_id"])["data"] == []


@pytest.mark.parametrize(
    ("change", "status", "code", "message"),
    [
        ({"message": ""}, 400, "message_empty", "message is empty"),
        ({"message": " \u00a0\n"}, 400, "message_empty", "message is empty"),
        ({"message": "x" * 4001}, 400, "message_too_long", "message is longer than 4000 characters"),
        ({"metadata": {"x": "y" * 4096}}, 400, "metadata_too_large", "metadata is larger than 4 KB, deeper than 32 levels, or holds a number beyond a double"),
        ({"sender": "owner"}, 400, "sender_unknown", "sender must be player, staff or system"),
        ({"sender": "staff"}, 403, None, 'new row violates row-level security policy for table "gre_chat_messages"'),
        ({"sender": "system"}, 403, None, 'new row violates row-level security policy for table "gre_chat_messages"'),
        ({"player_id": -1}, 403, None, 'new row violates row-level security policy for table "gre_chat_messages"'),
        ({"player_id": 1}, 403, None, 'new row violates row-level security policy for table "gre_chat_messages"'),
    ],
)  # fmt: skip
def test_a_bad_insert_is_refused_with_one_clear_line(
    refusals: Portal, change: dict[str, Any], status: int, code: str | None, message: str
) -> None:
    answer = refusals.call("insert", rows={**row(500), **change})
    assert (answer["status"], answer["error"]["message"], answer["error"]["hint"]) == (status, message, code)


@pytest.fixture(scope="module")
def refusals(stack: World) -> Iterator[Portal]:
    portal = stack.player(500)
    stack.portals.remove(portal)
    yield portal
    assert portal.call("everything")["data"] == []
    assert portal.end() == 0


def test_sent_messages_cannot_be_changed_and_requests_need_a_valid_token(world: World) -> None:
    id_ = world.new_player()
    player = world.player(id_)
    (sent,) = player.call("insertAndSelect", rows=row(id_))["data"]
    refused = player.call("rewrite", id=sent["id"], message="something else")
    assert (refused["status"], refused["error"]["code"]) == (403, "42501")
    assert player.call("setOnline", staff_id="s1", status="offline")["status"] == 403
    anonymous = world.page("player.mjs").call("insert", rows=row(id_))
    assert (anonymous["status"], anonymous["error"]["code"]) == (401, "42501")
    expired = jwt.encode(
        {
            "role": "authenticated",
            "app_metadata": {"gre_role": "player", "player_id": id_},
            "exp": time.time() - 60,
        },
        world.keys.jwt_secret,
    )
    late = world.page("player.mjs", USER_TOKEN=expired).call("insert", rows=row(id_))
    assert (late["status"], late["error"]["message"]) == (401, "JWT expired")
    assert len(player.call("history", player=id_)["data"]) == 1
    assert player.call("whoami")["data"]["player_id"] == id_


def test_the_online_status_of_staff_is_visible_to_players_and_staff(world: World, staff: Portal) -> None:
    answer = staff.call("setOnline", staff_id="s1", display_name="Sam", status="online")
    assert (answer["error"], answer["data"]["status"]) == (None, "online")
    assert staff.call("setOnline", staff_id="s2", display_name="Not me", status="online")["status"] == 403
    assert [entry["staff_id"] for entry in staff.call("online")["data"]] == ["s1"]
    seen = world.player(world.new_player()).call("whoIsOnline")["data"]
    assert seen == [{"display_name": "Sam", "status": "online"}]


def test_a_push_queued_by_the_back_end_is_sent(world: World) -> None:
    backend, recipient = world.backend(), f"player_{world.new_player()}"
    push = {
        "audience": "player",
        "recipients": [recipient],
        "title": "Table 4",
        "body": "Ready",
        "data": {"t": 4},
    }
    answer = backend.call("push", row=push)
    assert (answer["error"], answer["data"]["status"]) == (None, "queued")

    def settled() -> dict[str, Any] | None:
        stored: dict[str, Any] = backend.call("pushed", id=answer["data"]["id"])["data"]
        return stored if stored["status"] != "queued" else None

    stored = wait_for(settled, "the push stayed queued")
    assert (stored["status"], stored["error"]) == ("sent", None)
    (body,) = [
        item["body"]
        for item in world.received("onesignal")
        if item["body"]["include_aliases"]["external_id"] == [recipient]
    ]
    assert (body["headings"], body["contents"], body["data"]) == (
        {"en": "Table 4"},
        {"en": "Ready"},
        {"t": 4},
    )

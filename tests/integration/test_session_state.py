"""Read marks, status of sessions, presence, disabled players and linked users."""

from __future__ import annotations

import uuid
from typing import Any

from tests.conftest import Database
from tests.integration.test_outbox import one
from tests.integration.test_send import a, b, refused, s, sessions, stored
from tests.support.access import SERVICE, Caller, Rest, staff, user

__all__ = ["a", "b", "s"]


def events(db: Database, event: str) -> list[dict[str, Any]]:
    """Return the pending events of one kind for Pusher, in order."""
    with db.connect() as conn:
        found = conn.execute(
            "select data, lane_key from gre_relay_deliveries where sink = 'pusher' and event = %s order by ord",
            [event],
        )
        return found.fetchall()


def rings(db: Database) -> int:
    with db.connect() as conn:
        return int(one(conn, "select count(*) from realtime.messages where topic = 'gre:relay'"))


def test_marks_of_both_sides_never_go_back(db: Database, a: Rest, s: Rest) -> None:
    for text in "abc":
        session = a.call("gre_send_message", message=text)["message"]["session_id"]
    s.call("gre_staff_reply", message="d", session_id=session)  # 4
    a.call("gre_send_message", message="e")  # 5
    (row,) = sessions(db)
    assert (row["unread_by_staff"], row["unread_by_player"]) == (4, 1)

    read = s.call("gre_mark_read", session_id=session, up_to_seq=2)
    assert (read["session_id"], read["by"], read["up_to_seq"], read["changed"]) == (session, "staff", 2, True)
    assert sessions(db)[0]["unread_by_staff"] == 2
    back = s.call("gre_mark_read", session_id=session, up_to_seq=1)
    assert back == {**read, "changed": False}
    assert [m["status"] for m in stored(db)] == ["read", "read", "sent", "sent", "sent"]

    most = s.call("gre_mark_read", session_id=session, up_to_seq=2**62)
    assert (most["up_to_seq"], sessions(db)[0]["unread_by_staff"]) == (5, 0)
    mine = a.call("gre_mark_read", session_id=session, up_to_seq=4)
    assert (mine["by"], mine["up_to_seq"]) == ("player", 4)
    assert [m["status"] for m in stored(db)] == ["read"] * 5
    (row,) = sessions(db)
    assert (row["staff_read_seq"], row["player_read_seq"], row["unread_by_player"]) == (5, 4, 0)

    told = events(db, "read")
    assert [(e["data"]["by"], e["data"]["up_to_seq"]) for e in told] == [
        ("staff", 2),
        ("staff", 5),
        ("player", 4),
    ]
    assert all(set(e["data"]) == {"session_id", "by", "up_to_seq", "timestamp", "player_id"} for e in told)
    # A message after the mark is unread.
    a.call("gre_send_message", message="f")
    assert sessions(db)[0]["unread_by_staff"] == 1


def test_invalid_marks_are_refused(db: Database, a: Rest, b: Rest, s: Rest) -> None:
    session = a.call("gre_send_message", message="x")["message"]["session_id"]
    for unknown in (session, uuid.uuid4()):
        assert refused(b, "gre_mark_read", session_id=unknown, up_to_seq=1) == (404, "session_unknown")
    for seq in (None, -1):
        assert refused(s, "gre_mark_read", session_id=session, up_to_seq=seq) == (400, "seq_invalid")
    assert refused(s, "gre_mark_read", session_id=None, up_to_seq=1) == (404, "session_unknown")
    assert s.call("gre_mark_read", session_id=session, up_to_seq=0)["changed"] is False
    assert events(db, "read") == []


def test_a_session_is_assigned_freed_closed_and_reopened(db: Database, a: Rest, s: Rest) -> None:
    with db.connect() as setup:
        setup.execute(
            "insert into gre_staff (staff_id, active) values ('s1', true), ('s2', true), ('gone', false)"
        )
    session = a.call("gre_send_message", message="x")["message"]["session_id"]

    def put(status: str | None, who: Rest = s, **more: Any) -> dict[str, Any]:
        return dict(who.call("gre_set_session_status", session_id=session, status=status, **more)["session"])

    assert put("assigned")["assigned_staff_id"] == "s1"
    rev = put("assigned")["rev"]
    assert put("assigned")["rev"] == rev  # a repeat changes nothing
    assert put("assigned", staff_id="s2")["assigned_staff_id"] == "s2"
    assert put("active")["assigned_staff_id"] is None
    closed = put("closed")
    assert (closed["status"], closed["closed_at"] is not None) == ("closed", True)
    assert put("closed")["rev"] == closed["rev"]
    assert refused(s, "gre_set_session_status", session_id=session, status="assigned") == (
        409,
        "session_closed",
    )
    reopened = put("active")
    assert (reopened["status"], reopened["closed_at"]) == ("active", None)
    assert len(events(db, "session")) == 6  # opened, assigned twice, freed, closed, reopened

    put("closed")
    other = a.call("gre_send_message", message="x")["message"]["session_id"]
    assert other != session
    assert refused(s, "gre_set_session_status", session_id=session, status="active") == (409, "session_open")
    for status in (None, "", "pending", "Closed"):
        assert refused(s, "gre_set_session_status", session_id=session, status=status) == (
            400,
            "status_unknown",
        )
    assert refused(s, "gre_set_session_status", session_id=uuid.uuid4(), status="closed") == (
        404,
        "session_unknown",
    )
    for who in ("gone", "nobody", ""):
        assert refused(s, "gre_set_session_status", session_id=other, status="assigned", staff_id=who) == (
            404,
            "staff_unknown",
        )
    with Rest(db, SERVICE) as service:
        assert refused(service, "gre_set_session_status", session_id=other, status="assigned") == (
            400,
            "staff_missing",
        )
        assert put("closed", service)["status"] == "closed"


def test_closing_a_closed_session_changes_nothing(db: Database, a: Rest, s: Rest) -> None:
    assert s.call("gre_close_session", player_id=29) == {"session": None}
    a.call("gre_send_message", message="x")
    assert s.call("gre_close_session", player_id=29)["session"]["status"] == "closed"
    assert s.call("gre_close_session", player_id=29) == {"session": None}
    assert s.call("gre_close_session", player_id=None) == {"session": None}
    assert len(events(db, "session")) == 2


def test_players_are_disabled_and_enabled_singly_and_all_at_once_with_few_wakeups(
    db: Database, s: Rest
) -> None:
    for player_id in (29, 30):
        assert s.call("gre_enable_player", player_id=player_id, enabled=False) == {
            "player_id": player_id,
            "enabled": False,
        }
    for wrong in (0, -1, None):
        assert refused(s, "gre_enable_player", player_id=wrong) == (400, "player_invalid")
    assert refused(s, "gre_enable_player", player_id=29, enabled=None) == (400, "enabled_invalid")
    with db.connect() as setup:
        setup.execute(
            "insert into gre_chat_players (player_id, chat_enabled) select g, false from generate_series(1001, 2000) g"
        )
    before = rings(db)
    assert s.call("gre_enable_all_players") == 1002
    assert before < rings(db) <= before + 2
    assert s.call("gre_enable_all_players") == 0


def test_presence(db: Database, s: Rest) -> None:
    with db.connect() as setup:
        setup.execute("insert into gre_staff (staff_id, display_name) values ('s1', 'Sam')")
    assert s.call("gre_set_online_status", status="online") == {
        "staff_id": "s1",
        "display_name": "Sam",
        "status": "online",
    }

    def expires() -> Any:
        with db.connect() as conn:
            return one(
                conn,
                "select extract(epoch from expires_at - clock_timestamp()) from gre_online_status where staff_id = 's1'",
            )

    assert expires() is None
    for asked, most in ((30, 30), (-5, 1), (0, 1), (10**12, 86400)):
        s.call("gre_set_online_status", status="away", expires_in=asked)
        assert most - 5 < expires() <= most
    before = rings(db)
    s.call("gre_set_online_status", status="away", expires_in=60)
    assert rings(db) == before  # a heartbeat causes no event
    s.call("gre_set_online_status", status="offline", expires_in=60)
    assert rings(db) == before + 1
    assert expires() is None
    for status in (None, "busy", ""):
        assert refused(s, "gre_set_online_status", status=status) == (400, "status_unknown")
    with Rest(db, SERVICE) as service:
        assert refused(service, "gre_set_online_status", status="online") == (403, "act_as_required")


def test_presence_expires_unless_the_daemon_refreshes_it(db: Database) -> None:
    with Rest(db, SERVICE) as hub, db.connect("supabase_admin") as clock:
        for who in ("s1", "s2", "s3"):
            with Rest(db, staff(who)) as rest:
                rest.call(
                    "gre_set_online_status", status="online", **({} if who == "s3" else {"expires_in": 60})
                )

        def pass_time(seconds: int) -> None:
            clock.execute(
                "update gre_online_status set expires_at = expires_at - %s * interval '1 second'", [seconds]
            )

        def online(*mine: str) -> list[str]:
            found = hub.call("gre_hub_presence_v1", staff=list(mine), players=[], expires_in=60)["online"]
            return [o["staff_id"] for o in found]

        assert online() == ["s1", "s2", "s3"]
        pass_time(50)
        assert online("s1") == ["s1", "s2", "s3"]
        pass_time(20)
        before = rings(db)
        assert online("s1") == ["s1", "s3"]  # s3 never expires
        assert rings(db) == before + 1
        pass_time(70)
        assert online("s1") == ["s1", "s3"]  # refreshed late, and still online
        assert online("s1", "s2") == ["s1", "s2", "s3"]  # expired, and online again
        with Rest(db, staff("s2")) as rest:
            rest.call("gre_set_online_status", status="offline")
        assert online("s1", "s2") == [
            "s1",
            "s3",
        ]  # a person who went offline comes back only by a status of their own

        clock.execute(
            "insert into gre_staff (staff_id, active) values ('s1', false), ('s3', false), ('s4', true)"
        )
        clock.execute(
            "insert into gre_chat_players (player_id, chat_enabled) values (29, false), (30, true), (31, false)"
        )
        found = hub.call("gre_hub_presence_v1", staff=["s1", "s4"], players=[29, 30, 99], expires_in=60)
        assert found["disabled"] == [29]
        assert found["online"] == []  # s1 and s3 are inactive now


def test_the_row_determines_the_identity_of_a_linked_user(db: Database, s: Rest) -> None:
    who = str(uuid.uuid4())
    linked = Caller({"role": "authenticated", "sub": who})
    with Rest(db, SERVICE) as service, Rest(db, linked) as rest:

        def is_now() -> tuple[Any, Any, Any]:
            found = rest.call("gre_whoami")
            return found["role"], found["player_id"], found["staff_id"]

        assert is_now() == ("none", None, None)
        service.call("gre_link_user", user_id=who, player_id=29)
        assert is_now() == ("player", 29, None)
        assert rest.call("gre_send_message", message="x")["message"]["player_id"] == 29
        service.call("gre_link_user", user_id=who, player_id=30)
        assert is_now() == ("player", 30, None)
        service.call("gre_link_user", user_id=who, staff_id="s9")
        assert is_now() == ("staff", None, "s9")
        service.call("gre_link_user", user_id=who, staff_id="s9")
        other = str(uuid.uuid4())
        service.call("gre_link_user", user_id=other, staff_id="s9")
        assert is_now() == ("none", None, None)
        service.call("gre_link_user", user_id=other)
        with Rest(db, Caller({"role": "authenticated", "sub": other})) as second:
            assert second.call("gre_whoami")["role"] == "none"
        wrong: list[dict[str, Any]] = [
            {"user_id": None, "player_id": 29},
            {"user_id": who, "player_id": 29, "staff_id": "s1"},
            {"user_id": who, "player_id": 0},
            {"user_id": who, "staff_id": ""},
        ]
        for given in wrong:
            assert refused(service, "gre_link_user", **given) == (400, "link_invalid")
    # Claims in the token take precedence over the row.
    with Rest(db, user("player", player_id=31)) as claimed:
        assert claimed.call("gre_whoami")["player_id"] == 31

"""The queue of the desk: waiting times, order and search."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Database
from tests.integration.test_adoption import adopt, enqueued, lay_out, layout
from tests.integration.test_send import a, b, refused, s, sessions
from tests.support.access import ADMIN, SERVICE, RefusalError, Rest, player, staff

__all__ = ["a", "b", "s"]

Json = dict[str, Any]


def queue(rest: Rest, **which: Any) -> list[Json]:
    """Return the only page."""
    page = rest.call("gre_session_queue", **which)
    assert page["next"] is None
    return list(page["sessions"])


def players(rest: Rest, **which: Any) -> list[int]:
    return [one["player_id"] for one in queue(rest, **which)]


def writes(db: Database, *player_ids: int, name: str | None = None) -> None:
    """Each of these players writes, one after the other."""
    for number in player_ids:
        with Rest(db, player(number)) as rest:
            rest.call("gre_send_message", message="hello", player_name=name)


def waiting(db: Database) -> list[Any]:
    return [row["waiting_since"] for row in sessions(db)]


def test_a_session_waits_from_the_players_first_message_to_staffs_next(
    db: Database, a: Rest, s: Rest
) -> None:
    first = a.call("gre_send_message", message="one")["message"]
    a.call("gre_send_message", message="two")
    (found,) = queue(s)
    assert (found["id"], found["waiting_since"]) == (first["session_id"], first["created_at"])
    s.call("gre_mark_read", session_id=first["session_id"], up_to_seq=2)
    s.call("gre_set_session_status", session_id=first["session_id"], status="assigned")
    with Rest(db, SERVICE) as system:
        system.call("gre_send_message", message="somebody will come", player_id=29, sender="system")
    assert queue(s)[0]["waiting_since"] == first["created_at"]

    s.call("gre_staff_reply", message="three", player_id=29)
    assert queue(s)[0]["waiting_since"] is None
    again = a.call("gre_send_message", message="four")["message"]
    assert queue(s)[0]["waiting_since"] == again["created_at"]
    # A repeat of a message does not count.
    s.call("gre_staff_reply", message="five", player_id=29)
    a.call("gre_send_message", message="four", id=again["id"])
    assert waiting(db) == [None]


def test_the_last_message_of_a_bulk_determines_the_waiting_time(db: Database, a: Rest, s: Rest) -> None:
    with Rest(db, SERVICE) as import_:
        talk = [("player", "one"), ("staff", "two"), ("player", "three"), ("player", "four")]
        import_.call("gre_send_messages", messages=[{"player_id": 29, "sender": who, "message": text} for who, text in talk])  # fmt: skip
    (found,) = queue(s)
    messages = s.call("gre_chat_history", session_id=found["id"])["messages"]
    assert found["waiting_since"] == messages[2]["created_at"]


def test_closed_and_reopened_sessions_do_not_wait(db: Database, a: Rest, s: Rest) -> None:
    session = a.call("gre_send_message", message="x")["message"]["session_id"]
    s.call("gre_set_session_status", session_id=session, status="closed")
    assert waiting(db) == [None]
    s.call("gre_set_session_status", session_id=session, status="active")
    assert (waiting(db), players(s)) == ([None], [29])


def test_the_queue_tells_where_staff_have_replied_in_the_cycle_while_there_is_a_first_goal(
    db: Database, a: Rest, s: Rest
) -> None:
    def told() -> Any:
        (found,) = queue(s)
        return found.get("replied")

    def goal(seconds: float | None) -> None:
        with Rest(db, ADMIN) as admin:
            admin.call("gre_set_settings", settings={"first_reply_goal": seconds, "reply_goal": 60})

    session = a.call("gre_send_message", message="one")["message"]["session_id"]
    with Rest(db, SERVICE) as system:
        system.call("gre_send_message", message="somebody will come", player_id=29, sender="system")
    goal(60)
    assert told() is None
    s.call("gre_staff_reply", message="two", player_id=29)
    assert told() is True
    a.call("gre_send_message", message="three")
    assert told() is True
    for status in ("closed", "active"):
        s.call("gre_set_session_status", session_id=session, status=status)
        assert told() is None
    a.call("gre_send_message", message="four")
    assert told() is None
    s.call("gre_staff_reply", message="five", player_id=29)
    assert told() is True
    goal(None)
    assert told() is None


@pytest.mark.parametrize(
    "caller", [player(29), staff(), ADMIN, SERVICE], ids=["player", "staff", "admin", "service"]
)
def test_clients_cannot_set_the_waiting_time(db: Database, s: Rest, caller: Any) -> None:
    with Rest(db, caller) as rest:
        rest.sql(
            "insert into gre_chat_sessions (player_id, waiting_since) values (29, '2001-01-01') returning 1"
        )
        assert waiting(db) == [None]
        rest.sql(
            "insert into gre_chat_messages (player_id, sender, message) values (29, %s, 'x')",
            "player" if caller in (player(29), SERVICE) else "staff",
        )
        since = waiting(db)
        forge = "update gre_chat_sessions set waiting_since = '2001-01-01'"
        if caller is SERVICE:
            rest.sql(forge)
        else:
            with pytest.raises(RefusalError, match="42501"):
                rest.sql(forge)
        assert waiting(db) == since
        assert since[0] is None or since[0].year > 2001


def test_no_other_answer_has_the_waiting_time(db: Database, a: Rest, s: Rest) -> None:
    session = a.call("gre_send_message", message="x")["message"]["session_id"]
    with Rest(db, SERVICE) as service:
        answers = [
            s.call("gre_list_sessions"),
            s.call("gre_catch_up", since={session: 0}),
            a.call("gre_catch_up"),
            s.call("gre_chat_history", session_id=session, sessions=True),
            s.call("gre_set_session_status", session_id=session, status="assigned"),
            service.call("gre_hub_changes_v1", positions={}, sessions=[], since="2001-01-01"),
            service.call("gre_relay_claim_v1", sink="pusher", token=session),
            s.call("gre_close_session", player_id=29),
        ]
    assert all(session in str(answer) for answer in answers)
    assert "waiting_since" not in str(answers)


def test_the_longest_waiting_first_then_the_latest_answered_then_the_latest_closed(
    db: Database, s: Rest
) -> None:
    writes(db, 1, 2, 3, 4, 5, 6, 7)
    for number in (3, 6, 7):
        s.call("gre_close_session", player_id=number)
    for number in (5, 4):
        s.call("gre_staff_reply", message="yes?", player_id=number)
    with Rest(db, player(8)) as silent:
        silent.sql("insert into gre_chat_sessions (player_id) values (8)")
    writes(db, 1)  # has waited before, and still does
    assert players(s) == [1, 2, 8, 4, 5, 7, 6, 3]
    assert players(s, status="active") == [1, 2, 8, 4, 5]
    assert players(s, status="closed") == [7, 6, 3]
    found = queue(s)
    s.call("gre_set_session_status", session_id=found[3]["id"], status="assigned")
    s.call("gre_set_session_status", session_id=found[1]["id"], status="assigned", staff_id="s1")
    with db.connect() as setup:
        setup.execute("insert into gre_staff (staff_id) values ('s1'), ('s2')")
    s.call("gre_set_session_status", session_id=found[0]["id"], status="assigned", staff_id="s2")
    assert players(s, assigned="me") == [2, 4]
    assert players(s, assigned="s2") == [1]
    assert players(s, assigned="nobody that is") == []
    assert players(s, assigned="none") == [8, 5, 7, 6, 3]
    assert players(s, assigned="none", status="active") == [8, 5]
    # A legacy status counts as open.
    with db.connect() as setup:
        setup.execute("update gre_chat_sessions set status = 'pending' where player_id = 2")
    assert players(s, status="active")[:2] == [1, 2]


def test_pages_have_each_unchanged_session_once_while_others_move(db: Database, s: Rest) -> None:
    waits, answered, closed = range(1, 13), range(21, 33), range(41, 53)
    writes(db, *waits, *answered, *closed)
    for number in (*answered, *closed):
        s.call("gre_staff_reply", message="yes?", player_id=number)
    for number in closed:
        s.call("gre_close_session", player_id=number)
    with db.connect() as setup:  # equal times are ordered by id
        setup.execute("alter table gre_chat_sessions disable trigger gre_3_before_write")
        setup.execute(
            "update gre_chat_sessions set waiting_since = '2026-01-01' where player_id between 3 and 6"
        )
        setup.execute(
            "update gre_chat_sessions set last_message_at = '2026-01-01' where player_id in (25, 26, 27, 45, 46, 47)"
        )
        setup.execute("alter table gre_chat_sessions enable trigger gre_3_before_write")
    moves = [(s, "gre_staff_reply", {"message": "yes?", "player_id": number}) for number in (1, 12)]
    moves += [(s, "gre_close_session", {"player_id": number}) for number in (2, 21, 32)]
    for number in (22, 31):
        moves.append((Rest(db, player(number)), "gre_send_message", {"message": "again"}))
    moves.append((Rest(db, player(41)), "gre_send_message", {"message": "a new session"}))
    still = {*range(3, 12), *range(23, 31), *range(42, 53)}

    found: list[Json] = []
    cursor = None
    while True:
        page = s.call("gre_session_queue", limit=5, cursor=cursor)
        found += page["sessions"]
        if moves:
            who, function, arguments = moves.pop()
            who.call(function, **arguments)
            if who is not s:
                who.conn.close()
        if (cursor := page["next"]) is None:
            break
        assert len(page["sessions"]) == 5
    assert moves == []
    stayed = [one["player_id"] for one in found if one["player_id"] in still]
    assert len(stayed) == len(set(stayed))
    assert set(stayed) == still
    by_time = {one["id"]: one for one in found if one["player_id"] in still}
    for part in (range(3, 12), range(23, 31), range(42, 53)):
        own = [one for one in by_time.values() if one["player_id"] in part]
        ages = [one["waiting_since"] or one["last_message_at"] for one in own]
        assert ages == sorted(ages, reverse=part.start > 20)


def test_a_player_is_found_by_id_or_by_the_beginning_of_the_name(db: Database, s: Rest) -> None:
    names = {29: "Asha", 290: "ashok", 31: "100% Real", 32: "1000", 33: "a_b", 34: "axb", 35: "Ärger", 36: "C:\\Temp", 37: "29ers", 38: "O'Hara"}  # fmt: skip
    for number, name in names.items():
        writes(db, number, name=name)
    for closed in (False, True):
        assert players(s, player="ash") == ([290, 29] if closed else [29, 290])
        assert players(s, player="ASHA") == [29]
        assert set(players(s, player="29")) == {29, 37}
        assert players(s, player="290") == [290]
        assert players(s, player="100%") == [31]
        assert set(players(s, player="100")) == {31, 32}
        assert players(s, player="a_b") == [33]
        assert players(s, player="%") == players(s, player="_") == players(s, player="sha") == []
        assert players(s, player="ä") == [35]
        assert players(s, player="c:\\t") == [36]
        assert players(s, player="o'h") == [38]
        assert players(s, player="' or true --") == []
        assert players(s, player="9" * 30) == []
        assert len(players(s, player="  ")) == len(names)
        assert players(s, player="ash", status="active", assigned="none") == ([] if closed else [29, 290])
        for number in names:
            s.call("gre_close_session", player_id=number)
    s.call("gre_enable_player", player_id=39, enabled=False)
    assert players(s, player="39") == []


def test_invalid_arguments_are_refused(a: Rest, s: Rest) -> None:
    assert refused(a, "gre_session_queue") == (403, "staff_only")
    assert refused(s, "gre_session_queue", status="pending") == (400, "status_unknown")
    good = "0_1_00000000-0000-0000-0000-000000000000"
    for cursor in ("", "x", "3" + good[1:], good[2:], good + "'"):
        assert refused(s, "gre_session_queue", cursor=cursor) == (400, "cursor_invalid")
    assert queue(s, cursor=good) == []


def test_staff_are_listed_with_their_presence(db: Database, a: Rest, s: Rest) -> None:
    with db.connect() as setup:
        setup.execute(
            "insert into gre_staff (staff_id, display_name, role, active) values ('s1', 'Sam', 'staff', true),"
            " ('s2', 'ann', 'admin', true), ('s3', null, 'staff', true), ('s4', 'Gone', 'staff', false)"
        )
        setup.execute(
            "insert into gre_online_status (staff_id, status, expires_at) values ('s2', 'online', now() - interval '1 s'),"
            " ('s4', 'online', null)"
        )
    s.call("gre_set_online_status", status="away", expires_in=60)
    load = {"open_sessions": 0, "takes_sessions": True, "max_sessions": None}
    assert s.call("gre_list_staff") == [
        {"staff_id": "s2", "display_name": "ann", "role": "admin", "status": "offline", **load},
        {"staff_id": "s3", "display_name": None, "role": "staff", "status": "offline", **load},
        {"staff_id": "s1", "display_name": "Sam", "role": "staff", "status": "away", **load},
    ]
    assert refused(a, "gre_list_staff") == (403, "staff_only")


def test_a_player_is_enabled_until_staff_say_otherwise(db: Database, a: Rest, s: Rest) -> None:
    assert s.call("gre_get_player", player_id=29) == {"player_id": 29, "display_name": None, "enabled": True}
    with db.connect() as setup:
        setup.execute("insert into gre_chat_players (player_id, display_name) values (29, 'Asha')")
    s.call("gre_enable_player", player_id=29, enabled=False)
    assert s.call("gre_get_player", player_id=29) == {
        "player_id": 29,
        "display_name": "Asha",
        "enabled": False,
    }
    for number in (None, 0, -1):
        assert refused(s, "gre_get_player", player_id=number) == (400, "player_invalid")
    assert refused(a, "gre_get_player", player_id=29) == (403, "staff_only")


# Adopted sessions ---------------------------------------------------------------------------------------------------


def test_an_adopted_history_waits_in_the_order_in_which_it_was_written(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    adopt(supabase_db)
    assert enqueued(supabase_db) == 0
    with supabase_db.connect() as conn:
        rows = conn.execute(
            "select s.id::text, s.status, s.waiting_since, (select array_agg(m.sender order by m.seq) from gre_chat_messages m where m.session_id = s.id) as senders"
            " from gre_chat_sessions s"
        ).fetchall()
    assert any(row["waiting_since"] for row in rows)
    for row in rows:
        talk = [who for who in row["senders"] or [] if who != "system"]
        assert (row["waiting_since"] is not None) == (
            row["status"] != "closed" and talk[-1:] == ["player"]
        ), row

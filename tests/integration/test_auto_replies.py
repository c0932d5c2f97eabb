"""Auto-replies in the transaction of a player's message: one of them, once, directly after it, and never a loop."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.integration.test_project_triggers import TRIGGERS
from tests.support.access import ADMIN, SERVICE, Conn, RefusalError, Rest, player, staff
from tests.support.auto import check, conversation, rule, say
from tests.support.desk import people, set_presence

CLOSED = ["closed_hours", "nobody_online", "opened", "reopened"]


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    """A direct connection, with staff s1 online; the invariants hold after the test."""
    with db.connect() as found:
        people(found, 1)
        yield found
        check(found)


def hours(conn: Conn, *, opened: bool, name: str = "desk", timezone: str = "UTC") -> None:
    """Have the desk open, or closed, at all times."""
    conn.execute(
        "insert into gre_hours (name, timezone) values (%s, %s) on conflict do nothing", [name, timezone]
    )
    conn.execute("delete from gre_hours_week where hours = %s", [name])
    conn.execute(
        "insert into gre_hours_week (hours, valid_from, weekday, opens, closes)"
        " select %(name)s, (now() at time zone %(zone)s)::date, d, case when %(open)s then time '00:00' end,"
        " case when %(open)s then time '24:00' end from generate_series(1, 7) d",
        {"name": name, "zone": timezone, "open": opened},
    )
    conn.execute("update gre_chat_settings set hours = %s where hours is null", [name])


def close(conn: Conn, player_id: int = 29, status: str = "closed") -> None:
    conn.execute("update gre_chat_sessions set status = %s where player_id = %s", [status, player_id])


def sent(conn: Conn) -> list[tuple[str, str | None]]:
    rows = conn.execute("select key, skipped from gre_auto_sent order by at, key").fetchall()
    return [(row["key"], row["skipped"]) for row in rows]


# Occasions


def test_a_greeting_follows_the_first_message_directly_and_once(conn: Conn) -> None:
    rule(conn, "opened", "Hello {{player_name|there}}!")
    say(conn)
    say(conn)
    say(conn, sender="staff")
    say(conn)
    assert conversation(conn) == ["P", "Hello there!", "P", "S", "P"]
    found = conn.execute("select * from gre_chat_messages where seq = 2").fetchone()
    assert found is not None
    assert (found["sender"], found["sender_id"], found["sender_name"], found["origin"]) == (
        "system",
        None,
        "System",
        "auto",
    )
    close(conn)
    say(conn)  # a new session
    assert conversation(conn) == ["P", "Hello there!", "P", "S", "P", "P", "Hello there!"]


def test_a_conversation_that_staff_begin_gets_no_greeting(conn: Conn) -> None:
    rule(conn, "opened")
    say(conn, sender="staff")
    say(conn)
    assert conversation(conn) == ["S", "P"]


def test_an_auto_reply_answers_nothing_and_keeps_the_player_waiting(conn: Conn) -> None:
    for occasion in CLOSED:
        rule(conn, occasion, once="question")
    conn.execute("update gre_online_status set status = 'offline'")
    say(conn)
    say(conn, sender="system")
    say(conn, sender="staff")
    assert conversation(conn) == ["P", "nobody_online", "B", "S"]
    say(conn)
    row = conn.execute(
        "select s.waiting_since, m.created_at from gre_chat_sessions s join gre_chat_messages m on m.session_id = s.id and m.seq = 5"
    ).fetchone()
    assert row is not None
    assert row["waiting_since"] == row["created_at"]


def test_a_reopened_session_gets_its_own_text_at_the_first_message_after_the_reopening(conn: Conn) -> None:
    rule(conn, "opened")
    rule(conn, "reopened")
    say(conn)
    close(conn)
    close(conn, status="active")
    say(conn)
    say(conn)
    close(conn)
    close(conn, status="active")
    say(conn, sender="staff")
    say(conn)
    assert conversation(conn) == ["P", "opened", "P", "reopened", "P", "S", "P"]
    assert sent(conn) == [("cycle:1", None), ("cycle:2", None)]


def test_outside_the_hours_the_away_message_comes_and_no_greeting(conn: Conn) -> None:
    hours(conn, opened=False)
    rule(conn, "opened")
    rule(conn, "closed_hours", "Back at {{next_open|some time}}")
    say(conn)
    say(conn)
    assert conversation(conn) == ["P", "Back at some time", "P"]
    close(conn)
    hours(conn, opened=True)
    say(conn)
    assert conversation(conn)[3:] == ["P", "opened"]


def test_a_greeting_never_comes_together_with_an_away_message(conn: Conn) -> None:
    """Also if the away message was sent before in this cycle, and whatever the order of the rules' ids."""
    hours(conn, opened=False)
    for n in range(6):
        rule(conn, *(("opened", f"o{n}") if n % 2 else ("closed_hours", f"c{n}")))
    say(conn)
    say(conn)
    assert len(conversation(conn)) == 3
    assert conversation(conn)[1][0] == "c"
    rule(conn, "opened", "important", priority=1)
    close(conn)
    say(conn)
    assert conversation(conn)[3:] == ["P", "important"]


def test_nobody_online_is_decided_by_presence_of_active_staff(conn: Conn) -> None:
    rule(conn, "nobody_online", once="question")
    for n, (status, change) in enumerate(
        [("online", None), ("away", None), ("offline", None), ("online", "update gre_staff set active = false"),
         ("online", "update gre_online_status set expires_at = now() - interval '1 second'")]
    ):  # fmt: skip
        conn.execute("update gre_staff set active = true")
        set_presence(conn, "s1", status)
        if change:
            conn.execute(change.encode())
        say(conn, 100 + n)
    assert [conversation(conn, 100 + n)[1:] for n in range(5)] == [[], *[["nobody_online"]] * 4]


def test_hours_limit_other_rules_to_the_time_within_them(conn: Conn) -> None:
    hours(conn, opened=True)
    hours(conn, opened=False, name="night")
    rule(conn, "opened", "by night", hours="night", priority=2)
    rule(conn, "opened", "by day", hours="desk", priority=1)
    rule(conn, "closed_hours", "the night desk is closed", hours="night")
    say(conn)
    say(conn)
    assert conversation(conn) == ["P", "by day", "P", "the night desk is closed"]


def test_without_hours_the_desk_is_always_open(conn: Conn) -> None:
    rule(conn, "closed_hours")
    say(conn)
    assert conversation(conn) == ["P"]


def test_only_active_rules_within_their_dates_apply(conn: Conn) -> None:
    rule(conn, "opened", "inactive", active=False)
    rule(conn, "opened", "over", valid_to="2026-01-01")
    rule(conn, "opened", "later", valid_from="2999-01-01")
    say(conn)
    rule(conn, "opened", "now", valid_from="2026-01-01", valid_to="2999-01-01")
    say(conn, 30)
    assert (conversation(conn), conversation(conn, 30)) == (["P"], ["P", "now"])


# Once


def test_once_per_cycle_day_and_question(conn: Conn) -> None:
    hours(conn, opened=False, timezone="Pacific/Kiritimati")
    conn.execute("update gre_online_status set status = 'offline'")
    for n, once in enumerate(("cycle", "day", "question")):
        number = 100 + n
        conn.execute("delete from gre_auto_replies")
        rule(conn, "nobody_online", "a", once=once)
        for sender in ("player", "player", "staff", "player", "player"):
            say(conn, number, sender)
        close(conn, number)
        close(conn, number, "active")
        say(conn, number)
    assert [conversation(conn, 100 + n) for n in range(3)] == [
        ["P", "a", "P", "S", "P", "P", "P", "a"],
        ["P", "a", "P", "S", "P", "P", "P"],
        ["P", "a", "P", "S", "P", "a", "P", "P", "a"],
    ]
    keys = [key for key, _ in sent(conn)]
    day = conn.execute("select (now() at time zone 'Pacific/Kiritimati')::date::text as d").fetchone()
    assert day is not None
    assert keys == ["cycle:1", "cycle:2", "day:" + day["d"], "question:1", "question:5", "question:8"]


def test_a_repeated_or_skipped_insert_starts_no_rule(db: Database, conn: Conn) -> None:
    rule(conn, "opened", once="question")
    message = "6f1c2a34-9b1d-4f7e-8a55-0d6f3c1b2a90"
    with Rest(db, player(29)) as p:
        first = p.call("gre_send_message", message="x", id=message)
        assert p.call("gre_send_message", message="x", id=message) == {
            "message": first["message"],
            "duplicate": True,
        }
        p.sql("insert into gre_chat_messages (id, message) values (%s, 'x') on conflict do nothing", message)
        with pytest.raises(RefusalError, match="23505"):
            p.sql("insert into gre_chat_messages (id, message) values (%s, 'x')", message)
        p.call("gre_send_messages", messages=[{"id": message, "message": "x"}])
    assert conversation(conn) == ["P", "opened"]


def test_imports_of_a_back_end_can_be_quiet(db: Database, conn: Conn) -> None:
    for occasion in ("opened", "nobody_online", "waiting"):
        rule(conn, occasion, once="question")
    quiet = {"quiet": True}
    with (
        Rest(db, SERVICE) as back_end,
        Rest(db, player(30)) as p,
        Rest(db, SERVICE.acting_as("player:31")) as acting,
    ):
        back_end.call("gre_send_messages", messages=[
            {"player_id": 29, "sender": "player", "message": f"m{n}", "metadata": quiet} for n in range(3)
        ])  # fmt: skip
        back_end.call(
            "gre_send_message", message="x", player_id=32, sender="player", metadata={"quiet": False}
        )
        for rest in (p, acting):  # players cannot
            rest.call("gre_send_message", message="x", metadata=quiet)
    say(conn)
    assert conversation(conn) == ["P"] * 4  # no first message any more
    for number in (30, 31, 32):
        assert conversation(conn, number) == ["P", "opened"]
    assert conn.execute("select count(*) as n from gre_timers").fetchone() == {"n": 3}


# In the message's transaction


def test_it_commits_with_its_cause_or_not_at_all(db: Database, conn: Conn) -> None:
    rule(conn, "opened")
    rule(conn, "waiting")
    with pytest.raises(ZeroDivisionError), conn.transaction():
        say(conn)
        assert conversation(conn) == ["P", "opened"]
        raise ZeroDivisionError
    for table in ("gre_chat_messages", "gre_auto_sent", "gre_timers", "gre_relay_deliveries"):
        assert conn.execute(f"select from {table}".encode()).fetchall() == []
    with conn.transaction():
        with pytest.raises(ZeroDivisionError), conn.transaction():
            say(conn)
            raise ZeroDivisionError
        say(conn)
        say(conn)
        say(conn, 30)
        with conn.transaction():
            say(conn, 29, "staff")
        say(conn, 29)
    assert conversation(conn) == ["P", "opened", "P", "S", "P"]
    assert conversation(conn, 30) == ["P", "opened"]


def test_a_bulk_gets_one_greeting_for_each_session(db: Database, conn: Conn) -> None:
    rule(conn, "opened", "Hello {{player_name|there}}")
    with Rest(db, SERVICE) as back_end:
        back_end.call("gre_send_messages", messages=[
            {"player_id": 40 + n % 7, "sender": "player", "message": "x"} for n in range(50)
        ])  # fmt: skip
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, message) select 60 + g % 5, 'player', 'x' from generate_series(0, 19) g"
    )
    for number in [*range(40, 47), *range(60, 65)]:
        # A statement ends before its auto-replies.
        found = conversation(conn, number)
        assert found == ["P"] * (len(found) - 1) + ["Hello there"]


def test_fifty_first_messages_at_once_get_one_greeting_at_seq_2(db: Database, conn: Conn) -> None:
    """By table, by function, in bulks, with repeats of the same ids and with connections that break off."""
    rule(conn, "opened")
    start = threading.Barrier(50)
    ids = [f"00000000-0000-4000-8000-{n:012d}" for n in range(25)]

    def write(n: int) -> None:
        number = ids[n % 25]  # each id is sent by two
        with Rest(db, player(29)) as p:
            start.wait(60)
            match n % 3:
                case 0:
                    p.sql(
                        "insert into gre_chat_messages (id, message) values (%s, 'x') on conflict do nothing",
                        number,
                    )
                case 1:
                    p.call("gre_send_message", message="x", id=number)
                case _:
                    p.call("gre_send_messages", messages=[{"id": number, "message": "x"}])

    threads = [threading.Thread(target=write, args=[n]) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert conversation(conn) == ["P", "opened", *["P"] * 24]


def test_the_id_is_the_same_for_the_same_rule_session_and_key(conn: Conn) -> None:
    """After a loss of gre_auto_sent in a restore, a message that is there is not sent again."""
    rule(conn, "nobody_online")
    set_presence(conn, "s1", "offline")
    say(conn)
    with conn.transaction(force_rollback=True):
        conn.execute("delete from gre_auto_sent")
        say(conn)
        assert conversation(conn) == ["P", "nobody_online", "P"]
        assert [key for key, _ in sent(conn)] == ["cycle:1"]


# Errors never reach the player


def test_a_rule_that_cannot_be_rendered_is_entered_as_skipped(conn: Conn) -> None:
    rule(conn, "opened", "Bye {{staff_name}}")
    rule(conn, "nobody_online", "{{player_name}}" * 300)
    conn.execute("insert into gre_chat_players (player_id, display_name) values (30, %s)", ["N" * 60])
    say(conn)
    set_presence(conn, "s1", "offline")
    say(conn, 30)
    assert (conversation(conn), conversation(conn, 30)) == (["P"], ["P"])
    assert sent(conn) == [("cycle:1", "text"), ("cycle:1", "text")]


def test_an_error_in_a_rule_refuses_no_message(conn: Conn, caplog: pytest.LogCaptureFixture) -> None:
    rule(conn, "opened")
    conn.execute(
        "create function no() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$"
    )
    conn.execute(
        "create trigger no before insert on gre_chat_messages for each row when (new.origin = 'auto') execute function no()"
    )
    warnings: list[str] = []
    conn.add_notice_handler(lambda notice: warnings.append(notice.message_primary or ""))
    say(conn)
    say(conn, message="secret")
    assert conversation(conn) == ["P", "P"]
    assert sent(conn) == []
    assert len(warnings) == 1
    assert "P0001" in warnings[0]


@pytest.mark.parametrize("name", ["a_bot", "gre_7b_bot", "y_bot"])
@pytest.mark.parametrize("kind", TRIGGERS)
def test_triggers_of_the_project_keep_order_and_counters(conn: Conn, kind: str, name: str) -> None:
    """Whatever they insert or change, and whether they fire before or after the trigger of auto-replies."""
    conn.execute(TRIGGERS[kind].replace("{name}", name).encode())
    rule(conn, "opened", once="question")
    rule(conn, "nobody_online", once="question", priority=-1)
    rule(conn, "waiting")
    set_presence(conn, "s1", "offline")
    for message in ("x", "y", "bye", "z"):
        say(conn, message=message)
    say(conn, sender="staff")
    with conn.transaction():
        say(conn)
        say(conn, 30)
        say(conn, 30)
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, message) select 40 + g % 2, 'player', 'x' from generate_series(1, 4) g"
    )
    for number in (29, 30, 40, 41):
        texts = conversation(conn, number)
        assert texts.count("opened") <= texts.count("P")
        assert "P" in texts


# Old portals, pushes


def test_messages_say_auto_only_where_it_is_true(db: Database, conn: Conn) -> None:
    rule(conn, "opened", push=True)
    rule(conn, "nobody_online")
    say(conn)
    set_presence(conn, "s1", "offline")
    say(conn)
    with Rest(db, player(29)) as p:
        found = p.call("gre_chat_history")["messages"]
    assert [message.get("auto") for message in found] == [None, True, None, True]
    rows = conn.execute(
        "select d.sink, d.data, m.seq from gre_relay_deliveries d join gre_chat_messages m on m.id = d.message_id where m.origin = 'auto' order by 3, 1"
    )
    assert [(row["seq"], row["sink"], row["data"]) for row in rows] == [
        (2, "onesignal", {"push": True}), (2, "pusher", None), (4, "onesignal", None), (4, "pusher", None),
    ]  # fmt: skip


# Rules


def test_admins_write_rules_and_see_what_would_be_sent_now(db: Database, conn: Conn) -> None:
    with Rest(db, ADMIN) as admin, Rest(db, staff()) as s1:
        conn.execute("insert into gre_staff (staff_id, role) values ('a1', 'admin')")
        assert admin.call("gre_list_auto_replies") == {"auto_replies": [], "now": None}
        given = {
            "name": "Greeting",
            "occasion": "opened",
            "texts": {"en": "Hi {{player_name|there}} {{staff_name}}"},
        }
        greeting = admin.call("gre_save_auto_reply", auto_reply=given)
        assert greeting == {**given, "id": greeting["id"], "wait": None, "once": "cycle", "hours": None, "priority": 0, "push": False,
                            "active": True, "valid_from": None, "valid_to": None}  # fmt: skip
        assert s1.call("gre_get_auto_reply", id=greeting["id"]) == greeting
        changed = admin.call("gre_save_auto_reply", id=greeting["id"], auto_reply=greeting | {
            "priority": 3, "push": True, "valid_from": "2026-01-01T00:00:00Z", "valid_to": "2999-01-01T00:00:00+02:00"})  # fmt: skip
        assert changed == greeting | {
            "priority": 3,
            "push": True,
            "valid_from": "2026-01-01T00:00:00.000Z",
            "valid_to": "2998-12-31T22:00:00.000Z",
        }
        assert s1.call("gre_list_auto_replies") == {"auto_replies": [changed], "now": {
            "id": greeting["id"], "text": "Hi there {{staff_name}}", "missing": ["staff_name"]}}  # fmt: skip
        waiting = admin.call(
            "gre_save_auto_reply",
            auto_reply={"name": "W", "occasion": "waiting", "wait": 90.5, "texts": {"en": "x"}},
        )
        assert (waiting["wait"], waiting["once"]) == (90.5, "cycle")
        idle = admin.call(
            "gre_save_auto_reply", auto_reply={"name": "I", "occasion": "idle_warning", "texts": {"en": "x"}}
        )
        assert idle["once"] == "question"
        for call in (
            lambda: s1.call("gre_save_auto_reply", auto_reply=given),
            lambda: s1.call("gre_delete_auto_reply", id=idle["id"]),
        ):
            with pytest.raises(RefusalError, match="admin_only"):
                call()
        for rule_id in (idle["id"], waiting["id"], greeting["id"]):
            admin.call("gre_delete_auto_reply", id=rule_id)
        for call in (lambda: admin.call("gre_delete_auto_reply", id=idle["id"]), lambda: s1.call("gre_get_auto_reply", id=idle["id"]),
                     lambda: admin.call("gre_save_auto_reply", auto_reply={"name": "x"}, id=idle["id"])):  # fmt: skip
            with pytest.raises(RefusalError, match="auto_reply_unknown"):
                call()
        assert s1.call("gre_list_auto_replies")["auto_replies"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"occasion": "sometimes"}, {"occasion": None}, {"name": ""}, {"name": None}, {"wait": 5}, {"occasion": "waiting"},
        {"occasion": "waiting", "wait": 0.5}, {"occasion": "waiting", "wait": 1e300}, {"occasion": "waiting", "wait": "5 minutes"},
        {"once": "always"}, {"once": None}, {"priority": "high"}, {"priority": 1e10}, {"priority": None}, {"push": None}, {"active": "?"},
        {"valid_from": "soon"}, {"valid_to": "infinity"}, {"texts": {"en": "{{?amount}}"}}, {"texts": {"en": "{{open}}"}}, {"texts": None},
        {"hours": "nowhere"},
    ],
)  # fmt: skip
def test_a_rule_that_is_not_valid_changes_nothing(db: Database, changes: dict[str, Any]) -> None:
    with Rest(db, ADMIN) as admin:
        before = admin.call(
            "gre_save_auto_reply", auto_reply={"name": "a", "occasion": "opened", "texts": {"en": "x"}}
        )
        for rule_id in (before["id"], None):
            with pytest.raises(RefusalError) as refused:
                admin.call("gre_save_auto_reply", id=rule_id, auto_reply=before | changes)
            assert refused.value.status == (404 if "hours" in changes else 400)
        assert admin.call("gre_list_auto_replies")["auto_replies"] == [before]


def test_the_texts_of_all_rules_are_bounded_in_bytes(db: Database) -> None:
    large = {f"a{chr(97 + n)}": "\N{HEDGEHOG}" * 4000 for n in range(20)}  # some 320 KB

    def save(admin: Rest, name: str, rule_id: str | None = None) -> dict[str, Any]:
        rule = {"name": name, "occasion": "opened", "texts": large}
        saved: dict[str, Any] = admin.call("gre_save_auto_reply", id=rule_id, auto_reply=rule)
        return saved

    with Rest(db, ADMIN) as admin:
        kept: list[dict[str, Any]] = []
        with pytest.raises(RefusalError) as refused:
            while len(kept) < 20:
                kept.append(save(admin, f"rule {len(kept)}"))
        assert (refused.value.status, refused.value.code) == (409, "too_many")
        assert len(kept) == 13
        assert save(admin, "changed", kept[0]["id"])["name"] == "changed"
        admin.call("gre_delete_auto_reply", id=kept[1]["id"])
        save(admin, "again")
        with pytest.raises(RefusalError, match="too_many"):
            save(admin, "one more")


def test_hours_that_a_rule_uses_cannot_be_deleted(db: Database, conn: Conn) -> None:
    hours(conn, opened=True, name="other")
    conn.execute("update gre_chat_settings set hours = null")
    rule(conn, "closed_hours", hours="other")
    with Rest(db, SERVICE) as back_end, pytest.raises(RefusalError, match="hours_in_use"):
        back_end.call("gre_delete_hours", name="other")


def test_a_rule_that_is_deleted_or_changed_meanwhile_refuses_no_message(db: Database, conn: Conn) -> None:
    stop = threading.Event()
    errors: list[Exception] = []

    def change() -> None:
        with db.connect() as other:
            try:
                while not stop.is_set():
                    ids = [rule(other, "opened"), rule(other, "nobody_online"), rule(other, "waiting")]
                    other.execute(
                        "update gre_auto_replies set once = 'day', wait = case when wait is not null then interval '1 hour' end"
                    )
                    other.execute("delete from gre_auto_replies where id = any (%s)", [ids])
            except psycopg.Error as error:
                errors.append(error)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for number, _ in itertools.product(range(100, 150), range(3)):
            say(conn, number)
    finally:
        stop.set()
        changer.join(60)
    assert errors == []
    for number in range(100, 150):
        assert conversation(conn, number).count("P") == 3


def test_details_never_hold_text(db: Database) -> None:
    with Rest(db, ADMIN) as admin, pytest.raises(RefusalError) as refused:
        admin.call(
            "gre_save_auto_reply",
            auto_reply={"name": "n", "occasion": "opened", "texts": {"en": "my secret {{x}}"}},
        )
    assert json.loads(refused.value.detail) == {"unknown": ["x"]}
    assert "secret" not in refused.value.message

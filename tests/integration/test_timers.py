"""Timers: each fires once, never early, never for a question that was answered; idle sessions are warned, then closed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, SERVICE, WORKER, Conn, RefusalError, Rest, player, request, staff
from tests.support.ageing import elapse
from tests.support.auto import check, conversation, rule, say, tick
from tests.support.desk import check as check_desk
from tests.support.desk import people
from tests.support.story import check_stories
from tests.support.waiting import wait_until

IDLE: dict[str, Any] = {
    "enabled": True,
    "next_in": None,
    "handled": 0,
    "sent": 0,
    "skipped": 0,
    "closed": 0,
    "failed": 0,
}


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    """A direct connection, with staff s1 online; the invariants hold after the test."""
    with db.connect() as found:
        people(found, 2)
        yield found
        check(found)
        check_desk(found)
        check_stories(found)


@pytest.fixture
def worker(db: Database) -> Iterator[Conn]:
    with db.connect("authenticator") as found:
        yield found


def change(conn: Conn, **columns: Any) -> None:
    conn.execute(
        f"update gre_chat_settings set {', '.join(f'{name} = %({name})s' for name in columns)}".encode(),
        columns,
    )


def settings(conn: Conn, **columns: Any) -> None:
    """Change the settings, and apply them to all sessions as ticks do."""
    change(conn, **columns)
    applied = "select gre.apply_idle_change() as next"
    wait_until(
        lambda: conn.execute(applied).fetchone() == {"next": None}, every=0.01, what="the change is applied"
    )


def sent(conn: Conn) -> list[tuple[str, str | None]]:
    rows = conn.execute("select key, skipped from gre_auto_sent order by at, key").fetchall()
    return [(row["key"], row["skipped"]) for row in rows]


def timers(conn: Conn) -> list[tuple[str, int]]:
    rows = conn.execute("select kind, seq from gre_timers order by due_at").fetchall()
    return [(row["kind"], row["seq"]) for row in rows]


def apply(conn: Conn, worker: Conn) -> None:
    """Tick until a change of the settings is applied to all sessions."""
    left = "select count(*) as n from gre.idle_change"
    wait_until(
        lambda: tick(worker) and conn.execute(left).fetchone() == {"n": 0}, 60, 0.01, "the change is applied"
    )


def status(conn: Conn) -> tuple[str, str | None]:
    row = conn.execute(
        "select status, closed_by from gre_chat_sessions order by created_at desc limit 1"
    ).fetchone()
    assert row is not None
    return row["status"], row["closed_by"]


def test_without_rules_there_is_nothing_to_do(conn: Conn, worker: Conn) -> None:
    say(conn)
    say(conn, sender="staff")
    assert tick(worker) == IDLE | {"enabled": False}


# Waiting


def test_a_player_who_waits_is_told_once_and_never_early(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting", "Soon", wait=timedelta(seconds=60), once="question")
    say(conn)
    elapse(conn, 30)
    found = tick(worker)
    assert 0 < found["next_in"] <= 30
    assert found == IDLE | {"next_in": found["next_in"]}
    say(conn)  # the same question
    assert conversation(conn) == ["P", "P"]
    elapse(conn, 30)
    assert tick(worker) == IDLE | {"handled": 1, "sent": 1}
    assert tick(worker) == IDLE
    say(conn)
    elapse(conn, 600)
    assert tick(worker) == IDLE
    assert conversation(conn) == ["P", "P", "Soon", "P"]
    assert sent(conn) == [("question:1", None)]


def test_an_answered_question_starts_nothing_and_the_next_one_counts_anew(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting", "Soon", wait=timedelta(seconds=60), once="question")
    say(conn)
    elapse(conn, 30)
    say(conn, sender="staff")
    elapse(conn, 10)
    say(conn)
    elapse(conn, 25)  # 65 s after the first question, 25 s after the second
    assert tick(worker)["handled"] == 0
    elapse(conn, 35)
    assert tick(worker)["sent"] == 1
    say(conn, sender="staff")
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 60)
    assert tick(worker) == IDLE | {"handled": 1}
    assert conversation(conn) == ["P", "S", "P", "Soon", "S", "P", "S"]
    assert sent(conn) == [("question:3", None)]


def test_once_a_cycle_is_once_for_all_its_questions(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting", "Soon")
    for _ in range(2):
        say(conn)
        elapse(conn, 301)
        tick(worker)
        say(conn, sender="staff")
    assert conversation(conn) == ["P", "Soon", "S", "P", "S"]


def test_several_rules_have_a_timer_each(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting", "first", wait=timedelta(minutes=1))
    rule(conn, "waiting", "second", wait=timedelta(minutes=5))
    rule(conn, "waiting", "inactive", wait=timedelta(minutes=1), active=False)
    rule(conn, "waiting", "over", wait=timedelta(minutes=1), valid_to=datetime.now(UTC))
    say(conn)
    for _ in range(6):
        elapse(conn, 60)
        tick(worker)
    assert conversation(conn) == ["P", "first", "second"]


def test_a_wait_counts_open_hours(db: Database, conn: Conn) -> None:
    """The desk opens tomorrow at noon; until then nobody is told to wait."""
    now = datetime.now(UTC)
    with Rest(db, SERVICE) as back_end:
        back_end.call("gre_set_hours", name="desk", timezone="UTC", week=[{"weekday": 1}],
                      dates=[{"day": (now + timedelta(days=1)).date().isoformat(), "opens": "12:00", "closes": "24:00"}])  # fmt: skip
    settings(conn, hours="desk")
    rule(conn, "waiting", "Soon", wait=timedelta(seconds=90))
    say(conn)
    row = conn.execute("select due_at from gre_timers").fetchone()
    noon = (now + timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
    assert row == {"due_at": noon + timedelta(seconds=90)}
    conn.execute("delete from gre_hours_dates")
    say(conn, 30)  # never open: no timer
    assert conn.execute("select count(*) as n from gre_timers").fetchone() == {"n": 1}


def test_a_longer_wait_or_shorter_hours_apply_to_players_who_wait_already(
    db: Database, conn: Conn, worker: Conn
) -> None:
    longer = rule(conn, "waiting", "Soon", wait=timedelta(minutes=5))
    say(conn)
    conn.execute("update gre_auto_replies set wait = '60 minutes' where id = %s", [longer])
    elapse(conn, 301)
    assert tick(worker) == IDLE | {"handled": 1, "next_in": pytest.approx(3_299, abs=60)}
    elapse(conn, 3_300)
    assert tick(worker)["sent"] == 1
    assert conversation(conn) == ["P", "Soon"]

    say(conn, 30)
    with Rest(db, SERVICE) as back_end:  # closed until tomorrow
        back_end.call("gre_set_hours", name="desk", timezone="UTC", week=[{"weekday": 1}],
                      dates=[{"day": (datetime.now(UTC) + timedelta(days=1)).date().isoformat(), "opens": "12:00", "closes": "24:00"}])  # fmt: skip
    settings(conn, hours="desk")
    elapse(conn, 3_601)
    found = tick(worker)
    assert (found["handled"], found["sent"]) == (1, 0)
    assert found["next_in"] > 3_600
    assert conversation(conn, 30) == ["P"]


def test_a_timer_of_a_rule_that_is_gone_has_no_effect(conn: Conn, worker: Conn) -> None:
    gone, off = rule(conn, "waiting", "gone"), rule(conn, "waiting", "off")
    say(conn)
    conn.execute("delete from gre_auto_replies where id = %s", [gone])
    conn.execute("update gre_auto_replies set active = false where id = %s", [off])
    elapse(conn, 301)
    assert tick(worker) == IDLE | {"enabled": False, "handled": 2}
    assert conversation(conn) == ["P"]


def test_what_is_found_too_late_is_entered_as_skipped_and_stays_silent(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting", "Soon", wait=timedelta(seconds=60), once="question")
    say(conn)
    say(conn, 30)
    elapse(conn, 60 + 301)
    assert tick(worker, late_after=600, limit=1)["sent"] == 1
    assert tick(worker) == IDLE | {"handled": 1, "skipped": 1}
    assert tick(worker) == IDLE
    assert sent(conn) == [("question:1", None), ("question:1", "late")]


def test_a_closed_or_deleted_session_gets_nothing(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting")
    say(conn)
    say(conn, 30)
    conn.execute("update gre_chat_sessions set status = 'closed' where player_id = 29")
    conn.execute("delete from gre_chat_sessions where player_id = 30")
    elapse(conn, 301)
    assert tick(worker) == IDLE | {"handled": 1}
    assert conversation(conn) == ["P"]


# Idle


def test_an_idle_session_is_warned_and_then_closed_with_no_message_into_it(
    db: Database, conn: Conn, worker: Conn
) -> None:
    settings(conn, idle_warn_after=timedelta(minutes=10), idle_close_after=timedelta(minutes=5))
    rule(conn, "idle_warning", "Still there, {{player_name|you}}?", once="question")
    rule(conn, "idle_close", "Bye", once="question")
    say(conn)
    elapse(conn, 86_400)
    assert tick(worker) == IDLE, "a player who waits is not idle"
    say(conn, sender="staff")
    elapse(conn, 540)
    assert tick(worker)["handled"] == 0
    elapse(conn, 60)
    assert tick(worker) == IDLE | {"handled": 1, "sent": 1, "next_in": pytest.approx(300, abs=60)}
    elapse(conn, 240)
    assert tick(worker)["handled"] == 0
    assert status(conn) == ("active", None)
    elapse(conn, 60)
    assert tick(worker) == IDLE | {"handled": 1, "sent": 1, "closed": 1}
    assert tick(worker) == IDLE
    assert conversation(conn) == ["P", "S", "Still there, you?", "Bye"]
    assert status(conn) == ("closed", "idle")
    events = conn.execute(
        "select kind, after_seq, by_staff_id, data from gre_chat_events order by rev"
    ).fetchall()
    assert events[-1] == {"kind": "closed", "after_seq": 4, "by_staff_id": None, "data": {"by": "idle"}}
    with Rest(db, player(29)) as p:
        assert p.call("gre_list_sessions")["sessions"][0]["closed_by"] == "idle"


@pytest.mark.parametrize("writer", ["player", "staff", "system"])
def test_any_message_ends_the_idleness(conn: Conn, worker: Conn, writer: str) -> None:
    settings(conn, idle_warn_after=timedelta(minutes=10), idle_close_after=timedelta(minutes=5))
    rule(conn, "idle_warning", "w", once="question")
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 600)
    assert tick(worker)["sent"] == 1
    elapse(conn, 240)
    say(conn, sender=writer)
    elapse(conn, 302)
    assert tick(worker)["closed"] == 0
    assert status(conn) == ("active", None)
    if writer == "player":
        assert timers(conn) == []
        say(conn, sender="staff")
    elapse(conn, 601 if writer == "player" else 300)
    found = tick(worker)
    assert (found["sent"], found["closed"]) == (1, 0), "warned again, by the count of the new last message"
    elapse(conn, 301)
    assert tick(worker)["closed"] == 1


def test_idleness_without_a_warning_or_without_a_text(conn: Conn, worker: Conn) -> None:
    settings(conn, idle_close_after=timedelta(minutes=5))
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 240)
    assert tick(worker)["closed"] == 0
    elapse(conn, 61)
    assert tick(worker)["closed"] == 1
    settings(conn, idle_warn_after=timedelta(minutes=10), idle_close_after=timedelta(minutes=5))
    say(conn, 30)
    say(conn, 30, "staff")
    elapse(conn, 600)
    assert tick(worker)["handled"] == 1
    elapse(conn, 301)
    assert tick(worker)["closed"] == 1
    assert (conversation(conn), conversation(conn, 30)) == (["P", "S"], ["P", "S"])


def test_after_an_outage_of_the_workers_a_session_is_warned_before_it_is_closed(
    conn: Conn, worker: Conn
) -> None:
    settings(conn, idle_warn_after=timedelta(minutes=10), idle_close_after=timedelta(minutes=5))
    rule(conn, "idle_warning", "w", once="question")
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 3_600)
    assert tick(worker) == IDLE | {"handled": 1, "sent": 1, "next_in": pytest.approx(300, abs=60)}
    elapse(conn, 301)
    assert tick(worker)["closed"] == 1
    assert conversation(conn) == ["P", "S", "w"]


def test_a_change_of_the_settings_repeats_no_warning(conn: Conn, worker: Conn) -> None:
    settings(conn, idle_warn_after=timedelta(minutes=10), idle_close_after=timedelta(minutes=5))
    rule(conn, "idle_warning", "w", once="question")
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 601)
    assert tick(worker)["sent"] == 1
    settings(conn, idle_close_after=timedelta(minutes=8))
    elapse(conn, 601)
    assert tick(worker) == IDLE | {"handled": 1, "next_in": pytest.approx(480, abs=60)}
    elapse(conn, 481)
    assert tick(worker)["closed"] == 1
    assert conversation(conn) == ["P", "S", "w"]


def test_a_warning_only(conn: Conn, worker: Conn) -> None:
    settings(conn, idle_warn_after=timedelta(minutes=10))
    rule(conn, "idle_warning", "w")
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 601)
    assert tick(worker) == IDLE | {"handled": 1, "sent": 1}


def test_a_change_of_the_settings_applies_to_the_sessions_that_are_open(conn: Conn, worker: Conn) -> None:
    """Sessions that are idle for long are closed silently: the time for their warning is over."""
    rule(conn, "idle_warning", "w", once="question")
    for number in (29, 30, 31):
        say(conn, number)
        say(conn, number, "staff")
    say(conn, 31)
    conn.execute("update gre_chat_sessions set status = 'closed' where player_id = 30")
    elapse(conn, 86_400)
    settings(conn, idle_warn_after=timedelta(minutes=10), idle_close_after=timedelta(minutes=5))
    assert timers(conn) == [("idle_close", 2)]
    settings(conn, idle_warn_after=timedelta(days=2))
    elapse(conn, 301)
    assert tick(worker)["handled"] == 0, "counted anew"
    settings(conn, idle_warn_after=None)
    assert tick(worker)["closed"] == 1
    assert conversation(conn) == ["P", "S"]
    settings(conn, idle_close_after=None)
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 10 * 86_400)
    assert tick(worker) == IDLE | {"enabled": False}


def test_an_answer_during_a_change_of_the_settings_gets_its_timer(
    db: Database, conn: Conn, worker: Conn
) -> None:
    """The answer reads the older settings; the change sees the session as waiting."""
    say(conn)
    with db.connect(autocommit=False) as admin:
        change(admin, idle_close_after=timedelta(minutes=5))
        conn.execute("set lock_timeout = '200ms'")
        say(conn, sender="staff")
        assert timers(conn) == []
    apply(conn, worker)
    assert timers(conn) == [("idle_close", 2)]
    with db.connect(autocommit=False) as admin:  # nor does an answer wait for the change if there is a timer
        change(admin, idle_close_after=timedelta(minutes=6))
        say(conn, sender="staff")
    apply(conn, worker)
    elapse(conn, 361)
    assert tick(worker)["closed"] == 1


@pytest.mark.parametrize("first", ["message", "change"])
def test_a_session_that_opens_during_a_change_of_the_settings_gets_its_timer(
    db: Database, conn: Conn, worker: Conn, first: str
) -> None:
    with db.connect(autocommit=False) as slow:
        with db.connect(autocommit=False) as admin:
            if first == "message":
                say(slow, 30, "staff")
            change(admin, idle_close_after=timedelta(minutes=5))
            if first == "change":
                say(slow, 30, "staff")  # its transaction is younger, and reads the older settings, too
        for _ in range(3):
            found = tick(worker)
            assert (found["enabled"], 0 < found["next_in"] <= 1) == (True, True)
    assert timers(conn) == []
    apply(conn, worker)
    assert timers(conn) == [("idle_close", 1)]


def test_a_locked_session_gets_its_timer_later_and_the_others_at_once(
    db: Database, conn: Conn, worker: Conn
) -> None:
    for number in (29, 30, 31):
        say(conn, number)
        say(conn, number, "staff")
    change(conn, idle_close_after=timedelta(minutes=5))
    with db.connect(autocommit=False) as holder:
        holder.execute("select from gre_chat_sessions where player_id = 30 for update")
        wait_until(lambda: tick(worker) and len(timers(conn)) == 2, every=0.01)
        before = conn.execute("select session_id, due_at from gre_timers order by 1").fetchall()
        for _ in range(3):
            assert 0 < tick(worker)["next_in"] <= 1
        assert conn.execute("select session_id, due_at from gre_timers order by 1").fetchall() == before
    apply(conn, worker)
    assert len(timers(conn)) == 3


def test_no_session_is_closed_unwarned_while_a_change_of_the_settings_is_applied(
    db: Database, conn: Conn, worker: Conn
) -> None:
    settings(conn, idle_close_after=timedelta(minutes=30))
    rule(conn, "idle_warning", "w", once="question")
    say(conn)
    say(conn, sender="staff")
    elapse(conn, 1_801)
    with db.connect(autocommit=False) as writer:
        say(writer, 30)  # no change is applied while this transaction is open
        change(conn, idle_warn_after=timedelta(minutes=30), idle_close_after=timedelta(minutes=5))
        for _ in range(3):
            assert tick(worker)["closed"] == 0
        assert conversation(conn) == ["P", "S", "w"]
    apply(conn, worker)
    elapse(conn, 1_801)
    assert tick(worker)["sent"] == 0, "the warning is due again, and not repeated"
    elapse(conn, 301)
    tick(worker)
    assert conversation(conn) == ["P", "S", "w"]
    assert status(conn) == ("active", None), "of player 30, who waits"
    assert conn.execute("select closed_by from gre_chat_sessions where player_id = 29").fetchone() == {
        "closed_by": "idle"
    }


def test_a_timer_is_late_by_what_its_rule_says_when_it_fires(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting", "Soon", wait="5 minutes")
    say(conn)
    conn.execute("update gre_auto_replies set wait = '1 hour'")
    elapse(conn, 3_660)  # the timer was due 56 minutes ago, the message a minute ago
    assert tick(worker) == IDLE | {"handled": 1, "sent": 1}


def test_a_change_of_the_settings_is_applied_to_1200_sessions_in_parts(conn: Conn, worker: Conn) -> None:
    conn.execute("insert into gre_chat_messages (player_id, sender, message)"
                 " select 1000 + g, 'staff', 'x' from generate_series(1, 1200) g")  # fmt: skip
    change(conn, idle_close_after=timedelta(minutes=5))
    assert timers(conn) == []
    apply(conn, worker)
    assert len(timers(conn)) == 1_200


def test_closing_counts_the_load_of_staff_who_have_the_sessions(conn: Conn, worker: Conn) -> None:
    settings(conn, idle_close_after=timedelta(minutes=5))
    for number in range(40, 60):
        say(conn, number)
        say(conn, number, "staff")
    conn.execute("update gre_chat_sessions set assigned_staff_id = 's' || (1 + player_id % 2)")
    elapse(conn, 301)
    assert tick(worker, limit=20)["closed"] == 20
    rows = conn.execute("select open_sessions as n from gre_staff_load").fetchall()
    assert [row["n"] for row in rows] == [0, 0]


# Workers


def test_due_timers_of_locked_sessions_are_left_and_the_others_fire(
    db: Database, conn: Conn, worker: Conn
) -> None:
    rule(conn, "waiting", "Soon")
    for number in (29, 30, 31):
        say(conn, number)
    elapse(conn, 301)
    with db.connect() as holder, holder.transaction():
        holder.execute("select from gre_chat_sessions where player_id = 30 for update")
        found = tick(worker)
        assert (found["handled"], found["sent"]) == (2, 2)
        assert found["next_in"] <= 0
    assert tick(worker) == IDLE | {"handled": 1, "sent": 1}


def test_a_timer_that_fails_is_dropped_and_ends_nothing(conn: Conn, worker: Conn) -> None:
    rule(conn, "waiting", "Soon")
    say(conn)
    say(conn, 30)
    conn.execute(
        "create function no() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$"
    )
    conn.execute("create trigger no before insert on gre_chat_messages for each row"
                 " when (new.origin = 'auto' and new.player_id = 29) execute function no()")  # fmt: skip
    elapse(conn, 301)
    assert tick(worker) == IDLE | {"handled": 2, "sent": 1, "failed": 1}
    assert (conversation(conn), conversation(conn, 30)) == (["P"], ["P", "Soon"])


REFUSE: LiteralString = (
    "create function no() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$"
)


def test_a_session_is_closed_though_its_text_fails(conn: Conn, worker: Conn) -> None:
    settings(conn, idle_close_after=timedelta(minutes=5))
    rule(conn, "idle_close", "Bye")
    say(conn)
    say(conn, sender="staff")
    conn.execute(REFUSE)
    conn.execute(
        "create trigger no before insert on gre_chat_messages for each row when (new.origin = 'auto') execute function no()"
    )
    elapse(conn, 301)
    assert tick(worker) == IDLE | {"handled": 1, "failed": 1, "closed": 1}
    assert (status(conn), conversation(conn)) == (("closed", "idle"), ["P", "S"])


def test_a_closing_that_fails_is_tried_again(conn: Conn, worker: Conn) -> None:
    settings(conn, idle_close_after=timedelta(minutes=5))
    say(conn)
    say(conn, sender="staff")
    conn.execute(REFUSE)
    conn.execute(
        "create trigger no before update of status on gre_chat_sessions for each row execute function no()"
    )
    elapse(conn, 301)
    assert tick(worker) == IDLE | {"handled": 1, "failed": 1, "next_in": pytest.approx(3_600, abs=60)}
    conn.execute("drop trigger no on gre_chat_sessions")
    elapse(conn, 3_601)
    assert tick(worker)["closed"] == 1


def test_a_greeting_that_fails_leaves_the_timers_of_other_rules(conn: Conn, worker: Conn) -> None:
    rule(conn, "opened", "Hello")
    rule(conn, "waiting", "Soon")
    conn.execute(REFUSE)
    conn.execute("create trigger no before insert on gre_chat_messages for each row"
                 " when (new.message = 'Hello') execute function no()")  # fmt: skip
    say(conn)
    assert timers(conn) == [("waiting", 1)]
    elapse(conn, 301)
    assert tick(worker)["sent"] == 1
    assert conversation(conn) == ["P", "Soon"]


@pytest.mark.parametrize("limit", [-5, 0, 1, 7, 10**9])
def test_the_limit_bounds_a_call_and_loses_nothing(conn: Conn, worker: Conn, limit: int) -> None:
    rule(conn, "waiting", "a")
    rule(conn, "waiting", "b", wait=timedelta(minutes=4))
    for number in range(40, 49):
        say(conn, number)
    elapse(conn, 301)
    calls, sent_now = 0, 0
    while (found := tick(worker, limit=min(limit, 2**31 - 1)))["handled"]:
        calls += 1
        sent_now += found["sent"]
        assert found["sent"] <= 2 * max(limit, 1)
    assert sent_now == 18
    assert calls >= 9 / max(limit, 1)
    for number in range(40, 49):
        assert sorted(conversation(conn, number)) == ["P", "a", "b"]


def test_only_workers_tick(db: Database, worker: Conn) -> None:
    for caller in (ADMIN, staff(), player(29)):
        with Rest(db, caller) as rest, pytest.raises(RefusalError, match=r"42501|service_only"):
            rest.call("gre_tick_v1")
    with request(worker, SERVICE) as found:
        assert found.execute("select gre_tick_v1() as r").fetchone() is not None
    with request(worker, WORKER) as found:
        assert found.execute("select gre_tick_v1(null, null) as r").fetchone() is not None


@pytest.mark.past_triggers("100,000 sessions without events")
def test_a_call_reads_what_is_due_of_100000_timers_before_any_analyze(db: Database) -> None:
    with db.connect("supabase_admin") as admin:
        admin.execute("alter table gre_timers set (autovacuum_enabled = false)")
        admin.execute("alter table gre_chat_sessions set (autovacuum_enabled = false)")
        admin.execute("set session_replication_role = replica")
        admin.execute(
            "insert into gre_chat_sessions (id, player_id) select md5(g::text)::uuid, g from generate_series(1, 100000) g"
        )
        admin.execute(
            "insert into gre_timers (session_id, kind, due_at, seq)"
            " select md5(g::text)::uuid, 'idle_close', now() + (g - 10) * interval '1 second', 0 from generate_series(1, 100000) g"
        )

    def read(conn: Conn) -> int:
        conn.execute("select pg_stat_force_next_flush()")
        conn.execute("select pg_stat_clear_snapshot()")
        row = conn.execute(
            "select sum(coalesce(i.n, 0) + t.seq_tup_read)::integer as n from pg_stat_user_tables t"
            " left join (select relid, sum(idx_tup_read) as n from pg_stat_user_indexes group by 1) i using (relid)"
            " where t.relname in ('gre_timers', 'gre_chat_sessions')"
        ).fetchone()
        assert row is not None
        found: int = row["n"]
        return found

    with db.connect() as conn:
        before = read(conn)
        handled = 0
        for _ in range(8):  # also once the plans are cached
            row = conn.execute("select gre_tick_v1() as found").fetchone()
            assert row is not None
            handled += row["found"]["handled"]
        assert handled >= 10
        assert read(conn) - before < 1_000

"""Figures: cycles, questions and volumes that triggers write, and the check that computes them again."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.support.report_check import check_figures

Conn = psycopg.Connection[dict[str, Any]]
Row = dict[str, Any]


def rows(conn: Conn, query: str, *values: Any) -> list[Row]:
    """All rows of a query."""
    return conn.execute(query.encode(), values).fetchall()


def one(conn: Conn, query: str, *values: Any) -> Row:
    """The row of a query that gives one."""
    (row,) = rows(conn, query, *values)
    return row


def send(conn: Conn, *senders: str, player: int = 1, staff: str = "s1") -> None:
    """Insert messages of these senders in one statement."""
    conn.execute(
        "insert into gre_chat_messages (player_id, sender, sender_id, message)"
        " select %s, s, case s when 'staff' then %s end, s || n from unnest(%s::text[]) with ordinality x (s, n)",
        [player, staff, list(senders)],
    )


def turn(conn: Conn, *senders: str, **named: Any) -> None:
    """Insert messages of these senders, each in a statement of its own."""
    for sender in senders:
        send(conn, sender, **named)


def close(conn: Conn, by: str | None = None, player: int = 1) -> None:
    """Close the player's open session."""
    conn.execute(
        "update gre_chat_sessions set status = 'closed', closed_by = %s where player_id = %s and status <> 'closed'",
        [by, player],
    )


def reopen(conn: Conn, player: int = 1) -> None:
    """Reopen the player's session."""
    conn.execute("update gre_chat_sessions set status = 'active' where player_id = %s", [player])


def questions(conn: Conn) -> list[tuple[Any, ...]]:
    """All questions: cycle, n, first, asked_seq, ended, answered_seq, staff_id."""
    found = rows(
        conn,
        "select cycle, n, first, asked_seq, ended, answered_seq, staff_id from gre_chat_responses order by asked_at",
    )
    return [tuple(row.values()) for row in found]


def cycles(conn: Conn) -> list[tuple[Any, ...]]:
    """All cycles: cycle, asked, answered by staff, closed_by, missed, dropped, whether there is a time to close."""
    found = rows(
        conn,
        "select cycle, asked_at is not null, staff_at is not null as s, closed_by, missed, dropped,"
        " close_seconds is not null as c from gre_chat_cycles order by opened_at, cycle",
    )
    return [tuple(row.values()) for row in found]


MANY = pytest.mark.parametrize("insert", [turn, send], ids=["message by message", "in one statement"])


@MANY
def test_a_question_begins_with_the_first_unanswered_message_and_ends_with_the_next_of_staff(
    db: Database, insert: Any
) -> None:
    with db.connect() as conn:
        insert(conn, "player", "player", "system", "staff", "staff", "system", "player", "staff", "player")
        assert questions(conn) == [
            (1, 1, True, 1, "answered", 4, "s1"),
            (1, 2, False, 7, "answered", 8, "s1"),
            (1, 3, False, 9, None, None, None),
        ]
        assert cycles(conn) == [(1, True, True, None, None, None, False)]
        insert(conn, "player", "staff", staff="s2")
        assert questions(conn)[2:] == [(1, 3, False, 9, "answered", 11, "s2")]
        insert(conn, "player")
        insert(conn, "staff", "player", "staff", "player")
        assert [row[:2] + row[3:6] for row in questions(conn)[3:]] == [
            (1, 4, 12, "answered", 13),
            (1, 5, 14, "answered", 15),
            (1, 6, 16, None, None),
        ]
        insert(conn, "staff")
        for row in rows(conn, "select * from gre_chat_responses"):
            waited = (row["answered_at"] - row["asked_at"]).total_seconds()
            assert row["ended_at"] == row["answered_at"]
            assert row["wait_seconds"] == row["open_seconds"] == int(waited)
            assert row["due_at"] is None
        assert check_figures(conn) == 1


@MANY
def test_an_answer_and_the_next_question_can_come_in_one_statement(db: Database, insert: Any) -> None:
    """A session has one open question at a time: the answer is written before the question after it."""
    with db.connect() as conn:
        insert(conn, "player")
        insert(conn, "staff", "player", staff="")
        insert(conn, "system", "staff", "player", "staff", "player")
        assert questions(conn) == [
            (1, 1, True, 1, "answered", 2, None),
            (1, 2, False, 3, "answered", 5, "s1"),
            (1, 3, False, 6, "answered", 7, "s1"),
            (1, 4, False, 8, None, None, None),
        ]
        assert check_figures(conn) == 1


@MANY
def test_a_cycle_that_staff_begin_has_no_first_question(db: Database, insert: Any) -> None:
    with db.connect() as conn:
        insert(conn, "staff", "system", "player", "staff")
        assert questions(conn) == [(1, 1, False, 3, "answered", 4, "s1")]
        check_figures(conn)


@MANY
def test_a_thousand_messages_of_the_system_change_nothing_but_their_number(db: Database, insert: Any) -> None:
    with db.connect() as conn:
        conn.execute("insert into gre_chat_sessions (player_id) values (1)")
        conn.execute("update gre_relay_sinks set enabled = false")
        insert(conn, *["system"] * 100)
        assert (questions(conn), cycles(conn)) == ([], [(1, False, False, None, None, None, False)])
        insert(conn, "player", *["system"] * 900, "staff")
        assert questions(conn) == [(1, 1, True, 101, "answered", 1002, "s1")]
        volume = rows(
            conn,
            "select sender, staff_id, sum(messages)::int as n from gre_chat_activity group by 1, 2 order by 1",
        )
        assert [tuple(row.values()) for row in volume] == [
            ("player", "", 1),
            ("staff", "s1", 1),
            ("system", "", 1000),
        ]
        check_figures(conn)


def test_a_closing_ends_the_question_and_decides_what_became_of_the_cycle(db: Database) -> None:
    with db.connect() as conn:
        turn(conn, "player")
        close(conn)  # missed
        reopen(conn)
        turn(conn, "player", "staff", "player")
        close(conn)  # dropped
        reopen(conn)
        turn(conn, "staff", "player")
        close(conn)  # staff wrote, but answered nothing
        reopen(conn)
        turn(conn, "player", "staff", "staff")
        close(conn, "idle")  # answered
        reopen(conn)
        close(conn, "player")
        assert cycles(conn) == [
            (1, True, False, "system", True, False, True),
            (2, True, True, "system", False, True, True),
            (3, True, True, "system", True, False, True),
            (4, True, True, "idle", False, False, False),
            (5, False, False, "player", False, False, False),
        ]
        ended = [row[:3] + row[4:5] for row in questions(conn)]
        assert ended == [
            (1, 1, True, "closed"),
            (2, 1, True, "answered"),
            (2, 2, False, "closed"),
            (3, 1, False, "closed"),
            (4, 1, True, "answered"),
        ]
        assert (
            rows(
                conn,
                "select from gre_chat_responses where (ended = 'answered') <> (wait_seconds is not null)",
            )
            == []
        )
        check_figures(conn)


def test_an_update_that_also_assigns_counts_for_the_new_person(db: Database) -> None:
    with db.connect() as conn:
        turn(conn, "player")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
        conn.execute("update gre_chat_sessions set status = 'closed', assigned_staff_id = 's2'")
        conn.execute("update gre_chat_sessions set status = 'active', assigned_staff_id = 's3'")
        conn.execute("update gre_chat_sessions set status = 'closed', assigned_staff_id = null")
        found = rows(conn, "select opened_staff_id, closed_staff_id from gre_chat_cycles order by cycle")
        assert [tuple(row.values()) for row in found] == [(None, "s2"), ("s3", None)]
        check_figures(conn)


@MANY
def test_a_question_that_a_closing_without_triggers_left_open_disturbs_no_later_cycle(
    db: Database, insert: Any
) -> None:
    with db.connect("supabase_admin") as conn:
        turn(conn, "player")
        conn.execute("set session_replication_role = replica")
        close(conn)
        conn.execute("set session_replication_role = origin")
        reopen(conn)
        insert(conn, "player", "staff", "player")
        assert questions(conn) == [
            (1, 1, True, 1, None, None, None),
            (2, 1, True, 2, "answered", 3, "s1"),
            (2, 2, False, 4, None, None, None),
        ]
        close(conn)
        assert {row[4] for row in questions(conn)} == {"answered", "closed"}
        conn.execute("delete from gre_chat_sessions")  # the check says what was missed


@pytest.mark.parametrize("hours", [None, "desk"])
@pytest.mark.parametrize("since", ["-infinity", "0001-01-01", "1900-01-01"])
def test_a_session_that_was_adopted_with_an_ancient_time_can_be_closed(
    db: Database, since: str, hours: str | None
) -> None:
    """Adopted sessions keep their times, whatever a portal wrote there."""
    with db.connect() as conn:
        conn.execute("set statement_timeout = '20s'")
        conn.execute("insert into gre_hours (name, timezone) values ('desk', 'UTC')")
        conn.execute("update gre_chat_settings set hours = %s", [hours])
        turn(conn, "player")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
        conn.execute("update gre_chat_assignments set started_at = %s", [since])
        close(conn)
        found = one(conn, "select open_seconds from gre_chat_assignments")
        assert found["open_seconds"] == (1000 * 86400 if hours else 2**31 - 1)


def test_a_session_that_is_inserted_closed_is_a_cycle_that_is_closed(db: Database) -> None:
    with db.connect() as conn:
        conn.execute(
            "insert into gre_chat_sessions (player_id, status, closed_by, assigned_staff_id) values (1, 'closed', 'idle', 's1')"
        )
        row = one(conn, "select * from gre_chat_cycles")
        assert row["opened_at"] == row["closed_at"]
        assert (row["closed_by"], row["closed_staff_id"], row["opened_staff_id"]) == ("idle", "s1", "s1")
        assert (row["missed"], row["dropped"], row["rating_asked"]) == (False, False, False)
        reopen(conn)
        turn(conn, "player")
        close(conn)
        assert [row[:2] + row[4:5] for row in cycles(conn)] == [(1, False, False), (2, True, True)]
        check_figures(conn)


def test_a_repeat_is_not_counted_twice(db: Database) -> None:
    with db.connect() as conn:
        for _ in range(2):
            conn.execute(
                "insert into gre_chat_messages (id, player_id, sender, message) values"
                " ('00000000-0000-0000-0000-000000000001', 1, 'player', 'a'), ('00000000-0000-0000-0000-000000000002', 1, 'player', 'b')"
                " on conflict (id) do nothing"
            )
        assert one(conn, "select messages from gre_chat_activity")["messages"] == 2
        assert len(questions(conn)) == 1
        check_figures(conn)


def test_a_bulk_of_many_sessions_and_turns_is_counted_as_message_by_message(db: Database) -> None:
    senders = ["player", "staff", "system", "player", "player", "staff", "staff", "player"]
    with db.connect() as conn:
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, sender_id, message)"
            " select p, s, case s when 'staff' then 's' || p %% 3 end, 'm' from unnest(%s::text[]) with ordinality x (s, n)"
            " cross join generate_series(1, 200) p order by n, p",
            [senders],
        )
        turn(conn, *senders, player=201)
        shapes = rows(
            conn,
            "select count(*) as n, shape from (select session_id, array_agg((n, first, asked_seq, ended, answered_seq)::text order by n)"
            " as shape from gre_chat_responses group by 1) x group by 2",
        )
        assert [row["n"] for row in shapes] == [201]
        assert check_figures(conn) == 201


def test_messages_belong_to_the_cycle_in_which_they_were_written_within_a_transaction_too(
    db: Database,
) -> None:
    with db.connect() as conn:
        with conn.transaction():
            turn(conn, "player", "staff", "player")
            close(conn)
            reopen(conn)
            turn(conn, "player")
            send(conn, "staff", "player", "staff")
            close(conn)
            reopen(conn)
            turn(conn, "staff")
        assert [row[:2] + row[3:6] for row in questions(conn)] == [
            (1, 1, 1, "answered", 2),
            (1, 2, 3, "closed", None),
            (2, 1, 4, "answered", 5),
            (2, 2, 6, "answered", 7),
        ]
        check_figures(conn)
    with db.connect() as conn:  # one statement inserts and closes
        conn.execute(
            "with sent as (insert into gre_chat_messages (player_id, sender, message)"
            " values (1, 'player', 'a'), (1, 'player', 'b') returning session_id)"
            " update gre_chat_sessions set status = 'closed' where id in (select session_id from sent)"
        )
        assert cycles(conn)[-1][4:6] == (True, False)
        check_figures(conn)


def test_what_was_written_without_triggers_is_not_counted_and_the_check_says_so(db: Database) -> None:
    with db.connect() as conn, db.connect("supabase_admin") as admin:
        turn(conn, "player")
        admin.execute("set session_replication_role = replica")
        admin.execute(
            "insert into gre_chat_messages (session_id, seq, player_id, sender, message)"
            " select id, 2, 1, 'staff', 'quietly' from gre_chat_sessions"
        )
        check = "select gre_report_check(now() - interval '1 hour', now() + interval '1 hour') as r"
        assert one(conn, check)["r"] == {"checked": 0, "incomplete": 1, "differences": [], "next": None}
        admin.execute("update gre_chat_sessions set last_seq = 2")
        found = one(conn, check)["r"]
        assert (found["checked"], found["incomplete"], len(found["differences"])) == (1, 0, 3)
        assert {(x["cycle"], x["what"].split()[-1]) for x in found["differences"]} == {
            (1, "cycle"),
            (1, "1"),
            (None, "staff"),
        }
        admin.execute("delete from gre_chat_messages where seq = 2")
        admin.execute("update gre_chat_sessions set last_seq = 1")


def test_durations_in_opening_hours_are_those_of_the_hours_at_the_end(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("insert into gre_hours (name, timezone) values ('desk', 'UTC')")
        conn.execute(
            "insert into gre_hours_week (hours, valid_from, weekday) select 'desk', current_date, d from generate_series(1, 7) d"
        )
        turn(conn, "player")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
        conn.execute(
            "update gre_chat_responses set asked_at = asked_at - interval '3 days';"
            "update gre_chat_cycles set asked_at = asked_at - interval '3 days';"
            "update gre_chat_assignments set started_at = started_at - interval '3 days';"
            "update gre_chat_settings set hours = 'desk'"
        )
        turn(conn, "staff")
        close(conn)
        # Closed all day since today, always open before: what passed today is not counted.
        today = one(conn, "select extract(epoch from now() - date_trunc('day', now(), 'UTC'))::int as s")["s"]
        question = one(conn, "select wait_seconds, open_seconds from gre_chat_responses")
        assert question["wait_seconds"] == pytest.approx(3 * 86400, abs=60)
        assert question["open_seconds"] == pytest.approx(3 * 86400 - today, abs=60)
        cycle = one(conn, "select close_seconds, close_open_seconds from gre_chat_cycles")
        assert cycle["close_seconds"] == pytest.approx(3 * 86400, abs=60)
        assert cycle["close_open_seconds"] == pytest.approx(3 * 86400 - today, abs=60)
        assert one(conn, "select open_seconds from gre_chat_assignments")["open_seconds"] == pytest.approx(
            3 * 86400 - today, abs=60
        )
        conn.execute("update gre.settings set whole_from = whole_from - interval '4 days'")
        conn.execute("alter table gre_chat_messages disable trigger gre_before_update")
        conn.execute("update gre_chat_messages set created_at = created_at - interval '3 days' where seq = 1")
        conn.execute(
            "update gre_chat_activity set quarter = quarter - interval '3 days' where sender = 'player'"
        )
        check_figures(conn)


@MANY
def test_a_question_is_due_after_the_goal_of_its_kind_at_the_time_of_asking(
    db: Database, insert: Any
) -> None:
    with db.connect() as conn:
        conn.execute("update gre_chat_settings set first_reply_goal = '1 minute', reply_goal = '5 minutes'")
        insert(conn, "player", "staff", "player", "staff")
        conn.execute("update gre_chat_settings set first_reply_goal = null, reply_goal = null")
        insert(conn, "player", "staff")
        found = rows(
            conn, "select extract(epoch from due_at - asked_at)::int as s from gre_chat_responses order by n"
        )
        assert [row["s"] for row in found] == [60, 300, None]


@pytest.mark.parametrize(("days", "counted"), [(366, 366), (36_600, 1000)])
def test_open_hours_of_a_long_wait_are_counted_in_no_time(db: Database, days: int, counted: int) -> None:
    with db.connect() as conn:
        conn.execute("insert into gre_hours (name, timezone) values ('desk', 'Europe/Malta')")
        conn.execute("update gre_chat_settings set hours = 'desk'")
        conn.execute("set statement_timeout = '5s'")
        wait = "select gre.desk_seconds(now() - %s * interval '24 hours', now()) as s"
        assert one(conn, wait, days)["s"] == counted * 86400


def test_figures_of_a_deleted_session_are_kept_and_lead_nowhere(db: Database) -> None:
    with db.connect() as conn:
        turn(conn, "player", "staff", "player")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
        (session,) = rows(conn, "select id from gre_chat_sessions")
        conn.execute(
            "insert into gre_chat_ratings (session_id, cycle, score, comment, rated_at) values (%s, 1, 5, 'by me', now())",
            [session["id"]],
        )
        tables = ["cycles", "responses", "activity", "ratings", "assignments", "events"]
        before = {t: len(rows(conn, f"select from gre_chat_{t}")) for t in tables}
        conn.execute("delete from gre_chat_messages")
        conn.execute("delete from gre_chat_sessions")
        after = {t: len(rows(conn, f"select from gre_chat_{t}")) for t in tables}
        assert after == before | {"events": before["events"] + 1}
        kept = {row["id"] for t in tables for row in rows(conn, f"select session_id as id from gre_chat_{t}")}
        assert len(kept) == 1
        assert session["id"] not in kept
        assert one(conn, "select comment from gre_chat_ratings")["comment"] is None
        ended = one(
            conn, "select end_how, ended_at is not null as ended, open_seconds from gre_chat_assignments"
        )
        assert tuple(ended.values()) == ("deleted", True, 0)
        assert (
            one(conn, "select open_sessions from gre_staff_load where staff_id = 's1'")["open_sessions"] == 0
        )


def test_a_player_is_one_number_until_it_is_erased_and_another_afterwards(db: Database) -> None:
    keys = "select distinct player_key as k from (select player_key, opened_at from gre_chat_cycles union all select player_key, quarter from gre_chat_activity) x"
    with db.connect() as conn:
        turn(conn, "player")
        close(conn)
        turn(conn, "player")
        conn.execute("delete from gre_chat_sessions where status = 'closed'")
        (old,) = rows(conn, keys)
        assert rows(conn, "select player_key from gre.report_players") == [{"player_key": old["k"]}]
        conn.execute("select gre_erase_player(1)")
        assert rows(conn, "select from gre.report_players") == []
        assert rows(conn, keys) == [old]
        turn(conn, "player")
        assert len(rows(conn, keys)) == 2
        check_figures(conn)


def test_an_emptied_table_of_sessions_leaves_figures_without_comments_and_no_assignment_open(
    db: Database,
) -> None:
    with db.connect() as conn:
        turn(conn, "player", "staff")
        conn.execute("update gre_chat_sessions set assigned_staff_id = 's1'")
        conn.execute(
            "insert into gre_chat_ratings (session_id, cycle, score, comment, rated_at) select id, 1, 5, 'by me', now() from gre_chat_sessions"
        )
        conn.execute("truncate gre_chat_sessions cascade")
        assert one(conn, "select comment from gre_chat_ratings")["comment"] is None
        assert one(conn, "select end_how from gre_chat_assignments")["end_how"] == "deleted"
        assert len(questions(conn)) == 1
        turn(conn, "player")
        check_figures(conn)

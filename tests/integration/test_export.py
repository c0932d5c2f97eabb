"""gre_export: every row once, in the order of time, in pages of bounded size, for admins and back ends only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, NOBODY, SERVICE, WORKER, Conn, RefusalError, Rest, player, staff
from tests.support.desk import people, waiting

TABLES = {
    "sessions": ("gre_chat_cycles", "opened_at", ("session_id", "cycle")),
    "messages": ("gre_chat_messages", "created_at", ("id",)),
    "responses": ("gre_chat_responses", "asked_at", ("session_id", "cycle", "n")),
    "events": ("gre_chat_events", "at", ("session_id", "rev")),
    "ratings": ("gre_chat_ratings", "rated_at", ("session_id", "cycle")),
    "assignments": ("gre_chat_assignments", "started_at", ("session_id", "n")),
}
"""Of each list its table, the column of its time, and what orders the rows of one time."""
FILL = """
set session_replication_role = replica;
insert into gre_chat_sessions (id, player_id, player_name, status, assigned_staff_id, last_seq)
  select md5('s' || n)::uuid, n, 'Player ' || n, 'closed', 's1', 3 from generate_series(1, 40) n;
insert into gre_chat_cycles (session_id, cycle, player_key, opened_at, missed, dropped)
  select md5('s' || n)::uuid, c, n, t, false, false
  from generate_series(1, 40) n, generate_series(1, 2) c, lateral (select timestamptz '2026-11-01 UTC' + n / 20 * interval '1 hour' as t) t;
insert into gre_chat_responses (session_id, cycle, n, first, asked_seq, asked_at, ended)
  select session_id, cycle, n, n = 1, n, opened_at, 'closed' from gre_chat_cycles, generate_series(1, 2) n;
insert into gre_chat_ratings (session_id, cycle, score, comment, staff_id, rated_at)
  select session_id, cycle, 5, 'Good', 's1', opened_at from gre_chat_cycles;
insert into gre_chat_messages (session_id, seq, player_id, sender, message, created_at)
  select session_id, cycle * 10 + n, player_key, 'player', 'Text', opened_at from gre_chat_cycles, generate_series(1, 2) n;
insert into gre_chat_events (session_id, rev, at, after_seq, kind)
  select session_id, cycle, opened_at, 1, 'opened' from gre_chat_cycles;
insert into gre_chat_assignments (session_id, n, staff_id, how, after_seq, started_at)
  select session_id, 1, 's1', 'taken', 1, opened_at from gre_chat_cycles where cycle = 1;
set session_replication_role = origin;
"""


@pytest.fixture
def conn(db: Database) -> Iterator[Conn]:
    with db.connect() as found:
        people(found, 1)
        found.execute("insert into gre_staff (staff_id, role) values ('a1', 'admin')")
        yield found


@pytest.fixture
def filled(db: Database) -> Database:
    """Many rows of one time: pages end between them."""
    with db.connect("supabase_admin") as admin:
        admin.execute(FILL, prepare=False)
    return db


def pages(rest: Rest, what: str, **arguments: Any) -> Iterator[list[dict[str, Any]]]:
    cursor = None
    while True:
        page = rest.call("gre_export", what=what, cursor=cursor, **arguments)
        yield page["rows"]
        cursor = page["next"]
        if cursor is None:
            return


@pytest.mark.parametrize("what", TABLES)
def test_every_row_comes_once_in_the_order_of_time(filled: Database, what: str) -> None:
    table, time, keys = TABLES[what]
    with filled.connect() as conn, Rest(filled, ADMIN) as admin:
        order = ", ".join((time, *keys))
        stored = conn.execute(f"select * from {table} order by {order}".encode()).fetchall()
        assert len(stored) >= 40
        found = [row for page in pages(admin, what, limit=7) for row in page]
        assert [tuple(row[key] for key in keys) for row in found] == [
            tuple(str(row[key]) if key in ("session_id", "id") else row[key] for key in keys)
            for row in stored
        ]
        assert [datetime.fromisoformat(row[time]) for row in found] == [row[time] for row in stored]
        whole = admin.call("gre_export", what=what)
        assert whole == {"rows": found, "next": None}
        # [from, to)
        late = datetime(2026, 11, 1, 1, tzinfo=UTC)
        parts = [
            [row for page in pages(admin, what, limit=7, **part) for row in page]
            for part in (
                {"to": late}, {"from": late, "to": late + timedelta(hours=1)}, {"from": late + timedelta(hours=1)},
            )
        ]  # fmt: skip
        assert all(parts)
        assert [row for part in parts for row in part] == found


def test_a_page_has_at_most_one_megabyte_and_a_thousand_rows(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    conn.execute(
        "insert into gre_chat_messages (session_id, player_id, sender, message)"
        " select %s, 29, 'player', 'x' || repeat(chr(1), 3999) from generate_series(1, 120)",
        [session],
    )
    conn.execute(
        "insert into gre_chat_messages (session_id, player_id, sender, message)"
        " select %s, 29, 'player', 'Short' from generate_series(1, 1500)",
        [session],
    )
    with Rest(db, SERVICE) as service:
        found = list(pages(service, "messages", limit=5000))
    assert sum(map(len, found)) == 1621
    assert len(found) >= 5
    assert max(map(len, found)) == 1000


def test_what_is_written_is_exported(db: Database, conn: Conn) -> None:
    (session,) = waiting(conn, 29)
    with Rest(db, staff("s1")) as one:
        one.call("gre_take_session", session_id=session)
        one.call("gre_staff_reply", session_id=session, message="It is, =1+1")
        one.call("gre_set_session_status", session_id=session, status="closed")
    with Rest(db, ADMIN) as admin:
        lists = {what: admin.call("gre_export", what=what)["rows"] for what in TABLES}
    asked, answered = lists["messages"]
    assert (answered["message"], answered["sender"], answered["sender_id"]) == ("It is, =1+1", "staff", "s1")
    assert [event["kind"] for event in lists["events"]] == ["opened", "assigned", "closed"]
    (cycle,) = lists["sessions"]
    assert (cycle["player_id"], cycle["status"], cycle["closed_by"]) == (29, "closed", "staff")
    assert (cycle["asked_at"], cycle["staff_at"]) == (asked["created_at"], answered["created_at"])
    (question,) = lists["responses"]
    assert (question["asked_at"], question["answered_at"]) == (asked["created_at"], answered["created_at"])
    (assignment,) = lists["assignments"]
    assert (assignment["staff_id"], assignment["end_how"]) == ("s1", "closed")
    # The figures stay, and no longer lead to the player.
    conn.execute("delete from gre_chat_sessions")
    with Rest(db, ADMIN) as admin:
        (after,) = admin.call("gre_export", what="sessions")["rows"]
        assert admin.call("gre_export", what="messages") == {"rows": [], "next": None}
    gone = dict.fromkeys(("player_id", "player_name", "status", "assigned_staff_id"))
    assert after == cycle | gone | {"session_id": after["session_id"]}
    assert after["session_id"] != cycle["session_id"]


@pytest.mark.parametrize("caller", [NOBODY, WORKER, staff("s1"), player(29)])
def test_only_admins_and_back_ends_export(db: Database, conn: Conn, caller: Any) -> None:
    with Rest(db, caller) as rest, pytest.raises(RefusalError) as refused:
        rest.call("gre_export", what="nonsense")
    assert refused.value.code in ("42501", "admin_only")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"what": "secrets"}, "export_unknown"),
        ({"what": None}, "export_unknown"),
        ({"from": datetime(2026, 1, 1, tzinfo=UTC), "to": datetime(2026, 1, 1, tzinfo=UTC)}, "range_invalid"),
        ({"cursor": "x"}, "cursor_invalid"),
        ({"cursor": "1_00000000-0000-0000-0000-000000000000"}, "cursor_invalid"),
        ({"cursor": "1_" + "x" * 36 + "_1_1"}, "cursor_invalid"),
    ],
)
def test_refusals(db: Database, conn: Conn, arguments: dict[str, Any], code: str) -> None:
    with Rest(db, ADMIN) as admin, pytest.raises(RefusalError) as refused:
        admin.call("gre_export", **({"what": "messages"} | arguments))
    assert refused.value.code == code

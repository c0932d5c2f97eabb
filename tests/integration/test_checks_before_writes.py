"""The order of checks on an incoming row: first the caller, then the lengths, and only then the tables.

Row-level security is checked after the BEFORE triggers. A caller that it refuses must not have taken a lock, written a row
or learned anything by then.
"""

from __future__ import annotations

import uuid
from typing import Any, LiteralString

import psycopg
import pytest

from tests.conftest import Database
from tests.support.access import ADMIN, Caller, RefusalError, Rest, player, staff, user
from tests.support.counters import count_now

NOBODY_HERE = Caller({"role": "authenticated", "sub": str(uuid.uuid4())})
MESSAGE: LiteralString = "insert into gre_chat_messages (player_id, sender, message) values (30, %s, 'x')"
REFUSED: dict[str, tuple[Caller, LiteralString, list[Any]]] = {
    "nobody, as a player": (NOBODY_HERE, MESSAGE, ["player"]),
    "nobody, as staff": (NOBODY_HERE, MESSAGE, ["staff"]),
    "nobody, as a robot": (NOBODY_HERE, MESSAGE, ["robot"]),
    "nobody, without a player": (NOBODY_HERE, "insert into gre_chat_messages (session_id, sender, message) values (%s, 'player', 'x')", ["session"]),
    "former staff": (staff("gone"), MESSAGE, ["staff"]),
    "another player": (player(29), MESSAGE, ["player"]),
    "another player, as staff": (player(29), MESSAGE, ["staff"]),
    "another player, into the session": (player(29), "insert into gre_chat_messages (session_id, player_id, sender, message) values (%s, 30, 'player', 'x')", ["session"]),
    "its player, as staff": (player(30), MESSAGE, ["gre"]),
    "its player, as the system": (player(30), MESSAGE, ["system"]),
    "staff, as the player": (staff(), MESSAGE, ["player"]),
    "an admin, as the system": (ADMIN, MESSAGE, ["system"]),
    "nobody, a session": (NOBODY_HERE, "insert into gre_chat_sessions (player_id) values (30)", []),
    "another player, a session": (player(29), "insert into gre_chat_sessions (player_id) values (30)", []),
    "its player, an assigned session": (player(30), "insert into gre_chat_sessions (player_id, assigned_staff_id) values (30, 's1')", []),
    "nobody, a presence": (NOBODY_HERE, "insert into gre_online_status (staff_id, status) values ('s1', 'online')", []),
    "a player, a presence": (player(30), "insert into gre_online_status (staff_id, status) values ('s1', 'online')", []),
    "a colleague, a presence": (staff("s2"), "insert into gre_online_status (staff_id, status) values ('s1', 'online') on conflict (staff_id) do update set status = 'offline'", []),
    "staff, a push": (staff(), "insert into push_notifications (audience, title) values ('staff', 'x')", []),
    "nobody, a push": (NOBODY_HERE, "insert into push_notifications (audience, title) values ('staff', 'x')", []),
}  # fmt: skip
TABLES = (
    "gre_chat_messages",
    "gre_chat_sessions",
    "gre_online_status",
    "push_notifications",
    "gre_relay_lanes",
    "gre_relay_deliveries",
)


def fill(db: Database) -> str:
    """Make a project with staff; return the open session of player 30."""
    with db.connect() as conn:
        conn.execute("insert into gre_staff (staff_id, role, active) values ('s1', 'staff', true), ('s2', 'staff', true),"
                     " ('a1', 'admin', true), ('gone', 'staff', false)")  # fmt: skip
        conn.execute("insert into gre_online_status (staff_id, status) values ('s1', 'online')")
        row = conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (30, 'player', 'x') returning session_id::text"
        ).fetchone()
        count_now(conn)
    assert row is not None
    return str(row["session_id"])


@pytest.fixture
def session(db: Database) -> str:
    """The open session of player 30, in a project with staff."""
    return fill(db)


def written(conn: psycopg.Connection[dict[str, Any]]) -> dict[str, Any]:
    """Rows that were ever written, those of failed transactions included, and the last number given to a delivery."""
    count_now(conn)
    conn.execute("select pg_stat_clear_snapshot()")
    found = {
        r["relname"]: (r["n_tup_ins"], r["n_tup_upd"], r["n_tup_del"])
        for r in conn.execute("select * from pg_stat_user_tables where relname = any (%s)", [list(TABLES)])
    }
    row = conn.execute("select last_value from gre.delivery_ord").fetchone()
    assert row is not None
    return {**found, "ord": row["last_value"]}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_row_waits_for_no_lock_and_writes_nothing(db: Database, session: str, name: str) -> None:
    caller, query, given = REFUSED[name]
    values = [session if value == "session" else value for value in given]
    with db.connect() as holder, db.connect() as stats, Rest(db, caller) as rest:
        before = written(stats)
        with holder.transaction(force_rollback=True):
            # To wait for a lock on one of these rows would fail with 55P03, after two seconds.
            for table in TABLES:
                holder.execute(f"select from {table} for update".encode())
            with pytest.raises(
                RefusalError, match=r"42501.*new row violates row-level security policy for table"
            ):
                rest.sql(query, *values)
        count_now(rest.conn)
        assert written(stats) == before


@pytest.mark.parametrize(
    "state",
    ["open", "closed", "none", "disabled", "at its pace", "its session", "no session", "an id that is taken"],
)
@pytest.mark.parametrize("caller", [NOBODY_HERE, player(29)], ids=["nobody", "another player"])
def test_a_refusal_reveals_nothing_about_another_player(
    db: Database, session: str, caller: Caller, state: str
) -> None:
    columns: dict[str, Any] = {"player_id": 30, "sender": "player", "message": "x"}
    with db.connect() as conn:
        row = conn.execute("select id from gre_chat_messages").fetchone()
        assert row is not None
        if state == "closed":
            conn.execute("update gre_chat_sessions set status = 'closed'")
        elif state == "none":
            conn.execute("delete from gre_chat_sessions")
        elif state == "disabled":
            conn.execute("insert into gre_chat_players (player_id, chat_enabled) values (30, false)")
        elif state == "at its pace":
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) select 30, 'player', 'x' from generate_series(1, 120)"
            )
        elif state == "its session":
            columns["session_id"] = session
        elif state == "no session":
            columns["session_id"] = str(uuid.uuid4())
        elif state == "an id that is taken":
            columns["id"] = row["id"]
    with Rest(db, caller) as rest, pytest.raises(RefusalError) as refused:
        names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
        rest.sql(f"insert into gre_chat_messages ({names}) values ({marks})", *columns.values())  # type: ignore[arg-type]
    assert (refused.value.sqlstate, refused.value.message, refused.value.detail) == (
        "42501", 'new row violates row-level security policy for table "gre_chat_messages"', ""
    )  # fmt: skip


@pytest.mark.parametrize("theirs", [True, False], ids=["another's", "none"])
def test_a_session_id_without_rights_reveals_nothing_and_locks_nothing(
    db: Database, session: str, theirs: bool
) -> None:
    name = session if theirs else str(uuid.uuid4())
    with db.connect() as holder, holder.transaction(force_rollback=True), Rest(db, player(29)) as rest:
        holder.execute("select from gre_chat_sessions for update")
        for query in (
            "insert into gre_chat_messages (session_id, sender, message) values (%s, 'player', 'x')",
            "insert into gre_chat_messages (session_id, player_id, sender, message) values (%s, 29, 'player', 'x')",
            "select gre_send_message('x', p_session_id => %s)",
        ):
            with pytest.raises(RefusalError) as refused:
                rest.sql(query, name)  # type: ignore[arg-type]
            assert (refused.value.status, refused.value.code, refused.value.message) == (
                403, "session_mismatch", "session does not belong to this player"
            )  # fmt: skip


def test_a_refused_message_opens_no_session(db: Database, session: str) -> None:
    with db.connect() as conn, Rest(db, player(30)) as a:
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) select 30, 'player', 'x' from generate_series(1, 120)"
        )
        conn.execute("update gre_chat_sessions set status = 'closed'")
        before = written(conn)
        with pytest.raises(RefusalError, match="too_fast"):
            a.sql(MESSAGE, "player")
        count_now(a.conn)
        assert written(conn) == before


def test_a_trigger_of_the_project_may_write_what_the_caller_may_not(db: Database, session: str) -> None:
    """It is security definer, so row-level security does not apply to it."""
    with db.connect() as conn, Rest(db, user("player", player_id=29)) as a:
        conn.execute("create function welcome() returns trigger language plpgsql security definer as $$ begin if new.seq = 1 then"
                     " insert into public.gre_chat_messages (player_id, sender, message) values (new.player_id, 'system', 'Welcome!');"
                     " insert into public.gre_chat_messages (player_id, sender, message) values (30, 'system', 'Somebody is here');"
                     " end if; return null; end $$;"
                     "create trigger welcome after insert on gre_chat_messages for each row when (new.sender = 'player') execute function welcome()")  # fmt: skip
        a.call("gre_send_message", message="hello")
        rows = conn.execute(
            "select player_id, sender, sender_name, seq from gre_chat_messages order by player_id, seq"
        ).fetchall()
    assert [tuple(r.values()) for r in rows] == [
        (29, "player", "Player 29", 1), (29, "system", "System", 2), (30, "player", "Player 30", 1), (30, "system", "System", 2),
    ]  # fmt: skip


def test_the_first_trigger_of_each_table_is_the_check(db: Database) -> None:
    with db.connect() as conn:
        rows = conn.execute(
            'select tgrelid::regclass::text as t, min(tgname::text collate "C") as first from pg_trigger'
            " where not tgisinternal and tgtype & 2 = 2 and tgtype & 4 = 4 group by 1"
        ).fetchall()
    found = {r["t"]: r["first"] for r in rows}
    assert {t for t, first in found.items() if first == "gre_1_check"} == {
        "gre_chat_messages", "gre_chat_sessions", "gre_hours", "gre_hours_dates", "gre_hours_week", "gre_online_status",
        "push_notifications", "storage.objects",
    }  # fmt: skip

"""Adoption of a live project's tables: no row is lost, no old row is enqueued, and old portals continue to write."""

from __future__ import annotations

import time
from itertools import takewhile
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gre_bridge.errors import ConfigurationError, PermanentError
from gre_bridge.migrations.plan import plan
from gre_bridge.migrations.runner import migrate
from tests.conftest import MIGRATIONS, PLAYER, SERVICE, STAFF, Database
from tests.support.access import player, staff
from tests.support.report_check import check_figures
from tests.support.story import check_stories

LAYOUTS = Path(__file__).parent / "layouts"
Row = dict[str, Any]


def lay_out(db: Database, sql: str, user: str = "postgres") -> None:
    """Create the tables of a project from before the adoption."""
    with db.connect(user) as conn, conn.transaction():
        conn.execute(sql.encode())


def layout(name: str) -> str:
    """The SQL of one layout that exists in the field."""
    return (LAYOUTS / f"{name}.sql").read_text()


def adopt(db: Database) -> list[str]:
    """Migrate with a role that is no superuser; return the output."""
    said: list[str] = []
    migrate(db.dsn(), on_progress=said.append)
    return said


def rows(db: Database, query: str) -> list[Row]:
    """All rows of a query, as the migrating role sees them."""
    with db.connect() as conn:
        return conn.execute(query.encode()).fetchall()


def enqueued(db: Database) -> int:
    """Return the number of deliveries and of wake-ups."""
    (row,) = rows(
        db,
        "select (select count(*) from gre_relay_deliveries) + (select count(*) from gre_relay_lanes)"
        " + (select count(*) from realtime.messages) as n",
    )
    return int(row["n"])


def messages(db: Database) -> list[Row]:
    """All messages, by session and order."""
    return rows(db, "select * from gre_chat_messages order by player_id, session_id, seq")


@pytest.mark.parametrize("name", ["documented", "lean", "older"])
def test_every_row_is_kept_in_order_and_none_is_enqueued(supabase_db: Database, name: str) -> None:
    tables = ["gre_chat_sessions", "gre_chat_messages", "gre_online_status", "push_notifications"]
    lay_out(supabase_db, layout(name))
    there = [t["t"] for t in rows(supabase_db, "select relname::text as t from pg_class") if t["t"] in tables]
    kept = "player_id::text, nullif(message, '') as message" if name != "older" else "message, channel"
    before = {t: rows(supabase_db, f"select count(*) as n from {t}")[0]["n"] for t in there}
    texts = rows(supabase_db, f"select {kept} from gre_chat_messages order by 1, 2")

    adopt(supabase_db)

    for table, count in before.items():
        (found,) = rows(supabase_db, f"select count(*) filter (where true) as n from {table}")
        assert found["n"] >= count if table == "gre_chat_sessions" else found["n"] == count
    assert rows(supabase_db, f"select {kept} from gre_chat_messages order by 1, 2") == texts
    assert enqueued(supabase_db) == 0
    history = messages(supabase_db)
    assert {m["sender"] for m in history} <= {"player", "staff", "system"}
    assert {m["status"] for m in history} <= {"sent", "delivered", "read"}
    for session in rows(supabase_db, "select * from gre_chat_sessions"):
        own = [m for m in history if m["session_id"] == session["id"]]
        assert [m["seq"] for m in own] == list(range(1, len(own) + 1))
        assert own == sorted(own, key=lambda m: (m["created_at"], m["id"]))
        assert session["last_seq"] == len(own)
        assert session["last_message_at"] == (own[-1]["created_at"] if own else None)
        assert (session["unread_by_staff"], session["unread_by_player"], session["rev"]) == (0, 0, 1)
        assert (session["closed_at"] is not None) == (session["status"] == "closed")
    left_open = (
        "select player_id from gre_chat_sessions where status <> 'closed' group by 1 having count(*) > 1"
    )
    assert rows(supabase_db, left_open) == []


@pytest.mark.parametrize("name", ["documented", "lean", "older"])
def test_an_adopted_project_has_the_columns_keys_and_policies_of_a_new_one(
    supabase_db: Database, db: Database, name: str
) -> None:
    shape = {
        "columns": "select c.table_name || '.' || c.column_name || ' ' || c.data_type || ' ' || coalesce(c.column_default, '') as x"
        " from information_schema.columns c where table_schema = 'public'"
        " and table_name || '.' || column_name not in ('push_notifications.id', 'gre_chat_messages.sender')",
        "policies": "select tablename || policyname || coalesce(qual, '') || coalesce(with_check, '') as x from pg_policies",
        # Adopted rows may break the checks, so these are not validated.
        "constraints": "select conrelid::regclass || ' ' || replace(pg_get_constraintdef(oid), ' NOT VALID', '') as x from pg_constraint"
        " where connamespace = 'public'::regnamespace and contype in ('c', 'f')",
        "indexes": "select indexdef as x from pg_indexes where schemaname = 'public' and indexname like '%gre_chat%'",
        "grants": "select c.relname || ' ' || a.grantee::regrole || ' ' || a.privilege_type as x from pg_class c, aclexplode(c.relacl) a"
        " where relnamespace = 'public'::regnamespace and relname ~ '^(gre_|push_)' and relkind = 'r' and a.grantee <> 0",
        "not null": "select attrelid::regclass || '.' || attname as x from pg_attribute where attnotnull and attnum > 0"
        " and attrelid in ('public.gre_chat_sessions'::regclass, 'public.gre_chat_messages'::regclass)",
        "comments": "select attrelid::regclass || '.' || attname || col_description(attrelid, attnum) as x from pg_attribute join pg_class c"
        " on c.oid = attrelid where attnum > 0 and relnamespace = 'public'::regnamespace and relkind = 'r'",
    }
    lay_out(supabase_db, layout(name))
    adopt(supabase_db)
    for what, query in shape.items():
        wanted, found = ({r["x"] for r in rows(each, query)} for each in (db, supabase_db))
        assert not wanted - found, what
        if what in ("policies", "grants"):
            assert found == wanted, what


@pytest.mark.parametrize("name", ["documented", "lean", "older"])
def test_the_story_of_an_adopted_session_begins_with_its_state(supabase_db: Database, name: str) -> None:
    lay_out(supabase_db, layout(name))
    adopt(supabase_db)
    with supabase_db.connect() as conn:
        events = check_stories(conn)
        assert {event["kind"] for event in events} == {"opened"}
        assert all(event["data"]["adopted"] is True for event in events)
        opened = {event["session_id"]: event for event in events}
        for session in rows(supabase_db, "select * from gre_chat_sessions"):
            assert opened[session["id"]]["after_seq"] == session["last_seq"]
            assert (session["cycle"], session["closed_by"]) == (1, None)
        assert {m["origin"] for m in messages(supabase_db)} == {"typed"}
        # The story goes on from there.
        conn.execute(
            "update gre_chat_sessions set status = 'closed', assigned_staff_id = 's1' where status <> 'closed'"
        )
        conn.execute("update gre_chat_sessions set assigned_staff_id = null where status = 'closed'")
        assert {event["kind"] for event in check_stories(conn)} >= {"opened", "closed", "released"}


def test_what_is_older_is_in_no_figure_and_what_follows_is(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    adopt(supabase_db)
    sessions = rows(supabase_db, "select id, player_id, status, waiting_since from gre_chat_sessions")
    assert {s["status"] == "closed" for s in sessions} == {True, False}
    assert {s["waiting_since"] is None for s in sessions if s["status"] != "closed"} == {True, False}
    for table in ("cycles", "responses", "activity"):
        assert rows(supabase_db, f"select from gre_chat_{table}") == []
    with supabase_db.connect() as conn:
        check_figures(conn)
        for session in sessions:
            conn.execute("update gre_chat_sessions set status = 'closed' where id = %s", [session["id"]])
    assert rows(supabase_db, "select from gre_chat_cycles") == []


@pytest.mark.parametrize("bulk", [False, True])
def test_an_adopted_cycle_has_no_row_but_its_later_questions_have(supabase_db: Database, bulk: bool) -> None:
    lay_out(supabase_db, layout("documented"))
    adopt(supabase_db)
    with supabase_db.connect() as conn:
        sessions = conn.execute(
            "select id, player_id, waiting_since is not null as waiting from gre_chat_sessions where status <> 'closed'"
        ).fetchall()
        for session in sessions:
            for sender in [["player"], ["player", "staff", "player"], ["staff"]]:
                for part in [sender] if bulk else [[one] for one in sender]:
                    conn.execute(
                        "insert into gre_chat_messages (session_id, player_id, sender, message)"
                        " select %s, %s, s, 'x' from unnest(%s::text[]) with ordinality x (s, n) order by n",
                        [session["id"], session["player_id"], part],
                    )
            found = conn.execute(
                "select n, first, ended from gre_chat_responses where session_id = %s order by n",
                [session["id"]],
            ).fetchall()
            expected = [(1, False, "answered"), (2, False, "answered")]
            assert [tuple(row.values()) for row in found] == expected[: 1 if session["waiting"] else 2]
        assert {s["waiting"] for s in sessions} == {True, False}
        assert conn.execute("select from gre_chat_cycles").fetchall() == []
        conn.execute("update gre_chat_sessions set status = 'closed'")
        conn.execute("update gre_chat_sessions set status = 'active' where id = %s", [sessions[0]["id"]])
        conn.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (%s, 'player', 'x')",
            [sessions[0]["player_id"]],
        )
        (cycle,) = conn.execute("select session_id, cycle, asked_at from gre_chat_cycles").fetchall()
        assert (cycle["session_id"], cycle["cycle"], cycle["asked_at"] is not None) == (
            sessions[0]["id"],
            2,
            True,
        )
        assert check_figures(conn) >= len(sessions)


@pytest.mark.parametrize(
    ("column", "values", "kept"),
    [
        ("smallint", "case when status = 'closed' then 4 end", {4}),
        ("text", "case when status = 'closed' then '3' else '' end", {3}),
        ("numeric", "2.0", {2}),
        ("integer", "7", None),
        ("smallint", "0", None),
        ("text", "'good'", None),
    ],
)
def test_ratings_that_a_project_has_are_kept_or_stop_the_adoption(
    supabase_db: Database, column: str, values: str, kept: set[int] | None
) -> None:
    lay_out(
        supabase_db,
        layout("documented") + f"alter table gre_chat_sessions add column rating {column};"
        f"update gre_chat_sessions set rating = {values};",
    )
    if kept is None:
        with pytest.raises((PermanentError, ConfigurationError, psycopg.Error), match="rating"):
            adopt(supabase_db)
        return
    adopt(supabase_db)
    found = rows(supabase_db, "select status, rating from gre_chat_sessions")
    assert {row["rating"] for row in found if row["status"] == "closed"} <= kept | {None}
    assert kept <= {row["rating"] for row in found}
    assert {row["rating"] for row in found if row["status"] != "closed"} == {None}


def test_columns_of_a_project_that_are_named_as_ours_become_ours(supabase_db: Database) -> None:
    lay_out(
        supabase_db,
        layout("documented")
        + """
        alter table gre_chat_sessions add column closed_by varchar(20), add column cycle text default 'spring';
        alter table gre_chat_messages add column origin text not null default 'web' check (origin in ('web', 'app'));
        update gre_chat_sessions set closed_by = case right(id::text, 1) when '3' then 'GRE' when '1' then 'Player' else 'Greta' end;
        """,
    )
    adopt(supabase_db)
    found = rows(
        supabase_db,
        "select right(id::text, 1) as id, status, closed_by, cycle from gre_chat_sessions where id::text like '0000%' order by id",
    )
    assert [(s["id"], s["closed_by"], s["cycle"]) for s in found] == [
        ("1", "player", 1), ("2", None, 1), ("3", "staff", 1), ("4", None, 1), ("5", None, 1), ("6", None, 1),
    ]  # fmt: skip
    assert {m["origin"] for m in messages(supabase_db)} == {"typed"}
    # A portal that goes on writing its own value there is not refused.
    with supabase_db.as_caller(PLAYER) as conn:
        conn.execute(
            "insert into gre_chat_messages (player_id, player_name, message, sender, origin) values (29, 'Asha', 'x', 'player', 'app')"
        )
    assert {m["origin"] for m in messages(supabase_db)} == {"typed"}
    with supabase_db.connect() as conn:
        check_stories(conn)


def test_all_but_the_newest_open_session_are_closed_and_reported(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    planned_closes = plan(supabase_db.dsn()).closes
    said = adopt(supabase_db)
    short = "select right(id::text, 1) as id, player_id, status from gre_chat_sessions where id::text like '0000%' order by id"
    assert [(s["id"], s["status"]) for s in rows(supabase_db, short)] == [
        ("1", "closed"),
        ("2", "waiting"),
        ("3", "closed"),
        ("4", "pending"),
        ("5", "active"),
        ("6", "closed"),
    ]
    closed = [line for line in said if "closing session" in line]
    assert len(closed) == 2
    assert planned_closes == [
        "00000000-0000-4000-8000-000000000001 of player 29",
        "00000000-0000-4000-8000-000000000006 of player 31",
    ]
    # Messages that had no session: 29's in the open one, 32's closed with its history, 33's goes on.
    by_player = {m["player_id"]: m for m in messages(supabase_db) if str(m["id"])[-2:] in ("07", "08", "09")}
    assert str(by_player[29]["session_id"]).endswith("2") and by_player[29]["seq"] == 1
    states = rows(
        supabase_db,
        "select player_id, player_name, status from gre_chat_sessions where player_id in (32, 33) order by 1",
    )
    assert [tuple(s.values()) for s in states] == [(32, "Dina", "closed"), (33, "Emil", "active")]


def test_open_policies_and_grants_are_listed_by_the_dry_run_and_removed(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    foreseen = "\n".join(plan(supabase_db.dsn()).lines())
    for line in (
        'drops policy "Allow all" on gre_chat_sessions: permissive for all to public using (true) with check (true)',
        'drops policy "gre only" on gre_chat_messages: permissive for select to anon',
        "revokes from anon on gre_chat_messages: ",
        "revokes from public on gre_chat_messages: select (message)",
        "view recent_messages on gre_chat_messages: is read with its reader's rights",
        "retypes column player_id on gre_chat_sessions: integer to bigint",
        "adds column seq on gre_chat_messages: bigint",
    ):
        assert line in foreseen
    adopt(supabase_db)
    with supabase_db.as_caller({"role": "anon"}) as anon, pytest.raises(psycopg.errors.InsufficientPrivilege):
        anon.execute("select message from gre_chat_messages")
    with supabase_db.as_caller(PLAYER) as player:
        assert {r["player_id"] for r in player.execute("select player_id from gre_chat_messages")} == {29}
        assert {
            str(r["session_id"])[-1] for r in player.execute("select session_id from recent_messages")
        } == {"1", "2"}
    about = "select obj_description('public.recent_messages'::regclass) as x"
    assert rows(supabase_db, about) == [{"x": "for the lobby screen"}]


def test_times_without_zone_are_utc_and_types_change_without_loss(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("lean"))
    adopt(supabase_db)
    two = next(m for m in messages(supabase_db) if m["message"] == "two")
    assert two["created_at"].isoformat() == "2025-08-05T17:08:14.171000+00:00" == two["timestamp"].isoformat()
    assert (two["sender"], two["status"]) == ("staff", "read")
    online = rows(
        supabase_db, "select staff_id, display_name, status, last_seen_at from gre_online_status order by 1"
    )
    assert [(o["staff_id"], o["display_name"], o["status"]) for o in online] == [
        ("g1", "Greta", "online"),
        ("g2", "Gita", "offline"),
    ]
    assert online[0]["last_seen_at"].isoformat() == "2025-08-05T17:00:00+00:00"
    pushes = rows(
        supabase_db, "select id, body, audience, recipients, status from push_notifications order by id"
    )
    assert [tuple(p.values()) for p in pushes] == [
        (1, "Your table is ready", "player", ["player_29"], "sent"),
        (2, "all of you", None, None, "sent"),
    ]


def test_older_spellings_are_understood(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("older"))
    adopt(supabase_db)
    by_text = {m["message"]: m for m in messages(supabase_db)}
    assert {t: m["sender"] for t, m in by_text.items()} == {
        "a": "player",
        "b": "staff",
        "c": "system",
        "d": "player",
    }
    assert (by_text["b"]["sender_id"], by_text["b"]["sender_name"], by_text["b"]["status"]) == (
        "7",
        "Greta",
        "read",
    )
    assert (by_text["b"]["player_id"], by_text["b"]["metadata"], by_text["c"]["metadata"]) == (
        29,
        {"k": 1},
        {},
    )
    sessions = rows(
        supabase_db,
        "select right(id::text, 1) as id, player_id, status, assigned_staff_id from gre_chat_sessions order by id",
    )
    assert [tuple(s.values()) for s in sessions] == [
        ("a", 29, "closed", "7"),
        ("b", 29, "active", None),
        ("c", 30, "active", "8"),
    ]
    assert str(by_text["d"]["session_id"]).endswith("c")
    online = rows(supabase_db, "select staff_id, status, gre_id from gre_online_status order by id")
    assert [tuple(o.values()) for o in online] == [
        (None, "online", 7),
        ("7", "offline", 7),
        ("8", "online", 8),
    ]
    assert [p["status"] for p in rows(supabase_db, "select status from push_notifications order by id")] == [
        "expired",
        "sent",
    ]


def test_triggers_and_views_of_the_project_are_kept_and_do_not_fire_for_the_adoption(
    supabase_db: Database,
) -> None:
    lay_out(supabase_db, layout("older"))
    state = "select tgrelid::regclass::text as t, tgname, tgenabled, pg_get_triggerdef(oid) as d from pg_trigger where tgname like '%webhook' order by 1, 2"
    before = rows(supabase_db, state)
    adopt(supabase_db)
    assert rows(supabase_db, "select * from webhook_calls") == []
    assert rows(supabase_db, state) == before
    assert rows(supabase_db, "select * from chat_counts order by player_id") == [
        {"player_id": 29, "lines": 3},
        {"player_id": 30, "lines": 1},
    ]
    granted = "select has_table_privilege('authenticated', 'chat_counts', 'select') as x, has_table_privilege('anon', 'chat_counts', 'select') as y"
    assert rows(supabase_db, granted) == [{"x": True, "y": False}]
    with supabase_db.as_caller(SERVICE) as portal:
        portal.execute(
            "insert into gre_chat_messages (player_id, sender_type, message) values (29, 'player', 'x')"
        )
    assert [c["what"] for c in rows(supabase_db, "select what from webhook_calls")] == [
        "gre_chat_messages INSERT"
    ]


WEBHOOKS = """
create table webhook_calls (what text);
create function call_webhook() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into public.webhook_calls values (tg_table_name || ' ' || tg_op);
  return null;
end $$;
create trigger webhook after insert or update on gre_chat_sessions for each row execute function call_webhook();
create trigger webhook after insert or update on gre_chat_messages for each row execute function call_webhook();
create trigger webhook_off after update on gre_chat_sessions for each row execute function call_webhook();
create trigger webhook_always after update on gre_chat_sessions for each row execute function call_webhook();
alter table gre_chat_sessions disable trigger webhook_off, enable always trigger webhook_always;
create constraint trigger webhook_at_commit after insert or update on gre_chat_sessions
  deferrable initially deferred for each row execute function call_webhook();
"""


def test_a_webhook_on_sessions_is_kept_and_does_not_fire_for_the_adoption(
    supabase_db: Database,
) -> None:
    lay_out(supabase_db, layout("documented"))
    lay_out(supabase_db, WEBHOOKS)
    state = "select tgrelid::regclass::text as t, tgname, tgenabled, pg_get_triggerdef(oid) as d from pg_trigger where tgname like 'webhook%' order by 1, 2"
    before = rows(supabase_db, state)
    adopt(supabase_db)
    assert rows(supabase_db, "select * from webhook_calls") == []
    assert rows(supabase_db, state) == before
    with supabase_db.as_caller(SERVICE) as portal:
        portal.execute("update gre_chat_sessions set status = 'closed' where player_id = 30")
    called = rows(
        supabase_db, "select count(*) as n from webhook_calls where what = 'gre_chat_sessions UPDATE'"
    )
    assert called == [{"n": 3}], "only the enabled ones fire"


def test_deferred_foreign_keys_do_not_stop_the_adoption(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented").replace("player_id integer", "player_id bigint"))
    lay_out(
        supabase_db,
        "create table players (id bigint primary key);"
        "insert into players select distinct player_id from gre_chat_messages union select player_id from gre_chat_sessions;"
        "alter table gre_chat_sessions add foreign key (player_id) references players deferrable initially deferred;"
        "alter table gre_chat_messages add foreign key (player_id) references players deferrable initially deferred",
    )
    adopt(supabase_db)
    kept = "select count(*) as n from pg_constraint where contype = 'f' and condeferred"
    assert rows(supabase_db, kept) == [{"n": 2}]


def test_the_dry_run_finds_errors_that_only_an_execution_shows_and_changes_nothing(
    supabase_db: Database,
) -> None:
    lay_out(supabase_db, layout("documented"))
    # Players 32 and 33 have no session, so one must be opened for each; the project allows one such room.
    lay_out(supabase_db, "alter table gre_chat_sessions add column room text default 'lobby'")
    lay_out(supabase_db, "update gre_chat_sessions set room = id::text")
    lay_out(
        supabase_db,
        "create function one_lobby() returns trigger language plpgsql as $$ begin return new; end $$",
    )
    lay_out(supabase_db, "alter table gre_chat_sessions add constraint one_lobby exclude (room with =)")
    everything = "select oid, relname, relnatts, relfilenode, relacl::text from pg_class where relnamespace in (select oid from pg_namespace where nspname in ('public', 'gre', 'supabase_migrations')) order by 1"
    before = rows(supabase_db, everything)
    foreseen = plan(supabase_db.dsn())
    assert not foreseen.good
    assert (
        "gre_messages failed, and nothing was changed" in foreseen.blockers[0]
        and "one_lobby" in foreseen.blockers[0]
    )
    with pytest.raises(PermanentError, match="one_lobby"):
        migrate(supabase_db.dsn())
    assert rows(supabase_db, everything) == before


def test_the_dry_run_prints_the_notices_of_the_migrations(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    foreseen = plan(supabase_db.dsn())
    assert any(
        note.startswith("dropping constraint gre_chat_messages_message_check") for note in foreseen.notes
    )
    assert not [note for note in foreseen.notes if "dropping policy" in note], "listed with their conditions"


def test_an_adopted_session_waits_since_its_first_unanswered_message(
    supabase_db: Database,
) -> None:
    lay_out(supabase_db, layout("documented"))
    adopt(supabase_db)
    waiting = "select player_id, waiting_since::text as since, staff_read_seq = last_seq as read from gre_chat_sessions where status <> 'closed' order by 1"
    assert [
        tuple(s.values()) for s in rows(supabase_db, f"set timezone = 'UTC'; {waiting}".split("; ")[1])
    ] == [
        (29, "2025-01-15 10:00:00+00", True),
        (30, None, True),
        (31, "2025-01-09 10:00:00+00", True),
        (33, None, True),
    ]


def test_old_columns_cannot_name_another_sender_or_hold_megabytes(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("older"))
    adopt(supabase_db)
    with supabase_db.connect() as conn:
        conn.execute("insert into gre_staff (staff_id, display_name) values ('7', 'Greta'), ('8', 'Gita')")
    said = "insert into gre_chat_messages (player_id, sender, gre_id, gre_name, message, channel, sender_type) values"
    with supabase_db.as_caller(player(29).claims) as portal:
        sent = portal.execute(
            f"{said} (29, 'player', 7, 'Greta', 'x', 'web', 'player') returning *"
        ).fetchone()
        assert sent is not None and (sent["gre_id"], sent["gre_name"]) == (None, None)
        before = portal.execute("select last_seq from gre_chat_sessions where status = 'active'").fetchone()
        for large in ("message, channel", "message, gre_name, channel"):
            values = "'x'" + ", repeat('y', 5000000)" * large.count(",")
            with pytest.raises(psycopg.Error, match="larger than 64 KB"):
                portal.execute(
                    f"insert into gre_chat_messages (player_id, sender, sender_type, {large})"
                    f" values (29, 'player', 'player', {values})"
                )
        assert (
            portal.execute("select last_seq from gre_chat_sessions where status = 'active'").fetchone()
            == before
        )
    with supabase_db.as_caller(staff("8").claims) as portal:
        sent = portal.execute(f"{said} (29, 'staff', 7, 'Greta', 'x', 'web', 'gre') returning *").fetchone()
        assert sent is not None
        assert (sent["gre_id"], sent["gre_name"], sent["sender_id"]) == (8, "Gita", "8")
        sent = portal.execute(
            "insert into gre_chat_messages (player_id, sender, message, channel) values (29, 'staff', 'x', 'web') returning *"
        ).fetchone()
        assert sent is not None and (sent["gre_id"], sent["gre_name"]) == (8, "Gita"), (
            "old portals read the sender there"
        )
        row = portal.execute(
            "insert into gre_online_status (gre_id, gre_name, is_online) values (8, 'Greta', true) returning gre_id, gre_name, staff_id"
        ).fetchone()
        assert row == {"gre_id": 8, "gre_name": "Gita", "staff_id": "8"}
        changed = portal.execute(
            "update gre_online_status set gre_id = 7, gre_name = 'Greta' where staff_id = '8' returning gre_id, gre_name"
        ).fetchone()
        assert changed == {"gre_id": 8, "gre_name": "Gita"}


def test_staff_may_insert_their_presence_again_with_their_own_token_only(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("older"))
    adopt(supabase_db)
    with supabase_db.connect() as conn:
        conn.execute("insert into gre_staff (staff_id, display_name) values ('7', 'Greta'), ('8', 'Gita')")
    with supabase_db.as_caller(staff("8").claims) as portal:
        for online in (True, False, True):  # as an old portal does at each sign-in: a plain insert
            portal.execute("insert into gre_online_status (gre_id, is_online) values (8, %s)", [online])
        upsert = "insert into gre_online_status (staff_id, status) values (%s, 'away') on conflict (staff_id) do update set status = excluded.status"
        portal.execute(upsert, ["8"])
        rows = portal.execute(
            "select staff_id, gre_id, status from gre_online_status where staff_id = '8'"
        ).fetchall()
        assert rows == [{"staff_id": "8", "gre_id": 8, "status": "away"}]
        for other in (
            "insert into gre_online_status (gre_id, is_online) values (7, true)",
            "insert into gre_online_status (staff_id, status) values ('7', 'online')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                portal.execute(other)
    with (
        supabase_db.as_caller(player(29).claims) as portal,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        portal.execute("insert into gre_online_status (gre_id, is_online) values (8, true)")


def test_inserts_of_old_portals_still_work(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("older"))
    adopt(supabase_db)
    with supabase_db.as_caller(SERVICE) as portal:
        sent = portal.execute(
            "insert into gre_chat_messages (player_id, sender_type, gre_id, gre_name, message, channel)"
            " values ('30', 'gre', 8, 'Gita', 'hello', 'web') returning *"
        ).fetchone()
        assert sent is not None
        assert (sent["sender"], sent["sender_id"], sent["sender_name"], sent["seq"]) == (
            "staff",
            "8",
            "Gita",
            2,
        )
        # The reverse: a row with the new names is readable under the old ones.
        new = portal.execute(
            "insert into gre_chat_messages (player_id, sender, message) values (30, 'staff', 'x') returning *"
        ).fetchone()
        assert new is not None
        assert (new["sender_type"], new["seq"]) == ("gre", 3)

        # A player cannot appear as staff to a portal that reads sender_type.
        forged = portal.execute(
            "insert into gre_chat_messages (player_id, sender, sender_type, message) values (30, 'player', 'gre', 'x') returning *"
        ).fetchone()
        assert forged is not None
        assert (forged["sender"], forged["sender_type"]) == ("player", "player")

        portal.execute("update gre_chat_sessions set status = 'ended' where player_id = 30")
        opened = portal.execute(
            "insert into gre_chat_sessions (player_id, status, gre_id) values ('30', 'open', 9) returning status, assigned_staff_id"
        ).fetchone()
        assert opened == {"status": "active", "assigned_staff_id": "9"}

        portal.execute("update gre_online_status set is_online = true where gre_id = 7")
        portal.execute("insert into gre_online_status (gre_id, gre_name, is_online) values (11, 'Gus', true)")
        portal.execute(
            "insert into gre_online_status (gre_id, gre_name, is_online) values (8, 'Gita', false)"
        )
        portal.execute(
            "insert into gre_online_status (staff_id, status) values ('12', 'away') on conflict (staff_id) do nothing"
        )
        online = portal.execute(
            "select staff_id, status, is_online, gre_id from gre_online_status where staff_id is not null order by gre_id"
        )
        assert [tuple(o.values()) for o in online] == [
            ("7", "online", True, 7),
            ("8", "offline", False, 8),
            ("11", "online", True, 11),
            ("12", "away", False, 12),
        ]

        push = portal.execute(
            "insert into push_notifications (title, message, target_player_id, status) values ('t', 'b', '30', 'pending') returning *"
        ).fetchone()
        assert push is not None
        assert (push["id"], push["body"], push["audience"], push["recipients"], push["status"]) == (
            43,
            "b",
            "player",
            ["player_30"],
            "queued",
        )
    with supabase_db.connect() as conn:
        events = conn.execute(
            "select event, count(*) as n from gre_relay_deliveries where sink = 'onesignal' group by 1 order by 1"
        ).fetchall()
        assert events == [{"event": "message", "n": 3}, {"event": "push", "n": 1}]
        claimed = conn.execute(
            "select gre_relay_claim_v1('onesignal', gen_random_uuid()) -> 'lanes' as x"
        ).fetchone()
        assert claimed is not None
        assert "push:43" in {lane["lane_key"] for lane in claimed["x"]}


def test_a_column_default_of_the_old_sender_still_applies(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("lean"))
    adopt(supabase_db)
    with supabase_db.as_caller(SERVICE) as portal:
        row = portal.execute(
            "insert into gre_chat_messages (player_id, message) values (29, 'x') returning sender, seq"
        ).fetchone()
        assert row is not None and row["sender"] == "staff"
        portal.execute(
            "insert into gre_online_status (gre_id, gre_name, is_online) values ('g1', 'Greta', false) on conflict (gre_id) do update set is_online = excluded.is_online"
        )
        portal.execute(
            "insert into gre_online_status (staff_id, display_name, status) values ('s1', 'Sam', 'online') on conflict (staff_id) do update set status = excluded.status"
        )
        online = portal.execute("select gre_id, gre_name, status from gre_online_status order by 1")
        assert [tuple(o.values()) for o in online] == [
            ("g1", "Greta", "offline"),
            ("g2", "Gita", "offline"),
            ("s1", "Sam", "online"),
        ]


def test_history_that_breaks_the_new_text_rules_is_kept_and_can_be_read(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("lean"))
    adopt(supabase_db)
    with supabase_db.as_caller(STAFF) as staff:
        texts = {
            m["message"][:5]: len(m["message"])
            for m in staff.execute("select message from gre_chat_messages where player_id = 30")
        }
    assert texts == {"": 0, "long ": 5000}
    # An old row that violates a new rule must not stop a reader that marks messages as read.
    with supabase_db.connect() as conn:
        conn.execute("update gre_chat_messages set status = 'read' where status <> 'read'")


def test_a_portal_that_writes_between_two_migrations_is_adopted_too(
    supabase_db: Database, tmp_path: Path
) -> None:
    lay_out(supabase_db, layout("documented"))
    first = tmp_path / "first"
    first.mkdir()
    for path in takewhile(lambda path: "gre_messages" not in path.name, MIGRATIONS):
        (first / path.name).write_text(path.read_text())
    migrate(supabase_db.dsn(), directory=first)
    insert = "insert into gre_chat_messages (player_id, sender, message, session_id) values (30, 'gre', 'between', '00000000-0000-4000-8000-000000000004')"
    with supabase_db.as_caller({"role": "anon"}) as portal:
        portal.execute(insert)
    adopt(supabase_db)
    (between,) = [m for m in messages(supabase_db) if m["message"] == "between"]
    assert (between["sender"], between["seq"]) == ("staff", 1)
    assert enqueued(supabase_db) == 0


BLOCKED = {
    "public.gre_chat_messages.id is bigint, not uuid": "create table gre_chat_messages (id bigserial primary key, player_id int, message text)",
    "public.gre_chat_messages is a view, not an ordinary table": "create view gre_chat_messages as select 1 as id",
    "public.gre_chat_sessions.player_id is text and holds 1 values that are no whole numbers":
        "create table gre_chat_sessions (id uuid primary key, player_id text);"
        "insert into gre_chat_sessions values (gen_random_uuid(), '29'), (gen_random_uuid(), 'asha')",
    "public.gre_chat_messages.session_id is text and holds 1 values that are no uuid":
        "create table gre_chat_messages (id uuid, session_id text, player_id int, message text);"
        "insert into gre_chat_messages values (gen_random_uuid(), 'room-1', 29, 'x')",
    "public.gre_chat_messages.player_id is missing for 1 messages without a session":
        "create table gre_chat_messages (id uuid, message text); insert into gre_chat_messages values (gen_random_uuid(), 'x')",
    "public.gre_chat_messages.created_at is text and holds values that are no timestamp with time zone":
        "create table gre_chat_messages (id uuid, player_id int, message text, created_at text);"
        "insert into gre_chat_messages values (gen_random_uuid(), 29, 'x', 'yesterday-ish')",
    "public.gre_staff exists already, without column active: rename it": "create table gre_staff (staff_id text, user_id uuid, display_name text, role text, updated_at timestamptz)",
    "counts reads plain, whose columns are rewritten: drop it":
        "create table gre_chat_messages (id uuid, player_id int, message text);"
        "create view plain as select player_id from gre_chat_messages;"
        "create materialized view counts as select player_id, count(*) from plain group by 1",
    "column folded of table gre_chat_messages depends on public.gre_chat_messages.message, whose type has to change":
        "create table gre_chat_messages (id uuid, player_id int, message varchar, folded text generated always as (lower(message)) stored)",
    "gre_chat_messages has messages without a session of 1 players who are not in players (foreign key gre_chat_sessions_player_id_fkey":
        "create table players (id bigint primary key); insert into players values (29);"
        "create table gre_chat_sessions (id uuid primary key, player_id bigint references players deferrable initially deferred);"
        "create table gre_chat_messages (id uuid, session_id uuid, player_id bigint, message text);"
        "insert into gre_chat_sessions values ('00000000-0000-4000-8000-000000000001', 29);"
        "insert into gre_chat_messages values (gen_random_uuid(), null, 29, 'x'), (gen_random_uuid(), null, 30, 'of a deleted player')",
    "policy shown on table reports reads gre_chat_messages, whose columns are rewritten":
        "create table gre_chat_messages (id uuid, player_id int, message text); create table reports (player_id int);"
        "create policy shown on reports using (exists (select from gre_chat_messages m where m.player_id = reports.player_id))",
}  # fmt: skip


@pytest.mark.parametrize("problem", BLOCKED)
def test_a_project_that_cannot_be_adopted_is_refused_in_one_line_before_any_change(
    supabase_db: Database, problem: str
) -> None:
    lay_out(supabase_db, BLOCKED[problem])
    everything = "select oid, relname, relnatts, relacl::text from pg_class where relnamespace in (select oid from pg_namespace where nspname in ('public', 'gre')) order by 1"
    before = rows(supabase_db, everything)
    foreseen = plan(supabase_db.dsn())
    assert not foreseen.good
    assert any(problem in blocker for blocker in foreseen.blockers)
    with pytest.raises(ConfigurationError) as caught:
        migrate(supabase_db.dsn())
    assert problem in str(caught.value) and "\n" not in str(caught.value)
    assert rows(supabase_db, everything) == before


def test_tables_of_a_role_that_the_migrating_role_may_not_set_are_not_changed(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"), user="supabase_admin")
    with pytest.raises(
        ConfigurationError,
        match=r"public.gre_chat_messages belongs to role supabase_admin and postgres may not alter it",
    ):
        migrate(supabase_db.dsn())
    migrate(supabase_db.dsn("supabase_admin"))
    assert enqueued(supabase_db) == 0


def test_adoption_writes_no_row_that_realtime_would_send(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    with supabase_db.connect("supabase_admin") as conn:
        conn.execute("alter publication supabase_realtime add table gre_chat_messages, gre_chat_sessions")
        conn.execute("select pg_create_logical_replication_slot('listens', 'pgoutput')")
        try:
            adopt(supabase_db)
            conn.execute(
                "insert into gre_chat_messages (player_id, sender, message) values (29, 'player', 'news')"
            )
            told = conn.execute(
                "select chr(get_byte(data, 0)) as kind from pg_logical_slot_get_binary_changes('listens', null, null,"
                " 'proto_version', '1', 'publication_names', 'supabase_realtime')"
            )
            # Sessions opened for messages without one are new; the last three changes are those of the message sent here.
            kinds = [t["kind"] for t in told if t["kind"] in "IUDT"]
            assert kinds[:-2] == ["I", "I"], "old rows are sent"
            assert kinds[-2:] == ["I", "U"], "only the message and its session are sent"
        finally:
            conn.execute("select pg_drop_replication_slot('listens')")


def test_a_large_history_is_adopted_in_seconds(supabase_db: Database) -> None:
    lay_out(supabase_db, layout("documented"))
    lay_out(
        supabase_db,
        "insert into gre_chat_messages (player_id, message, sender, created_at)"
        " select n % 500 + 1, 'line ' || n, case n % 2 when 0 then 'gre' else 'player' end, '2025-01-01'::timestamptz + n * interval '1 s'"
        " from generate_series(1, 100000) n",
    )
    started = time.monotonic()
    adopt(supabase_db)
    took = time.monotonic() - started
    (counts,) = rows(
        supabase_db,
        "select count(*) as n, count(distinct session_id) as s, max(seq) as longest from gre_chat_messages",
    )
    assert counts["n"] == 100010
    assert counts["longest"] >= 200
    assert enqueued(supabase_db) == 0
    assert took < 120, f"took {took:.1f} s"

"""Plans: with 200,000 delivered rows, every query of the relay uses an index.

The relay's statements run inside functions, so the tests read PostgreSQL's counters; the portals' documented queries
are checked with EXPLAIN.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from gre_bridge.devstack.postgres import EmbeddedPostgres
from tests.conftest import PLAYER, STAFF, Database
from tests.integration.filling import without_indexes
from tests.integration.test_outbox import all_done, claim, send, settle

FILL = """
set session_replication_role = replica;
insert into gre_chat_sessions (id, player_id, status, last_seq, last_message_at, updated_at)
  select md5('s' || g)::uuid, g, case when g % 5 = 0 then 'active' else 'closed' end, 20, now() - g * interval '1 minute',
    now() - g * interval '1 minute'
  from generate_series(1, 5001) g;
insert into gre_chat_messages (id, session_id, seq, player_id, sender, message, metadata, created_at)
  select md5('m' || g)::uuid, md5('s' || 1 + g / 20)::uuid, 1 + g % 20, 1 + g / 20, 'player', 'message ' || g, '{}',
    now() - g * interval '1 second'
  from generate_series(0, 99999) g;
insert into gre_relay_lanes (sink, lane_key)
  select s.name, md5('s' || g)::uuid::text from generate_series(1, 5001) g, gre_relay_sinks s;
insert into gre_relay_deliveries (sink, lane_key, ord, event, message_id, state, settled_at)
  select s.name, md5('s' || 1 + g / 20)::uuid::text, g, 'message', md5('m' || g)::uuid, 'done', now()
  from generate_series(0, 99999) g, gre_relay_sinks s;
select setval('gre.delivery_ord', 1000000);
set session_replication_role = origin;
"""
TABLES = (
    "gre_relay_deliveries",
    "gre_relay_lanes",
    "gre_chat_messages",
    "gre_chat_sessions",
    "push_notifications",
)


@pytest.fixture(scope="module")
def full(pg: EmbeddedPostgres, migrated_template: str) -> Iterator[Database]:
    """A database with 200,000 delivered rows."""
    pg.create_database("full", migrated_template)
    database = Database(pg, "full")
    with database.connect("supabase_admin") as admin:
        with without_indexes(admin, *TABLES):
            admin.execute(FILL, prepare=False)
        admin.execute("vacuum analyze")
    yield database
    pg.drop_database("full")


def scans(conn: psycopg.Connection[dict[str, Any]]) -> dict[str, int]:
    """Return the rows of each table that sequential scans have read."""
    conn.execute("select pg_stat_force_next_flush()")
    conn.execute("select pg_stat_clear_snapshot()")
    rows = conn.execute(
        "select relname, seq_tup_read from pg_stat_user_tables where relname = any(%s)", [list(TABLES)]
    )
    return {row["relname"]: row["seq_tup_read"] for row in rows}


def plan(conn: psycopg.Connection[dict[str, Any]], query: str) -> str:
    """A statement's plan as text."""
    return "\n".join(row["QUERY PLAN"] for row in conn.execute(f"explain {query}"))


def test_insert_claim_settle_extend_and_release_scan_no_table(full: Database) -> None:
    with full.connect() as conn:
        before = scans(conn)
        for player in range(10, 1010, 10):
            send(conn, player, "new")
        for sink in ("pusher", "onesignal"):
            owner = str(uuid.uuid4())
            got = claim(conn, sink, lanes=50, per_lane=10, owner=owner)
            lanes = [lane["lane_key"] for lane in got["lanes"]]
            assert len(lanes) == 50
            conn.execute("select gre_relay_extend_v1(%s, %s, %s)", [sink, got["token"], lanes])
            settle(conn, *all_done(got)[:40], sink=sink)
            again = claim(conn, sink, lanes=5, per_lane=10, owner=owner)
            assert again["recovered_lanes"] == 5
            conn.execute("select gre_relay_release_v1(%s, %s)", [sink, owner])
            rest = claim(conn, sink, lanes=100, per_lane=10)
            assert len(rest["lanes"]) == 60
            settle(conn, *all_done(rest), sink=sink)
            assert claim(conn, sink)["lanes"] == []
        assert scans(conn) == before


def test_history_and_session_list_use_indexes(full: Database) -> None:
    session = "md5('s100')::uuid"
    queries = {
        f"select * from gre_chat_messages where session_id = {session} order by seq desc limit 50": "gre_chat_messages_seq",
        f"select * from gre_chat_messages where session_id = {session} and seq > 10 order by seq limit 50": "gre_chat_messages_seq",
        "select * from gre_chat_messages where player_id = 29 order by created_at desc limit 200": "gre_chat_messages_player",
        "select * from gre_chat_sessions where player_id = 29 and status <> 'closed'": "gre_chat_sessions_one_open",
        "select * from gre_chat_sessions where status = 'active' order by last_message_at desc nulls last limit 50": "gre_chat_sessions_recent",
        "select * from gre_chat_sessions where updated_at > now() - interval '1 minute'": "gre_chat_sessions_updated",
    }
    for claims in (STAFF, PLAYER):
        with full.as_caller(claims) as caller:
            for query, index in queries.items():
                text = plan(caller, query)
                assert "Seq Scan" not in text, f"{claims}: {query}\n{text}"
                if claims is STAFF:
                    assert index in text, f"{query}\n{text}"


def test_pending_deliveries_are_counted_on_their_index(full: Database) -> None:
    with full.connect() as conn:
        send(conn, 29, "counted")
        before = scans(conn)["gre_relay_deliveries"]
        rows = conn.execute("select gre_relay_stats_v1() as s").fetchone()
        assert rows is not None
        assert {s["sink"]: s["pending"] for s in rows["s"]}["pusher"] >= 1
        assert scans(conn)["gre_relay_deliveries"] == before
